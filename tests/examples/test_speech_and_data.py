"""The speech and the paired data set."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from solver import solve


def test_a_clip_depends_on_text_and_speaker_and_not_on_what_was_spoken_before(questions):
    from speech import TRAIN_VOICES, Speaker, speak

    text = questions.generate("train", 1, 0)[0].text

    def digest(voice):
        return hashlib.sha256(speak(text, Speaker(voice, 210, 50, 20.0, 1)).tobytes()).hexdigest()

    forwards = [digest(voice) for voice in TRAIN_VOICES]
    backwards = [digest(voice) for voice in reversed(TRAIN_VOICES)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(TRAIN_VOICES)


def test_speech_is_louder_than_its_noise_by_the_given_ratio():
    from speech import Speaker, speak

    clean = speak("Good morning.", Speaker("en-us", 200, 50, 90.0, 1))
    for snr in (10.0, 30.0):
        noise = speak("Good morning.", Speaker("en-us", 200, 50, snr, 1)) - clean
        measured = 10 * np.log10(np.mean(clean**2) / np.mean(noise**2))
        assert measured == pytest.approx(snr, abs=0.3)
    assert np.abs(clean).max() == pytest.approx(0.5, abs=1e-3)


def test_clips_stay_within_the_window(questions):
    from speech import HELD_OUT_VOICES, MAX_SECONDS, SAMPLE_RATE, SLOWEST, Speaker, speak

    longest = sorted(questions.generate("train", 1000, 1), key=lambda q: -len(q.text))[:10]
    for i, q in enumerate(longest):
        slowest = Speaker(HELD_OUT_VOICES[i % 4], SLOWEST, 50, 20.0, 1)
        assert 3 < len(speak(q.text, slowest)) / SAMPLE_RATE <= MAX_SECONDS


def test_a_clip_beyond_the_window_and_an_unknown_voice_are_errors():
    from speech import Speaker, speak

    with pytest.raises(ValueError, match="never cut"):
        speak("one two three four five " * 20, Speaker("en-us", 195, 50, 20.0, 1))
    with pytest.raises(ValueError, match="expected a voice"):
        speak("Hello.", Speaker("no-such-voice", 195, 50, 20.0, 1))


def test_held_out_voices_do_not_speak_in_training():
    from speech import HELD_OUT_VOICES, TRAIN_VOICES, Speaker

    assert not set(HELD_OUT_VOICES) & set(TRAIN_VOICES)
    assert {Speaker.draw(str(i), 0).voice for i in range(300)} == set(TRAIN_VOICES)
    assert {Speaker.draw(str(i), 0, held_out=True).voice for i in range(100)} == set(HELD_OUT_VOICES)


# --- data set ----------------------------------------------------------------------------------------------------


def test_rows_are_adjacent_pairs_of_one_question(data):
    table = pd.read_parquet(data / "test.parquet")
    assert len(table) == 16
    for spoken, written in zip(table.iloc[::2].itertuples(), table.iloc[1::2].itertuples(), strict=True):
        assert (spoken.modality, written.modality) == ("speech", "text")
        assert spoken.pair_id == written.pair_id
        assert spoken.answer == written.answer == spoken.reward_model["ground_truth"]
        assert spoken.prompt[0]["content"] == "<audio>"
        assert written.prompt[0]["content"] == spoken.extra_info["question"]
        assert solve(written.prompt[0]["content"]) == written.answer
        assert list(written.audios) == []
        (wav,) = spoken.audios
        assert Path(wav).is_absolute()
        assert Path(wav).stat().st_size > 16_000
    assert table["pair_id"].nunique() == 8


def test_the_same_seed_writes_the_same_bytes(data, tmp_path):
    import make_data

    make_data.write_split(tmp_path, "test", 8, seed=0, workers=1)
    wavs = sorted((tmp_path / "wav" / "test").iterdir())
    assert len(wavs) == 8
    for wav in wavs:
        assert wav.read_bytes() == (data / "wav" / "test" / wav.name).read_bytes()
