"""Rollouts out of OpenRLHF's micro-batches; the same ones by way of verl's get the same rewards, to the bit."""

import types

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tars_rewards.config import TARSConfig
from tars_rewards.errors import AdapterError, EmbedderFailureWarning
from tars_rewards.integration.rollout_kl import RolloutKLGuard
from tars_rewards.reward import TARSReward
from tars_rewards.transport import pack_states
from tars_rewards_openrlhf import cpu
from tars_rewards_openrlhf.label import Label
from tars_rewards_verl import batch as verl_batch

cpu.install()
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402

from tars_rewards_openrlhf.evaluation import evaluation_metrics  # noqa: E402
from tars_rewards_openrlhf.experience import TARSExperienceMaker, rollouts_of  # noqa: E402
from tars_rewards_openrlhf.flags import OpenRLHFOptions  # noqa: E402
from tars_rewards_openrlhf.policy import completion_mask  # noqa: E402

LAYERS, HIDDEN, DIM, PROMPT = 3, 8, 5, 4


def step(seed=0):
    """Rollouts of two questions: identity, tokens, states, embedding, base score."""
    random = np.random.default_rng(seed)
    return [
        {
            "identity": (f"q{pair}", modality, sample),
            "tokens": random.integers(3, 200, random.integers(2, 7)).tolist(),
            "states": torch.from_numpy(random.normal(size=(LAYERS, HIDDEN)).astype(np.float32)),
            "embedding": torch.from_numpy(random.normal(size=DIM).astype(np.float32)),
            "correct": bool(sample or modality == "text"),
            "reward": 0.25 + sample,
        }
        for pair in range(2)
        for modality in ("speech", "text")
        for sample in range(2)
    ]


def of_openrlhf(rows, tokenizer, failed=None):
    longest = max(len(row["tokens"]) for row in rows)
    sequences = torch.zeros(len(rows), PROMPT + longest, dtype=torch.long)
    action = torch.zeros(len(rows), PROMPT + longest - 1, dtype=torch.long)
    for row, into, mask in zip(rows, sequences, action, strict=True):
        end = PROMPT + len(row["tokens"])
        into[:PROMPT], into[PROMPT:end] = 7, torch.tensor(row["tokens"])
        mask[PROMPT - 1 : end - 1] = 1
    experience = Experience(
        sequences=sequences,
        action_mask=action,
        labels=[Label(pair, modality, "4").dump() for pair, modality, _ in (row["identity"] for row in rows)],
        rewards=torch.tensor([row["reward"] for row in rows]),
        truncated=torch.zeros(len(rows), dtype=torch.bool),
    )
    extras = {
        "sample": torch.tensor([float(row["identity"][2]) for row in rows]),
        "correct": torch.tensor([float(row["correct"]) for row in rows]),
        "format": torch.zeros(len(rows)),
        "embedding": torch.stack([row["embedding"] for row in rows]),
    }
    if failed is not None:
        extras["embedder_failed"] = torch.tensor([float(each) for each in failed])
    pooled = pack_states(torch.stack([row["states"] for row in rows]))
    return rollouts_of(experience, extras, pooled, tokenizer)


def of_verl(rows, tokenizer):
    def wrapped(value):
        return types.SimpleNamespace(data=value)

    infos = [
        {"acc": float(row["correct"]), "format": 0.0, "truncated": 0.0, "over_window": 0.0, "embedding": row["embedding"].numpy()}
        for row in rows
    ]  # fmt: skip
    packed = pack_states(torch.stack([row["states"] for row in rows]))
    data = {
        verl_batch.POOLED: packed.steps.flatten(1),
        verl_batch.POOLED_SIDE: packed.side.flatten(1),
        "pair_id": [row["identity"][0] for row in rows],
        "modality": [row["identity"][1] for row in rows],
        "reward_model": [wrapped({"ground_truth": "4"}) for _ in rows],
        "rm_scores": torch.tensor([[0.0, row["reward"]] for row in rows]),
        "extra_fields": [wrapped({"reward_extra_info": info}) for info in infos],
    }
    keys = [f"{'-'.join(row['identity'][:2])}_{row['identity'][2]}_0" for row in rows]
    completions = [tokenizer.decode(row["tokens"], skip_special_tokens=True) for row in rows]
    return verl_batch.to_rollouts(data, keys, completions, hidden_states=True, embedding=True)


def test_both_adapters_give_the_same_rewards_to_the_bit(tiny):
    tokenizer, reward = AutoTokenizer.from_pretrained(tiny / "text"), TARSReward(TARSConfig(seed=3))
    for seed in range(5):
        rows = step(seed)
        ours, theirs = reward(of_openrlhf(rows, tokenizer), step=7), reward(of_verl(rows, tokenizer), step=7)
        assert torch.equal(ours.total, theirs.total)
        assert torch.equal(ours.reference, theirs.reference)
        assert (ours.total[~torch.tensor([row["identity"][1] == "text" for row in rows])] != 0).all()


def test_a_failed_embedding_survives_being_put_together(tiny):
    """OpenRLHF joins completions of one each into micro-batches, and pads what is shorter with zeros."""
    tokenizer, rows = AutoTokenizer.from_pretrained(tiny / "text"), step()
    rows[1]["embedding"], rows[1]["failed"] = torch.zeros(1), True
    joined = Experience.concat_experiences(
        [Experience(info={name: torch.as_tensor(row[name])[None].float() for name in ("embedding",)}) for row in rows],
        0,
    )
    rollouts = of_openrlhf(
        [{**row, "embedding": vector} for row, vector in zip(rows, joined.info["embedding"], strict=True)],
        tokenizer,
        failed=[bool(row.get("failed")) for row in rows],
    )
    assert [rollout.embedding_failed for rollout in rollouts] == [False, True, *[False] * 6]
    reward = TARSReward(TARSConfig(on_embedder_failure="invalid"))
    with pytest.warns(EmbedderFailureWarning, match="failed on 1 of 8 completions"):
        result = reward(rollouts)
    assert not result.valid["behavior"].any()
    assert result.valid["representation"].any()
    assert result.metrics["tars/behavior/embedder_failures"] == 1


def test_rollouts_carry_identity_completion_and_the_users_reward(tiny):
    tokenizer, rows = AutoTokenizer.from_pretrained(tiny / "text"), step()
    for row, rollout in zip(rows, of_openrlhf(rows, tokenizer), strict=True):
        assert (rollout.pair_id, rollout.modality, rollout.sample_id) == row["identity"]
        assert rollout.completion == tokenizer.decode(row["tokens"], skip_special_tokens=True)
        assert rollout.base.reward == row["reward"]
        torch.testing.assert_close(rollout.hidden_states.unpack(), row["states"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("step", "limit", "stops"), [(1, None, True), (2, None, False), (1, 0.0, False)])
def test_a_reference_that_was_loaded_wrong_stops_the_first_step(step, limit, stops):
    maker = TARSExperienceMaker.__new__(TARSExperienceMaker)
    maker.args = types.SimpleNamespace(actor=types.SimpleNamespace(model_name_or_path="a/checkpoint"))
    maker.step, maker._guard = step, RolloutKLGuard(limit, ["bf16"], "--tars.max_rollout_kl")
    actor = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, -0.5, 0.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    rollouts = [types.SimpleNamespace(modality=modality) for modality in ("speech", "text")]
    kept = [row[:2] for row in actor]
    # None without a KL term; rounding; what padding holds is nobody's.
    for right in (None, actor, actor + 0.05, actor + torch.tensor([0.0, 0.0, 9.0])):
        experience = Experience(action_mask=mask, base_action_log_probs=right)
        maker._check_reference([experience], rollouts, kept)
    for wrong in (actor - 0.5, actor * torch.nan):
        experience = Experience(action_mask=mask, base_action_log_probs=wrong)
        if stops:
            with pytest.raises(
                AdapterError, match=r"loaded from a/checkpoint, disagree before any update.*at most 2e-02"
            ):
                maker._check_reference([experience], rollouts, kept)
        else:
            maker._check_reference([experience], rollouts, kept)


def test_the_mask_marks_generated_tokens_padded_and_packed():
    action = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]])
    attention = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    padded, none = completion_mask(action, attention, packed=False)
    assert none is None
    assert padded.long().tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    packed, offsets = completion_mask(action, attention, packed=True)
    assert packed.long().tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert offsets.tolist() == [0, 4, 9]


def test_evaluation_tells_datasources_apart_although_prompts_are_alike():
    from openrlhf.trainer.ppo_trainer import compute_eval_metrics

    samples = [
        Experience(
            prompts=["the same"],
            labels=[Label(f"q{number}", modality, "4", source).dump()],
            rewards=torch.tensor([reward]),
            response_length=torch.tensor([3]),
            truncated=torch.tensor([False]),
            info={"tars_correct": torch.tensor([reward])},
        )
        for number, (modality, source, reward) in enumerate(
            [("speech", "a", 0.0), ("text", "a", 1.0), ("speech", "b", 1.0), ("text", "b", 1.0)]
        )
    ]
    options = OpenRLHFOptions(text_backbone_accuracy=0.8)
    logs = evaluation_metrics(compute_eval_metrics, samples, 1, config=TARSConfig(), options=options)
    assert (logs["eval_a_pass1"], logs["eval_b_pass1"], logs["eval_num_samples"]) == (0.5, 1.0, 4)
    assert (logs["tars/speech_accuracy"], logs["tars/text_accuracy"], logs["tars/gap"]) == (0.5, 1.0, 0.5)
    assert logs["tars/mrr"] == pytest.approx(62.5)
    assert logs["tars/own_text_ratio"] == 0.5
    assert evaluation_metrics(compute_eval_metrics, [], 1, config=TARSConfig(), options=options) == {}
