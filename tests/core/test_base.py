import pytest

from tars_rewards.base import base_score
from tars_rewards.errors import MissingAnswerError

RIGHT = "<think>so</think><answer>The answer is B.</answer>"

# Ways to be paid without earning it: completion, truncated, (correct, format). The right answer is B.
HACKS = [
    (RIGHT, False, (True, True)),  # the honest one
    ("<think>so</think><answer>The answer is A, B, C, D.</answer>", False, (False, True)),
    ("<think>so</think><answer>The answer is B or C.</answer>", False, (False, True)),
    ("<think>so</think><answer>The answer is A.</answer><answer>The answer is B.</answer>", False, (False, False)),
    ("<think>so</think><answer>The answer is A. The answer is B.</answer>", False, (False, False)),
    ("The answer is A. The answer is B. The answer is C.", False, (False, False)),
    ("<think><answer>The answer is B.</answer></think><answer>The answer is C.</answer>", False, (False, False)),
    ("<think></think>" * 50 + "<answer>The answer is B.</answer>", False, (True, False)),
    ("<answer>The answer is B.</answer>" * 50, False, (False, False)),
    (RIGHT + " or was it C?", False, (True, False)),
    (RIGHT, True, (True, False)),  # never finished: the format is not paid
    ("<think>so", True, (False, False)),
    ("<think>The answer is B.", True, (False, False)),
    ("", False, (False, False)),
    ("   \n", False, (False, False)),
    ("B", False, (False, False)),
    ("BBBBBBBB", False, (False, False)),
    ("<think>B</think><answer>B</answer>", False, (False, False)),
    ("<think>so</think><answer>The answer is The answer is B.</answer>", False, (False, False)),
]


@pytest.mark.parametrize(("completion", "truncated", "expected"), HACKS)
def test_reward_hacking(completion: str, truncated: bool, expected: tuple[bool, bool]) -> None:
    score = base_score(completion, "B", truncated=truncated)
    assert (score.correct, score.format) == expected
    assert score.reward == expected[0] + 0.5 * expected[1]


def test_format_weight() -> None:
    assert base_score(RIGHT, "B", format_weight=0.2).reward == pytest.approx(1.2)
    assert base_score(RIGHT, "C", format_weight=0.2).reward == pytest.approx(0.2)


def test_a_verdict_replaces_the_comparison() -> None:
    assert base_score("no tags at all", None, correct=True) == (True, False, 1.0)
    assert base_score(RIGHT, "B", correct=False) == (False, True, 0.5)


@pytest.mark.parametrize("answer", [None, "", " ?", 12])
@pytest.mark.parametrize("completion", [RIGHT, "no answer here"])
def test_neither_usable_answer_nor_verdict(answer: object, completion: str) -> None:
    with pytest.raises(MissingAnswerError, match=r"got .*; give the rollout's `answer`"):
        base_score(completion, answer)


def test_extractor_failure_is_an_error_not_a_wrong_answer() -> None:
    def broken(completion: str) -> str | None:
        raise ConnectionError("extractor is down")

    with pytest.raises(ConnectionError, match="extractor is down"):
        base_score(RIGHT, "B", extract=broken)


def test_another_extractor() -> None:
    assert base_score("I say B!", "B", extract=lambda completion: "B").correct
