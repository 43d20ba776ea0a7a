"""Pooled hidden states from the log-prob forward that verl's FSDP engine runs anyway."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from tars_rewards.capture import capture_hidden_states
from tars_rewards.errors import AdapterError
from tars_rewards.transport import pack_states
from tars_rewards_verl.batch import CAPTURE_FLAG, POOLED, POOLED_SCALES

if TYPE_CHECKING:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as _Base
else:
    _Base = object


class PoolingMixin(_Base):
    """Mixin for verl's FSDP language model engines.

    When the trainer asks for it, ``forward_step`` adds two entries to the model output, which verl carries back in
    the order of the batch whatever the micro-batching: the pooled states as :func:`tars_rewards.transport.pack_states`
    makes them, their values (int16 [batch, layers * hidden]) and their scales (float32 [batch, layers]). They are zero for a
    row without a completion token to pool over.
    """

    def forward_step(self, micro_batch: Any, loss_function: Any, forward_only: bool) -> Any:
        """Stock forward, with hooks on the text decoder's layers if this is the forward that the trainer meant."""
        from verl.utils import tensordict_utils

        wanted = tensordict_utils.get_non_tensor_data(data=micro_batch, key=CAPTURE_FLAG, default=False)
        if not (forward_only and wanted):
            return super().forward_step(micro_batch, loss_function, forward_only)
        packed = bool(tensordict_utils.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True))
        mask, offsets = completion_mask(micro_batch, packed=packed)
        with capture_hidden_states(self.module, mask, cu_seqlens=offsets) as captured:
            loss, output = super().forward_step(micro_batch, loss_function, forward_only)
        states = pack_states(captured.pooled)
        output["model_output"][POOLED] = states.values.flatten(1)
        output["model_output"][POOLED_SCALES] = states.scales
        return loss, output


def completion_mask(micro_batch: Any, *, packed: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Which tokens of the model's input are generated completion tokens.

    Args:
        micro_batch: verl's micro batch, nested: input_ids and response_mask (1 on generated tokens).
        packed: Whether the model runs on ``[1, total]`` without padding, else on right-padded rows.

    Returns:
        (bool [batch, tokens], None), or (bool [total], offsets int [batch + 1]) when packed.

    Raises:
        AdapterError: The batch is not of the layout that verl 0.9 uses for log-probs.
    """
    input_ids, response_mask = micro_batch["input_ids"], micro_batch["response_mask"]
    if not (input_ids.is_nested and response_mask.is_nested):
        raise AdapterError(
            "expected nested input_ids and response_mask in the log-prob micro batch, got "
            f"{type(input_ids).__name__} {tuple(input_ids.shape)}; this layout is not supported by the verl adapter"
        )
    offsets = input_ids.offsets()
    lengths = offsets.diff().tolist()
    rows = []
    for length, generated in zip(lengths, response_mask.unbind(), strict=True):
        row = torch.zeros(length, dtype=torch.bool, device=input_ids.device)
        row[length - len(generated) :] = generated.bool()
        rows.append(row)
    if packed:
        return torch.cat(rows), offsets
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), None


@functools.cache
def compose_engine(stock: type) -> type:
    """``stock`` with :class:`PoolingMixin` in front; other engines than FSDP language models stay as they are."""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    if not issubclass(stock, FSDPEngineWithLMHead) or issubclass(stock, PoolingMixin):
        return stock
    return type(f"Pooling{stock.__name__}", (PoolingMixin, stock), {"__module__": stock.__module__})
