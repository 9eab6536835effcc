"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server; each has a registry of its own.

    >>> metrics = Metrics()
    >>> metrics.answered("/search", 200, 0.01)
    >>> b'cderetrieval_requests_total{route="/search",status="200"} 1.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("cderetrieval_requests", "Requests.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "cderetrieval_request_seconds", "Time of requests.", ["route"], buckets=SECONDS, registry=registry
        )
        self._refused = Counter("cderetrieval_refused", "Requests refused for want of room.", registry=registry)
        self._sizes = Histogram(
            "cderetrieval_batch_size", "Questions that were answered together.", buckets=SIZES, registry=registry
        )
        ProcessCollector(registry=registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when metrics are read."""
        Gauge(f"cderetrieval_{name}", text, registry=self._registry).set_function(value)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self) -> None:
        """Count a request that found no room."""
        self._refused.inc()

    def batch(self, size: int) -> None:
        """Count questions that were answered together."""
        self._sizes.observe(size)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
