"""From what was measured of each question to means with intervals, of one model and of the difference between two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from tars_rewards.drift.behavior import RANGES, SHARES
from tars_rewards.drift.intervals import Estimate, cka_estimate, mean_estimate, share_estimate, without_certainty
from tars_rewards.drift.measures import CKA
from tars_rewards.drift.model_drift import PAIRS

if TYPE_CHECKING:
    from jaxtyping import Float

    from tars_rewards.drift.model_drift import ModelDrift
    from tars_rewards.drift.settings import DriftSettings

Values = TypeVar("Values", npt.NDArray[np.float64], CKA)

DIFFERENCE = "difference"
"""Name of the run that is the paired difference: `model` less `against`."""
MARGIN = "margin"
"""Name of the pairs that are the paired difference: matched less mismatched."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Similarity by layer."""

    run: str  #: "model", "against" or "difference": the first less the second, question by question
    states: str  #: "forced": one completion after both prompts, token by token; "rollouts": own completions, pooled
    measure: str  #: "cosine", "centred" or "cka"; of forced states CKA is of their mean over the completion
    pairs: str  #: "matched", "mismatched", or "margin": the first less the second, question by question
    layers: Estimate  #: a column a layer, from the first
    overall: Estimate  #: one column: mean over the layers


@dataclass(frozen=True, eq=False)
class PositionCurve:
    """Similarity along the forced completion."""

    run: str  #: as in Curve
    measure: str  #: "cosine" or "centred"
    pairs: str  #: as in Curve
    places: str  #: "tokens": runs of `bucket_tokens`; "tenths" of the completion's length
    layer: int | None  #: from 0; None: mean over the layers
    along: Estimate  #: a column a place


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of the behaviour deviation; see `behavior`."""

    run: str  #: as in Curve
    name: str
    estimate: Estimate  #: one column


class Estimator:
    """Makes estimates of values by question, as the settings say."""

    def __init__(self, settings: DriftSettings) -> None:
        self._confidence = settings.confidence
        self._how: dict[str, Any] = {
            "resamples": settings.resamples,
            "confidence": settings.confidence,
            "seed": settings.seed,
        }

    def curves(self, measured: Mapping[str, ModelDrift]) -> list[Curve]:
        """Similarity by layer of each model, and of their difference where there are two."""
        found = []
        for states, measure in sorted({key[:2] for each in measured.values() for key in each.similarity}):
            values = {
                (run, pairs): each.similarity[states, measure, pairs]
                for run, each in measured.items()
                for pairs in PAIRS
            }
            for (run, pairs), of_questions in _with_differences(values).items():
                reach = _reach(run, pairs)
                overall = self._mean(_over_layers(of_questions)[:, None], reach)
                found.append(Curve(run, states, measure, pairs, self._mean(of_questions, reach), overall))
        for states in sorted({key[0] for each in measured.values() for key in each.cka}):
            cka = {(run, pairs): each.cka[states, pairs] for run, each in measured.items() for pairs in PAIRS}
            for (run, pairs), value in _with_differences(cka).items():
                reach = _reach(run, pairs)
                layers, overall = (
                    cka_estimate(value, confidence=self._confidence, average=average, bounds=(-reach, reach))
                    for average in (False, True)
                )
                found.append(Curve(run, states, "cka", pairs, layers, overall))
        return found

    def positions(self, measured: Mapping[str, ModelDrift]) -> list[PositionCurve]:
        """Similarity along the completion, by layer and over the layers."""
        found = []
        for measure, places in sorted({(key[0], key[2]) for each in measured.values() for key in each.positions}):
            values = {
                (run, pairs): _with_mean(each.positions[measure, pairs, places])
                for run, each in measured.items()
                for pairs in PAIRS
            }
            for (run, pairs), of_questions in _with_differences(values).items():
                questions, count, columns = of_questions.shape
                estimate = self._mean(of_questions.reshape(questions, -1), _reach(run, pairs))
                for layer in range(columns):
                    along = Estimate(*(part.reshape(count, columns)[:, layer] for part in estimate))
                    found.append(
                        PositionCurve(run, measure, pairs, places, layer if layer < columns - 1 else None, along)
                    )
        return found

    def trends(self, measured: Mapping[str, ModelDrift]) -> list[Curve]:
        """Last tenth of the completion less its first, question by question: below 0 the states drift apart."""
        found = []
        for measure in sorted({key[0] for each in measured.values() for key in each.positions}):
            values = {
                (run, pairs): tenths[:, -1] - tenths[:, 0]
                for run, each in measured.items()
                for pairs in PAIRS
                for tenths in [each.positions[measure, pairs, "tenths"]]
            }
            for (run, pairs), change in _with_differences(values).items():
                reach = 2 * _reach(run, pairs)
                overall = self._mean(_over_layers(change)[:, None], reach)
                found.append(Curve(run, "forced", measure, pairs, self._mean(change, reach), overall))
        return found

    def figures(self, measured: Mapping[str, ModelDrift]) -> list[Figure]:
        """Behaviour deviation."""
        found = []
        for name in next(iter(measured.values())).behavior:
            values = {run: each.behavior[name] for run, each in measured.items()}
            for run, of_questions in values.items():
                if name in SHARES:
                    found.append(Figure(run, name, share_estimate(of_questions, **self._how)))
                else:
                    bounds = RANGES.get(name, (-math.inf, math.inf))
                    estimate = mean_estimate(of_questions[:, None], **self._how, bounds=bounds)
                    found.append(Figure(run, name, estimate))
            if len(values) == 2:
                change = values["model"] - values["against"]
                estimate = self._mean(change[:, None])
                found.append(Figure(DIFFERENCE, name, without_certainty(estimate) if name in SHARES else estimate))
        return found

    def _mean(self, values: Float[np.ndarray, "questions columns"], reach: float = math.inf) -> Estimate:
        return mean_estimate(values, **self._how, bounds=(-reach, reach))


def _reach(run: str, pairs: str) -> float:
    """How large a similarity, a difference of two, or a difference of differences can be."""
    return 2.0 ** ((run == DIFFERENCE) + (pairs == MARGIN))


def _with_differences(values: Mapping[tuple[str, str], Values]) -> dict[tuple[str, str], Values]:
    """Values by run and pairs, and the differences between pairs, between runs, and of both."""
    runs = list(dict.fromkeys(run for run, _ in values))
    found = {(run, pairs): values[run, pairs] for run in runs for pairs in PAIRS}
    found.update({(run, MARGIN): _less(*(values[run, pairs] for pairs in PAIRS)) for run in runs})
    if len(runs) == 2:
        for pairs in (*PAIRS, MARGIN):
            found[DIFFERENCE, pairs] = _less(found["model", pairs], found["against", pairs])
    return found


def _less(one: Values, other: Values) -> Values:
    if isinstance(one, CKA) and isinstance(other, CKA):
        return CKA(one.value - other.value, one.without - other.without)
    places = max(one.shape[1], other.shape[1])
    less: Values = _up_to(one, places) - _up_to(other, places)
    return less


def _up_to(values: Float[np.ndarray, "questions places ..."], places: int) -> Float[np.ndarray, "questions more ..."]:
    """NaN for places that no completion of this model reaches."""
    more = [(0, 0)] * values.ndim
    more[1] = (0, places - values.shape[1])
    return np.pad(values, more, constant_values=np.nan)


def _over_layers(values: Float[np.ndarray, "questions layers"]) -> Float[np.ndarray, " questions"]:
    mean: Float[np.ndarray, " questions"] = values.mean(axis=-1)
    return mean


def _with_mean(values: Float[np.ndarray, "questions places layers"]) -> Float[np.ndarray, "questions places more"]:
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)
