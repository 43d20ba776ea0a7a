"""Small files in VoiceBench's schema, with tones in the place of speech."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as `datasets` stores its Audio feature
TEXT = {"dtype": "string", "_type": "Value"}
FEATURES = {"audio": {"sampling_rate": 16000, "_type": "Audio"}, "prompt": TEXT, "reference": TEXT}
OPENBOOKQA = pa.schema([("audio", AUDIO), ("prompt", pa.string()), ("reference", pa.string())])
MMSU = pa.schema(
    [
        *OPENBOOKQA,
        ("question_id", pa.int64()),
        ("cot_content", pa.string()),
        ("category", pa.string()),
        ("src", pa.string()),
    ]
)
QUESTION = (
    "What is {0} plus {0}?\nA. 2\nB. 4\nC. 6\nD. 8\n"
    "What is the answer to the above multiple choice question? Select one of the following: A, B, C, or D."
)


def tone(number: int = 0, seconds: float = 0.5) -> bytes:
    """A WAV file of a tone, 16 kHz, silent in its last fifth."""
    times = np.arange(int(16000 * seconds)) / 16000
    samples = 0.3 * np.sin(2 * np.pi * (200 + 40 * number) * times) * (times < 0.8 * seconds)
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def mmsu_row(number: int, category: str = "law", **changes):
    return {
        "audio": {"bytes": tone(number % 4), "path": None},
        "prompt": QUESTION.format(number),
        "reference": "ABCD"[number % 4],
        "question_id": 880 + number,
        "cot_content": "",
        "category": category,
        "src": "ori_mmlu-jurisprudence",
        **changes,
    }


def openbookqa_row(number: int, **changes):
    return {name: value for name, value in mmsu_row(number, **changes).items() if name in OPENBOOKQA.names}


def write(path: Path, rows, schema: pa.Schema) -> Path:
    """A Parquet file as `Dataset.push_to_hub` leaves it, its features in the schema's metadata."""
    features = {name: FEATURES.get(name, TEXT) for name in schema.names}
    if "question_id" in features:
        features["question_id"] = {"dtype": "int64", "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata)), path)
    return path


def write_mmsu(directory: Path, *, law: int = 3, physics: int = 2) -> Path:
    """Two of its splits, in files named as in the repository."""
    write(directory / "mmsu/law-00000-of-00001.parquet", [mmsu_row(n) for n in range(law)], MMSU)
    rows = [mmsu_row(100 + n, "physics", src="ori_mmlu-astronomy") for n in range(physics)]
    write(directory / "mmsu/physics-00000-of-00001.parquet", rows, MMSU)
    return directory


def write_openbookqa(directory: Path, count: int = 3) -> Path:
    rows = [openbookqa_row(n) for n in range(count)]
    write(directory / "openbookqa/test-00000-of-00001.parquet", rows, OPENBOOKQA)
    return directory
