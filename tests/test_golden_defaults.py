"""What small fits go through with the default settings: the heads tried, or the losses, and the scores at the end.

``tests/golden/defaults.json`` was made at revision bd332db (torch 2.13, x86-64), with the package of a checkout of it::

    OMP_NUM_THREADS=1 PYTHONPATH=<checkout of bd332db>/src python tests/test_golden_defaults.py

Heads read the trunk's features, as all did then (``head.features``).
A change that should not alter numbers must not alter these. ``test_golden.py`` holds a curve of older settings.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import metatransformer as mt

GOLDEN = Path(__file__).parent / "golden" / "defaults.json"
COMMAND = "python tests/test_golden_defaults.py"
TOLD = ("epoch", "l2", "gamma", "train_loss", "log_loss", "accuracy")  # of a line, and of the scores it may hold
# Plain instead of the widest vector instructions of one x86-64 moved a loss by at most 3e-5.
NEAR = 1e-4
SMALL: dict[str, Any] = {"input.size": 16}
CASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {  # modality, tune mode, epochs, settings
    "image, default": ("image", "default", 0, SMALL),
    "image, ends": ("image", "ends", 5, SMALL),
    # Not all of it by default: so that tuning is a gain on validation, and is kept.
    "image, lora": ("image", "lora", 8, {**SMALL, "optim.lr": 1e-2, "data.batch_size": 8, "data.val_fraction": 0.4}),
    "tabular, default": ("tabular", "default", 12, {}),
    "tabular, head": ("tabular", "head", 0, {}),
}


def pictures() -> tuple[list[np.ndarray], list[str]]:
    """Returns 40 very noisy pictures whose stripes run across ("a") or down ("b")."""
    rng = np.random.default_rng(0)
    wave = 128 + 60 * np.sin(0.9 * np.arange(23))
    found = []
    for number in range(40):
        stripes = np.tile(wave, (23, 1)) if number % 2 else np.tile(wave[:, None], (1, 23))
        noisy = stripes[:19, :, None] + rng.normal(0, 170, size=(19, 23, 3))
        found.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return found, ["ab"[number % 2] for number in range(40)]


def people() -> tuple[pd.DataFrame, list[str]]:
    """Returns 60 rows of numbers, words and gaps that lean to their class."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    age = (40 + 9 * labels + rng.normal(0, 8, size=60)).round(1)
    age[::7] = np.nan
    colours = np.array(["red", "green", "blue"])[(labels + (rng.random(60) < 0.3)) % 3]
    visits = rng.poisson(2 + 2 * labels)
    return pd.DataFrame({"age": age, "visits": visits, "colour": colours}), ["ab"[label] for label in labels]


def curve(name: str) -> dict[str, Any]:
    """Returns the history of a fit as columns, and its scores on validation."""
    modality, tune, epochs, settings = CASES[name]
    x, y = pictures() if modality == "image" else people()
    passes = epochs or "default"
    classifier = mt.Classifier(
        modality,
        encoder="test",
        tune=tune,
        epochs=passes,
        device="cpu",
        precision="float32",
        recipe={"head.features": "trunk", **settings},
    )
    classifier.fit(x, y)
    lines = classifier.history_
    names = [key for key in lines[0] if key in TOLD or key.removeprefix("val_").removeprefix("folds_") in TOLD]
    scores = {key: value for key, value in classifier.metrics_["val"].items() if key in TOLD}
    return {"history": {key: [line[key] for line in lines] for key in names}, "metrics": scores}


@pytest.mark.parametrize("name", CASES)
def test_a_default_fit_goes_as_it_did(name: str):
    golden, found = json.loads(GOLDEN.read_text())[name], curve(name)
    assert found["history"].keys() == golden["history"].keys() and found["metrics"].keys() == golden["metrics"].keys()
    for key, values in golden["history"].items():
        np.testing.assert_allclose(found["history"][key], values, atol=NEAR, rtol=0, err_msg=key)
    assert found["metrics"] == pytest.approx(golden["metrics"], abs=NEAR)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else round(value, 6)


if __name__ == "__main__":
    curves = {name: _rounded(curve(name)) for name in CASES}
    GOLDEN.write_text(json.dumps({"command": COMMAND, **curves}, indent=1) + "\n")
