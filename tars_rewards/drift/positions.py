"""Places along a completion: runs of tokens counted from its beginning, and tenths of its length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TENTHS = 10


def by_tokens(values: Float[np.ndarray, "tokens columns"], width: int) -> Float[np.ndarray, "places columns"]:
    """Mean over each run of `width` tokens: tokens 0 to `width - 1` are place 0. The last run may be shorter.

    A long completion reaches places that a short one does not, so that places far from the beginning are about the
    questions with long completions alone; `by_tenths` compares the same questions everywhere.

    Args:
        values: Of each token; NaN is left out of the means.
        width: Tokens of a run.
    """
    return _means(values, np.arange(len(values)) // width, -(-len(values) // width))


def by_tenths(values: Float[np.ndarray, "tokens columns"]) -> Float[np.ndarray, "10 columns"]:
    """Mean over each tenth of the completion: of n tokens, token t belongs to tenth `floor(10 t / n)`.

    A completion of less than 10 tokens leaves some tenths without a token: they are NaN.
    """
    return _means(values, TENTHS * np.arange(len(values)) // max(1, len(values)), TENTHS)


def _means(
    values: Float[np.ndarray, "tokens columns"], place: Int[np.ndarray, " tokens"], places: int
) -> Float[np.ndarray, "places columns"]:
    there = ~np.isnan(values)
    sums, counts = np.zeros((places, values.shape[1])), np.zeros((places, values.shape[1]))
    np.add.at(sums, place, np.where(there, values, 0.0))
    np.add.at(counts, place, there)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def stacked(places: list[Float[np.ndarray, "places columns"]]) -> Float[np.ndarray, "questions most columns"]:
    """Places of several questions in one array, NaN where a completion has ended."""
    most = max(len(each) for each in places)
    whole = np.full((len(places), most, places[0].shape[1]), np.nan)
    for question, each in enumerate(places):
        whole[question, : len(each)] = each
    return whole
