"""Label maps: text files that say what the codes or colours of masks mean.

One class a line, in the spellings that people use: ``3 Road``, ``3: Road``, ``Road`` (codes count from 0), ``128 64 128
Road``, ``Road,128,64,128``, ``Road:128,64,128::`` (CVAT), ``3 Road 128 64 128``; and JSON: a list of names, names by
code, or codes by name. A colour is the code ``red * 65536 + green * 256 + blue`` where no other code is given.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.core.labels import Colour, Legend

# Names of such files, without their ending.
NAMES = {"labels", "label", "classes", "class_dict", "label_map", "labelmap", "label_colors", "label_colours", "colors"}
NAMES |= {"colours", "class_names", "categories", "obj_class", "palette"}
SUFFIXES = (".txt", ".csv", ".json", ".names")
_PART = re.compile(r"[\s,;:]+")
_HEADER = {"name", "class", "label", "id", "index", "code", "r", "g", "b", "red", "green", "blue", "category", "parts"}


def find_legend(root: Path) -> Legend:
    """Returns the label map of a folder, an empty one where there is none.

    Raises:
        DataError: two, or a damaged one.
    """
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES and path.stem.lower() in NAMES]
    if len(found) > 1:
        names, do = " and ".join(path.name for path in found[:3]), "Name the right one with task.labels=FILE."
        raise DataError(root, must="hold one label map", found=names, do=do)
    return read_legend(found[0]) if found else Legend()


def read_legend(path: Path) -> Legend:
    """Returns the label map of a file.

    Raises:
        DataError: it cannot be read, names nothing, or one code or name twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "other bytes"
        do = "Name a text with a class in each line, such as '3 Road' or 'Road,128,64,128'."
        raise DataError(path, must="be a label map, a text in UTF-8", found=f"'{found}'", do=do) from error
    rows = list(_json_rows(text, path) if path.suffix.lower() == ".json" else _text_rows(text.splitlines()))
    names: dict[int, str] = {}
    colours: dict[int, Colour] = {}
    for place, (code, name, colour) in enumerate(rows):
        code = code if code is not None else place if colour is None else code_of(colour)
        if code in names or name in names.values():
            twice = f"the code {code} ('{names[code]}', '{name}')" if code in names else f"'{name}'"
            raise DataError(path, must="name every class once", found=f"{twice} twice", do="Correct the label map.")
        names[code] = name
        if colour is not None:
            colours[code] = colour
    if not names:
        raise DataError(path, must="name a class in each line, such as '3 Road' or 'Road,128,64,128'", found="none")
    return Legend(names, colours, str(path))


def code_of(colour: Iterable[int]) -> int:
    """Returns the code that stands for a colour."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _text_rows(lines: Iterable[str]) -> Iterator[tuple[int | None, str, Colour | None]]:
    """Yields code, name and colour of each line; what is no number is the name."""
    for line in lines:
        parts = [part for part in _PART.split(line.strip().strip('"')) if part]
        if not parts or line.lstrip().startswith(("#", "//")) or {part.lower() for part in parts} <= _HEADER:
            continue
        numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
        words = " ".join(part for part in parts if not (part.isascii() and part.isdigit()))
        if len(numbers) >= 3 and all(number <= 255 for number in numbers[-3:]):
            red, green, blue = numbers[-3:]
            yield (numbers[0] if len(numbers) > 3 else None), words or str(numbers[0]), (red, green, blue)
        else:
            yield (numbers[0] if numbers else None), words or str(numbers[0]), None


def _json_rows(text: str, path: Path) -> Iterator[tuple[int | None, str, Colour | None]]:
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        raise DataError(path, must="be JSON", found=f"'{error}'") from error
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        found = {str(code): name for code, name in enumerate(found)}
    pairs = list(found.items()) if isinstance(found, dict) else [(None, None)]
    for key, value in pairs:
        name, code = (value, key) if isinstance(value, str) else (key, value)
        if not isinstance(name, str) or not str(code).isdigit():
            must = 'be a list of names, or names by code: {"3": "Road"}'
            raise DataError(path, must=must, found=repr({key: value})[:60])
        yield int(str(code)), name, None
