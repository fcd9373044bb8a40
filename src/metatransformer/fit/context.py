"""What every part of a fit is given."""

from dataclasses import dataclass, field, replace

from metatransformer.fit.memo import Memo
from metatransformer.fit.run import RunFolder
from metatransformer.infer.loader import Place
from metatransformer.machine.clock import Clock
from metatransformer.machine.console import Console


@dataclass(frozen=True)
class Context:
    """The run folder (None keeps everything in memory), the place among processes that train together, what was
    computed before and may be kept (None keeps nothing), the console, and how long the fit may take.
    """

    run: RunFolder | None
    place: Place
    memo: Memo | None
    console: Console
    clock: Clock = field(default_factory=Clock)

    def in_memory(self) -> "Context":
        """Returns the context of work that leaves nothing in the run folder."""
        return replace(self, run=None)
