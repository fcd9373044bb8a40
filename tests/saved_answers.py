"""What a saved model answers, through public names alone: asked when it was saved, and in every test since."""

from pathlib import Path
from typing import Any

import numpy as np

import metatransformer as mt

SAVED = Path(__file__).parent / "fixtures" / "saved"
ROWS = 5  # of which the features are kept: they are many a sample


def inputs_of(case: Path) -> Path:
    """Returns what the model of a case is asked about: a folder of files, or a table."""
    (found,) = case.glob("inputs*")
    return found


def answers_of(estimator: Any, inputs: Path) -> dict[str, np.ndarray]:
    """Returns the answers of a fitted estimator, each by the name of what gives it."""
    answers = {"transform": estimator.transform(inputs)[:ROWS]}
    if isinstance(estimator, mt.Classifier):
        answers |= {"classes_": estimator.classes_, "predict_proba": estimator.predict_proba(inputs)}
    if isinstance(estimator, mt.Forecaster):
        table = estimator.predict(inputs)
        answers |= {name: table[name].to_numpy() for name in ("series", "prediction")}
        answers["timestamp"] = table["timestamp"].astype(str).to_numpy()
    elif not isinstance(estimator, mt.Embedder):
        answers["predict"] = estimator.predict(inputs)
    # Text without a pickle: as fixed widths.
    return {name: value.astype(str) if value.dtype == object else value for name, value in answers.items()}
