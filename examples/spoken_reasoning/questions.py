"""Multiple-choice reasoning questions with true answers, made from a seed.

Three templates, each answered by two small steps, so that a model of a million parameters can reason its way to the
answer and cannot guess it:

==========  ==================================================  =========================================
template    what is asked                                       what the reasoning does
==========  ==================================================  =========================================
ordering    two comparisons of three people; who is the most    puts the three in order
arithmetic  something is added and something taken away         two sums
days        a day, and two steps through the week               two steps
==========  ==================================================  =========================================

**Holding out.** What a question is *about* is its ``key``: the set of three names, the numbers, the day and its
steps. Which split a question belongs to is a function of the key alone (`split_of`), so the splits are disjoint for
all seeds, and a test question is new in substance, not only in the order of its options.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SPLITS = ("train", "dev", "test")
LETTERS = "ABC"

# Words that a small speech encoder tells apart: no two names share an initial or a rhyme.
NAMES = (
    "Anna", "Boris", "Carmen", "Daniel", "Edward", "Fiona", "Gustav", "Isabel",
    "Kevin", "Monica", "Oliver", "Patrick", "Sebastian", "Victor", "Winston", "Yolanda",
)  # fmt: skip
GOODS = ("apples", "coins", "books", "stones", "tickets", "balloons")
EVENTS = ("fair", "market", "circus", "museum")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
# (more, less, most, least)
COMPARISONS = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
    ("richer", "poorer", "richest", "poorest"),
)


@dataclass(frozen=True)
class Question:
    """One question, as it is read and as it is spoken.

    Attributes:
        template: Name of the template it came from.
        key: What the question is about; decides the split.
        stem: The question without its options.
        options: The three options in the order of their letters.
        answer: Letter of the true option.
        reasoning: The steps, the options, and which of them it is.
    """

    template: str
    key: str
    stem: str
    options: tuple[str, ...]
    answer: str
    reasoning: str

    @property
    def text(self) -> str:
        """Stem and lettered options: the text prompt, and word for word what the speech says."""
        return self.stem + "".join(
            f" {letter}: {option}." for letter, option in zip(LETTERS, self.options, strict=True)
        )

    @property
    def completion(self) -> str:
        """The completion that a model should give, in the format TARS rewards."""
        return format_completion(self.reasoning, self.answer)


def format_completion(reasoning: str, answer: str) -> str:
    """Reasoning and letter in the format of arXiv 2601.05543 (think block, then answer block)."""
    return f"<think>{reasoning}</think><answer>The answer is {answer}.</answer>"


def split_of(key: str) -> str:
    """Split a key belongs to: 80 % train, 10 % dev, 10 % test, the same on every machine."""
    bucket = hashlib.sha256(key.encode()).digest()[0] * 10 // 256
    return {0: "test", 1: "dev"}.get(bucket, "train")


def generate(split: str, count: int, seed: int) -> list[Question]:
    """Questions of one split, the templates in turn, no text twice.

    Args:
        split: "train", "dev" or "test".
        count: How many questions.
        seed: The same seed gives the same questions.

    Raises:
        ValueError: Unknown split, or a negative count.
        RuntimeError: There are not that many different questions.
    """
    if count < 0:
        raise ValueError(f"expected a count of questions >= 0, got {count}")
    questions: list[Question] = []
    for question in stream(split, seed):
        if len(questions) == count:
            break
        questions.append(question)
    return questions


def stream(split: str, seed: int) -> Iterator[Question]:
    """Endless questions of one split, the templates in turn, no text twice."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {SPLITS}, got {split!r}")
    rng = random.Random(f"{split}/{seed}")
    seen: set[str] = set()
    while True:
        for template in TEMPLATES:
            for _ in range(10_000):
                question = template(rng)
                if split_of(question.key) == split and question.text not in seen:
                    break
            else:
                raise RuntimeError(f"no new {split} question from template {template.__name__}: ask for fewer")
            seen.add(question.text)
            yield question


def ordering(rng: random.Random) -> Question:
    """Three people, two comparisons: who comes first or last."""
    first, middle, last = people = rng.sample(NAMES, 3)
    more, less, most, least = rng.choice(COMPARISONS)
    top = rng.random() < 0.5
    winner = first if top else last
    facts, over = [], []
    for high, low in rng.sample([(first, middle), (middle, last)], 2):
        facts.append(f"{high} is {more} than {low}." if rng.random() < 0.5 else f"{low} is {less} than {high}.")
        over.append(f"{high} over {low}")
    steps = f"{over[0]}, {over[1]}, so {first}, {middle}, {last}. The {most if top else least} is {winner}"
    stem = f"{' '.join(facts)} Who is the {most if top else least}?"
    return assemble_question(rng, "ordering", people_key("ordering", people), stem, people, winner, steps)


def arithmetic(rng: random.Random) -> Question:
    """An amount grows and shrinks (or shrinks and grows) by two others: what is left."""
    name, goods = rng.choice(NAMES), rng.choice(GOODS)
    start, gain, loss = rng.randint(2, 10), rng.randint(2, 6), rng.randint(1, 6)
    gain_first = rng.random() < 0.5
    if loss >= (start + gain if gain_first else start):
        return arithmetic(rng)
    between, end = (start + gain if gain_first else start - loss), start + gain - loss
    word = [NUMBERS[n] for n in (start, gain, loss, between, end)]
    if gain_first:
        stem = f"{name} has {word[0]} {goods}, gets {word[1]} more and loses {word[2]}."
        steps = f"First {word[0]} plus {word[1]} is {word[3]}, then {word[3]} minus {word[2]} is {word[4]}"
    else:
        stem = f"{name} has {word[0]} {goods}, loses {word[2]} and gets {word[1]} more."
        steps = f"First {word[0]} minus {word[2]} is {word[3]}, then {word[3]} plus {word[1]} is {word[4]}"
    near = [n for n in range(max(1, end - 3), end + 4) if n != end]
    options = [word[4], *(NUMBERS[n] for n in rng.sample(near, 2))]
    key = f"arithmetic/{start}/{gain}/{loss}/{gain_first}"
    return assemble_question(rng, "arithmetic", key, f"{stem} How many {goods} are left?", options, word[4], steps)


def days(rng: random.Random) -> Question:
    """Two steps through the week."""
    event, today, wait, last = rng.choice(EVENTS), rng.randrange(7), rng.randint(1, 5), rng.randint(1, 5)
    opens, closes = (today + wait) % 7, (today + wait + last) % 7
    stem = (
        f"Today is {DAYS[today]}. The {event} opens in {_days(wait)} and closes {_days(last)} later. "
        "When does it close?"
    )
    steps = f"First {DAYS[today]} plus {NUMBERS[wait]} is {DAYS[opens]}, then {DAYS[opens]} plus {NUMBERS[last]} is {DAYS[closes]}"
    options = [DAYS[closes], *rng.sample([day for day in DAYS if day != DAYS[closes]], 2)]
    return assemble_question(rng, "days", f"days/{today}/{wait}/{last}", stem, options, DAYS[closes], steps)


TEMPLATES: tuple[Callable[[random.Random], Question], ...] = (ordering, arithmetic, days)


def assemble_question(
    rng: random.Random, template: str, key: str, stem: str, options: list[str], right: str, steps: str
) -> Question:
    """A question with its options shuffled, and how they are compared with the right one added to its ``steps``."""
    shuffled = rng.sample(options, len(options))
    letter = LETTERS[shuffled.index(right)]
    listed = ", ".join(map(" ".join, zip(LETTERS, shuffled, strict=True)))
    return Question(template, key, stem, tuple(shuffled), letter, f"{steps}. {listed}: {right} {letter}.")


def people_key(template: str, people: list[str]) -> str:
    """The key of a question about a set of people."""
    return f"{template}/{'/'.join(sorted(people))}"


def _days(count: int) -> str:
    return "one day" if count == 1 else f"{NUMBERS[count]} days"
