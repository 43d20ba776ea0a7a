"""A family of questions that no base was trained on: orderings of four people.

    Edward is older than Sebastian. Sebastian is older than Fiona. Monica is older than Edward. Who is the oldest?
    A: Fiona. B: Monica. C: Sebastian.

The words are those of the trained orderings; three comparisons in any order, a chain of four and an option that is left
out are not. It was chosen on written questions alone, from eleven candidates, as the only one that a text stage of the
bases answers clearly above chance (.58 of 60; the others .17 to .45): where reading does not help, nothing can be said about
hearing. Both triples of neighbours in the chain belong to the test split of the trained orderings, so that no part of
the chain was ever put in order in training.
"""

from __future__ import annotations

import itertools
import random

import paths  # noqa: F401  (finds the modules of the demo)
from questions import COMPARISONS, NAMES, Question, assemble_question, people_key, split_of


def generate(count: int, seed: int) -> list[Question]:
    """Questions of the family, no text twice; the same seed gives the same questions."""
    rng = random.Random(f"new_family/{seed}")
    questions: dict[str, Question] = {}
    while len(questions) < count:
        question = ordering_of_four(rng)
        questions.setdefault(question.text, question)
    return list(questions.values())


def ordering_of_four(rng: random.Random) -> Question:
    """Four people, three comparisons: who comes first or last."""
    people = rng.sample(NAMES, 4)
    while not all(split_of(people_key("ordering", triple)) == "test" for triple in (people[:3], people[1:])):
        people = rng.sample(NAMES, 4)
    more, less, most, least = rng.choice(COMPARISONS)
    neighbours = list(itertools.pairwise(people))
    facts, over = [], []
    for high, low in rng.sample(neighbours, len(neighbours)):
        facts.append(f"{high} is {more} than {low}." if rng.random() < 0.5 else f"{low} is {less} than {high}.")
        over.append(f"{high} over {low}")
    asked, winner, others = (most, people[0], people[1:]) if rng.random() < 0.5 else (least, people[-1], people[:-1])
    stem = f"{' '.join(facts)} Who is the {asked}?"
    steps = f"{', '.join(over)}, so {', '.join(people)}. The {asked} is {winner}"
    options = [winner, *rng.sample(others, 2)]
    return assemble_question(
        rng, "ordering_of_four", people_key("ordering_of_four", people), stem, options, winner, steps
    )
