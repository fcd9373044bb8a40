"""What a server answers with: saved models, plain embeddings of an encoder, and the model of an index."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.data.examples import Examples
from metatransformer.data.stored import Stored, open_stored
from metatransformer.infer.embed import Embedding, embedding, untrained, untrained_inputs
from metatransformer.infer.search import model_of
from metatransformer.machine.console import Console
from metatransformer.modalities import usable_modalities
from metatransformer.pairs.space import has_space
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import make_recipe
from metatransformer.saved import load_pipeline
from metatransformer.trunk import load_encoder

INDEX = "index"  # the model that made the vectors of an index
NOTHING = Examples(keys=[], inputs={}, targets={}, splits=[], groups=[])


@dataclass(frozen=True)
class Hosted:
    """One model: a pipeline of one data set, and how it makes vectors. One of an ``encoder`` alone has no tasks."""

    name: str
    pipeline: Pipeline
    vectors: Embedding
    encoder: str = ""

    @property
    def modality(self) -> str:
        """The modality of its one input, "" of several."""
        kinds = [reader.modality.name for reader in self.pipeline.route.values()]
        return kinds[0] if len(kinds) == 1 else ""

    def about(self) -> dict[str, Any]:
        """Returns what a client needs to know of it, as JSON values."""
        trunk = self.pipeline.trunk
        return {
            "name": self.name,
            "kind": "encoder" if self.encoder else "model",
            "inputs": {
                name: {"modality": one.modality, "columns": list(one.columns)}
                for name, one in self.pipeline.recipe.inputs.items()
            },
            "tasks": {
                name: {
                    "kind": task.name,
                    "metric": task.primary,
                    **({"classes": [str(one) for one in classes]} if (classes := task.state().get("classes")) else {}),
                }
                for name, task in self.pipeline.tasks.items()
            },
            "width": self.vectors.width,
            "pool": self.vectors.pool,
            "encoder": trunk.name,
            "licence": trunk.licence,
        }


@dataclass(frozen=True)
class Index:
    """Vectors that ``embed`` wrote, and the model that made them."""

    stored: Stored
    hosted: Hosted


def about_modality(modality: Modality, models: Sequence[str]) -> dict[str, Any]:
    """Returns what a client needs to know to hand in samples of a modality."""
    source = modality.source
    return {
        "name": modality.name,
        "title": modality.title or modality.name.capitalize(),
        "summary": modality.summary,
        "units": modality.units,
        "suffixes": [suffix for suffix in (*source.suffixes, *source.inside) if suffix],
        "takes": ["files", *(["rows"] if source.kind == "table" or source.continues else [])]
        + (["texts"] if source.named else []) + ([] if source.kind == "table" else ["arrays"]),
        "models": list(models),
    }  # fmt: skip


def load_hosted(runs: Sequence[str], *, trunk: str, encoder: str, device: str, console: Console) -> dict[str, Hosted]:
    """Returns the models of run folders (``RUN`` or ``NAME=RUN``) and of an encoder, by name.

    ``trunk`` is the file of the runs' trunk, where it was moved.

    Raises:
        UsageError: nothing to serve, two of one name, or a run that is no model.
        DataError, WeightsError: what ``load_pipeline`` and ``load_encoder`` raise.
    """
    if not runs and not encoder:
        raise UsageError("serve", must="get a RUN, or --encoder E", found="neither")
    found: dict[str, Hosted] = {}
    each = [one for run in runs for one in _of_run(run, trunk=trunk, device=device)]
    for one in [*each, *(_of_encoder(encoder, device=device) if encoder else ())]:
        if one.name in found or one.name == INDEX:
            do = "Name them: serve FIRST=RUN SECOND=RUN."
            raise UsageError("serve RUN...", must="have different names", found=f"'{one.name}' twice", do=do)
        found[one.name] = one
        console.note(f"model {one.name}: {', '.join(one.pipeline.tasks) or 'vectors'}, {one.vectors.width} wide")
    return found


def load_index(place: str, *, model: str, device: str, console: Console) -> Index:
    """Returns an index that ``metatransformer embed`` wrote, with its model.

    Raises:
        UsageError: none, or vectors of a space of two sides.
        DataError: it does not tell its model.
    """
    stored = open_stored(Path(place))
    if "space" in stored.manifest:
        must = "be plain vectors of samples, or of a model's features"
        raise UsageError(f"--index {place}", must=must, found="vectors of a space of two sides")
    made = model_of(stored, run=model, device=device, console=console)
    return Index(stored, Hosted(INDEX, made.pipeline, made, encoder=str(stored.manifest.get("encoder", ""))))


def _of_run(text: str, *, trunk: str, device: str) -> Iterator[Hosted]:
    name, found, place = text.partition("=")
    if not found or os.path.exists(text):
        name, place = "", text
    folder = Path(place).resolve()
    if has_space(place):
        do = "Serve its encoder for vectors: --encoder RUN."
        raise UsageError(f"serve {place}", must="be a model of 'fit'", found="a run of pretrain or align", do=do)
    name = name or (folder.parent.name if folder.name == "model" else folder.name)
    pipeline = load_pipeline(folder, encoder=trunk, device=device)
    sets = list(pipeline.recipe.sets)
    for one in sets if len(sets) > 1 else [""]:
        own = pipeline.of_set(one)
        yield Hosted(f"{name}/{one}" if one else name, own, embedding(own, pool=""))


def _of_encoder(name: str, *, device: str) -> Iterator[Hosted]:
    """Yields plain embeddings of every modality whose front end came with the trunk: others would be random."""
    trunk = load_encoder(name)
    for modality in usable_modalities():
        if modality.source.kind == "table":
            continue
        overrides = {"encoder": name, "run.device": device, "run.precision": "float32"}
        recipe = make_recipe(modality.name, overrides=overrides)
        pipeline = untrained(recipe, trunk=trunk, examples=NOTHING, learned=False, console=Console(quiet=True))
        if not untrained_inputs(pipeline):
            short = Path(name).name if os.path.exists(name) else name
            yield Hosted(f"{short}/{modality.name}", pipeline, embedding(pipeline, pool="summary"), encoder=short)


def chosen(hosted: Mapping[str, Hosted], *, model: str, modality: str, trained: bool = False) -> Hosted:
    """Returns the model that a request means; one may be left unnamed where it is the only one.

    Raises:
        DataError: none, or several.
    """
    able = [one for one in hosted.values() if not trained or one.pipeline.tasks]
    fit = [one for one in able if model in ("", one.name, one.encoder) and modality in ("", one.modality)]
    if len(fit) == 1:
        return fit[0]
    names = ", ".join(one.name for one in (fit or able)) or "none"
    asked = " of ".join(repr(word) for word in (model, modality) if word) or "none named"
    raise UnknownModelError("model", must=f"name one of: {names}", found=asked)


class UnknownModelError(DataError):
    """A request means no model of this server, or several."""
