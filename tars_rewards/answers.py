"""Reading the answer out of a completion, and judging it.

The one form a completion may have (arXiv 2601.05543, section 4.2, the format reward) is::

    <think> … </think><answer> … The answer is X … </answer>

Format and accuracy are separate terms and are judged separately:

* **Format** wants exactly this block: each of the four tags once, in this order, nothing but whitespace outside them,
  and one "The answer is" (any case) inside the answer. The reasoning may be empty: the published reward does not demand
  any.
* **Accuracy** wants exactly one answer block, outside the reasoning, which states exactly one answer. It does not want
  the rest of the format: a right answer after a missing `<think>` is right, and badly formatted. What stands outside
  the answer block is never read as an answer.

Multiple-choice: where the right answer is a single letter, the completion has to state that letter ("B", "(B)", "B.
Paris", "option b") and name no other option in its answer block. "A or B", "A/B" and "A, B, C, D" are wrong whatever
the right answer is.

Free text: both sides are normalised (see `normalize_answer`) and must then be equal.
"""

from __future__ import annotations

import re
import unicodedata

from tars_rewards.errors import MissingAnswerError

_TAG = re.compile(r"<\s*(?:/\s*)?(?:think|answer)\b[^<>]*>", re.IGNORECASE)
_BLOCK = re.compile(r"\s*<think>.*</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_STATEMENT = re.compile(r"\bthe\s+answer\s+is\b", re.IGNORECASE)

_MARKUP = re.compile(r"\\(?:boxed|text|mathrm|textbf)\b|[$*_`\"'“”‘’{}]")
_GOLD_LETTER = re.compile(r"\s*(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:]?)\s*")
# A capital stands by itself or before its option's text; a small letter could be an article, so it must end a phrase.
_CHOICE = re.compile(
    r"\s*(?::\s*)?(?:(?i:option|choice|letter)\s+)?"
    r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])(?=[.,:;)!?\s]|$)|([a-z])(?=\s*(?:[.,:;)!?\n]|$)))"
)
_OPTION = re.compile(r"(?:\b([^\W\d_]{2,})\s+[(\[]?)?(?:\b([A-J])\b|(?<![\w.])([a-j])(?!\w|\.\w))")
_NEXT_WORD = re.compile(r"\s+([a-z]{2,})")
# After these words a letter names an option ("or C", "maybe C"); after any other word it is part of a name
# ("vitamin C") or plainly not the answer ("not C").
# fmt: off
_BEFORE_OPTION = frozenset([
    "or", "and", "nor", "but", "though", "although", "however", "maybe", "perhaps", "possibly", "probably", "likely",
    "either", "neither", "both", "also", "alternatively", "else", "otherwise", "then", "next", "plus", "with",
    "versus", "vs", "to", "through", "is", "be", "are", "option", "options", "choice", "choices", "letter", "letters",
    "answer", "answers", "even", "might", "could", "may", "still",
])
_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly|alternatively)\b", re.IGNORECASE)

_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on
_NUMBER_WORDS = {word: number for number, word in enumerate(_SMALL)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")


def has_format(completion: str) -> bool:
    """Whether a completion is exactly one `<think>…</think><answer>…The answer is X…</answer>` block.

    Example:
        >>> has_format("<think>2 + 2</think> <answer>The answer is 4.</answer>")
        True
        >>> has_format("<think>2 + 2</think><answer>The answer is 4.</answer> Or 5?")
        False
    """
    if _TAG.findall(completion) != ["<think>", "</think>", "<answer>", "</answer>"]:
        return False
    block = _BLOCK.fullmatch(completion)
    return block is not None and _states_one_answer(block[1])


def extract_answer(completion: str) -> str | None:
    """Text of the one answer block of a completion; None where there is no such block or it does not state one answer.

    Tags inside the block, a second block, a block within the reasoning, and a second "The answer is" all give None.

    Example:
        >>> extract_answer("<think>2 + 2</think><answer>The answer is 4.</answer>")
        'The answer is 4.'
        >>> extract_answer("The answer is 4.") is None
        True
    """
    tags = [(match[0], match.start(), match.end()) for match in _TAG.finditer(completion)]
    names = [tag for tag, _, _ in tags]
    if sum("answer" in name.lower() for name in names) != 2 or "<answer>" not in names:
        return None
    opening = names.index("<answer>")
    if names[opening + 1 : opening + 2] != ["</answer>"]:
        return None
    before = names[:opening]
    if before.count("<think>") != before.count("</think>"):  # still reasoning
        return None
    answer = completion[tags[opening][2] : tags[opening + 1][1]].strip()
    return answer if _states_one_answer(answer) else None


def strip_tags(completion: str) -> str:
    """Text of a completion without its think and answer tags.

    Example:
        >>> strip_tags("<think>2 + 2</think><answer>The answer is 4.</answer>")
        '2 + 2  The answer is 4.'
    """
    return _TAG.sub(" ", completion).strip()


def answers_agree(stated: str, answer: str) -> bool:
    """Whether a stated answer is the right one.

    Args:
        stated: What was extracted: "The answer is B.", or only "B".
        answer: The right answer. A single letter (also "(B)" or "B.") is an option, anything else is free text.

    Raises:
        MissingAnswerError: The right answer holds no letter and no digit.

    Example:
        >>> answers_agree("The answer is (B).", "B")
        True
        >>> answers_agree("The answer is A or B.", "A")
        False
        >>> answers_agree("The answer is twelve apples.", "12 apples")
        True
    """
    gold = check_answer(answer)
    before, after = _split_statement(stated)
    letter = _GOLD_LETTER.fullmatch(answer)
    if letter is not None:
        return _chosen_letter(before, after) == (letter[1] or letter[2]).upper()
    if normalize_answer(after) == gold:
        return _HEDGE.search(before) is None
    sentence = re.split(r"(?<=[.!?;])\s|\n", after.strip(), maxsplit=1)
    if normalize_answer(sentence[0]) != gold:
        return False
    return _HEDGE.search(" ".join([before, *sentence[1:]])) is None


def check_answer(answer: str | None) -> str:
    """Return the right answer, normalised.

    Raises:
        MissingAnswerError: It is no text, or holds no letter and no digit, so that nothing could be compared with it.
    """
    normal = normalize_answer(answer) if isinstance(answer, str) else ""
    if not normal:
        raise MissingAnswerError(
            f"expected a right answer (a letter, or text with a letter or a digit in it), got {answer!r}; give the "
            "rollout's `answer` as str, or judge the completion yourself and give `correct`"
        )
    return normal


def normalize_answer(text: str) -> str:
    """Free text in the form in which answers are compared.

    Unicode is made compatible (NFKC) and lower case; apostrophes go, other punctuation becomes a space, except a
    decimal point, a sign before a number, `+` and `#`; articles (a, an, the) go unless nothing else is left; numbers
    lose thousands separators, leading zeros and trailing decimal zeros; the number words from zero to ninety-nine
    become digits. Units and percent signs are not interpreted: "12 %" equals "12", and "1/2" is not "0.5".

    Example:
        >>> normalize_answer("The  Eiffel-Tower!")
        'eiffel tower'
        >>> normalize_answer("Forty-two"), normalize_answer("1,200.50"), normalize_answer("-3")
        ('42', '1200.5', '-3')
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-")
    text = re.sub(r"\d", lambda match: str(unicodedata.digit(match[0])), text)
    text = re.sub(r"['’`]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|(?<!\s)(?<!^)-|-(?!\d)|[^\w\s.+#-]|_", " ", text)
    tokens = text.split()
    words = [token for token in tokens if token not in ("a", "an", "the")] or tokens
    numbered: list[str] = []
    for word in words:
        if word in _SMALL[1:10] and numbered and numbered[-1] in _TENS:
            numbered[-1] = str(_NUMBER_WORDS[numbered[-1]] + _NUMBER_WORDS[word])
        else:
            numbered.append(word)
    return " ".join(_canonical_number(word) for word in numbered)


def _canonical_number(word: str) -> str:
    if word in _NUMBER_WORDS:
        return str(_NUMBER_WORDS[word])
    number = _NUMBER.fullmatch(word)
    if number is None:
        return word
    sign, whole, decimals = number[1], number[2].lstrip("0") or "0", (number[3] or "").rstrip("0")
    value = f"{whole}.{decimals}" if decimals else whole
    return f"-{value}" if sign == "-" and value != "0" else value


def _states_one_answer(block: str) -> bool:
    pieces = _STATEMENT.split(block)
    return len(pieces) == 2 and re.search(r"[^\W_]", pieces[1]) is not None


def _split_statement(stated: str) -> tuple[str, str]:
    match = _STATEMENT.search(stated)
    return (stated[: match.start()], stated[match.end() :]) if match else ("", stated)


def _chosen_letter(before: str, after: str) -> str | None:
    """Return the one option that is named, in upper case; None where none or several are."""
    before, after = _MARKUP.sub("", before), _MARKUP.sub("", after)
    choice = _CHOICE.match(after)
    if choice is None:
        return None
    letter = next(group for group in choice.groups() if group).upper()
    rest = after[choice.end() :]
    return None if _names_other_option(before, letter) or _names_other_option(rest, letter) else letter


def _names_other_option(text: str, chosen: str) -> bool:
    for match in _OPTION.finditer(text):
        word, capital, small = match.groups()
        letter = capital or small
        if letter.upper() == chosen or (word and word.lower() not in _BEFORE_OPTION):
            continue
        following = _NEXT_WORD.match(text, match.end())
        is_word = small is not None or capital in ("A", "I")  # "a cell", "I think"
        if is_word and following and following[1] not in _BEFORE_OPTION:
            continue
        return True
    return False
