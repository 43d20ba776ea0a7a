"""Reading the option that a multiple-choice answer names.

One letter has to be stated, and no other letter may stand by itself in the answer block: "A, select B", "A then again
B", "A.b.c.d" and "A or K" name two options or leave one open, whatever words stand between. The exceptions are few and
listed here, because an unknown phrase must not earn a reward:

* a letter that belongs to a name or a number: "vitamin C", "type A", "20 °C", "300 B.C.", "C major", "i.e.";
* a letter that is turned down ("not C", "rather than C"), or is what a reason is about ("because C is too small");
* the words "a" and "I".

So "B. Vitamin C" names B, while "B. Choose C", or a name of a kind that is not listed, names no one option.
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"\\(?:boxed|text|mathrm|textbf)\b|['’]s\b|[$*_`\"'“”‘’{}]")
# A capital stands by itself or before its option's text; a small letter could be an article, so it must end a phrase.
_CHOICE = re.compile(
    r"\s*(?::\s*)?(?:(?i:option|choice|letter)\s+)?"
    r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])(?=[.,:;)!?\s]|$)|([a-z])(?=\s*(?:[.,:;)!?\n]|$)))"
)
# Right behind the chosen letter these leave another answer open, a letter or not ("A or Paris"). An option's own text
# may be "Maybe", so the doubters count only where no label's punctuation ("C. Maybe") comes first.
_ALTERNATIVE = re.compile(
    r"\W*(?:and/)?(?:or|xor|nor|unless|otherwise|else|alternatively|versus|vs)\b"
    r"|[^\w.:)]*(?:maybe|perhaps|possibly)\b",
    re.IGNORECASE,
)
_NAMED = (
    "vitamin|hepatitis|influenza|coenzyme|immunoglobulin|protein|factor|strain|species|type|group|class|category|grade|"
    "level|phase|schedule|plan|point|line|angle|set|event|figure|region|object|country|company|firm|person"
)
_NO_OPTION = re.compile(
    rf"""
    \b(?: i\.e | e\.g | a\.k\.a | a\.d (?=\.?\s?\d) | washington,?\s d\.c ) \b
    | \b (?:{_NAMED}) s? \s [A-J] \b
    | (?: \d \s? | ° \s? | \b degrees? \s ) [A-J] \b (?: \. [A-Z] \b )* (?! \s? [=:\d] )
    | \b [A-G] [\s-] (?: major | minor | sharp | flat ) \b
    | \b (?: (?<! \b if \s ) (?<! \b why \s ) not | than | unlike | instead \s of ) \s [(\[]? [A-J] \b
    | \b (?: because | since | (?<! \b well \s ) as ) \s [A-J] (?= \s [a-z]{{2,}} )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LETTER = re.compile(r"(?<!\w)[A-Ja-j](?!\w)")
# Before these, "a" and "I" are options: "a or b", "A is possible too".
_VERDICT = (
    "or|and|nor|but|is|are|was|be|could|might|may|would|seems|fits|works|too|also|then|maybe|perhaps|possibly|probably|"
    "likely|either|even|still|to|through|versus|vs|with|plus"
)
_WORD_FOLLOWS = re.compile(rf" (?!(?:{_VERDICT})\b)[^\W\d_]{{2,}}", re.IGNORECASE)


def chosen_letter(before: str, after: str) -> str | None:
    """Return the one option that an answer names, in upper case; None where it names none or more than one.

    Args:
        before: What stands in the answer block before "The answer is".
        after: What stands behind it.

    Example:
        >>> chosen_letter("", " (B), because a cell is larger."), chosen_letter("", " B. Vitamin C")
        ('B', 'B')
        >>> chosen_letter("", " B, select C"), chosen_letter("", " B or Paris"), chosen_letter("", " Paris")
        (None, None, None)
    """
    before, after = _plain(before), _plain(after)
    choice = _CHOICE.match(after)
    if choice is None:
        return None
    letter = next(group for group in choice.groups() if group).upper()
    rest = after[choice.end() :]
    if _ALTERNATIVE.match(rest) or _names_other_option(before, letter) or _names_other_option(rest, letter):
        return None
    return letter


def _plain(text: str) -> str:
    return _MARKUP.sub("", unicodedata.normalize("NFKC", text))


def _names_other_option(text: str, chosen: str) -> bool:
    text = _NO_OPTION.sub(" ", " ".join(text.split()))
    return any(
        match[0].upper() != chosen and not _is_word(text, match.start(), match[0]) for match in _LETTER.finditer(text)
    )


def _is_word(text: str, at: int, letter: str) -> bool:
    """Whether the letter is the article ("a cell") or the pronoun ("I think")."""
    if letter.upper() not in ("A", "I") or _WORD_FOLLOWS.match(text, at + 1) is None:
        return False
    # A capital article only begins the text or a sentence.
    return letter != "A" or at <= 2 or re.search(r"[\w,;]", text[at - 2 : at]) is None
