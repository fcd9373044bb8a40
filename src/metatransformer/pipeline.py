"""A pipeline: everything between a record and its prediction or its vector, as one object that is saved as a folder.

The folder holds ``model.json`` (format number, recipe, learned state of transforms and tasks, the trunk's name, hash,
fingerprint and shape), ``tokenizers/<input>.safetensors``, ``heads/<task>.safetensors``, ``tasks/<task>.safetensors``
where a task has learned more than JSON should hold, and ``encoder.safetensors`` only where the trunk was tuned or a
standalone copy was asked for. No pickle anywhere. ``saved.py`` reads it back.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from metatransformer.core.boxes import BoxLabels
from metatransformer.core.errors import UsageError, nearest
from metatransformer.core.labels import PlaceLabels
from metatransformer.core.modality import Modality, Stem, Tokenizer, Transform
from metatransformer.core.readout import Facts, Readout
from metatransformer.core.samples import Record, View
from metatransformer.core.task import BoxTask, DenseTask, Task
from metatransformer.data.examples import Examples
from metatransformer.data.records import Views
from metatransformer.data.write import atomic_file, write_json
from metatransformer.modalities import get_modality
from metatransformer.model import MetaTransformer
from metatransformer.nn.beside import Beside, BesideFacts
from metatransformer.nn.detector import BoxHead
from metatransformer.nn.head import Head
from metatransformer.nn.lowrank import Adapters
from metatransformer.nn.queries import QueryHead
from metatransformer.readouts import READOUTS
from metatransformer.recipe import CHANGING, HeadOptions, Recipe, keeps_trunk, only, to_dict, tune_mode
from metatransformer.tasks import get_task
from metatransformer.trunk import Pretrained

FORMAT = 2
ADAPTERS = Path("adapters/adapter_model.safetensors")  # PEFT's names
ORIGINS = "origins.safetensors"


@dataclass(frozen=True)
class Reader:
    """A modality with its transform: records in, checked views for the tokenizer out.

    ``plain``: with the plain features, which a head reads; ``kit``: with the places of the whole sample, for tasks of
    that kit; ``always``: every training sample had this input.
    """

    modality: Modality
    transform: Transform
    plain: bool = False
    kit: str = ""
    always: bool = False

    def raw(self, record: Record) -> View:
        """Returns the raw arrays of one record."""
        return View(record.key, self.modality.load(record))

    def view(self, record: Record) -> View:
        """Returns the transformed, checked arrays of one record.

        Raises:
            DataError: the file or its content is not what the modality declares.
        """
        raw = self.raw(record)
        view = self.transform(raw)
        for name, field in self.modality.fields.items():
            field.check(view.inputs[name], where=f"{record.key}: {name}")
        view = dataclasses.replace(view, plain=self.modality.plain(raw, view)) if self.plain else view
        kit = self.modality.kit(self.kit) if self.kit else None
        if kit is None:
            return view
        places = kit.places(raw, view, self.transform)
        if isinstance(record.target, PlaceLabels | BoxLabels):
            record.target.require(kit.shape(places))
        return dataclasses.replace(view, places=places)


Route = Mapping[str, Reader]  # by input


@dataclass
class Pipeline:
    """How inputs are read, the model, and the tasks, with the identity of the trunk below them.

    One without tasks gives vectors only.
    """

    recipe: Recipe
    route: dict[str, Reader]
    tasks: dict[str, Task]
    model: MetaTransformer
    trunk: Pretrained

    @property
    def reader(self) -> Reader:
        """The reader of the one input."""
        return only(self.route, what="input")

    @property
    def modality(self) -> Modality:
        """The modality of the one input."""
        return only(self.route, what="input").modality

    @property
    def transform(self) -> Transform:
        """The fitted transform of the one input."""
        return self.reader.transform

    @property
    def task(self) -> Task:
        """The one task; ``of_task`` narrows a pipeline to one."""
        return only(self.tasks, what="task")

    @property
    def task_name(self) -> str:
        """What the one task is called in the recipe."""
        return only({name: name for name in self.tasks}, what="task")

    @property
    def head(self) -> Head:
        """The head of the one task."""
        return self.model.head(self.task_name)

    def of_task(self, name: str) -> "Pipeline":
        """Returns the same pipeline as one of this task alone."""
        own = self.of_set(self.recipe.set_of(name))
        if len(own.tasks) == 1:
            return own
        return dataclasses.replace(own, recipe=own.recipe.of_task(name), tasks={name: self.tasks[name]})

    def asked(self, task: str) -> "Pipeline":
        """Returns what was learned from the data set of a task; "" is enough where there is one data set.

        Raises:
            UsageError: there is no such task, or several data sets and none is named.
        """
        if task and task not in self.tasks:
            raise UsageError(
                "task", must=f"be one of {', '.join(self.tasks)}", found=repr(task), do=nearest(task, self.tasks)
            )
        if len(self.recipe.sets) > 1 and not task:
            must = f"name one task of a model of several data sets: {', '.join(self.tasks)}"
            raise UsageError("task", must=must, found="none")
        return self.of_set(self.recipe.set_of(task) if task else next(iter(self.recipe.sets), ""))

    def of_set(self, name: str) -> "Pipeline":
        """Returns the same pipeline as one of what was learned from one data set; "" is the only one."""
        if not name:
            return self
        recipe = self.recipe.of_set(name)
        route = {given: self.route[given] for given in recipe.inputs}
        return dataclasses.replace(
            self, recipe=recipe, route=route, tasks={task: self.tasks[task] for task in recipe.tasks}
        )

    def read_plain(self, wanted: Collection[str]) -> None:
        """Lets the readers of some inputs bring plain features, where their modality has them, and of no others."""
        for name, reader in self.route.items():
            self.route[name] = dataclasses.replace(reader, plain=name in wanted and reader.modality.beside)

    def save(self, folder: Path, *, metrics: Mapping[str, Any], standalone: bool = False) -> None:
        """Writes the folder; ``standalone`` includes the trunk although it was not tuned."""
        folder.mkdir(parents=True, exist_ok=True)
        for known in ("model.json", "embedder.json"):  # an earlier model's, which would vouch for half of this one
            (folder / known).unlink(missing_ok=True)
        model = self.model
        with_trunk = standalone or not keeps_trunk(self.recipe.tune)
        description = self._description(with_trunk=with_trunk)
        for name, about in description["inputs"].items():
            _save(model.tokenizer(name).state_dict(), folder / about["tokenizer"])
        for name, about in description["tasks"].items():
            _save(model.head(name).state_dict(), folder / about["head"])
            if "tensors" in about:
                _save(self.tasks[name].tensors(), folder / about["tensors"])
        if with_trunk:
            _save(model.encoder.state_dict(), folder / "encoder.safetensors")
        if origins := {name: origin for name, origin in model.origins.state_dict().items() if name in self.route}:
            _save(origins, folder / ORIGINS)
        if model.adapters is not None:
            _save(model.adapters.tensors(), folder / ADAPTERS)
            write_json(folder / ADAPTERS.parent / "adapter_config.json", model.adapters.config())
        # Last, so that a folder with a model.json is complete.
        write_json(folder / "model.json", description | {"metrics": metrics})

    def _description(self, *, with_trunk: bool) -> dict[str, Any]:
        heads = {name: self.model.head(name) for name in self.tasks}
        return {
            "format": FORMAT,
            "recipe": to_dict(self.recipe),
            "inputs": {
                name: {
                    "transform": reader.transform.state(),
                    "tokenizer": f"tokenizers/{name}.safetensors",
                    "always": reader.always,
                }
                for name, reader in self.route.items()
            },
            "tasks": {
                name: {
                    "state": task.state(),
                    "solved": heads[name].solved,
                    "centres": heads[name].centres,
                    **_parts(heads[name]),
                    "head": f"heads/{name}.safetensors",
                    **({"tensors": f"tasks/{name}.safetensors"} if task.tensors() else {}),
                }
                for name, task in self.tasks.items()
            },
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
        }


def _parts(head: Head) -> dict[str, Any]:
    """Returns what a head reads, where that is not the trunk alone."""

    def told(parts: torch.nn.Module) -> dict[str, Any]:
        return {key: dataclasses.asdict(part.facts) for key, part in parts.named_children() if isinstance(part, Beside)}

    lacking = {name: told(parts) for name, parts in head.lacking.items()}
    found = {"through": head.through, "beside": told(head.beside), **({"lacking": lacking} if lacking else {})}
    return found if found["beside"] or lacking else {}


@dataclass(frozen=True)
class HeadPlan:
    """How a task's head is built: ``solved`` on features or trained (None: as the tokenizers suggest), and how many
    ``centres`` its kernel has where it is solved, 0 = it is linear. It reads ``through`` the trunk, or plain features
    alone, or both; samples that are ``lacking`` an input are answered by others (``Head``).
    """

    solved: bool | None
    centres: int
    through: bool = True
    beside: Mapping[str, BesideFacts] = dataclasses.field(default_factory=dict)
    lacking: Mapping[str, Mapping[str, BesideFacts]] = dataclasses.field(default_factory=dict)


def build_pipeline(recipe: Recipe, *, trunk: Pretrained, examples: Examples) -> Pipeline:
    """Returns an untrained pipeline whose transforms and tasks have learned from the training samples.

    Raises:
        MetaTransformerError: what the data or the recipe must change.
    """
    route = {}
    for name in recipe.inputs:
        column = examples.inputs[name]
        reader = fit_reader(recipe, name, trunk=trunk, records=column.records)
        route[name] = dataclasses.replace(reader, always=column.places is None or bool((column.places >= 0).all()))
    tasks = {}
    for name in recipe.tasks:
        tasks[name] = make_task(recipe, name)
        tasks[name].fit([examples.targets[name][row] for row in examples.known(name)])
    solved = True if recipe.tune in ("head", "tokens") else None
    plans = {
        name: HeadPlan(solved, 0 if task.compares else min(recipe.head_of(name).centres, len(examples.known(name))))
        for name, task in tasks.items()
    }
    pipeline = assemble(recipe, trunk=trunk, route=route, tasks=tasks, plans=plans)
    pipeline.model.tune(recipe.tune)
    if any(reads_plain(pipeline, name) for name in tasks):
        pipeline.read_plain(route)
    return pipeline


def reads_plain(pipeline: Pipeline, task: str) -> bool:
    """Returns whether a head may read plain features: solved ones, of an input whose modality has them.

    Raises:
        UsageError: the recipe asks for them where they cannot be had.
    """
    asked, readers = pipeline.recipe.head_of(task).features, [*pipeline.route.values()]
    able = pipeline.recipe.tune in ("head", "tokens") and any(reader.modality.beside for reader in readers)
    if asked in ("plain", "both") and not able:
        must = "be 'auto' or 'trunk' but in tune mode 'head' or 'tokens' of an input that has plain features"
        raise UsageError("head.features", must=must, found=repr(asked))
    return able and asked != "trunk"


def plain_inputs(beside: Iterable[str]) -> set[str]:
    """Returns the inputs whose plain features are read, by what heads have beside the trunk."""
    return {key.removeprefix("plain:") for key in beside if key.startswith("plain:")}


def fit_reader(recipe: Recipe, name: str, *, trunk: Pretrained, records: Sequence[Record]) -> Reader:
    """Returns the reader of an input whose transform has learned from these records."""
    reader = make_reader(recipe, name, stem=trunk.stem)
    reader.transform.fit(Views(records, load=reader.modality.load))
    return reader


def make_reader(recipe: Recipe, name: str, *, stem: Stem) -> Reader:
    """Returns the reader of an input, which has learned nothing yet.

    Raises:
        UsageError: a setting that means nothing for these tasks.
    """
    modality, options = get_modality(recipe.inputs[name].modality), recipe.inputs[name].options
    tasks = recipe.tasks.items()
    kits = (kit for own, task in tasks if (kit := get_task(task.name).kit) and name in recipe.inputs_of(own))
    kit = next(kits, "")
    for key in () if kit == "dense" or modality.dense is None else modality.dense.settings:
        if getattr(options, key) != getattr(modality.options, key):  # of a dataclass, its default
            must = "be left alone but for a task that answers for every place"
            raise UsageError(f"input.{key}", must=must, found=str(getattr(options, key)))
    return Reader(modality, modality.transform(options, stem), kit=kit)


def make_task(recipe: Recipe, name: str) -> Task:
    """Returns an unfitted task of a recipe; the metric is the modality's own unless the recipe names one.

    Raises:
        UsageError: an unknown task or metric.
    """
    options = recipe.tasks[name]
    if not options.metric:
        # Of several inputs where they agree.
        kinds = [get_modality(given.modality) for given in recipe.of_set(recipe.set_of(name)).inputs.values()]
        own = {(modality.task, modality.metric) for modality in kinds}
        task, metric = own.pop() if len(own) == 1 else ("", "")
        options = dataclasses.replace(options, metric=metric if options.name == task else "")
    return get_task(options.name)(options)


def assemble(
    recipe: Recipe,
    *,
    trunk: Pretrained,
    route: dict[str, Reader],
    tasks: dict[str, Task],
    plans: Mapping[str, HeadPlan],
) -> Pipeline:
    """Returns a pipeline of what was learned or loaded; nothing here changes the trunk or draws its parameters."""
    kind, rank = tune_mode(recipe.tune)
    if kind in CHANGING:
        trunk = trunk.own_copy()  # others of this process may share it
    width = trunk.encoder.config.width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        tokenizers = {
            name: reader.modality.tokenizer(recipe.inputs[name].options, reader.transform, width, trunk.stem)
            for name, reader in route.items()
        }
        heads = {}
        for name, task in tasks.items():
            options = recipe.head_of(name)
            seen = {given: tokenizers[given] for given in recipe.inputs_of(name)}
            readout = readout_of(options, seen, trunk=trunk)
            # Where frozen features carry meaning, heads are solved on them whatever else learns.
            carries = all(tokenizer.native for tokenizer in seen.values()) and not options.hidden and readout.fixed
            solved = carries if plans[name].solved is None else plans[name].solved
            if solved and not readout.fixed:
                must = "have no parameters of its own in tune mode 'head', which solves heads on its features"
                do = "Use tune=ends, or another readout."
                raise UsageError("head.readout", must=must, found=f"'{readout.name}'", do=do)
            plan = dataclasses.replace(plans[name], solved=solved, centres=plans[name].centres if solved else 0)
            heads[name] = make_head(options, readout, task, plan=plan)
    trunk.encoder.require_untouched()
    adapters = _adapters(recipe, trunk, heads, rank=rank) if kind == "lora" else None
    model = MetaTransformer(
        tokenizers=tokenizers,
        encoder=trunk.encoder,
        heads=heads,
        adapters=adapters,
        meeting=recipe.meeting,
        apart=recipe.apart,
    )
    return Pipeline(recipe, route, tasks, model, trunk)


def readout_of(options: HeadOptions, inputs: Mapping[str, Tokenizer], *, trunk: Pretrained) -> Readout:
    """Returns a readout of the inputs with these tokenizers."""
    config = trunk.encoder.config
    facts = Facts(
        axes={name: tokenizer.axes for name, tokenizer in inputs.items()},
        blocks=read_blocks(options.read, depth=config.depth),
        width=config.width,
        pool=options.pool,
        cells=options.cells,
        direct={name: tokenizer.direct for name, tokenizer in inputs.items()},
        at_places=sum(tokenizer.at_places for tokenizer in inputs.values()),
    )
    return READOUTS.get(options.readout)(facts)


def make_head(options: HeadOptions, readout: Readout, task: Task, *, plan: HeadPlan) -> Head:
    """Returns an untrained head."""
    if isinstance(task, BoxTask):
        return BoxHead(readout, classes=task.outputs, width=task.width)
    if isinstance(task, DenseTask) and task.decoder == "queries":
        return QueryHead(readout, classes=task.outputs, width=task.width)
    head = Head(
        readout,
        outputs=task.outputs,
        solved=bool(plan.solved),
        hidden=options.hidden,
        dropout=options.dropout,
        centres=plan.centres,
        gamma=options.gamma,
    )
    made = {
        name: torch.nn.ModuleDict(
            {key: Beside(facts, outputs=task.outputs, gamma=options.gamma) for key, facts in parts.items()}
        )
        for name, parts in {"": plan.beside, **plan.lacking}.items()
    }
    head.beside = made.pop("")
    head.lacking = torch.nn.ModuleDict(made)
    if not plan.through:
        head.leave_trunk()
    return head


def _adapters(recipe: Recipe, trunk: Pretrained, heads: Mapping[str, Head], *, rank: int) -> Adapters:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        depth = max(block for head in heads.values() for block in head.readout.blocks)
        return Adapters(trunk.encoder, rank=rank, depth=depth)


def read_blocks(read: Sequence[int | float], *, depth: int) -> tuple[int, ...]:
    """Returns the blocks to read after, counted from the front; the identity trunk (depth 0) has only 0.

    A fraction is a share of the depth, at least the first block.

    Raises:
        UsageError: a block beyond the trunk's depth, a share that is not between 0 and 1, or none.
    """
    if not read:
        raise UsageError("head.read", must="name at least one block", found="none")
    if depth == 0:
        return (0,)
    for k in read:
        if isinstance(k, float) and not 0 < k < 1:
            raise UsageError("head.read", must="hold shares between 0 and 1, or whole numbers", found=f"{k:g}")
        if not -depth <= k <= depth:
            raise UsageError("head.read", must=f"lie in -{depth}..{depth} for this trunk", found=str(k))
    # A share, a block counted from the front, one counted from the back.
    return tuple(max(1, round(k * depth)) if isinstance(k, float) else k if k >= 0 else depth + 1 + k for k in read)


def _stem_shapes(stem: Stem) -> dict[str, Any]:
    shapes = {name: list(tensor.shape) for name, tensor in stem.tensors().items()}
    return {"shapes": shapes, "mean": stem.mean, "std": stem.std}


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(plain, temporary)
