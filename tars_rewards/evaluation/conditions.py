"""Conditions that questions are heard under: noise at a given ratio to the speech, and speed.

The written question is the same under all of them, so that the gap by condition is a curve. Other voices are no condition
but another file of questions.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from tars_rewards.errors import AdapterError, ConfigError
from tars_rewards.speech.families import SAMPLING_RATE

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

_FRAME = SAMPLING_RATE // 50  # 20 ms
_PAUSE = 30.0  # dB that a frame of a pause is below the loudest one
_SLOWEST, _FASTEST = 0.5, 2.0


@dataclass(frozen=True)
class Condition:
    """How a spoken question differs from its clip.

    Raises:
        ConfigError: A value is out of range.
    """

    snr_db: float | None = None
    """White Gaussian noise at this ratio of the clip's active power (see `active_power`) to the noise's power, in dB; None:
    no noise."""
    speed: float = 1.0
    """How many times faster the clip is played, in [0.5, 2], as a tape is: the pitch rises with it. 1: as it is."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        if self.snr_db is not None and not math.isfinite(self.snr_db):
            raise ConfigError(f"snr_db is {self.snr_db!r}; expected a finite number of decibels, or None for no noise")
        if not _SLOWEST <= self.speed <= _FASTEST:
            raise ConfigError(f"speed is {self.speed!r}; expected a number from {_SLOWEST:g} to {_FASTEST:g}")

    @property
    def clean(self) -> bool:
        """Whether the clip stays as it is."""
        return self.snr_db is None and self.speed == 1

    @property
    def name(self) -> str:
        """A name for files."""
        noise = "clean" if self.snr_db is None else f"snr{self.snr_db:g}"
        return noise if self.speed == 1 else f"{noise}-speed{self.speed:g}"

    def to_json(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)

    def apply(self, clip: Any, identity: str) -> Any:
        """The clip as it is heard.

        A question's noise depends on the seed and its id alone, and between two ratios it differs by its level alone. Where
        noise would exceed full scale, clip and noise are both made quieter, so that nothing is clipped and the ratio stays.

        Args:
            clip: In any form that `speech.waveform.load_waveform` takes.
            identity: The question's id.

        Returns:
            The clip itself where the condition changes nothing; else samples with their rate.

        Raises:
            AdapterError: The clip cannot be read, or is silent, so that no noise has a ratio to it.
        """
        if self.clean:
            return clip
        from tars_rewards.speech.waveform import clip_name, load_waveform

        samples = load_waveform(clip)
        if self.speed != 1:
            samples = _faster(samples, self.speed)
        if self.snr_db is not None:
            samples = self._noisy(samples, identity, clip_name(clip))
        return {"path": None, "array": samples, "sampling_rate": SAMPLING_RATE}

    def _noisy(self, samples: Float[np.ndarray, " samples"], identity: str, name: str) -> Float[np.ndarray, " samples"]:
        import numpy as np

        speech = active_power(samples)
        if speech == 0:
            raise AdapterError(f"clip {name} is silent, so that no noise has a ratio to it; drop it")
        seed = xxhash.xxh3_128_intdigest(f"{self.seed}\0noise\0{identity}".encode("utf-8", "surrogatepass"))
        noise = np.random.default_rng(seed).standard_normal(len(samples))
        wanted = speech / 10 ** ((self.snr_db or 0.0) / 10)
        noise *= math.sqrt(wanted / float(np.mean(noise**2)))
        return within_full_scale(samples + noise)


def active_power(samples: Float[np.ndarray, " samples"]) -> float:
    """Power of a clip where somebody speaks: a clip with long pauses is not taken for a quiet one.

    Args:
        samples: At the package's sampling rate.

    Returns:
        Mean square of the samples in frames of 20 ms that are at most 30 dB below the loudest one; 0 for silence.
    """
    import numpy as np

    whole = np.pad(np.asarray(samples, dtype=np.float64), (0, -len(samples) % _FRAME))
    lengths = np.full(len(whole) // _FRAME, float(_FRAME))
    lengths[-1] -= len(whole) - len(samples)
    energies = (whole**2).reshape(-1, _FRAME).sum(axis=1)
    powers = energies / lengths
    active = powers >= powers.max() / 10 ** (_PAUSE / 10)
    return float(energies[active].sum() / lengths[active].sum())


def within_full_scale(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Samples as float32, made quieter as a whole where one is beyond ±1, so that none will be clipped."""
    import numpy as np

    peak = float(np.abs(samples).max())
    return np.asarray(samples / peak if peak > 1 else samples, dtype=np.float32)


def _faster(samples: Float[np.ndarray, " samples"], speed: float) -> Float[np.ndarray, " samples"]:
    import numpy as np
    import soxr  # load_waveform has said what to do where it is missing

    return np.asarray(soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE), dtype=np.float32)
