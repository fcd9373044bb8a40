"""Places behind a URL that fsspec knows (s3://, gs://, memory://, ...): read file by file, written file by file.

A source becomes a *mirror*: a local folder of empty files with the names, sizes and times of those behind the URL,
which every reader of folders and tables takes for the data; only tables are brought at once, and ``local`` brings a
file, with those that are named like it, for as long as it is read. A target gets whole files or none.
"""

import os
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError, UsageError

_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".pq", ".txt", ".xlsx"}
_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")  # their files are there when they are complete
_READ = "be a place that can be read and written"


def is_url(place: object) -> bool:
    """Returns whether a place is behind a URL."""
    return re.match(r"[a-z][a-z0-9+.]*://", str(place)) is not None


@dataclass(frozen=True)
class Store:
    """A folder or file behind ``url``: ``root`` in the file system ``fs``."""

    url: str
    fs: Any
    root: str

    @classmethod
    def of(cls, url: str) -> "Store":
        """Returns the place behind a URL.

        Raises:
            UsageError: no file system has such URLs.
            MissingDependencyError: the package for them is not installed.
        """
        try:
            import fsspec
        except ImportError as error:
            raise MissingDependencyError("fsspec", extra="scale", purpose=url) from error
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:  # it names the package
            raise UsageError(url, must="have its file system installed", found=str(error)) from error
        except ValueError as error:
            known = "be a path or a URL such as s3://bucket/folder, gs://bucket/folder"
            raise UsageError(url, must=known, found=str(error)) from error
        return cls(url.rstrip("/"), fs, root.rstrip("/"))

    def names(self) -> set[str]:
        """Returns the names of what lies directly in the folder, none where there is no folder."""
        with foreign(self.url, "fsspec", must=_READ, do=""):
            self.fs.invalidate_cache()
            found = self.fs.ls(self.root, detail=False) if self.fs.exists(self.root) else []
        return {PurePosixPath(path).name for path in found}

    def read(self, name: str) -> bytes:
        """Returns the content of a file."""
        with foreign(f"{self.url}/{name}", "fsspec", must=_READ, do=""):
            return self.fs.cat_file(f"{self.root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all."""
        with foreign(f"{self.url}/{name}", "fsspec", must=_READ, do=""):
            self.fs.makedirs(self.root, exist_ok=True)
            if self.fs.protocol in _WHOLE or set(self.fs.protocol) & set(_WHOLE):
                self.fs.pipe_file(f"{self.root}/{name}", content)
                return
            torn = f"{self.root}/.{name}.tmp.{uuid.uuid4().hex[:8]}"
            self.fs.pipe_file(torn, content)
            self.fs.mv(torn, f"{self.root}/{name}")

    def remove(self, name: str) -> None:
        """Removes a file."""
        with foreign(f"{self.url}/{name}", "fsspec", must=_READ, do=""):
            self.fs.rm_file(f"{self.root}/{name}")


class Mirror:
    """The files behind a URL as a local ``folder`` of empty ones; ``given`` is what the URL named, there."""

    def __init__(self, url: str, folder: Path) -> None:
        """Lists what is there, and brings the tables.

        Raises:
            DataError: nothing is there, or it cannot be read.
        """
        named = Store.of(url)
        with foreign(url, "fsspec", must=_READ, do=""):
            there, is_file = named.fs.exists(named.root), named.fs.isfile(named.root)
        if not there:
            raise DataError(url, must="be a file or folder", found="nothing there")
        self.folder = folder
        self.store = Store.of(url.rsplit("/", 1)[0]) if is_file else named
        with foreign(url, "fsspec", must=_READ, do=""):
            found = self.store.fs.find(self.store.root, detail=True)
        self._alike: dict[str, list[str]] = defaultdict(list)
        for path, about in found.items():
            self._add(path, about)
        self.given = folder / named.root[len(self.store.root) + 1 :] if is_file else folder

    def _add(self, path: str, about: dict[str, Any]) -> None:
        name = path[len(self.store.root) + 1 :]
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix.lower() in _TABLES:
            with foreign(self.url_of(place), "fsspec", must=_READ, do=""):
                self.store.fs.get_file(path, str(place))
        else:
            place.touch()
            os.truncate(place, int(about.get("size") or 0))  # takes no room
            parent = str(PurePosixPath(name).parent)
            self._alike[f"{parent}/{place.name.split('.')[0]}"].append(name)
        changed = about.get("mtime") or about.get("LastModified") or about.get("updated") or about.get("created") or 0.0
        if isinstance(changed, str):
            changed = datetime.fromisoformat(changed)
        seconds = changed.timestamp() if isinstance(changed, datetime) else float(changed)
        os.utime(place, (seconds, seconds))

    def url_of(self, path: Path) -> str:
        """Returns where a path of the mirror lies in truth."""
        return f"{self.store.url}/{path.relative_to(self.folder).as_posix()}"

    def holds(self, path: Path | None) -> bool:
        """Returns whether a path is one of the mirror."""
        return path is not None and path.is_relative_to(self.folder)

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        """Yields a copy of a file, beside those that differ from it in their endings alone, or of a folder."""
        with TemporaryDirectory(prefix="metatransformer-") as folder:
            name = PurePosixPath(path.relative_to(self.folder).as_posix())
            names = self._alike.get(f"{name.parent}/{name.name.split('.')[0]}", [])
            if str(name) not in names:  # a folder
                names = [n for own in self._alike.values() for n in own if PurePosixPath(n).is_relative_to(name)]
            for one in names:
                target = Path(folder, one)
                target.parent.mkdir(parents=True, exist_ok=True)
                with foreign(f"{self.store.url}/{one}", "fsspec", must=_READ, do=""):
                    self.store.fs.get_file(f"{self.store.root}/{one}", str(target))
            try:
                yield Path(folder, name)
            except DataError as error:  # about the copy, of which nobody knows
                where = error.where.replace(folder, self.store.url)
                raise type(error)(where, must=error.must, found=error.found, do=error.do) from error


@contextmanager
def mirrored(given: Sequence[str]) -> Iterator[tuple[list[str], list[Mirror]]]:
    """Yields paths with those behind a URL as mirrors, and these, which go with the block."""
    with ExitStack() as stack:
        paths, mirrors = [], []
        for place in given:
            if is_url(place):
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="metatransformer-")))
                mirrors.append(Mirror(place, folder))
                paths.append(str(mirrors[-1].given))
            else:
                paths.append(place)
        yield paths, mirrors
