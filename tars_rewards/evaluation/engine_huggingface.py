"""Completions by a Hugging Face model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tars_rewards.config import TARSConfig
from tars_rewards.errors import TARSError
from tars_rewards.evaluation.engine import SPEECH, TEXT, Completions, Generated
from tars_rewards.scoring.question import Question
from tars_rewards.scoring.sampling import Sampling
from tars_rewards.scoring.scorer import Scorer

if TYPE_CHECKING:
    from tars_rewards.speech.model import SpeechModel

_JUDGING_NOTHING = TARSConfig(alpha=0.0, beta=0.0, target_modality=SPEECH, anchor_modality=TEXT)


class HuggingFaceEngine:
    """A model in this process; loaded when it is first needed, so that bad questions are told before.

    Args:
        model: Directory or hub name of a Speech LLM, or a loaded one.
        device: Where it runs; "auto": an accelerator if there is one.
        dtype: Of its weights; "auto": the checkpoint's, float32 on a CPU.
        token_budget: Tokens of one batch, prompts, completions at their longest and padding included.
        system: System prompt of questions that have none of their own.
        instruction: Follows the questions that have none of their own.
    """

    def __init__(
        self,
        model: str | SpeechModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        token_budget: int = 16_384,
        system: str | None = None,
        instruction: str | None = None,
    ) -> None:
        self._model = model
        self._device, self._dtype, self._token_budget = device, dtype, token_budget
        self._system, self._instruction = system, instruction
        self._scorer: Scorer | None = None

    def settings(self) -> dict[str, Any]:
        """The engine and its dtype."""
        return {"engine": "huggingface", "dtype": self._dtype}

    def complete(
        self, questions: Sequence[Question], modalities: Sequence[str], sampling: Sampling
    ) -> list[Completions | TARSError]:
        """Complete some questions at once; see `engine.Engine`."""
        results: list[Completions | TARSError] = []
        for sampled in self._loaded().sample_batch(questions, sampling, modalities):
            if isinstance(sampled, TARSError):
                results.append(sampled)
                continue
            results.append(
                {
                    modality: [Generated(each.text, each.truncated, len(each.token_ids or ())) for each in completions]
                    for modality, completions in sampled.completions.items()
                }
            )
        return results

    def _loaded(self) -> Scorer:
        if self._scorer is None:
            self._scorer = Scorer(
                self._model,
                config=_JUDGING_NOTHING,
                device=self._device,
                dtype=self._dtype,
                system=self._system,
                instruction=self._instruction,
                token_budget=self._token_budget,
            )
        return self._scorer
