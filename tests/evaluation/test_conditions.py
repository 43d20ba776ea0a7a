"""Noise at the ratio asked for, the same for the same question, never clipped; speed changes length and pitch."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_rewards.errors import AdapterError, ConfigError
from tars_rewards.evaluation.conditions import Condition, active_power, within_full_scale

RATE = 16000


def bursts(amplitude=0.1, pause=0.5, seconds=2.0, frequency=440):
    """A tone that sounds and pauses in turns, in whole frames of 20 ms."""
    places = np.arange(int(RATE * seconds))
    times, sounding = places / RATE, places % 6400 < round(6400 * (1 - pause))
    return (amplitude * np.sin(2 * np.pi * frequency * times) * sounding).astype(np.float32), sounding


def clip(samples):
    return {"array": samples, "sampling_rate": RATE}


def heard(condition, samples, identity="q1"):
    made = condition.apply(clip(samples), identity)
    assert made["sampling_rate"] == RATE
    return made["array"]


@pytest.mark.parametrize("snr", [-10, -5, 0, 5, 10, 20, 30])
@pytest.mark.parametrize("pause", [0.0, 0.5, 0.9])
def test_the_ratio_is_the_one_asked_for(snr, pause):
    samples, sounding = bursts(pause=pause)
    noisy = heard(Condition(snr_db=snr), samples).astype(np.float64)
    scale = noisy[sounding] @ samples[sounding] / (samples[sounding] @ samples[sounding])
    if snr >= 0:
        assert scale == pytest.approx(1, abs=0.1)
    noise = noisy - min(1.0, 1 / np.abs(exact(samples, snr)).max()) * samples
    # By the places where the tone is known to sound, not by the frames that the code finds.
    speech = np.mean((noisy - noise)[sounding] ** 2)
    assert 10 * math.log10(speech / np.mean(noise**2)) == pytest.approx(snr, abs=0.1)


def exact(samples, snr):
    """What the mixture would be if nothing were made quieter."""
    quiet = Condition(snr_db=snr).apply(clip(samples / 1000), "q1")["array"].astype(np.float64)
    return 1000 * quiet


def test_the_noise_is_white_and_gaussian():
    from scipy import stats

    samples, _ = bursts(amplitude=0.01, seconds=4)
    noise = heard(Condition(snr_db=0), samples) - samples
    assert stats.kstest(noise / noise.std(), "norm").pvalue > 0.01
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    bands = [band.mean() for band in np.array_split(spectrum, 8)]
    assert max(bands) / min(bands) < 1.3


def test_pauses_do_not_make_a_clip_a_quiet_one():
    loud, _ = bursts(pause=0.0)
    sparse, _ = bursts(pause=0.75)
    assert active_power(sparse) == pytest.approx(active_power(loud), rel=0.01)
    assert np.mean(sparse**2) == pytest.approx(np.mean(loud**2) / 4, rel=0.01)


def test_a_hum_below_the_speech_is_no_speech():
    speech, _ = bursts(pause=0.5)
    hum = 0.0005 * np.sin(np.arange(len(speech)))
    assert active_power(speech + hum) == pytest.approx(active_power(speech), rel=0.02)


def test_a_question_has_its_noise():
    samples, _ = bursts()
    condition = Condition(snr_db=10)
    np.testing.assert_array_equal(heard(condition, samples), heard(condition, samples))
    np.testing.assert_array_equal(
        heard(pickle.loads(pickle.dumps(condition)), samples, "q2"), heard(condition, samples, "q2")
    )
    assert not np.allclose(heard(condition, samples), heard(condition, samples, "q2"))
    assert not np.allclose(heard(condition, samples), heard(Condition(snr_db=10, seed=1), samples))


def test_between_ratios_the_noise_differs_by_its_level():
    samples, _ = bursts(amplitude=0.01)
    weak, strong = (heard(Condition(snr_db=snr), samples).astype(np.float64) - samples for snr in (20, 0))
    np.testing.assert_allclose(strong, 10 * weak, atol=1e-6)


def test_what_would_be_clipped_is_made_quieter_as_a_whole():
    samples, _ = bursts(amplitude=0.9, pause=0.5)
    noisy = heard(Condition(snr_db=0), samples)
    assert np.abs(noisy).max() == pytest.approx(1.0, abs=1e-6)
    assert np.sum(np.abs(noisy) > 0.9999) == 1  # one peak, not a flat top
    unclipped = exact(samples, 0)
    assert np.abs(unclipped).max() > 1.5
    np.testing.assert_allclose(noisy, unclipped / np.abs(unclipped).max(), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(-20, 40), st.floats(1e-3, 1.0), st.integers(1, 3 * RATE))
def test_it_is_finite_and_within_full_scale(snr, amplitude, length):
    samples = (amplitude * np.sin(0.3 * np.arange(1, length + 1))).astype(np.float32)
    noisy = heard(Condition(snr_db=snr), samples)
    assert noisy.dtype == np.float32
    assert noisy.shape == samples.shape
    assert np.isfinite(noisy).all()
    assert np.abs(noisy).max() <= 1


def test_speed_changes_length_and_pitch():
    samples, _ = bursts(pause=0.0, frequency=440)
    fast = heard(Condition(speed=1.25), samples)
    assert len(fast) == pytest.approx(len(samples) / 1.25, abs=2)
    spectrum = np.abs(np.fft.rfft(fast))
    assert np.argmax(spectrum) * RATE / len(fast) == pytest.approx(440 * 1.25, abs=2)


def test_noise_is_added_after_the_speed():
    samples, _ = bursts(pause=0.0, amplitude=0.01)
    fast = heard(Condition(speed=2.0), samples)
    noise = heard(Condition(speed=2.0, snr_db=0), samples) - fast
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = (half.mean() for half in np.array_split(spectrum, 2))
    assert high == pytest.approx(low, rel=0.2)  # noise that was played faster would have no upper half


def test_without_a_condition_the_clip_is_left_alone():
    given_clip = {"path": "clips/a.wav"}
    assert Condition().apply(given_clip, "q1") is given_clip
    assert Condition().clean
    assert not Condition(speed=0.9).clean
    assert not Condition(snr_db=0).clean


def test_a_clip_of_another_rate_is_resampled(tmp_path):
    import soundfile

    samples = 0.1 * np.sin(2 * np.pi * 300 * np.arange(8000) / 8000)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    made = Condition(snr_db=20).apply(str(tmp_path / "a.wav"), "q1")
    assert len(made["array"]) == RATE


def test_names_tell_conditions_apart():
    conditions = [Condition(), Condition(10), Condition(2.5), Condition(-5), Condition(speed=1.1), Condition(10, 1.1)]
    assert [each.name for each in conditions] == [
        "clean", "snr10", "snr2.5", "snr-5", "clean-speed1.1", "snr10-speed1.1",
    ]  # fmt: skip


def test_silence_has_no_ratio():
    with pytest.raises(AdapterError, match=r"clip a\.wav is silent, so that no noise has a ratio to it"):
        Condition(snr_db=10).apply({"path": "a.wav", "array": np.zeros(800), "sampling_rate": RATE}, "q1")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"snr_db": math.nan}, "snr_db is nan; expected a finite number"),
        ({"snr_db": math.inf}, "snr_db is inf; expected a finite number"),
        ({"speed": 0.0}, "speed is 0.0; expected a number from 0.5 to 2"),
        ({"speed": 3.0}, "speed is 3.0"),
        ({"speed": math.nan}, "speed is nan"),
    ],
)
def test_what_is_out_of_range(values, expected):
    with pytest.raises(ConfigError, match=expected):
        Condition(**values)


def test_nothing_within_full_scale_is_changed():
    samples = np.array([0.5, -1.0, 0.25])
    np.testing.assert_array_equal(within_full_scale(samples), samples.astype(np.float32))
    np.testing.assert_allclose(within_full_scale(4 * samples), samples)
