"""A pipeline: everything between a record and its prediction, as one object that is saved and loaded as a folder.

The folder holds ``model.json`` (format number, recipe, learned transform state, task state, the trunk's name, hash,
fingerprint and shape), ``tokenizers/<modality>.safetensors``, ``heads/<task>.safetensors``, and ``encoder.safetensors``
only where the trunk was tuned or a standalone copy was asked for. No pickle anywhere.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Modality, Stem, Tokenizer, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.task import Task
from metatransformer.data.write import atomic_file, write_json
from metatransformer.model import MetaTransformer
from metatransformer.recipe import Recipe, keeps_trunk, to_dict
from metatransformer.tasks import get_task
from metatransformer.tasks.head import Head, Standardise
from metatransformer.trunk import Pretrained
from metatransformer.trunk.encoder import EncoderConfig

FORMAT = 1
ADAPTERS = Path("adapters/adapter_model.safetensors")  # PEFT's names


@dataclass(frozen=True)
class Reader:
    """A modality with its transform: records in, checked samples for the tokenizer out."""

    modality: Modality
    transform: Transform

    def sample(self, record: Record) -> View:
        """Returns the transformed, checked arrays of one record.

        Raises:
            DataError: the file or its content is not what the modality declares.
        """
        sample = self.transform(read_raw(self.modality, record))
        for name, field in self.modality.fields.items():
            field.check(sample.inputs[name], where=f"{record.key}: {name}")
        return sample


def read_raw(modality: Modality, record: Record) -> View:
    """Returns the raw arrays of one record."""
    return View(record.key, modality.load(record))


@dataclass
class Pipeline:
    """A modality's transform, the model and the task, with the identity of the trunk below them."""

    recipe: Recipe
    reader: Reader
    task: Task
    model: MetaTransformer
    trunk: Pretrained

    @property
    def modality(self) -> Modality:
        """The pipeline's one modality."""
        return self.reader.modality

    @property
    def transform(self) -> Transform:
        """The modality's fitted transform."""
        return self.reader.transform

    @property
    def head(self) -> Head:
        """The head of the pipeline's one task."""
        return self.model.head(self.recipe.task.name)

    @property
    def solves(self) -> bool:
        """Whether the head is solved on features, not trained by epochs."""
        return isinstance(self.head.norm, Standardise)

    def put_head(self, head: Head) -> None:
        """Sets another head in the place of the one that the model has."""
        self.model.heads[self.recipe.task.name] = head

    def save(self, folder: Path, *, metrics: dict[str, Any], standalone: bool = False) -> None:
        """Writes the folder; ``standalone`` includes the trunk although it was not tuned."""
        folder.mkdir(parents=True, exist_ok=True)
        for known in ("model.json", "embedder.json"):  # an earlier model's, which would vouch for half of this one
            (folder / known).unlink(missing_ok=True)
        name, task = self.modality.name, self.recipe.task.name
        _save(self.model.tokenizer(name), folder / "tokenizers" / f"{name}.safetensors")
        _save(self.head, folder / "heads" / f"{task}.safetensors")
        with_trunk = standalone or not keeps_trunk(self.recipe.tune)
        if with_trunk:
            _save(self.model.encoder, folder / "encoder.safetensors")
        if self.model.adapters is not None:
            _save_tensors(self.model.adapters.tensors(), folder / ADAPTERS)
            write_json(folder / ADAPTERS.parent / "adapter_config.json", self.model.adapters.config())
        description = {
            "format": FORMAT,
            "recipe": to_dict(self.recipe),
            "transform": self.transform.state(),
            "task": self.task.state(),
            "centres": self.head.centres,
            "norm": "standard" if isinstance(self.head.norm, Standardise) else "layer",
            "encoder": {
                "name": self.trunk.name,
                "sha256": self.trunk.sha256,
                "fingerprint": list(self.trunk.fingerprint),
                "licence": self.trunk.licence,
                "config": dataclasses.asdict(self.model.encoder.config),
                "stem": _stem_shapes(self.trunk.stem),
                "included": with_trunk,
                "bytes": self.model.encoder.bytes_hash(),
            },
            "metrics": metrics,
        }
        # Last, so that a folder with a model.json is complete.
        write_json(folder / "model.json", description)


def build_pipeline(
    recipe: Recipe,
    *,
    modality: Modality,
    trunk: Pretrained,
    samples: Iterable[View],
    targets: Sequence[Any],
) -> Pipeline:
    """Returns an untrained pipeline whose transform and task have learned from the raw training samples.

    The trunk is compared with itself after the model is complete: nothing may have touched it.
    """
    transform = modality.transform(recipe.input, trunk.stem)
    transform.fit(samples)
    task = make_task(recipe, modality=modality)
    task.fit(targets)
    centres = min(recipe.head.centres, len(targets))
    return assemble(recipe, modality=modality, trunk=trunk, transform=transform, task=task, centres=centres, norm="")


def make_task(recipe: Recipe, *, modality: Modality) -> Task:
    """Returns the unfitted task of a recipe; the metric is the modality's own unless the recipe names one.

    Raises:
        UsageError: an unknown task or metric.
    """
    options = recipe.task
    metric = options.metric or (modality.metric if options.name == modality.task else "")
    return get_task(options.name)(dataclasses.replace(options, metric=metric))


def read_blocks(recipe: Recipe, *, depth: int) -> tuple[int, ...]:
    """Returns the blocks that the head reads, counted from the front; the identity trunk (depth 0) has only 0.

    A fraction is a share of the depth, at least the first block.

    Raises:
        UsageError: a block beyond the trunk's depth, a share that is not between 0 and 1, or none.
    """
    if not recipe.head.read:
        raise UsageError("head.read", must="name at least one block", found="none")
    if depth == 0:
        return (0,)
    return tuple(_block(k, depth=depth) for k in recipe.head.read)


def _block(k: int | float, *, depth: int) -> int:
    if isinstance(k, float):
        if not 0 < k < 1:
            raise UsageError("head.read", must="hold shares between 0 and 1, or whole numbers", found=f"{k:g}")
        return max(1, round(k * depth))
    if not -depth <= k <= depth:
        raise UsageError("head.read", must=f"lie in -{depth}..{depth} for this trunk", found=str(k))
    return k if k >= 0 else depth + 1 + k


def narrowed(pipeline: Pipeline) -> Pipeline:
    """Returns the same model behind a new linear head of few features, to train through.

    Means over a grid become one mean beside the summary token. The model has that head from now on.
    """
    own = pipeline.recipe.head
    kind = "both" if own.pool in ("grid", "columns") else own.pool
    head = dataclasses.replace(own, pool=kind, centres=0)
    recipe = dataclasses.replace(pipeline.recipe, head=head)
    narrow = dataclasses.replace(pipeline, recipe=recipe)
    tokenizer = pipeline.model.tokenizer(pipeline.modality.name)
    with torch.random.fork_rng(devices=[]):  # its random start is replaced anyway
        narrow.put_head(_head(recipe, tokenizer, pipeline.task, config=pipeline.model.encoder.config, solved=True))
    return narrow


def assemble(
    recipe: Recipe,
    *,
    modality: Modality,
    trunk: Pretrained,
    transform: Transform,
    task: Task,
    centres: int,
    norm: str,
) -> Pipeline:
    """Returns a pipeline of what was learned or loaded; ``norm`` is that of a saved head, "" for a new one."""
    if not keeps_trunk(recipe.tune):
        trunk = trunk.own_copy()
    config = trunk.encoder.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        tokenizer = modality.tokenizer(recipe.input, transform, config.width, trunk.stem)
        # Where frozen features carry meaning, heads are solved on them whatever else learns.
        solved = norm == "standard" if norm else recipe.tune == "head" or (tokenizer.native and not recipe.head.hidden)
        head = _head(recipe, tokenizer, task, config=config, solved=solved, centres=centres if solved else 0)
    model = MetaTransformer(
        tokenizers={modality.name: tokenizer},
        encoder=trunk.encoder,
        heads={recipe.task.name: head},
    )
    trunk.encoder.require_untouched()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        model.tune(recipe.tune)
    return Pipeline(recipe, Reader(modality, transform), task, model, trunk)


def _head(
    recipe: Recipe, tokenizer: Tokenizer, task: Task, *, config: EncoderConfig, solved: bool, centres: int = 0
) -> Head:
    """Returns an untrained head; one that is solved standardises by statistics, others by a LayerNorm."""
    return Head(
        width=config.width,
        outputs=task.outputs,
        kind=recipe.head.pool,
        cells=recipe.head.cells,
        axes=tokenizer.axes,
        blocks=read_blocks(recipe, depth=config.depth),
        norm="standard" if solved else "layer",
        hidden=recipe.head.hidden,
        dropout=recipe.head.dropout,
        direct=tokenizer.direct,
        centres=centres,
        gamma=recipe.head.gamma,
    )


def _stem_shapes(stem: Stem) -> dict[str, Any]:
    shapes = {name: list(tensor.shape) for name, tensor in stem.tensors().items()}
    return {"shapes": shapes, "mean": stem.mean, "std": stem.std}


def _save(module: torch.nn.Module, path: Path) -> None:
    _save_tensors(module.state_dict(), path)


def _save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(plain, temporary)
