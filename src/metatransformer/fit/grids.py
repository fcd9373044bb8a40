"""Grids of frozen tokens that a head is trained on: computed once, along the directions in which they vary most.

They are kept in half precision, in files of the run folder where there is one, so that a killed run finds them again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from metatransformer.data.write import atomic_file
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.kits import Take
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.nn.grid import GridHead
from metatransformer.pipeline import Pipeline

DRAWN = 60_000  # tokens that directions are learned from
PILOT = 32  # samples that they are drawn of


@runtime_checkable
class Read(Protocol):
    """What hands the tokens of all samples to a ``Take``: ``infer.boxes.read_grids``, ``infer.dense.read_grids``."""

    def __call__(self, pipeline: Pipeline, loader: Loader, take: Take, *, console: Console, title: str) -> Tensor:
        """Returns what ``take`` makes of them, as rows in the loader's order."""
        ...


def grid_head(pipeline: Pipeline) -> GridHead:
    """Returns the head of the one task."""
    assert isinstance(pipeline.head, GridHead)
    return pipeline.head


class Grids(NamedTuple):
    """The reduced tokens of samples, in the order in which they came: ``tokens`` [N, K] in half precision, of sample i
    ``shapes[i]`` (h, w) from ``starts[i]`` on; ``sides[i]`` are its height and width in pixels.
    """

    tokens: np.ndarray
    shapes: np.ndarray
    starts: np.ndarray
    sides: np.ndarray

    def grid(self, row: int) -> Tensor:
        """Returns the tokens of a sample, ``[h, w, K]``."""
        height, width = self.shapes[row].tolist()
        part = self.tokens[self.starts[row] : self.starts[row] + height * width]
        return torch.from_numpy(np.array(part)).reshape(height, width, -1)


def padded(grids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns grids side by side ``[B, h, w, K]``, and where they are real ``[B, h, w]``."""
    height, width = (max(grid.shape[axis] for grid in grids) for axis in (0, 1))
    tokens = grids[0].new_zeros(len(grids), height, width, grids[0].shape[2])
    real = torch.zeros(len(grids), height, width, dtype=torch.bool)
    for row, grid in enumerate(grids):
        tokens[row, : grid.shape[0], : grid.shape[1]] = grid
        real[row, : grid.shape[0], : grid.shape[1]] = True
    return tokens, real


def _file(fitted: Fitted, context: Context, name: str) -> Path | None:
    """Returns where something is kept that a killed run finds again, None where nothing is."""
    if context.run is None or not context.run.writes:
        return None
    return context.run.checkpoint.parent / f"features-{fitted.pipeline.task_name}-{name}.pt"


def learn_directions(fitted: Fitted, *, read: Read, context: Context) -> None:
    """Lets the head learn along which directions tokens vary most, from some training samples."""
    head, train, path = grid_head(fitted.pipeline), fitted.loaders["train"], _file(fitted, context, "directions")
    if path is not None and path.is_file():
        head.norm.load_state_dict(torch.load(path, weights_only=True))
        return
    seed = fitted.pipeline.recipe.run.seed
    some = np.random.default_rng(seed).permutation(len(train))[:PILOT].tolist()
    part, found = train.part(some, tasks={}), []
    each, generator = -(-DRAWN // len(some)), torch.Generator().manual_seed(seed)

    def take(keys: Sequence[str], features: Tensor, real: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
        del sides
        for tokens, there in zip(features.cpu(), real.cpu(), strict=True):
            known = tokens[there]
            found.append(known[torch.randperm(len(known), generator=generator)[:each]])
        return torch.zeros(len(keys), 1)

    read(fitted.pipeline, part, take, console=context.console, title="directions of tokens")
    share = head.norm.to("cpu").learn(torch.cat(found))
    kept, features = head.norm.axes.shape[1], head.readout.features
    context.console.note(f"{kept} of {features:,} directions of a token keep {share:.0%} of its variance")
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as temporary:
            torch.save(head.norm.state_dict(), temporary)


def grids_of(fitted: Fitted, loader: Loader, name: str, *, read: Read, context: Context, title: str) -> Grids:
    """Returns the reduced tokens of samples, from the run folder when a killed run left them there as ``name``."""
    path = _file(fitted, context, name)
    if path is not None and path.is_file() and path.with_suffix(".f16").is_file():
        shapes, starts, sides = (column.numpy() for column in torch.load(path, weights_only=True))
        kept = np.memmap(path.with_suffix(".f16"), np.float16, "r")
        return Grids(kept.reshape(-1, grid_head(fitted.pipeline).kept), shapes, starts, sides)
    return _computed(fitted.pipeline, loader, path, read=read, console=context.console, title=title)


def _computed(
    pipeline: Pipeline, loader: Loader, path: Path | None, *, read: Read, console: Console, title: str
) -> Grids:
    """Returns the reduced tokens of samples; with a ``path`` they lie in a file beside it, not in memory."""
    head, rows = grid_head(pipeline), {key: row for row, key in enumerate(loader.examples.keys)}
    shapes, sides = (np.zeros((len(loader), 2), dtype=np.int64) for _ in range(2))
    starts, parts, done = np.zeros(len(loader), dtype=np.int64), [], 0
    kept = None if path is None else path.with_suffix(".f16")
    if kept is not None:
        kept.unlink(missing_ok=True)

    def take(keys: Sequence[str], features: Tensor, real: Tensor, own: Sequence[tuple[int, int]]) -> Tensor:
        nonlocal done
        for key, tokens, there, side in zip(keys, head.reduced(features).cpu(), real.cpu(), own, strict=True):
            row, grid = rows[key], tokens[there].numpy()
            shapes[row] = int(there.any(dim=1).sum()), int(there.any(dim=0).sum())
            starts[row], sides[row] = done, side
            done += len(grid)
            if kept is None:
                parts.append(grid)
            else:
                with kept.open("ab") as file:
                    file.write(grid.tobytes())
        return torch.zeros(len(keys), 1)

    read(pipeline, loader, take, console=console, title=title)
    if path is None or kept is None:
        return Grids(np.concatenate(parts), shapes, starts, sides)
    with atomic_file(path) as temporary:
        torch.save(tuple(map(torch.from_numpy, (shapes, starts, sides))), temporary)
    width = head.norm.axes.shape[1]
    return Grids(np.memmap(kept, np.float16, "r").reshape(-1, width), shapes, starts, sides)
