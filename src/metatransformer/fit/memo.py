"""What several fits of one process have in common: transformed samples, and features of a frozen model.

Folds, seeds and controls of a benchmark read the same files and push most of them through the same frozen model again.
A ``Memo`` keeps what was computed, by everything that it depends on: the fitted transform, the bytes of tokenizer and
trunk, what the head reads, the precision. A fit that differs in any of these finds nothing and computes its own.
"""

import dataclasses
import hashlib
import json
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from metatransformer.core.samples import Record, View
from metatransformer.infer.evaluate import compute_features
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline, Reader
from metatransformer.trunk.encoder import bytes_hash

MODELS = 6  # whose features are kept: pretrained, no trunk, three random ones, and one more


class Memo:
    """Samples (up to ``most_mb``) and feature vectors of the records of ONE data set, whose keys are unique in it."""

    def __init__(self, *, most_mb: int) -> None:
        self._samples: dict[Hashable, View] = {}
        self._features: dict[str, dict[str, Tensor]] = {}  # by model, the last used one last
        self._left = most_mb * 2**20

    def reader(self, pipeline: Pipeline) -> Reader:
        """Returns a reader that looks here first."""
        return _Remembering(pipeline.modality, pipeline.transform, memo=self, state=_transform_state(pipeline))

    def features(self, pipeline: Pipeline, loader: Loader, *, console: Console, title: str) -> Tensor:
        """Returns ``compute_features`` without augmentation; computes only what is not here yet."""
        state = _model_state(pipeline)
        rows_of = self._features[state] = self._features.pop(state, {})
        for oldest in list(self._features)[:-MODELS]:
            del self._features[oldest]
        keys = loader.records.keys
        missing = [place for place, key in enumerate(keys) if key not in rows_of]
        if missing:
            some = loader.part(missing)
            rows = compute_features(pipeline, some, console=console, title=title)
            rows_of |= {keys[place]: row for place, row in zip(missing, rows, strict=True)}
        if known := len(keys) - len(missing):
            console.note(f"{title}: {known} of {len(keys)} were computed before")
        return torch.stack([rows_of[key] for key in keys])

    def sample(self, record: Record, *, state: str, reader: Reader) -> View:
        """Returns a transformed sample, read by ``reader`` where it is not here yet."""
        key = (state, record.key)
        if key not in self._samples:
            sample = reader.sample(record)
            size = sample.nbytes
            if size > self._left:
                return sample
            self._left -= size
            self._samples[key] = sample
        return self._samples[key]


@dataclass(frozen=True)
class _Remembering(Reader):
    memo: Memo
    state: str

    def sample(self, record: Record) -> View:
        return self.memo.sample(record, state=self.state, reader=Reader(self.modality, self.transform))


def _transform_state(pipeline: Pipeline) -> str:
    recipe = pipeline.recipe
    known = [recipe.modality, dataclasses.asdict(recipe.input), pipeline.transform.state(), pipeline.trunk.sha256]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=repr).encode()).hexdigest()


def _model_state(pipeline: Pipeline) -> str:
    recipe, model = pipeline.recipe, pipeline.model
    known = [_transform_state(pipeline), recipe.head.pool, recipe.head.read, recipe.head.cells, recipe.run.precision]
    known += [model.encoder.bytes_hash(), bytes_hash(model.tokenizer(recipe.modality))]
    # What is no tensor: heads, eps, the normalisation of pixels.
    known += [dataclasses.asdict(model.encoder.config), pipeline.trunk.stem.mean, pipeline.trunk.stem.std]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
