"""What the supervised arms learn from in a step, and by which loss; `supervised` trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import paths  # noqa: F401  (lets the demo's modules be found)
import torch
from evaluate import make_prompts
from inference import Generated
from policies import completion_logits, load_policy

from tars_rewards.protocol import BaseScore

SAMPLES = 4


@dataclass(frozen=True)
class Step:
    """A step's questions, and what was sampled of them: 4 completions of each, those of a question adjacent."""

    table: pd.DataFrame
    audio: Sequence[torch.Tensor]
    samples: dict[str, Generated]
    scores: dict[str, list[BaseScore]]

    def questions(self, rows: Sequence[int]) -> tuple[pd.DataFrame, list[torch.Tensor]]:
        """Question and clip of some completions, by their place in ``samples``."""
        picks = [row // SAMPLES for row in rows]
        return self.table.iloc[picks], [self.audio[pick] for pick in picks]


class Trainer(ABC):
    """Policy, frozen base and loss of an arm."""

    def __init__(self, base: Path) -> None:
        self.policy, self.processor = load_policy(base)
        self.base, _ = load_policy(base)
        self.base.requires_grad_(False)
        self.writer = self.policy  #: who answers the written questions

    @abstractmethod
    def learned(self, step: Step) -> list[tuple[int, list[int]]]:
        """The completions that are learned from: place of the question's completion, and tokens."""

    @abstractmethod
    def loss(self, step: Step, rows: Sequence[int], completions: Sequence[list[int]]) -> torch.Tensor:
        """Sum of the loss over the tokens of some of them."""

    def spoken_logits(self, step: Step, rows: Sequence[int], completions: Sequence[list[int]]) -> torch.Tensor:
        """The policy's logits of the tokens, given the spoken questions."""
        prompts = make_prompts(self.policy, self.processor, *step.questions(rows))["speech"]
        return completion_logits(self.policy, prompts, completions)


class FineTuning(Trainer):
    """``sft``."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.writer = self.base

    def learned(self, step: Step) -> list[tuple[int, list[int]]]:
        """The base's correct written completions, as often as they were sampled; none that was cut off."""
        done = step.samples["text"]
        return [
            (row, done.tokens[row])
            for row, score in enumerate(step.scores["text"])
            if score.correct and not done.truncated[row]
        ]

    def loss(self, step: Step, rows: Sequence[int], completions: Sequence[list[int]]) -> torch.Tensor:
        """Cross-entropy."""
        targets = torch.tensor([token for tokens in completions for token in tokens])
        return torch.nn.functional.cross_entropy(self.spoken_logits(step, rows, completions), targets, reduction="sum")


class Distillation(Trainer):
    """``distillation``."""

    def learned(self, step: Step) -> list[tuple[int, list[int]]]:
        """The policy's spoken completions."""
        return list(enumerate(step.samples["speech"].tokens))

    def loss(self, step: Step, rows: Sequence[int], completions: Sequence[list[int]]) -> torch.Tensor:
        """Reverse KL divergence."""
        with torch.no_grad():
            written = make_prompts(self.base, self.processor, *step.questions(rows))["text"]
            teacher = completion_logits(self.base, written, completions)
        return reverse_kl(self.spoken_logits(step, rows, completions), teacher).sum()


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """``sum_v p(v) (log p(v) - log q(v))`` of each row, p the student's distribution and q the teacher's.

    Args:
        student: Logits ``[tokens, vocabulary]``.
        teacher: Logits of the same shape.
    """
    ours, theirs = student.log_softmax(-1), teacher.log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1)


ARMS: dict[str, Callable[[Path], Trainer]] = {"sft": FineTuning, "distillation": Distillation}
