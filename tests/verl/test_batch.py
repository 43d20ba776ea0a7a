"""Rows of verl's TransferQueue as rollouts, and rewards back into it; the queue itself is a dictionary here."""

import types

import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from tars_rewards.errors import AdapterError
from tars_rewards.protocol import BaseScore
from tars_rewards.reward import TARSReward as CoreReward
from tars_rewards.transport import pack_states
from tars_rewards_verl.batch import (
    POOLED,
    POOLED_SCALES,
    fetch,
    leave_states,
    over_window_flags,
    put_rewards,
    real_rows,
    split_key,
    to_rollouts,
)
from tars_rewards_verl.reward import TARSReward

KEYS = ["u_0_0", "u_1_0", "v_0_0", "v_1_0"]
MODALITIES = ["speech", "speech", "text", "text"]


class LengthReward(TARSReward):
    """A user's own base reward: right if the text has a 1, and a tenth for every character."""

    def base(self, completion, answer, *, truncated=False):
        return BaseScore("1" in completion, False, len(completion) / 10)


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def scores(rewards, lengths=(3, 2, 4, 2)):
    return nested([torch.cat([torch.zeros(n - 1), torch.tensor([r])]) for r, n in zip(rewards, lengths, strict=True)])


def data(rewards=(0.25, 1.5, 0.0, 0.5), **changed):
    extras = [
        {"reward_extra_info": {"acc": float(r > 0.4), "format": float(r == 1.5), "truncated": 0.0}} for r in rewards
    ]
    columns = {
        "pair_id": NonTensorStack(*["q1"] * 4),
        "modality": NonTensorStack(*MODALITIES),
        "reward_model": NonTensorStack(*[{"ground_truth": "B"}] * 4),
        "extra_fields": NonTensorStack(*extras),
        "rm_scores": scores(rewards),
    }
    return TensorDict({**columns, **changed}, batch_size=4)


def rollouts_of(table, completions=("a", "b", "c", "d")):
    return to_rollouts(table, KEYS, list(completions), hidden_states=False, embedding=False)


def test_rollouts_bring_the_base_score_of_the_reward_loop():
    found = rollouts_of(data())
    assert [rollout.base for rollout in found] == [
        BaseScore(False, False, 0.25),
        BaseScore(True, True, 1.5),
        BaseScore(False, False, 0.0),
        BaseScore(True, False, 0.5),
    ]
    assert [(r.pair_id, r.modality, r.sample_id, r.completion, r.answer) for r in found[1:3]] == [
        ("q1", "speech", 1, "b", "B"),
        ("q1", "text", 0, "c", "B"),
    ]


def test_a_users_own_base_reward_is_in_the_final_reward():
    """The reward loop scored with the user's `base`; the trainer adds the alignment terms to what it gave."""
    reward = LengthReward(alpha=0, beta=0)
    texts = ["1" * 3, "none", "1", "a longer one"]
    base = [reward.base(text, "B") for text in texts]
    extras = [{"reward_extra_info": {"acc": float(b.correct), "format": 0.0, "truncated": 0.0}} for b in base]
    table = data([b.reward for b in base], extra_fields=NonTensorStack(*extras))
    result = reward(rollouts_of(table, texts), step=1)
    torch.testing.assert_close(result.total, torch.tensor([0.3, 0.4, 0.1, 1.2]))
    assert result.components["accuracy"].tolist() == [1, 0, 1, 0]
    assert result.metrics["tars/reward_gap"] == pytest.approx((0.1 + 1.2 - 0.3 - 0.4) / 2)
    # The core's own base would not have found any of these right.
    assert CoreReward(reward.config).base(texts[0], "B").reward == 0


@pytest.mark.parametrize("lost", ["acc", "format", "truncated"])
def test_a_row_without_a_verdict_of_ours_is_named(lost):
    info = {"acc": 1.0, "format": 0.0, "truncated": 0.0}
    info.pop(lost)
    extras = [{"reward_extra_info": info}] * 4
    with pytest.raises(AdapterError, match=rf"rollout u_0_0: .* but not \['{lost}'\]; is another reward manager"):
        rollouts_of(data(extra_fields=NonTensorStack(*extras)))


def test_a_row_that_the_reward_loop_never_saw_is_named():
    with pytest.raises(AdapterError, match=r"rollout u_0_0: the reward loop gave \[\]"):
        rollouts_of(data(extra_fields=NonTensorStack(*[{}] * 4)))


# ---- the queue


@pytest.fixture
def queue(monkeypatch):
    """Stands for the module ``transfer_queue``: remembers calls, and gives the columns it has."""
    held = types.SimpleNamespace(columns=data(), asked=[], put=[])

    def kv_batch_get(keys, partition_id, select_fields):
        held.asked.append((keys, partition_id, select_fields))
        return held.columns.select(*select_fields, strict=False)

    def kv_batch_put(keys, partition_id, fields):
        held.put.append((keys, partition_id, fields))

    module = types.ModuleType("transfer_queue")
    module.kv_batch_get, module.kv_batch_put = kv_batch_get, kv_batch_put
    monkeypatch.setitem(__import__("sys").modules, "transfer_queue", module)
    return held


def batch(tags=({}, {}, {"is_padding": True}, {})):
    return types.SimpleNamespace(keys=KEYS, tags=list(tags), partition_id="train")


def test_the_rows_asked_for_are_read(queue):
    found = fetch(batch(), [0, 3], ["pair_id", "rm_scores"])
    assert queue.asked == [(["u_0_0", "v_1_0"], "train", ["pair_id", "rm_scores"])]
    assert set(found.keys()) == {"pair_id", "rm_scores"}


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ("pair_id", r"add a column pair_id to the dataset"),
        ("modality", r"add a column modality to the dataset \(speech or text\)"),
        ("tars_pooled", r"no hidden states came from the log-prob forward: is tars-rewards installed where"),
        ("rollout_log_probs", r"set actor_rollout_ref\.rollout\.calculate_log_probs=True"),
        ("reward_model", r"check the dataset columns"),
    ],
)
def test_a_field_that_did_not_come_is_named_with_what_to_do(queue, field, advice):
    queue.columns = data().exclude(field)
    with pytest.raises(AdapterError, match=rf"the rollouts of this step lack \['{field}'\]; {advice}"):
        fetch(batch(), [0], ["rm_scores", field])


def test_padding_rows_are_not_rollouts():
    assert real_rows(batch()) == [0, 1, 3]


def test_the_total_is_put_on_the_last_token(queue):
    put_rewards(batch(), [0, 1, 2, 3], data(), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    keys, partition, fields = queue.put[0]
    assert (keys, partition) == (KEYS, "train")
    assert [row.tolist() for row in fields["rm_scores"].unbind()] == [[0, 0, 1], [0, 2], [0, 0, 0, 3], [0, 4]]


def test_later_passes_fetch_everything_but_the_states():
    stored = KVBatchMeta(keys=["a_0_0"], tags=[{}], partition_id="train", fields=["input_ids", POOLED, POOLED_SCALES])
    assert leave_states(stored).fields == ["input_ids"]
    assert leave_states(KVBatchMeta(keys=["a_0_0"], tags=[{}])).fields is None


def test_keys_are_split_from_the_end():
    assert split_key("a_b_3_0") == ("a_b", 3)
    with pytest.raises(AdapterError, match="output number 2 of its sample"):
        split_key("u_0_2")


def test_embeddings_and_states_are_handed_on():
    info = {"acc": 1.0, "format": 0.0, "truncated": 1.0, "embedding": np.ones(2, np.float32), "over_window": 0.0}
    states = torch.stack([torch.arange(6.0).reshape(3, 2) + row for row in range(4)])
    packed = pack_states(states)
    table = data(
        extra_fields=NonTensorStack(*[{"reward_extra_info": info}] * 4),
        tars_pooled=nested(list(packed.values.flatten(1))),
        tars_pooled_scales=nested(list(packed.scales)),
    )
    found = to_rollouts(table, KEYS, list("abcd"), hidden_states=True, embedding=True)
    for rollout, expected in zip(found, states, strict=True):
        torch.testing.assert_close(torch.from_numpy(np.asarray(rollout.hidden_states)), expected, rtol=0, atol=2e-4)
    assert found[0].truncated
    np.testing.assert_array_equal(found[0].embedding, [1, 1])


def test_a_failed_embedding_and_an_unknown_window_are_handed_on():
    info = {"acc": 1.0, "format": 0.0, "truncated": 0.0, "embedding": None, "over_window": None}
    infos = [{**info, "embedder_failed": 1.0}, info, {**info, "over_window": 1.0}, {**info, "over_window": 0.0}]
    table = data(extra_fields=NonTensorStack(*[{"reward_extra_info": each} for each in infos]))
    found = to_rollouts(table, KEYS, list("abcd"), hidden_states=False, embedding=True)
    assert [rollout.embedding_failed for rollout in found] == [True, False, False, False]
    assert over_window_flags(table) == [None, None, 1.0, 0.0]
