"""Time series: the look-back as a page of lines, one line a cycle, and as numbers beside the trunk.

File: CSV, TSV, Parquet, JSON lines or a DataFrame; wide (a column of times, a column a series) or
long (columns id, time, value); a folder of them is several groups of series. Times are ISO 8601,
seconds since 1970 or what can mean only one day, with or without zone, at one constant step of the
clock or of a calendar (months, quarters, fiscal years, working days). With ``sample=file``, for
classification, what the modality imu reads: a file a sample (CSV, TSV, Parquet, NPY, JSON), or UEA
``.ts``; then ``head.pool=grid`` keeps channels apart.
Forecasts: ``--target`` names the columns to forecast (none = all; several with commas);
``input.lookback`` rows are seen and the ``input.horizon`` rows behind them forecast. Columns that
are no target help: their past, or with ``input.known=[holiday,price]`` their future too. Train, val
and test follow each other in time, by ``input.rows`` or a column 'split', never by
``data.val_fraction``. ``predict`` goes on from the last row of each series; for known covariates
append horizon rows to the table, with their times and known columns and nothing else.
``metatransformer fit load.csv --modality timeseries --target load --out run input.lookback=168
input.horizon=24 input.known=[holiday]``. ``evaluate`` scores the table's test rows (all of them
where a column 'split' says test in each), standardised by its own train rows. A series is known
again by its name, in a folder FILE/COLUMN.
Tokens: one record is one window of one series. Its newest whole cycles (days of hours) are drawn
below each other, each a line in a band one patch high and four wide, covariates below; S x S
patches with the trunk's kernel, positions resampled to the real grid, the class token as summary.
Beside the trunk the head gets the window itself, from its last value, in its own deviations: the
linear forecast that a trunk has to add to, in every control as well; and how far the last value is
from the mean of the series' training rows.
Sources: NLinear (arXiv 2205.13504) for the last value as level; RevIN (Kim et al. 2022) for the
window's own deviation; PatchTST (arXiv 2211.14730) for one channel a sample; VisionTS (arXiv
2408.17253) for folding a series by its period before a vision transformer.
Errors: text among numbers, missing and infinite values, gaps, repeated or unsorted times, odd
steps, no future of known covariates, other covariates than training, a series shorter than
look-back and horizon, no val rows, series that never change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, SummaryToken, Tokenizer, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.tokens import Span, Tokens
from metatransformer.modalities._recording.motion import (
    about_left_out,
    motion_from_array,
    motion_from_mapping,
    read_motion,
    require_no_gap,
)
from metatransformer.modalities._recording.uea import read_uea
from metatransformer.modalities.timeseries.forecasts import arrange_forecasts, draw_forecasts
from metatransformer.modalities.timeseries.index import SERIES_SUFFIXES, index_series
from metatransformer.modalities.timeseries.inside import SERIES_INSIDE
from metatransformer.modalities.timeseries.series import Layout
from metatransformer.modalities.timeseries.windows import Cut, Window, window_scale
from metatransformer.nn.curves import draw_curves
from metatransformer.nn.patch import GridPositions, PatchEmbedding
from metatransformer.nn.resample import resample_curves

PATCHES = 4  # patches over one cycle: 6 hours each of a day
MOST_CYCLES = 8  # beyond it several cycles share a line: the cost grows with their number
WHOLE = "be shares with a sum of at most 1, or whole numbers of rows"  # what input.rows must be
FAR = 1e4  # a flat look-back counts a tenth of the series' deviation, so nothing real is further out

# Ridge on frozen focus-s14, every eighth window of ETTh1 / ETTh2: MSE on validation, and on the last 1440 training
# rows. The direct numbers alone .675 / .211 and .398 / .779; with block 2 of 12 .666 / .211 and .396 / .777; block 4
# .664 / .211 and .397 / .779; block 6 .672 / .211 and .398 / .784; the tokens without any block .670 / .212 and
# .399 / .783. Means over whole lines or halves of the page instead of quarters of the day: .676 / .211 and .402 / .781.
DEFAULTS = {
    "task.name": "forecast",
    "tune": "head",
    "head.pool": "columns",
    "head.read": [0.17],
}


@dataclass(frozen=True)
class TimeseriesOptions(Settings):
    """How tables are read and windows taken.

    ``lookback``, ``horizon``: rows seen and rows forecast. ``known``: covariates whose future is in
    the table too; other columns that ``--target`` does not name are covariates of the past.
    ``rows``: train, val and test in time, as shares or as counts of rows; a column 'split' comes
    first. ``windows``: the most windows of train, val and test that are taken, of all series
    together. ``period``: the rows of a cycle; "auto" goes by the step (24 for hours). ``time``,
    ``id``, ``values``: columns with unusual names (of ``id`` several, with commas between them);
    ``ignore``: columns to leave out; ``style``: how times are written, as for strptime; ``zone``:
    their time zone; ``fill``: what stands in missing rows and cells; ``short``: whether series
    without enough rows are left out. ``sample``: "file" takes whole files, with one label each, for
    classification.
    """

    lookback: int = 96
    horizon: int = 24
    known: tuple[str, ...] = ()
    rows: tuple[float, ...] = (0.7, 0.15, 0.15)
    windows: tuple[int, ...] = (15000, 5000, 50000)
    period: int | Literal["auto"] = "auto"
    time: str = ""
    id: str = ""
    values: str = ""
    ignore: tuple[str, ...] = ()
    style: str = ""
    zone: str = ""
    fill: Literal["refuse", "line", "last"] = "refuse"
    short: Literal["refuse", "skip"] = "refuse"
    sample: Literal["window", "file"] = "window"

    rules = (
        Rule("lookback", "be at least 4", lambda own: own.lookback >= 4),
        Rule("horizon", "be at least 1", lambda own: own.horizon >= 1),
        Rule(
            "rows",
            "be three numbers, the first above 0",
            lambda own: len(own.rows) == 3 and min(own.rows) >= 0 < own.rows[0],
        ),
        Rule("rows", WHOLE, lambda own: sum(own.rows) < 1 + 1e-9 or all(float(part).is_integer() for part in own.rows)),
        Rule("windows", "be three numbers of at least 1", lambda own: len(own.windows) == 3 and min(own.windows) >= 1),
        Rule("period", "be at least 1", lambda own: own.period == "auto" or own.period >= 1),
    )

    def layout(self, target: str) -> Layout:
        """Returns how a table is read; ``target`` names columns, with commas between them."""
        columns = tuple(name.strip() for name in target.split(",") if name.strip())
        return Layout(
            time=self.time,
            id=self.id,
            values=self.values,
            target=columns,
            known=self.known,
            ignore=self.ignore,
            style=self.style,
            zone=self.zone,
            fill=self.fill,
            short=self.short,
        )

    @property
    def cut(self) -> Cut:
        """How windows are taken."""
        return Cut(self.lookback, self.horizon, self.rows, self.windows)


class TimeseriesTransform(Transform):
    """Window or whole series -> lines to draw, and numbers that go beside the trunk.

    Learns ``names_`` (channels of whole series), ``covariates_`` (of windows), ``lines_`` and
    ``direct_`` (how many there are), and ``means_``, the mean of each series over its training rows.
    """

    def __init__(self, options: TimeseriesOptions, stem: Stem) -> None:
        self.options = options
        self.columns = PATCHES * stem.patch_size
        self.names_: tuple[str, ...] = ()
        self._left_out: dict[str, str] = {}
        self.covariates_: tuple[str, ...] = ()
        self.lines_ = self.direct_ = 0
        self.means_: dict[str, float] = {}

    def fit(self, views: Iterable[View]) -> None:
        """Learns what a sample looks like, and the means; level and deviation are each window's own.

        Raises:
            DataError: no series changes, or what ``__call__`` raises.
        """
        spreads: dict[str, float] = {}
        for number, view in enumerate(views):
            if "window" in view.inputs:
                window = view.inputs["window"]
                self.means_.setdefault(window.series.name, window.mean)
                spreads.setdefault(window.series.name, window.spread)
            if number == 0:
                self.names_ = tuple(view.inputs.get("names", ()))
                self._left_out = dict(view.inputs.get("left_out", {}))
                self.covariates_ = view.inputs["window"].series.covariates if "window" in view.inputs else ()
                ready = self(view).inputs
                self.lines_, self.direct_ = len(ready["lines"]), len(ready["direct"])
        if spreads and not any(spreads.values()):
            must = "change over time in its training rows"
            raise DataError(f"series '{next(iter(spreads))}'", must=must, found="the same value in every row")

    def __call__(self, view: View) -> View:
        """Returns ``lines`` [r, t] and ``direct`` [f] float32, and ``window``, 1 where the sample is to be continued.

        Raises:
            DataError: other channels, covariates or cycles than training; see the module.
        """
        raw = view.inputs
        lines, direct = self._window(raw["window"]) if "window" in raw else self._whole(view)
        if self.direct_ and (len(lines), len(direct)) != (self.lines_, self.direct_):
            raise DataError(
                view.key,
                must=f"fill {self.lines_} lines, one a cycle and column, as the series of training do",
                found=f"{len(lines)}: its step makes its cycles shorter or longer",
                do="Bring all series to one step, or set input.period when fitting.",
            )
        ready = {"lines": lines.astype(np.float32), "direct": direct.astype(np.float32)}
        return view.with_inputs({**ready, "window": np.array(int("window" in raw))})

    def _window(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        past, lines, direct = window.past[:, self._order(window)], [], []
        fold = self.fold(window)
        for channel, values in enumerate(past.T):
            level, spread = window.scale if channel == 0 else window_scale(values, floor=0.0)
            lines.append(self._page((values - values.mean()) / spread, fold=fold))
            direct.append((values - level) / spread)
            known = channel - past.shape[1] + window.known.shape[1]
            if known >= 0:  # also what is known of the future
                direct.append((window.known[:, known] - level) / spread)
        # Series tend to come back: how far, the head learns. One that training did not see has its own mean.
        level, spread = window.scale
        direct.append([(self.means_.get(window.series.name, window.mean) - level) / spread])
        return np.concatenate(lines), np.clip(np.concatenate(direct), -FAR, FAR)

    def _order(self, window: Window) -> list[int]:
        """Returns the columns of a window's past in the order of training: covariates go by their names."""
        found = window.series.covariates
        wanted = self.covariates_ if self.direct_ else found
        if sorted(found) != sorted(wanted):
            raise DataError(
                f"series '{window.series.name}'",
                must=f"have the covariates of training: {', '.join(wanted) or 'none'}",
                found=", ".join(found) or "none",
                do="Complete or rename the columns; fit again with input.ignore to do without some.",
            )
        return [0, *(1 + found.index(name) for name in wanted)] if found else list(range(window.past.shape[1]))

    def fold(self, window: Window) -> int:
        """Returns how many rows of the look-back one line shows."""
        wanted = self.options.period
        period = window.series.period if wanted == "auto" else wanted
        if period < 4 or 2 * period > window.lookback:
            return max(1, window.lookback // 4)
        return period * -(-(window.lookback // period) // MOST_CYCLES)

    def _page(self, values: np.ndarray, *, fold: int) -> np.ndarray:
        """Returns the newest whole cycles [r, t]; the direct numbers hold what is older."""
        cycles = len(values) // fold
        newest = values[len(values) - cycles * fold :].reshape(cycles, fold).T
        return resample_curves(newest, times=np.arange(fold), columns=self.columns).T

    def _whole(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Returns one line a channel over the whole length, and mean, deviation, ends and mean step of each."""
        raw = view.inputs
        if self.names_ and tuple(raw["names"]) != self.names_:
            must, found = f"have the channels {', '.join(self.names_)}", ", ".join(raw["names"])
            raise DataError(view.key, must=must, found=found)
        values, times = raw["values"], raw["times_s"]
        if len(values) < 2:
            raise DataError(view.key, must="have at least 2 rows", found=str(len(values)))
        if times is not None:
            require_no_gap(times, most=1.5, where=view.key)
        spread = values.std(axis=0)
        own = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        lines = resample_curves(own, times=np.arange(len(own)), columns=self.columns).T
        steps = np.abs(np.diff(values, axis=0)).mean(axis=0)
        direct = np.concatenate([values.mean(axis=0), spread, values.min(axis=0), values.max(axis=0), steps])
        return lines, direct

    @property
    def notes(self) -> tuple[str, ...]:
        """How the samples are shown to the trunk."""
        if self.names_:
            drawn = f"channels: {', '.join(self.names_)}; every file is drawn {self.columns} columns wide"
            return (drawn, *((about_left_out(self._left_out),) if self._left_out else ()))
        return (f"a look-back is drawn as {self.lines_} lines",) if self.lines_ else ()

    def state(self) -> dict[str, Any]:
        """Returns what a sample looks like."""
        return {
            "names": list(self.names_),
            "covariates": list(self.covariates_),
            "lines": self.lines_,
            "direct": self.direct_,
            "means": dict(self.means_),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what a sample looks like."""
        self.names_, self.covariates_ = tuple(state["names"]), tuple(state["covariates"])
        self.lines_, self.direct_ = int(state["lines"]), int(state["direct"])
        self.means_ = dict(state["means"])


class TimeseriesTokenizer(Tokenizer):
    """Draw the lines below each other, cut into patches, add positions, put the summary in front."""

    axes = 2

    def __init__(self, options: TimeseriesOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        del options
        assert isinstance(transform, TimeseriesTransform)
        self.native = stem.patch is not None
        self.direct = transform.direct_
        self.side = stem.patch_size
        self.patches = PatchEmbedding(width=width, channels=1, stem=stem, size=(self.side, self.side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and the grid (lines, time), with the direct numbers beside."""
        del masks
        lines = inputs["lines"]
        bands = tuple((line,) for line in range(lines.shape[1]))
        picture = draw_curves(lines.transpose(1, 2), bands=bands, height=self.side)[:, :1]  # [B, 1, h, t]
        x, real = self.patches(picture, torch.ones_like(picture[:, 0], dtype=torch.bool))
        x = x + self.positions(real).to(x.dtype)
        grid = (x.shape[1], x.shape[2])
        x, mask = self.summary(x.flatten(1, 2), real.flatten(1, 2))
        span = Span("timeseries", 0, x.shape[1], summary=0, grid=grid)
        return Tokens(x, mask, (span,), direct=inputs["direct"])


def index(data: Any, *, target: str, labelled: bool, header: bool, options: TimeseriesOptions) -> Any:
    """Returns windows of the series, or one record a file where ``options.sample`` is "file".

    To learn or to score, all windows in the order of time; to predict, the last window of each
    series, whose future is not in the table.
    """
    return index_series(
        data,
        files=options.sample == "file",
        layout=options.layout(target),
        cut=options.cut,
        labelled=labelled,
        label=target,
        header=header,
    )


def load(record: Record) -> dict[str, Any]:
    """Returns ``window``, or of a whole file ``values`` [t, c], ``names`` and ``times_s``."""
    if isinstance(record.value, Window):
        return {"window": record.value}
    if record.path is not None and record.path.suffix.lower() == ".ts":
        number = 1 if record.part is None else int(record.part)
        motion = motion_from_array(read_uea(record.path, part=number), where=record.path)
    elif record.path is not None:
        motion = read_motion(record.path)
    elif isinstance(record.value, Mapping):
        motion = motion_from_mapping(record.value, where=record.key)
    else:
        motion = motion_from_array(np.asarray(record.value), where=record.key)
    return {
        "values": motion.values,
        "names": motion.names,
        "times_s": motion.times_s,
        "left_out": motion.left_out,
    }


def features(view: View) -> np.ndarray:
    """Returns the scaled window without the distance from its series' mean (NLinear), or statistics of each channel."""
    direct = view.inputs["direct"]
    return direct[:-1] if view.inputs["window"] else direct


def draw(axes: Any, view: View) -> None:
    """Paints the lines below each other, as the trunk sees them."""
    lines = view.inputs["lines"]
    for number, line in enumerate(lines):
        axes.plot(line - 6 * number, linewidth=0.8)
    axes.set_yticks([])
    axes.set(xlabel="one cycle", ylabel="cycles, the newest lowest")


def arrange(records: Sequence[Record], table: pd.DataFrame) -> pd.DataFrame:
    """Returns forecasts in long form, series, timestamp, prediction; other predictions as they are."""
    windows = [record.value for record in records]
    return arrange_forecasts(windows, table) if all(isinstance(one, Window) for one in windows) else table


def illustrate(records: Sequence[Record], table: pd.DataFrame, folder: Path) -> Sequence[Path]:
    """Writes pictures of look-back, forecast and, where it is known, truth."""
    windows = [record.value for record in records]
    return draw_forecasts(windows, table, folder) if all(isinstance(one, Window) for one in windows) else ()


def synthesize(rng: np.random.Generator, label: int) -> dict[str, Any]:
    """Returns two channels of a slow wave (even label) or a fast one (odd label)."""
    rows = int(rng.integers(53, 71))
    speed = (0.13, 0.71)[label % 2]
    values = np.sin(speed * np.arange(rows)[:, None] + rng.uniform(0, 2 * np.pi, size=2))
    values += rng.normal(0, 0.1, size=values.shape)
    return {"values": values, "names": ("load", "heat"), "times_s": None}


MODALITY = Modality(
    name="timeseries",
    title="Time series",
    summary="tables of series with timestamps, wide or long: what comes next, or which class",
    source=Source(kind="files", suffixes=SERIES_SUFFIXES, index=index, continues=True),
    fields={
        "lines": Field("r t", low=-FAR, high=FAR, unit="deviations", summary="r lines of t columns to draw"),
        "direct": Field("f", summary="the window in its own deviations, or statistics of a whole series"),
        "window": Field("", "int64", low=0, high=1, summary="1 for a window to be continued, 0 for a whole series"),
    },
    options=TimeseriesOptions,
    load=load,
    transform=TimeseriesTransform,
    tokenizer=TimeseriesTokenizer,
    features=features,
    beside=False,  # the window itself goes to the head anyway
    draw=draw,
    synthesize=synthesize,
    synthetic={"input.sample": "file"},  # a forecast has no class
    threads=False,
    native="patch kernel (grey), positions (resampled) and class token of the trunk",
    units="any; each series by its own deviation; times ISO 8601 or since 1970, one constant step",
    task="forecast",
    metric="mse",
    defaults=DEFAULTS,
    baseline="ridge",
    example="load.csv --target load",
    before={"short": "refuse"},
    arrange=arrange,
    illustrate=illustrate,
    inside=SERIES_INSIDE,
)
