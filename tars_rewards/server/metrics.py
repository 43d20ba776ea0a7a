"""What the server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one server, in a registry of their own, so that several servers in a process do not mix.

    Args:
        waiting: Returns how many questions and completions wait.
        ready: Returns whether the model is loaded and requests are accepted.
    """

    def __init__(self, *, waiting: Callable[[], tuple[int, int]], ready: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        own = {"namespace": "tars_rewards", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **own)
        self.request_seconds = Histogram(
            "request_seconds", "Time from a request's beginning to its answer.", ["route"], buckets=_SECONDS, **own
        )
        self.errors = Counter("errors", "Requests refused or failed, by the type in the answer.", ["type"], **own)
        self.questions = Counter("questions", "Questions scored.", **own)
        self.completions = Counter("completions", "Completions scored.", **own)
        self.failed = Counter("questions_failed", "Questions that could not be scored.", **own)
        self.dropped = Counter("questions_dropped", "Questions given up before they were scored.", **own)
        self.batch_questions = Histogram(
            "batch_questions", "Questions that were scored together.", buckets=_SIZES, **own
        )
        self.batch_completions = Histogram(
            "batch_completions", "Completions that were scored together.", buckets=_SIZES, **own
        )
        self.scoring_seconds = Counter("scoring_seconds", "Time spent scoring, in the model and in the reward.", **own)
        self.buffered = Gauge("buffered_bytes", "Bodies of requests that are not answered yet.", **own)
        Gauge("queue_questions", "Questions that wait.", **own).set_function(lambda: waiting()[0])
        Gauge("queue_completions", "Completions that wait.", **own).set_function(lambda: waiting()[1])
        Gauge("ready", "1: the model is loaded and requests are accepted.", **own).set_function(lambda: float(ready()))

    def page(self) -> tuple[bytes, str]:
        """All metrics, and the content type they are in."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
