"""What a user may write where an encoder is asked for.

``meta-b16`` is a known trunk, ``./weights.pth?heads=12`` a file (or a folder with one), ``random:<seed>[:<encoder>]``,
``shuffled:<seed>:<encoder>`` and ``identity[:<encoder>]`` are the controls, ``test`` is the tiny trunk of the tests. A
name that could be two of these is refused with both spellings; ``known:`` in front forces the table.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from metatransformer.core.errors import UsageError, WeightsError, nearest
from metatransformer.nn.block import ACTIVATIONS
from metatransformer.trunk.catalog import KNOWN, MADE, PIXELS, WeightEntry
from metatransformer.trunk.files import SUFFIXES


@dataclass(frozen=True)
class Options:
    """What a state dict does not say, told behind a path, as in ``file.pth?heads=12&eps=1e-6``.

    ``pixels`` names the mean and deviation of the pixels; ``like`` takes everything from a known trunk.
    """

    heads: int | None = None
    eps: float | None = None
    activation: str | None = None
    pixels: str | None = None
    like: str | None = None


@dataclass(frozen=True)
class Known:
    """A trunk of the table."""

    entry: WeightEntry


@dataclass(frozen=True)
class Given:
    """A weight file of the user's."""

    path: Path
    options: Options


@dataclass(frozen=True)
class Made:
    """A control or test trunk.

    ``kind`` is ``random``, ``shuffled``, ``identity`` or ``test``; ``base`` lends its shape and front end.
    """

    kind: str
    seed: int = 0
    base: "Known | Given | Made | None" = None


Spec = Known | Given | Made


def parse_name(name: str) -> Spec:
    """Returns what ``name`` means; a path's file is not opened here.

    Raises:
        UsageError: an unknown name, a name that is also a file, a bad seed, or a misspelt option behind a path.
        WeightsError: a path to nothing, or to a folder without exactly one weight file.
    """
    if name.startswith("known:"):
        return _known(name.removeprefix("known:"))
    kind, _, rest = name.partition(":")
    if kind in ("random", "shuffled"):
        seed, _, base = rest.partition(":")
        if not (seed.isascii() and seed.isdigit()) or (kind == "shuffled" and not base):
            form = "random:<seed>[:<encoder>]" if kind == "random" else "shuffled:<seed>:<encoder>"
            raise UsageError("encoder", must=f"be written {form}", found=f"'{name}'")
        return Made(kind, int(seed), parse_name(base) if base else None)
    if kind == "identity":
        return Made("identity", 0, parse_name(rest) if rest else None)
    if name == "test":
        return Made("test")
    if _is_path(name):
        return _given(name)
    if Path(name).is_file():
        other = f"known:{name} for the known trunk" if name in KNOWN else "a known name otherwise"
        raise UsageError(
            "encoder",
            must="be unambiguous",
            found=f"'{name}', which is a file here",
            do=f"Write ./{name} for the file, {other}.",
        )
    return _known(name)


def _known(name: str) -> Known:
    if name not in KNOWN:
        raise UsageError(
            "encoder",
            must="be a known trunk, a path, random:<seed>, shuffled:<seed>:<encoder>, identity or test",
            found=f"'{name}'",
            do=nearest(name, [*KNOWN, *MADE]),
        )
    return Known(KNOWN[name])


def _is_path(name: str) -> bool:
    bare = name.partition("?")[0]
    separators = [separator for separator in (os.sep, os.altsep, "/") if separator]
    return any(s in bare for s in separators) or bare.lower().endswith(SUFFIXES)


def _given(name: str) -> Given:
    bare, _, query = name.partition("?")
    path = Path(bare).expanduser()
    if path.is_dir():
        path = _file_of(path)
    if not path.is_file():
        for entry in KNOWN.values():
            if any(source.address == bare for source in entry.sources):
                raise UsageError(
                    "encoder",
                    must="be a known trunk or a path",
                    found=f"'{bare}', a Hub repository",
                    do=f"It is known as '{entry.name}'.",
                )
        raise WeightsError(
            path, must="be a weight file", found="no such file", do=f"Known trunks need no path: {', '.join(KNOWN)}."
        )
    return Given(path, _options(query, where=str(path)))


def _file_of(folder: Path) -> Path:
    """Returns the one weight file of a folder as transformers and timm save them."""
    usual = folder / "model.safetensors"
    found = [usual] if usual.is_file() else []
    found = found or sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(found) != 1:
        listed = ", ".join(path.name for path in found[:5]) or "none"
        raise WeightsError(
            folder, must="be a weight file or a folder with exactly one", found=listed, do="Name the file itself."
        )
    return found[0]


def _options(query: str, *, where: str) -> Options:
    valid = [field.name for field in fields(Options)]
    found: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in valid:
            raise UsageError(where, must="be followed by known options", found=f"'{key}'", do=nearest(key, valid))
        found[key] = value
    choices = {"activation": ACTIVATIONS, "pixels": PIXELS, "like": KNOWN}
    for key, allowed in choices.items():
        if key in found and found[key] not in allowed:
            raise UsageError(
                f"{where}?{key}",
                must="be one of the known values",
                found=f"'{found[key]}'",
                do=nearest(found[key], allowed),
            )
    if "like" in found and len(found) > 1:
        raise UsageError(where, must="have 'like' as its only option", found=f"'{query}'")
    numbers = {
        key: _number(found[key], kind, where=f"{where}?{key}")
        for key, kind in (("heads", int), ("eps", float))
        if key in found
    }
    settings: dict[str, Any] = {**found, **numbers}
    return Options(**settings)


def _number(text: str, kind: type[int] | type[float], *, where: str) -> float:
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = 0
    if not 0 < value < float("inf"):
        word = "positive whole number" if kind is int else "positive number"
        raise UsageError(where, must=f"be a {word}", found=f"'{text}'")
    return value
