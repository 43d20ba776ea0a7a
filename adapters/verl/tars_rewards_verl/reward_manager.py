"""Base reward and embedding of one completion, in verl's reward loop, while other completions still generate."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from tars_rewards.integration.completion_embedder import NOT_EMBEDDED, CompletionEmbedder
from tars_rewards_verl.reward import load_reward

VALIDATION_COLUMN = "tars_validation"
"""Column that the trainer adds to validation prompts: they need no embedding."""


class TARSRewardManager(RewardManagerBase):
    """Reward manager that ``reward.custom`` puts in place (``reward.reward_manager``).

    For every completion it gives the base reward and, as extra info, what the trainer needs for the final reward:
    ``acc`` and ``format`` (0 or 1), ``truncated``, ``modality``, and when beta > 0 ``embedding`` (float32 [dim] or None),
    ``over_window`` (1 if the completion is longer than the embedder's window, None where that is not known) and, where the
    embedder failed and that does not stop the run, ``embedder_failed``. A completion is truncated if it has all the tokens
    that ``data.max_response_length``, or its prompt and ``rollout.max_model_len`` where that is set, leave it, and no end.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        kwargs = OmegaConf.to_container(config.reward.custom_kwargs, resolve=True)
        self.reward = load_reward(config.reward.custom, kwargs)
        self.max_response_length = int(config.data.max_response_length)
        self.max_model_len = config.actor_rollout_ref.rollout.get("max_model_len")
        self.embedder = CompletionEmbedder(self.reward)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score one completion.

        Args:
            data: One row: response tokens, attention mask, and the columns of its dataset row.

        Returns:
            ``reward_score`` (the base reward) and ``reward_extra_info``.
        """
        item = data[-1]
        responses, mask = item.batch["responses"], item.batch["attention_mask"]
        prompt_length, length = (int(part.sum()) for part in mask.split([len(mask) - len(responses), len(responses)]))
        tokens = responses[:length]
        completion = self.tokenizer.decode(tokens, skip_special_tokens=True)
        room = self.max_response_length
        if self.max_model_len is not None:
            room = min(room, int(self.max_model_len) - prompt_length)
        truncated = length > 0 and length >= room and int(tokens[-1]) != self.tokenizer.eos_token_id
        columns = item.non_tensor_batch
        base = self.reward.base(completion, columns["reward_model"]["ground_truth"], truncated=truncated)
        info: dict[str, Any] = {
            "acc": float(base.correct),
            "format": float(base.format),
            "truncated": float(truncated),
            "modality": str(columns["modality"]),
        }
        if self.reward.config.beta and not columns.get(VALIDATION_COLUMN, False):
            # A written completion that is wrong is nobody's reference.
            compared = base.correct or info["modality"] == self.reward.config.target_modality
            embedded = await self.embedder.embed(completion) if compared else NOT_EMBEDDED
            info["embedding"] = embedded.vector
            info["over_window"] = None if embedded.over_window is None else float(embedded.over_window)
            if embedded.failed:
                info["embedder_failed"] = 1.0
        return {"reward_score": base.reward, "reward_extra_info": info}
