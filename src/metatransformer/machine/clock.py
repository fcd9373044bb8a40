"""How long something may take, how much of that is gone, and how much memory this process has taken."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """``seconds`` are allowed from ``begun`` (of ``time.monotonic``), infinitely many where there is no limit."""

    seconds: float = math.inf
    begun: float = field(default_factory=time.monotonic)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self.seconds)

    def left(self, share: float = 1.0) -> float:
        """Returns how many seconds are left until a share of the time is gone, below 0 behind that."""
        return self.begun + share * self.seconds - time.monotonic()

    def gone(self, share: float = 1.0) -> bool:
        """Returns whether a share of the time is gone."""
        return self.left(share) <= 0

    def while_left(self, items: Iterable[T], *, share: float) -> Iterator[T]:
        """Yields items, at least one, until they or a share of the time come to an end."""
        for item in items:
            yield item
            if self.gone(share):
                return


def duration(seconds: float) -> str:
    """Returns a time as people say it: ``40 seconds``, ``12 minutes``, ``3.5 hours``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def memory_gb() -> float:
    """Returns the most memory that this process has held, in GB (2**30 bytes); 0 where the system does not tell."""
    try:
        # Linux lets a program that a large process started inherit that one's maximum in getrusage.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
