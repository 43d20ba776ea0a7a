"""A clip is encoded once per process, however many completions and forward passes it takes part in.

TARS asks for several completions of a spoken question, and each goes through the log-prob forward and the update (and
a reference forward): the same clip passes the audio encoder a dozen times a step. While the encoder is frozen its
output is the same every time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from tars_rewards.speech.families import TrainableFamily

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

MAX_BYTES = 512 * 2**20
"""Host memory that the outputs of one encoder may take: about 100 clips of 30 s of a 7B model in bfloat16."""
_RANDOM = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "layerdrop")


class EncoderCache:
    """Stands in front of an audio encoder's ``forward``.

    Outputs are kept in host memory by a hash of the clip's features, least recently used first out. Clips that occur
    several times in one call are encoded once as well. The encoder runs as always while it has a trainable parameter,
    or may have one that is out of sight, or is in training mode with dropout. Loading weights empties the cache.

    Args:
        tower: The encoder, with all of its parameters: before sharding.
        family: Its model's family.
        frozen: Whether its parameters are known to stay as they are.
        max_bytes: Host memory for outputs.

    Attributes:
        clips: Clips asked for while the cache was in use.
        encoded: Clips among them that went through the encoder.
    """

    def __init__(
        self, tower: nn.Module, family: TrainableFamily, *, frozen: bool = False, max_bytes: int = MAX_BYTES
    ) -> None:
        self.clips = 0
        self.encoded = 0
        self._tower = tower
        self._frozen = frozen
        self._parameters = sum(1 for _ in tower.parameters())
        self._forward: Callable[..., Any] = tower.forward
        self._split = _split_padded if family.fixed_window else _split_packed
        self._max_bytes = max_bytes
        self._bytes = 0
        self._outputs: OrderedDict[bytes, Float[Tensor, "frames width"]] = OrderedDict()

    def install(self) -> EncoderCache:
        """Take the place of the encoder's ``forward``."""
        self._tower.forward = self
        self._tower.register_load_state_dict_pre_hook(lambda *_: self.clear())  # type: ignore[no-untyped-call]
        return self

    def clear(self) -> None:
        """Forget all outputs."""
        self._outputs.clear()
        self._bytes = 0

    def __call__(self, input_features: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The encoder's output for these features, encoding what is not known yet."""
        if not self._reusable():
            self.clear()
            return self._forward(input_features, *args, **kwargs)
        batch = self._split(self._tower, input_features, *args, **kwargs)
        keys = [_content_key(parts) for parts in batch.contents]
        found = {key: self._outputs[key] for key in keys if key in self._outputs}
        new = list({key: row for row, key in enumerate(keys) if key not in found}.values())
        self.clips += len(keys)
        self.encoded += len(new)
        output = self._forward(*batch.select(new)) if new else None
        if output is not None:
            for row, encoded in zip(new, batch.outputs(output.last_hidden_state, new), strict=True):
                found[keys[row]] = self._keep(keys[row], encoded)
        device = input_features.device
        rows = [found[key].to(device) for key in keys]
        for key in keys:
            if key in self._outputs:
                self._outputs.move_to_end(key)
        return batch.result(rows)

    def _keep(self, key: bytes, output: Tensor) -> Tensor:
        kept = output.detach().to("cpu", copy=True)
        self._outputs[key] = kept
        self._bytes += kept.nbytes
        while self._bytes > self._max_bytes:
            _, dropped = self._outputs.popitem(last=False)
            self._bytes -= dropped.nbytes
        return kept

    def _reusable(self) -> bool:
        parameters = list(self._tower.parameters())
        if any(parameter.requires_grad for parameter in parameters):
            return False
        # FSDP1 flattens parameters into one that belongs to a module further out, where nothing tells theirs apart.
        if len(parameters) < self._parameters and not self._frozen:
            return False
        config = self._tower.config
        return not (self._tower.training and any(getattr(config, name, 0) for name in _RANDOM))


class _PackedBatch:
    """Clips of any length side by side in one sequence of frames: Qwen2.5-Omni."""

    def __init__(self, tower: Any, features: Float[Tensor, "mels frames"], lengths: Tensor) -> None:
        self._lengths = lengths
        self._clips = torch.split(features, lengths.tolist(), dim=1)
        self._after_convolution, self._outputs = tower._get_feat_extract_output_lengths(lengths)
        self.contents = [(clip,) for clip in self._clips]

    def select(self, rows: list[int]) -> tuple[Any, ...]:
        features = torch.cat([self._clips[row] for row in rows], dim=1)
        return features, self._lengths[rows], self._after_convolution[rows]

    def outputs(self, hidden: Float[Tensor, "frames width"], rows: list[int]) -> tuple[Tensor, ...]:
        return tuple(torch.split(hidden, self._outputs[rows].tolist()))

    def result(self, rows: list[Tensor]) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(last_hidden_state=torch.cat(rows))


class _PaddedBatch:
    """Clips padded to the encoder's window, one per row, with a mask per row: Qwen2-Audio."""

    def __init__(self, features: Float[Tensor, "clips mels frames"], mask: Tensor | None) -> None:
        self._features = features
        self._mask = mask
        self.contents = [
            (clip,) if mask is None else (clip, self._own_mask(row)) for row, clip in enumerate(features.unbind())
        ]

    def _own_mask(self, row: int) -> Tensor:
        # [clips, tokens] for flash attention, [clips, 1, tokens, tokens] with equal rows for the others
        assert self._mask is not None
        return self._mask[row] if self._mask.ndim == 2 else self._mask[row, 0, :1]

    def select(self, rows: list[int]) -> tuple[Any, ...]:
        return self._features[rows], None if self._mask is None else self._mask[rows]

    def outputs(self, hidden: Float[Tensor, "clips frames width"], rows: list[int]) -> tuple[Tensor, ...]:
        return hidden.unbind()

    def result(self, rows: list[Tensor]) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=torch.stack(rows))


def _split_packed(
    tower: nn.Module, features: Tensor, feature_lens: Tensor, aftercnn_lens: Tensor | None = None, **_: Any
) -> _PackedBatch:
    return _PackedBatch(tower, features, feature_lens)


def _split_padded(tower: nn.Module, features: Tensor, attention_mask: Tensor | None = None, **_: Any) -> _PaddedBatch:
    return _PaddedBatch(features, attention_mask)


def _content_key(parts: tuple[Tensor, ...]) -> bytes:
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(repr((tuple(part.shape), part.dtype)).encode())
        digest.update(part.detach().to("cpu").contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
