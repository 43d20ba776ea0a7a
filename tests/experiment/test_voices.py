"""The voices that no base was trained on."""

import hashlib

import numpy as np
import pytest

TEXT = "Sebastian is richer than Edward. Sebastian is poorer than Carmen. Who is the richest? A: Edward. B: Sebastian."


def digest(voices, voice):
    from speech import Speaker

    return hashlib.sha256(voices.speak_unseen(TEXT, Speaker(voice, 220, 50, 20.0, 1)).tobytes()).hexdigest()


@pytest.fixture
def voices():
    import voices

    return voices


def test_a_clip_depends_on_its_arguments_alone(voices):
    forwards = [digest(voices, voice) for voice in voices.UNSEEN_VOICES]
    backwards = [digest(voices, voice) for voice in reversed(voices.UNSEEN_VOICES)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(voices.UNSEEN_VOICES)


def test_the_rate_is_that_of_the_training_voices(voices):
    from speech import Speaker, speak

    usual = len(speak(TEXT, Speaker("en-us", 220, 50, 90.0, 1)))
    for voice in voices.UNSEEN_VOICES:
        clip = voices.speak_unseen(TEXT, Speaker(voice, 220, 50, 90.0, 1))
        slow = voices.speak_unseen(TEXT, Speaker(voice, 160, 50, 90.0, 1))
        assert len(clip) == pytest.approx(usual, rel=0.2)
        assert 1.1 < len(slow) / len(clip) < 220 / 160 + 0.1  # pauses are not stretched by all
        assert np.abs(clip).max() == pytest.approx(0.5, abs=1e-3)


def test_half_of_the_speakers_are_of_each_program_and_all_voices_speak(voices):
    from speech import HELD_OUT_VOICES, TRAIN_VOICES

    drawn = [voices.unseen_speaker(str(i), 0) for i in range(400)]
    assert {speaker.voice for speaker in drawn} == set(voices.UNSEEN_VOICES)
    assert not set(voices.UNSEEN_VOICES) & {*TRAIN_VOICES, *HELD_OUT_VOICES}
    assert 160 < sum(speaker.voice.startswith("piper/") for speaker in drawn) < 240
    assert len({speaker.rate for speaker in drawn}) > 10


def test_another_voice_and_a_missing_program_are_errors(voices, monkeypatch):
    from speech import Speaker

    with pytest.raises(ValueError, match="expected a voice"):
        voices.speak_unseen(TEXT, Speaker("en-us", 220, 50, 20.0, 1))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="flite is not installed"):
        voices.speak_unseen(TEXT, Speaker("flite/slt", 220, 50, 20.0, 1))
