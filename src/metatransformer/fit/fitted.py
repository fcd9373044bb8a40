"""What a fit leaves behind."""

from dataclasses import dataclass, field
from typing import Any

import torch

from metatransformer.infer.loader import Loader
from metatransformer.pipeline import Pipeline


@dataclass
class Fitted:
    """A trained pipeline with its scores: ``metrics[split][name]``, and what was logged on the way.

    ``kept`` is the position in ``history`` of the head or epoch that was kept, None where nothing was trained.
    """

    pipeline: Pipeline
    loaders: dict[str, Loader]
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: int | None = None
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


def refits(pipeline: Pipeline) -> bool:
    """Returns whether the head is fitted again on training and validation samples together, once it is chosen."""
    return pipeline.solves and pipeline.recipe.optim.refit


def stays_untuned(fitted: Fitted) -> bool:
    """Returns whether training by epochs was no gain, and the model is the one that tune mode ``head`` makes."""
    return fitted.pipeline.recipe.tune != "head" and fitted.pipeline.solves and fitted.kept == 0
