"""A folder of files as records: which files count, and what their folders say about class and
split."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.core.samples import ROLES, SPLITS
from metatransformer.data.given import accepts
from metatransformer.data.records import Index, Records, counted, listing, natural_key, role_name, split_name

# Files that stand beside data without being data.
_DOCUMENT = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|citation|authors)([._-].*)?|(sha\d+|md5)sums?(\.txt)?"
    r"|checksums?(\.\w+)?|thumbs\.db|desktop\.ini|dicomdir",
    re.IGNORECASE,
)
_FOREIGN = {"__MACOSX", "__pycache__"}


def scan(root: Path, *, suffixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the files below ``root`` with an accepted ending, relative and POSIX, and notes on
    what was left out.

    Links are followed, each folder once.

    Raises:
        DataError: no such file, or a folder that may not be read.
    """
    kept: list[str] = []
    others: list[str] = []
    ignored: list[str] = []
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        names[:] = [] if real in seen else [n for n in names if _is_visible(n)]
        if real in seen:
            continue
        seen.add(real)
        inside = Path(folder).relative_to(root).as_posix()
        for name in files:
            path = name if inside == "." else f"{inside}/{name}"
            if name.startswith(".") or _DOCUMENT.fullmatch(name):
                ignored.append(path)
            else:
                (kept if accepts(name, suffixes=suffixes) else others).append(path)
    if not kept:
        raise _nothing(root, others=others, ignored=ignored, suffixes=suffixes)
    return kept, _notes(others, ignored=ignored)


def index_folder(root: Path, *, suffixes: Sequence[str], require_labels: bool) -> Index:
    """Returns the records of a folder, naturally sorted, with the class and the split that its
    folders name.

    Layouts: ``class/file``, ``split/class/file``, ``class/split/file``, ``split/file`` and
    ``file``, the last two without labels. Folders below a class folder belong to that class.

    Raises:
        DataError: no file of an accepted ending; a layout that can mean two things; no label where
            one is required.
    """
    names, notes = scan(root, suffixes=suffixes)
    return index_names(root, names=names, notes=notes, require_labels=require_labels)


def index_names(root: Path, *, names: Sequence[str], notes: Sequence[str], require_labels: bool) -> Index:
    """Returns what ``index_folder`` does for items below ``root`` that were found already: relative
    POSIX paths of files, or of folders that are one item each."""
    names, notes = sorted(names, key=natural_key), list(notes)
    if require_labels:
        names, beside = _without_strays(names)
        notes += (
            [f"{counted(len(beside), 'file')} beside the split folders not used: {listing(beside)}"] if beside else []
        )
    paths = [name.split("/") for name in names]
    targets: list[str | None] = []
    splits: list[str | None] = []
    missing = []
    place_of_split = _place_of_split(paths, root=root)
    spellings: set[str] = set()
    for name, parts in zip(names, paths, strict=True):
        folders = parts[:-1]
        splits.append(None)
        if place_of_split is not None:
            word = folders.pop(place_of_split)
            splits[-1] = split_name(word) or role_name(word)
            spellings.add(word)
        if not folders:
            missing.append(name)
        targets.append(folders[0] if folders else None)
    if renamed := sorted(word for word in spellings if word not in (*SPLITS, *ROLES)):
        meanings = (f"{word} = {split_name(word) or role_name(word)}" for word in renamed)
        notes.append("taken as splits: " + ", ".join(meanings))
    if missing and require_labels:
        raise _unlabelled(root, missing=missing, total=len(names))
    if missing and len(missing) < len(names):
        count = counted(len(missing), "file")
        notes.append(f"{count} outside a class folder without a label: {listing(missing)}")
    if place_of_split != 0:
        notes += _one_class(targets, paths=paths, root=root, require_labels=require_labels)
    records = Records(names, paths=[root / name for name in names], targets=targets, splits=splits)
    return Index(records, tuple(notes), root)


def _without_strays(names: list[str]) -> tuple[list[str], list[str]]:
    """Returns the names, and apart those of files beside folders that are all splits with class folders inside."""
    paths = [name.split("/") for name in names]
    inside = [parts for parts in paths if len(parts) > 1]
    splits = _split_words(parts[0] for parts in inside)
    if inside and all(parts[0] in splits and len(parts) > 2 for parts in inside):
        return [name for name in names if "/" in name], [name for name in names if "/" not in name]
    return names, []


def _split_words(words: Iterable[str]) -> set[str]:
    """Returns the words that are splits; query and gallery only where both are there, for scenes and rooms of a museum
    are classes.
    """
    words = set(words)
    roles = {word for word in words if role_name(word)}
    both = {role_name(word) for word in roles} == set(ROLES)
    return {word for word in words if split_name(word)} | (roles if both else set())


def _place_of_split(paths: list[list[str]], *, root: Path) -> int | None:
    """Returns at which level the folders are splits: 0, 1, or None when there are none.

    A class may be called 'train' (vehicles): mixed with other names and without folders inside, it
    is a class.
    """
    tops = {parts[0] for parts in paths if len(parts) > 1}
    splits = _split_words(tops)
    flat = any(len(parts) == 1 for parts in paths)
    if tops and splits == tops and not flat:
        return 0
    inner = _split_words(parts[1] for parts in paths if len(parts) > 2)
    if tops and not flat and all(len(parts) > 2 and parts[1] in inner for parts in paths):
        return 1
    nested = {parts[0] for parts in paths if len(parts) > 2}
    if splits & nested or (splits and flat):
        rest = sorted(tops - splits) + [parts[0] for parts in paths if len(parts) == 1]
        raise DataError(
            root,
            must="hold either split folders (train, val, test) or class folders",
            found=f"both: {listing(sorted(splits))} beside {listing(rest)}",
            do="Move the others away, or write a manifest with the columns path,label,split.",
        )
    return None


def _one_class(targets: Sequence[str | None], *, paths: list[list[str]], root: Path, require_labels: bool) -> list[str]:
    """Returns a note when one folder only plays the class; raises when it surely wraps the real
    ones."""
    name, *others = set(targets)
    if others or name is None:
        return []
    if all(len(parts) > 2 for parts in paths) and require_labels:
        raise DataError(
            root,
            must="hold one folder per class",
            found=f"the single folder '{name}', which holds folders itself",
            do=f"Name {root / name} instead.",
        )
    return [f"only one class folder: '{name}'; if the classes are inside it, name it instead"]


def _unlabelled(root: Path, *, missing: list[str], total: int) -> DataError:
    tables = [p.name for p in sorted(root.iterdir()) if p.suffix.lower() in (".csv", ".tsv", ".parquet")]
    hint = f" If {root / tables[0]} is such a manifest, name it instead." if tables else ""
    return UnlabelledError(
        root,
        must="hold one folder per class, so that every file has a label",
        found=f"{len(missing):,} of {counted(total, 'file')} outside a class folder ({listing(missing, most=3)})",
        do=f"Sort them into folders, or name a manifest with the columns path,label.{hint}",
    )


def _nothing(root: Path, *, others: list[str], ignored: list[str], suffixes: Sequence[str]) -> DataError:
    found = f"{counted(len(others), 'other file')} ({_endings(others)})" if others else "no file"
    if ignored and not others:
        found = f"only files about data, or hidden ones (e.g. {min(ignored, key=natural_key)})"
    return DataError(
        root,
        must=f"hold files that end in {', '.join(suffixes)}",
        found=found,
        do="Name the folder with the data, or another --modality." if others else "Check the path.",
    )


def _notes(others: list[str], *, ignored: list[str]) -> list[str]:
    notes = []
    if others:
        one = min(others, key=natural_key)
        count = counted(len(others), "file")
        notes.append(f"{count} with other endings left out: {_endings(others)} (e.g. {one})")
    if ignored:
        names = listing(sorted(ignored, key=natural_key), most=3)
        notes.append(f"{counted(len(ignored), 'hidden or accompanying file')} ignored: {names}")
    return notes


def _endings(names: list[str]) -> str:
    counts = Counter(Path(name).suffix.lower() or "no ending" for name in names)
    return listing(f"{ending} {count:,}" for ending, count in counts.most_common())


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in _FOREIGN


def _unreadable(error: OSError) -> None:
    raise DataError(error.filename, must="be a folder that may be read", found=f"'{error.strerror}'") from error
