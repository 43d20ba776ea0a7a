"""Terms of a user's own beside the representation and the behavior term: found, named, and checked in what they return.

They belong to target rollouts, as the two do; an anchor is rewarded by the base reward alone, whatever a term says of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from tars_rewards.errors import ConfigError, TermError
from tars_rewards.protocol import RewardTerm, TermValue

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from tars_rewards.batch import RolloutBatch

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z]\w*")
_TAKEN = (
    "accuracy",
    "format",
    "representation",
    "behavior",
    "total",
    "base",
    "reference",
    "pairs",
    "truncated",
    "seconds",
    "id",
    "modality",
    "sample_id",
    "completion",
    "answer",
    "log_prob",
    "tokens",
    "step",
)
"""Names of the package's own components, metrics, and columns beside them in a file of rewards."""

Weights = tuple[tuple[str | RewardTerm, float], ...]


class OwnTerm(NamedTuple):
    """A term in force."""

    name: str  #: of its component and its metrics
    weight: float
    compute: RewardTerm | None  #: None with a weight of 0, which switches it off


def own_weights(given: Any) -> Weights:
    """The setting `terms` as pairs, checked; nothing is imported.

    Args:
        given: A mapping from terms to weights, an iterable of such pairs, or None.

    Raises:
        ConfigError: It is something else, a term is neither an import path nor callable, a weight is not finite, or a name
            occurs twice or is one of the package's own.
    """
    if given is None:
        return ()
    try:
        pairs = [(term, weight) for term, weight in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise ConfigError(
            f'terms must be a mapping from "module:name" to a weight, such as {{"my_package.terms:brevity": 0.2}}, got '
            f"{given!r} ({type(given).__name__})"
        ) from None
    names: set[str] = set()
    for term, weight in pairs:
        if not (_PATH.fullmatch(term) if isinstance(term, str) else callable(term)):
            raise ConfigError(
                f'terms must be named as "module:name" or be functions, got {term!r}; put a colon between the module and '
                "the function in it"
            )
        if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
            raise ConfigError(f"the weight of the term {term!r} must be a finite number, got {weight!r}")
        name = term_name(term)
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"the term {term!r} is called {name!r}, which makes no name of a metric; give it an attribute `name` of "
                "letters, digits and underscores"
            )
        if name in names or name in _TAKEN:
            whose = "another term of yours" if name in names else "the package's own"
            raise ConfigError(
                f"the term {term!r} is called {name!r}, and so is {whose}; call it something else than "
                f"{', '.join(sorted({*_TAKEN, *names}))}"
            )
        names.add(name)
    return tuple((term, float(weight)) for term, weight in pairs)


def check_terms(weights: Weights) -> None:
    """Import the terms of `own_weights` and make no instances: for an early error, before anything large is started.

    Raises:
        ConfigError: See `load_terms`.
    """
    for term, weight in weights:
        if weight:
            _find(term)


def load_terms(weights: Weights) -> list[OwnTerm]:
    """Import the terms of `own_weights`; a class is called without arguments for its instance.

    Raises:
        ConfigError: There is no such module or name, or what it names cannot be called. Whatever a module or a class of
            yours raises is passed on.
    """
    return [OwnTerm(term_name(term), weight, _load(term) if weight else None) for term, weight in weights]


def own_term(term: OwnTerm, batch: RolloutBatch, reference: Int[Tensor, " rollouts"]) -> TermValue:
    """Compute a term, and check what it returns.

    Args:
        term: The term.
        batch: The rollouts.
        reference: Index of each rollout's reference, -1 where it has none.

    Returns:
        float32 values and their validity on the CPU: 0 and not valid for anchor rollouts, and wherever the term says so.

    Raises:
        TermError: It returned no TermValue, or one of another shape, or with values that are not finite where they are
            valid. What the term raises is passed on.
    """
    import torch

    if term.compute is None:
        return TermValue.nowhere(len(batch))
    # A copy, since the reference is the other terms' too.
    returned = term.compute(batch, reference.clone())
    expected = (
        f"expected a TermValue of float values [{len(batch)}] and bool valid [{len(batch)}], one for each rollout"
    )
    if not isinstance(returned, TermValue):
        raise TermError(f"the term {term.name!r} returned a {type(returned).__name__}; {expected}")
    for part, tensor in returned._asdict().items():
        if not isinstance(tensor, torch.Tensor):
            raise TermError(
                f"the term {term.name!r} returned {part} of type {type(tensor).__name__}; {expected}, as torch tensors"
            )
        if tuple(tensor.shape) != (len(batch),):
            raise TermError(f"the term {term.name!r} returned {part} of shape {list(tensor.shape)}; {expected}")
    if returned.valid.dtype != torch.bool or returned.values.dtype == torch.bool or returned.values.is_complex():
        raise TermError(
            f"the term {term.name!r} returned values of {returned.values.dtype} and valid of {returned.valid.dtype}; {expected}"
        )
    valid = returned.valid.detach().cpu() & torch.from_numpy(batch.is_target)
    values = torch.where(valid, returned.values.detach().to("cpu", torch.float32), 0.0)
    if not values.isfinite().all():
        index = int(torch.nonzero(~values.isfinite())[0])
        raise TermError(
            f"the term {term.name!r} is {float(values[index])} for {batch.describe(index)}; expected a finite number; where "
            "the term does not exist, say so in `valid`"
        )
    return TermValue(values, valid)


def term_name(term: str | RewardTerm) -> str:
    """Name of a term's component and metrics: that in its path, or its `name`, or that of its function or class."""
    if isinstance(term, str):
        return term.partition(":")[2]
    return str(getattr(term, "name", getattr(term, "__name__", type(term).__name__)))


def _load(term: str | RewardTerm) -> RewardTerm:
    found = _find(term)
    loaded: RewardTerm = found() if isinstance(found, type) else found
    return loaded


def _find(term: str | RewardTerm) -> Any:
    """What a term names: a function, or a class whose instances are called like one."""
    found: Any = term
    if isinstance(term, str):
        module, _, name = term.partition(":")
        try:
            home = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # of something that the module itself imports
            raise ConfigError(
                f"terms names {term!r}, and there is no module {error.name!r}; is it on PYTHONPATH?"
            ) from error
        if not hasattr(home, name):
            raise ConfigError(f"terms names {term!r}, and the module {module!r} has no {name!r}; check the spelling")
        found = getattr(home, name)
    makes_callables = not isinstance(found, type) or any("__call__" in vars(cls) for cls in found.__mro__)
    if not callable(found) or not makes_callables:
        raise ConfigError(
            f"terms names {term!r}, which is {found!r} and cannot be called; expected a function of a batch and its "
            "references, or a class whose instances are called like one"
        )
    return found
