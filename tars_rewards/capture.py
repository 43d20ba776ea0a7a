"""Pooled hidden states of a forward pass that runs anyway.

Forward hooks on the text decoder's layers average each layer's output over the completion tokens as soon as the layer
has run, so that nothing of size [tokens, hidden] outlives the layer and no additional forward is needed. This gives
`mean_t h_l` in the representation reward `R_rep = (1/L) sum_l cos(mean_t h_l^speech, mean_t h_l^text)` (arXiv
2601.05543, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.module_tracker import ModuleTracker

from tars_rewards.decoder_layers import decoder_layers, ends_after_norm
from tars_rewards.errors import CaptureError

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Bool, Float, Int
    from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)
_CHUNK_VALUES = 2**18  # 1 MiB in float32: half of a CPU core's cache or less


@contextmanager
def capture_hidden_states(
    model: nn.Module,
    completion_mask: Bool[Tensor, "batch tokens"] | Bool[Tensor, "1 total"] | Bool[Tensor, " total"],
    *,
    cu_seqlens: Int[Tensor, " batch+1"] | None = None,
    layers: str | Iterable[nn.Module] | None = None,
) -> Iterator[CapturedStates]:
    """Pool the output of every decoder layer over the completion tokens of the one forward run inside the context.

    Sums are accumulated in float32 whatever the model's dtype: fp16 sums overflow where a few hidden dimensions are
    massive, and bf16 means are too coarse for the small differences between completions. The mask is read once, before
    the forward, which is the only time that the host waits for the device. The layer calls of a gradient checkpoint's
    recomputation, in the backward pass, are not pooled. The hooks are gone when the context ends, however it ends.

    Args:
        model: the model whose forward runs inside the context, with any wrappers (PEFT, DDP, FSDP, `torch.compile`).
        completion_mask: `True` at the tokens to pool over, in the shape in which tokens go through the layers: padded
            on either side `[batch, tokens]`, or packed `[1, total]` or `[total]`. A row's tokens need not be adjacent.
        cu_seqlens: packed layout only: where the rows start, and where the last one ends (a jagged tensor's
            `offsets()`). Tokens behind the last row are padding.
        layers: only for a model whose text decoder is not found: see `tars_rewards.decoder_layers.decoder_layers`.

    Yields:
        The states, which can be read once the context has ended.

    Raises:
        CaptureError: the text decoder is not found; mask or `cu_seqlens` contradict themselves or the layers' outputs;
            a layer ran more than once inside the context, or not at all; an argument is of another type.

    Example::

        with torch.no_grad(), capture_hidden_states(model, completion_mask) as captured:
            logits = model(input_ids, attention_mask=attention_mask).logits
        rollouts = [Rollout(..., hidden_states=states) for states in captured.pooled[captured.valid]]
    """
    modules = decoder_layers(model, layers)
    pooling = _Pooling(completion_mask, cu_seqlens, len(modules))
    behind = layers is not None and ends_after_norm(model, modules)  # what is found by itself are layers
    captured = CapturedStates(final_norm="after" if behind else "before")
    handles = []
    try:
        for layer, module in enumerate(modules):
            handles.append(module.register_forward_hook(partial(pooling.hook, layer)))
        yield captured
    finally:
        for handle in handles:
            handle.remove()
    captured._states = pooling.means()


class CapturedStates:
    """What `capture_hidden_states` yields; filled when the context ends.

    Attributes:
        final_norm: whether the last layer's states are from `"before"` or `"after"` the decoder's final norm. Hooks
            see what leaves a layer, the raw residual stream, so it is `"before"`, as it is for every other layer.
            Hugging Face's `output_hidden_states=True` gives the same values except for the last layer, which it gives
            after the norm; to have that, put the norm in its place: `layers=[*decoder.layers[:-1], decoder.norm]`. A
            last module that is none of the decoder's layers is taken for the norm.
    """

    def __init__(self, *, final_norm: Literal["before", "after"]) -> None:
        self.final_norm: Literal["before", "after"] = final_norm
        self._states: tuple[Tensor, Tensor] | None = None

    @property
    def pooled(self) -> Float[Tensor, "batch layers hidden"]:
        """Mean over the completion tokens: float32, detached, on the device of the first layer; 0 if not `valid`."""
        return self._read()[0]

    @property
    def valid(self) -> Bool[Tensor, " batch"]:
        """`False` for a row without a completion token: its states are absent, not zero."""
        return self._read()[1]

    def _read(self) -> tuple[Tensor, Tensor]:
        if self._states is None:
            raise CaptureError(
                "expected the captured states to be read after a complete forward; the context has not ended yet, or "
                "an exception ended it. Read them behind the with block."
            )
        return self._states


class _Pooling:
    """Sums over each row's completion tokens, in one [batch, layers, hidden] tensor."""

    def __init__(self, mask: Tensor, cu_seqlens: Tensor | None, layers: int) -> None:
        self._token_shapes, bounds = _layout(mask, cu_seqlens)
        flat = mask.detach().cpu().numpy().reshape(-1)
        if stray := int(flat[bounds[-1] :].sum()):
            raise CaptureError(
                f"expected completion_mask to be False behind the last packed row, which ends at {bounds[-1]}; it is "
                f"True at {stray} tokens there. Check that mask and cu_seqlens= describe the same rows."
            )
        rows = [start + np.flatnonzero(flat[start:stop]) for start, stop in pairwise(bounds)]
        self._counts = [row.size for row in rows]
        self._rows = [_selector(row, mask.device) for row in rows]
        self._done = [False] * layers
        self._sums: Tensor | None = None
        self._scratch: Tensor | None = None
        self._autograd = ModuleTracker()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a side effect has no place in a compiled graph
    def hook(self, layer: int, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook of layer number `layer`."""
        if self._autograd.is_bw:
            return  # gradient checkpointing runs the layer again in the backward pass
        if self._done[layer]:
            raise CaptureError(
                f"expected one call of each layer inside capture_hidden_states, got a second one of layer {layer}. Open"
                " one context for each forward (each micro-batch), and none around generate()."
            )
        hidden = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(hidden, torch.Tensor) or tuple(hidden.shape[:-1]) not in self._token_shapes:
            got = list(hidden.shape) if isinstance(hidden, torch.Tensor) else f"a {type(hidden).__name__}"
            raise CaptureError(
                f"expected the output of layer {layer} ({type(module).__name__}) to be {list(self._token_shapes[0])} "
                f"tokens, as completion_mask says, x hidden; got {got}. Give the mask the shape in which tokens go "
                "through the layers: audio placeholders expanded, packed or padded as the model is run."
            )
        self._add(layer, hidden.detach().flatten(0, -2))
        self._done[layer] = True

    def _add(self, layer: int, tokens: Float[Tensor, "total hidden"]) -> None:
        width, device = tokens.shape[-1], tokens.device
        if self._sums is None:
            with torch.inference_mode(False):  # else it could not be divided in place once that mode has ended
                shape = (len(self._rows), len(self._done), width)
                self._sums = torch.empty(shape, dtype=torch.float32, device=device)
        here = self._sums.device == device
        sums = self._sums[:, layer] if here else torch.empty_like(self._sums[:, layer], device=device)
        # CPUs have no sum that reads half precision and adds in float32: torch.sum first makes a float32 copy of its
        # whole input. Piece by piece that copy stays in the cache, and is never as large as a long completion. One
        # piece of memory serves all layers: fresh memory costs more than the copy. It goes when the context ends.
        pieces = device.type == "cpu" and tokens.dtype in _HALF
        if pieces and self._scratch is None:
            with torch.inference_mode(False):
                chunk = max(1, _CHUNK_VALUES // width)
                self._scratch = torch.empty(chunk, width, dtype=torch.float32, device=device)
        scratch = self._scratch if pieces else None
        # Last row first: what the layer wrote last may still be in the cache.
        for where, total in reversed(list(zip(self._rows, sums.unbind(), strict=True))):
            part = tokens[where] if isinstance(where, slice) else tokens.index_select(0, where.to(device))
            if scratch is None:
                torch.sum(part, 0, dtype=torch.float32, out=total)
            else:
                _sum_in_pieces(part, scratch, total)
        if not here:
            self._sums[:, layer] = sums

    def means(self) -> tuple[Tensor, Tensor]:
        """Pooled states [batch, layers, hidden] and which rows have any [batch]."""
        self._scratch = None
        if self._sums is None or not all(self._done):
            missing = [layer for layer, done in enumerate(self._done) if not done]
            raise CaptureError(
                f"expected each of the {len(self._done)} layers to run once inside capture_hidden_states; layers "
                f"{missing} did not. Run this model's forward, whole, inside the context. If torch.compile had already "
                "made one graph of the model, which leaves no place for hooks: compile it layer by layer, or set "
                "torch._dynamo.config.skip_nnmodule_hook_guards = False before its first forward."
            )
        counts = torch.tensor(self._counts, dtype=torch.int64, device=self._sums.device)
        return self._sums.div_(counts.clamp(min=1)[:, None, None]), counts > 0


def _sum_in_pieces(part: Tensor, scratch: Tensor, total: Tensor) -> None:
    """Sum over the first dimension in float32, by way of `scratch`, into `total`."""
    count, room = part.shape[0], scratch.shape[0]
    if count <= room:  # as nearly always; every call less counts, with one row after the other
        torch.sum(scratch[:count].copy_(part), 0, out=total)
        return
    total.zero_()
    for piece in torch.split(part, room):
        total += scratch[: piece.shape[0]].copy_(piece).sum(0)


def _layout(mask: Tensor, cu_seqlens: Tensor | None) -> tuple[list[tuple[int, ...]], list[int]]:
    """Shapes that a layer's output may have before its hidden dimension, and the rows' bounds once that is flat."""
    given = {"completion_mask": mask} if cu_seqlens is None else {"completion_mask": mask, "cu_seqlens=": cu_seqlens}
    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise CaptureError(
                f"expected {name} to be a tensor, got a {type(value).__name__}. Pass torch.as_tensor(…) of it."
            )
    if mask.dtype != torch.bool:
        raise CaptureError(f"expected completion_mask to be boolean, got {mask.dtype}. Pass mask.bool().")
    shape = tuple(mask.shape)
    if cu_seqlens is None:
        if len(shape) != 2:
            raise CaptureError(
                f"expected completion_mask of shape [batch, tokens], got {list(shape)}. If it is packed, pass "
                "cu_seqlens= too."
            )
        return [shape], [row * shape[1] for row in range(shape[0] + 1)]
    total = mask.numel()
    if shape not in ((total,), (1, total)):
        raise CaptureError(
            f"expected a packed completion_mask of shape [1, total] or [total] beside cu_seqlens=, got {list(shape)}. "
            "Leave cu_seqlens= out for a padded batch."
        )
    bounds: list[int] = cu_seqlens.flatten().tolist()
    whole = not (cu_seqlens.is_floating_point() or cu_seqlens.is_complex() or cu_seqlens.dtype == torch.bool)
    if cu_seqlens.dim() != 1 or not whole or bounds[:1] != [0] or bounds != sorted(bounds):
        raise CaptureError(
            f"expected cu_seqlens= to be one row of integers that starts at 0 and never falls, got {bounds} of shape "
            f"{list(cu_seqlens.shape)}. Pass the running sum of the rows' lengths, with a leading 0."
        )
    if bounds[-1] > total:
        raise CaptureError(
            f"expected cu_seqlens= to end within the {total} tokens of completion_mask, got {bounds[-1]}. Pass the "
            "mask of all tokens, the prompts' too."
        )
    return [(1, total), (total,)], bounds


def _selector(positions: npt.NDArray[np.intp], device: torch.device) -> slice | Tensor:
    """Select one row's tokens: by a slice, which copies nothing, where they are adjacent as they nearly always are."""
    if not positions.size:
        return slice(0, 0)
    start, stop = int(positions[0]), int(positions[-1]) + 1
    return slice(start, stop) if stop - start == positions.size else torch.from_numpy(positions).to(device)
