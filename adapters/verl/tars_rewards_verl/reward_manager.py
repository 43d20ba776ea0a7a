"""Base reward and embedding of one completion, in verl's reward loop, while other completions still generate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from tars_rewards_verl.reward import load_reward

VALIDATION_COLUMN = "tars_validation"
"""Column that the trainer adds to validation prompts: they need no embedding."""


class TARSRewardManager(RewardManagerBase):  # type: ignore[misc]
    """Reward manager that ``reward.custom`` puts in place (``reward.reward_manager``).

    For every completion it gives the base reward and, as extra info, what the trainer needs for the final reward:
    ``acc`` and ``format`` (0 or 1), ``truncated``, ``modality``, and when beta > 0 ``embedding`` (float32 [dim]) and
    ``over_window`` (1 if the completion is longer than the embedder's window).
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        kwargs = OmegaConf.to_container(config.reward.custom_kwargs, resolve=True)
        self.reward = load_reward(config.reward.custom, kwargs)
        self.max_response_length = int(config.data.max_response_length)
        self.batcher = EmbeddingBatcher(self.reward.embed)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score one completion.

        Args:
            data: One row: response tokens, attention mask, and the columns of its dataset row.

        Returns:
            ``reward_score`` (the base reward) and ``reward_extra_info``.
        """
        item = data[-1]
        responses = item.batch["responses"]
        length = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        tokens = responses[:length]
        completion = self.tokenizer.decode(tokens, skip_special_tokens=True)
        truncated = length >= self.max_response_length and int(tokens[-1]) != self.tokenizer.eos_token_id
        columns = item.non_tensor_batch
        base = self.reward.base(completion, columns["reward_model"]["ground_truth"], truncated=truncated)
        info: dict[str, Any] = {
            "acc": float(base.correct),
            "format": float(base.format),
            "truncated": float(truncated),
            "modality": str(columns["modality"]),
        }
        if self.reward.config.beta and not columns.get(VALIDATION_COLUMN, False):
            info["embedding"] = await self.batcher.embed(completion)
            flags = self.reward.over_window([completion])
            info["over_window"] = float(flags is not None and bool(flags[0]))
        return {"reward_score": base.reward, "reward_extra_info": info}


class EmbeddingBatcher:
    """Embeds in one batch whatever came in while the batch before was being embedded.

    Args:
        encode: ``list[str] -> [N, dim]``, run in a thread so that the event loop goes on.
    """

    def __init__(self, encode: Callable[[Sequence[str]], np.ndarray]) -> None:
        self._encode = encode
        self._waiting: list[tuple[str, asyncio.Future[np.ndarray]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def embed(self, text: str) -> np.ndarray:
        """Embedding of ``text``, float32 [dim]; an error of the encoder is raised here."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                vectors = await loop.run_in_executor(None, self._encode, [text for text, _ in batch])
                answered = list(zip(batch, vectors, strict=True))
            except Exception as error:  # whatever it is, it belongs to those who wait for these texts
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), vector in answered:
                future.set_result(np.asarray(vector, dtype=np.float32))
