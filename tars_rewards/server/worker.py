"""The one thread that owns the scorer."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tars_rewards.errors import TARSError
from tars_rewards.scoring.question import Question
from tars_rewards.server.logs import log
from tars_rewards.server.metrics import Metrics
from tars_rewards.server.queue import Item, Job, Judgement, Queue
from tars_rewards.server.refusal import Refusal, from_error

if TYPE_CHECKING:
    from tars_rewards.protocol import BaseScore
    from tars_rewards.scoring.rows import ScoredQuestion
    from tars_rewards.scoring.scorer import Scorer


class Worker:
    """Loads the scorer and scores what the queue holds until that is closed and empty.

    Args:
        factory: Makes the scorer; called in the thread.
        queue: What waits.
        metrics: What is counted.
        on_ready: Called with the scorer when it is loaded, in the thread.
        on_failure: Called with the error that ends the thread, in the thread.
    """

    def __init__(
        self,
        factory: Callable[[], Scorer],
        queue: Queue,
        metrics: Metrics,
        *,
        on_ready: Callable[[Scorer], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._factory = factory
        self._queue = queue
        self._metrics = metrics
        self._on_ready = on_ready
        self._on_failure = on_failure
        # A daemon, because a model that is being loaded cannot be interrupted.
        self._thread = threading.Thread(target=self._main, name="scorer", daemon=True)

    def start(self) -> None:
        """Begin to load the scorer."""
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; returns whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            scorer = self._factory()
            self._on_ready(scorer)
            while batch := self._queue.take():
                self._run(scorer, batch)
        except BaseException as error:  # handed to the server, which ends with it
            self._on_failure(error)

    def _run(self, scorer: Scorer, batch: Sequence[Item]) -> None:
        completions = sum(item.completions for item in batch)
        self._metrics.batch_questions.observe(len(batch))
        self._metrics.batch_completions.observe(completions)
        begun = time.perf_counter()
        asked = [item for item in batch if isinstance(item.work, Question)]
        judged = [(item, item.work) for item in batch if isinstance(item.work, Judgement)]
        outcomes = [*self._score(scorer, asked), *(_judged(scorer, item, work) for item, work in judged)]
        seconds = time.perf_counter() - begun
        self._metrics.scoring_seconds.inc(seconds)
        self._queue.observe(completions, seconds)
        self._deliver([*asked, *(item for item, _ in judged)], outcomes)

    def _score(self, scorer: Scorer, items: Sequence[Item]) -> list[Any]:
        if not items:
            return []
        questions = [item.work for item in items if isinstance(item.work, Question)]
        try:
            scored = scorer.score_batch(questions)
        except TARSError as error:  # concerns them all
            return [from_error(error, _name(item)) for item in items]
        except Exception as error:
            if _is_accelerators(error):
                raise
            if len(items) > 1:  # one of them may be the cause: it must not take the others down
                return [outcome for item in items for outcome in self._score(scorer, [item])]
            return [_failed(error, _name(items[0]))]
        return [_encoded(item, each) for item, each in zip(items, scored, strict=True)]

    def _deliver(self, items: Sequence[Item], outcomes: Sequence[Any]) -> None:
        settled: dict[Job, Any] = {}
        for item, outcome in zip(items, outcomes, strict=True):
            job = item.job
            if isinstance(outcome, Refusal):
                self._metrics.failed.inc()
                settled.setdefault(job, outcome)
                self._metrics.dropped.inc(self._queue.withdraw(job))
                continue
            self._metrics.questions.inc()
            self._metrics.completions.inc(item.completions)
            job.results[item.index] = outcome
            job.missing -= 1
            if not job.missing:
                settled[job] = job.results
        if settled:  # one call for all of them: each wakes the event loop up
            items[0].job.loop.call_soon_threadsafe(_settle, list(settled.items()))


def _settle(settled: Sequence[tuple[Job, Any]]) -> None:
    for job, outcome in settled:
        job.settle(outcome)


def _encoded(item: Item, scored: ScoredQuestion | TARSError) -> bytes | Refusal:
    """A question's rows as JSON: made here, so that the event loop has only to join them."""
    if isinstance(scored, TARSError):
        return from_error(scored, _name(item))
    try:
        return json.dumps(scored.rows(), allow_nan=False).encode()
    except ValueError as error:  # not a number, or infinite: JSON has neither
        return _failed(error, _name(item))


def _judged(scorer: Scorer, item: Item, work: Judgement) -> BaseScore | Refusal:
    try:
        return scorer.reward.base(work.completion, work.answer)
    except TARSError as error:
        return from_error(error, f"labels[{item.index}]")
    except Exception as error:
        return _failed(error, f"query[{item.index}]")


def _is_accelerators(error: Exception) -> bool:
    """Whether the accelerator has failed: it then answers nothing more in this process, which must be started anew."""
    import torch

    return isinstance(error, getattr(torch, "AcceleratorError", ()))  # older versions have none


def _failed(error: Exception, field: str) -> Refusal:
    log(logging.ERROR, "scoring failed", error=error, field=field)
    return Refusal(500, "internal", f"{field}: the server failed on it; its log has the cause", field=field)


def _name(item: Item) -> str:
    return f"questions[{item.index}]"
