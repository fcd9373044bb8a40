"""Embeddings from Python: ``Embedder`` with scikit-learn manners, and ``embed`` for one line.

Nothing is trained here: the modality's own front end, the pretrained trunk, a pooling. Where the front end did not come
with the trunk, its random weights make the vectors random projections, and a warning says so.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
from safetensors.torch import load_file, save_file
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from metatransformer.core.errors import DataError, UsageError, WeightsError
from metatransformer.core.modality import Modality
from metatransformer.data.folder import accepts
from metatransformer.data.write import atomic_file, write_json
from metatransformer.faces.arguments import keywords_of, not_fitted, recipe_of, unlabelled
from metatransformer.infer.embed import EmbeddingModel, fit_reader, pretrained_embedder
from metatransformer.infer.embed import embed as embed_records
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_names, usable_modalities
from metatransformer.pipeline import Reader
from metatransformer.recipe import Recipe
from metatransformer.trunk import Pretrained, load_encoder

FORMAT = 1


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """One vector a sample from a pretrained trunk."""

    def __init__(
        self,
        modality: str,
        *,
        encoder: str = "meta-b16",
        pool: Literal["summary", "mean", "max", "both", "grid"] = "summary",
        target: str = "",
        seed: int = 0,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "float32",
        recipe: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Stores the parameters, which are those of ``Classifier``, and ``pool``.

        ``target`` names a table's column that no vector may see, such as the label.
        Float32 is the default, because vectors are compared across machines.
        """
        self.modality = modality
        self.encoder = encoder
        self.pool = pool
        self.target = target
        self.seed = seed
        self.device = device
        self.precision = precision
        self.recipe = recipe
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "Embedder":
        """Lets the transform learn from X what it needs (a side in pixels, a table's columns) and returns itself.

        ``y`` is there for scikit-learn's pipelines and not looked at. Learns ``model_``.
        """
        del y
        modality = get_modality(self.modality)
        recipe = self._recipe(modality)
        index = unlabelled(modality, X, recipe=recipe)
        trunk = load_encoder(recipe.encoder)
        reader = fit_reader(Reader(modality, modality.transform(recipe.input, trunk.stem)), index.records)
        self.model_ = self._model(recipe, trunk=trunk, reader=reader)
        if index.columns:
            self.n_features_in_ = len(index.columns)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns one vector a sample, float32 ``[n, D]``; ``[n, 2 D]`` with ``pool="both"``."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="transform")
        index = unlabelled(self.model_.reader.modality, X, recipe=self.model_.recipe)
        return embed_records(self.model_, index.records, console=Console(quiet=not self.verbose))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder for ``load``; the trunk is named in it, not included."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="save")
        model, place = self.model_, Path(folder)
        for known in ("model.json", "embedder.json"):  # an earlier one's, which would vouch for half of this
            (place / known).unlink(missing_ok=True)
        with atomic_file(place / "tokenizer.safetensors") as temporary:
            save_file({k: v.cpu().contiguous() for k, v in model.tokenizer.state_dict().items()}, temporary)
        about = {
            "format": FORMAT,
            "arguments": self.get_params() | {"recipe": keywords_of(model.recipe)["recipe"]},
            "transform": model.reader.transform.state(),
            "sha256": model.trunk.sha256,
        }
        write_json(place / "embedder.json", about)  # last: a folder that has it is complete

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @property
    def _n_features_out(self) -> int:
        return self.model_.width

    def _recipe(self, modality: Modality) -> Recipe:
        keywords = {
            "encoder": self.encoder,
            "task.target": self.target,
            "run.seed": self.seed,
            "run.device": self.device,
            "run.precision": self.precision,
        }
        return recipe_of(modality, defaults={}, keywords=keywords, given=self.recipe)

    def _model(self, recipe: Recipe, *, trunk: Pretrained, reader: Reader) -> EmbeddingModel:
        console = Console(quiet=not self.verbose)
        model = pretrained_embedder(recipe, trunk=trunk, reader=reader, pool=self.pool, console=console)
        _warn_untrained(model)
        return model


def embed(
    x: Any,
    *,
    modality: str = "",
    encoder: str = "meta-b16",
    pool: Literal["summary", "mean", "max", "both", "grid"] = "summary",
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "float32",
    recipe: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> np.ndarray:
    """Returns the vector ``[D]`` of one file or array, or ``[n, D]`` for a list, folder, manifest or DataFrame.

    ``modality`` may be left out for files whose ending only one modality reads. A sample's vector does not depend on
    the others: nothing is learned from them, as ``Embedder.fit`` would.

    Raises:
        UsageError: no modality where it is needed, or one of tables, which must learn their columns first.
        DataError: a bad sample.
        WeightsError: the encoder cannot be had.
    """
    kind = get_modality(modality or _guess(x))
    if kind.source.kind == "table":
        raise UsageError(
            "embed",
            must="get samples that need no learning before",
            found=f"modality '{kind.name}'",
            do=f"Use Embedder('{kind.name}').fit_transform(rows), which learns the columns from your rows.",
        )
    keywords = {"encoder": encoder, "run.device": device, "run.precision": precision}
    resolved = recipe_of(kind, defaults={}, keywords=keywords, given=recipe)
    console = Console(quiet=not verbose)
    single = _is_single(x, kind)
    index = unlabelled(kind, [x] if single else x, recipe=resolved)
    trunk = load_encoder(encoder)
    reader = Reader(kind, kind.transform(resolved.input, trunk.stem))
    model = pretrained_embedder(resolved, trunk=trunk, reader=reader, pool=pool, console=console)
    _warn_untrained(model)
    vectors = embed_records(model, index.records, console=console)
    return vectors[0] if single else vectors


def load_embedder(folder: Path, *, encoder: str, device: str = "auto") -> Embedder:
    """Returns a saved embedder; ``encoder`` names another place of the same trunk, ``device`` where it will run.

    Raises:
        DataError: the folder is damaged, or another version wrote it.
        WeightsError: the trunk found is not the one that it was made with.
    """
    about = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
    if about["format"] != FORMAT:
        raise DataError(folder / "embedder.json", must=f"have format {FORMAT}", found=f"{about['format']}")
    arguments: dict[str, Any] = {**about["arguments"], "device": device}
    if encoder:
        arguments["encoder"] = encoder
    embedder = Embedder(arguments.pop("modality"), **arguments)
    modality = get_modality(embedder.modality)
    recipe = embedder._recipe(modality)
    trunk = load_encoder(recipe.encoder)
    if trunk.sha256 != about["sha256"]:
        raise WeightsError(
            f"{folder}: trunk '{trunk.name}'",
            must=f"be the one with digest {about['sha256'][:12]}",
            found=trunk.sha256[:12],
            do="Name its place: load(folder, encoder=PATH).",
        )
    reader = Reader(modality, modality.transform(recipe.input, trunk.stem))
    reader.transform.load_state(about["transform"])
    embedder.model_ = embedder._model(recipe, trunk=trunk, reader=reader)
    path = folder / "tokenizer.safetensors"
    try:
        embedder.model_.tokenizer.load_state_dict(load_file(path))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        found = str(error).splitlines()[0]
        raise DataError(path, must="hold the saved tokenizer", found=found, do="Copy the folder again.") from error
    return embedder


def _guess(x: Any) -> str:
    """Returns the one modality that reads files with this ending."""
    first = x[0] if isinstance(x, list | tuple) and x else x
    if not isinstance(first, str | os.PathLike):
        raise UsageError(
            "modality",
            must="be named for anything but files",
            found=f"a {type(first).__name__}",
            do=f"Valid: {', '.join(modality_names())}.",
        )
    # A table of rows is never guessed: a CSV may as well be a manifest of another modality.
    sources = {modality.name: modality.source for modality in usable_modalities()}
    fit = [name for name, source in sources.items() if accepts(Path(first).name, suffixes=source.suffixes)]
    if len(fit) != 1 or sources[fit[0]].kind != "files":
        raise UsageError(
            "modality",
            must=f"be named for '{Path(first).name}'",
            found=f"{len(fit)} that read this ending" + (f": {', '.join(fit)}" if fit else ""),
            do=f"Valid: {', '.join(sources)}.",
        )
    return fit[0]


def _is_single(x: Any, modality: Modality) -> bool:
    """Returns whether ``x`` is one sample: an array, a mapping of arrays, or a file that the modality reads."""
    if isinstance(x, str | os.PathLike):
        return Path(x).is_file() and accepts(Path(x).name, suffixes=modality.source.suffixes)
    return isinstance(x, Mapping) or (isinstance(x, np.ndarray) and x.dtype.kind not in "OUS")


def _warn_untrained(model: EmbeddingModel) -> None:
    if not model.tokenizer.native:
        name = model.reader.modality.name
        warnings.warn(
            f"the {name} tokenizer was never trained on {name} data: these vectors depend on its random start. Train a "
            f"Classifier('{name}') or Regressor('{name}') and use its transform.",
            UserWarning,
            stacklevel=3,
        )
