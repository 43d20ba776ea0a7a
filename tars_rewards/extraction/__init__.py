"""The ways to find the answer in a completion, by name: the setting `answer_extractor`.

==============  ====================================================================================================
`tags`          The one `<answer>` block, strictly (`answers.extract_answer`). The default, and the method's format.
`voicebench`    The letter that VoiceBench's scorer would read, with its errors (`extraction.voicebench`).
`xfinder`       The answer that the xFinder model reads (`extraction.xfinder`); needs the extra `xfinder`.
==============  ====================================================================================================

They decide accuracy alone; the format is always the strict block. `docs/answer_extraction.md` compares them. Anything
else that follows `protocol.AnswerExtractor` can be given to `TARSReward` instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from tars_rewards.config import ANSWER_EXTRACTORS
from tars_rewards.errors import ConfigError, ExtractionError
from tars_rewards.protocol import AnswerExtractor


def answer_extractor(name: str) -> AnswerExtractor:
    """Return the extractor of a name.

    Raises:
        ConfigError: There is none of this name.
        MissingDependencyError: `xfinder`, and its package is not installed.

    Example:
        >>> answer_extractor("voicebench")("Clearly, the answer is (B).")
        'B'
        >>> answer_extractor("tags")("Clearly, the answer is (B).") is None
        True
    """
    if name == "tags":
        from tars_rewards.answers import extract_answer

        return extract_answer
    if name == "voicebench":
        from tars_rewards.extraction.voicebench import voicebench_letter

        return voicebench_letter
    if name == "xfinder":
        from tars_rewards.extraction.xfinder import XFinder

        return XFinder()
    raise ConfigError(f"unknown answer extractor {name!r}; known are {', '.join(ANSWER_EXTRACTORS)}")


def extract_answers(extract: AnswerExtractor, completions: Sequence[str]) -> dict[str, str | None]:
    """Find the answer of each distinct completion: in one call where the extractor has a `batch`.

    Raises:
        ExtractionError: The extractor's `batch` returned another number of answers than it was given completions.
    """
    distinct = list(dict.fromkeys(completions))
    batch = getattr(extract, "batch", None)
    if batch is None:
        return {completion: extract(completion) for completion in distinct}
    answers = list(batch(distinct)) if distinct else []
    if len(answers) != len(distinct):
        raise ExtractionError(
            f"expected {len(distinct)} answers, one a completion, got {len(answers)} from {extract!r}"
        )
    return dict(zip(distinct, answers, strict=True))
