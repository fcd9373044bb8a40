"""Predictions of a scene as pictures: a coloured map with its legend, and the classes as numbers.

Axes: h rows, w columns, C classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metatransformer.core.samples import Record
from metatransformer.data.records import natural_key
from metatransformer.data.write import atomic_file, write_json
from metatransformer.modalities.hyperspectral.cube import Cube, three_bands

INCHES, DPI = 4.2, 180  # of a panel's longer side
ERRORS = np.array([[0.82, 0.86, 0.92, 1.0], [0.75, 0.22, 0.17, 1.0]])  # right, wrong
GROUND = 0.55  # how much of the scene's brightness shows where nothing is predicted


class Scene(NamedTuple):
    """A scene's name, its cube, its records, and the title above its map (empty for none)."""

    name: str
    cube: Cube
    records: Sequence[Record]
    title: str


def write_label_maps(scenes: Sequence[Scene], table: Any, folder: Path) -> list[Path]:
    """Writes the predictions of each scene and returns the PNG files.

    The rows of ``table`` (columns ``prediction`` and perhaps ``target``) are the scenes' records, one scene after the
    other; where it has no targets, classes that records bring are the truth. For a scene ``x`` it writes ``x.png`` (the
    scene, the prediction, and labels and errors where the truth is known), ``x.npy`` ``[h, w]`` (the predicted classes
    as they are numbered, 0 = none; for a regression the values, NaN = none), and ``x.json`` (number to class) where
    classes are no whole numbers above 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = [record.target for scene in scenes for record in scene.records]
    brought = "target" not in table and any(one is not None for one in given)
    if brought and table["prediction"].dtype.kind != "f":
        table = table.assign(target=np.array(given, dtype=object))
    names = None if table["prediction"].dtype.kind == "f" else _class_names(table)
    written, start = [], 0
    for scene in scenes:
        rows = table.iloc[start : start + len(scene.records)]
        start += len(scene.records)
        places = np.array([[int(number) for number in str(record.part).split(",")] for record in scene.records]).T
        if names is None:
            panels = _value_panels(rows, scene.cube, places)
            predicted = panels[0][1]
        else:
            panels = _class_panels(rows, scene.cube, places, names=names, more=", learned from or not" * brought)
            predicted = _numbers(panels[0][1], names=names)
            if not _are_numbers(names):
                write_json(folder / f"{scene.name}.json", {str(i): one for i, one in enumerate(names, start=1)})
        with atomic_file(folder / f"{scene.name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, predicted)
        written.append(folder / f"{scene.name}.png")
        _paint(written[-1], panels, scene=scene, names=names)
    return written


def _class_names(table: Any) -> list[str]:
    """Returns every class that occurs, numbers by value."""
    columns = [name for name in ("prediction", "target") if name in table]
    names = {str(value) for name in columns for value in table[name] if value is not None}
    chances = [name[2:-1] for name in table if str(name).startswith("p(") and str(name).endswith(")")]
    return chances if names <= set(chances) else sorted(names, key=natural_key)


def _are_numbers(names: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[0-9]{1,18}", name) and int(name) > 0 for name in names)


def _numbers(places: np.ndarray, *, names: Sequence[str]) -> np.ndarray:
    """Returns a map of positions in ``names`` (from 1, 0 = none) as the classes' own numbers where they have some."""
    if not _are_numbers(names):
        return places.astype(np.int32)
    return np.array([0, *map(int, names)], dtype=np.int32)[places]


def _class_panels(
    rows: Any, cube: Cube, places: np.ndarray, *, names: Sequence[str], more: str
) -> list[tuple[str, np.ndarray]]:
    """Returns titled maps ``[h, w]`` of positions in ``names`` (from 1, 0 = none); errors are 1 = right, 2 = wrong."""
    number = {name: i for i, name in enumerate(names, start=1)}
    found = [("prediction", _fill(cube, places, [number[str(value)] for value in rows["prediction"]]))]
    known = rows["target"].notna().to_numpy() if "target" in rows else np.zeros(len(rows), dtype=bool)
    if known.any():
        given, there = rows[known], places[:, known]
        found.append(("labels", _fill(cube, there, [number[str(value)] for value in given["target"]])))
        wrong = (given["prediction"].astype(str).to_numpy() != given["target"].astype(str).to_numpy()) + 1
        share = float((wrong == 2).mean())
        found.append((f"errors ({share:.1%}{more})", _fill(cube, there, wrong)))
    return found


def _fill(cube: Cube, places: np.ndarray, values: Any) -> np.ndarray:
    filled = np.zeros(cube.values.shape[:2], dtype=np.int64)
    filled[places[0], places[1]] = values
    return filled


def _value_panels(rows: Any, cube: Cube, places: np.ndarray) -> list[tuple[str, np.ndarray]]:
    found = []
    for name, title in (("prediction", "prediction"), ("target", "true value")):
        if name in rows:
            values = np.full(cube.values.shape[:2], np.nan)
            values[places[0], places[1]] = rows[name].to_numpy(dtype=float)
            found.append((title, values))
    return found


def _paint(path: Path, panels: Sequence[tuple[str, np.ndarray]], *, scene: Scene, names: Sequence[str] | None) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    h, w = scene.cube.values.shape[:2]
    scale = INCHES / max(h, w)
    lines = 2 if len(panels) == 3 else 1  # the scene itself stands first; four panels are two by two
    count = (1 + len(panels)) // lines
    height = lines * (max(h * scale, 1.5) + 0.35) + 0.3 * bool(scene.title)
    figure = Figure(figsize=(count * (max(w * scale, 1.5) + 0.15) + 1.3, height), layout="constrained")
    ground, spread = _ground(scene.cube), [panel for _, panel in panels]
    image: Any = None
    first, *others = figure.subplots(lines, count).flat
    first.imshow(_colours(scene.cube), interpolation="nearest")
    first.set_title("scene, false colours", fontsize=9, loc="left")
    first.set_axis_off()
    for axes, (title, panel) in zip(others, panels, strict=True):
        axes.imshow(ground, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_axis_off()
        if names is None:
            limits = {"vmin": np.nanmin(spread), "vmax": np.nanmax(spread)}
            image = axes.imshow(panel, cmap="viridis", interpolation="nearest", **limits)
        else:
            colours = ERRORS if title.startswith("errors") else class_colours(len(names))
            image = axes.imshow(np.concatenate([np.zeros((1, 4)), colours])[panel], interpolation="nearest")
    if names is None:
        figure.colorbar(image, ax=figure.axes, shrink=0.8)
    else:
        handles = [Patch(color=c, label=name) for c, name in zip(class_colours(len(names)), names, strict=True)]
        if any(title.startswith("errors") for title, _ in panels):
            gap = Patch(alpha=0, label="")
            handles += [gap, *(Patch(color=c, label=name) for c, name in zip(ERRORS, ("right", "wrong"), strict=True))]
        figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    if scene.title:
        figure.suptitle(scene.title, fontsize=9, x=0.01, ha="left")
    FigureCanvasAgg(figure)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def _colours(cube: Cube) -> np.ndarray:
    """Returns the scene ``[h, w, 3]`` in three live bands, each stretched between its 2nd and 98th percentile."""
    live = np.flatnonzero(cube.alive)
    waves = () if cube.wavelengths_nm is None else cube.wavelengths_nm[live]
    values = cube.values[:, :, live[three_bands(len(live), nm=waves)]].astype(float)
    if not cube.valid.any():
        return np.ones(values.shape)
    low, high = np.percentile(values[cube.valid], [2, 98], axis=0)
    level = np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.where(cube.valid[:, :, None], level, 1.0)


def _ground(cube: Cube) -> np.ndarray:
    """Returns the scene's brightness ``[h, w]``, pale, white where it has no data."""
    middle = cube.values[:, :, cube.bands // 2].astype(float)
    known = middle[cube.valid]
    if known.size == 0:
        return np.ones(middle.shape)
    low, high = np.percentile(known, [2, 98])
    level = np.clip((middle - low) / max(high - low, 1e-12), 0, 1)
    return np.where(cube.valid, 1 - GROUND + GROUND * level, 1.0)


def class_colours(count: int) -> np.ndarray:
    """Returns ``[C, 4]`` colours (RGBA of 0..1) that can be told apart: up to 20 by a table, more by hue."""
    from matplotlib import colormaps
    from matplotlib.colors import hsv_to_rgb

    if count <= 20:
        table = colormaps["tab20"](np.arange(20))[:, :3]
        order = [*range(0, 20, 2), *range(1, 20, 2)]  # the ten strong colours first, then the pale ones
        rgb = table[order[:count]]
    else:
        steps = np.arange(count)
        hues = (steps * 0.618034) % 1  # the golden ratio: neighbours in number lie far apart in hue
        rgb = hsv_to_rgb(np.stack([hues, np.where(steps % 2, 0.55, 0.9), np.where(steps % 3, 0.95, 0.7)], axis=1))
    return np.concatenate([rgb, np.ones((count, 1))], axis=1)
