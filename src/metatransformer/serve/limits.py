"""What a server takes at most, and how long it waits."""

from dataclasses import dataclass

from metatransformer.core.errors import UsageError
from metatransformer.machine.device import processors

MB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    ``body_bytes`` of a request, ``files`` and ``samples`` in it, ``sample_bytes`` of what they decode to; ``queue``
    requests that wait or are answered, beyond which a client is told to come again; ``wait_s`` for others to answer
    together, up to ``tokens`` at once; ``receive_s`` for a whole body, ``decode_s`` for one request's samples, by
    ``decoders`` processes that may take ``memory_bytes`` each beside what they start with.
    """

    body_bytes: int = 32 * MB
    files: int = 64
    samples: int = 1000
    sample_bytes: int = 256 * MB
    queue: int = 64
    wait_s: float = 0.008
    tokens: int = 4096
    receive_s: float = 30.0
    decode_s: float = 20.0
    decoders: int = 0
    memory_bytes: int = 2048 * MB

    def __post_init__(self) -> None:
        for name in ("body_bytes", "files", "samples", "queue", "tokens", "receive_s", "decode_s", "memory_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"serve: {name}", must="be above 0", found=str(getattr(self, name)))
        if self.wait_s < 0 or self.decoders < 0:
            raise UsageError("serve: wait and decoders", must="not be below 0", found=f"{self.wait_s}, {self.decoders}")

    @property
    def readers(self) -> int:
        """How many processes decode: as asked, or one for every two processors, and two at least: one may be stuck."""
        return self.decoders or max(2, processors() // 2)
