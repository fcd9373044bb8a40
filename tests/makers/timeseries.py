"""Makes the small files of time series: wide, long and with known covariates; and what goes wrong with tables."""

from pathlib import Path

import numpy as np
import pandas as pd


def make(folder: Path) -> None:
    """Writes 113 hours of two series in several formats, and broken copies of the table."""
    table = _hours()
    text = table.to_csv(index=False, float_format="%.3f")
    (folder / "good.csv").write_text(text)
    table.to_csv(folder / "good_tabs.tsv", index=False, sep="\t", float_format="%.3f")
    table.to_parquet(folder / "good.parquet")
    _make_forecast_only(folder, table)
    lines = text.splitlines()
    broken = {
        "gap": [*lines[:30], *lines[33:]],
        "duplicate": [*lines[:41], lines[40], *lines[41:]],
        "unsorted": [*lines[:20], lines[21], lines[20], *lines[22:]],
        "nan": [*lines[:13], lines[13].rsplit(",", 1)[0] + ",", *lines[14:]],
        "text": [*lines[:17], lines[17].rsplit(",", 1)[0] + ",broken", *lines[18:]],
        "infinite": [*lines[:17], lines[17].rsplit(",", 1)[0] + ",inf", *lines[18:]],
        "short": lines[:2],
        "fields": [*lines[:9], lines[9] + ",1", *lines[10:]],
        "time": [*lines[:9], "yesterday" + lines[9][19:], *lines[10:]],
    }
    for name, kept in broken.items():
        (folder / f"broken_{name}.csv").write_text("\n".join(kept) + "\n")
    (folder / "broken_empty.csv").write_bytes(b"")
    data = (folder / "good.parquet").read_bytes()
    (folder / "broken_truncated.parquet").write_bytes(data[: len(data) // 2])


def _hours() -> pd.DataFrame:
    """Returns a load that follows the day, and a heat that follows it three hours later."""
    rng = np.random.default_rng(0)
    hours = np.arange(113)
    daily = np.sin(2 * np.pi * hours / 24)
    load = 40 + 7 * daily + rng.normal(0, 1, size=113)
    heat = 21 + 3 * np.sin(2 * np.pi * (hours - 3) / 24) + rng.normal(0, 0.3, size=113)
    times = pd.date_range("2024-03-04", periods=113, freq="h")
    return pd.DataFrame({"timestamp": times, "load": load, "heat": heat})


def _make_forecast_only(folder: Path, table: pd.DataFrame) -> None:
    """Writes a long table of two shops, and a table whose last rows hold only what is known beforehand."""
    shops = [pd.DataFrame({"unique_id": name, "ds": table["timestamp"], "y": table[name]}) for name in ("load", "heat")]
    pd.concat(shops).to_csv(folder / "long.csv", index=False, float_format="%.3f")
    ahead = table.rename(columns={"heat": "plan"})
    ahead.loc[ahead.index[-7:], "load"] = np.nan
    ahead.to_csv(folder / "known.csv", index=False, float_format="%.3f")
