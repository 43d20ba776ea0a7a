"""Questions from a body: uploads instead of paths, and everything within its limits.

The server opens no file and no address that a client names: of a clip or an image only content is taken, ``{"bytes":
base64}``, or ``{"array": samples, "sampling_rate": rate}`` of a clip. A clip's length is known from its header before
anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tars_rewards.errors import InputError
from tars_rewards.scoring.question import Question
from tars_rewards.server.body import parse_json
from tars_rewards.server.refusal import Refusal, from_error, invalid, too_large
from tars_rewards.server.settings import ServerSettings

_RATES = (4_000, 384_000)  # Hz
_STEREO_48K = 2 * 48_000  # samples a second
_IMAGES = ("PNG", "JPEG", "WEBP")  # Pillow hands some other formats to programs
_SLICE = 2**20  # characters or numbers that are converted before other threads may run


def read_questions(body: bytes, settings: ServerSettings) -> list[Question]:
    """The questions of a body ``{"questions": [row, …]}``.

    Raises:
        Refusal: The body is malformed, or something in it is over a limit; the field is named.
    """
    given = parse_json(body)
    rows = given.pop("questions", None)
    if given:
        raise invalid('unknown field; the body is {"questions": [row, …]}', next(iter(given))[:100])
    if not isinstance(rows, list):
        raise invalid(f"expected a list of rows, got {type(rows).__name__}", "questions")
    if len(rows) > settings.max_questions:
        raise too_large(f"expected at most {settings.max_questions} questions, got {len(rows)}", "questions")
    if (completions := sum(map(_completions_of, rows))) > settings.max_completions:
        raise too_large(
            f"expected at most {settings.max_completions} completions in all, got {completions}", "questions"
        )
    return [_question(row, f"questions[{index}]", settings) for index, row in enumerate(rows)]


def _completions_of(row: Any) -> int:
    completions = row.get("completions") if isinstance(row, dict) else None
    return (
        sum(len(each) for each in completions.values() if isinstance(each, list))
        if isinstance(completions, dict)
        else 0
    )


def _question(row: Any, field: str, settings: ServerSettings) -> Question:
    if not isinstance(row, dict):
        raise invalid(f"expected an object, got {type(row).__name__}", field)
    uploads = {"audio": _audio(row.get("audio"), f"{field}.audio", settings)}
    uploads["image"] = _image(row.get("image"), f"{field}.image", settings)
    try:
        question = Question.from_row({**row, **uploads})
    except InputError as error:
        raise from_error(error, field) from error
    for name in ("id", "prompt", "answer", "system", "instruction"):
        check_text(getattr(question, name) or "", f"{field}.{name}", settings)
    for modality, completions in question.completions.items():
        check_text(modality, f"{field}.completions", settings)
        for index, completion in enumerate(completions):
            name = f"{field}.completions.{modality}[{index}]"
            check_text(completion.text, name, settings)
            if len(completion.token_ids or ()) > settings.max_text_chars:
                raise too_large(f"expected at most {settings.max_text_chars} tokens", f"{name}.token_ids")
    return question


def check_text(text: str, field: str, settings: ServerSettings) -> None:
    """Raise a Refusal for a text that is too long, or holds half a character, which no tokenizer takes."""
    if len(text) > settings.max_text_chars:
        raise too_large(f"expected at most {settings.max_text_chars} characters, got {len(text)}", field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(
            f"expected Unicode text, got a surrogate that stands alone at character {error.start}", field
        ) from error


def _audio(given: Any, field: str, settings: ServerSettings) -> dict[str, Any] | None:
    upload = _upload(given, field, ("bytes", "array", "sampling_rate"))
    if upload is None:
        return None
    if "array" in upload and "bytes" not in upload:
        rate, samples = upload.get("sampling_rate"), _array(upload["array"], f"{field}.array")
        if isinstance(rate, bool) or not isinstance(rate, int):
            raise invalid("expected the samples a second as an integer", f"{field}.sampling_rate")
        _check_length(len(samples), rate, samples.size, field, settings)
        return {"array": samples, "sampling_rate": rate}
    if "bytes" not in upload or len(upload) > 1:
        raise invalid('expected either "bytes" or "array" with "sampling_rate"', field)
    content = _content(upload["bytes"], f"{field}.bytes")
    import soundfile

    try:
        header = soundfile.info(io.BytesIO(content))
    except soundfile.SoundFileError as error:
        raise invalid(f"expected an audio file (WAV, FLAC, OGG, MP3, …), got something else: {error}", field) from error
    _check_length(header.frames, header.samplerate, header.frames * header.channels, field, settings)
    return {"bytes": content}


def _check_length(frames: int, rate: int, samples: int, field: str, settings: ServerSettings) -> None:
    low, high = _RATES
    if not low <= rate <= high:
        raise invalid(f"expected {low} to {high} samples a second, got {rate}", field)
    limit = settings.max_audio_seconds
    if frames / rate > limit:
        raise too_large(f"expected a clip of at most {limit:g} s, got {frames / rate:.1f} s", field)
    if samples > limit * _STEREO_48K:
        raise too_large(f"expected at most {limit * _STEREO_48K:.0f} samples over all channels, got {samples}", field)


def _image(given: Any, field: str, settings: ServerSettings) -> dict[str, Any] | None:
    upload = _upload(given, field, ("bytes",))
    if upload is None:
        return None
    content = _content(upload.get("bytes"), f"{field}.bytes")
    try:
        from PIL import Image
    except ImportError as error:
        raise Refusal(
            501, "unsupported", f"{field}: this server has no Pillow and takes no images", field=field
        ) from error
    try:
        with Image.open(io.BytesIO(content), formats=_IMAGES) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise invalid(f"expected an image as {', '.join(_IMAGES)}, got something else: {error}", field) from error
    if width * height > settings.max_image_pixels:
        raise too_large(f"expected at most {settings.max_image_pixels} pixels, got {width} x {height}", field)
    return {"bytes": content}


def _upload(given: Any, field: str, known: Sequence[str]) -> dict[str, Any] | None:
    """What is set of an upload; None where there is none."""
    if given is None:
        return None
    if isinstance(given, str) or (isinstance(given, Mapping) and given.get("path") is not None):
        raise invalid('expected an upload, {"bytes": base64}, got a path or address; the server opens none', field)
    if not isinstance(given, dict):
        raise invalid(f'expected an upload, {{"bytes": base64}}, got {type(given).__name__}', field)
    upload = {name: value for name, value in given.items() if value is not None}
    if strangers := [name for name in upload if name not in known]:
        raise invalid(f"unknown field; an upload has {', '.join(known)}", f"{field}.{strangers[0][:100]}")
    return upload


def _content(given: Any, field: str) -> bytes:
    if not isinstance(given, str):
        raise invalid(f"expected base64, got {type(given).__name__}", field)
    try:
        parts = [base64.b64decode(given[at : at + _SLICE], validate=True) for at in range(0, len(given), _SLICE)]
    except (binascii.Error, ValueError) as error:
        raise invalid(f"expected base64, got something else: {error}", field) from error
    return b"".join(parts)


def _array(given: Any, field: str) -> Any:
    if not isinstance(given, list) or not given:
        raise invalid("expected a list of samples, or of [sample, …] by channel", field)
    try:
        with np.errstate(over="ignore"):  # what is not finite is refused below
            parts = [np.asarray(given[at : at + _SLICE], np.float32) for at in range(0, len(given), _SLICE)]
        samples = np.concatenate(parts)
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"expected numbers in one or two dimensions: {error}", field) from error
    if samples.ndim > 2 or not samples.size or not np.isfinite(samples).all():
        raise invalid(f"expected finite numbers in one or two dimensions, got shape {list(samples.shape)}", field)
    return samples
