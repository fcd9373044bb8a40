"""Which labelled pixels of a scene learn and which test: random pixels, or places apart.

Neighbouring pixels are alike, and the windows around them overlap: where both are drawn at random from one scene, the
test has been seen in training, and the score says little about another place. ``disjoint`` cuts the scene into square
tiles that stay whole, and leaves out pixels so that no two windows of different splits share a pixel.
Sources: Haensch et al. 2017, "Correct and still wrong" (IGARSS); Nalepa et al. 2019 (arXiv 1811.03707).
Axes: n labelled pixels in row-major order.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.data.records import counted

SIDES = (64, 48, 32, 24, 16, 12, 8, 6, 4)  # pixels; tiles are as large as leaves each class in enough of them
BLOCKS = 15  # three for each of the folds that choose a head
ENOUGH = 4  # a tile for each split, and one more


@dataclass(frozen=True)
class Cut:
    """How a scene is split: ``train_pixels`` a class for training and the rest for the test, or 0 = by shares.

    ``draw`` numbers the random draw; ``tile`` is a tile's side in pixels, 0 = chosen by the classes; ``radius`` is how
    far a window reaches from its middle.
    """

    kind: Literal["random", "disjoint"] = "random"
    train_pixels: int = 0
    draw: int = 0
    tile: int = 0
    radius: int = 0

    @property
    def words(self) -> str:
        """The split in a few words, for the picture of a test."""
        return "places apart" if self.kind == "disjoint" else "random pixels, too good for another place"


@dataclass(frozen=True)
class Plots:
    """For each labelled pixel [n]: whether it is used, its split (None = to be made by shares), its tile (None = none);
    and what a person should be told.
    """

    used: np.ndarray
    splits: list[str | None]
    groups: list[str | None]
    notes: tuple[str, ...] = field(default=())


def cut_scene(rows: np.ndarray, columns: np.ndarray, classes: np.ndarray, *, cut: Cut, where: str) -> Plots:
    """Returns the plots of the pixels at ``rows`` and ``columns`` with ``classes``, all [n].

    Raises:
        DataError: a class has too few pixels, or lies in too few tiles, to be in training and test.
    """
    if cut.kind == "random":
        return _random(classes, cut=cut, where=where)
    return _disjoint(rows, columns, classes, cut=cut, where=where)


def _random(classes: np.ndarray, *, cut: Cut, where: str) -> Plots:
    count = len(classes)
    leak = "neighbouring pixels stand on both sides, so the score is too good for another place (input.split=disjoint)"
    if not cut.train_pixels:
        return Plots(np.ones(count, bool), [None] * count, [None] * count, (f"split: random pixels; {leak}",))
    chosen = _draw(classes, np.arange(count), cut=cut, where=where)
    splits: list[str | None] = ["test"] * count
    for place in chosen:
        splits[place] = "train"
    note = f"split: {cut.train_pixels} random pixels a class for training, draw {cut.draw}; {leak}"
    return Plots(np.ones(count, bool), splits, [None] * count, (note,))


def _draw(classes: np.ndarray, places: np.ndarray, *, cut: Cut, where: str) -> np.ndarray:
    """Returns ``train_pixels`` of ``places`` for each class, by one generator over the classes in order."""
    rng = np.random.RandomState(cut.draw)
    chosen = []
    for one in np.unique(classes):
        found = places[classes[places] == one]
        if len(found) < cut.train_pixels or len(found) == (classes == one).sum() == cut.train_pixels:
            raise DataError(
                where,
                must=f"have more than {cut.train_pixels} pixels of each class",
                found=f"{len(found)} of class {one}",
                do="Set a smaller input.train_pixels.",
            )
        chosen.append(rng.permutation(found)[: cut.train_pixels])
    return np.concatenate(chosen)


def _disjoint(rows: np.ndarray, columns: np.ndarray, classes: np.ndarray, *, cut: Cut, where: str) -> Plots:
    """Returns whole tiles as groups; what lies so near to a tile's edge that its window leaves the tile is not used."""
    if cut.train_pixels:
        return _apart(rows, columns, classes, cut=cut, where=where)
    tile = cut.tile or _choose_tile(rows, columns, classes, radius=cut.radius)
    inside = _inside(rows, columns, tile=tile, radius=cut.radius)
    if lost := sorted(set(classes.tolist()) - set(classes[inside].tolist())):
        raise DataError(
            where,
            must=f"keep every class inside tiles of {tile} x {tile} pixels, {cut.radius} from their edges",
            found=f"no pixel of class {lost[0]}",
            do="Set a larger input.tile or a smaller input.window.",
        )
    left = counted(int((~inside).sum()), "labelled pixel")
    note = (
        f"split: places apart, tiles of {tile} x {tile} pixels; {left} left out, whose windows would leave their tile"
    )
    return Plots(inside, [None] * len(classes), _tiles(rows, columns, tile=tile).tolist(), (note,))


def _apart(rows: np.ndarray, columns: np.ndarray, classes: np.ndarray, *, cut: Cut, where: str) -> Plots:
    """Returns training pixels from few tiles; the rest is test, but for these tiles and windows that would overlap."""
    from scipy.spatial import KDTree

    tile = cut.tile or _choose_tile(rows, columns, classes, radius=0)
    names = _tiles(rows, columns, tile=tile)
    learning = np.isin(names, _learning_tiles(names, classes, cut=cut, where=where))
    chosen = _draw(classes, np.flatnonzero(learning), cut=cut, where=where)
    places = np.stack([rows, columns], axis=1)
    far = KDTree(places[chosen]).query(places, p=np.inf)[0] > 2 * cut.radius
    splits = np.where(far & ~learning, "test", "").astype(object)
    splits[chosen] = "train"
    used = splits != ""
    if lost := sorted(set(classes.tolist()) - set(classes[splits == "test"].tolist())):
        do = "Set a smaller input.tile or input.window."
        raise DataError(where, must="keep pixels of every class for the test", found=f"none of {lost[0]}", do=do)
    left = counted(int((~used).sum()), "labelled pixel")
    note = f"split: places apart, {cut.train_pixels} pixels a class for training, draw {cut.draw}, from "
    note += (
        f"{counted(len(set(names[learning])), 'tile')} of {tile} x {tile}; {left} of these tiles or too near left out"
    )
    return Plots(used, [str(split) or None for split in splits], [None] * len(classes), (note,))


def block_names(rows: np.ndarray, columns: np.ndarray) -> list[str]:
    """Returns the tile of each pixel: as large as leaves enough of them to hold some out."""
    found: list[str] = []
    for tile in SIDES:
        found = _tiles(rows, columns, tile=tile).tolist()
        if len(set(found)) >= BLOCKS:
            break
    return found


def _tiles(rows: np.ndarray, columns: np.ndarray, *, tile: int) -> np.ndarray:
    pairs = zip((rows // tile).tolist(), (columns // tile).tolist(), strict=True)
    return np.array([f"tile {row},{column}" for row, column in pairs])


def _inside(rows: np.ndarray, columns: np.ndarray, *, tile: int, radius: int) -> np.ndarray:
    """Returns which pixels have their whole window inside their tile."""
    places = np.stack([rows, columns]) % tile
    return np.all((places >= radius) & (places < tile - radius), axis=0)


def _choose_tile(rows: np.ndarray, columns: np.ndarray, classes: np.ndarray, *, radius: int) -> int:
    """Returns the largest side at which each class lies in enough tiles, or else in the most."""
    best, most = 2 * radius + 1, (0, 0)
    for tile in SIDES:
        if tile <= 2 * radius:
            continue
        inside = _inside(rows, columns, tile=tile, radius=radius)
        places = np.stack([rows // tile, columns // tile], axis=1)
        counts = [len(np.unique(places[inside & (classes == one)], axis=0)) for one in np.unique(classes)]
        if min(counts) >= ENOUGH:
            return tile
        if (min(counts), sum(counts)) > most:
            best, most = tile, (min(counts), sum(counts))
    return best


def _learning_tiles(names: np.ndarray, classes: np.ndarray, *, cut: Cut, where: str) -> list[str]:
    """Returns as few random tiles as hold enough pixels of each class, and leave each class in another tile."""
    rng = np.random.RandomState(cut.draw)
    taken: list[str] = []
    kinds = sorted(np.unique(classes), key=lambda one: len(set(names[classes == one])))
    for one in kinds:  # the class in the fewest tiles first: it has the least choice
        for tile in rng.permutation(np.unique(names[classes == one])):
            if np.isin(names[classes == one], taken).sum() >= cut.train_pixels:
                break
            more = [*taken, str(tile)]
            if len(np.unique(classes[~np.isin(names, more)])) == len(kinds):
                taken = more
        if np.isin(names[classes == one], taken).sum() < cut.train_pixels:
            raise DataError(
                where,
                must="have each class in tiles for training and in others for the test",
                found=f"class {one} in {counted(len(set(names[classes == one])), 'tile')}",
                do="Set a smaller input.tile or input.train_pixels.",
            )
    return taken
