"""IMU: a motion recording as a plot, up to three axes a band, each drawn in a colour of its own.

File: CSV, TSV, Parquet (one row a time step, one column an axis, perhaps a column of time), NPY
``[t, axes]``, JSON (one list of time steps), UEA ``.ts`` (several recordings in one file); one or
more axes of accelerometer, gyroscope, magnetometer, orientation. Units stand in brackets behind a
name or in a row below the names; columns that count rows or packets are left out. In memory: an
array ``[t, axes]``, or a mapping with ``values`` and, if known, ``rate_hz``, ``times_s``, ``names``,
``units``.
A long recording with a label in every row (``--target activity``), and perhaps a column ``subject``
and ``split``, is cut into windows; so is any recording with ``sample=window``. A split then keeps the
windows of one subject, else of one file, together.
Tokens: axes that belong together (acc_x, acc_y, acc_z) share a band, two patches high, in which
each is a red, green or blue line, standardised by the training recordings; 8 patches are as long as
the median training recording, so a longer one is a wider picture; beyond ``max_windows`` windows it
becomes several pictures, whose features are averaged. S x S patches with the trunk's kernel;
positions resampled to the real grid; the summary token starts as the class token.
Sources: Meta-Transformer section 3.2 (arXiv 2307.10802) names IMU without a tokenizer; ViTST
(arXiv 2303.12799) for irregular series drawn as line plots for a pretrained vision transformer.
Errors: missing values, a gap in time, repeated or falling times, times without a unit, a rate that
only some recordings state, other axes or units than training, fewer than two time steps, a
recording longer than ``max_rows`` windows. Left out and said: columns of text, counters, marks of
rows (label, subject), and numbers that are one value in each recording. Clipped and said: values
beyond 50 deviations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, SummaryToken, Tokenizer, Transform
from metatransformer.core.samples import View
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.tokens import Span, Tokens
from metatransformer.data.index import Index
from metatransformer.modalities._recording.motion import MOTION_SUFFIXES, about_left_out, require_no_gap
from metatransformer.modalities._recording.uea import uea_parts
from metatransformer.modalities.imu.doubts import FAR, MARK, Doubts, Still
from metatransformer.modalities.imu.index import index_motion, load_motion
from metatransformer.modalities.imu.inside import MOTION_INSIDE
from metatransformer.modalities.imu.plots import arrange_windows, draw_timelines
from metatransformer.modalities.imu.windows import WindowCut
from metatransformer.nn.curves import axis_bands, draw_curves
from metatransformer.nn.patch import GridPositions, PatchEmbedding
from metatransformer.nn.pool import fold_rows
from metatransformer.nn.resample import resample_curves

PATCHES = 8  # patches over one window: 112 columns for patches of 14 pixels
BAND = 2  # patches over one band: two see a level more finely than one, three no better

# Measured on Italian Sign Language by 5-fold cross-validation of its training part (frozen
# focus-s14, least squares): blocks 4, 6 and 8 of 12 .951, block 6 alone .949, block 8 .951, block 4
# .946; by likelihood .939. Block 10 is clearly worse.
DEFAULTS = {
    "tune": "head",
    "head.pool": "grid",
    "head.read": [0.33, 0.5, 0.67],
}


@dataclass(frozen=True)
class ImuOptions(Settings):
    """What of a recording the trunk sees.

    ``axes``: columns to take, () = all that hold numbers. ``rate_hz``: the rate of recordings that
    state none (0 = unknown: their steps count as they are, and then no recording may state one).
    ``window_s``: the seconds (steps, where no rate is known) that are drawn 8 patches wide; "auto"
    = the median training recording, or 5 s (128 steps) where windows are cut. ``sample``: "window"
    cuts every recording into windows of ``window_s``, one every ``step_s`` ("auto" = half a window);
    "auto" does so where a file labels its time steps; "file" never. ``max_windows``: a longer sample
    is drawn as one picture a window, whose features are averaged; ``max_rows``: one of more windows
    is refused. ``max_gap``: the longest accepted distance of two steps, in median steps; what is
    shorter is bridged by a line. ``warp``, ``shift``: by how much of its length a training copy is
    stretched, and by how many deviations each of its axes is moved.
    """

    axes: tuple[str, ...] = ()
    rate_hz: float = 0.0
    window_s: float | Literal["auto"] = "auto"
    sample: Literal["auto", "file", "window"] = "auto"
    step_s: float | Literal["auto"] = "auto"
    max_windows: float = 8.0
    max_rows: int = 64
    max_gap: float = 3.0
    warp: float = 0.1
    shift: float = 0.1

    rules = (
        Rule("rate_hz", "be above 0 Hz, or 0 = unknown", lambda own: own.rate_hz >= 0),
        Rule("step_s", "be above 0", lambda own: own.step_s == "auto" or own.step_s > 0),
        Rule("window_s", "be above 0", lambda own: own.window_s == "auto" or own.window_s > 0),
        Rule("max_windows", "be at least 1", lambda own: own.max_windows >= 1),
        Rule("max_rows", "be at least 1", lambda own: own.max_rows >= 1),
        Rule("max_gap", "be at least 1", lambda own: own.max_gap >= 1),
        Rule("warp", "lie in [0, 0.5)", lambda own: 0 <= own.warp < 0.5),
        Rule("shift", "be at least 0", lambda own: own.shift >= 0),
    )

    @property
    def cut(self) -> WindowCut:
        """Returns how windows are cut from long recordings."""
        length, step = (0.0 if wanted == "auto" else wanted for wanted in (self.window_s, self.step_s))
        return WindowCut(length, step, self.axes, self.rate_hz, self.max_gap)


class ImuTransform(Transform):
    """Recording -> standardised columns of a plot.

    Learns ``names_`` and ``units_`` of the axes, ``timed_`` (whether time is in seconds),
    ``window_`` (what is drawn 8 patches wide), ``mean_`` and ``scale_`` of each axis. Before it has
    learned, each recording is as wide as one window and standardised by itself.
    """

    def __init__(self, options: ImuOptions, stem: Stem) -> None:
        self.options = options
        self.patch = stem.patch_size
        self.names_: tuple[str, ...] = ()
        self.units_: tuple[str, ...] = ()
        self.timed_ = False
        self.window_ = 0.0
        self.unnamed = (0, 0)  # training recordings without a line of names, and all, for the notes
        self.long = 0  # training recordings that become several pictures, for the notes
        self.mean_ = self.scale_ = np.zeros(0)
        self.left_out_: dict[str, str] = {}
        self._doubts = Doubts()

    def fit(self, views: Iterable[View]) -> None:
        """Learns axes, window, means and deviations; the first recording says what the axes are.

        Raises:
            DataError: recordings of different axes or units, or only some with a rate.
        """
        durations, count, unnamed = [], 0, 0
        total = squares = np.zeros(0)
        self.names_, self.mean_, self.left_out_ = (), np.zeros(0), {}
        still = Still()
        for view in views:
            values, times = self.select(view)
            if not durations:
                self.names_, self.units_ = self._axes(view)
                self.timed_ = self.is_timed(view)
                total, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
            self.left_out_ |= view.inputs.get("left_out", {})
            unnamed += not view.inputs.get("named", True)
            still.add(values)
            durations.append(_duration(times))
            count += len(values)
            total, squares = total + values.sum(axis=0), squares + np.square(values).sum(axis=0)
        if not durations:
            return
        wanted = self.options.window_s
        self.window_ = float(np.median(durations)) if wanted == "auto" else wanted
        self.long = sum(duration > self.window_ * self.options.max_windows for duration in durations)
        self.unnamed = (unnamed, len(durations))
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        # An axis that never changes carries nothing: leave its scale alone.
        scale = np.where(spread <= 1e-7 * np.abs(mean), 1.0, spread)
        taken = np.ones(len(mean), dtype=bool) if self.options.axes else ~still.marks
        self.left_out_ |= dict.fromkeys((self.names_[place] for place in np.flatnonzero(~taken)), MARK)
        self.names_ = tuple(name for name, kept in zip(self.names_, taken, strict=True) if kept)
        self.units_ = tuple(unit for unit, kept in zip(self.units_, taken, strict=True) if kept)
        self.mean_, self.scale_ = mean[taken], scale[taken]

    def __call__(self, view: View) -> View:
        """Returns ``motion`` [pictures, t, axes] float32: one row a column of a plot, whole patches.

        Raises:
            DataError: see the module.
        """
        values, times = self.select(view)
        duration = _duration(times)
        window = self.window_ or duration
        pictures = 1 if duration <= window * self.options.max_windows else math.ceil(duration / window)
        if pictures > self.options.max_rows:
            unit = "s" if self.is_timed(view) else "time steps"
            raise DataError(
                view.key,
                must=f"last at most {window * self.options.max_rows:.4g} {unit}",
                found=f"{duration:.4g} {unit}",
                do="Set input.sample=window to cut it into samples, or input.max_rows (it all goes through at once).",
            )
        patches = max(1, round(PATCHES * duration / window / pictures))
        motion = resample_curves(values, times=times, columns=pictures * patches * self.patch)
        mean, scale = (self.mean_, self.scale_) if self.names_ else _own_statistics(values)
        motion = (motion - mean) / scale
        self._doubts.see(view.key, motion, names=self.names_)
        motion = np.clip(motion, -FAR, FAR).astype(np.float32)
        return view.with_inputs({"motion": motion.reshape(pictures, -1, motion.shape[1])})

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns the recording with its ends moved in time, and each axis a little up or down."""
        motion = _in_a_row(view)
        length, axes = motion.shape
        first, last = rng.uniform(-self.options.warp, self.options.warp, size=2) * length
        places = np.clip(np.linspace(first, length - 1 + last, length), 0, length - 1)
        steps = np.arange(length)
        moved = np.stack([np.interp(places, steps, axis) for axis in motion.T], axis=1)
        moved += rng.normal(0, self.options.shift, size=axes)
        moved = np.clip(moved, -FAR, FAR)
        return view.with_inputs({"motion": moved.astype(np.float32).reshape(view.inputs["motion"].shape)})

    def _axes(self, view: View) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns names and units of the axes to take from a recording, in training's order."""
        names, units = tuple(view.inputs["names"]), tuple(view.inputs["units"])
        wanted = self.names_ or self.options.axes or names
        if missing := [name for name in wanted if name not in names]:
            raise DataError(
                view.key,
                must=f"have the axes {', '.join(wanted)}",
                found=f"no '{missing[0]}' among {', '.join(names)}",
                do="Name the columns as in training; input.axes chooses among them.",
            )
        return wanted, tuple(units[names.index(name)] for name in wanted)

    def select(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Returns ``values`` [t, axes] and ``times`` [t], in seconds or steps."""
        raw = view.inputs
        names, units = self._axes(view)
        others = [name for name in raw["names"] if name not in names and name not in self.left_out_]
        if others and not self.options.axes:
            raise DataError(
                view.key,
                must="have the same axes as the first recording",
                found=f"also the column '{others[0]}'",
                do="Remove it, or name the axes to take in input.axes; --target names a column of labels.",
            )
        if self.units_ and units != self.units_:
            self._require_units(view, names, units=units)
        if self.names_ and self.is_timed(view) != self.timed_:
            raise DataError(
                view.key,
                must="state its rate" if self.timed_ else "state no rate, as the first recording",
                found="no rate and no times" if self.timed_ else "a rate",
                do="Set input.rate_hz to the rate of the recordings that state none.",
            )
        values = raw["values"][:, [raw["names"].index(name) for name in names]]
        times = raw["times_s"]
        if times is None:
            times = np.arange(len(values)) / (raw["rate_hz"] or self.options.rate_hz or 1.0)
        if len(values) < 2:
            raise DataError(view.key, must="have at least 2 time steps", found=str(len(values)))
        require_no_gap(times, most=self.options.max_gap, where=view.key)
        return values, times

    def _require_units(self, view: View, names: Sequence[str], *, units: Sequence[str]) -> None:
        """Raises DataError for another unit than training's; once fitted, one that is not stated is only told."""
        both = zip(names, units, self.units_, strict=True)
        odd = [one for one in both if one[1] != one[2] and not (self.mean_.size and "" in one[1:])]
        if odd:
            name, found, wanted = odd[0]
            raise DataError(
                f"{view.key}, axis '{name}'",
                must=f"have the unit {wanted or 'left unsaid'}, as in training",
                found=found or "none stated",
                do="State the unit behind each column's name, as in 'acc_x [g]', in every file or in none.",
            )
        self._doubts.unstated += 1

    def doubts(self) -> tuple[str, ...]:
        """Returns what was clipped, and which units were taken on trust, since the last call."""
        told = self._doubts.told()
        self._doubts = Doubts()
        return told

    def is_timed(self, view: View) -> bool:
        """Returns whether a recording states its times or its rate."""
        raw = view.inputs
        return raw["times_s"] is not None or bool(raw["rate_hz"] or self.options.rate_hz)

    def state(self) -> dict[str, Any]:
        """Returns axes, window and statistics."""
        return {
            "names": list(self.names_),
            "units": list(self.units_),
            "timed": self.timed_,
            "window": self.window_,
            "mean": self.mean_.tolist(),
            "scale": self.scale_.tolist(),
            "left_out": dict(self.left_out_),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back axes, window and statistics."""
        self.names_, self.units_ = tuple(state["names"]), tuple(state["units"])
        self.timed_, self.window_ = bool(state["timed"]), float(state["window"])
        self.mean_, self.scale_ = np.array(state["mean"]), np.array(state["scale"])
        self.left_out_ = dict(state.get("left_out", {}))  # models of before 2026-11-29 refused such columns

    @property
    def notes(self) -> tuple[str, ...]:
        """How the recordings were understood."""
        if not self.names_:
            return ()
        axes = [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names_, self.units_, strict=True)]
        length = f"{self.window_:.4g} {'s' if self.timed_ else 'time steps of unknown rate'}"
        notes = [f"{len(axes)} axes: {', '.join(axes)}; a window is {length}"]
        if self.long:
            several = f"longer than {self.options.max_windows:g} windows: {self.long} of the training recordings"
            notes.append(f"{several}, drawn as one picture a window, features averaged")
        if self.left_out_:
            notes.append(about_left_out(self.left_out_))
        unnamed, count = self.unnamed
        if unnamed:
            where = f"{unnamed} of {count} recordings"
            notes.append(f"no line of names in {where}: the first one holds numbers, and axes are called column_1, ...")
        return tuple(notes)


def _duration(times: np.ndarray) -> float:
    """Returns how long the recording lasts, its last step included."""
    return float(times[-1] - times[0] + np.median(np.diff(times)))


def _in_a_row(view: View) -> np.ndarray:
    """Returns the columns of all pictures one after the other, ``[t, axes]``."""
    motion = view.inputs["motion"]
    return motion.reshape(-1, motion.shape[-1])


def _own_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 0, spread, 1.0)


class ImuTokenizer(Tokenizer):
    """Draw the axes as coloured lines, cut into patches, add positions, put the summary in front."""

    axes = 2

    def __init__(self, options: ImuOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        del options
        assert isinstance(transform, ImuTransform)
        self.native = stem.patch is not None
        self.bands = axis_bands(transform.names_)
        side = stem.patch_size
        self.height = BAND * side
        self.patches = PatchEmbedding(width=width, channels=3, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and the grid (bands, time), a row each picture; motion is ``[S, W, t, axes]``."""
        mask = masks["motion"]  # [S, W, t]
        motion, samples = fold_rows(inputs["motion"], mask.any(dim=2))  # [B, t, axes]
        mask, _ = fold_rows(mask, mask.any(dim=2))
        bands = self.bands or axis_bands([f"axis_{i}" for i in range(motion.shape[2])])
        picture = draw_curves(motion, bands=bands, height=self.height)  # [B, 3, h, t]
        x, real = self.patches(picture, mask[:, None, :].expand(-1, picture.shape[2], -1))  # from [B, h, t]
        x = x + self.positions(real).to(x.dtype)
        grid = (x.shape[1], x.shape[2])
        x, mask = self.summary(x.flatten(1, 2), real.flatten(1, 2))
        span = Span("imu", 0, x.shape[1], summary=0, grid=grid)
        # One picture each stays plain tokens, which may stand beside another modality's.
        return Tokens(x, mask, (span,), samples=None if inputs["motion"].shape[1] == 1 else samples)


def index(data: Any, *, target: str, labelled: bool, header: bool, options: ImuOptions) -> Index:
    """Returns one record a file, or one a window of long recordings; see ``index.py``."""
    del header  # a table without names of columns is a recording too
    return index_motion(data, target=target, labelled=labelled, sample=options.sample, cut=options.cut)


def features(view: View) -> np.ndarray:
    """Returns mean, deviation, minimum, maximum and mean absolute step of each axis."""
    motion = _in_a_row(view)
    steps = np.abs(np.diff(motion, axis=0)).mean(axis=0)
    ends = (motion.min(axis=0), motion.max(axis=0))
    return np.concatenate([motion.mean(axis=0), motion.std(axis=0), *ends, steps])


def draw(axes: Any, view: View) -> None:
    """Paints one line an axis, standardised, over the columns of the plot."""
    axes.plot(_in_a_row(view), linewidth=0.8)
    axes.set(xlabel="column", ylabel="deviations")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, Any]:
    """Returns a slow sway (even label) or a fast shake (odd label) of six axes at 50 Hz."""
    steps = int(rng.integers(61, 97))
    times = np.arange(steps) / 50.0
    speed_hz, size = ((0.9, 1.0), (6.1, 2.0))[label % 2]
    phases = rng.uniform(0, 2 * np.pi, size=6)
    values = size * np.sin(2 * np.pi * speed_hz * times[:, None] + phases)
    values += rng.normal(0, 0.1, size=values.shape)
    values[:, 2] += 9.81
    names = tuple(f"{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz")
    units = ("m/s2",) * 3 + ("rad/s",) * 3
    return {
        "values": values,
        "names": names,
        "units": units,
        "times_s": None,
        "rate_hz": 50.0,
    }


MODALITY = Modality(
    name="imu",
    title="IMU",
    summary="recordings of motion sensors: any axes, any length, rate stated or read from times",
    source=Source(kind="files", suffixes=MOTION_SUFFIXES, parts=uea_parts, index=index, continues=True),
    fields={
        "motion": Field(
            "w* t* c",
            low=-FAR,
            high=FAR,
            unit="deviations",
            summary="w pictures, one row a column of the plot, c axes",
        )
    },
    options=ImuOptions,
    load=load_motion,
    transform=ImuTransform,
    tokenizer=ImuTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    threads=False,
    native="patch kernel, positions (resampled) and class token of the trunk",
    units="any, the same in every file; g, mg, deg/s, dps behind a column's name become SI; Hz, s",
    defaults=DEFAULTS,
    arrange=arrange_windows,
    illustrate=draw_timelines,
    inside=MOTION_INSIDE,
)
