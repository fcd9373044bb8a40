"""The model of one task as one module of tensors alone: tokenizers, trunk, pooling, normalisation, head, answer.

It takes batches of samples of one shape (``core.uniform``), each of which has every input. The axes that differ from
sample to sample stay free, and so does their number.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from metatransformer.core.batch import Batch
from metatransformer.core.errors import UsageError
from metatransformer.core.fields import Field
from metatransformer.core.tokens import Tokens
from metatransformer.core.uniform import uniform
from metatransformer.nn.beside import Beside, WordWeights
from metatransformer.nn.head import Head
from metatransformer.nn.patch import PatchEmbedding
from metatransformer.nn.pool import pool
from metatransformer.pipeline import Pipeline
from metatransformer.tasks.regress import Regress

PLAIN = "plain"  # the field of plain features
OUTPUTS = ("outputs", "answer")
ANSWERED = ("classify", "regress", "multilabel", "forecast")
MOST = 2**20  # of the length of a free axis
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
CHECKS = {torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default}


@dataclass(frozen=True)
class Entry:
    """One tensor that the graph takes: the ``field`` of an ``input``, ``size`` numbers a sample where it is plain."""

    input: str
    field: str
    declared: Field

    def name(self, *, alone: bool) -> str:
        """Returns what the graph calls it; of several inputs each is named."""
        return self.field if alone else f"{self.input}.{self.field}"


class _Seen(dict[str, Any]):
    """A mapping that remembers what was asked for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


def entries_of(pipeline: Pipeline, batch: Batch) -> list[Entry]:
    """Returns what the graph of a model takes: the fields that its tokenizers look at, by a batch as an example, and
    plain features where its head reads them.
    """
    found = []
    for name in pipeline.model.tokenizers:
        if name not in pipeline.route:
            continue
        part, tokenizer = batch.parts[name], pipeline.model.tokenizer(name)
        fields, seen = tokenizer.uniform_fields(pipeline.route[name].modality.fields), _Seen(part.inputs)
        if reads_trunk(pipeline.head):
            with torch.no_grad():
                tokenizer(seen, part.masks)
        found += [Entry(name, field, declared) for field, declared in fields.items() if field in seen.asked]
        if f"plain:{name}" in pipeline.head.beside:
            found.append(Entry(name, PLAIN, Field("p", "float32", summary="plain features, which the head reads too")))
    return found


def reads_trunk(head: Head) -> bool:
    """Returns whether a head reads anything of the trunk, and not plain features alone."""
    return head.through or any(key.startswith("trunk:") for key in head.beside)


def require_exportable(pipeline: Pipeline) -> None:
    """Refuses what has no graph.

    Raises:
        UsageError: a task whose answers are of parts of samples or of other samples; a readout of another package.
    """
    task, readout = pipeline.task, pipeline.head.readout
    if task.name not in ANSWERED:
        must = f"be one of {', '.join(ANSWERED)} to be exported"
        raise UsageError(f"task '{pipeline.task_name}'", must=must, found=task.name, do="Use 'predict' for it.")
    if readout.name != "pooled":
        raise UsageError("head.readout", must="be 'pooled' to be exported", found=repr(readout.name))


class Graph(nn.Module):
    """Tensors in the order of ``entries`` -> ``outputs``, as the head gives them, and the ``answer``: probabilities, or
    numbers in the target's unit.
    """

    def __init__(self, pipeline: Pipeline, entries: Sequence[Entry]) -> None:
        super().__init__()
        require_exportable(pipeline)
        self.model = pipeline.model
        self.head = pipeline.head
        self.task = pipeline.task
        self.entries = tuple(entries)
        self.inputs = tuple(self.head.readout.facts.axes)
        self.columns = {
            key.partition(":")[2]: self._columns(key) for key in self.head.beside if key.startswith("trunk:")
        }

    def _columns(self, key: str) -> list[int]:
        beside = self.head.beside[key]
        assert isinstance(beside, Beside)
        return self.head.columns(key.partition(":")[2])[: beside.facts.features].tolist()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``outputs`` ``[B, outputs]`` and ``answer`` of the same shape."""
        with uniform():
            outputs = self._outputs(tensors)
            return outputs, self._answer(outputs)

    def _outputs(self, tensors: Sequence[Tensor]) -> Tensor:
        given: dict[str, dict[str, Tensor]] = {name: {} for name in self.inputs}
        for entry, tensor in zip(self.entries, tensors, strict=True):
            given[entry.input][entry.field] = tensor
        features = None
        if reads_trunk(self.head):
            features = self._features(given, count=tensors[0].shape[0])
        parts = [] if features is None or not self.head.through else [self.head.predict(features)]
        return reduce(torch.add, [*parts, *self._beside(given, features)])

    def _features(self, given: Mapping[str, Mapping[str, Tensor]], *, count: int) -> Tensor:
        """Returns what ``readouts.pooled`` makes of samples that have every input."""
        facts = self.head.readout.facts
        tokens = {name: self._tokens(name, given[name]) for name in self.inputs}
        layers = self._layers(tokens)
        vectors = []
        for parts in layers:
            for name in self.inputs:
                part = replace(parts[name], samples=None)
                rows = pool(part, kind=facts.pool, cells=facts.cells)
                several = parts[name].samples is not None
                vectors.append(rows.unflatten(0, (count, -1)).mean(dim=1) if several else rows)
        if len(self.inputs) > 1:
            vectors.append(torch.ones_like(vectors[0][:, :1]).expand(-1, len(self.inputs)))
        direct = [part.direct for part in tokens.values() if part.direct is not None]
        return torch.cat([*vectors, *direct], dim=1)

    def _tokens(self, name: str, given: Mapping[str, Tensor]) -> Tokens:
        inputs = {field: tensor for field, tensor in given.items() if field != PLAIN}
        masks = {}
        for entry in self.entries:
            if entry.input == name and entry.field != PLAIN:
                tensor = inputs[entry.field]
                shape = [tensor.shape[0], *(tensor.shape[1 + axis] for axis in entry.declared.ragged)]
                masks[entry.field] = torch.ones(shape, dtype=torch.bool)
        tokens = self.model.tokenizer(name)(inputs, masks).named(name)
        if name in self.model.origins:
            tokens = replace(tokens, x=tokens.x + self.model.origins[name])
        return tokens

    def _layers(self, tokens: Mapping[str, Tokens]) -> list[dict[str, Tokens]]:
        """Returns the tokens of each input after each block that is read."""
        if len(tokens) == 1 or self.model.apart.intersection(self.inputs):
            each = {name: self._through(part, [name]) for name, part in tokens.items()}
            return [{name: each[name][k] for name in tokens} for k in range(len(self.head.readout.blocks))]
        if any(part.samples is not None for part in tokens.values()):
            must, found = "have one row a sample where inputs see each other in the trunk", "several of an input"
            raise UsageError("recipe key 'fusion'", must=must, found=found, do="Fit with fusion=features.")
        found = []
        for joint in self._through(Tokens.cat(list(tokens.values())), list(tokens)):
            parts = {name: joint.part(name) for name in tokens}
            found.append({name: part for name, part in parts.items() if part is not None})
        return found

    def _through(self, tokens: Tokens, names: Sequence[str]) -> list[Tokens]:
        masked = any(self.model.tokenizer(name).hides for name in names)
        after = self.head.readout.blocks
        encoder, mask = self.model.encoder, tokens.mask if masked else None
        return [replace(tokens, x=x) for x in encoder(tokens.x, mask, after=after, adapters=self.model.adapters)]

    def _beside(self, given: Mapping[str, Mapping[str, Tensor]], features: Tensor | None) -> Iterator[Tensor]:
        """Yields what heads beside the trunk's add."""
        for key, beside in self.head.beside.items():
            assert isinstance(beside, Beside)
            source, _, name = key.partition(":")
            if source == "trunk":
                assert features is not None
                yield beside(features[:, self.columns[name]])
            elif isinstance(beside.norm, WordWeights):
                yield _of_words(beside, beside.norm, given[name][PLAIN])
            else:
                yield beside(given[name][PLAIN])

    def _answer(self, outputs: Tensor) -> Tensor:
        if self.task.name == "classify":
            return outputs.softmax(dim=1)
        if self.task.name == "multilabel":
            return outputs.sigmoid()
        scale, shift = (self.task.std_, self.task.mean_) if isinstance(self.task, Regress) else (1.0, 0.0)
        return outputs * scale + shift  # always a tensor of its own: OpenVINO knows outputs by their names


def _of_words(beside: Beside, words: WordWeights, counts: Tensor) -> Tensor:
    """Returns what counts ``[B, words]`` of the words that are read add, as ``Beside`` does for sparse ones."""
    weighed = torch.where(counts > 0, (1 + counts.clamp(min=1).log()) * words.idf, 0.0)
    length = weighed.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
    return (weighed / length) @ beside.last.weight.T + beside.last.bias


def plain_of(pipeline: Pipeline, batch: Batch, name: str) -> Tensor:
    """Returns the plain features of a batch as the graph takes them: dense, and of words the columns that are read."""
    beside = pipeline.head.beside[f"plain:{name}"]
    assert isinstance(beside, Beside)
    plain = batch.plain(name, size=beside.facts.features)
    if not isinstance(beside.norm, WordWeights):
        return plain
    return plain.index_select(1, beside.norm.columns.long()).to_dense()


def tensors_of(pipeline: Pipeline, batch: Batch, entries: Sequence[Entry]) -> list[Tensor]:
    """Returns a batch as the tensors that the graph takes."""
    inputs = {name: pipeline.model.tokenizer(name).uniform_inputs(part.inputs) for name, part in batch.parts.items()}
    return [
        plain_of(pipeline, batch, entry.input) if entry.field == PLAIN else inputs[entry.input][entry.field]
        for entry in entries
    ]


def traced(graph: Graph, tensors: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Returns the graph with free axes; ``tensors`` are an example.

    Checks of sizes are left out: those of torch hold an axis of length 1 for another kind of axis.
    """
    sizes = _Sizes(graph)
    shaped, free = [], []
    for entry, tensor in zip(graph.entries, tensors, strict=True):
        axes = {0: sizes.axis("batch", range(1, MOST))} | {1 + a: sizes.of(entry, a) for a in entry.declared.ragged}
        shape = [axes[axis][0] if axis in axes else size for axis, size in enumerate(tensor.shape)]
        shaped.append(torch.zeros(shape, dtype=tensor.dtype))
        free.append({axis: dim for axis, (_, dim) in axes.items()})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, for those who wrote it
        program = torch.export.export(
            graph, tuple(shaped), dynamic_shapes=(tuple(free),), prefer_deferred_runtime_asserts_over_guards=True
        )
    for node in list(program.graph.nodes):
        if node.target in CHECKS:
            program.graph.erase_node(node)
    for symbol, limits in program.range_constraints.items():
        program.range_constraints[symbol] = type(limits)(1, limits.upper)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


class _Sizes:
    """Lengths of free axes for the example that is traced: all unlike, so that none is taken for another."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[str, tuple[int, Any]] = {}

    def of(self, entry: Entry, axis: int) -> tuple[int, Any]:
        """Returns length and symbol of an axis of a field; fields of one input share axes of one name."""
        name = entry.declared.names[axis].removesuffix("*")
        tokenizer = self.graph.model.tokenizer(entry.input)
        patches = getattr(tokenizer, "patches", None)
        if (limits := tokenizer.lengths.get(name)) or not isinstance(patches, PatchEmbedding):
            return self.axis(f"{entry.input}_{name}", limits or range(1, MOST))
        side = max(patches.size)  # torch wants to trace at least two patches
        return self.axis(f"{entry.input}_{name}", range(side + 1, MOST), scale=side)

    def axis(self, name: str, limits: range, *, scale: int = 1) -> tuple[int, Any]:
        """Returns length and symbol of the axis of this name."""
        if name not in self.known:
            count, step = PRIMES[len(self.known)] * scale, limits.step
            least, most = -(-limits.start // step), limits[-1] // step
            symbol = torch.export.Dim(name if step == 1 else f"{name}_{step}", min=least, max=most)
            size = min(least + count, most) * step
            self.known[name] = size, symbol if step == 1 else step * symbol
        return self.known[name]
