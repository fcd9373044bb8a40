"""Captions by retrieval: a sample gets those of known captions that are nearest to it. Nothing is made up.

File: one caption a line (.txt), or a table (CSV, TSV, JSON lines, Parquet) with a column text or caption.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.delimited import decode
from metatransformer.data.limits import read_bytes
from metatransformer.data.table import read_table
from metatransformer.machine.console import Console
from metatransformer.nn.near import nearest
from metatransformer.pairs.read import TEXTS, column_among


def read_captions(known: Any, *, console: Console) -> list[str]:
    """Returns the different captions of a list or a file, in their order; what is left out is said.

    Raises:
        UsageError: no such file; something else than texts in the list.
        DataError: a table without a column of captions; no caption at all.
    """
    if isinstance(known, str | os.PathLike):
        where, found = str(known), _of_file(Path(known))
    else:
        where, found = "captions", list(known)
        if wrong := [text for text in found if not isinstance(text, str)]:
            raise UsageError(where, must="be texts, or a file of them", found=f"a {type(wrong[0]).__name__}")
    texts = [" ".join(text.split()) for text in found]
    different = list(dict.fromkeys(text for text in texts if text))
    if not different:
        raise DataError(where, must="hold at least one caption", found="none")
    if left_out := len(texts) - len(different):
        console.note(f"{where}: {len(different):,} captions; {left_out:,} empty or repeated ones are left out")
    return different


def _of_file(path: Path) -> list[str]:
    if not path.is_file():
        do = "Name a file with one caption a line, or a table with a column text or caption."
        raise UsageError("--captions", must="be a file of captions", found=repr(str(path)), do=do)
    if path.suffix.lower() == ".txt":
        return decode(read_bytes(path), path=path).splitlines()
    frame = read_table(path, header=True, text=True)
    return frame[column_among(frame.columns, TEXTS, path)].dropna().astype(str).tolist()


def ranked(
    keys: Sequence[str],
    vectors: Float[Tensor, "n E"],
    texts: Sequence[str],
    known: Float[Tensor, "m E"],
    *,
    count: int,
) -> pd.DataFrame:
    """Returns the nearest captions of each sample, as ``pairs.space.captions`` does."""
    cosines, places = nearest(vectors, known, count=count)
    words = np.array(texts, dtype=object)[places.numpy()]
    columns: dict[str, Any] = {"key": list(keys), "prediction": words[:, 0]}
    for rank in range(words.shape[1]):
        columns[f"caption_{rank + 1}"] = words[:, rank]
        columns[f"similarity_{rank + 1}"] = cosines[:, rank].double().numpy().round(6)
    return pd.DataFrame(columns)
