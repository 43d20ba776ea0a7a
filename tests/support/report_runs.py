"""Directories that a report is made from, in the formats of those who write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from tars_rewards.evaluation.records import EvaluationRow, RunInfo, questions_fingerprint, write_info, write_results
from tars_rewards.evaluation.summary import summarize, write_summary

KINDS = ("biology", "computer science", "economics and finance", "history", "law", "physics")
INJECTION = '<script>alert(1)</script><img src="http://127.0.0.1:9/x.png" onerror="alert(2)">'


def clip(path: Path, seconds: float = 1.0, rate: int = 16_000) -> Path:
    """A tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, (0.2 * np.sin(2 * np.pi * 330 * time)).astype("float32"), rate)
    return path


def evaluation(
    out: Path, *, questions: int = 120, speech: float = 0.6, text: float = 0.8, benchmark: str = "mmsu",
    clips: int = 6, seed: int = 0, model: str = "tiny-omni", categories: bool = True, summary: bool = True, **of_run: object,
) -> Path:  # fmt: skip
    """A run whose accuracies are about those given."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(questions):
        answer = "ABCD"[number % 4]
        kind = KINDS[number % len(KINDS)] if categories else None
        audio = f"audio/{number:03d}.wav" if number < clips else None
        if audio:
            clip(out / audio)
        for modality, accuracy in (("speech", speech), ("text", text)):
            right = bool(rng.random() < accuracy)
            said = answer if right else "ABCD"[(number + 1) % 4]
            parsed = right or rng.random() < 0.9
            closing = f"<answer>The answer is {said}.</answer>" if parsed else "I cannot tell"
            rows.append(
                EvaluationRow(
                    id=f"q{number:03d}",
                    modality=modality,
                    prompt=f"Question {number}: which of the four is it?\nA) one  B) two  C) three  D) four {INJECTION}",
                    answer=answer,
                    completion=f"<think>Let me see. It is number {number}, {'which I know' if right else 'a guess'}, and "
                    f"so on for a while, step by step.</think>{closing} {INJECTION if number == 1 else ''}",
                    extraction=said if parsed else None,
                    correct=right,
                    category=kind,
                    truncated=not parsed,
                    tokens=int(rng.integers(20, 90)),
                    seconds=float(rng.random()),
                    audio=audio if modality == "speech" else None,
                )
            )
    asked = questions_fingerprint({(row.id, row.answer) for row in rows})
    info = {
        "model": model, "engine": "huggingface", "benchmark": benchmark, "questions": asked, "prompts": "ab12",
        "extractor": "tags", "created": "2026-01-31T12:00:00Z", "tars_rewards": "0.1",
        "sampling": {"n": 1, "temperature": 0.0}, "condition": {"snr_db": None, "speed": 1.0},
        "versions": {"torch": "2.9.0"},
    }  # fmt: skip
    write_info(out, RunInfo(**{**info, **of_run}))
    write_results(out, rows)
    if summary:
        write_summary(out, summarize(out))
    return out


def drift(out: Path, *, layers: int = 12, against: bool = True, questions: int = 80) -> Path:
    """A directory of `tars-rewards drift`, its figures made up."""
    rng = np.random.default_rng(1)

    def estimate(middle: np.ndarray, reach: float) -> dict:
        return {
            "mean": middle.tolist(), "low": (middle - reach).tolist(), "high": (middle + reach).tolist(),
            "questions": [questions] * len(middle),
        }  # fmt: skip

    def single(middle: float, reach: float) -> dict:
        return {name: each[0] for name, each in estimate(np.array([middle]), reach).items()}

    runs = {"model": 0.94} | ({"against": 0.90, "difference": 0.04} if against else {})
    curves, positions = [], []
    for states, measure in (("forced", "cosine"), ("forced", "centred"), ("rollouts", "cka")):
        for run, level in runs.items():
            for pairs, less in (("matched", 0.0), ("mismatched", 0.25), ("margin", None)):
                middle = level - (less or 0.0) + 0.02 * rng.standard_normal(layers)
                middle = middle if run != "difference" else 0.03 + 0.01 * rng.standard_normal(layers)
                names = {"run": run, "states": states, "measure": measure, "pairs": pairs}
                curves.append(names | estimate(middle, 0.015) | {"overall": single(float(middle.mean()), 0.01)})
    for run, level in runs.items():
        for places, count, step in (("tenths", 10, 1), ("tokens", 5, 32)):
            names = {"run": run, "measure": "cosine", "pairs": "matched", "places": places}
            middle = level - 0.01 * np.arange(count)
            starts = {"start": [place * step for place in range(count)]}
            positions.append(names | starts | estimate(middle, 0.01))
    positions[-1]["mean"][-1] = positions[-1]["low"][-1] = positions[-1]["high"][-1] = None
    trends = [
        {
            "run": run,
            "states": "forced",
            "measure": "cosine",
            "pairs": "matched",
            **estimate(np.full(layers, -0.1), 0.01),
        }
        | {"overall": single(-0.125, 0.01)}
        for run in runs
    ]
    behavior = [
        {"run": run, "name": name, **single(value, 0.05)}
        for run in runs
        for name, value in (("semantic_consistency", 0.8), ("answer_agreement", 0.7), ("first_diverging_step", 1.4))
    ]
    content = {
        "format": 1, "kind": "drift", "tars_rewards": "0.1",
        "models": {"model": "runs/tars"} | ({"against": "models/tiny-omni"} if against else {}),
        "settings": {"forced": "text", "confidence": 0.95, "resamples": 2000}, "questions": questions, "layers": layers,
        "final_norm": "before", "left_out": [], "curves": curves, "positions": positions, "trends": trends,
        "behavior": behavior,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "drift.json").write_text(json.dumps(content))
    return out


def training(out: Path, *, steps: int = 24, metrics: bool = True, rollouts: bool = True) -> Path:
    """A training run."""
    rng = np.random.default_rng(2)
    out.mkdir(parents=True, exist_ok=True)
    if metrics:
        with (out / "metrics.jsonl").open("w") as file:
            for step in range(1, steps + 1):
                data = {"tars/pairs/count": 8.0, "tars/reward_gap": 0.3 - 0.005 * step, "actor/lr": 1e-6, "note": "x",
                        "tars/pairs/without_reference": 0.05}  # fmt: skip
                for term, modalities in (("accuracy", ("speech", "text")), ("format", ("speech", "text")),
                                         ("total", ("speech", "text")), ("representation", ("speech",)),
                                         ("behavior", ("speech",))):  # fmt: skip
                    for modality in modalities:
                        value = min(1.0, 0.5 + 0.01 * step + 0.05 * rng.random() + 0.2 * (modality == "text"))
                        key = f"tars/{term}/{modality}"
                        data |= {f"{key}/mean": value, f"{key}/std": 0.2, f"{key}/count": 32.0}
                if step % 8 == 0:
                    for modality in ("speech", "text"):
                        data |= {f"val-tars/{modality}_accuracy": 0.6, f"val-tars/{modality}_n": 200.0}
                file.write(json.dumps({"step": step, "data": data}) + "\n")
    if rollouts:
        with (out / "rollouts.jsonl").open("w") as file:
            for step in (1, steps):
                for question in ("r1", "r2"):
                    for modality in ("speech", "text"):
                        for sample in range(2):
                            row = {
                                "step": step, "id": question, "modality": modality, "sample_id": sample, "answer": "B",
                                "completion": f"<think>Sample {sample}.</think><answer>The answer is B.</answer>",
                                "truncated": False, "total": 1.5 + sample, "accuracy": float(sample), "format": 1.0,
                                "representation": 0.9 if modality == "speech" else None, "behavior": None,
                                "reference": None, "log_prob": -3.0, "tokens": 12,
                            }  # fmt: skip
                            file.write(json.dumps(row) + "\n")
    return out
