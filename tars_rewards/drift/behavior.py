"""How far what is said after a spoken prompt departs from what is said after the written one.

All figures are of a pair: a spoken completion and the written one with the same number of the same question.

========================  ===========================================================================================
semantic_consistency      cosine of the two completions' sentence embeddings, in [-1, 1]; with "mismatched" behind it:
                          of the written completion and another question's spoken one
answer_agreement          1 if both state an answer and it is the same one, else 0; nothing is said about its being right
answer_agreement_stated   the same over pairs in which both state an answer
speech_answered           1 if the spoken completion states an answer; ``text_answered``: the written one
shared_steps              share, in [0, 1], of the longer chain's steps that both chains have in common from the beginning:
                          `first_diverging_step / max(steps)`, 1 if the chains are the same
shared_tokens             the same for the tokens of the whole completion
first_diverging_step      number, from 0, of the first step in which the chains differ or that only one of them has; no
                          value where they do not differ
first_diverging_token     the same for tokens
diverged                  1 if any token differs
length_difference         tokens of the spoken completion less those of the written one
length_distance           the same without its sign
========================  ===========================================================================================

A step is a sentence or a line of the reasoning: what stands between `<think>` and `</think>` (up to the end where it is not
closed, from the beginning where it is not opened, the whole text where there is neither tag), split behind line breaks and
behind `.`, `!`, `?` or `;` before a space. Steps are compared without regard to case and spacing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from string import ascii_uppercase
from typing import NamedTuple

import numpy as np

from tars_rewards.answers import answers_agree
from tars_rewards.errors import MissingAnswerError

SHARES = ("answer_agreement", "answer_agreement_stated", "speech_answered", "text_answered", "diverged")
"""Figures that are yes or no."""
RANGES = {
    "shared_steps": (0.0, 1.0),
    "shared_tokens": (0.0, 1.0),
    "first_diverging_step": (0.0, math.inf),
    "first_diverging_token": (0.0, math.inf),
    "length_distance": (0.0, math.inf),
    "semantic_consistency": (-1.0, 1.0),
    "semantic_consistency_mismatched": (-1.0, 1.0),
}
"""What further figures cannot leave, nor can their means."""

_STATEMENT = re.compile(r"\bthe\s+answer\s+is\b", re.IGNORECASE)
_OPENED = re.compile(r".*?<\s*think\s*>", re.IGNORECASE | re.DOTALL)
_CLOSED = re.compile(r"<\s*/\s*think\s*>.*", re.IGNORECASE | re.DOTALL)
_STEP_END = re.compile(r"(?<=[.!?;])\s+|\n+")


class Said(NamedTuple):
    """A completion: what is compared of it."""

    text: str
    tokens: tuple[int, ...]
    answer: str | None  #: as the extractor read it


def steps_of(completion: str) -> list[str]:
    r"""Steps of a completion's reasoning.

    Example:
        >>> steps_of("<think>2 + 2 is 4.  So B!\nYes</think><answer>The answer is B.</answer>")
        ['2 + 2 is 4.', 'so b!', 'yes']
    """
    thought = _CLOSED.sub("", _OPENED.sub("", completion, count=1))
    normal = (" ".join(step.split()).casefold() for step in _STEP_END.split(thought))
    return [step for step in normal if step]


def first_difference(one: Sequence[Hashable], other: Sequence[Hashable]) -> int | None:
    """Number of the first place at which two sequences differ, or that only one of them has; None if they are the same.

    Example:
        >>> first_difference("abc", "abd"), first_difference("ab", "abc"), first_difference("ab", "ab")
        (2, 2, None)
    """
    shorter = min(len(one), len(other))
    differing = next((index for index in range(shorter) if one[index] != other[index]), shorter)
    return None if differing == len(one) == len(other) else differing


def same_answer(one: str, other: str) -> bool:
    """Whether two stated answers are the same: the same option's letter, or, where neither names one, the same text.

    Example:
        >>> same_answer("The answer is (B).", "The answer is B. Paris"), same_answer("The answer is B.", "Paris")
        (True, False)
        >>> same_answer("The answer is twelve.", "12")
        True
    """
    letters = [_letter(stated) for stated in (one, other)]
    if any(letters):
        return letters[0] == letters[1]
    return _states(one, other) or _states(other, one)


def _letter(stated: str) -> str | None:
    return next((letter for letter in ascii_uppercase if answers_agree(stated, letter)), None)


def _states(stated: str, other: str) -> bool:
    try:
        return answers_agree(stated, _STATEMENT.split(other, maxsplit=1)[-1])
    except MissingAnswerError:  # nothing with a letter or digit in it is stated there
        return False


def deviation(speech: Said, text: Said) -> dict[str, float]:
    """Figures of one pair but the semantic consistency; NaN where one does not exist."""
    steps = [steps_of(each.text) for each in (speech, text)]
    step, token = first_difference(*steps), first_difference(speech.tokens, text.tokens)
    stated = speech.answer is not None and text.answer is not None
    agree = float(speech.answer is not None and text.answer is not None and same_answer(speech.answer, text.answer))
    difference = len(speech.tokens) - len(text.tokens)
    return {
        "answer_agreement": agree,
        "answer_agreement_stated": agree if stated else np.nan,
        "speech_answered": float(speech.answer is not None),
        "text_answered": float(text.answer is not None),
        "shared_steps": _share(step, max(map(len, steps))),
        "shared_tokens": _share(token, max(len(speech.tokens), len(text.tokens))),
        "first_diverging_step": np.nan if step is None else step,
        "first_diverging_token": np.nan if token is None else token,
        "diverged": float(token is not None),
        "length_difference": difference,
        "length_distance": abs(difference),
    }


def _share(index: int | None, longest: int) -> float:
    if longest == 0:
        return np.nan  # neither reasons at all
    return 1.0 if index is None else index / longest


def mean_of_pairs(pairs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over the pairs of a question that have it."""
    means = {}
    for name in pairs[0]:
        there = [pair[name] for pair in pairs if not np.isnan(pair[name])]
        means[name] = float(np.mean(there)) if there else np.nan
    return means
