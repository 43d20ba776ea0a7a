"""Answers to the questions from their text alone: the oracle of the data set."""

import re
from itertools import permutations

# fmt: off
WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
WEEK = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def solve(text):
    """Answer a question from its text alone, by brute force where there is anything to search."""
    stem, options = text.split("? ", 1)
    letters = dict(re.findall(r"([A-D]): (\w+)\.", options))
    if match := re.match(r"Today is (\w+)\. The \w+ opens in (\w+) days? and closes (\w+) days? later", stem):
        day = WEEK.index(match[1]) + WORDS.index(match[2]) + WORDS.index(match[3])
        right = WEEK[day % 7]
    elif match := re.match(r"\w+ has (\w+) \w+, (gets|loses) (\w+)(?: more)? and (gets|loses) (\w+)", stem):
        amount = WORDS.index(match[1])
        for verb, number in ((match[2], match[3]), (match[4], match[5])):
            amount += WORDS.index(number) * (1 if verb == "gets" else -1)
        right = WORDS[amount]
    else:
        less = {"shorter", "younger", "slower", "poorer", "shortest", "youngest", "slowest", "poorest"}
        facts = re.findall(r"(\w+) is (\w+) than (\w+)", stem)
        asked = re.search(r"Who is the (\w+)", stem)[1]
        (ranking,) = (
            order
            for order in permutations(sorted({name for a, _, b in facts for name in (a, b)}))
            if all((order.index(a) < order.index(b)) != (word in less) for a, word, b in facts)
        )
        right = ranking[-1] if asked in less else ranking[0]
    (letter,) = (letter for letter, option in letters.items() if option == right)
    return letter
