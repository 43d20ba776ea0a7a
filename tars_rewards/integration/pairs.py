"""Pairs in the data: every question has one prompt of each modality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tars_rewards.errors import IncompletePairError

CHECK_ROWS = (
    "check the columns pair_id and modality, and whether something removed a row (a length filter, a limit on the "
    "number of rows)"
)
"""What to do about half a pair of which no more is known."""


def find_pairs(
    pair_ids: Sequence[str],
    modalities: Sequence[str],
    *,
    target_modality: str,
    anchor_modality: str,
    where: str = "the dataset",
    advice: str = CHECK_ROWS,
) -> list[tuple[int, int]]:
    """Rows of each pair, in order of first appearance.

    Args:
        pair_ids: Pair of each row.
        modalities: Modality of each row.
        target_modality: Modality whose rollouts are aligned (speech).
        anchor_modality: Modality of the reference rollouts (text).
        where: What the rows are of, for the message.
        advice: What to do about half a pair, for the message.

    Returns:
        (target row, anchor row) of each pair.

    Raises:
        IncompletePairError: A pair does not have exactly one row of each modality.
    """
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (pair_id, modality) in enumerate(zip(pair_ids, modalities, strict=True)):
        rows[pair_id][modality].append(row)
    expected = {target_modality: 1, anchor_modality: 1}
    for pair_id, by_modality in rows.items():
        found = {modality: len(indices) for modality, indices in by_modality.items()}
        if found != expected:
            raise IncompletePairError(
                f"pair {pair_id!r} of {where} must have one row of each of {sorted(expected)}, got {found}; {advice}"
            )
    return [(found[target_modality][0], found[anchor_modality][0]) for found in rows.values()]
