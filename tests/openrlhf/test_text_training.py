"""The real training loop of OpenRLHF on CPU cores, on text: what it computes, and what stops it."""

import ast
import json
import re
import shutil

import pytest
import torch
from launch import HERE, train
from truth import LOG_PROBS, STATES, apart, check_advantages, hf_forward, largest, load, load_step

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
        assert apart(pooled, row.pooled) < STATES
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


# ---- distributed: against one process, on the same rollouts

KL = {"algo.kl.init_coef": 0.001, "algo.kl.use_loss": True, "algo.kl.estimator": "k3"}


def check_same(plain, other, steps, *, states, totals):
    """States, rewards and the completions that were compared with, of two runs that took the same rollouts."""
    for step in steps:
        chosen = [
            [(row["id"], row["sample_id"], row["reference"]) for row in run_log(each)[1] if row["step"] == step]
            for each in (plain, other)
        ]
        assert chosen[0] == chosen[1]
        assert any(reference is not None for _, _, reference in chosen[0])
        expected, found = load_step(plain, step), load_step(other, step)
        assert expected.keys() == found.keys()
        for identity, row in expected.items():
            assert torch.equal(row.ids, found[identity].ids)
            assert largest(row.pooled, found[identity].pooled) <= states
            assert found[identity].reward == pytest.approx(row.reward, abs=totals)
        check_advantages(found)


@pytest.mark.variant
def test_zero3_on_two_ranks_is_one_process_to_the_bit(text_run, tiny, tmp_path):
    # The micro-batches are the same, so that bfloat16 rounds alike. What Adam makes of a gradient's rounding is not.
    overrides = {"ds.zero_stage": 3, "actor.num_gpus_per_node": 2, "actor.gradient_checkpointing_enable": True}
    overrides |= KL | log_flags(tmp_path)
    run = train(tmp_path, tiny, "text", steps=1, replay=text_run.directory, overrides=overrides).check()
    check_same(text_run.directory, tmp_path, [1], states=0, totals=0)
    assert run.steps[0]["kl"] == 0  # the reference is partitioned too


@pytest.mark.variant
def test_packed_dynamic_batches_on_two_ranks_are_padded_ones_of_one_process(text_run, tiny, tmp_path):
    # Other micro-batches round otherwise: 1e-3 in bfloat16, so both runs are in float32. The rollouts of step 2 are of
    # another policy than theirs.
    shared = {"tars.max_rollout_kl": 0}
    settings = {"steps": 2, "replay": text_run.directory, "float32": True}
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    train(plain, tiny, "text", overrides=shared | log_flags(plain), **settings).check()
    overrides = {
        "ds.zero_stage": 2,
        "actor.num_gpus_per_node": 2,
        "train.dynamic_batch_enable": True,
        "rollout.max_tokens_per_gpu": 100,
        "train.max_tokens_per_gpu": 100,
    }
    train(packed, tiny, "text", overrides=overrides | shared | log_flags(packed), **settings).check()
    # States that differ by rounding may be packed into the next of 65,535 steps.
    check_same(plain, packed, [1], states=1e-4, totals=1e-5)
    assert {len(experience.index) for experience in torch.load(packed / "step_1.pt", weights_only=False)[0]} != {4}


def test_lora_on_two_ranks(text_run, tiny, tmp_path):
    overrides = {
        "ds.lora.rank": 8,
        "ds.lora.alpha": 32,
        "ds.zero_stage": 3,
        "actor.num_gpus_per_node": 2,
        "actor.gradient_checkpointing_enable": True,
        "ckpt.save_steps": 2,
        "ckpt.save_hf": True,
        "data.max_samples": 8,
    }
    overrides |= KL | log_flags(tmp_path)
    run = train(tmp_path, tiny, "text", steps=3, replay=text_run.directory, replay_steps=1, overrides=overrides).check()
    # A fresh adapter adds nothing.
    check_same(text_run.directory, tmp_path, [1], states=0, totals=0)
    for step in run.steps:
        assert max(step["tars/rollout_k3_kl/speech"], step["tars/rollout_k3_kl/text"]) < 1e-4
    assert run.steps[2]["kl"] > 1e-3
    # vLLM samples from what is trained, the reference is what it began with, and what is saved is the policy.
    before, after = load("text", tiny / "text"), load("text", tmp_path / "checkpoints" / "global_step2_hf")
    for row in load_step(tmp_path, 3).values():
        (_, reference), (pooled, log_probs) = hf_forward(before, row), hf_forward(after, row)
        assert largest(reference, row.reference_log_probs) < LOG_PROBS
        assert apart(pooled, row.pooled) < 5 * STATES  # merged weights are rounded, adapters are not
        for engine in (row.actor_log_probs, row.rollout_log_probs):
            assert largest(log_probs, engine) < 2 * LOG_PROBS
            assert largest(reference, engine) > 4 * LOG_PROBS


# ---- what stops a run, and what a user may leave out


def test_lost_pushes_stop_the_run(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=3, sabotage="push")
    assert run.returncode not in (0, None)
    assert "disagree about the completions of speech and text:" in run.log


@pytest.mark.variant
def test_a_failing_reward_function_stops_the_run_with_its_own_traceback(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=1, overrides={"reward.remote_url": HERE / "failing_reward.py"})
    assert run.returncode not in (0, None)
    assert "no rubric for" in run.log
    assert "failing_reward.py" in run.log


def test_without_a_reward_function_completions_earn_accuracy_and_format(tiny, tmp_path):
    run = train(tmp_path, tiny, "text", steps=1, overrides={"reward.remote_url": None, "tars.beta": 0}).check()
    assert run.steps[0]["tars/total/text/mean"] == 0  # a random model never answers
    assert "no behavior" in run.log
