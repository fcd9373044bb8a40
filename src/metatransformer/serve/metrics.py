"""What a server tells of itself, in Prometheus' form; each server has counts of its own."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "metatransformer", "registry": self.registry}
        self.requests = Counter("requests", "Answered requests.", ["route", "status"], **own)
        self.seconds = Histogram("request_seconds", "Until the answer.", ["route"], buckets=SECONDS, **own)
        self.rejected = Counter("rejected", "Requests that were not taken.", ["reason"], **own)
        self.waiting = Gauge("waiting", "Requests that wait or are answered.", **own)
        self.samples = Counter("samples", "Samples that a model has answered.", ["model"], **own)
        self.tokens = Counter("tokens", "Tokens that went into a trunk.", ["model"], **own)
        self.batches = Histogram("batch_samples", "Samples that were answered together.", buckets=COUNTS, **own)
        self.model = Histogram("model_seconds", "One batch in the model.", buckets=SECONDS, **own)
        self.decoding = Histogram("decode_seconds", "Reading one request's samples.", buckets=SECONDS, **own)
        self.restarts = Counter("decoder_restarts", "Readers that crashed or took too long.", **own)

    def text(self) -> bytes:
        """Returns all counts as Prometheus reads them."""
        return generate_latest(self.registry)
