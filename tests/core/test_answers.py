import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tars_rewards.answers import answers_agree, extract_answer, has_format, normalize_answer, strip_tags
from tars_rewards.errors import MissingAnswerError

FORMAT = [
    # the one form, and what is tolerated around it
    ("<think>so</think><answer>The answer is B.</answer>", True),
    ("  <think>\nso\n</think>\n\n<answer>\nThe answer is B.\n</answer>\n", True),
    ("<think></think><answer>The answer is B.</answer>", True),  # the published reward demands no reasoning
    ("<think>2 < 3 and <b>bold</b></think><answer>the ANSWER is 12 apples</answer>", True),
    ("<think>The answer is C? no</think><answer>So: the answer is B, Paris.</answer>", True),
    # missing parts
    ("", False),
    ("The answer is B.", False),
    ("<answer>The answer is B.</answer>", False),
    ("<think>so</think>The answer is B.", False),
    ("<think>so<answer>The answer is B.</answer>", False),
    ("<think>so</think><answer>The answer is B.", False),
    ("<think>so</think><answer>B</answer>", False),
    ("<think>so</think><answer>The answer is</answer>", False),
    ("<think>so</think><answer>The answer is ...</answer>", False),
    # text outside
    ("Well. <think>so</think><answer>The answer is B.</answer>", False),
    ("<think>so</think> hence <answer>The answer is B.</answer>", False),
    ("<think>so</think><answer>The answer is B.</answer> The answer is C.", False),
    # repeated, nested, swapped
    ("<think>so</think><think>so</think><answer>The answer is B.</answer>", False),
    ("<think>so</think><answer>The answer is A.</answer><answer>The answer is B.</answer>", False),
    ("<think>so</think><answer>The answer is B.</answer>" * 2, False),
    ("<think><think>so</think></think><answer>The answer is B.</answer>", False),
    ("<think>so</think><answer><answer>The answer is B.</answer></answer>", False),
    ("<think>so<answer>The answer is B.</answer></think>", False),
    ("<think>so</think><answer><think>hm</think>The answer is B.</answer>", False),
    ("<answer>The answer is B.</answer><think>so</think>", False),
    ("</think>so<think><answer>The answer is B.</answer>", False),
    # two answers
    ("<think>so</think><answer>The answer is A. The answer is B.</answer>", False),
    # not these tags
    ("<THINK>so</THINK><ANSWER>The answer is B.</ANSWER>", False),
    ("<think>so</think><answer id=1>The answer is B.</answer>", False),
    ("<think>so</think><answer>The answer is B.</answer ><answer>", False),
]


@pytest.mark.parametrize(("completion", "expected"), FORMAT)
def test_format(completion: str, expected: bool) -> None:
    assert has_format(completion) is expected


EXTRACTED = [
    ("<think>so</think><answer> The answer is B. </answer>", "The answer is B."),
    ("<answer>The answer is B.</answer>", "The answer is B."),  # accuracy does not want the whole format
    ("<think>so</think><answer>The answer is B.</answer> and more", "The answer is B."),
    ("<think>a</think><think>b</think><answer>The answer is B.</answer>", "The answer is B."),
    ("The answer is B.", None),  # outside the tags nothing is read
    ("<think>The answer is B.</think>", None),
    ("<think>so <answer>The answer is B.</answer></think>", None),
    ("<think>so <answer>The answer is B.</answer>", None),
    ("<answer>The answer is B.</answer><answer>The answer is C.</answer>", None),
    ("<answer>The answer is B. The answer is C.</answer>", None),
    ("<answer><answer>The answer is B.</answer></answer>", None),
    ("<answer><think>hm</think>The answer is B.</answer>", None),
    ("</answer>The answer is B.<answer>", None),
    ("<answer>B</answer>", None),
    ("<answer>The answer is B.", None),
    ("<answer>The answer is </answer>", None),
]


@pytest.mark.parametrize(("completion", "expected"), EXTRACTED)
def test_extraction(completion: str, expected: str | None) -> None:
    assert extract_answer(completion) == expected


LETTERS = [
    # what follows "The answer is", the right letter, whether it counts
    ("B", "B", True),
    ("B.", "B", True),
    ("(B)", "B", True),
    ("(b)", "B", True),
    ("b.", "B", True),
    ("[B]", "B", True),
    (": B", "B", True),
    ("option B", "B", True),
    ("Option (B).", "B", True),
    ("choice b", "B", True),
    ("**B**", "B", True),
    (r"$\boxed{B}$", "B", True),
    ("B. Paris", "B", True),
    ("B) A cell wall", "B", True),
    ("B: vitamin C", "B", True),
    ("B. Vitamin C.", "B", True),
    ("B, because C is too small", "B", True),
    ("B, not C", "B", True),
    ("B. I am sure", "B", True),
    ("B, i.e. Paris", "B", True),
    ("B", "(B)", True),
    ("B", "b", True),
    ("E", "E", True),
    ("A dog", "A", True),
    ("C", "B", False),
    ("B+", "B", False),
    ("BC", "B", False),
    ("Paris", "B", False),
    ("a dog", "A", False),  # an article, not an option
    ("not B", "B", False),
    # hedges: wrong, whatever the right answer is
    *[
        (text, gold, False)
        for gold in "ABCD"
        for text in (
            "A or B",
            "A or B or C or D",
            "either A or B",
            "A/B",
            "A / B",
            "A, B, C, D",
            "A, B, C or D",
            "A B C D",
            "ABCD",
            "A. B. C. D.",
            "A.B.C.D",
            "A; B",
            "A and B",
            "A & B",
            "A|B",
            "A-D",
            "(A) or (B)",
            "(A)(B)",
            "(a) or (b)",
            "a or b",
            "a, b",
            "A, or b",
            "A, or maybe B",
            "A (or B)",
            "A, but B is possible",
            "A. It could be B",
            "A, possibly B",
            "A, alternatively option B",
            "A\nB",
            "A? B?",
            "B or A maybe",
            "one of A, B, C, D",
            "all of them",
            "**A** or **B**",
        )
    ],
]


@pytest.mark.parametrize(("stated", "gold", "expected"), LETTERS)
def test_letters(stated: str, gold: str, expected: bool) -> None:
    assert answers_agree(f"The answer is {stated}", gold) is expected


def test_letter_before_the_statement_is_a_second_answer() -> None:
    assert not answers_agree("A or B. The answer is A.", "A")
    assert answers_agree("That follows. The answer is A.", "A")


def test_statement_is_optional_for_other_extractors() -> None:
    assert answers_agree("B", "B")
    assert answers_agree("Paris", "paris")


FREE = [
    ("Paris.", "paris", True),
    ("the Eiffel Tower", "Eiffel tower", True),
    ("an  Eiffel-Tower!", "The Eiffel Tower", True),
    ("12", "twelve", True),
    ("twelve apples", "12 apples", True),
    ("forty-two", "42", True),
    ("forty two", "42", True),
    ("ninety", "90", True),
    ("zero", "0", True),
    ("1,200", "1200", True),
    ("12.0", "12", True),
    ("007", "7", True),
    ("0.50", "0.5", True),
    ("-0", "0", True),
    ("3.5", "3.5", True),
    ("$12", "12", True),
    ("12 %", "12", True),
    ("don’t", "dont", True),
    ("１２", "12", True),  # full width
    ("١٢", "12", True),  # Arabic-Indic
    ("St. Louis", "St. Louis", True),
    ("Paris. It is the capital.", "Paris", True),
    ("Paris or London", "Paris or London", True),
    ("3.5", "35", False),
    ("-5", "5", False),
    ("1/2", "12", False),
    ("10:30", "1030", False),
    ("C++", "C#", False),
    ("twenty one hundred", "21", False),
    ("Paris or London", "Paris", False),
    ("Paris. Or maybe London.", "Paris", False),
    ("London", "Paris", False),
    ("not Paris", "Paris", False),
    ("Parisian", "Paris", False),
    ("12345678901234567890123456789012345678", "12345678901234567890123456789012345679", False),
]


@pytest.mark.parametrize(("stated", "gold", "expected"), FREE)
def test_free_text(stated: str, gold: str, expected: bool) -> None:
    assert answers_agree(f"The answer is {stated}", gold) is expected


def test_free_text_hedged_before_the_statement() -> None:
    assert not answers_agree("Paris or London. The answer is Paris.", "Paris")


@pytest.mark.parametrize("gold", ["", "  ", "...", "?!"])
def test_a_right_answer_without_content_is_an_error(gold: str) -> None:
    with pytest.raises(MissingAnswerError, match="letter or a digit"):
        answers_agree("The answer is B", gold)


@pytest.mark.parametrize(("number", "words"), [(0, "zero"), (13, "thirteen"), (20, "twenty"), (99, "ninety-nine")])
def test_number_words(number: int, words: str) -> None:
    assert normalize_answer(words) == str(number)


def test_articles_stay_when_nothing_else_is_there() -> None:
    assert normalize_answer("A") == "a"
    assert normalize_answer("the a") == "the a"


def test_strip_tags() -> None:
    assert strip_tags("<think>so</think><answer>The answer is B.</answer>") == "so  The answer is B."
    assert strip_tags("<think></think>") == ""


@given(st.text(max_size=60))
def test_no_text_crashes_or_passes_both_ways(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)
    has_format(text)
    extract_answer(text)
    answers_agree(text, "B")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["<", "< ", " ", "<think", "</", "The answer is ", "the ", "A ", "a, ", "or ", "x", "\n", ".", "1,", "-", "the\t"],
)
@pytest.mark.parametrize("before", ["", "<answer>The answer is", "<think>", "<"])
def test_long_texts_take_no_longer_than_their_length(before: str, piece: str) -> None:
    """A policy that repeats itself must not stall the run: no pattern may take quadratic time."""
    text = before + piece * (60_000 // len(piece))
    for completion in (text, text + "</answer>"):
        has_format(completion)
        stated = extract_answer(completion)
        for gold in ("B", "Paris"):
            answers_agree(stated or completion, gold)


TAGGED = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "The answer is B.", "so", " "]), max_size=9
)


@given(TAGGED)
def test_format_against_a_grammar(pieces: list[str]) -> None:
    """An independent reading: a small automaton over the pieces instead of regular expressions."""
    text = "".join(pieces)
    state, statements = "start", 0
    steps = {
        ("start", "<think>"): "think",
        ("think", "</think>"): "between",
        ("between", "<answer>"): "answer",
        ("answer", "</answer>"): "end",
    }
    for piece in pieces:
        if piece.startswith("<"):
            state = steps.get((state, piece), "wrong")
        elif piece != " " and state in ("start", "between", "end"):
            state = "wrong"
        elif state == "answer" and piece.startswith("The"):
            statements += 1
    glued = re.search(r"so(?=The answer)", text.split("<answer>")[-1])  # "soThe answer" is no statement
    if not glued:
        assert has_format(text) is (state == "end" and statements == 1)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=30))
def test_the_right_answer_is_right(gold: str) -> None:
    if normalize_answer(gold) and "answer" not in gold.lower():
        assert answers_agree(f"The answer is {gold}", gold)
