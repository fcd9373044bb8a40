"""The loss curve of a tiny recipe, step by step: a change that should not alter numbers must not alter these.

``tests/golden/loss.json`` was made by ``python tests/test_golden.py`` at the revision that it names (torch
2.13, x86-64).
"""

import json
from pathlib import Path

import numpy as np
from common import make_records, tiny_recipe

from metatransformer.fit.fit import fit
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality

GOLDEN = Path(__file__).parent / "golden" / "loss.json"
STEPS = 30


def loss_curve() -> list[float]:
    """Returns the training loss of 30 steps: one batch an epoch, tokenizer and head behind the tiny frozen trunk."""
    modality = get_modality("image")
    settings = {"tune": "ends", "optim.epochs": STEPS, "data.batch_size": 16, "optim.lr": 3e-3}
    # Recorded before pictures had mirror images and means beside the summary, before heads were solved first, and
    # before a native tokenizer had a rate of its own: nothing else may have changed.
    settings |= {"input.mirrored": False, "head.pool": "summary", "head.hidden": 16, "optim.trunk_lr": 3e-3}
    recipe = tiny_recipe(modality, settings)
    history = fit(make_records(modality, train=11, val=5), recipe, console=Console(quiet=True)).history
    return [line["train_loss"] for line in history]


def test_the_loss_curve_is_the_golden_one():
    golden = json.loads(GOLDEN.read_text())
    # Float32 sums differ between processors and thread counts; 30 steps amplify 1e-7 to well below 2e-3.
    np.testing.assert_allclose(loss_curve(), golden["loss"], atol=2e-3)


if __name__ == "__main__":
    curve = [round(value, 6) for value in loss_curve()]
    GOLDEN.write_text(json.dumps({"command": "python tests/test_golden.py", "loss": curve}, indent=1) + "\n")
