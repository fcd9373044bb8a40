"""Texts -> the inputs of the graph, as the model was trained: numpy and the package tokenizers.

A file is a .txt (one text) or a CSV or TSV with the columns of texts that training had. ``pieces`` [w, t] int64:
numbers of WordPieces in windows (0 = none), ``second`` [w, t]: 1 in the second text of a pair. ``plain``, where the
head reads it: how often each known word, and each two and three neighbouring ones, occur.
"""

import csv
import re
from collections import Counter
from functools import lru_cache

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

FIRST, SEPARATOR = 3, 2  # numbers before those of the vocabulary
WORD = re.compile(r"(?u)\w+|[^\w\s]")
BINS = 2**20  # of words and their neighbours


def prepare(path, settings):
    """Yields one sample a text or row: (key, its arrays by name)."""
    for key, texts in read(path, settings["columns"]):
        numbers = [np.array(splitter(tuple(settings["words"]))(text), dtype=np.int64) + FIRST for text in texts]
        if not sum(map(len, numbers)):
            raise ValueError(f"{key}: must hold at least one word; found none")
        second = [np.full(len(ids), place) for place, ids in enumerate(numbers)]
        if len(texts) == 2:
            numbers.insert(1, np.array([SEPARATOR]))
            second.insert(1, np.array([0]))
        inputs = {"pieces": windows(np.concatenate(numbers), settings)}
        inputs["second"] = windows(np.concatenate(second), settings)
        if settings["plain"]:
            inputs["plain"] = counts(" | ".join(text.strip() for text in texts), tuple(settings["plain"]))
        yield key, inputs


def read(path, columns):
    """Yields the texts of a .txt, or of each row of a table: one, or the two of a pair."""
    if path.suffix.lower() not in (".txt", ".csv", ".tsv"):
        raise ValueError("must be a .txt, .csv or .tsv file")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".txt":
        yield str(path), [text]
        return
    rows = csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    for number, row in enumerate(rows):
        yield f"{path}#{number}", [row[name] or "" for name in columns]


@lru_cache
def splitter(words):
    """Returns what turns a text into numbers of WordPieces, as BERT does."""
    model = models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    model.max_input_chars_per_word = 100
    library = tokenizers.Tokenizer(model)
    lower = all(word == word.lower() for word in words if not (word.startswith("[") and word.endswith("]")))
    library.normalizer = normalizers.BertNormalizer(lowercase=lower)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return lambda text: library.encode(text, add_special_tokens=False).ids


def windows(numbers, settings):
    """Returns numbers in as few windows as hold them, 0 behind the end of one; or in the most, evenly spaced."""
    size, most = settings["window"], settings["max_windows"]
    count = -(-len(numbers) // size)
    if count > most:
        starts = np.linspace(0, len(numbers) - size, most).round().astype(np.int64)
        return numbers[starts[:, None] + np.arange(size)]
    parts = np.array_split(numbers, count)
    found = np.zeros((count, len(parts[0])), dtype=np.int64)
    for window, part in zip(found, parts, strict=True):
        window[: len(part)] = part
    return found


@lru_cache
def places(columns):
    """Returns where each bin that is read stands."""
    return {column: place for place, column in enumerate(columns)}


def counts(text, columns):
    """Returns how often each word, and each two and three neighbouring ones, fall into the bins ``columns``."""
    words = WORD.findall(text.lower())
    grams = Counter(" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1))
    found, known = np.zeros(len(columns), dtype=np.float32), places(columns)
    for gram, count in grams.items():
        place = known.get(abs(murmur3(gram.encode())) % BINS)
        if place is not None:
            found[place] += count
    return found


def murmur3(data):
    """Returns the 32-bit MurmurHash3 (Austin Appleby, public domain) of bytes with seed 0, signed."""
    mask, value = 0xFFFFFFFF, 0
    blocks = len(data) & ~3
    for start in range(0, blocks, 4):
        value ^= mixed(int.from_bytes(data[start : start + 4], "little"))
        value = ((value << 13 & mask | value >> 19) * 5 + 0xE6546B64) & mask
    if tail := data[blocks:]:
        value ^= mixed(int.from_bytes(tail, "little"))
    value ^= len(data)
    value = (value ^ value >> 16) * 0x85EBCA6B & mask
    value = (value ^ value >> 13) * 0xC2B2AE35 & mask
    value ^= value >> 16
    return value - 2**32 if value & 0x80000000 else value


def mixed(block):
    """Returns four bytes, mixed."""
    block = block * 0xCC9E2D51 & 0xFFFFFFFF
    return (block << 15 & 0xFFFFFFFF | block >> 17) * 0x1B873593 & 0xFFFFFFFF
