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

To both, "The correct answer is", "The answer's" or "Final answer:" after "The answer is" is a second answer.

Multiple-choice: where the right answer is a single letter, the completion has to state that letter ("B", "(B)", "B.
Paris", "option b") and name no other option in its answer block. "A or B", "A/B" and "A, B, C, D" are wrong whatever
the right answer is. See `choices.py`.

Free text: both sides are normalised (see `normalize_answer`) and must then be equal. An explanation may follow if each
of its sentences opens with a word that points back to the answer ("Paris. It is the capital."); anything else that
follows ("Paris. London", "5. 6. 7") is another answer.
"""

from __future__ import annotations

import re
import unicodedata

from tars_rewards.choices import chosen_letter
from tars_rewards.errors import MissingAnswerError

_TAG = re.compile(r"<\s*(?:(/)\s*)?(think|answer)\b[^<>]*>", re.IGNORECASE)
_BLOCK = re.compile(r"\s*<think>.*</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_STATEMENT = re.compile(r"\bthe\s+answer\s+is\b", re.IGNORECASE)
# Every other way to state an answer, among them the one above. "This answer is" speaks of the one already given.
_ANY_STATEMENT = re.compile(r"(?<!\bthis )(?<!\bthat )\banswer(?:\s+is\b|['’]s\b|\s*[:=])", re.IGNORECASE)

_GOLD_LETTER = re.compile(r"\s*(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:]?)\s*")
_HEDGE = re.compile(
    r"\b(?:or|either|maybe|perhaps|possibly|alternatively|(?:could|might|may)\s+(?:also\s+)?be)\b", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s|\n")
_POINTS_BACK = re.compile(
    r"\W*(?:it|its|this|that|these|those|they|he|she|which|where|because|since|given)\b", re.IGNORECASE
)

# fmt: off
_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on
_NUMBER_WORDS = {word: number for number, word in enumerate(_SMALL)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
_DASH = re.compile("[−–‒‐]")  # minus, en and figure dash, hyphen; the long dash only separates
# What may stand before a minus that is a sign, the minus, and what may stand between it and its number.
_SIGN = re.compile(r"((?:^|[^\w\s)\]}%])\s*)-[^\w\s.,+#-]*\s*(?=\d)")
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")


def has_format(completion: str) -> bool:
    """Whether a completion is exactly one `<think>…</think><answer>…The answer is X…</answer>` block.

    Example:
        >>> has_format("<think>2 + 2</think> <answer>The answer is 4.</answer>")
        True
        >>> has_format("<think>2 + 2</think><answer>The answer is 4.</answer> Or 5?")
        False
    """
    if [match[0] for match in _TAG.finditer(completion)] != ["<think>", "</think>", "<answer>", "</answer>"]:
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
    tags = list(_TAG.finditer(completion))
    names = [tag[0] for tag in tags]
    if sum(tag[2].lower() == "answer" for tag in tags) != 2 or "<answer>" not in names:
        return None
    opening = names.index("<answer>")
    if names[opening + 1 : opening + 2] != ["</answer>"]:
        return None
    depth = 0
    for tag in tags[:opening]:
        depth = max(0, depth - 1) if tag[1] else depth + 1
    if depth:  # still reasoning
        return None
    answer = completion[tags[opening].end() : tags[opening + 1].start()].strip()
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
        return chosen_letter(before, after) == (letter[1] or letter[2]).upper()
    if _HEDGE.search(before) is not None:
        return False
    if normalize_answer(after) == gold:
        return True
    first, *others = [sentence for sentence in _SENTENCE_END.split(after.strip()) if sentence.strip()] or [""]
    return normalize_answer(first) == gold and all(map(_explains, others))


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

    Unicode is made compatible (NFKC) and lower case; LaTeX's boxes and apostrophes go, other punctuation becomes a
    space, except a decimal point, a sign before a number, `+` and `#`; articles (a, an, the) go unless nothing else is
    left; numbers lose thousands separators, leading zeros and trailing decimal zeros, and ".5" is 0.5; the number words
    from zero to ninety-nine become digits. A minus is a sign where no word, number or bracket ends before it, also
    across a currency's symbol: "(-3)", "- 3", "-$3", but "3 - 4" is two numbers. Units and percent signs are not
    interpreted: "12 %" equals "12", and "1/2" is not "0.5".

    Example:
        >>> normalize_answer("The  Eiffel-Tower!")
        'eiffel tower'
        >>> normalize_answer("Forty-two"), normalize_answer("1,200.50"), normalize_answer("-$.50")
        ('42', '1200.5', '-0.5')
    """
    text = _DASH.sub("-", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"\d", lambda match: str(unicodedata.digit(match[0])), text)
    text = re.sub(r"\\(?:boxed|text|mathrm|textbf)\b|['’`]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)
    text = _SIGN.sub(r"\1 -", text)
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
    return len(pieces) == 2 and len(_ANY_STATEMENT.findall(block)) == 1 and re.search(r"[^\W_]", pieces[1]) is not None


def _explains(sentence: str) -> bool:
    """Whether a sentence behind the answer speaks of it, instead of giving another one."""
    return _POINTS_BACK.match(sentence) is not None and _HEDGE.search(sentence) is None


def _split_statement(stated: str) -> tuple[str, str]:
    match = _STATEMENT.search(stated)
    return (stated[: match.start()], stated[match.end() :]) if match else ("", stated)
