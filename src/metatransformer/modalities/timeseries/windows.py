"""Windows of a series: a look-back, the future behind it, and the order of train, val and test in time.

The future of a training window never reaches behind the border of training; the look-back of a
validation or test window may reach back over it, as it does when a model is used.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.core.future import Future
from metatransformer.core.samples import SPLITS
from metatransformer.modalities._recording.times import Times
from metatransformer.modalities.timeseries.series import Series

# Below this share of a series' own deviation a window counts as flat: its spread is not divided by.
FLAT = 0.1


@dataclass(frozen=True, eq=False)
class Window:
    """The rows ``[start, start + lookback)`` of a series, and the ``horizon`` rows behind them.

    ``mean`` and ``spread`` are mean and standard deviation of the series' training rows (of all its
    rows where it is only continued), in its unit.
    """

    series: Series
    start: int
    lookback: int
    horizon: int
    mean: float
    spread: float

    @property
    def now(self) -> int:
        """The first row of the future."""
        return self.start + self.lookback

    @property
    def past(self) -> np.ndarray:
        """``[L, 1 + P + K]``: the series, its past covariates, its known ones as far as now."""
        rows = slice(self.start, self.now)
        series = self.series
        return np.concatenate([series.values[rows, None], series.past[rows], series.known[rows]], axis=1)

    @property
    def known(self) -> np.ndarray:
        """``[H, K]``: the covariates of the future.

        Raises:
            DataError: the table does not bring them for the whole horizon.
        """
        found = self.series.known[self.now : self.now + self.horizon]
        if self.series.known.shape[1] and len(found) < self.horizon:
            raise DataError(
                f"series '{self.series.name}'",
                must=f"bring the known covariates of the next {self.horizon} rows",
                found=f"{len(found)} rows",
                do="Add rows with their times and known columns, and leave the other cells empty.",
            )
        return found

    @property
    def scale(self) -> tuple[float, float]:
        """Level and spread that values of this window are measured by: ``(value - level) / spread``."""
        return window_scale(self.series.values[self.start : self.now], floor=FLAT * self.spread)

    @property
    def future(self) -> Future | None:
        """The values behind the window, None where they are not known yet."""
        values = self.series.values[self.now : self.now + self.horizon]
        if len(values) < self.horizon:
            return None
        level, spread = self.scale
        return Future(values, level, spread, spread / (self.spread or 1.0), where=self)

    @property
    def times(self) -> Times:
        """The times of the future."""
        series = self.series
        if self.now + self.horizon <= len(series.times):
            return series.times[self.now : self.now + self.horizon]
        return series.step.after(series.times[: self.now], count=self.horizon)

    def __repr__(self) -> str:
        return f"Window({self.series!r}, {self.start}, {self.lookback}, {self.horizon})"


def window_scale(values: np.ndarray, *, floor: float) -> tuple[float, float]:
    """Returns the last value and the standard deviation, at least ``floor``; 1 where all of it is 0.

    Sources: the last value as level, NLinear (arXiv 2205.13504); the window's own deviation,
    RevIN (Kim et al. 2022).
    """
    spread = math.hypot(float(values.std()), floor)
    return float(values[-1]), spread if spread > 1e-12 * (1 + abs(float(values[-1]))) else 1.0


@dataclass(frozen=True)
class Cut:
    """How windows are taken from series.

    ``rows``: how many rows train, val and test have, as counts, or as shares of all; ``most``: how
    many windows of each split are taken at most, of all series together (every n-th where there
    are more).
    """

    lookback: int
    horizon: int
    rows: tuple[float, ...]
    most: tuple[int, ...]

    def borders(self, series: Series) -> dict[str, tuple[int, int]]:
        """Returns the rows ``[start, stop)`` of each split.

        Raises:
            DataError: fewer rows than counted, or no training rows.
        """
        total = len(series.values)
        if series.splits:
            counts: list[int] = [series.splits.count(name) for name in SPLITS]
        elif all(part == int(part) for part in self.rows) and sum(self.rows) > 1:
            counts = [int(part) for part in self.rows]
        else:
            counts = [round(part * total) for part in self.rows]
            counts[0] += min(0, total - sum(counts))  # three roundings may count one row too many
        if sum(counts) > total:
            must, found = f"have the {sum(counts):,} rows of input.rows", f"{total:,}"
            raise DataError(f"series '{series.name}'", must=must, found=found)
        ends = np.cumsum(counts).tolist()
        return {name: (end - count, end) for name, end, count in zip(SPLITS, ends, counts, strict=True)}


def cut_windows(series: Sequence[Series], cut: Cut) -> Iterator[tuple[str, Window]]:
    """Yields ``(split, window)`` of every series, in time.

    Raises:
        DataError: a series is too short for one window of a split that has rows; rows to learn from and none to
            choose by.
    """
    borders = {one: cut.borders(one) for one in series}
    for one, parts in borders.items():
        _require_val(one, parts)
    for split, most in zip(SPLITS, cut.most, strict=True):
        starts = {one: _starts(one, borders[one][split], cut, split=split) for one in series}
        stride = max(1, math.ceil(sum(map(len, starts.values())) / most))
        for one, places in starts.items():
            first, last = borders[one]["train"]
            known = one.values[first:last] if last > first else one.values  # a table of test rows alone
            mean, spread = float(known.mean()), float(known.std())
            for start in places[::stride]:
                yield split, Window(one, start, cut.lookback, cut.horizon, mean, spread)


def _require_val(series: Series, borders: Mapping[str, tuple[int, int]]) -> None:
    """Raises DataError for train without val: windows drawn at random from train share their rows with the others."""
    (first, last), (start, stop) = borders["train"], borders["val"]
    if last > first and start == stop:
        raise DataError(
            f"series '{series.name}'",
            must="have val rows between train and test" if series.splits else "have val rows in input.rows",
            found="none",
            do="Call the last of its train rows val."
            if series.splits
            else "For instance input.rows=[0.7, 0.15, 0.15].",
        )


def _starts(series: Series, border: tuple[int, int], cut: Cut, *, split: str) -> range:
    first, stop = border
    if first == stop and (split != "train" or series.splits):
        return range(0)
    begin = max(0, first - cut.lookback)
    starts = range(begin, stop - cut.lookback - cut.horizon + 1)
    if not starts:
        need = cut.horizon + max(0, cut.lookback - first)
        raise DataError(
            f"series '{series.name}'",
            must=f"have at least {need} rows in {split} for look-back {cut.lookback} and horizon {cut.horizon}",
            found=counted_rows(stop - first),
            do="Shorten input.lookback or input.horizon, or give the split more rows (input.rows); of several series "
            "input.short=skip leaves out those that are too short.",
        )
    return starts


def is_long_enough(series: Series, cut: Cut, *, labelled: bool) -> bool:
    """Returns whether a series has a window in each split that has rows, or without ``labelled`` a last one."""
    try:
        if not labelled:
            last_window(series, lookback=cut.lookback, horizon=cut.horizon)
        else:
            for split, border in cut.borders(series).items():
                _starts(series, border, cut, split=split)
    except DataError:
        return False
    return True


def counted_rows(number: int) -> str:
    """Returns ``1 row`` or ``1,234 rows``."""
    return f"{number:,} row{'' if number == 1 else 's'}"


def last_window(series: Series, *, lookback: int, horizon: int) -> Window:
    """Returns the window whose future begins behind the last row.

    Raises:
        DataError: fewer rows than the look-back.
    """
    start = len(series.values) - lookback
    if start < 0:
        raise DataError(
            f"series '{series.name}'",
            must=f"have at least the {lookback} rows of the look-back",
            found=counted_rows(len(series.values)),
            do="Of several series input.short=skip leaves out those that are too short.",
        )
    return Window(series, start, lookback, horizon, float(series.values.mean()), float(series.values.std()))
