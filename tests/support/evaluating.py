"""Runs of an evaluation: reading what they wrote, and files of questions for them."""

from __future__ import annotations

import json

import voicebench


def results(directory):
    return [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]


def identities(rows):
    return [(row["id"], row["modality"], row["sample_id"]) for row in rows]


def own_file(path, count, **changes):
    (path.parent / "clip.wav").write_bytes(voicebench.tone())
    rows = [
        {"id": f"q{n}", "prompt": f"Question {n}?", "audio": "clip.wav", "answer": "B", **changes} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
