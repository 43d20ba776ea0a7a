"""What two completions have in common: tables of cases."""

import doctest

import numpy as np
import pytest

from tars_rewards.drift import behavior
from tars_rewards.drift.behavior import Said, deviation, first_difference, mean_of_pairs, same_answer, steps_of


@pytest.mark.parametrize(
    ("completion", "steps"),
    [
        ("<think>One. Two\nThree; four! Five? six</think><answer>A. B</answer>", "one.|two|three;|four!|five?|six"),
        ("<think>3.5 is more than 3.</think>", "3.5 is more than 3."),  # a decimal point ends nothing
        ("<THINK > One </ think>", "one"),
        ("<think>cut off in the mid", "cut off in the mid"),  # never closed
        ("the template opened it. so</think><answer>A</answer>", "the template opened it.|so"),  # never opened
        ("no tags. at all", "no tags.|at all"),
        ("<think> \n </think><answer>One.</answer>", ""),  # no reasoning
        ("", ""),
    ],
)
def test_steps(completion, steps):
    assert steps_of(completion) == [step for step in steps.split("|") if step]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([], [], None), ([], [1], 0), ([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1, 2, 3], [1, 2], 2), ([5], [6], 0)],
)
def test_first_difference(one, other, expected):
    assert first_difference(one, other) == expected
    assert first_difference(other, one) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The answer is B.", "The answer is (b).", True),
        ("The answer is B.", "B", True),  # as VoiceBench's extractor reads it
        ("The answer is B.", "The answer is C.", False),
        ("The answer is B.", "The answer is Paris.", False),
        ("The answer is B. Paris", "The answer is C. Paris", False),  # the same words, another option
        ("The answer is 12.", "The answer is twelve.", True),
        ("The answer is Paris.", "The answer is Paris. It is the capital.", True),
        ("The answer is Paris.", "The answer is London.", False),
        ("The answer is B or C.", "The answer is B.", False),
        ("The answer is …", "The answer is …", False),  # nothing is stated
    ],
)
def test_same_answer(one, other, same):
    assert same_answer(one, other) == same
    assert same_answer(other, one) == same


def said(text, tokens, answer):
    return Said(text, tuple(tokens), answer)


def test_deviation_of_a_completion_from_itself():
    one = said("<think>a. b.</think>", [1, 2, 3], "B")
    found = deviation(one, one)
    assert found.pop("first_diverging_step") is not None
    assert np.isnan(found.pop("first_diverging_token"))
    assert found == {
        "answer_agreement": 1,
        "answer_agreement_stated": 1,
        "speech_answered": 1,
        "text_answered": 1,
        "shared_steps": 1,
        "shared_tokens": 1,
        "diverged": 0,
        "length_difference": 0,
        "length_distance": 0,
    }


def test_deviation_is_of_speech_from_text():
    speech = said("<think>a. b. x. y.</think>", [1, 2, 9, 9, 9], "B")
    text = said("<think>a. b. c.</think>", [1, 2, 3], None)
    found = deviation(speech, text)
    assert found["length_difference"] == 2
    assert deviation(text, speech)["length_difference"] == -2
    assert found["length_distance"] == deviation(text, speech)["length_distance"] == 2
    assert (found["first_diverging_step"], found["shared_steps"]) == (2, 0.5)
    assert (found["first_diverging_token"], found["shared_tokens"]) == (2, 0.4)
    assert (found["speech_answered"], found["text_answered"], found["answer_agreement"]) == (1, 0, 0)
    assert np.isnan(found["answer_agreement_stated"])  # one states none: no disagreement about what is stated
    assert found["diverged"] == 1


def test_other_words_after_the_same_reasoning_diverge_in_tokens_alone():
    found = deviation(said("<think>a.</think>B", [1, 2], "B"), said("<think>a.</think>C", [1, 3], "C"))
    assert np.isnan(found["first_diverging_step"])
    assert found["shared_steps"] == 1
    assert found["first_diverging_token"] == 1
    assert found["answer_agreement_stated"] == 0


def test_no_reasoning_on_either_side_shares_nothing_to_speak_of():
    assert np.isnan(deviation(said("<think></think>B", [1], "B"), said("<think></think>C", [2], "C"))["shared_steps"])


def test_means_leave_out_what_does_not_exist():
    assert mean_of_pairs([{"a": 1.0, "b": np.nan}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
    assert np.isnan(mean_of_pairs([{"a": np.nan}])["a"])


def test_docstring_examples():
    result = doctest.testmod(behavior)
    assert (result.failed, result.attempted) == (0, 4)
