"""Times as people write them, and the calendars on which their rows stand."""

import numpy as np
import pandas as pd
import pytest

from metatransformer.core.errors import DataError
from metatransformer.data.given import Rows
from metatransformer.modalities._recording.times import parse_times
from metatransformer.modalities.timeseries.clock import find_step, missing_rows, usual_period
from metatransformer.modalities.timeseries.index import read_all
from metatransformer.modalities.timeseries.series import Layout

ROWS = Rows("t.csv", 2)


def times_of(texts: list[object], *, style: str = "", zone: str = "") -> pd.Index:
    return parse_times(pd.Series(texts), style=style, zone=zone, rows=ROWS, title="when")


def step_of(times: pd.Index):
    return find_step(times, rows=ROWS, title="when")


CALENDARS = [
    ("QS-FEB", "QS-FEB", 4),
    ("QE-NOV", "QE-FEB", 4),
    ("BQE", "BQE", 4),
    ("BME", "BME", 12),
    ("BMS", "BMS", 12),
    ("YS-APR", "YS-APR", 1),
    ("YE-SEP", "YE-SEP", 1),
    ("6MS", "6MS", 2),
    ("2ME", "2ME", 6),
    ("SMS", "SMS", 24),
    ("WOM-3FRI", "3rd Friday of every month", 12),
    (pd.DateOffset(months=1), "day 15 of every month", 12),
    (pd.DateOffset(months=3), "day 15 of every 3rd month", 4),
]


@pytest.mark.parametrize(("freq", "name", "period"), CALENDARS)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_regular_calendars_are_steps(freq: object, name: str, period: int, zone: str | None):
    start = "2012-01-15 06:00" if isinstance(freq, pd.DateOffset) and "15" in name else "2012-01-01 06:00"
    dates = pd.date_range(start, periods=43, freq=freq, tz=zone)
    step = step_of(dates[:31])
    assert (step.name, usual_period(dates, step)) == (name, period)
    assert list(step.after(dates[:31], count=12)) == list(dates[31:])
    assert (missing_rows(dates[:31], step) == np.arange(31)).all()


@pytest.mark.parametrize("freq", [freq for freq, _, _ in CALENDARS])
def test_a_row_that_lacks_is_found_on_every_calendar(freq: object):
    start = "2012-01-15" if isinstance(freq, pd.DateOffset) else "2012-01-01"
    dates = pd.date_range(start, periods=31, freq=freq)
    gapped = dates.delete([4, 5, 19])
    rows = missing_rows(gapped, step_of(gapped))
    assert np.flatnonzero(rows < 0).tolist() == [4, 5, 19] and (rows >= 0).sum() == 28


@pytest.mark.parametrize("freq", ["YS", "MS", "QS"])
def test_three_rows_of_equal_months_or_years_are_still_the_calendar(freq: str):
    dates = pd.date_range("2021-07-01", periods=7, freq=freq)  # July and August, 2022 and 2023 are equally long
    assert list(step_of(dates[:3]).after(dates[:3], count=4)) == list(dates[3:])


def test_weeks_of_a_zone_keep_the_hour_over_summer_time():
    dates = pd.date_range("2024-01-07 08:00", periods=40, freq="7D", tz="Europe/Berlin")
    step = step_of(dates[:31])
    assert step.name == "7 d" and list(step.after(dates[:31], count=9)) == list(dates[31:])
    assert usual_period(dates, step) == 52


@pytest.mark.parametrize("rate_hz", [64, 60, 30, 3])
@pytest.mark.parametrize("rounding", ["floor", "round"])
def test_stamps_rounded_to_milliseconds_keep_their_rate(rate_hz: int, rounding: str):
    exact = pd.DatetimeIndex(pd.to_datetime(np.arange(20_000) * 10**9 // rate_hz + 1_714_568_400 * 10**9))
    written = getattr(exact, rounding)("ms")
    step = step_of(written)
    assert step.size.value == pytest.approx(1e9 / rate_hz, abs=60)  # a millisecond over 20,000 steps
    gapped = written.delete(range(700, 800))
    rows = missing_rows(gapped, step_of(gapped))
    assert np.flatnonzero(rows < 0).tolist() == list(range(700, 800)) and (rows >= 0).sum() == 19_900


def test_seconds_since_1970_with_a_fraction_have_one_step():
    times = times_of((1_714_568_400 + np.arange(50) * 0.1).tolist())
    assert step_of(times).size == pd.Timedelta("100ms")


@pytest.mark.parametrize(
    ("cells", "second"),
    [
        (["2010Q1", "2010Q2", "2010Q3"], "2010-04-01"),
        (["2010-Q1", "2010-Q2", "2010-Q3"], "2010-04-01"),
        (["Q1 2010", "Q2 2010", "Q3 2010"], "2010-04-01"),
        (["2019-W01", "2019-W02", "2019-W03"], "2019-01-07"),
        (["2019W01", "2019W02", "2019W03"], "2019-01-07"),
        ([202001, 202002, 202003], "2020-02-01"),
        ([20200131, 20200229, 20200331], "2020-02-29"),
        (["Jan 2020", "Feb 2020", "Mar 2020"], "2020-02-01"),
        (["Jan-20", "Feb-20", "Mar-20"], "2020-02-01"),
        (["13/01/2020", "14/01/2020", "15/01/2020"], "2020-01-14"),
        (["1/12/2020 0:00", "1/13/2020 0:00", "1/14/2020 0:00"], "2020-01-13"),
        (["30.01.2020 23:00", "31.01.2020 00:00", "31.01.2020 01:00"], "2020-01-31"),
        (["12-Jan-2020", "13-Jan-2020", "14-Jan-2020"], "2020-01-13"),
        (["January 2, 2020", "January 3, 2020", "January 4, 2020"], "2020-01-03"),
        (["1/13/2020 11:30 PM", "1/14/2020 12:00 AM", "1/14/2020 12:30 AM"], "2020-01-14"),
        (["2020-05", "2020-06", "2020-07"], "2020-06-01"),
    ],
)
def test_times_are_read_as_people_write_them(cells: list, second: str):
    assert times_of(cells)[1] == pd.Timestamp(second)


@pytest.mark.parametrize("end", [" UTC", " GMT", "Z", " Z", "+00:00"])
def test_universal_time_is_known_by_any_name(end: str):
    assert times_of([f"2024-05-01 13:00{end}"])[0] == pd.Timestamp("2024-05-01 13:00", tz="UTC")


def test_dates_that_can_mean_two_days_are_refused_with_both_styles():
    with pytest.raises(DataError, match=r"found '01/02/2020'.*input.style.*%d/%m/%Y or %m/%d/%Y"):
        times_of(["01/02/2020", "02/02/2020", "03/02/2020"])
    assert times_of(["01/02/2020"], style="%d/%m/%Y")[0] == pd.Timestamp("2020-02-01")


@pytest.mark.parametrize("zone", ["Europe", "Europe/Nowhere", "/etc", "../x", "UTC+2", "x" * 300, "\0"])
def test_what_is_no_zone_is_said(zone: str):
    with pytest.raises(DataError, match="must hold times of the zone"):
        times_of(["2024-05-01"], zone=zone)


@pytest.mark.parametrize("numbers", [[1949, 1950, 1951], [199901, 199902, 199977], [0, 1, 2]])
def test_other_whole_numbers_count(numbers: list[int]):
    assert list(times_of(numbers)) == numbers


def test_summer_time_is_said_where_it_looks_like_it():
    hours = pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin")
    spring = pd.Series(hours.strftime("%Y-%m-%d %H:%M"))
    assert step_of(parse_times(spring, zone="Europe/Berlin", rows=ROWS, title="when")).name == "1 h"
    text = hours.strftime("%Y-%m-%d %H:%M")
    with pytest.raises(DataError, match=r"a gap after 2024-03-31 01:00:00 .*input.zone.*input.fill"):
        read_all(pd.DataFrame({"time": text, "y": np.arange(60.0)}), layout=Layout())
    autumn = pd.date_range("2024-10-26", periods=60, freq="h", tz="Europe/Berlin").strftime("%Y-%m-%d %H:%M")
    with pytest.raises(DataError, match="the same time again.*input.zone"):
        step_of(times_of(autumn.tolist()))
    quarters = pd.date_range("2024-10-26", periods=240, freq="15min", tz="Europe/Berlin").strftime("%Y-%m-%d %H:%M")
    with pytest.raises(DataError, match="an earlier time.*input.zone"):
        step_of(times_of(quarters.tolist()))
