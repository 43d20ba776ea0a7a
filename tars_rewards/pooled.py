"""The pooled states that a batch's rollouts brought, as tensors of one shape."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from tars_rewards.errors import HiddenStatesError
from tars_rewards.transport import PackedStates

if TYPE_CHECKING:
    import numpy.typing as npt
    from jaxtyping import Shaped
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch


class PooledStates(NamedTuple):
    """One rollout's states, on whatever device and of whatever dtype they came."""

    values: Shaped[Tensor, "layers hidden"]
    packed: PackedStates | None = None  #: what the values are the steps of; what goes beside them is on the CPU


def pooled_states(batch: RolloutBatch) -> dict[int, PooledStates]:
    """States of the scorable rollouts by index.

    Their values are not read yet, only their shapes are looked at; the other rollouts' not even that.

    Raises:
        HiddenStatesError: States are missing, no floating-point arrays [layers, hidden], or of differing shapes.
    """
    states: dict[int, PooledStates] = {}
    shape = None
    with warnings.catch_warnings():
        # Arrays out of a shared store are read-only; torch warns of that, but nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for index in np.flatnonzero(batch.scorable).tolist():
            states[index] = _as_tensors(batch, index)
            state, packed = states[index]
            if state.ndim != 2 or 0 in state.shape or not (packed is not None or state.is_floating_point()):
                raise HiddenStatesError(
                    f"{batch.describe(index)} has hidden_states of shape {tuple(state.shape)} and dtype {state.dtype}; "
                    "expected floating-point [layers, hidden], pooled over the completion"
                )
            shape = shape or state.shape
            if state.shape != shape:
                raise HiddenStatesError(
                    f"{batch.describe(index)} has hidden_states of shape {tuple(state.shape)}, but "
                    f"{batch.describe(next(iter(states)))} has {tuple(shape)}; expected one shape; take both from the same "
                    "layers of the same model"
                )
    return states


def check_finite(batch: RolloutBatch, index: int, states: PooledStates) -> None:
    """Check one rollout's states value by value.

    Raises:
        HiddenStatesError: A value is NaN or inf, or is so in float32.
    """
    values = states.values.float() if states.packed is None else states.packed.side
    if not values.isfinite().all():
        raise HiddenStatesError(
            f"{batch.describe(index)} has NaN or inf in its hidden_states; expected values finite in float32; pool "
            "in float32 and over at least one token"
        )


def _as_tensors(batch: RolloutBatch, index: int) -> PooledStates:
    given = batch.rollouts[index].hidden_states
    if isinstance(given, torch.Tensor):
        return PooledStates(given)
    if isinstance(given, PackedStates):
        return PooledStates(given.steps, given if given.side.is_cpu else PackedStates(given.steps, given.side.cpu()))
    if given is None:
        raise HiddenStatesError(
            f"{batch.describe(index)} has no hidden_states; with alpha > 0 every rollout with a completion needs "
            "its pooled [layers, hidden] states; capture them (tars_rewards.capture), or set alpha=0"
        )
    try:
        return PooledStates(torch.from_numpy(_plain(given)))
    except (TypeError, ValueError) as error:
        raise HiddenStatesError(
            f"{batch.describe(index)} has hidden_states of type {type(given).__name__}, no array ({error}); "
            "expected a numpy array or a tensor [layers, hidden]"
        ) from error


def _plain(given: Any) -> npt.NDArray[Any]:
    """An array as torch takes it: in the machine's byte order, without negative strides."""
    array = np.asarray(given)
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
