"""Drawn pictures with their words, and the settings of a pretraining that takes a second."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "grey": (128, 128, 128)}
SHAPES = ("square", "bar", "frame")
TINY: dict[str, Any] = {
    **{"size": 16, "patch": 4, "width": 16, "depth": 2, "heads": 2, "outputs": 12},
    **{"text_width": 16, "text_depth": 1, "text_heads": 2, "context": 8, "vocabulary_size": 60},
    **{"batch": 6, "steps": 8, "validate": 4, "held_out": 0.25, "lr": 3e-3, "warmup": 2},
    **{"precision": "float32", "device": "cpu", "duplicates": "all", "workers": 2},
}


def draw_pairs(folder: Path) -> Path:
    """Draws pictures of 12 kinds, three of each, and returns the table of them and their words."""
    rng, rows = np.random.default_rng(0), []
    for colour, rgb in COLOURS.items():
        for shape in SHAPES:
            for number in range(3):
                pixels = rng.integers(200, 256, (20, 20, 3), dtype=np.uint8)
                top = slice(4, 16) if shape == "square" else slice(8, 12) if shape == "bar" else slice(1, 19)
                pixels[top, 3:17] = rgb
                if shape == "frame":
                    pixels[5:15, 6:14] = 240
                name = f"{colour}-{shape}-{number}.png"
                Image.fromarray(pixels).save(folder / name)
                rows.append((name, f"a {colour} {shape}"))
    pd.DataFrame(rows, columns=["path", "text"]).to_csv(folder / "pairs.csv", index=False)
    return folder / "pairs.csv"


def words_for(table: Path, out: Path, settings: Mapping[str, Any]) -> list[object]:
    told = {**TINY, **settings}
    return ["pretrain", table, "--out", out, *(f"{name}={json.dumps(value)}" for name, value in told.items())]
