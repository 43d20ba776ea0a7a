"""Easy text for the base model's first stage: what a pre-trained language model knows already.

A model that starts from nothing spends most of its training on two elementary skills: looking a word up in its context,
and the small sums. Pairs of words to find again and one-step versions of the questions teach both in a third of the tokens.
Nothing here is spoken, and nothing of it is in the data set.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from questions import (
    COMPARISONS,
    DAYS,
    EVENTS,
    GOODS,
    LETTERS,
    NAMES,
    NUMBERS,
    THINGS,
    Question,
    count_of_days,
    letter_options,
)

WORDS = (*NAMES, *THINGS, *GOODS, *EVENTS, *DAYS, *NUMBERS, *(word for words in COMPARISONS for word in words))

VALUES = (*NAMES, *LETTERS * 4)


def word_pairs(seed: int) -> Iterator[tuple[str, str]]:
    """Endless lists of pairs ("violin: Anna. seven: C. …"), each with the same pairs in another order.

    The second word of a pair can be told from the first only by looking the pair up in the list.
    """
    rng = random.Random(f"pairs/{seed}")
    while True:
        keys, link = rng.sample(WORDS, rng.randint(3, 7)), rng.choice((": ", " with ", " is with ", " is "))
        pairs = [f"{key}{link}{rng.choice(VALUES)}." for key in keys]
        yield " ".join(pairs), " ".join(rng.sample(pairs, len(pairs)))


def one_step_questions(seed: int) -> Iterator[Question]:
    """Endless questions that one step answers, in the wording of the questions that take two."""
    rng = random.Random(f"drills/{seed}")
    while True:
        for template in (one_comparison, one_sum, one_wait, one_swap):
            yield template(rng)


def one_comparison(rng: random.Random) -> Question:
    """Two people compared."""
    first, last = people = rng.sample(NAMES, 2)
    more, less, most, least = rng.choice(COMPARISONS)
    fact = f"{first} is {more} than {last}." if rng.random() < 0.5 else f"{last} is {less} than {first}."
    asked, winner = rng.choice([(most, first), (least, last)])
    steps = f"Here {first} is {more} than {last}. The {asked} is {winner}"
    return letter_options(rng, "ordering", "drill", f"{fact} Who is the {asked}?", people, winner, steps)


def one_sum(rng: random.Random) -> Question:
    """One addition or subtraction."""
    name, goods, one, other = rng.choice(NAMES), rng.choice(GOODS), rng.randint(2, 14), rng.randint(1, 6)
    if rng.random() < 0.5 or other >= one:
        stem, sign, end = f"gets {NUMBERS[other]} more", "plus", one + other
    else:
        stem, sign, end = f"loses {NUMBERS[other]}", "minus", one - other
    options = [NUMBERS[end], *(NUMBERS[n] for n in rng.sample([n for n in range(1, 21) if n != end], 2))]
    stem = f"{name} has {NUMBERS[one]} {goods} and {stem}. How many {goods} are left?"
    steps = f"First {NUMBERS[one]} {sign} {NUMBERS[other]} is {NUMBERS[end]}"
    return letter_options(rng, "arithmetic", "drill", stem, options, NUMBERS[end], steps)


def one_wait(rng: random.Random) -> Question:
    """One step through the week."""
    event, today, wait = rng.choice(EVENTS), rng.randrange(7), rng.randint(1, 5)
    opens = DAYS[(today + wait) % 7]
    stem = f"Today is {DAYS[today]}. The {event} opens in {count_of_days(wait)}. When does it open?"
    options = [opens, *rng.sample([day for day in DAYS if day != opens], 2)]
    steps = f"First {DAYS[today]} plus {NUMBERS[wait]} is {opens}"
    return letter_options(rng, "days", "drill", stem, options, opens, steps)


def one_swap(rng: random.Random) -> Question:
    """Three people hold three things; one swap, or none."""
    people, things = rng.sample(NAMES, 3), rng.sample(THINGS, 3)
    asked, swapped = rng.randrange(3), rng.sample(range(3), 2)
    held = [f"the {thing} with {person}" for person, thing in zip(people, things, strict=True)]
    stem = f"The {things[0]} is with {people[0]}, {held[1]} and {held[2]}."
    holder, steps = asked, f"The {things[asked]} is with {people[asked]}"
    if rng.random() < 0.5:
        one, other = swapped
        stem += f" {people[one]} and {people[other]} swap."
        holder = {one: other, other: one}.get(asked, asked)
        steps += f", then {people[holder]}"
    stem += f" Who has the {things[asked]}?"
    return letter_options(rng, "swaps", "drill", stem, people, people[holder], steps)
