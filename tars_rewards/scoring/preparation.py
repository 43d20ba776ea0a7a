"""From a question to prompts and tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tars_rewards.errors import InputError
from tars_rewards.protocol import Rollout
from tars_rewards.scoring.question import Completion, Question
from tars_rewards.scoring.work import Piece, Work, check_completions, check_prompts

if TYPE_CHECKING:
    from tars_rewards.config import TARSConfig
    from tars_rewards.speech.model import Prompt, SpeechModel


class Preparation:
    """Makes prompts of questions, and work of their completions.

    Args:
        model: The model; None: completions are not tokenized.
        config: Names the two modalities.
        system: System prompt of questions that have none of their own.
        instruction: Follows the questions that have none of their own.
    """

    def __init__(
        self, model: SpeechModel | None, config: TARSConfig, *, system: str | None, instruction: str | None
    ) -> None:
        self._model = model
        self._config = config
        self._system = system
        self._instruction = instruction

    def prompts(self, question: Question, modalities: Iterable[str]) -> dict[str, Prompt]:
        """Prompts by modality; empty without a model.

        Raises:
            InputError: The question is not there in one of the modalities.
            TARSError: Its clip or image cannot be used.
        """
        model = self._model
        if model is None:
            return {}
        wanted = list(modalities)
        check_prompts(question, self._config, model.family.medium, wanted)
        system = self._system if question.system is None else question.system
        instruction = self._instruction if question.instruction is None else question.instruction
        made = {}
        for modality in wanted:
            written = modality == self._config.anchor_modality
            made[modality] = model.prompt(
                question=question.prompt if written else None,
                media=None if written else getattr(question, model.family.medium),
                system=system,
                instruction=instruction,
            )
        return made

    def work(self, question: Question) -> Work:
        """A piece of work for each completion, target modality first.

        Raises:
            InputError: There is nothing to score or nothing to judge it by, or a completion has no token, or tokens that
                mean something in a prompt only or that the model does not have.
            TARSError: Its clip or image cannot be used.
        """
        check_completions(question, self._config)
        modalities = (self._config.target_modality, self._config.anchor_modality)
        given = [modality for modality in modalities if question.completions.get(modality)]
        prompts = self.prompts(question, given)
        return Work(
            question,
            [
                Piece(_rollout(question, modality, index, each), prompts.get(modality), self._tokens(each))
                for modality in given
                for index, each in enumerate(question.completions[modality])
            ],
        )

    def _tokens(self, completion: Completion) -> tuple[int, ...]:
        model = self._model
        if model is None:
            return ()
        tokens = completion.token_ids
        if tokens is None:
            end = () if completion.truncated else (model.end_of_turn,)
            tokens = (*model.tokenize(completion.text), *end)
        if not tokens:
            raise InputError(
                "field 'completions': expected completions of at least one token, got an empty, truncated one"
            )
        if max(tokens) >= model.vocabulary:  # on an accelerator, no forward would work after that
            raise InputError(
                f"field 'completions': expected token ids below {model.vocabulary}, as this model has them, got {max(tokens)}; "
                "are they of another model?"
            )
        if reserved := sorted(set(tokens) & set(model.never_sampled)):
            raise InputError(
                f"field 'completions': expected tokens that a model may say, got {reserved}, which mean something in a prompt "
                "only"
            )
        return tokens


def _rollout(question: Question, modality: str, sample_id: int, completion: Completion) -> Rollout:
    return Rollout(
        question.id,
        modality,
        sample_id,
        completion.text,
        question.answer,
        truncated=completion.truncated,
        correct=completion.correct,
    )
