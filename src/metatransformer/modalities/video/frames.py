"""Which videos a folder, a list or a manifest holds: film files, or folders whose pictures are frames.

A folder that holds pictures is one video, never a class: classes are the folders above. Refused rather than guessed:
films beside folders of pictures, a folder of pictures inside another, pictures where a class is expected.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.data.folder import index_names, scan
from metatransformer.data.given import Files, Folder, accepts, recognise
from metatransformer.data.index import index_files, listed
from metatransformer.data.manifest import FOLDER
from metatransformer.data.records import Index, Records, counted, listing, natural_key, require_text, require_unique
from metatransformer.modalities.video.read import FILM_SUFFIXES, FRAME_SUFFIXES


def index_videos(data: Any, *, target: str, labelled: bool, header: bool, options: Any) -> Index:
    """Returns one record a film file, folder of frames or array; see ``data.index.index_files`` for the layouts.

    A row of a manifest names a film or a folder of frames. ``options.source`` says what a folder holds. ``header`` has
    no meaning here: a manifest always has one.

    Raises:
        DataError: what ``index_files`` raises; a folder that can mean two things.
    """
    del header
    given = recognise(data)
    if isinstance(given, Folder):
        index = _index_folder(given.path, source=options.source, labelled=labelled)
    elif isinstance(given, Files) and any(path.is_dir() for path in given.paths) and not labelled:
        index = _index_list(given.paths, source=options.source)
    else:
        if isinstance(given, Files):
            _require_films(given)
        suffixes = (*FILM_SUFFIXES, FOLDER)
        return index_files(given, suffixes=suffixes, label_column=target or "label", require_labels=labelled)
    require_unique(index.records.keys, where="the data" if index.root is None else index.root)
    require_text(index.records)
    return index


def _require_films(given: Files) -> None:
    """Raises DataError for a file that is no film; names a picture's way out."""
    for path in given.paths:
        if path.is_file() and not accepts(path.name, suffixes=FILM_SUFFIXES):
            frame = accepts(path.name, suffixes=FRAME_SUFFIXES)
            raise DataError(
                path,
                must=f"be a film ({', '.join(FILM_SUFFIXES)}) or a folder of frames",
                found=f"the ending '{path.suffix}'" if path.suffix else "no ending",
                do="Name the folder that holds it." if frame else "Convert it, or leave it out.",
            )


def _index_list(paths: Sequence[Path], *, source: str) -> Index:
    """Returns the videos of several films and folders, in their order, named from the folder that holds them all."""
    parts = [
        _index_folder(path, source=source, labelled=False)
        if path.is_dir()
        else index_files(path, suffixes=FILM_SUFFIXES, require_labels=False)
        for path in paths
    ]
    files = [path for part in parts for path in part.records.paths if path is not None]
    return listed(files, notes=[note for part in parts for note in part.notes])


def _index_folder(root: Path, *, source: str, labelled: bool) -> Index:
    """Returns the videos of a folder: film files, or the folders that hold pictures."""
    names, notes = scan(root, suffixes=(*FILM_SUFFIXES, *FRAME_SUFFIXES))
    films = [name for name in names if accepts(name, suffixes=FILM_SUFFIXES)]
    pictures = [name for name in names if not accepts(name, suffixes=FILM_SUFFIXES)]
    folders = {name.rpartition("/")[0] for name in pictures}
    if source == "auto" and films and folders:
        raise DataError(
            root,
            must="hold either films or folders of frames",
            found=f"{counted(len(films), 'film')} and {counted(len(pictures), 'picture')} "
            f"({min(films)}, {min(pictures)})",
            do="Set input.source=files or input.source=folders.",
        )
    if source == "files" or (source == "auto" and films):
        return index_files(root, suffixes=FILM_SUFFIXES, require_labels=labelled)
    if not folders:
        raise DataError(root, must="hold folders of frames", found="no picture", do="Set input.source=files.")
    notes = [*notes, f"{counted(len(pictures), 'frame')} in {counted(len(folders), 'folder')}, each of them one video"]
    if films:
        notes.append(f"{counted(len(films), 'film')} left out, as input.source=folders says")
    return _index_frames(root, folders=folders, notes=notes, labelled=labelled)


def _index_frames(root: Path, *, folders: set[str], notes: Sequence[str], labelled: bool) -> Index:
    """Returns the folders of frames as records: the class is the folder above, or the one above its split."""
    nested = [name for name in folders if next(_above(name, folders), None) is not None]
    if nested:
        name = min(nested, key=natural_key)
        raise DataError(
            root / name,
            must="hold the only frames of its video",
            found=f"a folder of pictures inside another, '{next(_above(name, folders)) or root}'",
            do="Give every video one folder, with nothing but its frames in it.",
        )
    if folders == {""}:
        index = Index(Records([root.absolute().name], paths=[root]), tuple(notes), root.absolute().parent)
    else:
        index = index_names(root, names=sorted(folders), notes=notes, require_labels=False)
    bare = [key for key, target in zip(index.records.keys, index.records.targets, strict=True) if target is None]
    if labelled and bare:
        raise DataError(
            root,
            must="hold folders class/video/frame, as a folder with pictures is one video",
            found=f"pictures directly in {listing(bare, most=3)}",
            do="Put the frames of each video into a folder of its own inside its class, or name a manifest.",
        )
    return index


def _above(name: str, folders: set[str]) -> Iterator[str]:
    """Yields the folders of ``folders`` that hold this one."""
    while name:
        name = name.rpartition("/")[0]
        if name in folders:
            yield name
