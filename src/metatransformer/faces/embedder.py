"""Embeddings from Python: ``Embedder`` with scikit-learn manners, and ``embed`` for one line.

Nothing is trained here: the modality's own front end, the pretrained trunk, a pooling. Where the front end did not come
with the trunk, its random weights make the vectors random projections, and a warning says so.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Modality
from metatransformer.data.given import accepts
from metatransformer.faces.arguments import keywords_of, not_fitted, recipe_of, unlabelled
from metatransformer.infer.embed import embed as embed_examples
from metatransformer.infer.embed import embedding, untrained, untrained_inputs
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_names, usable_modalities
from metatransformer.nn.pool import POOLS
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe
from metatransformer.trunk import load_encoder


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """One vector a sample from a pretrained trunk."""

    def __init__(
        self,
        modality: str | Mapping[str, Any],
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

        ``y`` is there for scikit-learn's pipelines and not looked at. Learns ``pipeline_``.
        """
        del y
        console = self._console()
        found = unlabelled(X, recipe=self._recipe())
        trunk = load_encoder(found.recipe.encoder)
        self._take(untrained(found.recipe, trunk=trunk, examples=found.examples, learned=True, console=console))
        if found.columns:
            self.n_features_in_ = len(found.columns)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns one vector a sample, float32 ``[n, D]``; ``[n, 2 D]`` with ``pool="both"``. Those of several inputs
        stand side by side, with a bit an input that says whether it is there.
        """
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="transform")
        examples = unlabelled(X, recipe=self.pipeline_.recipe).examples
        return embed_examples(self._embedding, examples, console=self._console())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder for ``load``; the trunk is named in it, not included."""
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self, verb="save")
        self.pipeline_.save(Path(folder), metrics={})

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "pipeline_")

    @property
    def _n_features_out(self) -> int:
        return self._embedding.width

    def _take(self, pipeline: Pipeline) -> None:
        self._embedding, self.pipeline_ = embedding(pipeline, pool=self.pool), pipeline
        _warn_untrained(pipeline)

    def _recipe(self) -> Recipe:
        keywords = {
            "encoder": self.encoder,
            "task.target": self.target,
            "run.seed": self.seed,
            "run.device": self.device,
            "run.precision": self.precision,
        }
        recipe = recipe_of(self.modality, defaults={}, keywords=keywords, given=self.recipe)
        return _of_vectors(recipe, pool=self.pool)

    def _console(self) -> Console:
        return Console(quiet=not self.verbose)


def _of_vectors(recipe: Recipe, *, pool: str) -> Recipe:
    """Returns the recipe of a pipeline that gives vectors: nothing learns, and ``pool`` is said by its head's settings.

    Raises:
        UsageError: an unknown pooling.
    """
    if pool not in POOLS:
        raise UsageError("pool", must=f"be one of {', '.join(POOLS)}", found=repr(pool))
    return replace(recipe, tune="head", head=replace(recipe.head, read=(-1,), pool=pool))  # type: ignore[arg-type]


def embed(
    x: Any,
    *,
    modality: str | Mapping[str, Any] = "",
    encoder: str = "meta-b16",
    pool: Literal["summary", "mean", "max", "both", "grid"] = "summary",
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "float32",
    recipe: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> np.ndarray:
    """Returns the vector ``[D]`` of one file or array, or ``[n, D]`` for a list, folder, manifest or DataFrame.

    ``modality`` may be left out for files whose ending only one modality reads; of several inputs it is as in
    ``Classifier``, and one mapping is one sample. A sample's vector does not depend on
    the others: nothing is learned from them, as ``Embedder.fit`` would.

    Raises:
        UsageError: no modality where it is needed, or one of tables, which must learn their columns first.
        DataError: a bad sample.
        WeightsError: the encoder cannot be had.
    """
    keywords = {"encoder": encoder, "run.device": device, "run.precision": precision}
    wanted = modality or _guess(x)
    resolved = _of_vectors(recipe_of(wanted, defaults={}, keywords=keywords, given=recipe), pool=pool)
    kinds = [get_modality(one.modality) for one in resolved.inputs.values()]
    if tables := [kind.name for kind in kinds if kind.source.kind == "table"]:
        raise UsageError(
            "embed",
            must="get samples that need no learning before",
            found=f"modality '{tables[0]}'",
            do=f"Use Embedder({wanted!r}).fit_transform(rows), which learns the columns from your rows.",
        )
    console = Console(quiet=not verbose)
    single = isinstance(x, Mapping) if resolved.joint else is_single(x, kinds[0])
    found = unlabelled([x] if single else x, recipe=resolved)
    trunk = load_encoder(encoder)
    pipeline = untrained(found.recipe, trunk=trunk, examples=found.examples, learned=False, console=console)
    _warn_untrained(pipeline)
    vectors = embed_examples(embedding(pipeline, pool=pool), found.examples, console=console)
    return vectors[0] if single else vectors


def embedder_of(pipeline: Pipeline) -> Embedder:
    """Returns the embedder of a loaded pipeline without tasks."""
    keywords = keywords_of(pipeline.recipe)
    for unknown in ("tune", "epochs", "task", "metric", "minutes"):
        del keywords[unknown]
    pool = pipeline.recipe.head.pool
    assert pool != "columns"
    embedder = Embedder(keywords.pop("modality"), pool=pool, **keywords)
    embedder._take(pipeline)
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


def is_single(x: Any, modality: Modality) -> bool:
    """Returns whether ``x`` is one sample: an array, a mapping of arrays, or a file that the modality reads."""
    if isinstance(x, str | os.PathLike):
        suffixes = (*modality.source.suffixes, *modality.source.inside)
        return os.path.isfile(x) and accepts(Path(x).name, suffixes=suffixes)
    return isinstance(x, Mapping) or (isinstance(x, np.ndarray) and x.dtype.kind not in "OUS")


def _warn_untrained(pipeline: Pipeline) -> None:
    for name in untrained_inputs(pipeline):
        modality = pipeline.route[name].modality.name
        warnings.warn(
            f"the {modality} tokenizer was never trained on {modality} data: these vectors depend on its random start. "
            f"Train a Classifier('{modality}') or Regressor('{modality}') and use its transform.",
            UserWarning,
            stacklevel=4,
        )
