"""Bodies of questions: what is taken, what is refused, and which field is named."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from served import question

from tars_rewards.server import ServerSettings
from tars_rewards.server.questions import read_questions
from tars_rewards.server.refusal import Refusal

SETTINGS = ServerSettings(
    max_questions=3, max_completions=6, max_text_chars=200, max_audio_seconds=2, max_image_pixels=100
)


def read(*rows, settings=SETTINGS):
    return read_questions(json.dumps({"questions": list(rows)}).encode(), settings)


def refusal(body):
    with pytest.raises(Refusal) as caught:
        read_questions(body if isinstance(body, bytes) else json.dumps(body).encode(), SETTINGS)
    return caught.value


def clip(seconds=0.1, rate=16000, channels=1, form="WAV"):
    file = io.BytesIO()
    soundfile.write(file, np.zeros((int(seconds * rate), channels)), rate, format=form)
    return base64.b64encode(file.getvalue()).decode()


def picture(width=4, height=4, form="PNG"):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def test_a_row_is_read_as_from_a_file_and_media_become_their_content():
    row = question(1, audio={"bytes": clip()}, image={"bytes": picture()}, system="s", instruction="i")
    (read_one,) = read(row)
    assert (read_one.id, read_one.prompt, read_one.answer, read_one.system) == ("q1", "2+2?", "4", "s")
    assert read_one.audio["bytes"] == base64.b64decode(clip())
    assert read_one.image["bytes"] == base64.b64decode(picture())
    assert read_one.audio.get("path") is None
    assert read_one.completions["text"][0].text.startswith("1 <think>")


@pytest.mark.parametrize("samples", [[0.5, -0.25, 0], [[0.5, 0.5], [0, -0.5], [0, 0]]], ids=["mono", "stereo"])
def test_samples_come_as_numbers(samples):
    (read_one,) = read(question(1, audio={"array": samples, "sampling_rate": 8000}))
    assert read_one.audio["sampling_rate"] == 8000
    assert read_one.audio["array"].tolist() == samples


OPENED = "got a path or address; the server opens none"
UPLOAD = {"bytes": clip()}
MEDIA = [
    ("audio", "clip.wav", "audio", OPENED),
    ("audio", "/etc/passwd", "audio", OPENED),
    ("audio", "https://example.org/clip.wav", "audio", OPENED),
    ("audio", {"path": "/etc/passwd"}, "audio", OPENED),
    ("audio", {**UPLOAD, "path": "/etc/passwd"}, "audio", OPENED),
    ("audio", {"array": [0.0], "sampling_rate": 16000, "path": "x"}, "audio", OPENED),
    ("image", "picture.png", "image", OPENED),
    ("image", {"path": "/etc/passwd"}, "image", OPENED),
    ("image", {"url": "https://example.org/a.png"}, "image.url", "unknown field"),
    ("audio", [0.1, 0.2], "audio", "expected an upload"),
    ("audio", {"url": "https://example.org"}, "audio.url", "unknown field"),
    ("audio", {}, "audio", 'either "bytes" or "array"'),
    ("audio", {**UPLOAD, "array": [0.0]}, "audio", 'either "bytes" or "array"'),
    ("audio", {"bytes": 5}, "audio.bytes", "expected base64"),
    ("audio", {"bytes": "a path?"}, "audio.bytes", "expected base64"),
    ("audio", {"bytes": "äöü"}, "audio.bytes", "expected base64"),
    ("audio", {"bytes": base64.b64encode(b"no sound").decode()}, "audio", "expected an audio file"),
    ("audio", {"bytes": clip(rate=2000)}, "audio", "expected 4000 to 384000 samples a second, got 2000"),
    ("audio", {"array": [0.0], "sampling_rate": 1}, "audio", "expected 4000 to 384000"),
    ("audio", {"array": [0.0]}, "audio.sampling_rate", "as an integer"),
    ("audio", {"array": [0.0], "sampling_rate": True}, "audio.sampling_rate", "as an integer"),
    ("audio", {"array": [], "sampling_rate": 16000}, "audio.array", "expected a list of samples"),
    ("audio", {"array": ["loud"], "sampling_rate": 16000}, "audio.array", "expected numbers"),
    ("audio", {"array": [10**400], "sampling_rate": 16000}, "audio.array", "expected numbers"),
    ("audio", {"array": [1, [2]], "sampling_rate": 16000}, "audio.array", "expected numbers"),
    ("audio", {"array": [[[1.0]]], "sampling_rate": 16000}, "audio.array", "one or two dimensions"),
    ("audio", {"array": [1e300], "sampling_rate": 16000}, "audio.array", "expected finite numbers"),
    ("image", {"bytes": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0").decode()}, "image", "expected an image"),
    ("image", {"bytes": picture(form="BMP")}, "image", "expected an image as PNG, JPEG, WEBP"),
]


@pytest.mark.parametrize(("name", "given", "field", "message"), MEDIA)
def test_of_media_only_content_is_taken(name, given, field, message):
    refused = refusal({"questions": [question(0), question(1, **{name: given})]})
    assert (refused.status, refused.kind) == (422, "invalid")
    assert refused.field == f"questions[1].{field}"
    assert refused.message.startswith(f"questions[1].{field}: ")
    assert message in refused.message


LIMITS = [
    ({"audio": {"bytes": clip(2.5)}}, "audio", "at most 2 s, got 2.5 s"),
    ({"audio": {"bytes": clip(30, form="FLAC")}}, "audio", "at most 2 s, got 30.0 s"),
    ({"audio": {"bytes": clip(30, form="OGG")}}, "audio", "at most 2 s, got 30.0 s"),
    # Silence in eight channels: small as a file, large when decoded.
    ({"audio": {"bytes": clip(1.9, 192_000, 8, "FLAC")}}, "audio", "at most 192000 samples over all channels"),
    ({"audio": {"array": [0.0] * 9000, "sampling_rate": 4000}}, "audio", "at most 2 s, got 2.2 s"),
    ({"image": {"bytes": picture(11, 10)}}, "image", "at most 100 pixels, got 11 x 10"),
    ({"prompt": "x" * 201}, "prompt", "at most 200 characters, got 201"),
    ({"id": "x" * 201}, "id", "at most 200 characters"),
    ({"system": "x" * 201}, "system", "at most 200 characters"),
    ({"completions": {"text": ["a", "x" * 201]}}, "completions.text[1]", "at most 200 characters"),
    ({"completions": {"text": [{"text": "a", "token_ids": [1] * 201}]}}, "completions.text[0].token_ids", "200 tokens"),
]


@pytest.mark.parametrize(("changes", "field", "message"), LIMITS)
def test_what_is_over_a_limit_is_named_with_the_limit(changes, field, message):
    refused = refusal({"questions": [question(0, **changes)]})
    assert (refused.status, refused.kind, refused.field) == (413, "too_large", f"questions[0].{field}")
    assert message in refused.message


def test_limits_themselves_are_within_the_limit():
    read(question(0, audio={"bytes": clip(2)}, image={"bytes": picture(10, 10)}, prompt="x" * 200))
    read(*(question(number) for number in range(3)))


def test_a_request_has_limits_of_questions_and_completions():
    refused = refusal({"questions": [question(number) for number in range(4)]})
    assert (refused.status, refused.message) == (413, "questions: expected at most 3 questions, got 4")
    refused = refusal({"questions": [question(0, completions={"text": ["a"] * 4, "speech": ["b"] * 3})]})
    assert (refused.status, refused.message) == (413, "questions: expected at most 6 completions in all, got 7")


BODIES = [
    (b"", 400, None, "the body is no JSON"),
    (b"{", 400, None, "the body is no JSON"),
    (b"\xff\xfe", 400, None, "the body is no JSON"),
    (b"[" * 100_000, 400, None, "the body is no JSON"),
    (b'{"questions": [{"id": NaN}]}', 400, None, "NaN is no number of JSON's"),
    (b'{"questions": [' + b"9" * 5000 + b"]}", 400, None, "the body is no JSON"),
    ([], 422, None, "expected an object"),
    ({}, 422, "questions", "expected a list of rows"),
    ({"questions": {}}, 422, "questions", "expected a list of rows"),
    ({"questions": [], "model": "m"}, 422, "model", "unknown field"),
    ({"questions": ["q"]}, 422, "questions[0]", "expected an object, got str"),
    ({"questions": [{"prompt": "2+2?"}]}, 422, "questions[0].id", "expected a non-empty text"),
    ({"questions": [question(0, prompt=5)]}, 422, "questions[0].prompt", "expected a text"),
    ({"questions": [question(0, completions={"text": "a"})]}, 422, "questions[0].completions.text", "expected a list"),
    (
        {"questions": [question(0, completions={"text": [{"text": "a", "truncated": 1}]})]},
        422,
        "questions[0].completions.text[0].truncated",
        "expected true or false",
    ),
    (b'{"questions": [{"id": "q", "prompt": "\\ud800"}]}', 422, "questions[0].prompt", "a surrogate that stands alone"),
    (
        b'{"questions": [{"id": "q", "completions": {"text": ["ab\\udfff"]}}]}',
        422,
        "questions[0].completions.text[0]",
        "a surrogate that stands alone at character 2",
    ),
]


@pytest.mark.parametrize(("body", "status", "field", "message"), BODIES)
def test_a_malformed_body_is_refused_and_the_field_named(body, status, field, message):
    refused = refusal(body)
    assert (refused.status, refused.field) == (status, field)
    assert message in refused.message


def test_several_problems_are_counted():
    refused = refusal({"questions": [{"prompt": 5}]})
    assert refused.message.endswith("(and 1 more problems)")
