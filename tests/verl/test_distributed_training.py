"""verl on two training processes against one, on the same completions: the same rewards, and the same update.

Every run here takes its first completions from the single process's (replaying.py), so that what differs is how the work
was laid out. What a single run must agree with is in the other files; here it is what the others must agree with.
"""

import json

import pytest
import torch
from launch import REPLAYING, TWO_RANKS, train
from test_audio_training import audio_model
from test_text_training import again
from tiny_models import AUDIO, VISION
from transformers import AutoModelForCausalLM, AutoTokenizer
from truth import check_advantages, hf_forward, identities, largest, load_step, pooled_of, rounding

pytestmark = [pytest.mark.verl, pytest.mark.training]

ACTOR, MODEL, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "model", "rollout"))
COMMON = {
    **REPLAYING,
    f"{ROLLOUT}.n": 4,
    f"{ACTOR}.use_kl_loss": True,
    f"{ACTOR}.kl_loss_coef": 0.1,
    "actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype": "fp32",
    # Plain gradient descent leaves a difference of rounding as small as it is. AdamW makes a whole step of a gradient that
    # is nothing but rounding.
    f"{ACTOR}.optim.optimizer": "SGD",
    f"{ACTOR}.optim.lr": 0.3,
    "reward.custom_kwargs.run_log_rate": 1,
}
# 16 rows are no multiple of a mini-batch of 5 x 4: verl adds 4 rows of its own, and the step is one update all the same.
PACKED = {
    f"{MODEL}.use_remove_padding": True,
    f"{MODEL}.enable_gradient_checkpointing": True,
    f"{ACTOR}.ppo_mini_batch_size": 5,
    f"{ACTOR}.use_dynamic_bsz": True,
    f"{ACTOR}.ppo_max_token_len_per_gpu": 200,
    f"{ACTOR}.use_torch_compile": True,
    f"{ACTOR}.fsdp_config.use_torch_compile": True,
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile": True,
    **{
        f"actor_rollout_ref.{part}.log_prob_{key}": value
        for part in ("rollout", "ref")
        for key, value in (("use_dynamic_bsz", True), ("max_token_len_per_gpu", 200))
    },
    "trainer.save_freq": 2,
    "reward.custom_kwargs.finaliser_workers": 2,
}


def start(directory, tiny, *, steps=3, replay=None, replay_steps=0, **overrides):
    overrides = {**COMMON, "reward.custom_kwargs.run_log": directory / "log", **overrides}
    run = train(
        directory, tiny, "text", steps=steps, overrides=overrides, replay=replay, replay_steps=replay_steps, timeout=600
    )
    return run.check()


@pytest.fixture(scope="module")
def single(tiny, tmp_path_factory):
    return start(tmp_path_factory.mktemp("single") / "run", tiny, steps=2).directory


def by_identity(directory, step):
    """Recorded rows of a step, and the place of every rollout among them."""
    rows = load_step(directory, step)
    return rows, {who: index for index, who in enumerate(identities(rows))}


def references(directory, step):
    """What the run's own log says about the reference of every rollout."""
    logged = map(json.loads, (directory / "log" / "rollouts.jsonl").read_text().splitlines())
    return {(row["id"], row["modality"], row["sample_id"]): row["reference"] for row in logged if row["step"] == step}


def assert_same(one, other, step, *, tolerance=1e-5):
    """Completions and references bit by bit, the rest within a tolerance."""
    (ours, places), (theirs, there) = by_identity(one, step), by_identity(other, step)
    assert len(places) == 16
    assert places.keys() == there.keys()
    assert references(one, step) == references(other, step)
    assert any(reference is not None for reference in references(one, step).values())
    for who, i in places.items():
        j = there[who]
        assert torch.equal(ours["responses"][i], theirs["responses"][j])
        here, there_too = pooled_of(ours, i), pooled_of(theirs, j)
        assert ((here - there_too).abs() < tolerance + 2.02 * rounding(there_too)).all()
        for field in ("old_log_probs", "ref_log_prob", "rm_scores", "advantages"):
            assert largest(ours[field][i], theirs[field][j]) < tolerance, (field, who)


def ranks(directory, step):
    """Training process that held each rollout: verl deals the rows of a step out in halves."""
    rows = torch.load(directory / f"step_{step}.pt", weights_only=False)
    half = len(rows["keys"]) // 2
    real = [i for i, tag in enumerate(rows["tags"]) if not tag.get("is_padding", False)]
    return dict(zip(identities(load_step(directory, step)), (i // half for i in real), strict=True))


def check_core(directory, step):
    """Rewards and advantages are the core's own on what was recorded."""
    rows = load_step(directory, step)
    totals = torch.stack([scores.sum() for scores in rows["rm_scores"]])
    assert largest(totals, again(rows, step).total) < 1e-6
    check_advantages(rows)


def rollout_kl(run, step):
    return max(run.steps[step - 1][f"tars/rollout_k3_kl/{modality}"] for modality in ("speech", "text"))


# ---- FSDP2 over two ranks: packed, dynamic batch, gradient checkpointing, compiled entropy, verl's padding rows, finaliser
# ---- in processes of its own


@pytest.fixture(scope="module")
def sharded(single, tiny, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharded") / "run"
    return start(directory, tiny, replay=single, replay_steps=2, **TWO_RANKS, **PACKED)


def test_two_sharded_ranks_agree_with_one_process(sharded, single):
    assert_same(single, sharded.directory, 1)
    held = ranks(sharded.directory, 1)
    assert set(held.values()) == {0, 1}
    # Members of a pair are compared across ranks.
    speech = [(who, rank) for who, rank in held.items() if who[1] == "speech"]
    chosen = references(sharded.directory, 1)
    assert any(
        chosen[who] is not None and held[who[0], "text", chosen[who]] != rank for who, rank in speech
    )  # fmt: skip
    rows = torch.load(sharded.directory / "step_1.pt", weights_only=False)
    assert sum(tag.get("is_padding", False) for tag in rows["tags"]) == 4
    check_core(sharded.directory, 1)


def test_their_update_is_the_same(sharded, single):
    assert_same(single, sharded.directory, 2)
    rows, _ = by_identity(single, 2)
    moved = [largest(a, b) for a, b in zip(rows["old_log_probs"], rows["ref_log_prob"], strict=True)]
    assert min(moved) > 1e-2


def test_both_rollout_engines_got_it(sharded):
    generated = sharded.directory / "rollouts"
    assert [each.name for each in generated.iterdir()] == ["3"]
    assert len(list((generated / "3").iterdir())) == 16
    assert rollout_kl(sharded, 3) < 1e-6


@pytest.mark.variant
def test_a_resumed_run_of_two_ranks_goes_on_where_it_stopped(sharded, tiny, tmp_path):
    resumed = start(
        tmp_path / "resumed",
        tiny,
        replay=sharded.directory,
        replay_steps=3,
        **TWO_RANKS,
        **PACKED,
        **{
            "trainer.resume_mode": "resume_path",
            "trainer.resume_from_path": sharded.directory / "checkpoints" / "global_step_2",
        },
    )
    assert [step["step"] for step in resumed.steps] == [3]
    assert_same(sharded.directory, resumed.directory, 3, tolerance=1e-6)


# ---- data parallel: two replicas of the policy


@pytest.mark.variant
def test_two_replicas_agree_with_one_process(single, tiny, tmp_path):
    run = start(
        tmp_path / "replicas",
        tiny,
        replay=single,
        replay_steps=2,
        **TWO_RANKS,
        **{f"{ACTOR}.fsdp_config.fsdp_size": 1, "actor_rollout_ref.ref.fsdp_config.fsdp_size": 1},
    )
    for step in (1, 2):
        assert_same(single, run.directory, step)
    assert set(ranks(run.directory, 1).values()) == {0, 1}
    assert rollout_kl(run, 3) < 1e-6


# ---- LoRA, as in the paper: the reference policy is the model without its adapter


def joined(checkpoint):
    """State dict of the policy from what each of the two ranks saved of it: shares along the first dimension."""
    shares = [torch.load(checkpoint / f"model_world_size_2_rank_{rank}.pt", weights_only=False) for rank in (0, 1)]
    return {name: torch.cat([share[name].to_local() for share in shares]) for name in shares[0]}


def test_lora_on_two_ranks(single, tiny, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapter = {"lora_alpha": 16, "target_modules": "all-linear"}
    overrides = {f"{MODEL}.{key}": value for key, value in {"lora_rank": 8, **adapter}.items()}
    run = start(
        tmp_path / "lora",
        tiny,
        steps=2,
        replay=single,
        replay_steps=1,
        **TWO_RANKS,
        **overrides,
        **{"trainer.save_freq": 1},
    )
    # An untrained adapter changes nothing.
    assert_same(single, run.directory, 1)
    check_core(run.directory, 2)
    rows, _ = by_identity(run.directory, 2)
    base = AutoModelForCausalLM.from_pretrained(tiny / "text", dtype=torch.float32).eval()
    without = [hf_forward(base, rows, i) for i in range(len(rows["keys"]))]
    policy = get_peft_model(base, LoraConfig(r=8, task_type="CAUSAL_LM", **adapter)).eval()
    policy.load_state_dict(joined(run.directory / "checkpoints" / "global_step_1" / "actor"))
    for i, (pooled_without, log_probs_without) in enumerate(without):
        pooled, log_probs = hf_forward(policy.get_base_model(), rows, i)
        assert ((pooled - pooled_of(rows, i)).abs() < rounding(pooled) + 1e-5).all()
        assert largest(log_probs, rows["old_log_probs"][i]) < 1e-4
        assert largest(log_probs_without, rows["ref_log_prob"][i]) < 1e-4
        assert largest(pooled, pooled_without) > 1e-4
        assert largest(log_probs, log_probs_without) > 1e-3
    # These were generated: each rollout engine has the adapter.
    assert rollout_kl(run, 2) < 1e-6


# ---- audio: ranks whose micro batches hear something beside ranks whose micro batches do not


def test_a_speech_model_on_two_ranks(tiny, tmp_path):
    alone = {f"{ACTOR}.ppo_micro_batch_size_per_gpu": 1, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 1}
    overrides = {**TWO_RANKS, **alone, f"{MODEL}.use_remove_padding": True}
    run = train(tmp_path / "omni", tiny, "qwen2_5_omni", overrides=overrides, timeout=600).check()
    check_core(run.directory, 1)
    rows, places = by_identity(run.directory, 1)
    model = audio_model("qwen2_5_omni", tiny / "qwen2_5_omni")
    banned = AutoTokenizer.from_pretrained(tiny / "qwen2_5_omni").convert_tokens_to_ids(
        [*AUDIO.values(), *VISION.values()]
    )
    for i in places.values():
        pooled, log_probs = hf_forward(model, rows, i, ban=banned)
        assert ((pooled - pooled_of(rows, i)).abs() < rounding(pooled) + 1e-5).all()
        assert largest(log_probs, rows["old_log_probs"][i]) < 1e-4
    held = ranks(run.directory, 1)
    assert {(who[1], rank) for who, rank in held.items()} == {(m, r) for m in ("speech", "text") for r in (0, 1)}
    assert run.steps[0]["actor/grad_norm"] > 0
    assert max(rollout_kl(run, 1), rollout_kl(run, 2)) < 1e-4
