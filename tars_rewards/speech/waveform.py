"""A clip in whatever form a dataset has it, as samples at the rate that the audio encoders take."""

from __future__ import annotations

import importlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.errors import AdapterError, MissingDependencyError
from tars_rewards.speech.families import SAMPLING_RATE

if TYPE_CHECKING:
    from jaxtyping import Float

_FORMS = (
    'a path, {"path": …} or {"bytes": …} of an audio file, {"array": samples, "sampling_rate": rate}, or samples at '
    f"{SAMPLING_RATE} Hz"
)


def load_waveform(clip: Any, *, sampling_rate: int = SAMPLING_RATE) -> Float[np.ndarray, " samples"]:
    """Samples of a clip: float32, mono (mean of the channels), resampled to ``sampling_rate``.

    Args:
        clip: A path; a mapping with ``bytes`` (an audio file's content) or ``path``, as Hugging Face datasets store
            audio; a mapping with ``array`` ([samples] or [samples, channels]) and ``sampling_rate`` in Hz; or samples
            [samples] that are at :data:`SAMPLING_RATE` already. Files are read by libsndfile: WAV, FLAC, OGG, MP3 and
            others.
        sampling_rate: Samples per second of the result.

    Raises:
        AdapterError: The file cannot be read (it is named), or the clip is empty, not finite or of another form.
        MissingDependencyError: The packages of the extra ``audio`` are not installed.
    """
    name = "given as samples"
    if isinstance(clip, Mapping) and clip.get("array") is not None:
        name = str(clip.get("path") or name)
        if not clip.get("sampling_rate"):
            raise AdapterError(f"clip {name}: samples came without their sampling_rate; expected {_FORMS}")
        samples, rate = _numbers(clip["array"], name), clip["sampling_rate"]
        if not isinstance(rate, int | float | np.number) or not 1 <= rate < math.inf:
            raise AdapterError(f"clip {name}: expected a sampling_rate in Hz, got {rate!r}")
    elif isinstance(clip, Mapping) and (clip.get("bytes") is not None or clip.get("path")):
        name = str(clip.get("path") or "given as bytes")
        samples, rate = _read(io.BytesIO(clip["bytes"]) if clip.get("bytes") is not None else clip["path"], name)
    elif isinstance(clip, str | os.PathLike):
        name = os.fspath(clip)
        samples, rate = _read(name, name)
    elif isinstance(clip, np.ndarray) or (isinstance(clip, Sequence) and not isinstance(clip, bytes)):
        samples, rate = _numbers(clip, name), SAMPLING_RATE
    else:
        keys = f" with keys {sorted(clip)}" if isinstance(clip, Mapping) else ""
        raise AdapterError(f"a clip came as {type(clip).__name__}{keys}; expected {_FORMS}")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise AdapterError(
            f"clip {name}: expected at least one finite sample in one or two dimensions, got shape {samples.shape}"
        )
    if rate != sampling_rate:
        samples = _audio_package("soxr").resample(samples, rate, sampling_rate)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _numbers(samples: Any, name: str) -> Float[np.ndarray, ...]:
    try:
        return np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise AdapterError(f"clip {name}: expected numbers, as many in every channel, got others: {error}") from error


def clip_seconds(clip: Any) -> float:
    """Length of a clip, from the header of its file alone.

    Raises:
        AdapterError: As by :func:`load_waveform`, but for what only shows in the samples.
    """
    if isinstance(clip, Mapping) and clip.get("array") is None and clip.get("bytes") is not None:
        return _seconds(io.BytesIO(clip["bytes"]), str(clip.get("path") or "given as bytes"))
    if isinstance(clip, Mapping) and clip.get("array") is None and clip.get("path"):
        return _seconds(clip["path"], str(clip["path"]))
    if isinstance(clip, str | os.PathLike):
        return _seconds(os.fspath(clip), os.fspath(clip))
    return len(load_waveform(clip)) / SAMPLING_RATE


def wav_bytes(samples: Float[np.ndarray, " samples"]) -> bytes:
    """A clip as a WAV file: mono, 16 bits, at :data:`SAMPLING_RATE`.

    Args:
        samples: In [-1, 1]; what is beyond is clipped.

    Raises:
        MissingDependencyError: The packages of the extra ``audio`` are not installed.
    """
    file = io.BytesIO()
    _audio_package("soundfile").write(file, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def clip_name(clip: Any) -> str:
    """How messages name a clip."""
    if isinstance(clip, Mapping):
        return str(clip.get("path") or "given as bytes or samples")
    return os.fspath(clip) if isinstance(clip, str | os.PathLike) else "given as samples"


def undecoded(table: Any) -> Any:
    """A ``datasets.Dataset`` whose audio features are given as bytes and path, to be decoded when needed."""
    from datasets import Audio, List

    for name, feature in table.features.items():
        if isinstance(feature, Audio):
            table = table.cast_column(name, Audio(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Audio):
            table = table.cast_column(name, List(Audio(decode=False)))
    return table


def _audio_package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"reading a clip needs {name}, which is not installed: pip install 'tars-rewards[audio]'"
        ) from error


def _seconds(source: Any, name: str) -> float:
    soundfile = _audio_package("soundfile")
    try:
        return float(soundfile.info(source).duration)
    except (OSError, soundfile.SoundFileError) as error:
        raise AdapterError(f"clip {name} cannot be read: {error}; expected {_FORMS}") from error


def _read(source: Any, name: str) -> tuple[Any, int]:
    soundfile = _audio_package("soundfile")
    try:
        return soundfile.read(source, dtype="float32")  # type: ignore[no-any-return]
    except (OSError, soundfile.SoundFileError) as error:
        raise AdapterError(f"clip {name} cannot be read: {error}; expected {_FORMS}") from error
