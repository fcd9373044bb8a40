"""Embeddings: one vector a sample, by a pretrained trunk with its native tokenizer or by a trained model."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.core.errors import MetaTransformerError, UsageError
from metatransformer.core.modality import Tokenizer
from metatransformer.core.samples import Record
from metatransformer.data.identity import data_identity
from metatransformer.data.records import Records, Views
from metatransformer.data.shards import open_shards
from metatransformer.infer.evaluate import run_batches
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.nn.lowrank import Adapters
from metatransformer.nn.pool import POOLS, pool, pooled_width
from metatransformer.pipeline import Pipeline, Reader
from metatransformer.recipe import Recipe, to_dict
from metatransformer.trunk import Pretrained
from metatransformer.trunk.encoder import Encoder, bytes_hash


@dataclass
class EmbeddingModel:
    """Reader, tokenizer and trunk, with the pooling that makes one vector of a sample's tokens."""

    recipe: Recipe
    reader: Reader
    tokenizer: Tokenizer
    trunk: Pretrained
    pool: str
    adapters: Adapters | None = None

    @property
    def width(self) -> int:
        """The length of a vector."""
        width, axes = self.trunk.encoder.config.width, self.tokenizer.axes
        return pooled_width(width, kind=self.pool, cells=self.recipe.head.cells, axes=axes)

    def compute(self) -> Callable[[Mapping[str, Batch]], Tensor]:
        """Returns the function from a batch to its vectors, ready on the recipe's device."""
        device = choose_device(self.recipe.run.device)
        tokenizer = self.tokenizer.to(device).eval()
        encoder: Encoder = self.trunk.encoder.to(device).eval()
        if self.adapters is not None:
            self.adapters.to(device)

        def vectors(batches: Mapping[str, Batch]) -> Tensor:
            (batch,) = batches.values()
            tokens = encoder.encode(tokenizer(batch.inputs, batch.masks), adapters=self.adapters)
            return pool(tokens, kind=self.pool, cells=self.recipe.head.cells)

        return vectors

    def metadata(self) -> dict[str, str]:
        """Returns what makes two embeddings comparable, for the files that hold them."""
        return {
            "encoder": self.trunk.name,
            "sha256": self.trunk.sha256,
            "fingerprint": " ".join(f"{value:g}" for value in self.trunk.fingerprint),
            "pooling": self.pool,
            "precision": self.recipe.run.precision,
            "model": self.identity(),
        }

    def identity(self) -> str:
        """Returns the SHA-256 of all that a vector depends on besides its sample: settings, learned state, weights."""
        settings = [to_dict(self.recipe)["input"], self.reader.transform.state()]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
        for module in (self.tokenizer, self.trunk.encoder, self.adapters):
            digest.update(b"" if module is None else bytes_hash(module).encode())
        return digest.hexdigest()


def pretrained_embedder(
    recipe: Recipe, *, trunk: Pretrained, reader: Reader, pool: str, console: Console
) -> EmbeddingModel:
    """Returns an embedder with the modality's untrained tokenizer; ``reader`` has learned what it must learn.

    Where the tokenizer did not come with the trunk, its random weights make the vectors random projections: the console
    says so loudly.

    Raises:
        UsageError: an unknown pooling.
    """
    if pool not in POOLS:
        raise UsageError("pool", must=f"be one of {', '.join(POOLS)}", found=repr(pool))
    modality = reader.modality
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        width = trunk.encoder.config.width
        tokenizer = modality.tokenizer(recipe.input, reader.transform, width, trunk.stem)
    trunk.encoder.require_untouched()
    if not tokenizer.native:
        console.warn(
            f"the {modality.name} tokenizer was never trained on {modality.name} data: these vectors depend on its "
            "random start. Fit a model first (tune=ends) and embed with it."
        )
    return EmbeddingModel(recipe, reader, tokenizer, trunk, pool)


def trained_embedder(pipeline: Pipeline, *, pool: str) -> EmbeddingModel:
    """Returns an embedder with a trained pipeline's tokenizer and trunk; float32, for vectors are compared."""
    tokenizer = pipeline.model.tokenizer(pipeline.modality.name)
    adapters = pipeline.model.adapters
    recipe = replace(pipeline.recipe, run=replace(pipeline.recipe.run, precision="float32"))
    return EmbeddingModel(recipe, pipeline.reader, tokenizer, pipeline.trunk, pool, adapters)


def embed(model: EmbeddingModel, records: Sequence[Record], *, console: Console) -> np.ndarray:
    """Returns one vector a record, float32 ``[n, D]``, in the order of the records."""
    loader = Loader(model.reader, records, cache_mb=0, task=None)
    rows = run_batches(model.compute(), loader, model.recipe, console=console, title="embedding")
    return rows.numpy()


def embed_to(model: EmbeddingModel, records: Sequence[Record], out: Path, *, console: Console) -> tuple[Path, int]:
    """Writes vectors and ids as Parquet; returns the place and how many rows an earlier, killed call had finished.

    Each shard is written whole or not at all, and the same call again continues behind the last one.
    """
    records = Records.of(records)
    shards = open_shards(
        out,
        ids=records.keys,
        paths=records.paths,
        modality=model.reader.modality.name,
        width=model.width,
        metadata={**model.metadata(), "data": data_identity(records)},
    )
    pending = shards.pending()
    done = len(records) - sum(len(shards.rows(shard)) for shard in pending)
    if done:
        console.note(f"{done} of {len(records)} rows are done already")
    for shard in pending:
        rows = shards.rows(shard)
        part = records[rows.start : rows.stop]
        try:
            shards.write(shard, embeddings=embed(model, part, console=console))
        except MetaTransformerError:
            shards.abandon()
            raise
    return shards.finish(), done


def fit_reader(reader: Reader, records: Sequence[Record]) -> Reader:
    """Lets the reader's transform learn from these records and returns it."""
    reader.transform.fit(Views(records, load=reader.modality.load))
    return reader
