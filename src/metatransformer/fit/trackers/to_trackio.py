"""trackio: a run in its own local folder (``TRACKIO_DIR``), which ``trackio show`` opens."""

import os
from collections.abc import Mapping
from typing import Any

from metatransformer.fit.trackers import Told


class Run:
    """One run there."""

    def __init__(self, told: Told) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when it is imported
        import trackio

        self.run: Any = trackio.init(
            project=told.project,
            name=told.id,
            config=dict(told.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Tells values of one step."""
        self.run.log(dict(values), step=step)

    def end(self, scores: Mapping[str, float]) -> None:
        """Tells the last scores, and that the run is done."""
        self.run.log(dict(scores))
        self.run.finish()
