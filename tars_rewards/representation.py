"""The representation term: how alike the hidden states of the two modalities are, layer by layer.

`R_rep = (1 / L) sum_l cos(mean_t h_l^target, mean_t h_l^anchor)` over the chosen decoder layers, each state averaged
over the generated tokens only (arXiv 2601.05543, section 4.1, representation alignment). The averages arrive ready
made, one [layers, hidden] array a rollout; `capture.py` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import torch

from tars_rewards.errors import LayerSelectionError
from tars_rewards.layer_cosines import centered_cosines, layer_cosines
from tars_rewards.pooled import pooled_states
from tars_rewards.protocol import TermValue

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch

_LAST = 2  # layers in the group "last", as in the paper


def select_layers(layers: str | Sequence[int] | Sequence[float], count: int) -> list[int]:
    """Numbers of the decoder layers meant by a setting, from 0, for hidden states of `count` layers.

    Layer 0 is the output of the first decoder layer; the embedding output is not a layer.

    - "all": every layer. "last": the last two.
    - "shallow", "middle", "deep": three equal parts of the layers before the last two. For the paper's 32 layers these
      are its groups 1-10, 11-20 and 21-30 (counted from 1). With 3 or 4 layers: three parts of all of them.
    - integers: these layers, once each, negative ones from the end.
    - two fractions (start, stop): the layers whose middle `(number + 0.5) / count` lies in [start, stop), so that
      adjoining ranges share no layer and leave none out.

    Raises:
        LayerSelectionError: A layer is out of range or named twice, or no layer is left.

    Example:
        >>> select_layers("middle", 32) == list(range(10, 20)), select_layers("last", 32)
        (True, [30, 31])
        >>> select_layers((0.5, 1.0), 4), select_layers([0, -1], 4)
        ([2, 3], [0, 3])
    """
    if isinstance(layers, str):
        chosen = _layer_group(layers, count)
    elif all(isinstance(layer, Integral) for layer in layers):
        chosen = [int(layer) + count if layer < 0 else int(layer) for layer in layers]
        if any(not 0 <= layer < count for layer in chosen) or len(set(chosen)) < len(chosen):
            raise LayerSelectionError(
                f"layers={list(layers)} does not fit hidden states of {count} layers; expected each of "
                f"0 … {count - 1} (or -{count} … -1) at most once"
            )
    else:
        start, stop = layers
        chosen = [layer for layer in range(count) if start <= (layer + 0.5) / count < stop]
    if not chosen:
        raise LayerSelectionError(
            f"layers={layers!r} leaves none of the {count} layers that came; choose a wider range, or layers='all'"
        )
    return chosen


def _layer_group(name: str, count: int) -> list[int]:
    if name == "all":
        return list(range(count))
    if name == "last":
        return list(range(max(0, count - _LAST), count))
    part = {"shallow": 0, "middle": 1, "deep": 2}.get(name)
    if part is None:
        raise LayerSelectionError(f"unknown layer group {name!r}; expected all, shallow, middle, deep or last")
    depth = count - _LAST if count >= _LAST + 3 else count
    return list(range(round(part * depth / 3), round((part + 1) * depth / 3)))


def representation_term(
    batch: RolloutBatch,
    reference: Int[Tensor, " rollouts"],
    *,
    layers: str | Sequence[int] | Sequence[float] = "all",
    center: bool = False,
) -> tuple[TermValue, Float[Tensor, "rollouts chosen"]]:
    """Mean cosine over layers between each target rollout and its reference, computed in float32 or more.

    Args:
        batch: Every scorable rollout must carry hidden states [layers, hidden] of one shape.
        reference: Index of each rollout's reference, -1 where it has none.
        layers: Which layers are compared, see `select_layers`.
        center: Subtract from each state the mean over the scorable rollouts of its pair, both modalities together and
            each rollout counting once, layer by layer, before the comparison. The mean state that all rollouts share,
            which a few very large dimensions dominate, then no longer pushes every cosine towards 1. A zero state is no
            state: it is left out of the mean and stays zero.

    Returns:
        The term, in [-1, 1], and the cosine of every chosen layer; both 0 where not valid. A rollout is not valid
        without a reference, or when one of the two states is zero in a chosen layer.

    Raises:
        HiddenStatesError: States are missing, of differing shapes, or not finite.
        LayerSelectionError: The layers do not fit those that came.
    """
    states = pooled_states(batch)
    if not states:
        term = TermValue.nowhere(len(batch))
        return term, term.values.new_zeros(len(batch), 0)
    chosen = select_layers(layers, len(next(iter(states.values())).values))
    compared = np.flatnonzero(reference.numpy() >= 0)
    # One reference after the other, so that each is read once for all that are compared with it.
    compared = compared[np.lexsort((reference.numpy()[compared], batch.pair[compared]))]
    cosines = centered_cosines if center else layer_cosines
    found = cosines(batch, states, compared, reference.numpy()[compared])
    exists = np.asarray(found.exists[:, chosen].all(axis=1))
    per_layer, valid = np.zeros((len(batch), len(chosen)), np.float32), np.zeros(len(batch), bool)
    per_layer[compared] = np.where(exists[:, None], found.values[:, chosen], 0)
    valid[compared] = exists
    term = TermValue(torch.from_numpy(per_layer.mean(axis=1)), torch.from_numpy(valid))
    return term, torch.from_numpy(per_layer)
