"""What several fits of one process have in common: transformed views, and features of a frozen model.

Folds, seeds and controls of a benchmark read the same files and push most of them through the same frozen model again.
A ``Memo`` keeps what was computed, by everything that it depends on: the fitted transform, the bytes of tokenizer and
trunk, what the head reads, precision, backend. A fit that differs in any of these finds nothing and computes its own.
"""

import dataclasses
import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from metatransformer.core.samples import Record, View
from metatransformer.fit.store import FeatureStore
from metatransformer.infer.evaluate import Features, columns_of, compute_features
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline, Reader
from metatransformer.trunk.backends import chosen_backend
from metatransformer.trunk.encoder import bytes_hash

MODELS = 6  # whose features are kept: pretrained, no trunk, three random ones, and one more


class Memo:
    """Views (up to ``most_mb``) and feature vectors of the records of ONE data set, whose keys are unique in it."""

    def __init__(self, *, most_mb: int, store: FeatureStore | None = None) -> None:
        self._views: dict[Hashable, View] = {}
        self._features: dict[str, dict[str, tuple[Features, int]]] = {}  # by model, the last used one last
        self._left = most_mb * 2**20
        self._lock = Lock()
        self.store = store

    def route(self, pipeline: Pipeline) -> dict[str, Reader]:
        """Returns readers that look here first."""
        return {
            name: _Remembering(
                reader.modality,
                reader.transform,
                reader.plain,
                reader.kit,
                memo=self,
                state=_transform_state(pipeline, name),
            )
            for name, reader in pipeline.route.items()
        }

    def features(self, pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Features:
        """Returns ``compute_features`` without augmentation; computes only what is neither here nor on disk yet."""
        state = _model_state(pipeline)
        rows_of = self._features[state] = self._features.pop(state, {})
        for oldest in list(self._features)[:-MODELS]:
            del self._features[oldest]
        keys = list(loader.examples.keys)
        missing = [place for place, key in enumerate(keys) if key not in rows_of]
        samples: dict[int, bytes] = {}
        if missing and self.store is not None:
            samples = dict(zip(missing, self.store.samples(loader.part(missing, tasks={}).examples), strict=True))
            stored = self.store.find(state, [*samples.values()], columns=columns_of(pipeline))
            rows_of |= {keys[place]: stored[own] for place, own in samples.items() if own in stored}
            missing = [place for place in missing if samples[place] not in stored]
        if missing:
            some = loader.part(missing, tasks={})
            table = compute_features(pipeline, some, console=console, title=title)
            rows_of |= {keys[place]: (table, row) for row, place in enumerate(missing)}
            if self.store is not None:
                self.store.add(state, [samples[place] for place in missing], table, console=console)
        if known := len(keys) - len(missing):
            console.note(f"{title}: {known} of {len(keys)} were computed before")
        return _gathered([rows_of[key] for key in keys])

    def view(self, record: Record, *, state: str, reader: Reader) -> View:
        """Returns a transformed view, read by ``reader`` where it is not here yet."""
        key = (state, record.key)
        if key not in self._views:
            view = reader.view(record)
            with self._lock:
                if view.nbytes > self._left:
                    return view
                self._left -= view.nbytes
                self._views[key] = view
        return self._views[key]


@dataclass(frozen=True, kw_only=True)
class _Remembering(Reader):
    memo: Memo
    state: str

    def view(self, record: Record) -> View:
        return self.memo.view(
            record, state=self.state, reader=Reader(self.modality, self.transform, self.plain, self.kit)
        )


def _gathered(rows: Sequence[tuple[Features, int]]) -> Features:
    """Returns rows of several tables as one, in their order."""
    tables = {id(table): table for table, _ in rows}
    starts, parts, start = {}, [], 0
    for key, table in tables.items():
        starts[key] = start
        parts.append(table)
        start += len(table.trunk)
    places = torch.tensor([starts[id(table)] + row for table, row in rows])
    if len(parts) == 1 and torch.equal(places, torch.arange(len(parts[0].trunk))):
        return parts[0]
    return Features.cat(parts).take(places)


def _transform_state(pipeline: Pipeline, name: str) -> str:
    given, reader = pipeline.recipe.inputs[name], pipeline.route[name]
    known: list[Any] = [name, given.modality, dataclasses.asdict(given.options), reader.transform.state()]
    known += [reader.plain, reader.kit, pipeline.trunk.sha256]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=repr).encode()).hexdigest()


def _model_state(pipeline: Pipeline) -> str:
    """Returns all that the features of the one task depend on besides their samples."""
    recipe, model, facts = pipeline.recipe, pipeline.model, pipeline.head.readout.facts
    known: list[Any] = [_transform_state(pipeline, name) for name in pipeline.route]
    known += [recipe.head.readout, [*facts.axes.items()], facts.blocks, facts.pool, facts.cells, recipe.run.precision]
    known += [chosen_backend()]
    known.append(sorted(model.apart.intersection(facts.axes)))
    for module in (model.encoder, model.adapters, model.tokenizers, model.origins):
        known.append("" if module is None else bytes_hash(module))
    # What is no tensor: heads, eps, the normalisation of pixels.
    known += [dataclasses.asdict(model.encoder.config), pipeline.trunk.stem.mean, pipeline.trunk.stem.std]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
