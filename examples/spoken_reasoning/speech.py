"""Questions spoken by espeak-ng: many voices, rates, pitches and noise levels, the same bytes from the same seed.

espeak-ng comes as a shared library in the PyPI package ``espeakng-loader`` and is called through ctypes, so neither
apt nor root is needed.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE_RATE = 16_000  # Hz, what Whisper's encoder expects
SLOWEST, FASTEST = 205, 235  # words per minute; slower, and the longest questions would not fit the window
MAX_SECONDS = 12.0  # the encoder's window in this example; a longer clip is an error, never cut

# Formant voices that the encoder hears well. The last four never speak in training data.
TRAIN_VOICES = (
    "en-us", "en-us+m1", "en-us+m3", "en-us+m4", "en-us+m7", "en-us+f1", "en-us+f2", "en-us+f4",
    "en-us+steph", "en-us+Michael", "en-us+Annie", "en-gb-x-rp", "en-gb-x-rp+f2", "en-gb-scotland",
)  # fmt: skip
HELD_OUT_VOICES = ("en-us+m8", "en-us+f5", "en-us+linda", "en-gb-x-rp+m3")

_SYNCHRONOUS, _UTF8, _RATE, _PITCH = 2, 1, 1, 3  # constants of espeak-ng's speak_lib.h


@dataclass(frozen=True)
class Speaker:
    """How one clip is spoken.

    Attributes:
        voice: Name of an espeak-ng voice, optionally "+variant".
        rate: Words per minute.
        pitch: 0 to 100, 50 is the voice's own.
        snr_db: Signal-to-noise ratio of the added white noise, in dB.
        noise_seed: Seed of the noise.
    """

    voice: str
    rate: int
    pitch: int
    snr_db: float
    noise_seed: int

    @classmethod
    def draw(cls, text: str, seed: int, *, held_out: bool = False) -> Speaker:
        """A speaker that depends on the text and the seed alone, not on what was spoken before."""
        digest = hashlib.sha256(f"{seed}/{text}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        voices = HELD_OUT_VOICES if held_out else TRAIN_VOICES
        return cls(
            voice=voices[int(rng.integers(len(voices)))],
            rate=int(rng.integers(SLOWEST, FASTEST + 1)),
            pitch=int(rng.integers(35, 66)),
            snr_db=float(rng.uniform(10, 30)),
            noise_seed=int(rng.integers(2**31)),
        )


def speak(text: str, speaker: Speaker) -> npt.NDArray[np.float32]:
    """Speech with noise, mono at 16 kHz, peak of the speech 0.5.

    Args:
        text: What is said.
        speaker: How it is said.

    Returns:
        Samples in [-1, 1], float32 ``[samples]``.

    Raises:
        ValueError: The voice does not exist, nothing was spoken, or the clip is longer than `MAX_SECONDS`.
    """
    pcm, rate = _espeak(text, speaker)
    return as_clip(pcm, rate, text, speaker)


def as_clip(pcm: npt.NDArray[Any], rate: int, text: str, speaker: Speaker) -> npt.NDArray[np.float32]:
    """What a synthesiser spoke, resampled to 16 kHz, at a peak of 0.5, with the speaker's noise; raises as `speak`."""
    speech = np.asarray(soxr.resample(pcm.astype(np.float32), rate, SAMPLE_RATE), np.float32)
    if not speech.size or not np.abs(speech).max():
        raise ValueError(f"expected speech for {text!r}, got silence from voice {speaker.voice!r}")
    if len(speech) > MAX_SECONDS * SAMPLE_RATE:
        raise ValueError(
            f"expected at most {MAX_SECONDS} s, got {len(speech) / SAMPLE_RATE:.1f} s for {text!r}: "
            "shorten the question or raise the rate (clips are never cut)"
        )
    speech *= 0.5 / np.abs(speech).max()
    noise = np.random.default_rng(speaker.noise_seed).standard_normal(len(speech))
    noise *= np.sqrt(np.mean(speech**2)) * 10 ** (-speaker.snr_db / 20)
    return np.clip(speech + noise, -1, 1).astype(np.float32)


def _espeak(text: str, speaker: Speaker) -> tuple[npt.NDArray[np.int16], int]:
    """Raw espeak-ng output and its sample rate.

    The library keeps synthesiser state in static variables that even its own Terminate does not reset: the samples of
    a clip would depend on the clips before it. Unloading the library after each clip (16 ms) makes a clip depend on
    its arguments alone.
    """
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    chunks: list[npt.NDArray[np.int16]] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    try:
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        library.espeak_SetSynthCallback(collect)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if library.espeak_SetVoiceByName(speaker.voice.encode()) != 0:
            raise ValueError(f"expected a voice of this espeak-ng build, got {speaker.voice!r}")
        library.espeak_SetParameter(_RATE, speaker.rate, 0)
        library.espeak_SetParameter(_PITCH, speaker.pitch, 0)
        encoded = text.encode()
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
    return (np.concatenate(chunks) if chunks else np.zeros(0, np.int16)), rate
