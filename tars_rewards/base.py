"""The base reward: what a completion earns by itself, whatever its modality.

`R_base = R_acc + format_weight * R_fmt`, with both terms 0 or 1 and a weight of 0.5 (arXiv 2601.05543, section 4.2).
"""

from __future__ import annotations

from tars_rewards.answers import answers_agree, check_answer, extract_answer, has_format
from tars_rewards.protocol import AnswerExtractor, BaseScore


def base_score(
    completion: str,
    answer: str | None,
    *,
    format_weight: float = 0.5,
    truncated: bool = False,
    correct: bool | None = None,
    extract: AnswerExtractor = extract_answer,
) -> BaseScore:
    """Accuracy, format and base reward of one completion.

    Args:
        completion: The generated text, without the prompt.
        answer: The right answer, a letter or free text; not needed where `correct` is given.
        format_weight: Weight of the format, at least 0.
        truncated: Generation stopped at the length limit. The format is then 0 whatever the text looks like;
            accuracy is judged on the text as it is.
        correct: A verdict that replaces the comparison with `answer`.
        extract: How the answer is found. A failure of the extractor is raised, never scored as a wrong answer.

    Returns:
        `correct`, `format`, and `reward` in [0, 1 + format_weight].

    Raises:
        MissingAnswerError: Neither `correct` nor a usable `answer` says what is right.

    Example:
        >>> base_score("<think>9 > 4</think><answer>The answer is B.</answer>", "B")
        BaseScore(correct=True, format=True, reward=1.5)
        >>> base_score("<answer>The answer is B.</answer>", "B")
        BaseScore(correct=True, format=False, reward=1.0)
    """
    if correct is None:
        check_answer(answer)  # also where the completion states none: bad data must not look like wrong answers
        stated = extract(completion)
        correct = stated is not None and answer is not None and answers_agree(stated, answer)
    formatted = not truncated and has_format(completion)
    return BaseScore(bool(correct), formatted, float(correct) + format_weight * formatted)
