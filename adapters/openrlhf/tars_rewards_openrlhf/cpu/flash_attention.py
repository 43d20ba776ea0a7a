"""flash-attn, which OpenRLHF imports whether it is used or not: what its packing needs, in plain torch."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from tars_rewards.errors import AdapterError
from tars_rewards.integration.patching import after_import

if TYPE_CHECKING:
    from torch import Tensor


def install() -> None:
    """Register the stand-in under flash-attn's names, and load models with PyTorch's own attention."""
    from einops import rearrange

    padding = {
        "index_first_axis": index_first_axis,
        "pad_input": pad_input,
        "rearrange": rearrange,
        "unpad_input": unpad_input,
    }
    for name, contents in {
        "flash_attn": {"__version__": "2.8.3", "__path__": []},
        "flash_attn.bert_padding": padding,
        "flash_attn.utils": {"__path__": []},
        "flash_attn.utils.distributed": {"all_gather": all_gather},
    }.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(contents)
        sys.modules.setdefault(name, module)
    after_import("transformers.models.auto.auto_factory", _attend_by_torch)


def index_first_axis(values: Tensor, indices: Tensor) -> Tensor:
    """Rows of a tensor."""
    return values[indices]


def unpad_input(values: Tensor, attention_mask: Tensor, _: Any = None) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
    """Tokens of a padded batch [batch, tokens, …] one behind the other [total, …].

    Returns:
        The tokens, where they were in the flattened batch, the rows' bounds, the longest row, the rows' lengths.
    """
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    bounds = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return values.flatten(0, 1)[indices], indices, bounds, int(lengths.max()), lengths


def pad_input(values: Tensor, indices: Tensor, batch: int, tokens: int) -> Tensor:
    """Undo `unpad_input`: [batch, tokens, …] with zeros for padding."""
    padded = values.new_zeros((batch * tokens, *values.shape[1:]))
    padded[indices] = values
    return padded.view(batch, tokens, *values.shape[1:])


def all_gather(*_: Any) -> Any:
    """Ring attention gathers by this.

    Raises:
        AdapterError: Always: there is no ring attention on CPU cores.
    """
    raise AdapterError("ring attention is not available on CPU cores; set --ds.ring_attn_size 1")


def _attend_by_torch(module: ModuleType) -> None:
    """OpenRLHF insists on flash attention when it packs; PyTorch's finds the rows' bounds by their positions too."""
    base = module._BaseAutoModelClass
    stock = base.from_pretrained.__func__
    if getattr(stock, "by_torch", False):
        return

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if "flash_attention" in str(kwargs.get("attn_implementation")):
            kwargs["attn_implementation"] = "sdpa"
        return stock(cls, *args, **kwargs)

    from_pretrained.by_torch = True  # type: ignore[attr-defined]  # a mark; types of functions have no attributes
    base.from_pretrained = classmethod(from_pretrained)
