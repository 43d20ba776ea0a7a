"""The server's life: loading, ready, stopping; and the way of a request through it."""

from __future__ import annotations

import asyncio
import enum
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from tars_rewards._version import __version__
from tars_rewards.server.body import Bodies, Patience
from tars_rewards.server.logs import log
from tars_rewards.server.metrics import Metrics
from tars_rewards.server.openrlhf import special_tokens
from tars_rewards.server.queue import Job, Queue, Work, stopping
from tars_rewards.server.refusal import Refusal
from tars_rewards.server.settings import ServerSettings
from tars_rewards.server.worker import Worker

if TYPE_CHECKING:
    from tars_rewards.scoring.scorer import Scorer

_READERS = 2  # threads that read bodies: they hold Python's lock most of the time
_Some = TypeVar("_Some", bound=Work)


class State(enum.Enum):
    """What the server is doing."""

    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class Service:
    """What the routes of one server share.

    Args:
        factory: Makes the scorer; called once, in a thread of its own, which the scorer never leaves.
        settings: The limits.
        on_failure: Called, in any thread, when the scorer could not be made or its thread died.

    Attributes:
        settings: The limits.
        metrics: What is counted.
        failure: What the scorer's thread died of.
    """

    def __init__(
        self, factory: Callable[[], Scorer], settings: ServerSettings, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self.settings = settings
        self.failure: BaseException | None = None
        self._queue = Queue(settings)
        self.metrics = Metrics(waiting=self._queue.waiting, ready=lambda: self.state is State.READY)
        self._bodies = Bodies(settings, self.metrics.buffered)
        self._worker = Worker(factory, self._queue, self.metrics, on_ready=self._loaded, on_failure=self._failed)
        self._on_failure = on_failure
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._state = State.LOADING
        self._changing = threading.Lock()
        self._jobs: set[Job] = set()
        self._busy = 0  # requests that are being answered
        self.special = re.compile("")
        self.identity: dict[str, Any] = {}

    @property
    def state(self) -> State:
        """What the server is doing."""
        return self._state

    def start(self) -> None:
        """Begin to load the scorer."""
        self._worker.start()

    async def answer(
        self,
        request: Request,
        read: Callable[[bytes], Sequence[_Some]],
        write: Callable[[list[Any]], bytes],
    ) -> bytes:
        """Answer a request: receive its body, read it in a thread, wait for its results.

        Args:
            request: The request.
            read: Makes work of the body.
            write: Makes the answer's body of the results.

        Raises:
            Refusal: See `queue`, `body` and `questions`; 503 unless the server is ready.
            ClientDisconnect: The client went away.
        """
        self._check_ready()
        deadline = time.monotonic() + self.settings.request_timeout
        self._busy += 1
        try:
            async with self._bodies.receive(request) as body, Patience(request, deadline) as patience:
                loop = asyncio.get_running_loop()
                work = await patience.wait(loop.run_in_executor(self._readers, read, body))
                self._check_ready()
                return write(await self._results(work, patience))
        finally:
            self._busy -= 1

    async def _results(self, work: Sequence[Work], patience: Patience) -> list[Any]:
        if not work:
            return []
        job = Job(work)
        self._jobs.add(job)  # first: should the scorer's thread die between the two, the job is among those it refuses
        try:
            self._queue.put(job)
            outcome = await patience.wait(job.future)
        except BaseException:
            self.metrics.dropped.inc(self._queue.withdraw(job))
            raise
        finally:
            self._jobs.discard(job)
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome

    def stop(self) -> None:
        """Accept nothing more; what was accepted goes on."""
        with self._changing:
            if self._state is not State.FAILED:
                self._state = State.STOPPING
        self._queue.close()

    async def drained(self) -> bool:
        """Wait for what was accepted, for as long as the settings allow.

        What is left over then is answered with status 503.

        Returns:
            Whether all of it was answered.
        """
        until = time.monotonic() + self.settings.grace_seconds
        while self._busy and time.monotonic() < until:
            await asyncio.sleep(0.02)
        left = list(self._jobs)
        for job in left:
            job.settle(stopping())
        return not left

    def close(self) -> bool:
        """Let go of the threads; returns whether the scorer's has ended."""
        self._queue.close()
        self._readers.shutdown(wait=False)
        return self._worker.join(1.0)

    def _check_ready(self) -> None:
        if self._state is State.LOADING:
            raise Refusal(503, "loading", "the model is being loaded; send the request again later", retry_after=5)
        if self._state is not State.READY:
            raise stopping()

    def _loaded(self, scorer: Scorer) -> None:
        config = scorer.config
        self.special = special_tokens(scorer.model, self.settings)
        self.identity = {
            "version": __version__,
            "model": None if scorer.model is None else scorer.model.family.name,
            "config": {
                name: getattr(config, name)
                for name in ("alpha", "beta", "format_weight", "answer_extractor", "layers", "seed")
            },
        }
        with self._changing:
            if self._state is State.LOADING:
                self._state = State.READY
        log(logging.INFO, "ready", **self.identity)

    def _failed(self, error: BaseException) -> None:
        self.failure = error
        with self._changing:
            self._state = State.FAILED
        self._queue.close()
        log(logging.ERROR, "the scorer's thread ended", error=error)
        for job in list(self._jobs):
            job.loop.call_soon_threadsafe(job.settle, stopping())
        self._on_failure()
