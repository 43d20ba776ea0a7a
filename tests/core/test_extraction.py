"""Extractors by name, in the reward, and VoiceBench's phrases."""

import pickle
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from tars_rewards import Rollout, TARSConfig, TARSReward
from tars_rewards.config import ANSWER_EXTRACTORS
from tars_rewards.errors import ConfigError, ExtractionError
from tars_rewards.extraction import answer_extractor, extract_answers
from tars_rewards.extraction.voicebench import voicebench_letter

PLAIN = "I would choose option B."  # nothing to the strict extractor


def base_only(**settings: object) -> TARSConfig:
    return TARSConfig(alpha=0, beta=0, **settings)


def broken(completion: str) -> str | None:
    raise ConnectionError("extractor is down")


class Batched:
    """Remembers its calls; answers with the last letter of a text."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, completion: str) -> str | None:
        return completion[-1]

    def batch(self, completions: Sequence[str]) -> list[str | None]:
        self.calls.append(list(completions))
        return [self(completion) for completion in completions]


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="unknown answer extractor 'regex'; known are tags, voicebench, xfinder"):
        answer_extractor("regex")


def test_the_default_is_the_strict_block(tools: SimpleNamespace) -> None:
    assert TARSConfig().answer_extractor == ANSWER_EXTRACTORS[0] == "tags"
    reward = TARSReward(base_only())
    assert reward.base(PLAIN, "B") == (False, False, 0.0)
    assert reward.base(tools.block("B"), "B") == (True, True, 1.5)


def test_the_reward_judges_accuracy_by_the_extractor_and_format_strictly(tools: SimpleNamespace) -> None:
    reward = TARSReward(base_only(answer_extractor="voicebench"))
    rollouts = [
        Rollout("q", "speech", completion=completion, answer="B")
        for completion in (PLAIN, tools.block("B"), tools.block("C"), "no idea")
    ]
    for again in (reward, pickle.loads(pickle.dumps(reward))):
        result = again(rollouts)
        assert result.components["accuracy"].tolist() == [1.0, 1.0, 0.0, 0.0]
        assert result.components["format"].tolist() == [0.0, 1.0, 1.0, 0.0]
        assert [again.base(item.completion, "B").reward for item in rollouts] == result.total.tolist()


def test_a_failure_is_raised_and_not_scored_as_wrong(tools: SimpleNamespace) -> None:
    reward = TARSReward(base_only(), extract=broken)
    with pytest.raises(ConnectionError, match="extractor is down"):
        reward.base(tools.block("B"), "B")
    with pytest.raises(ConnectionError, match="extractor is down"):
        reward(tools.make_batch(0))


def test_what_is_judged_already_is_not_read(tools: SimpleNamespace) -> None:
    scored = TARSReward(base_only()).base(tools.block("B"), "B")
    rollouts = [Rollout("q", "speech", base=scored), Rollout("q", "text", completion=PLAIN, correct=True)]
    assert TARSReward(base_only(), extract=broken)(rollouts).total.tolist() == [1.5, 1.0]


def test_a_batch_is_read_in_one_call_and_each_text_once() -> None:
    extract = Batched()
    rollouts = [Rollout("q", "speech", completion=text, answer="B") for text in ("so B", "or C", "so B")]
    assert TARSReward(base_only(), extract=extract)(rollouts).total.tolist() == [1.0, 0.0, 1.0]
    assert extract.calls == [["so B", "or C"]]
    assert extract_answers(extract, []) == {}


def test_answers_that_got_lost_are_an_error() -> None:
    extract = Batched()
    extract.batch = lambda completions: ["B"]  # type: ignore[method-assign]
    with pytest.raises(ExtractionError, match="expected 2 answers, one a completion, got 1"):
        extract_answers(extract, ["so B", "or C"])


# What the scorer's list of phrases gives; None: where it would draw a letter.
VOICEBENCH = [
    ("The answer is B.", "B"),
    ("THE ANSWER IS D", "D"),
    ("<1> c", "C"),
    ("c", "C"),
    ("b) Paris", "B"),
    ("d: it rains", "D"),
    ("So: (C)", "C"),
    ('The label says "B"', "B"),
    ("is \\( \\boxed{\\text{D}} \\)", "D"),
    ("hence:\n\nB. Venus", "B"),
    ("答案是C", "C"),
    ("正确的是B：金星", "B"),
    ("D是正确的", "D"),
    ("it would be:\n\nC", "C"),
    # the order of the phrases decides, not of the text
    ("Not B. I would choose C", "C"),
    ("final answer: D. The answer is B", "D"),
    ("The answer is B. Or is it (C)?", "B"),
    # and for one phrase the letter "a" comes first
    ("The answer is B. The answer is A.", "A"),
    ("The answer is a function of time. The answer is D.", "A"),
    ("This would be a mistake. D is right", "A"),
    ("The answer is because of friction D", "B"),
    ("A. Mercury B. Venus C. Earth, so the third", "B"),
    # unparsed
    ("", None),
    ("I cannot tell", None),
    ("e", None),
    ("The answer is E", None),
    ("It is Paris", None),
    ("b", "B"),
    ("b\n", None),
    ("**A**", None),
]


@pytest.mark.parametrize(("completion", "letter"), VOICEBENCH)
def test_voicebench(completion: str, letter: str | None) -> None:
    assert voicebench_letter(completion) == letter
