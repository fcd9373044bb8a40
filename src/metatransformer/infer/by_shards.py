"""Vectors or predictions of many samples, shard by shard: each is made by whoever comes, whole or not at all.

A shard is a stretch of the samples that the manifest beside it fixes (``data/shards.py``). What is made of it does not
depend on who makes it, so kills cost what was under way, and nothing is there twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, MetaTransformerError, UsageError
from metatransformer.data.examples import Examples
from metatransformer.data.remote import Mirror, is_url
from metatransformer.data.shards import SHARD_ROWS, WHOLE, EmbeddingShards, Part, open_shards
from metatransformer.infer.embed import embedding
from metatransformer.infer.predict import predict
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.trunk.encoder import bytes_hash

Rows = np.ndarray | pd.DataFrame  # vectors [n, D], or a table of n predictions


@runtime_checkable
class Maker(Protocol):
    """What makes a row of each sample: ``Vectors``, or ``Predictions``. ``width`` is that of a vector, 0 of a table."""

    @property
    def width(self) -> int:
        """The length of a vector."""
        ...

    @property
    def modality(self) -> str:
        """What the samples are."""
        ...

    def metadata(self) -> dict[str, str]:
        """Returns what makes two rows comparable, for the files that hold them."""
        ...

    def vectors(self, examples: Examples, console: Console) -> Rows:
        """Returns one row a sample."""
        ...


@dataclass(frozen=True)
class Predictions:
    """What predicts by one task, as a maker of rows; ``run`` is the folder of the model."""

    pipeline: Pipeline
    run: str
    width: int = 0

    @property
    def modality(self) -> str:
        """The modalities of the inputs."""
        return " + ".join(reader.modality.name for reader in self.pipeline.route.values())

    def metadata(self) -> dict[str, str]:
        """Returns what makes two predictions comparable."""
        model = embedding(self.pipeline, pool="features").identity() + bytes_hash(self.pipeline.head)
        return {"model": model, "task": self.pipeline.task_name, "run": self.run}

    def vectors(self, examples: Examples, console: Console) -> pd.DataFrame:
        """Returns the table of ``predict``."""
        return predict(self.pipeline, examples, console=console)


@dataclass(frozen=True)
class Work:
    """What any shard is made of: by whom, of which samples, where it goes, and whether one ``skips`` samples that
    cannot be read, and tells them in a file of errors, or ends there.
    """

    model: Maker
    examples: Examples
    shards: EmbeddingShards
    skips: bool = False

    def make(self, shard: int, console: Console) -> int:
        """Makes one shard and returns how many of its samples were left out.

        Raises:
            DataError: the first sample that cannot be read, where none is skipped.
        """
        rows, errors = self._rows(self.shards.rows(shard), console)
        self.shards.write(shard, found=rows, errors=errors)
        return len(errors)

    def _rows(self, rows: range, console: Console) -> tuple[Rows, dict[int, str]]:
        """Returns what is made of all rows but those with errors; halves find these."""
        try:
            return self.model.vectors(self.examples.take(rows), console), {}
        except DataError as error:
            if not self.skips:
                raise
            if len(rows) == 1:
                none = np.zeros((0, self.model.width), dtype=np.float32) if self.model.width else pd.DataFrame()
                return none, {rows[0]: str(error)}
        quiet, middle = Console(quiet=True), len(rows) // 2
        (one, errors), (other, more) = (self._rows(half, quiet) for half in (rows[:middle], rows[middle:]))
        return _joined(one, other), errors | more


def _joined(one: Rows, other: Rows) -> Rows:
    if isinstance(one, pd.DataFrame) and isinstance(other, pd.DataFrame):
        return pd.concat([part for part in (one, other) if len(part)] or [one], ignore_index=True)
    return np.concatenate([one, other])


# Makes the given shards of a work, and returns how many samples were left out.
Engine = Callable[[Work, Sequence[int], Console], int]


def one_by_one(work: Work, pending: Sequence[int], console: Console) -> int:
    """Makes shards in this process, in order."""
    return sum(work.make(shard, console) for shard in pending)


class Made(NamedTuple):
    """Where the rows are, how many rows an earlier, killed call had ``done``, how many are ``left`` to other processes,
    and how many this call ``skipped``: the file of ``errors`` says why.
    """

    place: str
    done: int
    left: int
    skipped: int
    errors: str


def make_shards(
    model: Maker,
    examples: Examples,
    out: Path | str,
    *,
    part: Part = WHOLE,
    shard_rows: int = SHARD_ROWS,
    skips: bool = False,
    engine: Engine = one_by_one,
    mirrors: Sequence[Mirror] = (),
    console: Console,
) -> Made:
    """Writes what is made of samples as Parquet, at a path or behind a URL.

    Each shard is written whole or not at all, and the same call again continues behind the last one. Only a call that
    makes all of them, not a ``part``, puts the shards into one file. ``mirrors`` hold samples that lie behind a URL.

    Raises:
        DataError: a sample that cannot be read, where none is skipped.
        UsageError: shards without rows; what ``open_shards`` refuses.
    """
    if shard_rows < 1:
        raise UsageError("--shard-rows", must="be at least 1", found=str(shard_rows))
    shards = open_shards(
        out,
        ids=list(examples.keys),
        paths=_paths(examples, mirrors),
        modality=model.modality,
        width=model.width,
        metadata={**model.metadata(), "data": examples.identity()},
        shard_rows=shard_rows,
        part=part,
    )
    pending = shards.pending()
    done = len(examples) - sum(len(shards.rows(shard)) for shard in shards.missing())
    if done:
        console.note(f"{done} of {len(examples)} rows are done already")
    try:
        skipped = engine(Work(model, examples, shards, skips), pending, console) if pending else 0
    except MetaTransformerError:
        if part == WHOLE:
            shards.abandon()
        raise
    left = sum(len(shards.rows(shard)) for shard in shards.missing())
    place = shards.finish() if part == WHOLE else shards.folder
    if is_url(out):
        return Made(str(out), done, left, skipped, f"{out}/{shards.errors.name}")
    return Made(str(place), done, left, skipped, str(shards.errors))


def _paths(examples: Examples, mirrors: Sequence[Mirror]) -> list[str | None]:
    """Returns where the first input of each sample lies."""
    first, found = next(iter(examples.inputs.values())), []
    for row in range(len(examples)):
        record = first[row]
        path = None if record is None else record.path
        urls = [mirror.url_of(path) for mirror in mirrors if path is not None and mirror.holds(path)]
        found.append(urls[0] if urls else None if path is None else str(path))
    return found
