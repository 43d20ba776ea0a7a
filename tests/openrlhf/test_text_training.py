"""The real training loop of OpenRLHF on CPU cores, on text: what it computes, and what stops it."""

import ast
import json
import re
import shutil

import pytest
import torch
from launch import HERE, train
from truth import LOG_PROBS, STATES, check_advantages, hf_forward, largest, load, load_step

pytestmark = [pytest.mark.openrlhf, pytest.mark.training]


def log_flags(directory):
    return {"tars.run_log": directory / "log", "tars.run_log_rate": 1}


def run_log(directory):
    """Metrics by step and rollouts of a run's log, each in the order of its file."""
    files = (directory / "log" / name for name in ("metrics.jsonl", "rollouts.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.fixture(scope="module")
def text_run(tiny, tmp_path_factory):
    overrides = {
        "eval.dataset": tiny / "text.parquet",
        "eval.steps": 3,
        "eval.n_samples_per_prompt": 2,
        "eval.temperature": 1.0,
        "algo.kl.init_coef": 0.001,
        "algo.kl.use_loss": True,
        "algo.kl.estimator": "k3",
        "data.max_samples": 12,
        "ckpt.save_steps": 2,
        "ckpt.best_metric_key": "none",  # else the evaluation after the last step is what a resumed run begins with
    }
    directory = tmp_path_factory.mktemp("text") / "run"
    overrides |= log_flags(directory)
    return train(directory, tiny, "text", steps=3, overrides=overrides).check()


def test_every_step_has_whole_pairs_in_order(text_run):
    assert [step["step"] for step in text_run.steps] == [1, 2, 3]
    for step in (1, 2, 3):
        found = list(load_step(text_run.directory, step))
        pairs = sorted({pair for pair, _, _ in found})
        assert len(pairs) == 2
        assert found == [(p, m, s) for p in pairs for m in ("speech", "text") for s in range(2)]


def test_advantages_are_the_papers(text_run):
    for step in (1, 2, 3):
        check_advantages(load_step(text_run.directory, step))


def test_states_and_log_probs_of_the_first_step_are_those_of_a_plain_forward(text_run, tiny):
    model = load("text", tiny / "text")
    for row in load_step(text_run.directory, 1).values():
        pooled, log_probs = hf_forward(model, row)
        assert largest(pooled, row.pooled) < STATES
        assert largest(log_probs, row.actor_log_probs) < LOG_PROBS


def test_vllm_and_the_actor_agree_after_every_push(text_run):
    assert largest(
        load_step(text_run.directory, 1).popitem()[1].pooled, load_step(text_run.directory, 3).popitem()[1].pooled
    )
    for step in text_run.steps:
        assert max(step["tars/rollout_k3_kl/speech"], step["tars/rollout_k3_kl/text"]) < 1e-4
    assert text_run.steps[2]["kl"] > 0  # the policy has moved away from the reference


def test_text_rows_never_get_alignment_and_every_term_is_logged_by_modality(text_run):
    for step in text_run.steps:
        for term in ("accuracy", "format", "total"):
            assert step[f"tars/{term}/speech/count"] == step[f"tars/{term}/text/count"] == 4
        assert "tars/representation/text/mean" not in step
    for (_, modality, _), row in load_step(text_run.directory, 1).items():
        assert modality == "speech" or row.reward in (0.25, 1.0)
    assert "speech = accuracy + 0.5 x format + 1 x representation (layers all) + 1 x behavior" in text_run.log


def test_evaluation_reports_the_gap(text_run):
    logs = ast.literal_eval(re.search(r"eval_metrics: (\{.*\})", text_run.log)[1])
    assert logs["eval_num_samples"] == 24
    assert logs["tars/speech_n"] == logs["tars/text_n"] == 12
    assert logs["tars/gap"] == pytest.approx(logs["tars/text_accuracy"] - logs["tars/speech_accuracy"])
    assert {"tars/mrr", "tars/own_text_ratio"} <= logs.keys()
    assert 0 < logs["eval_default_pass1"] <= 1


def test_the_run_log_is_what_was_rewarded_and_logged(text_run):
    metrics, rollouts = run_log(text_run.directory)
    evaluation = ast.literal_eval(re.search(r"eval_metrics: (\{.*\})", text_run.log)[1])
    assert [row["step"] for row in metrics] == [1, 2, 3]
    for row, logged in zip(metrics, text_run.steps, strict=True):
        expected = {name: value for name, value in logged.items() if name.startswith("tars/")}
        assert len(expected) > 10
        assert row["data"] == pytest.approx(expected | (evaluation if row["step"] == 3 else {}))
    for step in (1, 2, 3):
        recorded = load_step(text_run.directory, step)
        kept = [row for row in rollouts if row["step"] == step]
        assert [(row["id"], row["modality"], row["sample_id"]) for row in kept] == list(recorded)
        for row, there in zip(kept, recorded.values(), strict=True):
            assert row["total"] == pytest.approx(there.reward)
            assert row["tokens"] == int(there.generated.sum())
            assert row["log_prob"] == pytest.approx(float(there.actor_log_probs.sum()), abs=1e-4)
            assert (row["representation"] is None) == (row["reference"] is None)
            assert row["answer"]
    run = json.loads((text_run.directory / "log" / "run.json").read_text())
    assert (run["kind"], run["framework"]) == ("training", "openrlhf 0.11.2")


def test_a_resumed_run_goes_on_with_the_questions_that_were_to_come(text_run, tiny, tmp_path):
    overrides = {"ckpt.path": text_run.directory / "checkpoints", "ckpt.load_enable": True, "data.max_samples": 12}
    shutil.copytree(text_run.directory / "log", tmp_path / "log")
    overrides |= log_flags(tmp_path)
    resumed = train(tmp_path, tiny, "text", steps=3, overrides=overrides).check()
    assert [step["step"] for step in resumed.steps] == [3]
    assert load_step(tmp_path, 3).keys() == load_step(text_run.directory, 3).keys()
    # It went on with the same log: of step 3 there is what was done last.
    before, (metrics, rollouts) = run_log(text_run.directory), run_log(tmp_path)
    assert metrics[:2] == before[0][:2]
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert metrics[2]["data"]["tars/seconds/finalise"] == resumed.steps[0]["tars/seconds/finalise"]
    assert [row for row in rollouts if row["step"] < 3] == [row for row in before[1] if row["step"] < 3]
    assert len(rollouts) == len(before[1])


VARIANTS = {
    "packed, dynamic batches": {
        "train.dynamic_batch_enable": True,
        "rollout.max_tokens_per_gpu": 100,
        "train.max_tokens_per_gpu": 100,
    },
    # One rank: on two CPU ranks transformers 5.15 with DeepSpeed 0.19.6 alone loads some weights wrong most of the time.
    "ZeRO-3, checkpointing": {"ds.zero_stage": 3, "actor.gradient_checkpointing_enable": True},
    "ZeRO-2, packed, two ranks": {
        "ds.zero_stage": 2,
        "ds.packing_samples": True,
        "actor.num_gpus_per_node": 2,
        "rollout.micro_batch_size": 2,
        "train.micro_batch_size": 2,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_rollouts_get_the_same_rewards(text_run, tiny, tmp_path, variant):
    run = train(tmp_path, tiny, "text", steps=2, replay=text_run.directory, overrides=VARIANTS[variant]).check()
    assert [step["step"] for step in run.steps] == [1, 2]
    plain, other = load_step(text_run.directory, 1), load_step(tmp_path, 1)
    assert plain.keys() == other.keys()
    for identity, row in plain.items():
        assert torch.equal(row.ids, other[identity].ids)
        assert largest(row.pooled, other[identity].pooled) < STATES
        assert other[identity].reward == pytest.approx(row.reward, abs=2e-3)
    check_advantages(other)


# ---- what stops a run, and what a user may leave out


def test_lost_pushes_stop_the_run(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=3, sabotage="push")
    assert run.returncode not in (0, None)
    assert "disagree about the completions of speech and text:" in run.log


def test_a_failing_reward_function_stops_the_run_with_its_own_traceback(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=1, overrides={"reward.remote_url": HERE / "failing_reward.py"})
    assert run.returncode not in (0, None)
    assert "no rubric for" in run.log
    assert "failing_reward.py" in run.log


def test_without_a_reward_function_completions_earn_accuracy_and_format(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=1, overrides={"reward.remote_url": None, "tars.beta": 0}).check()
    assert run.steps[0]["tars/total/text/mean"] == 0  # a random model never answers
    assert "no behavior" in run.log
