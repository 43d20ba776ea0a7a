"""What the server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_NAMESPACE = "tars_rewards"
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
        registry = self.registry

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, labels, namespace=_NAMESPACE, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace=_NAMESPACE, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(name, text, labels, namespace=_NAMESPACE, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests answered.", ["route", "status"])
        self.request_seconds = histogram(
            "request_seconds", "Time from a request's beginning to its answer.", _SECONDS, ["route"]
        )
        self.errors = counter("errors", "Requests refused or failed, by the type in the answer.", ["type"])
        self.questions = counter("questions", "Questions scored.")
        self.completions = counter("completions", "Completions scored.")
        self.failed = counter("questions_failed", "Questions that could not be scored.")
        self.dropped = counter("questions_dropped", "Questions given up before they were scored.")
        self.batch_questions = histogram("batch_questions", "Questions that were scored together.", _SIZES)
        self.batch_completions = histogram("batch_completions", "Completions that were scored together.", _SIZES)
        self.scoring_seconds = counter("scoring_seconds", "Time spent scoring, in the model and in the reward.")
        self.buffered = gauge("buffered_bytes", "Bodies of requests that are not answered yet.")
        gauge("queue_questions", "Questions that wait.").set_function(lambda: waiting()[0])
        gauge("queue_completions", "Completions that wait.").set_function(lambda: waiting()[1])
        gauge("ready", "1: the model is loaded and requests are accepted.").set_function(lambda: float(ready()))

    def page(self) -> tuple[bytes, str]:
        """All metrics, and the content type they are in."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
