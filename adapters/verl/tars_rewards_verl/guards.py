"""All completions must have come back in every step; verl itself would train on without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tars_rewards.errors import IncompletePairError
from tars_rewards_verl.batch import split_key


def check_rows(keys: Iterable[str], prompts: Mapping[str, tuple[str, str]], samples: int) -> None:
    """Every prompt that was sent to the rollout engine must have come back with all of its completions.

    verl drops a completion whose generation raised, logs the error and trains on what is left.

    Args:
        keys: TransferQueue keys that came back, ``{uid}_{sample}_{index}``.
        prompts: (pair_id, modality) of every uid sent.
        samples: Completions per prompt.

    Raises:
        IncompletePairError: Completions are missing, or of prompts that were not sent.
    """
    came = Counter(split_key(key)[0] for key in keys)
    if came.keys() - prompts.keys():
        raise IncompletePairError(
            f"{len(came.keys() - prompts.keys())} prompts of the batch are not of this step; expected the {len(prompts)} "
            "prompts that were sent to the rollout engine"
        )
    missing = {uid: samples - came[uid] for uid in prompts if came[uid] != samples}
    if missing:
        lost: Counter[str] = Counter()
        for uid, count in missing.items():
            lost[prompts[uid][1]] += count
        pair_id, modality = prompts[next(iter(missing))]
        raise IncompletePairError(
            f"expected {samples} completions of each of {len(prompts)} prompts, but "
            + ", ".join(f"{count} {name}" for name, count in sorted(lost.items()))
            + f" completions are missing (first: pair {pair_id!r}, {modality}). verl drops a completion whose generation "
            "or reward raised: its traceback stands above in the log, after 'Error in _run_prompt'."
        )
