"""What a question is asked in beside text: a clip or an image, in whatever form, as the processor takes it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tars_rewards.errors import AdapterError, MissingDependencyError
from tars_rewards.speech.family import SpeechModelFamily, sampling_rate
from tars_rewards.speech.waveform import clip_name, load_waveform

_FORMS = 'a path, {"path": …} or {"bytes": …} of an image file, a PIL image, or pixels [height, width, 3] in uint8'
_SHORTEST = 0.04
"""Seconds of a clip below which an analysis window does not fit, or halvings leave no vector."""


def load_media(media: Any, family: SpeechModelFamily, processor: Any) -> Any:
    """A clip or an image as the family's processor takes it.

    Args:
        media: A clip in any form that :func:`tars_rewards.speech.waveform.load_waveform` takes, or, for a family whose
            medium is the image, an image in any form that :func:`load_image` takes.
        family: The model's family.
        processor: The checkpoint's processor.

    Raises:
        AdapterError: It cannot be read, or the clip is too short to be encoded, or so long that it would be cut.
    """
    if family.medium == "image":
        return load_image(media)
    rate = sampling_rate(processor)
    waveform = load_waveform(media, sampling_rate=rate)
    seconds, longest = len(waveform) / rate, family.longest(processor)
    if longest is not None and seconds > longest:
        raise AdapterError(
            f"clip {clip_name(media)} of {seconds:.1f} s is longer than the {longest:g} s that this {family.name} processor "
            "takes, and the rest would be cut without a word; split it, drop it, or raise the processor's chunk_length if "
            "the model allows it"
        )
    if seconds < _SHORTEST:
        raise AdapterError(
            f"clip {clip_name(media)} of {len(waveform)} samples ({seconds:.3f} s) is too short to be encoded; drop it"
        )
    return waveform


def load_image(image: Any) -> Any:
    """An image as PIL has it, in RGB.

    Args:
        image: A path; a mapping with ``bytes`` (an image file's content) or ``path``, as Hugging Face datasets store
            images; a PIL image; or pixels uint8 [height, width, 3].

    Raises:
        AdapterError: The file cannot be read (it is named), or the image is of another form.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "reading an image needs Pillow, which is not installed: pip install pillow"
        ) from error

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return Image.fromarray(image)
    name, source = "given as bytes", None
    if isinstance(image, Mapping):
        name = str(image.get("path") or name)
        source = io.BytesIO(image["bytes"]) if image.get("bytes") is not None else image.get("path")
    elif isinstance(image, str | os.PathLike):
        name, source = os.fspath(image), os.fspath(image)
    if source is None:
        keys = f" with keys {sorted(image)}" if isinstance(image, Mapping) else ""
        raise AdapterError(f"an image came as {type(image).__name__}{keys}; expected {_FORMS}")
    try:
        with Image.open(source) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: of a broken PNG
        raise AdapterError(f"image {name} cannot be read: {error}; expected {_FORMS}") from error
