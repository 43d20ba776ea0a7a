"""A model that is to be measured: loaded when its turn comes, and what it says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import mode
from typing import TYPE_CHECKING, Any

import xxhash
from tqdm import tqdm

from tars_rewards.drift.passes import Subject
from tars_rewards.drift.settings import REFERENCE
from tars_rewards.errors import AdapterError, InputError, TARSError
from tars_rewards.scoring.forward import TokenBudget
from tars_rewards.scoring.preparation import Preparation
from tars_rewards.scoring.scorer import Scorer
from tars_rewards.scoring.work import about, check_prompts, paced
from tars_rewards.speech.waveform import clip_seconds

if TYPE_CHECKING:
    from tars_rewards.config import TARSConfig
    from tars_rewards.drift.settings import DriftSettings
    from tars_rewards.scoring.question import Completion, Question
    from tars_rewards.speech.model import SpeechModel


class Candidate:
    """A model that is to be measured.

    Args:
        given: Directory or hub name, or a loaded model.
        settings: How drift is measured.
        device: Where a model given by name runs.
        dtype: Of its weights.
        token_budget: Tokens of one forward pass.
        system: System prompt of questions that have none of their own.
        instruction: Follows the questions that have none of their own.
    """

    def __init__(
        self,
        given: str | os.PathLike[str] | SpeechModel,
        settings: DriftSettings,
        *,
        device: str,
        dtype: str,
        token_budget: int,
        system: str | None,
        instruction: str | None,
    ) -> None:
        self._given = given
        self._settings = settings
        self._device = device
        self._dtype = dtype
        self._budget = token_budget
        self._system = system
        self._instruction = instruction
        self._said: dict[str, Question] = {}
        self.vocabulary: str | None = None  #: fingerprint of the tokenizer's, once the model has been loaded

    @property
    def name(self) -> str:
        """As it was given, or as the loaded model knows it."""
        if isinstance(self._given, str | os.PathLike):
            return os.fspath(self._given)
        return str(self._given.model.name_or_path)

    def depth(self) -> int:
        """Number of its decoder layers; loads it."""
        with self.loaded() as subject:
            return len(subject.model.layers)

    @contextmanager
    def loaded(self) -> Iterator[Subject]:
        """The model, in memory inside the context."""
        if isinstance(self._given, str | os.PathLike):
            from tars_rewards.speech.model import SpeechModel

            model = SpeechModel.load(os.fspath(self._given), device=self._device, dtype=self._dtype)
        else:
            model = self._given
        entries = sorted(model.processor.tokenizer.get_vocab().items())
        self.vocabulary = xxhash.xxh3_128_hexdigest(repr(entries).encode("utf-8", "surrogatepass"))
        preparation = Preparation(model, self._settings.config, system=self._system, instruction=self._instruction)
        subject = Subject(model, preparation, TokenBudget(self._budget), self._settings.config)
        try:
            yield subject
        finally:
            if model is not self._given:  # a model that was loaded here must be gone before the next one is
                del model, preparation
                subject.release()

    def complete(
        self, subject: Subject, questions: Sequence[Question], *, label: str, progress: bool
    ) -> tuple[list[Question], dict[str, TARSError]]:
        """The questions with the model's own completions, every one looked at; or what is wrong with some.

        Args:
            subject: The loaded model.
            questions: Questions.
            label: What the progress bar is called.
            progress: Show one.
        """
        sampling, errors = self._settings.sampling, dict[str, TARSError]()
        left = [each for each in questions if each.id not in self._said]
        waiting = iter(left)
        if sampling is not None:
            for question in left:  # before an hour has passed
                try:
                    check_question(question, self._settings.config, subject.model.family.medium)
                    self._check_reference(question)
                except InputError as error:
                    errors[question.id] = about(question, error)
            if errors:
                return [], errors
            scorer = Scorer(
                subject.model,
                config=replace(self._settings.config, alpha=0.0, beta=0.0),
                token_budget=self._budget,
                system=self._system,
                instruction=self._instruction,
            )
            with bar(f"{label}: completions", len(questions) - len(self._said), progress) as shown:
                for chunk in paced(waiting):
                    for question, result in zip(chunk, scorer.sample_batch(chunk, sampling), strict=True):
                        if isinstance(result, TARSError):
                            errors[question.id] = result
                        else:
                            self._said[question.id] = result
                    shown.update(len(chunk))
        else:
            self._said.update((each.id, each) for each in waiting)
        if errors:
            return [], errors
        own = [self._said[question.id] for question in questions]
        errors = self._problems(subject, questions, own)
        return own, errors

    def _problems(
        self, subject: Subject, questions: Sequence[Question], own: Sequence[Question]
    ) -> dict[str, TARSError]:
        """What would keep questions from being measured, apart from the memory."""
        config = self._settings.config
        names = (config.target_modality, config.anchor_modality)
        usual = mode(len(each.completions.get(name, ())) for each in own for name in names)
        errors: dict[str, TARSError] = {}
        for question, mine in zip(questions, own, strict=True):
            counts = [len(mine.completions.get(name, ())) for name in names]
            problems = []
            if counts != [max(1, usual)] * 2:
                problems.append(
                    f"field 'completions': expected {max(1, usual)} of {names[0]} and of {names[1]}, as many as the others "
                    f"have, got {counts[0]} and {counts[1]}"
                )
            try:
                check_prompts(question, config, subject.model.family.medium, names)
                self._check_reference(question)
                if problems:
                    raise InputError("", problems)
                if self._settings.sampling is None:  # else its prompts have been used already
                    subject.pieces(mine, self._forced(question, mine))
            except TARSError as error:
                errors[question.id] = about(question, error)
        return errors

    def _check_reference(self, question: Question) -> None:
        if self._settings.forced == REFERENCE and not question.completions.get(REFERENCE):
            raise InputError("", [f"field 'completions.{REFERENCE}': expected the completion to be forced, got none"])

    def forced(self, questions: Sequence[Question], own: Sequence[Question]) -> list[Completion]:
        """The completion of each question that is fed to the model after both prompts."""
        return [self._forced(*each) for each in zip(questions, own, strict=True)]

    def _forced(self, question: Question, own: Question) -> Completion:
        config, forced = self._settings.config, self._settings.forced
        if forced == REFERENCE:
            return question.completions[REFERENCE][0]
        return own.completions[config.anchor_modality if forced == "text" else config.target_modality][0]


def check_question(question: Question, config: TARSConfig, medium: str) -> None:
    """Check what can be checked of a question without the model: it is there in both modalities, its clip can be opened.

    Args:
        question: The question.
        config: Names the modalities.
        medium: What the model takes beside text: "audio" or "image".

    Raises:
        InputError: With one problem for each field.
    """
    check_prompts(question, config, medium, (config.target_modality, config.anchor_modality))
    if medium == "audio":
        try:
            clip_seconds(question.audio)
        except AdapterError as error:
            raise InputError(f"question {question.id!r}:", [f"field 'audio': {error}"]) from error


def portable(completion: Completion, come_from: Candidate, to: Candidate) -> Completion:
    """A completion for another model: its tokens if they mean the same there, else its text alone."""
    return completion if come_from.vocabulary == to.vocabulary else replace(completion, token_ids=None)


def bar(label: str, total: int, progress: bool) -> Any:
    """A progress bar on standard error."""
    return tqdm(total=total, desc=label, unit="question", disable=not progress, file=sys.stderr)
