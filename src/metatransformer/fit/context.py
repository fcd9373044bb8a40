"""What every part of a fit is given."""

from dataclasses import dataclass, replace

from metatransformer.fit.memo import Memo
from metatransformer.fit.run import RunFolder
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console


@dataclass(frozen=True)
class Context:
    """The run folder (None keeps everything in memory), the place among processes that train together, what was
    computed before and may be kept (None keeps nothing), and the console.
    """

    run: RunFolder | None
    place: Place
    memo: Memo | None
    console: Console

    def in_memory(self) -> "Context":
        """Returns the context of work that leaves nothing in the run folder."""
        return replace(self, run=None)
