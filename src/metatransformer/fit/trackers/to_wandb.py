"""Weights & Biases: a run in ``wandb/`` beside the run folder, offline unless ``WANDB_MODE`` says otherwise.

``wandb sync`` sends an offline run later.
"""

import os
from collections.abc import Mapping
from typing import Any

from metatransformer.fit.trackers import Told


class Run:
    """One run there."""

    def __init__(self, told: Told) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        import wandb

        self.run: Any = wandb.init(
            project=told.project,
            name=told.folder.name,
            id=told.id,
            resume="allow",
            dir=str(told.folder.absolute().parent),
            config=dict(told.settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Tells values of one step."""
        self.run.log(dict(values), step=step)

    def end(self, scores: Mapping[str, float]) -> None:
        """Tells the last scores, and that the run is done."""
        self.run.summary.update(dict(scores))
        self.run.finish()
