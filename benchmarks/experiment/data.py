"""The experiment's questions: training, dev, test, and the test questions that were made harder.

Usage::

    python benchmarks/experiment/data.py --out runs/experiment/data

==================  =========  =============================================================================
file                questions  what they are
==================  =========  =============================================================================
``train``               4,000  of the training split, in the order of their seed; a run takes 8 a step
``dev``                   500  of the dev split, spoken by the training voices: settings are chosen by these
``test``                2,000  of the test split, spoken by the training voices
``unseen_voices``         500  the first of ``test``, spoken by flite and piper (`voices`)
``noise_0`` … ``20``      500  the first of ``test`` by the same speakers, with white noise at 0, 5, 10, 20 dB
``new_family``            500  a template that no base was trained on (`new_family`), by the training voices
==================  =========  =============================================================================

Each is a parquet file as the demo's ``make_data.py`` writes it: a spoken row and a written row of each question,
adjacent. What a test question is about (its three names, its numbers, its day and steps) is in no training or dev
question, and so not its text; two test questions may be about the same and differ in wording, goods or options.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import new_family
import paths
from make_data import Clip, Speak, spoken, write_set
from questions import Question, generate
from speech import Speaker, speak
from voices import speak_unseen, unseen_speaker

# Of questions and speakers: the bases' seeds are others.
SEEDS = {"train": 101, "dev": 102, "test": 103, "new_family": 104}
COUNTS = {"train": 4000, "dev": 500, "test": 2000, "new_family": 500}
HARDER = 500
NOISE_DB = (0, 5, 10, 20)
SETS = ("train", "dev", "test", "unseen_voices", *(f"noise_{snr}" for snr in NOISE_DB), "new_family")


@dataclass(frozen=True)
class QuestionSet:
    """One file: its questions, and who speaks them."""

    questions: list[Question]
    voice: Speak


def question_set(name: str) -> QuestionSet:
    """Questions and voice of a set.

    Args:
        name: One of `SETS`.

    Raises:
        ValueError: There is no set of that name.
    """
    if name not in SETS:
        raise ValueError(f"expected a set of {SETS}, got {name!r}")
    source = name if name in SEEDS else "test"
    seed, count = SEEDS[source], COUNTS[source] if name in SEEDS else HARDER
    questions = new_family.generate(count, seed) if name == "new_family" else generate(source, count, seed)
    if name == "unseen_voices":
        return QuestionSet(questions, partial(in_unseen_voices, seed=seed))
    if name.startswith("noise_"):
        return QuestionSet(questions, partial(in_noise, seed=seed, snr_db=float(name.removeprefix("noise_"))))
    return QuestionSet(questions, partial(spoken, seed=seed, held_out=False))


def in_unseen_voices(question: Question, *, seed: int) -> tuple[Speaker, Clip]:
    """A question in a voice that no base was trained on, with the noise of the training clips."""
    speaker = unseen_speaker(question.text, seed)
    return speaker, speak_unseen(question.text, speaker)


def in_noise(question: Question, *, seed: int, snr_db: float) -> tuple[Speaker, Clip]:
    """A question by the speaker of the test set, in more or less noise."""
    speaker = replace(Speaker.draw(question.text, seed), snr_db=snr_db)
    return speaker, speak(question.text, speaker)


def prepare(out: Path = paths.WORK / "data", *, counts: dict[str, int] | None = None, workers: int = 2) -> list[Path]:
    """Write what is missing of the data set.

    Args:
        out: Directory of the data set; its files name their clips by absolute paths, so that it cannot be moved.
        counts: Fewer questions of some sets, for a trial.
        workers: Processes that speak.

    Returns:
        The files of all sets.
    """
    files = []
    for name in SETS:
        file = out / f"{name}.parquet"
        if not file.exists():
            made = question_set(name)
            count = (counts or {}).get(name, len(made.questions))
            write_set(out, name, made.questions[:count], made.voice, workers=workers)
        files.append(file)
    return files


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the experiment's data set, as far as it is missing.")
    parser.add_argument("--out", type=Path, default=paths.WORK / "data")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for file in prepare(arguments.out, workers=arguments.workers):
        print(file)


if __name__ == "__main__":
    main()
