"""Many kinds of data -> tokens -> one shared, frozen, pretrained transformer -> a small head per task.

>>> import metatransformer as mt
>>> classifier = mt.Classifier("image", encoder="focus-s14").fit("photos/")
>>> classifier.predict(["new/one.jpg", "new/two.jpg"])

Everything public stands here and is imported when it is first used, so that ``import metatransformer`` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

from metatransformer.core.errors import (
    DataError,
    MetaTransformerError,
    MissingDependencyError,
    NotFittedError,
    UsageError,
    WeightsError,
)

if TYPE_CHECKING:
    from metatransformer.faces.describe import describe
    from metatransformer.faces.embedder import Embedder, embed
    from metatransformer.faces.explain import explain
    from metatransformer.faces.load import load
    from metatransformer.faces.parts import Detector, Retriever, Segmenter
    from metatransformer.faces.sklearn import Classifier, Forecaster, Regressor
    from metatransformer.pairs.across import search
    from metatransformer.pairs.space import captions, similarity, zero_shot
    from metatransformer.trunk import list_encoders
    from metatransformer.trunk.backends import backend

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "DataError",
    "Detector",
    "Embedder",
    "Forecaster",
    "MetaTransformerError",
    "MissingDependencyError",
    "NotFittedError",
    "Regressor",
    "Retriever",
    "Segmenter",
    "UsageError",
    "WeightsError",
    "__version__",
    "backend",
    "captions",
    "describe",
    "embed",
    "explain",
    "list_encoders",
    "load",
    "search",
    "similarity",
    "zero_shot",
]

_PLACES = {
    "Classifier": "metatransformer.faces.sklearn",
    "Detector": "metatransformer.faces.parts",
    "Embedder": "metatransformer.faces.embedder",
    "Forecaster": "metatransformer.faces.sklearn",
    "Regressor": "metatransformer.faces.sklearn",
    "Retriever": "metatransformer.faces.parts",
    "Segmenter": "metatransformer.faces.parts",
    "backend": "metatransformer.trunk.backends",
    "captions": "metatransformer.pairs.space",
    "describe": "metatransformer.faces.describe",
    "embed": "metatransformer.faces.embedder",
    "explain": "metatransformer.faces.explain",
    "list_encoders": "metatransformer.trunk",
    "load": "metatransformer.faces.load",
    "search": "metatransformer.pairs.across",
    "similarity": "metatransformer.pairs.space",
    "zero_shot": "metatransformer.pairs.space",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
