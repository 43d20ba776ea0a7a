"""The real training loop of verl on CPU cores, on text: what it computes, and what stops it."""

import json
import shutil

import pytest
import torch
from launch import HERE, run_verl, train
from truth import check_advantages, hf_forward, identities, largest, load_step, pooled_of, rounding

from tars_rewards import Rollout
from tars_rewards.protocol import BaseScore
from tars_rewards.reward import TARSReward

pytestmark = [pytest.mark.verl, pytest.mark.training]

# All completions of a prompt are then the same in every run with the same weights. Log-probs become those of a
# distribution with one outcome, so that comparing them means nothing.
DETERMINISTIC = {"actor_rollout_ref.rollout.top_k": 1, "reward.custom_kwargs.max_rollout_kl": 0}


def again(rows, step):
    """The core's own result on what was recorded."""
    reward = TARSReward(embedder=Refuse())
    infos = [extra["reward_extra_info"] for extra in rows["extra_fields"]]
    rollouts = [
        Rollout(
            pair, modality, sample, completion="x", base=BaseScore(info["acc"] > 0, False, 0.75 * info["acc"]),
            hidden_states=pooled_of(rows, i), embedding=info["embedding"],
        )
        for i, ((pair, modality, sample), info) in enumerate(zip(identities(rows), infos, strict=True))
    ]  # fmt: skip
    return reward(rollouts, step=step)


class Refuse:
    def encode(self, texts):
        raise AssertionError("every embedding came from the reward loop")


@pytest.fixture(scope="module")
def text_run(tiny, tmp_path_factory):
    # 4 prompts x 2 samples are no multiple of a mini-batch of 3 x 2: verl pads with 4 rows of its own.
    overrides = {
        **DETERMINISTIC,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 3,
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 200,
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": True,
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 200,
        "actor_rollout_ref.model.enable_gradient_checkpointing": True,
        "trainer.save_freq": 2,
        "trainer.val_before_train": True,
        "actor_rollout_ref.rollout.val_kwargs.n": 1,
        "reward.custom_kwargs.run_log_rate": 1,
    }
    directory = tmp_path_factory.mktemp("text") / "run"
    overrides["reward.custom_kwargs.run_log"] = directory / "log"
    return train(directory, tiny, "text", steps=3, overrides=overrides).check(), overrides


def test_every_step_has_whole_pairs_and_verls_padding_is_left_out(text_run):
    run, _ = text_run
    assert [step["step"] for step in run.steps if step["step"]] == [1, 2, 3]
    for step in (1, 2, 3):
        rows = torch.load(run.directory / f"step_{step}.pt", weights_only=False)
        assert sum(tag.get("is_padding", False) for tag in rows["tags"]) == 4
        found = identities(load_step(run.directory, step))
        pairs = {pair for pair, _, _ in found}
        assert sorted(found) == sorted((p, m, s) for p in pairs for m in ("speech", "text") for s in range(2))
        assert len(pairs) == 2


def test_rewards_and_advantages_are_the_cores(text_run):
    run, _ = text_run
    for step in (1, 2, 3):
        rows = load_step(run.directory, step)
        totals = torch.stack([scores.sum() for scores in rows["rm_scores"]])
        assert largest(totals, again(rows, step).total) < 1e-6
        check_advantages(rows)


def test_text_rows_never_get_alignment(text_run):
    run, _ = text_run
    rows = load_step(run.directory, 1)
    for (_, modality, _), scores in zip(identities(rows), rows["rm_scores"], strict=True):
        if modality == "text":
            assert float(scores.sum()) in (0.0, 0.75)


def test_pooled_states_of_the_first_step_are_those_of_a_plain_forward(text_run, tiny):
    from transformers import AutoModelForCausalLM

    run, _ = text_run
    rows = load_step(run.directory, 1)
    model = AutoModelForCausalLM.from_pretrained(tiny / "text", dtype=torch.float32).eval()
    for i in range(len(rows["keys"])):
        pooled, log_probs = hf_forward(model, rows, i)
        assert ((pooled - pooled_of(rows, i)).abs() < rounding(pooled) + 1e-5).all()
        assert largest(log_probs, rows["old_log_probs"][i]) < 1e-4


def test_the_update_does_not_fetch_the_pooled_states(text_run):
    run, _ = text_run
    fetched = (run.directory / "update_1.txt").read_text().split()
    assert {"advantages", "old_log_probs", "input_ids"} <= set(fetched)
    assert not [field for field in fetched if "pooled" in field]


def test_validation_reports_the_gap_and_training_every_term_by_modality(text_run):
    run, _ = text_run
    validation = run.steps[0]
    assert validation["step"] == 0
    assert validation["val-tars/speech_n"] == validation["val-tars/text_n"] == 8
    assert {"val-tars/speech_accuracy", "val-tars/text_accuracy", "val-tars/gap"} <= validation.keys()
    for step in run.steps[1:]:
        for term in ("accuracy", "format", "total"):
            assert step[f"tars/{term}/speech/count"] == step[f"tars/{term}/text/count"] == 4
        assert "tars/representation/text/mean" not in step
    assert "speech = accuracy + 0.5 x format + 1 x representation (layers all) + 1 x behavior" in run.log


def run_log(directory):
    """Metrics by step and rollouts of a run's log, each in the order of its file."""
    files = (directory / "log" / name for name in ("metrics.jsonl", "rollouts.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_the_run_log_is_what_was_rewarded_and_logged(text_run):
    run, _ = text_run
    metrics, rollouts = run_log(run.directory)
    assert [row["step"] for row in metrics] == [0, 1, 2, 3]
    for row, logged in zip(metrics, run.steps, strict=True):
        names = {name for name in logged if name.startswith(("tars/", "val-"))}
        assert len(names) > 5
        assert row["data"].keys() == names
        assert row["data"] == pytest.approx({name: logged[name] for name in names})
    for step in (1, 2, 3):
        rows = load_step(run.directory, step)
        recorded = dict(zip(identities(rows), range(len(rows["keys"])), strict=True))
        kept = [row for row in rollouts if row["step"] == step]
        assert [(row["id"], row["modality"], row["sample_id"]) for row in kept] == sorted(recorded)
        for row, index in zip(kept, map(recorded.get, sorted(recorded)), strict=True):
            mask = rows["response_mask"][index].bool()
            assert row["total"] == pytest.approx(float(rows["rm_scores"][index].sum()))
            assert row["tokens"] == int(mask.sum())
            assert row["log_prob"] == pytest.approx(float(rows["old_log_probs"][index][mask].sum()), abs=1e-5)
            assert (row["representation"] is None) == (row["reference"] is None)
    run_json = json.loads((run.directory / "log" / "run.json").read_text())
    assert (run_json["kind"], run_json["framework"]) == ("training", "verl 0.9.1")


def test_a_resumed_run_has_the_order_and_the_rewards_of_the_one_that_went_on(text_run, tiny, tmp_path):
    run, overrides = text_run
    resume = {
        **overrides,
        "trainer.val_before_train": False,
        "trainer.resume_mode": "resume_path",
        "trainer.resume_from_path": run.directory / "checkpoints" / "global_step_2",
    }
    shutil.copytree(run.directory / "log", tmp_path / "log")
    resume["reward.custom_kwargs.run_log"] = tmp_path / "log"
    resumed = train(tmp_path / "resumed", tiny, "text", steps=3, overrides=resume).check()
    assert [step["step"] for step in resumed.steps] == [3]
    there, here = (
        {who: (tuple(rows["responses"][i].tolist()), float(rows["rm_scores"][i].sum())) for i, who in enumerate(identities(rows))}
        for rows in (load_step(run.directory, 3), load_step(resumed.directory, 3))
    )  # fmt: skip
    assert there.keys() == here.keys()
    for who, (tokens, total) in there.items():
        assert here[who][0] == tokens
        assert here[who][1] == pytest.approx(total, abs=1e-6)
    # It went on with the same log: of step 3 there is what was done last.
    (metrics, rollouts), (metrics_now, rollouts_now) = run_log(run.directory), run_log(tmp_path)
    assert metrics_now[:3] == metrics[:3]
    assert [row["step"] for row in metrics_now] == [0, 1, 2, 3]
    assert metrics_now[3]["data"]["tars/seconds/finalise"] == resumed.steps[0]["tars/seconds/finalise"]
    assert [row["completion"] for row in rollouts_now] == [row["completion"] for row in rollouts]


# ---- what stops a run


@pytest.mark.variant
def test_a_push_that_is_lost_without_an_error_stops_the_run(tiny, tmp_path):
    run = train(tmp_path / "lost", tiny, "text", steps=3, sabotage="lose")
    assert run.returncode not in (0, None)
    assert [step["step"] for step in run.steps] == [1]
    assert max(run.steps[0]["tars/rollout_k3_kl/speech"], run.steps[0]["tars/rollout_k3_kl/text"]) < 1e-6
    assert "step 2: the rollout engine and the actor disagree about the completions of speech and text:" in run.log


@pytest.mark.variant
def test_a_failed_weight_push_stops_the_run_with_vllms_own_error(tiny, tmp_path):
    run = train(tmp_path / "push", tiny, "text", steps=1, sabotage="push", timeout=300)
    assert run.returncode not in (0, None)
    assert "the rollout engine could not load the pushed weights" in run.log
    assert "There is no module or parameter named 'nonsense'" in run.log


# ---- without the key


@pytest.mark.variant
def test_without_the_key_stock_verl_runs_as_ever(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    run = run_verl(
        tmp_path / "run",
        model=tiny / "text",
        data=tiny / "text.parquet",
        overrides={"reward.custom_reward_function.path": HERE / "digits_reward.py"},
        steps=1,
    ).check()
    assert "tars/" not in run.log
    assert "tars-rewards:" not in run.log
    assert not any(name.startswith("tars") for name in run.steps[0])
