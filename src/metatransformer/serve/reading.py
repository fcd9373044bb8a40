"""The process that reads: what a request brought becomes checked samples here, and nowhere else.

It starts with the modalities and what their transforms have learned, but without the trunk, and is restricted before
it sees a stranger's byte. A decoder that crashes or never ends takes this process with it, and no other.
"""

import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, MetaTransformerError
from metatransformer.core.modality import Transform
from metatransformer.core.samples import Sample
from metatransformer.data.examples import Examples
from metatransformer.data.given import Files, Items, Sheet
from metatransformer.infer.explain import Covered, cover
from metatransformer.infer.joined import read_dataset
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, Reader
from metatransformer.recipe import Recipe
from metatransformer.serve.sandbox import restrict


@dataclass(frozen=True)
class Asked:
    """What one request brings for one model: ``files`` that are a sample each, one ``table``, ``rows`` of one in which
    a ``Path`` names a file and no text does, or ``arrays``. All paths are the server's own. ``explained``: a task whose
    answer to the one sample is to be explained, and by how many places.
    """

    model: str
    files: Sequence[Path] = ()
    table: Path | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    arrays: Sequence[np.ndarray] = ()
    explained: tuple[str, int] = ("", 0)

    def given(self) -> Any:
        """Returns it as ``data.given`` has it."""
        if self.table is not None:
            return Sheet(self.table, strings=True)
        if self.rows:
            return Sheet(frame=pd.DataFrame(list(self.rows)), strings=True)
        if self.arrays:
            return Items(tuple(self.arrays))
        return Files(tuple(self.files), listed=len(self.files) > 1)


class Spec(NamedTuple):
    """How the samples of a model are read: its recipe, and by input what its transform has learned."""

    recipe: Recipe
    inputs: Mapping[str, tuple[Transform, bool, str]]

    @staticmethod
    def of(pipeline: Pipeline) -> "Spec":
        """Returns that of a pipeline."""
        readers = pipeline.route.items()
        return Spec(pipeline.recipe, {name: (one.transform, one.plain, one.kit) for name, one in readers})

    def route(self) -> dict[str, Reader]:
        """Returns its readers."""
        kinds = {name: get_modality(one.modality) for name, one in self.recipe.inputs.items()}
        return {name: Reader(kinds[name], *known) for name, known in self.inputs.items()}


class Most(NamedTuple):
    """What one request may decode to."""

    samples: int
    sample_bytes: int


class Read(NamedTuple):
    """Samples of a request with their keys and records, and what a person should be told."""

    examples: Examples
    samples: Sequence[Sample]
    notes: Sequence[str]
    covered: Covered | None = None


class Refused(NamedTuple):
    """What an error of ours says."""

    where: str
    must: str
    found: str
    do: str


def serve_samples(
    connection: Connection, specs: Mapping[str, Spec], most: Most, writable: Path, memory_bytes: int
) -> None:
    """Reads for one request after the other, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when it is over
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(writable)
    tempfile.tempdir = str(writable)
    routes = {name: spec.route() for name, spec in specs.items()}
    connection.send(restrict(writable=writable, memory_bytes=memory_bytes))
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        connection.send(_answer(asked, specs[asked.model].recipe, routes[asked.model], most))


def _answer(asked: Asked, recipe: Recipe, route: Mapping[str, Reader], most: Most) -> Read | Refused:
    try:
        return read(asked, recipe, route, most)
    except MetaTransformerError as error:
        return Refused(error.where, error.must, error.found, error.do)
    except MemoryError:
        return Refused("the request", "fit in the memory that a request may take", "more", "Send less at once.")


def read(asked: Asked, recipe: Recipe, route: Mapping[str, Reader], most: Most) -> Read:
    """Returns the checked samples of a request.

    Raises:
        MetaTransformerError: what the readers raise; more samples than a request may have.
    """
    found = read_dataset(asked.given(), recipe, labelled=False)
    examples, samples, size = found.examples, [], 0
    if len(examples) > most.samples:
        must = f"hold at most {most.samples:,} samples"
        raise DataError("a request", must=must, found=f"{len(examples):,}", do="Send several requests.")
    for row, key in enumerate(examples.keys):
        records = {name: column[row] for name, column in examples.inputs.items()}
        views = {name: None if record is None else route[name].view(record) for name, record in records.items()}
        samples.append(Sample(key, views))
        size += samples[-1].nbytes
        if size > most.sample_bytes:
            must = f"decode to at most {most.sample_bytes // 2**20:,} MB"
            raise DataError("a request", must=must, found=f"more after {row + 1} samples", do="Send fewer at once.")
    doubts = [doubt for reader in route.values() for doubt in reader.transform.doubts()]
    notes, (task, places) = (*found.notes, *doubts), asked.explained
    if not task:
        return Read(examples, samples, notes)
    if len(samples) != 1:
        raise DataError("a request", must="bring one sample to be explained", found=str(len(samples)))
    covered = cover(route, examples, 0, inputs=recipe.inputs_of(task), places=places)
    return Read(examples, samples, notes, covered.to_paint(route))
