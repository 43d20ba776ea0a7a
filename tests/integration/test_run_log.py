"""What a training leaves for a report: which rollouts, in which fields, and what becomes of them when it is resumed."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.errors import AdapterError, ConfigError
from tars_rewards.integration import patching
from tars_rewards.integration.options import AdapterOptions
from tars_rewards.integration.run_log import RunLog, chosen, open_run_log, prepare_directory
from tars_rewards.protocol import BaseScore

NUMPY = patching.TestedFramework("numpy", (), "")
SAME = '{"format": 1, "kind": "training", "created": "x", "model": "models/tiny"}'
CONFIG = TARSConfig(alpha=0.5, layers=(0, -1), terms={"own_terms:brevity": 0.25}, seed=3, embedder_api_key_var="MY_KEY")


def opened(directory, config=CONFIG, *, model="models/tiny", **options):
    return open_run_log(config, AdapterOptions(run_log=directory, **options), framework=NUMPY, model=model)


def lines(directory, name):
    return [json.loads(line, parse_constant=pytest.fail) for line in (Path(directory) / name).read_text().splitlines()]


def batch(questions, *, step=1, samples=2, config=None, answer="B"):
    """Rewarded rollouts of some questions, and log-probs of three tokens each."""
    random = np.random.default_rng(step)
    rollouts = [
        Rollout(
            pair, modality, sample, f"{modality} {sample}", answer, random.normal(size=(2, 4)), embedding=random.normal(size=3),
            base=BaseScore(modality == "text" and sample == 1 and pair != "never", False, 0.5),
        )
        for pair in questions for modality in ("text", "speech") for sample in range(samples)
    ]  # fmt: skip
    result = TARSReward(config or TARSConfig())(rollouts, step=step)
    return rollouts, result, [torch.full((3,), -0.5)] * len(rollouts)


# ---- which questions


def test_the_rate_is_the_share_of_questions_and_each_step_has_others():
    names = [f"q{number}" for number in range(4000)]
    for rate in (0.05, 0.5):
        kept = [{name for name in names if chosen(name, seed=0, step=step, rate=rate)} for step in (1, 2)]
        assert [len(each) / len(names) for each in kept] == pytest.approx([rate, rate], abs=0.025)
        assert len(kept[0] & kept[1]) / len(names) == pytest.approx(rate**2, abs=0.02)
    assert all(chosen(name, seed=0, step=1, rate=1) for name in names)
    assert {chosen("q1", seed=seed, step=1, rate=0.5) for seed in range(20)} == {True, False}


def test_whole_pairs_are_kept_and_parts_of_a_batch_keep_the_same_as_the_whole(tmp_path):
    names = [f"q{number}" for number in range(40)]
    whole = opened(tmp_path / "whole", run_log_rate=0.3)
    whole.rollouts(5, *batch(names, step=5))
    for part in range(2):
        opened(tmp_path / f"part{part}", run_log_rate=0.3).rollouts(5, *batch(names[part::2], step=5))
    rows = lines(tmp_path / "whole", "rollouts.jsonl")
    found = [(row["id"], row["modality"], row["sample_id"]) for row in rows]
    pairs = sorted({pair for pair, _, _ in found})
    assert 4 < len(pairs) < 25
    assert found == [(p, m, s) for p in pairs for m in ("speech", "text") for s in range(2)]
    of_parts = [row["id"] for part in range(2) for row in lines(tmp_path / f"part{part}", "rollouts.jsonl")]
    assert sorted(of_parts) == [pair for pair, _, _ in found]


# ---- what is in the files


def test_a_row_has_the_rewards_of_its_rollout_and_null_where_a_term_is_not_valid(tmp_path):
    log = opened(tmp_path, run_log_rate=1)
    rollouts, result, log_probs = batch(["q1", "never"])
    log.rollouts(1, rollouts, result, log_probs)
    rows = lines(tmp_path, "rollouts.jsonl")
    by_identity = {(row["id"], row["modality"], row["sample_id"]): row for row in rows}
    for index, rollout in enumerate(rollouts):
        row = by_identity[rollout.pair_id, rollout.modality, rollout.sample_id]
        aligned = rollout.pair_id == "q1" and rollout.modality == "speech"
        assert (row["representation"] is not None) == (row["behavior"] is not None) == aligned
        assert row["reference"] == (1 if aligned else None)
        assert row["total"] == float(result.total[index])
        assert row["completion"] == rollout.completion
        assert (row["step"], row["tokens"], row["log_prob"], row["answer"]) == (1, 3, -1.5, "B")
        assert row["accuracy"] == float(rollout.base.correct)
        assert row["truncated"] is False


def test_the_fields_are_those_of_scored_files(tmp_path):
    from tars_rewards import Question, Scorer

    config = TARSConfig(alpha=0, beta=0)
    question = Question.from_row(
        {"id": "q1", "prompt": "?", "answer": "B", "completions": {"speech": ["a"], "text": ["b"]}}
    )
    scored = next(Scorer(None, config=config).score([question]))
    opened(tmp_path, run_log_rate=1).rollouts(1, scored.rollouts, scored.result, scored.log_probs)
    assert lines(tmp_path, "rollouts.jsonl") == [{**row, "step": 1} for row in scored.rows()]


def test_json_is_strict_whatever_comes(tmp_path):
    log = opened(tmp_path, run_log_rate=1)
    log.training(
        1,
        {
            "tars/a": float("nan"),
            "tars/b": np.float32("inf"),
            "tars/c": np.float64(0.5),
            "tars/d": 2,
            "tars/e": "x",
            "actor/lr": 1,
        },
    )
    rollouts, result, _ = batch(["caf\udce9 é"], answer=4)
    log.rollouts(1, rollouts, result, [None, *[torch.tensor([float("nan")])] * 3])
    assert lines(tmp_path, "metrics.jsonl") == [
        {"data": {"tars/a": None, "tars/b": None, "tars/c": 0.5, "tars/d": 2.0}, "step": 1}
    ]
    rows = lines(tmp_path, "rollouts.jsonl")
    assert {row["id"] for row in rows} == {"caf\udce9 é"}
    assert {row["answer"] for row in rows} == {"4"}
    assert [row["log_prob"] for row in rows] == [None] * 4
    assert sorted([row["tokens"] for row in rows], key=str) == [1, 1, 1, None]


def test_run_json_has_settings_and_versions_and_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "geheim")
    opened(tmp_path, run_log_rate=0.25)
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["format"], run["kind"], run["model"]) == (1, "training", "models/tiny")
    assert run["framework"] == f"numpy {np.__version__}" == f"numpy {run['versions']['numpy']}"
    assert (run["settings"]["alpha"], run["settings"]["layers"]) == (0.5, [0, -1])
    assert run["settings"]["terms"] == [["own_terms:brevity", 0.25]]
    assert run["options"]["run_log_rate"] == 0.25
    assert "geheim" not in (tmp_path / "run.json").read_text()


# ---- resumed


def train(log, steps, *, validated=()):
    for step in steps:
        log.rollouts(step, *batch(["q1", "q2"], step=step))
        log.training(step, {"tars/total/speech/mean": step})
        if step in validated:
            log.validation(step, {"val-core/acc": 0.5, "val-tars/gap": 0.25})


def test_what_is_done_again_is_there_once(tmp_path):
    log = opened(tmp_path, run_log_rate=1)
    log.validation(0, {"val-tars/gap": 0.5})
    train(log, [1, 2, 3, 4], validated=[2, 4])
    created = json.loads((tmp_path / "run.json").read_text())["created"]
    before = lines(tmp_path, "rollouts.jsonl"), lines(tmp_path, "metrics.jsonl")
    train(opened(tmp_path, run_log_rate=1), [3, 4], validated=[4])  # resumed from a checkpoint of step 2
    assert (lines(tmp_path, "rollouts.jsonl"), lines(tmp_path, "metrics.jsonl")) == before
    assert [row["step"] for row in before[1]] == [0, 1, 2, 3, 4]
    assert before[1][2]["data"] == {"tars/total/speech/mean": 2.0, "val-core/acc": 0.5, "val-tars/gap": 0.25}
    assert json.loads((tmp_path / "run.json").read_text())["created"] == created


def test_a_validation_at_the_start_of_a_resumed_run_leaves_its_step(tmp_path):
    train(opened(tmp_path, run_log_rate=1), [1, 2, 3])
    log = opened(tmp_path, run_log_rate=1)
    log.validation(2, {"val-tars/gap": 0.125})
    rows = lines(tmp_path, "metrics.jsonl")
    assert rows[-1] == {"step": 2, "data": {"tars/total/speech/mean": 2.0, "val-tars/gap": 0.125}}
    assert {row["step"] for row in lines(tmp_path, "rollouts.jsonl")} == {1, 2}
    train(log, [3])
    assert [row["step"] for row in lines(tmp_path, "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("validated", [True, False])
def test_a_run_that_starts_anew_leaves_nothing_of_the_earlier_attempt(tmp_path, validated):
    log = opened(tmp_path, run_log_rate=1)
    log.validation(0, {"val-tars/old": 0.5})
    train(log, [1, 2])
    log = opened(tmp_path, run_log_rate=1)
    if validated:
        log.validation(0, {"val-tars/new": 0.5})
    train(log, [1])
    rows = lines(tmp_path, "metrics.jsonl")
    assert [row["step"] for row in rows] == ([0, 1] if validated else [1])
    assert "old" not in str(rows)


def test_a_line_that_a_killed_process_did_not_finish_is_dropped(tmp_path):
    train(opened(tmp_path, run_log_rate=1), [1, 2])
    before = lines(tmp_path, "metrics.jsonl")
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 3, "da')
    train(opened(tmp_path, run_log_rate=1), [3])
    assert lines(tmp_path, "metrics.jsonl")[:2] == before
    assert [row["step"] for row in lines(tmp_path, "metrics.jsonl")] == [1, 2, 3]
    assert {row["step"] for row in lines(tmp_path, "rollouts.jsonl")} == {1, 2, 3}


def test_a_resumed_run_may_compute_its_reward_elsewhere_and_keep_more(tmp_path):
    train(opened(tmp_path), [1])
    moved = TARSConfig(**{**CONFIG.to_json(), "embedder_device": "cpu", "on_embedder_failure": "invalid"})
    train(opened(tmp_path, moved, run_log_rate=1), [2])
    assert {row["step"] for row in lines(tmp_path, "rollouts.jsonl")} >= {2}
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["embedder_device"] == "cpu"


# ---- what is refused


def test_another_trainings_log_is_left_alone(tmp_path):
    train(opened(tmp_path, run_log_rate=1), [1])
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match=r"log of another training \(alpha 0.5 then, 0.0 now; .*choose another one"):
        opened(tmp_path, TARSConfig(alpha=0))
    with pytest.raises(ConfigError, match=r"\(model 'models/tiny' then, 'models/other' now\)"):
        opened(tmp_path, model="models/other")
    assert (tmp_path / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"run.json": '{"format": 1, "kind": "evaluation", "created": "x"}'}, "kind 'evaluation', format 1, expected"),
        ({"run.json": '{"format": 2, "kind": "training", "created": "x"}'}, "format 2, expected 'training', 1"),
        ({"run.json": "{"}, "cannot be read as the run.json of a log"),
        ({"run.json": "[]"}, "cannot be read as the run.json of a log"),
        ({"metrics.jsonl": "{}\n"}, "has a metrics.jsonl but no run.json"),
        (
            {"run.json": SAME, "rollouts.jsonl": '{"step": 2}\n{"step": 1}\n'},
            "rollouts.jsonl, line 2: expected JSON with a step no earlier",
        ),
        (
            {"run.json": SAME, "metrics.jsonl": '{"ste\n'},
            "metrics.jsonl, line 1: expected JSON",
        ),
    ],
)  # fmt: skip
def test_a_directory_with_something_else_is_left_alone(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=f"{words}(.|\n)*move the directory away, or choose another one by run_log"):
        opened(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_a_directory_that_cannot_be_made_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run_log is '.*file/log', where nothing can be written: Not a directory"):
        prepare_directory(tmp_path / "file" / "log")
    with pytest.raises(ConfigError, match="where nothing can be written"):
        prepare_directory("/proc/log")


def limited(code, size):
    """Run Python with files limited to ``size`` bytes, which is what a full disk looks like."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_a_disk_without_room_is_told_at_the_start_and_later(tmp_path):
    code = (
        "from tars_rewards.integration.run_log import RunLog\n"
        f"log = RunLog({str(tmp_path / 'log')!r}, rate=1, seed=0, about={{'model': 'm', 'settings': {{}}}})\n"
        "for step in range(1, 100):\n"
        "    log.training(step, {f'tars/{n}': 0.5 for n in range(200)})\n"
    )
    early = limited(code, 10_000)
    assert "ConfigError: run_log is " in early.stderr
    assert "where nothing can be written: File too large" in early.stderr
    late = limited(code, 70_000)
    assert "AdapterError: step " in late.stderr
    assert "metrics.jsonl cannot be written: File too large; make room, and resume" in late.stderr
    log = RunLog(str(tmp_path / "log"), rate=1, seed=0, about={"model": "m", "settings": {}})
    steps = [row["step"] for row in lines(tmp_path / "log", "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    log.training(len(steps) + 1, {"tars/a": 1})
    assert lines(tmp_path / "log", "metrics.jsonl")[-1] == {"step": len(steps) + 1, "data": {"tars/a": 1.0}}


def test_two_trainings_cannot_write_one_log(tmp_path):
    first, second = opened(tmp_path, run_log_rate=1), opened(tmp_path, run_log_rate=1)
    train(first, [1])
    with pytest.raises(AdapterError, match=r"step 1: .*rollouts.jsonl was changed by somebody else"):
        train(second, [1])


RATES = (0, 1.5, "x", True, float("nan"))


@pytest.mark.parametrize("bad", [{"run_log": ""}, {"run_log": 5}, *({"run_log_rate": rate} for rate in RATES)])
def test_options_out_of_range(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        AdapterOptions(**bad)


def test_without_a_directory_there_is_no_log():
    assert opened(None) is None
