"""Tables of series: wide and long, times and steps, and every way in which a table can be wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import FIXTURES

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.given import Rows
from metatransformer.modalities._recording.times import parse_times
from metatransformer.modalities.timeseries.clock import find_step, missing_rows, usual_period
from metatransformer.modalities.timeseries.index import index_series, read_all
from metatransformer.modalities.timeseries.series import Layout
from metatransformer.modalities.timeseries.windows import Cut, cut_windows, last_window, window_scale

ROWS = Rows("t.csv", 2)
FOLDER = FIXTURES / "timeseries"


def times_of(*texts: object, style: str = "", zone: str = "") -> pd.Index:
    return parse_times(pd.Series(texts), style=style, zone=zone, rows=ROWS, title="when")


def table(count: int = 31, *, freq: str = "h", start: str = "2024-01-01") -> pd.DataFrame:
    times = pd.date_range(start, periods=count, freq=freq)
    return pd.DataFrame({"ds": times.astype(str), "a": np.arange(count) * 1.0, "b": np.arange(count) ** 2.0})


def step_of(frame: pd.DataFrame) -> str:
    return read_all(frame, layout=Layout())[0].step.name


# --- times


def test_the_index_of_a_table_that_pandas_wrote_is_no_series(tmp_path):
    table().to_csv(tmp_path / "a.csv")
    names = [one.name for one in read_all(tmp_path / "a.csv", layout=Layout())]
    assert names == [one.name for one in read_all(table(), layout=Layout())]


def test_times_are_read_from_text_numbers_and_a_style():
    assert times_of("2024-05-01 13:00", "2024-05-01 14:00")[1] == pd.Timestamp("2024-05-01 14:00")
    assert times_of(1714568400, 1714572000)[0] == pd.Timestamp("2024-05-01 13:00", tz="UTC")
    assert times_of(1714568400000)[0] == pd.Timestamp("2024-05-01 13:00", tz="UTC")
    assert times_of("01/05/2024 13:00", style="%d/%m/%Y %H:%M")[0] == pd.Timestamp("2024-05-01 13:00")
    assert list(times_of(1949, 1950)) == [1949, 1950]


def test_offsets_become_utc_and_a_zone_is_stated():
    summer = times_of("2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00")
    assert list(summer) == [pd.Timestamp("2024-03-31 00:30", tz="UTC"), pd.Timestamp("2024-03-31 01:30", tz="UTC")]
    assert str(times_of("2024-05-01 13:00", zone="Europe/Berlin")[0]) == "2024-05-01 13:00:00+02:00"
    dates = pd.Series(pd.date_range("2024-05-01", periods=3, tz="Asia/Tokyo"))
    assert str(parse_times(dates, rows=ROWS, title="when")[0]) == "2024-04-30 15:00:00+00:00"
    assert str(times_of("2024-05-01T13:00Z", zone="Europe/Berlin")[0]) == "2024-05-01 15:00:00+02:00"


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (("2024-05-01", None), {}, "t.csv, line 3, column 'when': must have a time in every row; found 1 row without"),
        (("2024-05-01", "soon"), {}, "line 3, column 'when': must hold a time such as .*; found 'soon'.*input.style"),
        (("2024-05-01",), {"style": "%d/%m/%Y"}, "in the style %d/%m/%Y"),
        (("2024-05-01",), {"zone": "Europe/Nowhere"}, "of the zone 'Europe/Nowhere'"),
        (("2024-03-31 02:30",), {"zone": "Europe/Berlin"}, "of the zone 'Europe/Berlin'.*2024-03-31 02:30"),
        (("2024-05-01 13:00", "2024-05-01T14:00+02:00"), {}, "line 3, .*must state no offset, as the first row; found"),
        (("2024-05-01", "9999-05-01"), {}, "line 3, .*found '9999-05-01'"),
        ((1.5, 2.5), {}, "line 2, column 'when': must hold times, whole numbers"),
    ],
)
def test_what_is_no_time_is_named(texts: tuple, settings: dict, message: str):
    with pytest.raises(DataError, match=message):
        times_of(*texts, **settings)


@pytest.mark.parametrize(
    ("freq", "name"),
    [("h", "1 h"), ("15min", "15 min"), ("30s", "30 s"), ("D", "1 d"), ("7D", "7 d")]
    + [(name, name) for name in ("B", "MS", "ME", "QS", "YS")],
)
def test_steps_of_the_clock_and_the_calendar_are_found(freq: str, name: str):
    frame = table(31, freq=freq)
    assert step_of(frame) == name
    series = read_all(frame, layout=Layout())[0]
    expected = pd.date_range("2024-01-01", periods=36, freq=freq)[31:]
    assert list(series.step.after(series.times, count=5)) == list(expected)


def test_days_of_a_zone_have_23_or_25_hours():
    frame = table(40, freq="D", start="2024-03-10")
    series = read_all(frame, layout=Layout(zone="Europe/Berlin"))[0]
    assert series.step.name == "D" and str(series.step.after(series.times, count=1)[0]) == "2024-04-19 00:00:00+02:00"


@pytest.mark.parametrize(
    ("freq", "period"),
    [("h", 24), ("15min", 96), ("D", 7), ("MS", 12), ("QS", 4), ("7D", 52), ("min", 1440), ("s", 60)],
)
def test_the_usual_cycle_goes_by_the_step(freq: str, period: int):
    assert read_all(table(20, freq=freq), layout=Layout())[0].period == period


def test_numbers_count_rows_and_have_no_cycle():
    index = pd.Index([1950, 1952, 1956])
    step = find_step(index, rows=ROWS, title="year")
    assert (step.size, step.name, usual_period(index, step)) == (2, "2", 1)
    np.testing.assert_array_equal(missing_rows(index, step), [0, 1, -1, 2])
    assert list(step.after(index, count=2)) == [1958, 1960]


# --- tables


def test_a_wide_table_has_a_series_a_column():
    one, two = read_all(table(), layout=Layout())
    assert (one.name, two.name, one.column) == ("a", "b", "a") and len(one.times) == 31
    np.testing.assert_array_equal(two.values[:4], [0, 1, 4, 9])


def test_a_long_table_has_its_series_below_each_other():
    names = [(one.name, len(one.values)) for one in read_all(FOLDER / "long.csv", layout=Layout())]
    assert names == [("load", 113), ("heat", 113)]
    wide = {one.name: one.values for one in read_all(FOLDER / "good.csv", layout=Layout())}
    for one in read_all(FOLDER / "long.csv", layout=Layout()):
        np.testing.assert_array_equal(one.values, wide[one.name])


@pytest.mark.parametrize("name", ["good.csv", "good_tabs.tsv", "good.parquet"])
def test_every_format_gives_the_same_series(name: str):
    one, two = read_all(FOLDER / name, layout=Layout())
    assert (one.name, two.name, one.step.name) == ("load", "heat", "1 h")
    assert one.values[0] == pytest.approx(40.126, abs=5e-4)  # text has three digits


def test_other_columns_are_covariates():
    (one,) = read_all(table(), layout=Layout(target=("b",)))
    assert one.name == "b" and one.past.shape == (31, 1) and one.known.shape == (31, 0)
    (known,) = read_all(FOLDER / "known.csv", layout=Layout(known=("plan",)))
    assert (len(known.values), len(known.times), known.known.shape) == (106, 106, (113, 1))


def test_unusual_names_are_said():
    frame = table().rename(columns={"ds": "hour", "a": "station", "b": "level"})
    frame["station"] = "north"
    (one,) = read_all(frame, layout=Layout(time="hour", id="station", values="level"))
    assert (one.name, one.column) == ("north", "level")
    untimed = read_all(frame.drop(columns=["hour", "station"]), layout=Layout(time="none"))
    assert list(untimed[0].times[:3]) == [0, 1, 2]


def test_gaps_and_cells_are_filled_when_asked():
    frame = table(11).drop(index=[3, 4]).reset_index(drop=True)
    frame.loc[6, "a"] = np.nan
    line = read_all(frame, layout=Layout(fill="line"))[0]
    np.testing.assert_allclose(line.values, np.arange(11))
    last = read_all(frame, layout=Layout(fill="last"))[0]
    np.testing.assert_allclose(last.values, [0, 1, 2, 2, 2, 5, 6, 7, 7, 9, 10])
    assert len(last.times) == 11


BROKEN = {
    "gap": r"broken_gap.csv, line 31, column 'timestamp': must follow the row before by 1 h; found a gap after "
    r"2024-03-05 04:00:00 \(1 gap, 3 rows missing\).*input.fill",
    "duplicate": r"line 42, column 'timestamp': must be later than the row before; found the same time again",
    "unsorted": r"line 22, column 'timestamp': must be later .*; found an earlier time, .* \(1 such row\). Sort",
    "nan": r"line 14, column 'heat': must hold a number in every row; found 1 missing value of 113.*input.fill",
    "text": r"line 18, column 'heat': must hold numbers; found 'broken' \(1 such cell\)",
    "infinite": r"line 18, column 'heat': must hold finite numbers",
    "short": r"must have at least 3 rows",
    "fields": r"line 10: must have 3 fields",
    "time": r"line 10, column 'timestamp': must hold a time such as .*; found 'yesterday'",
    "empty": r"must hold a table; found an empty file",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_tables_are_refused_with_file_and_line(name: str):
    with pytest.raises(DataError, match=BROKEN[name]):
        read_all(FOLDER / f"broken_{name}.csv", layout=Layout())


@pytest.mark.parametrize(
    ("change", "layout", "message"),
    [
        ({"date": 1}, {}, "must have one column of time, .*; found ds, date. Name it in input.time"),
        ({}, {"target": ("c",)}, "must have a column 'c'"),
        ({}, {"known": ("a", "b")}, "must have a column of numbers to forecast"),
        ({"unique_id": [None] + ["x"] * 30}, {}, "column 'unique_id': must say its series in every row"),
        ({"unique_id": "x"}, {}, "must have one column of values, called y"),
        ({"split": ["train"] * 20 + ["test"] * 5 + ["val"] * 6}, {}, "must go from train over val to test"),
        ({"split": "outside"}, {}, "column 'split': must be one of train"),
        ({"a": [np.nan] + [1.0] * 30}, {"fill": "line"}, "must hold a number in its first row"),
        ({"a": [1.0] * 30 + [np.nan]}, {"fill": "line"}, "row 30, column 'a': must hold a number in its last row"),
    ],
)
def test_tables_that_say_too_little_or_too_much_are_refused(change: dict, layout: dict, message: str):
    with pytest.raises(DataError, match=message):
        read_all(table().assign(**change), layout=Layout(**layout))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"target": ("a",), "known": ("a",)}, "input.known: must name other columns than --target; found 'a' in both"),
        ({"target": ("a",), "ignore": ("a",)}, "input.ignore: must name other columns than --target"),
        ({"known": ("a",), "ignore": ("a",)}, "input.ignore: must name other columns than input.known"),
        ({"time": "ds", "target": ("ds",)}, "--target: must name other columns than input.time"),
        ({"target": ("a", "a")}, "--target: must name a column once; found 'a' twice"),
    ],
)
def test_a_column_has_one_role(layout: dict, message: str):
    with pytest.raises(UsageError, match=message):
        read_all(table(), layout=Layout(**layout))


def test_times_in_the_index_are_not_lost():
    with pytest.raises(DataError, match=r"must have its times in a column; found times in the index.*reset_index"):
        read_all(table().assign(ds=pd.date_range("2024", periods=31, freq="h")).set_index("ds"), layout=Layout())


def test_an_odd_step_is_named():
    frame = table(9)
    frame.loc[5, "ds"] = "2024-01-01 05:20:00"
    with pytest.raises(DataError, match=r"row 5, column 'ds': must follow .* by 1 h or a multiple of it; found 80 min"):
        read_all(frame, layout=Layout())


def test_folders_lists_and_arrays(tmp_path: Path):
    for name in ("north", "south"):
        table().to_csv(tmp_path / f"{name}.csv", index=False)
    names = [one.name for one in read_all(tmp_path, layout=Layout())]
    assert names == ["north/a", "north/b", "south/a", "south/b"]
    assert [one.name for one in read_all(np.zeros((7, 2)), layout=Layout())] == ["series_1", "series_2"]
    assert [one.name for one in read_all([np.zeros(7), np.ones(5)], layout=Layout())] == ["0/series_1", "1/series_1"]
    with pytest.raises(DataError, match="array, row 1: must hold finite numbers"):
        read_all(np.array([1.0, np.nan, 2.0]), layout=Layout())
    with pytest.raises(DataError, match="hold tables of series.*found a.*sample=file"):
        (tmp_path / "classes" / "a").mkdir(parents=True)
        read_all(tmp_path / "classes", layout=Layout())
    with pytest.raises(DataError, match="must be a table file, .*found a dict"):
        read_all({}, layout=Layout())
    with pytest.raises(DataError, match="nowhere.csv: must exist"):
        read_all(tmp_path / "nowhere.csv", layout=Layout())
    np.save(tmp_path / "x.npy", np.zeros(7))
    for data in (tmp_path / "x.npy", [str(tmp_path / "x.npy")]):
        with pytest.raises(DataError, match="x.npy: must be a table with times, to be forecast; .*input.sample=file"):
            read_all(data, layout=Layout())


def test_tables_named_like_splits_are_no_groups(tmp_path: Path):
    for name in ("train", "test"):
        table().to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataError, match="tables named like splits: test.csv, train.csv. .*a column 'split'"):
        read_all(tmp_path, layout=Layout())


# --- windows

CUT = Cut(lookback=5, horizon=3, rows=(0.6, 0.2, 0.2), most=(1000, 1000, 1000))


def test_windows_keep_to_their_split():
    series = read_all(table(50), layout=Layout())
    assert CUT.borders(series[0]) == {"train": (0, 30), "val": (30, 40), "test": (40, 50)}
    windows = [(split, window.start, window.now) for split, window in cut_windows(series[:1], CUT)]
    assert [start for split, start, _ in windows if split == "train"] == list(range(23))
    assert [now for split, _, now in windows if split == "val"] == list(range(30, 38))
    assert [now for split, _, now in windows if split == "test"] == list(range(40, 48))


def test_rows_are_counted_or_come_from_a_column():
    series = read_all(table(50), layout=Layout())[0]
    counted = Cut(5, 3, (20, 10, 11), (9, 9, 9))
    assert counted.borders(series)["test"] == (30, 41)
    with pytest.raises(DataError, match="must have the 60 rows of input.rows; found 50"):
        Cut(5, 3, (30, 20, 10), (9, 9, 9)).borders(series)
    marked = table(50).assign(split=["train"] * 41 + ["val"] * 9)
    assert CUT.borders(read_all(marked, layout=Layout())[0])["val"] == (41, 50)


def test_a_later_table_is_scored_whole():
    series = read_all(table(50).assign(split="test"), layout=Layout())[:1]
    windows = list(cut_windows(series, CUT))
    assert [(split, window.start) for split, window in windows] == [("test", start) for start in range(43)]
    assert windows[0][1].mean == np.arange(50.0).mean() and windows[0][1].spread == np.arange(50.0).std()
    with pytest.raises(DataError, match="must have at least 8 rows in test .*; found 7 rows"):
        list(cut_windows(read_all(table(7).assign(split="test"), layout=Layout()), CUT))


def test_rows_to_learn_from_need_rows_to_choose_by():
    series = read_all(table(50), layout=Layout())
    with pytest.raises(DataError, match="must have val rows in input.rows; found none"):
        list(cut_windows(series, Cut(5, 3, (0.8, 0, 0.2), (9, 9, 9))))
    marked = table(50).assign(split=["train"] * 41 + ["test"] * 9)
    with pytest.raises(DataError, match="must have val rows between train and test; found none"):
        list(cut_windows(read_all(marked, layout=Layout()), CUT))


def test_at_most_so_many_windows_are_taken():
    series = read_all(table(50), layout=Layout())
    few = Cut(5, 3, (0.6, 0.2, 0.2), (11, 1000, 1000))
    starts = [(window.series.name, window.start) for split, window in cut_windows(series, few) if split == "train"]
    assert starts == [(name, start) for name in "ab" for start in range(0, 23, 5)]


def test_short_series_are_refused():
    with pytest.raises(DataError, match="series 'a': must have at least 8 rows in train .*found 5 rows"):
        list(cut_windows(read_all(table(9), layout=Layout()), CUT))
    with pytest.raises(DataError, match="must have at least the 32 rows of the look-back; found 31"):
        last_window(read_all(table(), layout=Layout())[0], lookback=32, horizon=3)


def test_the_future_is_measured_from_the_last_value_in_spreads():
    series = read_all(table(50), layout=Layout())[0]
    split, window = next(iter(cut_windows([series], CUT)))
    level, spread = window_scale(np.arange(5.0), floor=0.1 * np.arange(30).std())
    assert (split, level) == ("train", 4.0)
    assert spread == pytest.approx(np.hypot(np.sqrt(2), 0.1 * np.sqrt((30**2 - 1) / 12)))
    expected = [1 / spread, 2 / spread, 3 / spread, spread / np.arange(30).std(), spread]
    np.testing.assert_allclose(window.future.scaled, expected)
    assert window_scale(np.full(5, 3.0), floor=0.0) == (3.0, 1.0)
    assert "Series('a', 50 rows" in repr(window) and repr(window.future) == f"Future({window!r})"


def test_known_covariates_must_reach_as_far_as_the_forecast():
    (series,) = read_all(FOLDER / "known.csv", layout=Layout(known=("plan",)))
    window = last_window(series, lookback=24, horizon=7)
    assert window.past.shape == (24, 2) and window.known.shape == (7, 1) and window.future is None
    assert str(window.times[0]) == "2024-03-08 10:00:00"
    with pytest.raises(DataError, match="must bring the known covariates of the next 8 rows; found 7 rows"):
        _ = last_window(series, lookback=24, horizon=8).known


def test_an_index_says_how_the_table_was_understood():
    index = index_series(
        table(50), files=False, layout=Layout(target=("a",)), cut=CUT, labelled=True, label="", header=True
    )
    assert index.notes == (
        "1 series, a row every 1 h: a",
        "covariates: 1 of the past, 0 known for the future",
        "windows in order of time: train 23, val 8, test 8",
    )
    assert index.records[0].key == "a from 2024-01-01 05:00:00" and index.records[0].split == "train"
    few = Cut(5, 3, (0.6, 0.2, 0.2), (11, 4, 1000))
    index = index_series(table(50), files=False, layout=Layout(), cut=few, labelled=True, label="", header=True)
    said = "train 10 (every 5th; input.windows takes more), val 4 (every 4th; input.windows takes more), test 16"
    assert index.notes[-1] == f"windows in order of time: {said}"
    last = index_series(table(50), files=False, layout=Layout(), cut=CUT, labelled=False, label="", header=True)
    assert [record.key for record in last.records] == ["a from 2024-01-03 02:00:00", "b from 2024-01-03 02:00:00"]
    with pytest.raises(DataError, match="must name its columns"):
        index_series(table(), files=False, layout=Layout(), cut=CUT, labelled=False, label="", header=False)


@pytest.mark.parametrize(("cells", "last"), [("{},5", 30.5), ("${}.25", 30.25), ('"1,{:03}.5"', 1030.5)])
def test_numbers_are_read_as_people_write_them(cells: str, last: float, tmp_path: Path):
    rows = [f"2024-01-{n + 1:02};{cells.format(n)}" for n in range(31)]
    (tmp_path / "a.csv").write_text("\n".join(["date;y", *rows]))
    (one,) = read_all(tmp_path / "a.csv", layout=Layout())
    assert one.values[-1] == last


# --- panels


def panel(rows: int = 31, *, items: tuple[str, ...] = ("tea", "milk")) -> pd.DataFrame:
    days = pd.date_range("2024-01-01", periods=rows, freq="D").astype(str)
    keys = [(store, item) for store in ("north", "south") for item in items]
    parts = [pd.DataFrame({"store": s, "item": i, "date": days, "sales": np.arange(rows) + 1.5}) for s, i in keys]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("by", [["store", "item", "date"], ["date", "store", "item"]])
def test_a_panel_is_told_how_to_name_its_series(by: list[str]):
    frame = panel().sort_values(by)
    with pytest.raises(DataError, match="several series.* apart: input.id='store, item'"):
        read_all(frame, layout=Layout())
    with pytest.raises(DataError, match="several series.* apart: input.id=store"):
        read_all(frame[frame["item"] == "tea"].drop(columns="item"), layout=Layout(target=("sales",)))


def test_two_columns_can_tell_series_apart():
    series = read_all(panel(), layout=Layout(id="store, item", values="sales"))
    assert [one.name for one in series] == ["north/tea", "north/milk", "south/tea", "south/milk"]
    assert all(len(one.values) == 31 and one.step.name == "1 d" for one in series)
    with pytest.raises(UsageError, match="input.ignore: must name other columns than input.id"):
        read_all(panel(), layout=Layout(id="store, item", values="sales", ignore=("item",)))
    with pytest.raises(DataError, match="must have a column 'itm'"):
        read_all(panel(), layout=Layout(id="store, itm", values="sales"))


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_short_series_of_a_panel_can_be_left_out(rows: int, labelled: bool):
    new = pd.DataFrame({"store": "new", "item": "tea", "date": pd.date_range("2024-01-20", periods=rows), "sales": 1.0})
    frame = pd.concat([panel(50), new.assign(date=new["date"].astype(str))], ignore_index=True)
    layout = Layout(id="store, item", values="sales")
    wide = Cut(lookback=9, horizon=3, rows=(0.6, 0.2, 0.2), most=(1000, 1000, 1000))

    def found(layout: Layout):
        return index_series(frame, files=False, layout=layout, cut=wide, labelled=labelled, label="", header=True)

    with pytest.raises(DataError, match="input.short=skip"):
        found(layout)
    index = found(replace(layout, short="skip"))
    assert index.notes[0] == "left out 1 series that are too short (input.short=skip): new/tea"
    assert {record.value.series.name for record in index.records} == {
        f"{a}/{b}" for a in ("north", "south") for b in ("tea", "milk")
    }


@pytest.mark.parametrize(("suffix", "sep"), [(".csv", ","), (".txt", " "), (".txt.gz", ",")])
def test_a_table_without_names_is_read_from_its_first_line_and_said(suffix: str, sep: str, tmp_path: Path):
    values = np.arange(60).reshape(20, 3) / 8 + 0.5
    path = tmp_path / f"exchange_rate{suffix}"
    np.savetxt(path, values, delimiter=sep, fmt="%.6f")
    series = read_all(path, layout=Layout())
    assert [one.name for one in series] == ["column_1", "column_2", "column_3"]
    np.testing.assert_array_equal(np.stack([one.values for one in series], axis=1), values)
    cut = Cut(4, 1, (0.7, 0.15, 0.15), (99, 99, 99))
    index = index_series(path, files=False, layout=Layout(), cut=cut, labelled=False, label="", header=True)
    assert "exchange_rate" in index.notes[0] and "holds data: its columns are called column_1" in index.notes[0]


def test_times_of_a_table_without_names_stand_in_front(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"2024-05-{day:02},{day}.5,{day * 2}\n" for day in range(1, 9)))
    first, second = read_all(path, layout=Layout())
    assert first.values[0] == 1.5 and second.values[-1] == 16 and str(first.times[0]) == "2024-05-01 00:00:00"


@pytest.mark.parametrize(
    ("title", "cells"),
    [
        ("Month", [f"2020-{month:02}" for month in range(1, 13)]),
        ("Quarter", [f"{2000 + n // 4} Q{n % 4 + 1}" for n in range(12)]),
        ("recorded", [f"{day:02}/05/2024" for day in range(10, 22)]),
        ("Obs", list(range(1947, 1959))),
    ],
)
def test_the_column_of_times_is_found_by_what_it_holds_and_said(title: str, cells: list, tmp_path: Path):
    pd.DataFrame({title: cells, "sold": np.arange(12) ** 2}).to_csv(tmp_path / "a.csv", index=False)
    (series,) = read_all(tmp_path / "a.csv", layout=Layout())
    assert series.name == "sold" and f"the column '{title}' holds the times (input.time chooses)" in series.told[0]
    assert series.times[0] == cells[0] if title == "Obs" else isinstance(series.times, pd.DatetimeIndex)


def test_without_times_rows_count_and_two_columns_of_times_are_a_question():
    (series,) = read_all(pd.DataFrame({"rate": np.arange(12) ** 2}), layout=Layout())
    assert "no column holds times: the rows count" in series.told[0] and series.times.tolist() == list(range(12))
    days = [f"2024-05-{day:02}" for day in range(1, 10)]
    with pytest.raises(DataError, match="must have one column of time.*Name it in input.time"):
        read_all(pd.DataFrame({"opened": days, "closed": days, "y": range(9)}), layout=Layout())
