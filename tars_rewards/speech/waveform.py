"""A clip in whatever form a dataset has it, as samples at the rate that the audio encoders take."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tars_rewards.errors import AdapterError
from tars_rewards.speech.families import SAMPLING_RATE

if TYPE_CHECKING:
    from jaxtyping import Float

_FORMS = (
    'a path, {"path": …} or {"bytes": …} of an audio file, {"array": samples, "sampling_rate": rate}, or samples at '
    f"{SAMPLING_RATE} Hz"
)


def load_waveform(clip: Any) -> Float[np.ndarray, " samples"]:
    """Samples of a clip: float32, mono (mean of the channels), resampled to :data:`SAMPLING_RATE`.

    Args:
        clip: A path; a mapping with ``bytes`` (an audio file's content) or ``path``, as Hugging Face datasets store
            audio; a mapping with ``array`` ([samples] or [samples, channels]) and ``sampling_rate`` in Hz; or samples
            [samples] that are at :data:`SAMPLING_RATE` already. Files are read by libsndfile: WAV, FLAC, OGG, MP3 and
            others.

    Raises:
        AdapterError: The file cannot be read (it is named), or the clip is empty, not finite or of another form.
    """
    name = "given as samples"
    if isinstance(clip, Mapping) and clip.get("array") is not None:
        name = str(clip.get("path") or name)
        if not clip.get("sampling_rate"):
            raise AdapterError(f"clip {name}: samples came without their sampling_rate; expected {_FORMS}")
        samples, rate = np.asarray(clip["array"], dtype=np.float32), int(clip["sampling_rate"])
    elif isinstance(clip, Mapping) and (clip.get("bytes") is not None or clip.get("path")):
        name = str(clip.get("path") or "given as bytes")
        samples, rate = _read(io.BytesIO(clip["bytes"]) if clip.get("bytes") is not None else clip["path"], name)
    elif isinstance(clip, str | os.PathLike):
        name = os.fspath(clip)
        samples, rate = _read(name, name)
    elif isinstance(clip, np.ndarray) or (isinstance(clip, Sequence) and not isinstance(clip, bytes)):
        samples, rate = np.asarray(clip, dtype=np.float32), SAMPLING_RATE
    else:
        keys = f" with keys {sorted(clip)}" if isinstance(clip, Mapping) else ""
        raise AdapterError(f"a clip came as {type(clip).__name__}{keys}; expected {_FORMS}")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise AdapterError(
            f"clip {name}: expected at least one finite sample in one or two dimensions, got shape {samples.shape}"
        )
    if rate != SAMPLING_RATE:
        import soxr

        samples = soxr.resample(samples, rate, SAMPLING_RATE)
    return np.ascontiguousarray(samples, dtype=np.float32)


def check_clip(clip: Any) -> None:
    """Whether a clip can be read, from the header of its file alone.

    Raises:
        AdapterError: As by :func:`load_waveform`, but for what only shows in the samples.
    """
    if isinstance(clip, Mapping) and clip.get("array") is not None:
        load_waveform({**clip, "array": clip["array"][:1]})
    elif isinstance(clip, Mapping) and clip.get("bytes") is not None:
        _open(io.BytesIO(clip["bytes"]), str(clip.get("path") or "given as bytes"))
    elif isinstance(clip, Mapping) and clip.get("path"):
        _open(clip["path"], str(clip["path"]))
    elif isinstance(clip, str | os.PathLike):
        _open(os.fspath(clip), os.fspath(clip))
    else:
        load_waveform(clip)


def _open(source: Any, name: str) -> None:
    import soundfile

    try:
        soundfile.info(source)
    except (OSError, soundfile.SoundFileError) as error:
        raise AdapterError(f"clip {name} cannot be read: {error}; expected {_FORMS}") from error


def _read(source: Any, name: str) -> tuple[Any, int]:
    import soundfile

    try:
        return soundfile.read(source, dtype="float32")  # type: ignore[no-any-return]
    except (OSError, soundfile.SoundFileError) as error:
        raise AdapterError(f"clip {name} cannot be read: {error}; expected {_FORMS}") from error
