import io

import numpy as np
import pytest
import soundfile

from tars_rewards.errors import AdapterError
from tars_rewards.speech.waveform import clip_name, clip_seconds, load_waveform

RATE = 16000


def tone(rate, seconds=0.5, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def as_bytes(samples, rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    soundfile.write(tmp_path / "clip.wav", tone(RATE), RATE, subtype="FLOAT")
    return tmp_path / "clip.wav"


def test_every_form_gives_the_same_samples(path):
    expected = tone(RATE)
    forms = [
        str(path),
        path,
        {"path": str(path), "bytes": None},
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": path.read_bytes(), "path": "elsewhere.wav"},
        {"array": expected, "sampling_rate": RATE},
        {"array": expected.tolist(), "sampling_rate": RATE, "path": None},
        expected,
        expected.tolist(),
    ]
    for form in forms:
        waveform = load_waveform(form)
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, expected)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_the_tone(rate):
    waveform = load_waveform({"array": tone(rate), "sampling_rate": rate})
    assert len(waveform) == RATE // 2
    spectrum = np.abs(np.fft.rfft(waveform))
    assert np.argmax(spectrum) * RATE / len(waveform) == pytest.approx(440, abs=2)
    # The energy of a tone does not depend on the rate.
    assert np.sqrt((waveform[1000:-1000] ** 2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_channels_are_averaged():
    stereo = np.stack([tone(RATE), np.zeros(RATE // 2, np.float32)], axis=1)
    np.testing.assert_allclose(load_waveform({"bytes": as_bytes(stereo, RATE)}), tone(RATE) / 2, atol=1e-7)
    np.testing.assert_allclose(load_waveform({"array": stereo, "sampling_rate": RATE}), tone(RATE) / 2, atol=1e-7)


def test_unreadable_files_are_named(tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not audio")
    for source in (broken, tmp_path / "absent.wav", {"path": str(broken), "bytes": b"neither"}):
        name = source["path"] if isinstance(source, dict) else str(source)
        with pytest.raises(AdapterError, match="cannot be read") as caught:
            load_waveform(source)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({"array": [0.0, 1.0]}, "without their sampling_rate"),
        ({"array": ["loud"], "sampling_rate": 16000}, "expected numbers"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": 16000}, "expected numbers, as many in every channel"),
        ({"array": [10**400], "sampling_rate": 16000}, "expected numbers"),
        ({"array": [0.0], "sampling_rate": "16 kHz"}, "expected a sampling_rate in Hz, got '16 kHz'"),
        ({"array": [0.0], "sampling_rate": -1}, "expected a sampling_rate in Hz, got -1"),
        ({"array": [0.0], "sampling_rate": float("nan")}, "expected a sampling_rate in Hz, got nan"),
        ({"file": "x.wav"}, r"came as dict with keys \['file'\]"),
        (None, "came as NoneType"),
        (b"RIFF", "came as bytes"),
        (np.zeros(0), r"at least one finite sample.*shape \(0,\)"),
        (np.array([0.0, np.nan]), "finite"),
        (np.zeros((2, 2, 2)), "one or two dimensions"),
    ],
)
def test_other_forms_are_refused(clip, message):
    with pytest.raises(AdapterError, match=message):
        load_waveform(clip)


def test_a_clips_length_is_known_from_its_header_alone(tmp_path):
    file = tmp_path / "tone.wav"
    soundfile.write(file, np.zeros(12000, np.float32), 24000)
    samples = {"array": np.zeros(4000), "sampling_rate": 8000}
    for clip in (str(file), {"path": str(file)}, {"bytes": file.read_bytes(), "path": None}, samples, np.zeros(8000)):
        assert clip_seconds(clip) == pytest.approx(0.5)
    (tmp_path / "text.wav").write_text("no audio")
    for bad in (str(tmp_path / "gone.wav"), str(tmp_path / "text.wav"), {"bytes": b"no audio", "path": "x.wav"}):
        with pytest.raises(AdapterError, match="cannot be read"):
            clip_seconds(bad)
    with pytest.raises(AdapterError, match="without their sampling_rate"):
        clip_seconds({"array": np.zeros(10)})
    with pytest.raises(AdapterError, match="a clip came as int"):
        clip_seconds(7)


def test_messages_name_a_clip_by_its_file():
    assert clip_name("a.wav") == clip_name({"path": "a.wav", "bytes": b""}) == "a.wav"
    assert clip_name({"bytes": b"", "path": None}) == "given as bytes or samples"
    assert clip_name([0.0]) == "given as samples"
