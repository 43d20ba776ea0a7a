"""Log-probabilities and pooled states of completions, in batches of like length that fit the memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from tars_rewards.capture import capture_hidden_states
from tars_rewards.errors import ScoringError
from tars_rewards.speech.policy import NEVER

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from tars_rewards.speech.model import Prompt, SpeechModel

_log = logging.getLogger(__name__)

_SOFTMAX_ROWS = 1024  # of the vocabulary's width, in float32 at a time

_NOT_FINITE = (
    "the model gives a completion log-probabilities that are not finite; in float16 numbers overflow: take dtype bfloat16 or "
    "float32, or leave this question out"
)

Job = TypeVar("Job")
Result = TypeVar("Result")


class Measurement(NamedTuple):
    """What one forward pass tells of a completion."""

    log_probs: Float[Tensor, " tokens"]  #: float32, of each token given those before it, at temperature 1
    pooled: Float[Tensor, "layers hidden"]  #: float32, each layer's output averaged over the completion's tokens


class TokenBudget:
    """Packs work into batches of at most `tokens` tokens, padding included, and learns from running out of memory.

    Args:
        tokens: Tokens of a batch; one piece of work that is longer by itself is a batch of its own.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of each batch, the longest first: what does not fit shows at once."""
        waiting = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        while waiting:
            count = max(1, self.tokens // max(1, lengths[waiting[0]]))
            batch, waiting = waiting[:count], waiting[count:]
            yield batch

    def run(
        self, jobs: Sequence[Job], lengths: Sequence[int], work: Callable[[list[Job]], Sequence[Result]]
    ) -> list[Result | ScoringError]:
        """Do the work batch by batch; where the memory does not suffice, in halves, and from then on in smaller batches.

        Args:
            jobs: Pieces of work.
            lengths: Tokens of each.
            work: Does a batch; returns one result a piece.

        Returns:
            Results in the order of the jobs; an error in the place of a piece that by itself does not fit the memory.
        """
        results: dict[int, Result | ScoringError] = {}
        todo = [list(range(len(jobs)))]
        while todo:
            rows = todo.pop()
            for picked in self.batches([lengths[row] for row in rows]):
                batch = [rows[index] for index in picked]
                if not self._attempt(jobs, batch, work, results):
                    self._halve(batch, lengths, results)
                    todo.append([row for row in rows if row not in results])
                    break
        return [results[index] for index in range(len(jobs))]

    def _attempt(
        self,
        jobs: Sequence[Job],
        batch: list[int],
        work: Callable[[list[Job]], Sequence[Result]],
        results: dict[int, Result | ScoringError],
    ) -> bool:
        try:
            done = work([jobs[row] for row in batch])
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return False  # out of the except clause, which holds on to the tensors of the failed forward
        results.update(zip(batch, done, strict=True))
        return True

    def _halve(self, batch: list[int], lengths: Sequence[int], results: dict[int, Result | ScoringError]) -> None:
        longest = max(lengths[row] for row in batch)
        if len(batch) == 1:
            results[batch[0]] = ScoringError(
                f"a single completion with its prompt, {longest} tokens, does not fit the memory; use a device with more of "
                "it, a smaller dtype, or leave this question out"
            )
        else:
            self.tokens = longest * (len(batch) // 2)
            _log.warning("out of memory at %d completions of up to %d tokens; halved", len(batch), longest)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@torch.inference_mode()
def measure(
    model: SpeechModel, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]
) -> list[Measurement | ScoringError]:
    """Run one forward pass over prompts with their completions.

    Tokens that are never sampled have no probability, as in training (`speech.policy.mask_logits`).

    Args:
        model: The model.
        prompts: A prompt for each completion.
        completions: Token ids of each completion, at least one a completion.

    Returns:
        Measurements on the CPU, in the order of the completions; an error in the place of one that is not finite.
    """
    batch = model.batch(prompts, completions, padding="right")
    tokens = batch["input_ids"]
    starts = [len(prompt.token_ids) for prompt in prompts]
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (start, completion) in enumerate(zip(starts, completions, strict=True)):
        mask[row, start : start + len(completion)] = True
    mask = mask.to(tokens.device)
    rows, columns = mask.nonzero(as_tuple=True)

    def keep_predictions(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Logits of prompts are the largest tensor of a forward, and nobody asks for them.
        return (inputs[0][rows, columns - 1][None], *inputs[1:])

    handle = model.model.get_output_embeddings().register_forward_pre_hook(keep_predictions)
    try:
        with capture_hidden_states(model.model, mask, layers=model.layers) as captured:
            logits = model.model(**batch, use_cache=False).logits[0]
    finally:
        handle.remove()
    if model.never_sampled:
        logits.index_fill_(-1, torch.tensor(model.never_sampled, device=logits.device), NEVER)
    log_probs = torch.split(_log_probs(logits, tokens[rows, columns]).cpu(), [len(each) for each in completions])
    return [
        Measurement(*each) if each[0].isfinite().all() else ScoringError(_NOT_FINITE)
        for each in zip(log_probs, captured.pooled.cpu(), strict=True)
    ]


def _log_probs(logits: Float[Tensor, "tokens vocabulary"], chosen: Int[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
    parts = [
        part.float().log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        for part, ids in zip(
            torch.split(logits, _SOFTMAX_ROWS), torch.split(chosen.to(logits.device), _SOFTMAX_ROWS), strict=True
        )
    ]
    return torch.cat(parts)


def _out_of_memory(error: BaseException) -> bool:
    # torch has a class for accelerators only; its CPU allocator raises a RuntimeError that says so.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
