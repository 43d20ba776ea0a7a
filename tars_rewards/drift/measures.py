"""How alike two sets of states are: cosine, centred cosine, debiased linear CKA.

============  =========================================================================================================
cosine        of the states as they are: what the method's reward and the paper's figures use. A few massive dimensions
              that all states share push it towards 1, so that its range is small.
centred       cosine of the states less the mean state of their own modality and layer. What all questions share is gone,
              the constant offset between two modalities too; what is left is what tells one question from another.
CKA           whether the two modalities tell the same questions apart, whatever rotation lies between them.
============  =========================================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tars_rewards.similarity import cosine

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

LEAST_FOR_CKA = 4
"""Fewer questions have no debiased CKA."""

_ROUNDING = 1e-6  # a centred float32 vector shorter than this share of the original is rounding noise, that is, zero
_NOTHING = 1e-12  # a debiased HSIC smaller than this share of the kernel's mean square is rounding noise


def centre(
    states: Float[Tensor, "*batch hidden"], mean: Float[Tensor, "*batch hidden"]
) -> Float[Tensor, "*batch hidden"]:
    """Subtract a mean state; where nothing but rounding noise is left, the state is zero, which has no cosine.

    Args:
        states: Any float dtype; computed in float32, float64 in float64.
        mean: Broadcast against the states.
    """
    states = states if states.dtype == torch.float64 else states.float()
    centred = states - mean.to(states.dtype)
    noise = centred.norm(dim=-1) <= _ROUNDING * states.norm(dim=-1)
    return centred.masked_fill(noise[..., None], 0.0)


def centred_cosine(
    left: Float[Tensor, "*batch hidden"],
    right: Float[Tensor, "*batch hidden"],
    left_mean: Float[Tensor, "*batch hidden"],
    right_mean: Float[Tensor, "*batch hidden"],
) -> tuple[Float[Tensor, " *batch"], Bool[Tensor, " *batch"]]:
    """Cosine of states less their modality's mean state.

    `cos(x_i - m_x, y_i - m_y)`. Of independent states of n questions the expectation is 0 if the means are the sample's
    (that one's own state is part of the mean only scales the difference: `x_i - m_x = (n - 1) / n (x_i - mean of the
    others)`). States of different questions whose own counterparts are alike come to about `-1 / (n - 1)` times those's.

    Args:
        left: States of one modality.
        right: States of the other, in the same order.
        left_mean: Mean state of the left modality, broadcast against its states.
        right_mean: Mean state of the right one.

    Returns:
        The cosines, float32 in [-1, 1], and the mask of those that exist: a state that equals its mean has none.
    """
    return cosine(centre(left, left_mean), centre(right, right_mean))


class CKA(NamedTuple):
    """Debiased CKA of all questions, and of all questions but one, from which its uncertainty follows."""

    value: Float[np.ndarray, " layers"]  #: in [-1, 1]; NaN where it does not exist
    without: Float[np.ndarray, "questions layers"]  #: the same without each question; NaN where it does not exist


def debiased_cka(
    left: Float[Tensor, "questions layers hidden_left"], right: Float[Tensor, "questions layers hidden_right"]
) -> CKA:
    """Linear CKA by layer with the unbiased estimator of HSIC, in float64.

    `CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`, K and L the matrices of inner products between questions, and::

        HSIC(K, L) = [tr(K' L') + sum(K') sum(L') / ((n-1)(n-2)) - 2 / (n-2) sum(K' L')] / (n (n-3))

    with K' and L' without their diagonals. It neither depends on how the features are shifted, rotated or scaled
    together, nor, unlike the usual estimator, does it come near 1 for independent features of which there are more than
    questions; for those its expectation is about 0, and it can be negative.

    The value without each question costs no more than the value itself: what the question adds to the three sums is
    taken out of them.

    Args:
        left: States of one modality, one a question.
        right: States of the other, in the same order.

    Returns:
        CKA by layer. It does not exist for less than 4 questions, nor where all states of one side are the same.

    References:
        Song et al., Feature Selection via Dependence Maximization, JMLR 2012 (the estimator);
        Nguyen et al., Do Wide and Deep Networks Learn the Same Things?, ICLR 2021 (its use in CKA).
    """
    if left.shape[:2] != right.shape[:2]:
        raise ValueError(f"expected states of the same questions and layers, got {left.shape} and {right.shape}")
    questions, layers = left.shape[:2]
    value, without = np.full(layers, np.nan), np.full((questions, layers), np.nan)
    if questions >= LEAST_FOR_CKA:
        for layer in range(layers):
            value[layer], without[:, layer] = _cka_of_kernels(_kernel(left[:, layer]), _kernel(right[:, layer]))
    return CKA(value, without)


def _kernel(states: Float[Tensor, "questions hidden"]) -> Float[np.ndarray, "questions questions"]:
    """Inner products between questions without those of a question with itself; shifted to the mean for precision."""
    exact = states.double()
    centred = centre(exact, exact.mean(dim=0)).cpu().numpy()
    kernel: Float[np.ndarray, "questions questions"] = centred @ centred.T
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _cka_of_kernels(
    left: Float[np.ndarray, "questions questions"], right: Float[np.ndarray, "questions questions"]
) -> tuple[float, Float[np.ndarray, " questions"]]:
    count = len(left)
    all_sums = [(_Sums.of(one, other), one, other) for one, other in ((left, right), (left, left), (right, right))]
    squares = float(np.square(left).mean()), float(np.square(right).mean())
    across, own_left, own_right = (sums.hsic(count) for sums, _, _ in all_sums)
    value = float(_ratio(across, own_left, own_right, squares))
    if count <= LEAST_FOR_CKA:
        return value, np.full(count, np.nan)
    across, own_left, own_right = (sums.without(one, other).hsic(count - 1) for sums, one, other in all_sums)
    return value, _ratio(across, own_left, own_right, squares)


class _Sums(NamedTuple):
    """The sums that HSIC consists of; arrays where they are of all questions but one."""

    products: Float[np.ndarray, ...]  #: tr(K L)
    left: Float[np.ndarray, ...]  #: sum(K)
    right: Float[np.ndarray, ...]  #: sum(L)
    chained: Float[np.ndarray, ...]  #: sum(K L)

    @classmethod
    def of(cls, left: Float[np.ndarray, "n n"], right: Float[np.ndarray, "n n"]) -> _Sums:
        return cls(np.vdot(left, right), left.sum(), right.sum(), left.sum(1) @ right.sum(1))

    def without(self, left: Float[np.ndarray, "n n"], right: Float[np.ndarray, "n n"]) -> _Sums:
        """The sums without each question in turn."""
        row_left, row_right = left.sum(1), right.sum(1)
        products = np.einsum("ij,ij->i", left, right)
        return _Sums(
            self.products - 2 * products,
            self.left - 2 * row_left,
            self.right - 2 * row_right,
            self.chained - row_left * row_right - right @ row_left - left @ row_right + products,
        )

    def hsic(self, count: int) -> Float[np.ndarray, ...]:
        total = self.products + self.left * self.right / ((count - 1) * (count - 2)) - 2 / (count - 2) * self.chained
        scaled: Float[np.ndarray, ...] = np.asarray(total / (count * (count - 3)))
        return scaled


def _ratio(
    across: Float[np.ndarray, ...],
    own_left: Float[np.ndarray, ...],
    own_right: Float[np.ndarray, ...],
    mean_squares: tuple[float, float],
) -> Float[np.ndarray, ...]:
    exists = (own_left > _NOTHING * mean_squares[0]) & (own_right > _NOTHING * mean_squares[1])
    scale = np.sqrt(np.where(exists, own_left, 1.0)) * np.sqrt(np.where(exists, own_right, 1.0))
    # HSIC is an inner product, so that only rounding leaves [-1, 1].
    return np.where(exists, np.clip(across / scale, -1.0, 1.0), np.nan)
