"""What is done with each question of an evaluation: heard, read, completed, and judged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tars_rewards._version import __version__
from tars_rewards.answers import answers_agree, check_answer
from tars_rewards.config import TARSConfig
from tars_rewards.errors import AdapterError, InputError, MissingAnswerError, TARSError
from tars_rewards.evaluation.conditions import Condition, within_full_scale
from tars_rewards.evaluation.engine import SPEECH, TEXT, Completions, Engine
from tars_rewards.extraction import extract_answers
from tars_rewards.extraction.xfinder import XFinder
from tars_rewards.protocol import AnswerExtractor
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.work import about, check_prompts
from tars_rewards.speech.waveform import clip_seconds, load_waveform, wav_bytes

Rows = list[dict[str, Any]]

_MODALITIES = TARSConfig(alpha=0.0, beta=0.0, target_modality=SPEECH, anchor_modality=TEXT)


class EvaluationTask:
    """Completes and judges questions, for `scoring.files.process`.

    Args:
        engine: Generates the completions.
        settings: What the results depend on apart from engine, sampling and condition.
        extract: Finds the answer of a completion.
        modalities: Which of "speech" and "text".
        sampling: How completions are sampled.
        condition: How questions are heard.
        directory: Where clips are kept that a report plays.
        clips: Of how many questions, the first ones, the clip is kept as it was heard.
        written: Rows of the modality "text" by question, where another condition's run has them already: it changes
            nothing about them.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Mapping[str, Any],
        extract: AnswerExtractor,
        *,
        modalities: Sequence[str],
        sampling: Sampling,
        condition: Condition,
        directory: Path,
        clips: int,
        written: Mapping[str, Rows],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._extract = extract
        self._modalities = tuple(modalities)
        self._sampling = sampling
        self._condition = condition
        self._directory = directory
        self._clips = clips
        self._kept: dict[str, str] = {}
        self._written = written

    def settings(self) -> dict[str, Any]:
        """What the rows depend on, apart from the questions."""
        return {
            "task": "evaluate",
            "tars_rewards": __version__,
            **self._settings,
            **self._engine.settings(),
            "modalities": list(self._modalities),
            "sampling": asdict(self._sampling),
            "condition": self._condition.to_json(),
        }

    def check(self, question: Question) -> None:
        """The question is there in the modalities, its clip can be opened, and it has an answer.

        Raises:
            InputError: With one problem for each field.
        """
        problems: list[str] = []
        try:
            check_prompts(question, _MODALITIES, "audio", self._modalities)
        except InputError as error:
            problems += error.problems
        try:
            check_answer(question.answer)
        except MissingAnswerError as error:
            problems.append(f"field 'answer': {str(error).partition(';')[0]}")
        if SPEECH in self._modalities and question.audio is not None:
            try:
                clip_seconds(question.audio)
            except AdapterError as error:
                problems.append(f"field 'audio': {error}")
        if problems:
            raise InputError(f"question {question.id!r}:", problems)
        if len(self._kept) < self._clips and SPEECH in self._modalities:
            self._kept.setdefault(question.id, f"audio/{len(self._kept):03d}.wav")

    def run(self, questions: Sequence[Question]) -> list[Rows | TARSError]:
        """Rows of some questions, or their errors in their place.

        Raises:
            ExtractionError: The extractor failed, which concerns them all.
            TARSError: The engine failed, likewise.
        """
        results: dict[int, Rows | TARSError] = {}
        heard: dict[int, Question] = {}
        for index, question in enumerate(questions):
            try:
                heard[index] = self._as_heard(question)
            except TARSError as error:
                results[index] = about(question, error)
        for modalities, indices in self._missing(heard).items():
            begin = time.monotonic()
            completed = self._engine.complete([heard[index] for index in indices], modalities, self._sampling)
            # An equal share each, so that the seconds of all rows add up to those that the run took.
            share = (time.monotonic() - begin) / (len(indices) * len(modalities) * self._sampling.n)
            judged = self._judge([heard[index] for index in indices], completed)
            for index, completions in zip(indices, completed, strict=True):
                results[index] = (
                    completions
                    if isinstance(completions, TARSError)
                    else self._rows(heard[index], completions, judged, share)
                )
        return [results[index] for index in range(len(questions))]

    def rows(self, result: Rows) -> Rows:
        """Rows of one question."""
        return result

    def _as_heard(self, question: Question) -> Question:
        if SPEECH not in self._modalities:
            return question
        heard = replace(question, audio=self._condition.apply(question.audio, question.id))
        if kept := self._kept.get(question.id):
            path = self._directory / kept
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(wav_bytes(within_full_scale(load_waveform(heard.audio))))
        return heard

    def _missing(self, questions: Mapping[int, Question]) -> dict[tuple[str, ...], list[int]]:
        """Questions by the modalities that are still to be generated."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, question in questions.items():
            known = (TEXT,) if question.id in self._written else ()
            groups.setdefault(tuple(name for name in self._modalities if name not in known), []).append(index)
        return groups

    def _judge(
        self, questions: Sequence[Question], completed: Iterable[Completions | TARSError]
    ) -> dict[tuple[str, str], str | None]:
        """Answers found in completions, by question and text."""
        found = [
            (question, each.text)
            for question, completions in zip(questions, completed, strict=True)
            if not isinstance(completions, TARSError)
            for several in completions.values()
            for each in several
        ]
        texts = [text for _, text in found]
        if isinstance(self._extract, XFinder):  # the one that is told the question too
            answers = self._extract.batch(texts, questions=[question.prompt for question, _ in found])
        else:
            by_text = extract_answers(self._extract, texts)
            answers = [by_text[text] for text in texts]
        return {(question.id, text): answer for (question, text), answer in zip(found, answers, strict=True)}

    def _rows(
        self,
        question: Question,
        completions: Completions,
        judged: Mapping[tuple[str, str], str | None],
        seconds: float,
    ) -> Rows:
        rows: Rows = []
        for modality in self._modalities:
            if modality not in completions:
                rows += self._written[question.id]
                continue
            for sample_id, each in enumerate(completions[modality]):
                extraction = judged[question.id, each.text]
                rows.append(
                    {
                        "id": question.id,
                        "modality": modality,
                        "sample_id": sample_id,
                        "category": question.category,
                        "prompt": question.prompt,
                        "answer": question.answer,
                        "completion": each.text,
                        "extraction": extraction,
                        "correct": extraction is not None and answers_agree(extraction, question.answer or ""),
                        "truncated": each.truncated,
                        "tokens": each.tokens,
                        "seconds": seconds,
                        "audio": self._played(question) if modality == SPEECH else None,
                    }
                )
        return rows

    def _played(self, question: Question) -> str | None:
        """Where the clip is as it was heard: kept in the run's directory, or where it came from."""
        if kept := self._kept.get(question.id):
            return kept
        if not self._condition.clean:
            return None
        path = question.audio.get("path") if isinstance(question.audio, Mapping) else question.audio
        return os.fspath(path) if isinstance(path, str | os.PathLike) and os.path.isfile(path) else None
