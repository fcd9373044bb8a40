"""Which samples a run learned from and which it kept apart: written with the run, found again by key.

``split.csv`` has a row a sample: ``key``, ``split``, and ``content``, which tells another sample of the same key from
it: the size of its file in bytes, or a hash of the row of a table or of a value in memory.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS
from metatransformer.data.examples import Examples
from metatransformer.data.identity import value_digests
from metatransformer.data.records import Records, objects
from metatransformer.data.write import write_table

FILE = "split.csv"
NEW = "new"  # the split of samples that a run has never seen


def split_table(examples: Examples) -> pd.DataFrame:
    """Returns the columns ``key``, ``split`` and ``content`` of samples that have a split."""
    content = objects([""] * len(examples))
    for column in reversed(list(examples.inputs.values())):  # the first input that a sample has tells it
        own = objects(_contents(column.records))
        there = slice(None) if column.places is None else column.places >= 0
        content[there] = own if column.places is None else own[column.places[there]]
    return pd.DataFrame({"key": list(examples.keys), "split": list(examples.splits), "content": content})


def write_split(folder: Path, table: pd.DataFrame) -> None:
    """Writes a ``split_table`` into the folder of a run or a saved model."""
    write_table(folder / FILE, table)


def read_split(folder: Path) -> pd.DataFrame | None:
    """Returns the table that ``write_split`` left in a run, or in a model that was saved by itself; None where there is
    none.

    Raises:
        DataError: it is damaged.
    """
    path = next((place / FILE for place in (folder, folder.parent) if (place / FILE).is_file()), None)
    if path is None or (path.parent != folder and not (path.parent / "run.json").is_file()):
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        found = set(table["split"]) - set(SPLITS)
        if found or not {"key", "content"} <= set(table.columns):
            raise ValueError(f"the splits {sorted(found)}" if found else f"the columns {list(table.columns)}")
    except (ValueError, KeyError, OSError) as error:
        raise DataError(path, must="hold key, split and content", found=f"'{error}'", do="Remove it.") from error
    return table


def splits_of(examples: Examples, table: pd.DataFrame) -> list[str]:
    """Returns the split that each sample had in the run of ``table``; ``NEW`` where it was not there, or is another
    one of that key.
    """
    known = {
        (key, content): split for key, split, content in table[["key", "split", "content"]].itertuples(index=False)
    }
    own = split_table(examples)
    return [known.get(pair, NEW) for pair in zip(own["key"], own["content"], strict=True)]


def _contents(records: Records) -> list[str]:
    """Returns a short text a record that another content would most likely change."""
    if records.table is not None:
        frame = pd.DataFrame({name: records.table.column(name) for name in records.table.names})
        hashed: Any = pd.util.hash_pandas_object  # loaded late, so that no type checker sees what it is
        return [f"{number:016x}" for number in hashed(frame, index=False)]
    sizes = {path: str(path.stat().st_size) for path in dict.fromkeys(records.paths) if path is not None}
    bare = [place for place, path in enumerate(records.paths) if path is None]
    digests = iter(value_digests([records.values[place] for place in bare]))
    return [next(digests) if path is None else sizes[path] for path in records.paths]
