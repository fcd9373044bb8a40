"""Point cloud: a shape as a sheet of depth pictures, or as groups around farthest-point centres.

File: PLY (ASCII, binary), XYZ/TXT/PTS/CSV (one point a line), LAS, LAZ, PCD, KITTI's BIN, NPY ``[n, 3 or more]``,
``[rows, columns, 3 or more]`` or structured, NPZ (points, normals, colors, intensity); meshes as OFF, OBJ, STL, GLB,
glTF or PLY with faces. In memory: such an array, or a mapping with ``points`` and, if known, ``normals``, ``colors``,
``intensity``. Points without coordinates (NaN) are left out and counted. A mesh becomes ``input.points`` points drawn
evenly over its surface, a larger cloud is thinned to as many, both drawn by a fixed seed; of a file of more than 2^20
points, as many are read, drawn over the whole file. Points that lie upon each other with equal values count once.
Tokens: ``views``, the default: the cloud is drawn without perspective from the front, the side, above and a corner, as
near depth, far depth and density in red, green and blue; the four pictures lie on one sheet, which is cut by the
trunk's S x S kernel, with positions resampled to the sheet. ``groups``: farthest-point centres, their nearest
neighbours relative to them, a shared network and a maximum (the paper's way; train it with ``tune=ends``,
``head.pool=both``, ``head.read=[0.33]``, ``optim.lr=3e-3``). Neither depends on the order of the points. The summary
token starts as the class token.
Sources: Meta-Transformer section 3.2 (arXiv 2307.10802); PointNet++ (arXiv 1706.02413) and Point-BERT (arXiv
2111.14819) for groups; MVCNN (arXiv 1505.00880) and P2P (arXiv 2208.02812) for views.
Errors: no point with coordinates, a vertex of a mesh without, fewer different points than a shape or a group needs,
faces beyond the vertices, features that a file lacks or does not name, colours beyond their range, a cloud far larger
than the training clouds where they share a scale (another unit), truncated and foreign files.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Dense, Modality, Source, Stem, Tokenizer, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.data.records import counted, listing
from metatransformer.modalities.pointcloud.dense import DEFAULTS as DENSE
from metatransformer.modalities.pointcloud.dense import (
    FILES,
    PLAIN,
    at_points,
    index_points,
    local_points,
    paint_points,
    places_of,
    plain_of,
    read_room,
    shape_of,
    write_points,
)
from metatransformer.modalities.pointcloud.inside import cloud_inside
from metatransformer.modalities.pointcloud.read import (
    CLOUD_SUFFIXES,
    LIMIT,
    Cloud,
    cloud_in_memory,
    read_cloud,
    sampled,
)
from metatransformer.modalities.pointcloud.whole import MOST, Scale, whole_numbers
from metatransformer.nn.points import GroupTokenizer
from metatransformer.nn.views import ViewTokenizer, view_frames

FEATURES = {"normal": ("nx", "ny", "nz"), "color": ("red", "green", "blue"), "intensity": ("intensity",)}
TOPS = (1.0, 255.0, 65535.0)  # the brightest colour in use: fractions, 8 bit, 16 bit
LEAST = 16  # different points: fewer show no shape in a picture
FAR = 8.0  # half sides of the largest training cloud; feet instead of metres come to 3.3, millimetres to 1000
# Turn about z and height of each view in degrees, and its zoom: front, side, above, and from a corner, where even a
# cube must not leave the picture.
VIEWS = ((-90.0, 0.0, 0.95), (0.0, 0.0, 0.95), (-90.0, 90.0, 0.95), (-50.0, 30.0, 0.62))
ROWS = 2  # of the sheet

# ModelNet10, half of its 993 training clouds, 5-fold accuracy on frozen focus-s14: block 4 of 12 .857, block 6 .881,
# block 8 .867; one cell a view .867; views of 112 instead of 84 pixels .881; six views .881; shaded surfaces .863.
# On all 993: linear .890, kernel .898.
DEFAULTS = {"tune": "head", "head.pool": "grid", "head.read": [0.5], "head.centres": 4096}


@dataclass(frozen=True)
class PointCloudOptions(Settings):
    """What of a cloud the trunk sees.

    ``tokens``: see above. ``features``: what is used besides the place, in views as sheets of their own; all files must
    bring it. ``columns``: names of the columns behind x, y, z (nx, ny, nz, red, green, blue, intensity) in files and
    arrays that name none. ``points``: as many are kept of a larger cloud, and drawn on a mesh. ``normalize``: "box"
    moves each cloud to the middle and divides it by half the longest side of the box around it, "sphere" by its largest
    distance from the middle, so that size plays no part; "shared" divides all by half the longest side of the largest
    training cloud. ``up``: the axis that points up. ``side``: patches along one view.
    ``groups``, ``neighbours``: how many groups, of how many points. ``turn``, ``scale``, ``jitter``: by up to how many
    degrees a training copy is turned about the vertical, by which share each of its axes shrunk, and the deviation of
    each coordinate in half sides; ``mirror``: half of the copies are mirrored left to right.
    """

    tokens: Literal["views", "groups"] = "views"
    features: tuple[Literal["normal", "color", "intensity"], ...] = ()
    columns: tuple[str, ...] = ()
    points: int = 2048
    normalize: Literal["box", "sphere", "shared"] = "box"
    up: Literal["z", "y"] = "z"
    side: int = 6
    groups: int = 64
    neighbours: int = 32
    turn: float = 10.0
    scale: float = 0.1
    jitter: float = 0.01
    mirror: bool = True

    rules = (
        Rule("features", "name each feature once", lambda own: len(set(own.features)) == len(own.features)),
        Rule("points", f"lie in {LEAST}..{LIMIT}", lambda own: LEAST <= own.points <= LIMIT),
        Rule("side", "lie in 1..32 patches", lambda own: 1 <= own.side <= 32),
        Rule("groups", "be at least 1", lambda own: own.groups >= 1),
        Rule("neighbours", "lie between 1 and input.points", lambda own: 1 <= own.neighbours <= own.points),
        Rule("turn", "lie in 0..180 degrees", lambda own: 0 <= own.turn <= 180),
        Rule("scale", "lie in [0, 1)", lambda own: 0 <= own.scale < 1),
        Rule("jitter", "lie in [0, 1) half sides", lambda own: 0 <= own.jitter < 1),
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in use behind x, y, z."""
        return tuple(name for feature in self.features for name in FEATURES[feature])

    @property
    def least(self) -> int:
        """How many different points a cloud must have."""
        return self.neighbours if self.tokens == "groups" else LEAST


class PointCloudTransform(Transform):
    """Cloud -> different points in a fixed order, few enough, in the middle, of a size near 1.

    Learns ``size_`` (0 = each cloud's own), ``top_``, the brightest colour where files do not state it, ``dark_`` and
    ``bright_``, the intensities that become 0 and 1, and ``whole_``, the numbers of the whole that all training clouds
    have. Before it has learned, a cloud stands for itself.
    """

    def __init__(self, options: PointCloudOptions, stem: Stem) -> None:
        del stem
        self.options = options
        self.size_ = self.top_ = self.dark_ = self.bright_ = 0.0
        self.whole_ = Scale()
        self._told: dict[str, int] = {}
        self._gaps: dict[str, int] = {}

    def fit(self, views: Iterable[View]) -> None:
        """Learns the shared size, the range of colours and of intensities; counts what has to be said.

        Raises:
            DataError: a file lacks a feature in use, or holds colours beyond 65535.
        """
        size, colour = 0.0, 0.0
        darkest: list[float] = []
        brightest: list[float] = []
        whole: list[dict[str, float]] = []
        self._told = {}
        for view in views:
            cloud = Cloud(**view.inputs)
            self._count(cloud)
            with suppress(DataError):  # of a mesh without a surface, which is refused when its turn comes
                whole.append(self._whole(self._points(cloud, where=view.key), where=view.key))
            size = max(size, _half_side(cloud.points))
            values = self._values(cloud, where=view.key)
            if "color" in self.options.features and not cloud.top:
                colour = max(colour, float(values[:, self._columns("color")].max()))
            if "intensity" in self.options.features:
                low, high = np.percentile(values[:, self._columns("intensity")], (1, 99))
                darkest, brightest = [*darkest, float(low)], [*brightest, float(high)]
        self.size_ = size if self.options.normalize == "shared" else 0.0
        self.top_ = _top(colour, where="the colours") if colour else 0.0
        if darkest:
            self.dark_, self.bright_ = float(np.median(darkest)), float(np.median(brightest))
        self.whole_ = Scale.of(whole) if whole else Scale()

    def __call__(self, view: View) -> View:
        """Returns ``cloud`` [p, 3 + columns in use] float32: x, y, z in half sides, the features from -1 or 0 to 1; and
        ``whole`` [w] float32, the numbers of the whole in deviations from the training clouds.

        Raises:
            DataError: see the module.
        """
        cloud = Cloud(**view.inputs)
        if cloud.gaps:
            self._gaps[view.key] = cloud.gaps
        cloud = self._points(cloud, where=view.key)
        values = self._scaled(cloud, self._values(cloud, where=view.key), where=view.key)
        middle = cloud.points.min(axis=0) / 2 + cloud.points.max(axis=0) / 2  # a sum might overflow
        points = self._upright(cloud.points - middle)
        table, different = _different(np.concatenate([points, values], axis=1))
        if different < self.options.least:
            raise DataError(
                view.key,
                must=f"have at least {self.options.least} different points",
                found=str(different),
                do="Leave it out, or lower input.neighbours." if self.options.tokens == "groups" else "Leave it out.",
            )
        table = _thinned(table, most=self.options.points)
        table[:, :3] /= self.size_ or (_radius(points) if self.options.normalize == "sphere" else _half_side(points))
        whole = self.whole_(self._whole(cloud, where=view.key))
        return view.with_inputs({"cloud": table.astype(np.float32), "whole": whole})

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns the cloud turned about the vertical, mirrored, its axes shrunk, each point moved a little."""
        cloud = view.inputs["cloud"].copy()
        angle = np.deg2rad(rng.uniform(-self.options.turn, self.options.turn))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        shrink = 1 - rng.uniform(0, self.options.scale, size=3)
        if self.options.mirror and rng.random() < 0.5:
            shrink[0] *= -1
        noise = rng.normal(0, self.options.jitter, size=(len(cloud), 3))
        cloud[:, :3] = np.clip((cloud[:, :3] * shrink) @ turn.T + noise, -FAR, FAR)
        if "normal" in self.options.features:
            place = [3 + column for column in self._columns("normal")]
            cloud[:, place] = _unit(cloud[:, place] / shrink) @ turn.T
        return view.with_inputs({**view.inputs, "cloud": cloud})

    def framed(self, points: np.ndarray) -> np.ndarray:
        """Returns all points of a cloud [n, 3] as those of ``__call__`` lie, in half sides around its middle."""
        points = self._upright(points - (points.min(axis=0) + points.max(axis=0)) / 2)
        return points / (self.size_ or (_radius(points) if self.options.normalize == "sphere" else _half_side(points)))

    def _points(self, cloud: Cloud, *, where: object) -> Cloud:
        """Returns a cloud of points: of a mesh, those drawn on its surface."""
        return cloud if cloud.faces is None else sampled(cloud, count=self.options.points, seed=0, where=where)

    def _whole(self, cloud: Cloud, *, where: object) -> dict[str, float]:
        """Returns the numbers of the whole of a cloud of points."""
        names = _named(cloud, self.options.columns, where=where)
        return whole_numbers(self._upright(cloud.points), cloud.extras, names)

    def _columns(self, feature: str) -> list[int]:
        """Returns where a feature stands among the columns in use."""
        return [self.options.names.index(name) for name in FEATURES[feature]]

    def _values(self, cloud: Cloud, *, where: object) -> np.ndarray:
        """Returns the columns in use ``[n, k]`` as the file has them; of a mesh, its normals are not known yet."""
        names = _named(cloud, self.options.columns, where=where)
        wanted = self.options.names
        if cloud.faces is not None:
            wanted = tuple(name for name in wanted if name not in FEATURES["normal"])
        if missing := [name for name in wanted if name not in names]:
            raise DataError(
                where,
                must=f"bring {', '.join(self.options.features)} (columns {', '.join(wanted)})",
                found=f"no '{missing[0]}' among {', '.join(name or 'nameless columns' for name in names) or 'none'}",
                do="Name the columns, in the file or in input.columns, or leave the feature out of input.features.",
            )
        values = np.zeros((len(cloud.points), len(self.options.names)))
        places = [self.options.names.index(name) for name in wanted]
        values[:, places] = cloud.extras[:, [names.index(name) for name in wanted]]
        if bad := int((~np.isfinite(values).all(axis=1)).sum()):
            must, found = f"have finite {', '.join(wanted)}", f"{bad} of {len(values)} points without"
            raise DataError(where, must=must, found=found)
        return values

    def _scaled(self, cloud: Cloud, values: np.ndarray, *, where: object) -> np.ndarray:
        """Returns features of unit length (normals) or between 0 and 1."""
        values = values.copy()
        for feature in self.options.features:
            place = self._columns(feature)
            if feature == "normal":
                values[:, place] = self._upright(_unit(values[:, place]))
            elif feature == "color":
                top = cloud.top or self.top_ or _top(float(values[:, place].max()), where=where)
                if values[:, place].min() < 0 or values[:, place].max() > top:
                    low, high = values[:, place].min(), values[:, place].max()
                    must, found = f"have colours in 0..{top:g}, as in training", f"{low:g} to {high:g}"
                    raise DataError(where, must=must, found=found)
                values[:, place] /= top
            else:
                own = np.percentile(values[:, place], (1, 99))
                low, high = (self.dark_, self.bright_) if self.bright_ > self.dark_ else own
                values[:, place] = np.clip((values[:, place] - low) / ((high - low) or 1.0), 0, 1)
        return values

    def _upright(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, [0, 2, 1]] * [1, -1, 1] if self.options.up == "y" else vectors

    def _count(self, cloud: Cloud) -> None:
        for word, holds in (
            ("clouds", True),
            ("meshes", cloud.faces is not None),
            ("large", cloud.faces is None and len(cloud.points) > self.options.points),
            ("cut", cloud.total > LIMIT),
            ("gaps", cloud.gaps),
            *((feature, set(names) <= set(cloud.names)) for feature, names in FEATURES.items()),
        ):
            self._told[word] = self._told.get(word, 0) + int(holds)

    def doubts(self) -> tuple[str, ...]:
        """Returns how many points had no coordinates."""
        gaps, self._gaps = self._gaps, {}
        points, clouds = counted(sum(gaps.values()), "point"), counted(len(gaps), "cloud")
        return (f"{points} without coordinates (NaN) left out, in {clouds}",) if gaps else ()

    def state(self) -> dict[str, Any]:
        """Returns the size and the ranges."""
        ranges = {"size": self.size_, "top": self.top_, "dark": self.dark_, "bright": self.bright_}
        return {**ranges, "whole": asdict(self.whole_)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the size and the ranges."""
        self.size_, self.top_ = float(state["size"]), float(state["top"])
        self.dark_, self.bright_ = float(state["dark"]), float(state["bright"])
        self.whole_ = Scale(**{name: tuple(values) for name, values in state.get("whole", {}).items()})

    @property
    def notes(self) -> tuple[str, ...]:
        """How the clouds were understood, and what was drawn or left out."""
        told, most = self._told, self.options.points
        if not told:
            return ()
        notes = [f"each cloud is put into the same {self.options.normalize}, whatever its size"]
        if self.size_:
            notes = [f"clouds are divided by half the longest side of the largest, {self.size_:.4g}"]
        notes[0] += f"; {self.options.up} points up (input.up)"
        if told["meshes"]:
            notes.append(f"{told['meshes']} of {told['clouds']} are meshes: {most:,} points drawn on each (seed 0)")
        if told["large"]:
            notes.append(f"{told['large']} of {told['clouds']} are thinned to {most:,} points (seed 0; input.points)")
        if told["cut"]:
            notes.append(f"{counted(told['cut'], 'file')} of more than {LIMIT:,} points: as many were drawn from each")
        if told["gaps"]:
            notes.append(f"{counted(told['gaps'], 'point')} without coordinates (NaN) left out")
        if self.top_:
            notes.append(f"colours are taken as 0..{self.top_:g}, after the brightest in training")
        unused = [name for name in FEATURES if told[name] and name not in self.options.features]
        if unused:
            notes.append(f"not drawn: {', '.join(unused)} (input.features)")
        notes.append(f"plain features: the shape, and place, size and spread of {listing(self.whole_.columns)}")
        return tuple(notes)


def _named(cloud: Cloud, columns: tuple[str, ...], *, where: object) -> tuple[str, ...]:
    """Returns the names of a cloud's columns, by the option where the file names none."""
    if not columns or any(cloud.names):
        return cloud.names
    if len(columns) != len(cloud.names):
        must = f"have {len(columns)} columns behind x, y, z, as input.columns names"
        raise DataError(where, must=must, found=str(len(cloud.names)))
    return columns


def _half_side(points: np.ndarray) -> float:
    """Returns half the longest side of the box around the points; 1 for a single place."""
    return float(np.ptp(points, axis=0).max()) / 2 or 1.0


def _radius(points: np.ndarray) -> float:
    """Returns the largest distance from the origin; 1 when all lie there."""
    return float(np.linalg.norm(points, axis=1).max()) or 1.0


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1; a vector of length 0 stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def _top(brightest: float, *, where: object) -> float:
    """Returns the smallest usual range that holds a colour."""
    for top in TOPS:
        if brightest <= top:
            return top
    raise DataError(where, must=f"lie in 0..{TOPS[-1]:g}", found=f"{brightest:g}")


def _different(table: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the rows sorted, each once, and how many different places are among them.

    In this order nothing that follows, the seeded draw included, depends on the order of the file.
    """
    table = table[np.lexsort(table.T[::-1])]
    steps = np.diff(table, axis=0) != 0
    kept = np.concatenate([[True], steps.any(axis=1)])
    return table[kept], 1 + int(steps[:, :3].any(axis=1).sum())


def _thinned(table: np.ndarray, *, most: int) -> np.ndarray:
    if len(table) <= most:
        return table
    return table[np.sort(np.random.default_rng(0).permutation(len(table))[:most])]


def tokenizer(options: PointCloudOptions, transform: Transform, width: int, stem: Stem) -> Tokenizer:
    """Returns the tokenizer of views or of groups."""
    del transform
    channels = [len(FEATURES[feature]) for feature in options.features]
    if options.tokens == "groups":
        return GroupTokenizer(
            groups=options.groups, neighbours=options.neighbours, channels=sum(channels), width=width, stem=stem
        )
    made = ViewTokenizer(views=VIEWS, rows=ROWS, patches=options.side, channels=channels, width=width, stem=stem)
    made.at_places = PLAIN
    return made


def load(record: Record) -> dict[str, Any]:
    """Returns the attributes of ``read.Cloud``."""
    if record.path is None:
        return dict(vars(cloud_in_memory(record.value, where=record.key)))
    return dict(vars(read_room(record.path) if record.path.is_dir() else read_cloud(record.path)))


def places(raw: View, view: View, transform: Transform) -> np.ndarray:
    """Returns where the points of a cloud stand in its views, and their neighbourhoods.

    Raises:
        DataError: a mesh, or groups, where points have no place among the tokens.
    """
    assert isinstance(transform, PointCloudTransform)
    if raw.inputs["faces"] is not None:
        raise DataError(view.key, must="be a cloud of points for a class a point", found="a mesh")
    if transform.options.tokens != "views":
        raise UsageError("input.tokens", must="be 'views' for a class a point", found=repr(transform.options.tokens))
    framed = transform.framed(raw.inputs["points"])
    return places_of(framed, frames=view_frames(VIEWS), rows=ROWS, sheets=1 + len(transform.options.features))


def features(view: View) -> np.ndarray:
    """Returns what a plain model would use of a cloud.

    First its shape, all of the cloud in the unit sphere: histograms of x, y, z (16 bins over -1..1) and of the radius
    (16 over 0..1), and the covariance; then the numbers of the whole (``whole.whole_numbers``), which know place, size
    and the further columns.
    """
    points = view.inputs["cloud"][:, :3]
    points = points / _radius(points)
    shares = [np.histogram(axis, bins=16, range=(-1, 1))[0] / len(points) for axis in points.T]
    radius = np.histogram(np.linalg.norm(points, axis=1), bins=16, range=(0, 1))[0] / len(points)
    return np.concatenate([*shares, radius, np.cov(points.T)[np.triu_indices(3)], view.inputs["whole"]])


def draw(axes: Any, view: View) -> None:
    """Paints the points as seen from a corner, the nearer the brighter."""
    points = view.inputs["cloud"][:, :3]
    seen = points @ view_frames(VIEWS[-1:])[0].numpy().T
    seen = seen[np.argsort(seen[:, 2])]  # what is near is painted last
    size = float(np.clip(6000 / len(seen), 0.5, 30))
    axes.scatter(seen[:, 0], seen[:, 1], c=seen[:, 2], s=size, cmap="viridis", linewidths=0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlabel("the cloud from a corner above, the nearer the brighter")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, Any]:
    """Returns points on an upright (even label) or a lying (odd label) pipe, in metres far from the origin."""
    count = int(rng.integers(61, 97))
    turn, height = rng.uniform(0, 2 * np.pi, size=count), rng.uniform(-1.5, 1.5, size=count)
    points = np.stack([0.5 * np.cos(turn), 0.5 * np.sin(turn), height], axis=1)
    if label % 2:
        points = points[:, [2, 0, 1]]
    points += rng.normal(0, 0.02, size=points.shape) + (431_000.0, 5_410_000.0, 210.0)
    return dict(vars(Cloud(points, np.zeros((count, 0)), total=count)))


MODALITY = Modality(
    name="pointcloud",
    title="Point cloud",
    summary="point clouds and meshes: any number of points, from PLY, OFF, OBJ, text, LAS or arrays",
    source=Source(kind="files", suffixes=CLOUD_SUFFIXES),
    fields={
        "cloud": Field(
            "p* c", low=-FAR, high=FAR, unit="half sides", summary="one row a point: x, y, z, then the features in use"
        ),
        "whole": Field(
            "w", low=-MOST, high=MOST, unit="deviations", summary="numbers of the whole cloud, plain features only"
        ),
    },
    options=PointCloudOptions,
    load=load,
    transform=PointCloudTransform,
    tokenizer=tokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel, positions (resampled) and class token of the trunk; nothing for input.tokens=groups",
    units="metres or any length, the same in every file; right-handed, z up (input.up)",
    defaults=DEFAULTS,
    baseline="forest",
    requires=("trimesh", "laspy"),
    extra="pointcloud",
    inside=cloud_inside(view_frames(VIEWS[-1:])[0].numpy()),
    dense=Dense(
        index=index_points,
        places=places,
        shape=shape_of,
        at=at_points,
        local=local_points,
        write=write_points,
        paint=paint_points,
        suffix=".ply",
        files=FILES,
        defaults=DENSE,
        plain=plain_of,
    ),
)
