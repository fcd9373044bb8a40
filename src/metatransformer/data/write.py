"""Writing files so that a reader never meets half of one.

Every file is written under a temporary name in its own folder, flushed to the disk and then
renamed, which replaces the old file in one step. A full disk, a missing permission or a kill leaves
the old file, or none, never a torn one.
"""

import dataclasses
import errno
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, UsageError

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl")

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Libraries that write for us (safetensors, torch) hide the system's error number in their message.
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "code: 28,", "code: 122,")
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """``with atomic_file(path) as temporary:`` replaces ``path`` by what the body wrote to
    ``temporary``.

    The temporary file stands in the same folder, starts with a dot and keeps the ending; parent
    folders are made. When the body raises, ``path`` stays as it was and the temporary file is
    removed. A symbolic link is followed.

    Raises:
        DataError: the disk is full, the place may not be written to, or ``path`` is something other
            than a file.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}.tmp{target.suffix}")
    if target.exists() and not target.is_file():
        found = "a folder or a device"
        raise DataError(path, must="be the name of a file to write", found=found, do="Choose another name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # 0o666 less the umask: the rights that a plain open() would give.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _refused(error, path=Path(path)) or error from error
    is_written = False
    try:
        yield temporary
        is_written = True
    finally:
        if not is_written and (error := sys.exception()):
            full = _is_full(error) or _is_full_now(temporary, after=error)
            temporary.unlink(missing_ok=True)
            if full:
                raise _full(Path(path)) from error
    try:
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as failure:
        temporary.unlink(missing_ok=True)
        raise _refused(failure, path=Path(path)) or failure from failure


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes ``obj`` as indented UTF-8 JSON, atomically.

    Beside JSON's own types it takes numpy scalars and arrays, paths, sets (sorted) and dataclasses.
    JSON has no NaN and no infinity: they become null, so that every reader can parse the file.
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def append_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Adds ``content`` to the end of a file, which is made where there is none.

    Raises:
        DataError: the disk is full, or the place may not be written to; what stood there before
            still does.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab", buffering=0) as file:
            before = file.tell()
            if file.write(content) < len(content):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _refused(error, path=target) or error from error


def write_table(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Writes a table as CSV, TSV, Parquet or JSON lines, as the ending says, atomically and without
    its row index.

    Raises:
        UsageError: another ending.
        DataError: a column mixes types that Parquet cannot hold in one column, or the place cannot
            be written to.
    """
    suffix = require_table(path)
    with atomic_file(path) as temporary:
        if suffix == ".parquet":
            _write_parquet(temporary, frame, where=path)
        elif suffix == ".jsonl":
            frame.to_json(temporary, orient="records", lines=True, force_ascii=False)
        else:
            frame.to_csv(temporary, index=False, sep="," if suffix == ".csv" else "\t")


def require_table(path: str | os.PathLike[str]) -> str:
    """Returns the lower-case ending of a table to write; to be called before the long work whose result goes there.

    Raises:
        UsageError: an ending that ``write_table`` does not write.
        DataError: a folder, or a place that cannot be written to.
    """
    target = Path(path).absolute()
    suffix = target.suffix.lower()
    if target.is_dir():
        raise DataError(path, must="be the name of a file to write", found="a folder", do="Choose another name.")
    if suffix not in TABLE_ENDINGS:
        raise UsageError(
            path,
            must=f"end in {', '.join(TABLE_ENDINGS)}",
            found=f"the ending '{suffix}'" if suffix else "no ending",
            do="The ending chooses the format.",
        )
    nearest = next(place for place in target.parents if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        found = f"a read-only folder ({nearest})" if nearest.is_dir() else f"a file ({nearest})"
        raise DataError(path, must="lie in a folder that can be written", found=found, do="Choose another place.")
    return suffix


def _write_parquet(path: Path, frame: pd.DataFrame, *, where: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(
            where,
            must="get columns of one type each, as Parquet stores them",
            found=str(error).splitlines()[0].rstrip("."),
            do="Make the column's values one type, or write .csv or .jsonl.",
        ) from error
    pq.write_table(table, path)


def _plain(obj: Any) -> Any:
    if isinstance(obj, np.ndarray | np.generic):
        return _plain(obj.tolist())
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: _plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, dict):
        return {_name(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, set | frozenset):
        return [_plain(value) for value in sorted(obj)]
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, os.PathLike):
        return Path(obj).as_posix()
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj


def _name(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key


def _flush(path: Path) -> None:
    """Waits until the disk holds a file, or the names in a folder."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows opens no folder; its rename is durable by itself
        return
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_full(error: BaseException) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL or any(word in str(error).lower() for word in _FULL_WORDS)


def _is_full_now(temporary: Path, *, after: BaseException) -> bool:
    """Returns whether not even 1 MiB more can be written.

    torch.save reports a full disk as a RuntimeError that does not name it, numpy.save as an OSError
    without a number, so the disk is asked.
    """
    unnamed = isinstance(after, OSError) and after.errno is None
    if not unnamed and not isinstance(after, RuntimeError):
        return False
    try:
        with open(temporary, "ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _is_full(error)
    return False


def _full(path: Path) -> DataError:
    return DataError(
        path,
        must="have room on its disk",
        found=_fullness(path),
        do="Free some space and run again: nothing half-written remains, earlier files are usable.",
    )


def _refused(error: OSError, *, path: Path) -> DataError | None:
    """Returns our error when the system does not let us make the file, None for anything else."""
    if _is_full(error):
        return _full(path)
    if error.errno not in _REFUSED:
        return None
    return DataError(
        path,
        must="be a file that this user may make",
        found=f"'{os.strerror(error.errno)}'",
        do="Choose another place or change its rights; earlier files are as they were.",
    )


def _fullness(path: Path) -> str:
    folder = next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
    usage = shutil.disk_usage(folder)
    return f"{_size(usage.free)} free of {_size(usage.total)} at {folder}, too little for this file"


def _size(count: int) -> str:
    unit = next((u for u in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if count >= u[0]), None)
    return f"{count} bytes" if unit is None else f"{count / unit[0]:.1f} {unit[1]}"
