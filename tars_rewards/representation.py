"""The representation term: how alike the hidden states of the two modalities are, layer by layer.

`R_rep = (1 / L) sum_l cos(mean_t h_l^target, mean_t h_l^anchor)` over the chosen decoder layers, each state averaged
over the generated tokens only (arXiv 2601.05543, section 4.1, representation alignment). The averages arrive ready
made, one [layers, hidden] array a rollout; `capture.py` makes them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tars_rewards.errors import HiddenStatesError, LayerSelectionError
from tars_rewards.protocol import TermValue
from tars_rewards.similarity import cosine

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch

_LAST = 2  # layers in the group "last", as in the paper
_CHUNK_VALUES = 2**20  # float32 values of states worked on at once: 4 MiB, which stays in a CPU's cache
_ROUNDING = 1e-6  # a centred vector shorter than this share of the original is rounding noise, that is, zero


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
    """Mean cosine over layers between each target rollout and its reference, computed in float32.

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
    states = _checked_states(batch)
    term = TermValue.nowhere(len(batch))
    if not states:
        return term, term.values.new_zeros(len(batch), 0)
    depth, hidden = next(iter(states.values())).shape
    chosen = select_layers(layers, depth)
    per_layer = term.values.new_zeros(len(batch), len(chosen))
    chosen_reference = reference.numpy()
    compared = chosen_reference >= 0
    used = batch.scorable if center else _involved(chosen_reference)
    rows_at_once = max(1, _CHUNK_VALUES // (len(chosen) * hidden))
    for rows in _chunks_of_pairs(batch.pair, used & np.isin(batch.pair, batch.pair[compared]), rows_at_once):
        stacked = _stack(states, rows, chosen)
        if center:
            stacked = _centered(stacked, torch.from_numpy(np.unique(batch.pair[rows], return_inverse=True)[1]))
        position = np.full(len(batch), -1, np.int64)
        position[rows] = np.arange(len(rows))
        targets = rows[compared[rows]]
        values, exists = cosine(stacked[position[targets]], stacked[position[chosen_reference[targets]]])
        complete = exists.all(dim=-1)
        per_layer[targets] = torch.where(complete[:, None], values, 0.0)
        term.valid[targets] = complete
    return TermValue(per_layer.mean(dim=-1), term.valid), per_layer


def _checked_states(batch: RolloutBatch) -> dict[int, Tensor]:
    """States of the scorable rollouts as CPU tensors, by index; the others' are not even looked at."""
    states: dict[int, Tensor] = {}
    with warnings.catch_warnings():
        # Arrays out of a shared store are read-only; torch warns of that, but nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for index in np.flatnonzero(batch.scorable).tolist():
            states[index] = _checked_state(batch, index, next(iter(states), index), states)
    return states


def _checked_state(batch: RolloutBatch, index: int, first: int, states: Mapping[int, Tensor]) -> Tensor:
    given = batch.rollouts[index].hidden_states
    if given is None:
        raise HiddenStatesError(
            f"{batch.describe(index)} has no hidden_states; with alpha > 0 every rollout with a completion needs "
            "its pooled [layers, hidden] states; capture them (tars_rewards.capture), or set alpha=0"
        )
    try:
        state = given.detach().cpu() if isinstance(given, torch.Tensor) else torch.from_numpy(_plain(given))
    except (TypeError, ValueError) as error:
        raise HiddenStatesError(
            f"{batch.describe(index)} has hidden_states of type {type(given).__name__}, no array ({error}); "
            "expected a numpy array or a tensor [layers, hidden]"
        ) from error
    if state.ndim != 2 or 0 in state.shape or not state.is_floating_point():
        raise HiddenStatesError(
            f"{batch.describe(index)} has hidden_states of shape {tuple(state.shape)} and dtype {state.dtype}; "
            "expected floating-point [layers, hidden], pooled over the completion"
        )
    if first in states and state.shape != states[first].shape:
        raise HiddenStatesError(
            f"{batch.describe(index)} has hidden_states of shape {tuple(state.shape)}, but {batch.describe(first)} "
            f"has {tuple(states[first].shape)}; expected one shape; take both from the same layers of the same model"
        )
    # A finite sum proves finite values in one cheap pass; only an infinite one calls for a closer look.
    if not math.isfinite(state.sum(dtype=torch.float32).item()) and not state.float().isfinite().all():
        raise HiddenStatesError(
            f"{batch.describe(index)} has NaN or inf in its hidden_states; expected values finite in float32; pool "
            "in float32 and over at least one token"
        )
    return state


def _plain(given: Any) -> npt.NDArray[Any]:
    """An array as torch takes it: in the machine's byte order, without negative strides."""
    array = np.asarray(given)
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _involved(reference: Int[np.ndarray, " rollouts"]) -> Bool[np.ndarray, " rollouts"]:
    involved = reference >= 0
    involved[reference[involved]] = True
    return involved


def _chunks_of_pairs(
    pair: Int[np.ndarray, " rollouts"], used: Bool[np.ndarray, " rollouts"], limit: int
) -> list[Int[np.ndarray, " rows"]]:
    """Split the used rollouts into runs of whole pairs: at most `limit` rollouts, but one pair at the least."""
    rows = np.flatnonzero(used)
    if rows.size == 0:
        return []
    rows = rows[np.argsort(pair[rows], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(pair[rows]) != 0])
    cuts, begun = [], 0
    for start, stop in zip(starts, np.r_[starts[1:], len(rows)], strict=True):
        if start > begun and stop - begun > limit:
            cuts.append(int(start))
            begun = int(start)
    return list(np.split(rows, cuts))


def _stack(
    states: Mapping[int, Tensor], rows: Int[np.ndarray, " rows"], layers: list[int]
) -> Float[Tensor, "rows chosen hidden"]:
    picked = [states[row] for row in rows.tolist()]
    whole = layers == list(range(picked[0].shape[0]))
    stacked = torch.empty(len(rows), len(layers), picked[0].shape[1], dtype=torch.float32, device="cpu")
    for into, state in zip(stacked, picked, strict=True):
        into.copy_(state if whole else state[layers])
    return stacked


def _centered(
    stacked: Float[Tensor, "rows chosen hidden"], group: Int[Tensor, " rows"]
) -> Float[Tensor, "rows chosen hidden"]:
    groups = int(group.max()) + 1
    present = (stacked != 0).any(dim=-1)
    sums = stacked.new_zeros(groups, *stacked.shape[1:]).index_add_(0, group, stacked)
    sizes = stacked.new_zeros(groups, stacked.shape[1]).index_add_(0, group, present.float()).clamp(min=1)
    centered = stacked - (sums / sizes[..., None])[group]
    noise = centered.norm(dim=-1) <= _ROUNDING * stacked.norm(dim=-1)
    return centered.masked_fill((noise | ~present)[..., None], 0.0)
