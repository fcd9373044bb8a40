"""Numbers as people write them: 1,5 and 1.234,5; 1,234 and 1,234.5; $1 234.50, 12 %."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

_SIGNS = re.compile(r"^([+-]?)\s*(?:[$€£¥]|USD|EUR|GBP)\s*|\s*(?:[$€£¥%]|USD|EUR|GBP)$")
_SPACES = " \u00a0\u202f'"  # between thousands, as in France and Switzerland
_CODE = re.compile(r"^[+-]?0\d")  # 007 is none
_DECIMAL = {"point": (".", ","), "comma": (",", ".")}  # by style: the decimal mark, and what stands between thousands
_NUMBER = {
    style: re.compile(rf"[+-]?(?:\d{{1,3}}(?:[{thousands}{_SPACES}]\d{{3}})+|\d+)(?:[{decimal}]\d+)?")
    for style, (decimal, thousands) in _DECIMAL.items()
}


def spelled_styles(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the styles in which all texts are numbers, "point" or "comma" for the decimal mark, with the numbers."""
    series = pd.Series(texts, dtype=object)
    plain = series.str.strip().str.replace("\u2212", "-").str.replace(_SIGNS, r"\1", regex=True)
    if not len(plain) or plain.str.contains(_CODE).any():
        return {}
    found = {}
    for style, (decimal, thousands) in _DECIMAL.items():
        if plain.str.fullmatch(_NUMBER[style]).all():
            bare = plain.str.replace(f"[{thousands}{_SPACES}]", "", regex=True)
            found[style] = bare.str.replace(decimal, ".").astype(np.float64).to_numpy()
    return found


def spelled_numbers(cells: Sequence[str | None]) -> np.ndarray | None:
    """Returns texts that no parser takes as they are as numbers, NaN where None.

    None where a cell is none, or where all could be two numbers each: 1,234 alone is 1.234 or 1234. Currencies and
    percent are left out: 12 % is 12.
    """
    found = list(spelled_styles([cell for cell in cells if cell is not None]).values())
    if not found or any((other != found[0]).any() for other in found):
        return None
    values = np.full(len(cells), np.nan)
    values[[cell is not None for cell in cells]] = found[0]
    return values
