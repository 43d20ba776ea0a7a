"""Answers that name two things, in whatever words, earn no accuracy; one answer with an explanation does."""

import pytest

from tars_rewards.answers import answers_agree, extract_answer, has_format, normalize_answer
from tars_rewards.base import base_score

HEDGES = [
    "A or maybe it's B",
    "A or it's b",
    "A or the B",
    "A or just B",
    "A or rather B",
    "A or I guess B",
    "A or B's text",
    "A unless B",
    "A xor B",
    "A and/or B",
    "A, otherwise choose B",
    "A if not then B",
    "A, if not B",
    "A, why not B",
    "A, select B",
    "A. Choose B",
    "A, guess B",
    "A. Wait, actually B",
    "A then again B",
    "A, as well as B",
    "A, same as B",
    "A, B's right too",
    "A oder B",
    "A.b.c.d",
    "A; b.c.d",
    "A. Vitamin B or C",
    "A 5 B 6 C 7 D 8",
    "A = 1, B = 2",
    "B seems right, but the answer is A",
    # what is offered beside the letter need not be an option's letter
    "A or Paris",
    "A or K",
    "A or Ｂ",
    "A, Ｂ",
    "A, or something else",
    "A or none of the above",
    "A (or Paris)",
    "A... or Paris",
    "A otherwise Paris",
    "A, perhaps Paris",
]


@pytest.mark.parametrize("text", HEDGES)
def test_a_second_option_or_another_answer_beside_the_letter(text: str) -> None:
    stated = text if "answer is" in text else f"The answer is {text}"
    for end in ("", "."):
        assert not answers_agree(stated + end, "A")
        assert not answers_agree(stated + end, "B")


ONE_OPTION = [
    "B, because a cell is larger",
    "B because it is a cell",
    "B, because C is too small",
    "B, since A does not fit",
    "B rather than C",
    "B, not (C)",
    "B. I think so",
    "B. I'd say so",
    "B) Paris",
    "B: Paris",
    "B (Paris)",
    "B - Paris",
    "B. Paris or London",  # may be the option's text
    "B. Maybe",
    "B. Either",
    "B, a cell wall",
    "B) A Cell Wall",
    "B. Vitamin A",
    "B) Vitamin D.",
    "B. Hepatitis C",
    "B. Type A and type B",
    "B. Group A",
    "B. 20 °C",
    "B, 5 degrees C",
    "B. 300 B.C.",
    "B. 5 a.m.",
    "B. Washington, D.C.",
    "B. C major",
    "B, i.e. Paris",
    "B, e.g. Paris",
    "Ｂ",
]


@pytest.mark.parametrize("text", ONE_OPTION)
def test_one_option_with_its_text_or_a_reason(text: str) -> None:
    assert answers_agree(f"The answer is {text}", "B")
    assert not answers_agree(f"The answer is {text}", "A")
    assert not answers_agree(f"The answer is {text}", "C")


SECOND_STATEMENTS = [
    "4. The correct answer is 5",
    "4. Final answer: 5",
    "4. The answer's 5",
    "4. The answer’s 5",
    "4. My other answer: 5",
    "4. ANSWER = 5",
]


@pytest.mark.parametrize("text", SECOND_STATEMENTS)
def test_a_second_statement_is_a_second_answer(text: str) -> None:
    for gold, other in (("4", "5"), ("B", "C")):
        said = text.replace("4", gold).replace("5", other)
        completion = f"<think>so</think><answer>The answer is {said}.</answer>"
        assert extract_answer(completion) is None
        assert not has_format(completion)
        for answer in (gold, other):
            assert base_score(completion, answer) == (False, False, 0.0)
            assert not answers_agree(f"The answer is {said}", answer)  # also for other extractors


def test_speaking_of_the_answer_given_is_no_second_one() -> None:
    completion = "<think>so</think><answer>The answer is B. This answer is the only one that fits.</answer>"
    assert base_score(completion, "B") == (True, True, 1.5)


LISTS = [
    ("Paris; London; Rome", "Paris"),
    ("Paris. London.", "Paris"),
    ("Paris\nLondon", "Paris"),
    ("Paris! Rome!", "Paris"),
    ("Paris. No, London", "Paris"),
    ("Paris. Wait, actually London.", "Paris"),
    ("Paris. Could be London", "Paris"),
    ("Paris. It could also be London.", "Paris"),
    ("Paris. It is the capital. London.", "Paris"),
    ("5. 6. 7. 8", "5"),
    ("yes. No", "yes"),
    ("yes. No", "no"),
]


@pytest.mark.parametrize(("text", "gold"), LISTS)
def test_lists_of_answers(text: str, gold: str) -> None:
    assert not answers_agree(f"The answer is {text}", gold)


@pytest.mark.parametrize(
    "text",
    [
        "Paris.\n",
        "Paris. It is the capital.",
        "Paris; this is its name. It lies on the Seine.",
        "Paris! Because it is.",
    ],
)
def test_an_explanation_points_back_to_the_answer(text: str) -> None:
    assert answers_agree(f"The answer is {text}", "Paris")


@pytest.mark.parametrize(
    "text",
    ["$-3$", "(-3)", "**-3**", ":-3", ": -3", "- 3", "-$3", "$-3.00", "–3", "−3", "\\boxed{-3}", "x = -3", "£-3"],
)
def test_a_minus_is_never_lost(text: str) -> None:
    gold = "x = -3" if "x" in text and "box" not in text else "-3"
    assert answers_agree(f"The answer is {text}", gold)
    assert not answers_agree(f"The answer is {text}", gold.replace("-", ""))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (".5", "0.5"),
        ("$.5", "0.5"),
        ("-.5", "-0.5"),
        ("\\boxed{12}", "12"),
        ("$\\text{Paris}$", "paris"),
        ("3 - 4", "3 4"),
        ("3–4", "3 4"),
        ("(3)-4", "3 4"),
        ("Answer — 3", "answer 3"),
        ("1/-2", "1 -2"),
        ("covid-19", "covid 19"),
        ("version 1.5", "version 1.5"),
        ("and so on...5", "and so on 5"),
    ],
)
def test_numbers(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal
    assert normalize_answer(normal) == normal


STILL_REASONING = [
    ("<THINK><answer>The answer is B.</answer></THINK>", False),
    ("<Think>so<answer>The answer is B.</answer></Think>", False),
    ("</think><think><answer>The answer is B.</answer>", False),
    ("<think>a</think><think>b<answer>The answer is B.</answer></think>", False),
    ("<think>a<think>b</think><answer>The answer is B.</answer></think>", False),
    ("<THINK>so</THINK><answer>The answer is B.</answer>", True),
    ("so</think><answer>The answer is B.</answer>", True),  # the opening tag may be part of the prompt
]


@pytest.mark.parametrize(("completion", "said"), STILL_REASONING)
def test_an_answer_inside_the_reasoning_is_none(completion: str, said: bool) -> None:
    assert base_score(completion, "B") == (said, False, float(said))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["not ", "because ", "vitamin ", "20 ", "B.", "-(", "- ", "-", "(", "\\boxed", "answer ", "it. ", "'s", ".5"],
)
@pytest.mark.parametrize(
    "before", ["<answer>The answer is ", "<answer>The answer is A ", "<answer>The answer is Paris. "]
)
def test_long_texts_take_no_longer_than_their_length(before: str, piece: str) -> None:
    text = before + piece * (60_000 // len(piece))
    stated = extract_answer(text + "</answer>")
    for gold in ("A", "B", "Paris"):
        answers_agree(stated or text, gold)
