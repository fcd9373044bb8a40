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


HUES = ("red", "green", "blue", "grey")
SIZES = ("small", "large", "wide", "tall", "hollow", "thick")
RGB = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 60, 220), "grey": (120, 120, 120)}
BOXES = {"small": (8, 16, 8, 16), "large": (2, 22, 2, 22), "wide": (9, 15, 1, 23), "tall": (1, 23, 9, 15)}
BOXES |= {"hollow": (3, 21, 3, 21), "thick": (6, 18, 2, 22)}


def draw_concepts(folder: Path) -> Path:
    """Draws 24 concepts, three pictures of each, and returns the table of them and what each is called."""
    rng, rows = np.random.default_rng(0), []
    for hue in HUES:
        for size in SIZES:
            for number in range(3):
                pixels = rng.integers(235, 256, (24, 24, 3), dtype=np.uint8)
                top, bottom, left, right = BOXES[size]
                pixels[top:bottom, left:right] = RGB[hue]
                if size == "hollow":
                    pixels[7:17, 7:17] = 250
                name = f"{hue}-{size}-{number}.png"
                Image.fromarray(pixels).save(folder / name)
                rows.append((name, f"{size} and {hue}", f"{hue}/{size}"))
    pd.DataFrame(rows, columns=["file", "text", "concept"]).to_csv(folder / "pairs.csv", index=False)
    return folder / "pairs.csv"


def split_concepts(drawn: Path, place: Path) -> Path:
    """Writes the same table with a split in which 12 concepts are held out, some of each hue and size."""
    table = pd.read_csv(drawn)
    table["file"] = [str(drawn.parent / name) for name in table["file"]]
    hues, sizes = (table["concept"].str.split("/").str[part] for part in (0, 1))
    odd = (hues.map(HUES.index) + sizes.map(SIZES.index)) % 2
    table["split"] = np.where(odd == 1, "test", "train")
    table.to_csv(place, index=False)
    return place


def align_words(table: Path, out: Path, *more: object) -> list[object]:
    inputs = "picture=image(file),words=text(text)"
    words = ["align", table, "--inputs", inputs, "--encoder", "test", "--out", out, "--text", "words"]
    return [*words, "--device", "cpu", "inputs.picture.size=24", "inputs.picture.mirrored=false", *more]


def pair_words(seen: Path, folder: Path) -> list[object]:
    """Writes a table of pictures beside other pictures of the same concepts; returns what aligns the two."""
    table = pd.read_csv(seen).rename(columns={"concept": "group"})
    table["other"] = table["file"].str.replace("-0.png", "-1.png")
    table.to_csv(folder / "two.csv", index=False)
    inputs = "one=image(file),other=infrared(other)"
    words = ["align", folder / "two.csv", "--inputs", inputs, "--encoder", "test", "--out", folder / "run"]
    return [*words, "inputs.one.size=24", "inputs.one.mirrored=false", "inputs.other.size=24", "--device", "cpu"]
