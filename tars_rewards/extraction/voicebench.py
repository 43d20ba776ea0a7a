"""The letter that VoiceBench's scorer would read out of a completion, for comparison with published VoiceBench scores.

That scorer (github.com/MatthewCYM/VoiceBench, `src/evaluator/mcq.py`; read in the fork wtalioy/VoiceBench at commit
074f5ca) lowers the case of the whole completion, reasoning included, and looks for fixed phrases with a letter from a to
d in them. The first phrase of its list that occurs anywhere decides, and for each phrase "a" is tried first. This module
finds the same letter, with two differences:

* Where no phrase occurs the scorer draws a random letter, without a seed. Here the completion is unparsed.
* Its special cases for "would be a." are left out: phrases that come earlier cover them.

What it misreads it misreads here too, and that favours A: a phrase need not end at its letter, so that "the answer is a
function of time" states A, and a list of options is its first option. How often is measured in
`docs/answer_extraction.md`. It knows no fifth option and no free text.
"""

from __future__ import annotations

import re

_LETTERS = "abcd"

# fmt: off
# The phrases in the scorer's order: what stands before the letter, and what stands behind it. Alternatives are separated
# by "|", and the former vary slowest. Phrases that an earlier one contains are left out, since they never decide.
_PHRASES = (
    ("答案是|答案是 |答案是选项|答案应该是|答案应该是 |答案就是选项|答案是‘", ""), ("是", "："), ("答案选", ""),
    ("", "是正确"), ("选项", "是最合适的"),
    ("final answer: |answer is: **|answer is **|the answer to the question is: **", ""),
    ("the answer to the multiple-choice question is **", ""),
    ("the answer is '", "'"), ("", " is the best answer"),
    ("the answer is |the correct answer is |would select |would choose |would select option |would choose option ", ""),
    ('is "', '"|.'), ("is: **", ")"), ("is **", ",|:|)"), ("is: **", ".|:"), ("is **", "."), ("be **", ","),
    ("is: **", "**"), ("is therefore option **", ":"), ("is: \n\n**", ")"), ("as **", ":"), ("be **", ")|:"),
    ("is: \n\n**", "**"), ("suggests **", ")"), ("be option **", ":"),
    ('with **|is typically "|be to **|is: \n\n', ")"), ("is likely to be: **", "."), ("is **", " ("),
    ("is option **|is likely **", "**"), ("is:\n**|is:\n\n**", "."), ("would be |would be option ", ""),
    ("would be (|would be option (", ")"), ("is |is typically ", ","), ("is typically |i'd say |option ", "."),
    ("option ", ":|,"), ("the answer is:\n**", ""), ("is ", ":|."), ("is: ", "."), ("is (|is:\n**", ")"),
    ("is likely **", ":"), ("is the **", ")"), (":\n", ".|)|,"), (": \n|:  \n|:\n\n", "."), (":\n\n", ")"),
    ("is most likely **", ":"), (":\n\n", ","), (": \n\n", "."), ("(", ") would be"), ("is |is: ", ")"),
    ("is:\n\n", ":"), ("is: **", ","), ("(option ", ")"), ("answer: |answer is:\n\n|answer is:\n", ""),
    ('select option "', '"'), ("is: ", ""), ("is typically **", ","), ("is **", "**"),
    ("is likely '|is option '", "'"), ("is:\n**", ":"), ("is \\( \\boxed{", " "), ("would be '", "'"),
    ("is the **", "** "), ("question is ", " ("), ("is:\n\n**", ")"), ("closest to option **", "**"),
    ("is most likely **", ")"), ("the answer to the question is '|known as '", "'"), ("is '", ")"),
    ("is typically **", ":"), ("is \\( \\boxed{\\text{", "}} \\)"), ("is \\( \\text{", ") }|} \\)|:|)"),
    ("is \\(\\text{", "."), ("is:\n\n**", ""), ("is \\( \\text{", ".}|."), ("is \\( \\boxed{", "}"),
    ("is:\n\\[ \\boxed{\\text{", "}}"), ("is:\n\\[ \\text{|is:\n\n\\[ \\text{|is \\( \\textbf{", ")"),
    ("is \\( \\text{", "}"), ("is: \\( \\text{", "."), ("corresponds to:\n- **", ":"), ("would be: **", "**."),
    ("is \\( ", " \\)"), ("is:\n**", " "), ("corresponds to option **|be **", "**"), ("be: \n\n", ")"),
    ("is:\n\\[ \\boxed{", "}"), ("is:  \n**", ":"), ("is: \\( \\text{", ")"), ("is likely: **", ","),
    ("is } \\mathbf{", "."), ("is \\( \\boxed{", ")"), ("is \\( \\textbf{", "}"), ("is \\(", "\\)"),
    ("is:\n  \n**", ":"), ("is option **", " "), ("is:\n\\( \\textbf{", "."), ("is \\( \\mathbf{", "}"),
    ("was option **", "**"), ('is likely "', ")"), ("option **", ":"), ('is "', ")"), ("is most likely **", ","),
    ("is often **", ":"), ("is:  \n", ")"), ("is:\n|is:\n**", ""), (" ", ".|,|:|)"), ("**", ".|)|:"), ('"', ".|,|:"),
    ("(", ")"), ('"', '"'), ("{", "}"), ("\n\n**|would be:\n\n", ""),
)
# fmt: on
_RANKED = [
    (before, behind)
    for lead_ins, closings in _PHRASES
    for before in lead_ins.split("|")
    for behind in closings.split("|")
]
_OPENING = re.compile(r"([a-d])(?:[.,:)]|\Z)")  # where no phrase occurs: a letter that begins the text, or is all of it


def voicebench_letter(completion: str) -> str | None:
    """Return the letter, A to D, that VoiceBench's scorer reads; None where it would draw one at random.

    Example:
        >>> voicebench_letter("I would choose option (C).")
        'C'
        >>> voicebench_letter("The answer is a function of time. The answer is D.")
        'A'
        >>> voicebench_letter("I cannot tell.") is None
        True
    """
    text = completion.lower()
    if text.startswith(("<1>", "<2>", "<3>")):  # the turn that some models number
        text = text[3:].strip()
    for before, behind in _RANKED:
        for letter in _LETTERS:
            if before + letter + behind in text:
                return letter.upper()
    opening = _OPENING.match(text)
    return opening[1].upper() if opening else None
