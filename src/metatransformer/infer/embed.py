"""Embeddings: one vector a sample, by the tokens of a pipeline's inputs or by the features of its task."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from metatransformer.core.errors import UsageError
from metatransformer.core.readout import Readout
from metatransformer.data.examples import Examples
from metatransformer.infer.evaluate import compute_outputs, read_out
from metatransformer.infer.loader import Loader
from metatransformer.infer.sources import require_seen
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device, choose_precision, cpu_multiplies_int8
from metatransformer.modalities import get_modality
from metatransformer.nn.near import unit
from metatransformer.nn.pool import POOLS
from metatransformer.pipeline import Pipeline, Reader, assemble, fit_reader, make_reader, readout_of
from metatransformer.recipe import HeadOptions, Recipe, to_dict
from metatransformer.trunk import Pretrained, load_encoder
from metatransformer.trunk.backends import backend as computed_by
from metatransformer.trunk.backends import chosen_backend, has_openvino
from metatransformer.trunk.encoder import bytes_hash

FEATURES = "features"  # what the head of the pipeline's task predicts from
GAINS = 128  # samples from which a lower precision is worth its proof
CONVERTS = 4000  # from which OpenVINO is worth the half minute that it takes to convert a trunk
CONVERTS_WITHOUT = 1000  # the same on a processor without bfloat16, where each sample takes longer and gains more
PROBED = 16  # samples of it, and the least
FAITHFUL = 0.999  # cosine that they must have
OUTPUTS = "outputs"  # what it answers, where that is a vector


@runtime_checkable
class Vectors(Protocol):
    """What makes one vector a sample."""

    @property
    def width(self) -> int:
        """The length of a vector."""
        ...

    @property
    def modality(self) -> str:
        """What the samples are."""
        ...

    def metadata(self) -> dict[str, str]:
        """Returns what makes two vectors comparable, for the files that hold them."""
        ...

    def vectors(self, examples: Examples, console: Console) -> np.ndarray:
        """Returns one vector a sample, float32 ``[n, D]``."""
        ...


@dataclass(frozen=True)
class Embedding:
    """A pipeline with the readout that makes one vector of a sample; ``pool`` is its name.

    "outputs" are the vectors of a task that compares, behind the readout of its head. ``run`` is the folder that the
    pipeline was loaded from, ``task`` the one of several that was asked for; one that was made on the spot has none,
    and is told by its recipe. ``backend`` computes its trunk, None: the one that the caller chose.
    """

    pipeline: Pipeline
    readout: Readout
    pool: str
    run: str = ""
    task: str = ""
    backend: str | None = None

    @property
    def width(self) -> int:
        """The length of a vector."""
        return self.pipeline.task.outputs if self.pool == OUTPUTS else self.readout.features

    @property
    def modality(self) -> str:
        """The modalities of the inputs."""
        return " + ".join(reader.modality.name for reader in self.pipeline.route.values())

    @property
    def precision(self) -> str:
        """What its trunk is computed in."""
        return "int8" if self.backend == "int8" else self.pipeline.recipe.run.precision

    def vectors(self, examples: Examples, console: Console) -> np.ndarray:
        """Returns one vector a sample, float32 ``[n, D]``."""
        return embed(self, examples, console=console)

    def metadata(self) -> dict[str, str]:
        """Returns what makes two embeddings comparable, for the files that hold them."""
        trunk = self.pipeline.trunk
        return {
            "encoder": trunk.name,
            "sha256": trunk.sha256,
            "fingerprint": " ".join(f"{value:g}" for value in trunk.fingerprint),
            "pooling": self.pool,
            "precision": self.precision,
            "model": self.identity(),
            **({"task": self.task} if self.task else {}),
            **({"run": self.run} if self.run else {"recipe": json.dumps(self._made_of(), default=list)}),
        }

    def _made_of(self) -> dict[str, Any]:
        """Returns what ``remade`` makes the pipeline of again."""
        states = {name: reader.transform.state() for name, reader in self.pipeline.route.items()}
        return {"recipe": to_dict(self.pipeline.recipe), "transforms": states}

    def identity(self) -> str:
        """Returns the SHA-256 of all that a vector depends on besides its sample: settings, learned state, weights."""
        recipe, model, facts = to_dict(self.pipeline.recipe), self.pipeline.model, self.readout.facts
        states = {name: reader.transform.state() for name, reader in self.pipeline.route.items()}
        settings = [recipe.get("input"), recipe.get("inputs"), states, [*facts.axes], facts.blocks, facts.cells]
        settings += [apart] if (apart := sorted(model.apart.intersection(facts.axes))) else []
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode())
        tokenizers = nn.ModuleDict({name: model.tokenizer(name) for name in self.pipeline.route})
        for module in (tokenizers, model.origins, model.encoder, model.adapters):
            digest.update(b"" if module is None else bytes_hash(module).encode())
        if self.pool == OUTPUTS:
            digest.update(bytes_hash(self.pipeline.head).encode())
        elif not self.readout.fixed:
            digest.update(bytes_hash(self.readout).encode())
        return digest.hexdigest()


def untrained(recipe: Recipe, *, trunk: Pretrained, examples: Examples, learned: bool, console: Console) -> Pipeline:
    """Returns a pipeline without tasks, with the modalities' own untrained tokenizers.

    What transforms must know they learn from the samples where ``learned``; else only those of tables do, which cannot
    do without. Where a tokenizer did not come with the trunk, its random weights make the vectors random projections:
    the console says so loudly.
    """
    route = {}
    for name, one in recipe.inputs.items():
        if learned or get_modality(one.modality).source.kind == "table":
            require_seen(examples, name)
            route[name] = fit_reader(recipe, name, trunk=trunk, records=examples.inputs[name].records)
        else:
            route[name] = make_reader(recipe, name, stem=trunk.stem)
    return _without_tasks(recipe, trunk, route, console)


def remade(text: str, *, device: str, console: Console) -> Pipeline:
    """Returns the pipeline that the ``metadata`` of an embedding told of by its recipe.

    Raises:
        ValueError, KeyError, TypeError: the text is none of ours.
    """
    told = json.loads(text)
    tree = told["recipe"]
    recipe = Recipe.of({**tree, "run": {**tree["run"], "device": device}})
    trunk = load_encoder(recipe.encoder)
    route = {name: make_reader(recipe, name, stem=trunk.stem) for name in recipe.inputs}
    for name, reader in route.items():
        reader.transform.load_state(told["transforms"][name])
    return _without_tasks(recipe, trunk, route, console)


def _without_tasks(recipe: Recipe, trunk: Pretrained, route: dict[str, Reader], console: Console) -> Pipeline:
    pipeline = assemble(replace(recipe, tune="head"), trunk=trunk, route=route, tasks={}, plans={})
    pipeline.model.requires_grad_(False).eval()
    for name in untrained_inputs(pipeline):
        modality = pipeline.route[name].modality.name
        console.warn(
            f"the {modality} tokenizer was never trained on {modality} data: these vectors depend on its "
            "random start. Fit a model first (tune=ends) and embed with it."
        )
    return pipeline


def untrained_inputs(pipeline: Pipeline) -> list[str]:
    """Returns the inputs of a pipeline without tasks whose tokenizers did not come with the trunk."""
    return [] if pipeline.tasks else [name for name in pipeline.route if not pipeline.model.tokenizer(name).native]


def embedding(pipeline: Pipeline, *, pool: str, run: str = "", task: str = "", precision: str = "float32") -> Embedding:
    """Returns an embedding by a pipeline: ``pool`` is how the tokens after the last block become a vector, or
    "features" for those that its task's head predicts from; "" is "outputs" for a task that compares, "features" for
    others, the recipe's own without a task. ``precision`` is that of a pipeline with a task; another's is its recipe's.

    Raises:
        UsageError: an unknown pooling, or features without a task.
    """
    choices = (*POOLS, *_own_pools(pipeline))
    pool = pool or (choices[-1] if pipeline.tasks else pipeline.recipe.head.pool)
    if pool not in choices:
        raise UsageError("pool", must=f"be one of {', '.join(choices)}", found=repr(pool))
    if pipeline.tasks:
        pipeline = _in_precision(pipeline, precision)
    if pool in (FEATURES, OUTPUTS):
        return Embedding(pipeline, pipeline.head.readout, pool, run, task)
    options = replace(HeadOptions(cells=pipeline.recipe.head.cells), pool=pool)  # type: ignore[arg-type]
    tokenizers = {name: pipeline.model.tokenizer(name) for name in pipeline.route}
    return Embedding(pipeline, readout_of(options, tokenizers, trunk=pipeline.trunk), pool, run, task)


def settled(model: Embedding, examples: Examples, *, backend: str = "eager", console: Console) -> Embedding:
    """Returns the embedding by a backend, and in a lower precision instead of "auto" where the device multiplies it
    natively, there are enough samples to gain by it, and some of them have nearly the vectors that they have in
    float32; else in float32. The backend "auto" is OpenVINO where it is installed and there are samples enough.

    The lower precision is bfloat16, or with OpenVINO on processors that lack it int8.
    """
    run, count = model.pipeline.recipe.run, len(examples)
    device = choose_device(run.device)
    halves = choose_precision("auto", device=device) == torch.bfloat16
    if backend == "auto":
        enough = count >= (CONVERTS if halves else CONVERTS_WITHOUT)
        converts = enough and device.type == "cpu" and has_openvino()
        backend = "openvino" if converts and model.pipeline.model.adapters is None else "eager"
    if backend != "eager":
        console.note(f"backend {backend}: the first batch takes a while (--backend eager begins at once)")
    model = replace(model, backend=backend)
    if run.precision != "auto":
        return model
    exact = replace(model, pipeline=_in_precision(model.pipeline, "float32"))
    if halves:
        fast = replace(model, pipeline=_in_precision(model.pipeline, "bfloat16"))
    elif backend == "openvino" and device.type == "cpu" and cpu_multiplies_int8():
        fast = replace(exact, backend="int8")
    else:
        return exact
    return _faithful(exact, fast, examples, console) if count >= GAINS and backend != "int8" else exact


def _faithful(exact: Embedding, fast: Embedding, examples: Examples, console: Console) -> Embedding:
    """Returns the fast one if some samples have nearly the same vectors by both; else the exact one."""
    some, quiet = examples.take(np.linspace(0, len(examples) - 1, PROBED).astype(int)), Console(quiet=True)
    pair = replace(exact, backend="eager"), fast
    one, other = (unit(torch.from_numpy(embed(each, some, console=quiet))) for each in pair)
    nearness = float((one * other).sum(dim=1).min())
    found = f"cosine {nearness:.5f} or more to float32 on {PROBED} samples"
    if nearness < FAITHFUL:
        console.note(f"precision float32: {fast.precision} has {found}, asked are {FAITHFUL:g}")
        return exact
    console.note(f"precision {fast.precision}: {found} (--precision float32 for the last digits)")
    return fast


def _in_precision(pipeline: Pipeline, name: str) -> Pipeline:
    run = replace(pipeline.recipe.run, precision=name)  # type: ignore[arg-type]
    return replace(pipeline, recipe=replace(pipeline.recipe, run=run))


def _own_pools(pipeline: Pipeline) -> tuple[str, ...]:
    """Returns the vectors that only a pipeline with tasks has, the usual one last."""
    if not pipeline.tasks:
        return ()
    return (FEATURES, OUTPUTS) if all(task.compares for task in pipeline.tasks.values()) else (FEATURES,)


def embed(model: Embedding, examples: Examples, *, console: Console) -> np.ndarray:
    """Returns one vector a sample, float32 ``[n, D]``, in the order of the samples."""
    loader = Loader(model.pipeline.route, examples, cache_mb=0, tasks={})
    with computed_by(model.backend or chosen_backend()):
        if model.pool == OUTPUTS:
            return unit(compute_outputs(model.pipeline, loader, console=console, title="embedding")).numpy()
        return read_out(model.pipeline, model.readout, loader, console=console, title="embedding").numpy()
