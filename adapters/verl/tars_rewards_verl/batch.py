"""Rows of verl's TransferQueue as rollouts, and rewards back into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tars_rewards.errors import AdapterError
from tars_rewards.protocol import BaseScore, Rollout
from tars_rewards.transport import PackedStates

if TYPE_CHECKING:
    from tensordict import TensorDict
    from verl.utils.transferqueue_utils import KVBatchMeta

POOLED = "tars_pooled"
"""Field of the steps of a completion's packed pooled states, int16 [layers * hidden]; zero without a completion token."""
POOLED_SIDE = "tars_pooled_side"
"""Field of what goes beside them, float32 [layers * side]."""
STATES = (POOLED, POOLED_SIDE)
CAPTURE_FLAG = "tars_capture"
"""Non-tensor entry of a batch that asks the engine for pooled states."""


def real_rows(batch: KVBatchMeta) -> list[int]:
    """Positions of the rows that are rollouts; verl pads a batch with synthetic rows."""
    return [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]


def split_key(key: str) -> tuple[str, int]:
    """(prompt uid, sample id) of a TransferQueue key ``{uid}_{session}_{index}``.

    Raises:
        AdapterError: The agent loop produced several outputs for one sample.
    """
    uid, session, index = key.rsplit("_", 2)
    if index != "0":
        raise AdapterError(
            f"rollout {key} is output number {index} of its sample; TARS compares one completion per sample, so use an "
            "agent loop with a single output"
        )
    return uid, int(session)


def fetch(batch: KVBatchMeta, rows: Sequence[int], fields: Sequence[str]) -> TensorDict:
    """Read ``fields`` of the given rows.

    Raises:
        AdapterError: A field is missing.
    """
    import transfer_queue as tq

    data = tq.kv_batch_get(
        keys=[batch.keys[row] for row in rows], partition_id=batch.partition_id, select_fields=list(fields)
    )
    missing = [field for field in fields if field not in data]
    if missing:
        raise AdapterError(
            f"the rollouts of this step lack {missing}; {_HELP.get(missing[0], 'check the dataset columns')}"
        )
    return data


_HELP = {
    POOLED: "no hidden states came from the log-prob forward: is tars-rewards installed where the training workers run?",
    "pair_id": "add a column pair_id to the dataset (the question a row belongs to)",
    "modality": "add a column modality to the dataset (speech or text)",
    "rollout_log_probs": "set actor_rollout_ref.rollout.calculate_log_probs=True",
}


def leave_states(batch: KVBatchMeta) -> KVBatchMeta:
    """The same rows without the pooled states, which no later pass over the batch then fetches; `fetch` still can."""
    if batch.fields is not None:
        batch.fields = [field for field in batch.fields if field not in STATES]
    return batch


def to_rollouts(
    data: TensorDict, keys: Sequence[str], completions: Sequence[str], *, hidden_states: bool, embedding: bool
) -> list[Rollout]:
    """Build the rollouts of a step from the fields of its rows, in the order of ``keys``.

    Args:
        data: Fields pair_id, modality, reward_model, rm_scores, extra_fields, and the pooled states if ``hidden_states``.
            The sum of a row's rm_scores is its base reward.
        keys: TransferQueue key of each row.
        completions: Decoded completion of each row.
        hidden_states: Whether the reward uses them.
        embedding: Whether the reward uses sentence embeddings.

    Raises:
        AdapterError: The reward loop's result of a row is missing.
    """
    states = pooled_states(data) if hidden_states else [None] * len(keys)
    rewards = [float(scores.sum()) for scores in data["rm_scores"].unbind()]
    rollouts = []
    for row, (key, pair_id, modality, truth, extra) in enumerate(
        zip(keys, data["pair_id"], data["modality"], data["reward_model"], data["extra_fields"], strict=True)
    ):
        info = plain(extra).get("reward_extra_info") or {}
        missing = {"acc", "format", "truncated"} | ({"embedding", "over_window"} if embedding else set())
        missing -= info.keys()
        if missing:
            raise AdapterError(
                f"rollout {key}: the reward loop gave {sorted(info)} but not {sorted(missing)}; is another reward manager "
                "configured (reward.reward_manager), or tars-rewards not installed where the reward workers run?"
            )
        rollouts.append(
            Rollout(
                pair_id=str(plain(pair_id)),
                modality=str(plain(modality)),
                sample_id=split_key(key)[1],
                completion=completions[row],
                answer=plain(truth)["ground_truth"],
                hidden_states=states[row],
                truncated=bool(info["truncated"]),
                embedding=info.get("embedding"),
                embedding_failed=bool(info.get("embedder_failed", False)),
                base=BaseScore(bool(info["acc"]), bool(info["format"]), rewards[row]),
            )
        )
    return rollouts


def pooled_states(data: TensorDict) -> list[PackedStates]:
    """States of each row [layers, hidden]."""
    columns = zip(data[POOLED].unbind(), data[POOLED_SIDE].unbind(), strict=True)
    return [PackedStates.from_flat(steps, side) for steps, side in columns]


def over_window_flags(data: TensorDict) -> list[float | None]:
    """Whether each completion exceeds the embedder's window (1 or 0), as the reward loop found out; None: not known."""
    return [plain(extra)["reward_extra_info"]["over_window"] for extra in data["extra_fields"]]


def put_rewards(batch: KVBatchMeta, rows: Sequence[int], data: TensorDict, totals: torch.Tensor) -> None:
    """Write each rollout's reward to its last response token, where verl's estimators expect it."""
    import transfer_queue as tq
    from tensordict import TensorDict

    scores = []
    for stock, total in zip(data["rm_scores"].unbind(), totals, strict=True):
        score = torch.zeros_like(stock)
        score[-1] = total
        scores.append(score)
    fields = TensorDict(
        {"rm_scores": torch.nested.as_nested_tensor(scores, layout=torch.jagged)}, batch_size=len(scores)
    )
    tq.kv_batch_put(keys=[batch.keys[row] for row in rows], partition_id=batch.partition_id, fields=fields)


def plain(value: Any) -> Any:
    """The value itself, whether or not TensorDict wrapped it."""
    return value.data if hasattr(value, "data") and not isinstance(value, Mapping | str) else value
