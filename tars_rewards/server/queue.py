"""What waits to be scored: bounded, whole requests in, batches across requests out."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tars_rewards.scoring.question import Question
from tars_rewards.server.refusal import Refusal
from tars_rewards.server.settings import ServerSettings

_LONGEST_RETRY = 60  # seconds


class Judgement(NamedTuple):
    """A completion to be judged by itself: accuracy and format."""

    completion: str
    answer: str


Work = Question | Judgement


class Job:
    """What a request asks for, and where its results are collected.

    Attributes:
        future: Resolves to the results in the order of the work, or to the first refusal; in the event loop that made the job.
    """

    def __init__(self, work: Sequence[Work]) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Any] | Refusal] = self.loop.create_future()
        self.items = [Item(self, index, each) for index, each in enumerate(work)]
        self.results: list[Any] = [None] * len(work)
        self.missing = len(work)
        self.questions = len(work)
        self.completions = sum(item.completions for item in self.items)

    def settle(self, outcome: list[Any] | Refusal) -> None:
        """Give the request its answer, unless it has one or was given up; in the event loop."""
        if not self.future.done():
            self.future.set_result(outcome)


@dataclass(frozen=True, eq=False)
class Item:
    """One piece of a job."""

    job: Job
    index: int
    work: Work

    @property
    def completions(self) -> int:
        """How many completions it has."""
        return 1 if isinstance(self.work, Judgement) else sum(map(len, self.work.completions.values()))


class Queue:
    """First come, first served; safe between threads."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._items: deque[Item] = deque()
        self._questions = 0
        self._completions = 0
        self._closed = False
        self._changed = threading.Condition()
        self._rate = 0.0  # completions a second, lately

    def waiting(self) -> tuple[int, int]:
        """Questions and completions that wait."""
        with self._changed:
            return self._questions, self._completions

    def put(self, job: Job) -> None:
        """Take in a job, all of it or nothing.

        Raises:
            Refusal: 429, it does not fit; 503, the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise stopping()
            settings = self._settings
            over = max(
                (self._questions + job.questions - settings.queue_questions) / max(1, self._questions),
                (self._completions + job.completions - settings.queue_completions) / max(1, self._completions),
            )
            if over > 0:
                raise Refusal(
                    429,
                    "queue_full",
                    f"{self._questions} questions with {self._completions} completions wait, and {job.questions} with "
                    f"{job.completions} more do not fit into {settings.queue_questions} with {settings.queue_completions}; "
                    "send the request again after the seconds in Retry-After",
                    retry_after=self._seconds_for(over * self._completions),
                )
            self._items.extend(job.items)
            self._questions += job.questions
            self._completions += job.completions
            self._changed.notify()

    def withdraw(self, job: Job) -> int:
        """Take out what has not begun of a job; returns how many questions that were."""
        with self._changed:
            kept = deque(item for item in self._items if item.job is not job)
            dropped = [item for item in self._items if item.job is job]
            self._items = kept
            self._questions -= len(dropped)
            self._completions -= sum(item.completions for item in dropped)
            return len(dropped)

    def take(self) -> list[Item]:
        """Wait for work and take what fits into a batch: at least one item; none when the queue is closed and empty."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            until = time.monotonic() + self._settings.linger_seconds
            while self._items and not self._is_batch() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            batch: list[Item] = []
            completions = 0
            while self._items and len(batch) < self._settings.batch_questions:
                completions += self._items[0].completions
                if batch and completions > self._settings.batch_completions:
                    break
                batch.append(self._items.popleft())
            self._questions -= len(batch)
            self._completions -= sum(item.completions for item in batch)
            return batch

    def close(self) -> None:
        """Let nothing more in; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def observe(self, completions: int, seconds: float) -> None:
        """Learn the rate from a batch that was scored."""
        rate = completions / max(seconds, 1e-6)
        with self._changed:
            self._rate = rate if self._rate == 0 else 0.8 * self._rate + 0.2 * rate

    def _is_batch(self) -> bool:
        return (
            self._closed
            or self._questions >= self._settings.batch_questions
            or self._completions >= self._settings.batch_completions
        )

    def _seconds_for(self, completions: float) -> int:
        if self._rate == 0:
            return 1
        return max(1, min(_LONGEST_RETRY, math.ceil(completions / self._rate)))


def stopping() -> Refusal:
    """The answer of a server that has been told to stop."""
    return Refusal(
        503, "stopping", "the server is stopping; send the request to another, or again later", retry_after=5
    )
