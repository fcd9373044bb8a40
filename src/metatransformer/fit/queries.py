"""Fit of a segmentation whose masks come from queries: trained by epochs on tokens that the frozen trunk gave once.

Of each training sample the same labelled places are learned in every epoch, half of them drawn from its classes alike,
weighed as those of a solved head. What chooses the epoch are places of the validation split, drawn as they come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatransformer.core.batch import Batch, Part, Target
from metatransformer.core.modality import Dense
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted
from metatransformer.fit.grids import Grids, grids_of, learn_directions, padded
from metatransformer.fit.train import Trainer
from metatransformer.infer.dense import choose_places, dense_task, read_grids
from metatransformer.infer.kits import kit_of
from metatransformer.infer.loader import Batches, Place
from metatransformer.model import MetaTransformer
from metatransformer.nn.queries import QueryHead

EACH = 2048  # places of a sample that are learned


class Known(NamedTuple):
    """Grids of samples, and of each the flat numbers of some places and their classes, both ``[n, m]``."""

    grids: Grids
    chosen: np.ndarray
    classes: Tensor


def _known(fitted: Fitted, split: str, context: Context) -> Known:
    loader, task = fitted.loaders[split], dense_task(fitted.pipeline)
    seed = fitted.pipeline.recipe.run.seed
    grids = grids_of(fitted, loader, split, read=read_grids, context=context, title=f"tokens, {split}")
    kit = kit_of(fitted.pipeline, Dense)
    for labels, sides in zip(loader.examples.targets[fitted.pipeline.task_name], grids.sides, strict=True):
        labels.require(kit.shape(sides))
    pairs = [
        choose_places(task, labels, count=EACH, balanced=split == "train", seed=(seed, row))
        for row, labels in enumerate(loader.examples.targets[fitted.pipeline.task_name])
    ]
    chosen, classes = (np.stack(column) for column in zip(*pairs, strict=True))
    return Known(grids, chosen, torch.from_numpy(classes))


class Grounds:
    """Training samples as batches of tokens, in an order that follows from seed and epoch."""

    def __init__(self, fitted: Fitted, known: Known) -> None:
        pipeline, self.known = fitted.pipeline, known
        self.name, (self.input,) = pipeline.task_name, pipeline.recipe.inputs_of(pipeline.task_name)
        self.keys = list(fitted.loaders["train"].examples.keys)

    def steps(self, *, batch_size: int, place: Place) -> int:
        """Returns how many batches an epoch has."""
        del place
        return -(-len(self.keys) // batch_size)

    def epoch(
        self, *, batch_size: int, seed: int, epoch: int, augment: bool, drop: float, place: Place, skip: int
    ) -> Batches:
        """Yields the batches of one epoch, the first ``skip`` left out (they were done before a kill)."""
        del augment, drop, place
        order = np.random.default_rng([seed, epoch]).permutation(len(self.keys))
        for start in range(skip * batch_size, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield chosen, self._batch(chosen.tolist())

    def _batch(self, rows: Sequence[int]) -> Batch:
        tokens, real = padded([self.known.grids.grid(row) for row in rows])
        part = Part({"tokens": tokens}, {"tokens": real})
        return Batch(tuple(self.keys[row] for row in rows), {self.input: part}, {self.name: Target(torch.tensor(rows))})


@dataclass(frozen=True)
class Masking:
    """The loss on a batch of ``Grounds``: cross entropy at known places, whose classes have ``weights``."""

    input: str
    task: str
    dense: Dense
    known: Known
    weights: Tensor

    def step(self, model: MetaTransformer, batch: Batch) -> Tensor:
        """Returns the weighed mean over all places of the batch."""
        part, rows = batch.parts[self.input], batch.targets[self.task].values.cpu()
        outputs = _at_known(model, self, part, rows.tolist())
        wanted = self.known.classes[rows].flatten().to(outputs.device)
        with torch.autocast(outputs.device.type, enabled=False):
            return F.cross_entropy(outputs.flatten(0, 1), wanted, weight=self.weights.to(outputs.device))


def _at_known(model: MetaTransformer, about: Masking, part: Part, rows: Sequence[int]) -> Tensor:
    """Returns log odds ``[B, m, C]`` at the known places of some samples."""
    head, known = model.head(about.task), about.known
    assert isinstance(head, QueryHead)
    maps, found = head.maps(part.inputs["tokens"], part.masks["tokens"]), []
    for place, row in enumerate(rows):
        height, width = (2 * known.grids.shapes[row]).tolist()
        found.append(about.dense.at(maps[place, :height, :width], known.grids.sides[row], known.chosen[row]))
    return torch.stack(found)


class MaskTrainer(Trainer):
    """Trains on kept tokens, and validates on known places of the validation split."""

    about: Masking  # of that split

    @torch.no_grad()
    def _scores(self) -> dict[str, float]:
        self.model.eval()
        grids, size, outputs = self.about.known.grids, self.recipe.data.batch_size, []
        for start in range(0, len(grids.shapes), size):
            rows = list(range(start, min(start + size, len(grids.shapes))))
            tokens, real = padded([grids.grid(row) for row in rows])
            part = Part({"tokens": tokens}, {"tokens": real}).to(self.device)
            outputs.append(_at_known(self.model, self.about, part, rows).cpu())
        found = torch.cat(outputs).flatten(0, 1)
        return dense_task(self.pipeline).places.metrics(found, self.about.known.classes.flatten())


def fit_queries(fitted: Fitted, context: Context) -> None:
    """Trains the head of the one task, and keeps the best epoch by the validation split."""
    pipeline, task = fitted.pipeline, dense_task(fitted.pipeline)
    learn_directions(fitted, read=read_grids, context=context)
    train, val = (_known(fitted, split, context) for split in ("train", "val"))
    (name,), dense = pipeline.recipe.inputs_of(pipeline.task_name), kit_of(pipeline, Dense)
    weights = _weights(task.places.importance(train.classes.flatten()), train.classes.flatten(), task.outputs)
    trainer = MaskTrainer(
        pipeline,
        Masking(name, pipeline.task_name, dense, train, weights),
        train=Grounds(fitted, train),
        val=fitted.loaders["val"],
        start_loss=None,
        context=context,
    )
    trainer.about = Masking(name, pipeline.task_name, dense, val, weights)
    progress = trainer.fit()
    fitted.outcome.history, fitted.outcome.kept = progress.history, progress.kept
    pipeline.model.eval()


def _weights(importance: Tensor, classes: Tensor, count: int) -> Tensor:
    """Returns how much each class counts, 0 where no place has it."""
    found = torch.zeros(count)
    found[classes] = importance
    return found
