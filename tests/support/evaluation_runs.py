"""Run directories with known verdicts."""

from pathlib import Path

import numpy as np

from tars_rewards.evaluation.records import (
    EvaluationRow,
    RunInfo,
    prompts_fingerprint,
    questions_fingerprint,
    write_info,
    write_results,
)


def make_rows(verdicts, *, categories=None, extractions=None, seconds=0.5):
    """Rows of {modality: [[verdict of each sample] of each question]}."""
    rows = []
    for modality, of_questions in verdicts.items():
        for question, of_samples in enumerate(np.atleast_2d(np.asarray(of_questions, bool).T).T):
            for sample, correct in enumerate(of_samples):
                rows.append(
                    EvaluationRow(
                        id=f"q{question}",
                        modality=modality,
                        sample_id=sample,
                        category=None if categories is None else categories[question],
                        prompt=f"What is {question}?",
                        answer="B",
                        completion="<answer>The answer is B.</answer>" if correct else "no idea",
                        extraction="The answer is B." if correct else None,
                        correct=bool(correct),
                        truncated=not correct,
                        tokens=10,
                        seconds=seconds,
                    )
                )
    return rows


def make_info(rows, **changed):
    settings = {
        "model": "tiny",
        "engine": "huggingface",
        "benchmark": "obqa",
        "questions": questions_fingerprint({(row.id, row.answer) for row in rows}),
        "prompts": prompts_fingerprint("be brief", None),
        "extractor": "tags",
        "created": "2026-01-01T00:00:00+00:00",
        "tars_rewards": "0.1.0",
        "sampling": {"temperature": 0.0},
        "condition": {"snr_db": None, "speed": 1.0},
        "versions": {"transformers": "5.10.4"},
    }
    return RunInfo(**{**settings, **changed})


def make_run(directory: Path, verdicts, *, categories=None, **changed) -> Path:
    rows = make_rows(verdicts, categories=categories)
    write_info(directory, make_info(rows, **changed))
    write_results(directory, rows)
    return directory
