"""Flash attention's interface on CPU cores, for what asks for it by name: packed rows, and verl's Ulysses.

verl exchanges heads for tokens between the ranks of a sequence parallel group around the flash attention call of
transformers, and around no other attention. There is no flash attention for CPUs, so this package puts torch's scaled dot product
attention behind that call, row by row, under a name of its own: :data:`NAME`.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from tars_rewards.errors import UnsupportedConfigError
from tars_rewards.integration.patching import after_import, check_signature, replace, require_attribute

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

NAME = "flash_attention_cpu"
"""Value of ``actor_rollout_ref.model.override_config.attn_implementation``."""
WHOLE_ROW = (-1, -1)


def install() -> None:
    """Make the attention known to transformers under :data:`NAME`."""
    after_import("transformers.modeling_utils", _register)
    after_import("transformers.modeling_flash_attention_utils", _supply_functions)


def _register(module: ModuleType) -> None:
    from transformers.integrations.flash_attention import flash_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

    require_attribute(module, "AttentionInterface", module.__name__).register(NAME, flash_attention_forward)
    AttentionMaskInterface.register(NAME, flash_attention_mask)


def _supply_functions(module: ModuleType) -> None:
    """Transformers looks the functions of other names up in the packages and kernels that it knows."""
    stock = require_attribute(module, "_lazy_imports", module.__name__)
    check_signature(
        stock, ["implementation", "attention_wrapper", "allow_all_kernels"], f"{module.__name__}._lazy_imports"
    )
    pad, unpad = (require_attribute(module, name, module.__name__) for name in ("_pad_input", "_unpad_input"))

    def lazy_imports(implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        if implementation == NAME:
            return attention, varlen_attention, None, pad, unpad
        return stock(implementation, *args, **kwargs)

    replace(module, "_lazy_imports", lazy_imports)


def varlen_attention(
    q: Float[Tensor, "tokens heads head"],
    k: Float[Tensor, "keys kv_heads head"],
    v: Float[Tensor, "keys kv_heads head"],
    cu_seqlens_q: Int[Tensor, " rows+1"],
    cu_seqlens_k: Int[Tensor, " rows+1"],
    max_seqlen_q: int,
    max_seqlen_k: int,
    **options: Any,
) -> Float[Tensor, "tokens heads head"]:
    """Attention within packed rows, with the parameters of flash attention's ``flash_attn_varlen_func``.

    Args:
        q: Queries, the rows one after another.
        k: Keys.
        v: Values.
        cu_seqlens_q: Where the rows' queries start, and where the last one's end.
        cu_seqlens_k: The same for keys and values.
        max_seqlen_q: Not needed.
        max_seqlen_k: Not needed.
        options: See :func:`attention`.
    """
    bounds = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
    rows = [
        attention(q[None, start:stop], k[None, first:last], v[None, first:last], **options)[0]
        for (start, stop), (first, last) in bounds
    ]
    return torch.cat(rows)


def attention(
    q: Float[Tensor, "batch tokens heads head"],
    k: Float[Tensor, "batch keys kv_heads head"],
    v: Float[Tensor, "batch keys kv_heads head"],
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = WHOLE_ROW,
    softcap: float = 0.0,
    s_aux: Tensor | None = None,
) -> Float[Tensor, "batch tokens heads head"]:
    """Attention of rows of one length, with the parameters of flash attention's ``flash_attn_func``.

    Args:
        q: Queries.
        k: Keys, as many as queries if ``causal`` or in a window.
        v: Values.
        dropout_p: Probability of dropping an attention weight.
        softmax_scale: Factor of the scores; None for 1 / sqrt(head).
        causal: Whether a token attends to none behind it.
        window_size: How many tokens before and behind itself a token attends to; -1 for all.
        softcap: Not supported: must be 0.
        s_aux: Not supported: must be None.

    Raises:
        UnsupportedConfigError: The model wants what torch's attention has not.
    """
    if softcap or s_aux is not None:
        raise UnsupportedConfigError(
            f"expected a model without soft-capped scores and attention sinks, got softcap={softcap} and "
            f"{'no' if s_aux is None else 'a'} sink; on CPU cores set attn_implementation=eager, without sequence parallelism"
        )
    window = None if tuple(window_size) == WHOLE_ROW else _window(q.shape[1], k.shape[1], window_size, causal)
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=window,
        dropout_p=dropout_p,
        is_causal=causal and window is None,
        scale=softmax_scale,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


def _window(tokens: int, keys: int, size: tuple[int, int], causal: bool) -> Tensor:
    """Which keys each token attends to, [tokens, keys]."""
    before, behind = (keys if side < 0 else side for side in size)
    distance = torch.arange(keys) - torch.arange(tokens)[:, None]
    return (distance >= -before) & (distance <= (0 if causal else behind))
