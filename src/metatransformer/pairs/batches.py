"""From pairs to batches for two towers: read ahead by threads, cropped, cut to some patches, all by seed and step."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.infer.loader import Place
from metatransformer.machine.device import processors
from metatransformer.modalities._picture.pixels import as_rgb, resize
from metatransformer.modalities._picture.read import decode_image
from metatransformer.pairs.options import PretrainOptions
from metatransformer.pairs.order import Order
from metatransformer.pairs.read import Pairs, label_of
from metatransformer.pairs.words import Words

AHEAD = 3  # batches that are being read while one is computed
TRIES = 100  # broken pictures in a row, after which something else is wrong
ASPECTS = (3 / 4, 4 / 3)  # of training crops, as everywhere since Inception


@dataclass(frozen=True)
class PairBatch:
    """``pixels`` [B, s, s, 3] uint8, ``ids`` [B, t], ``labels`` [B], and the patches ``kept`` [B, k] of each."""

    pixels: Tensor
    ids: Tensor
    labels: Tensor
    kept: Tensor | None

    def to(self, device: torch.device) -> "PairBatch":
        """Returns the batch on a device."""
        kept = None if self.kept is None else self.kept.to(device)
        return PairBatch(self.pixels.to(device), self.ids.to(device), self.labels.to(device), kept)


class Reader:
    """Reads pictures and texts of pairs. ``broken`` tells of pictures that could not be read, ``cut`` counts texts that
    were longer than their tower's places, of ``texts``.
    """

    def __init__(self, pairs: Pairs, words: Words, *, workers: int) -> None:
        self.pairs, self.words = pairs, words
        self.broken: dict[int, str] = {}
        self.cut = self.texts = 0
        self.pool = ThreadPoolExecutor(workers or processors())

    def read(self, row: int, *, least: int) -> tuple[np.ndarray, str]:
        """Returns pixels and text of a pair, or of the next one whose picture can be read.

        Raises:
            DataError: a hundred broken pictures in a row.
        """
        for number in range(TRIES):
            place = (row + number) % len(self.pairs)
            try:
                data, text, where = self.pairs.read(place)
                return as_rgb(decode_image(data, where=where, least=least), where=str(where)), text
            except DataError as error:
                self.broken[place] = str(error)
        raise DataError(where, must="hold pictures that can be read", found=f"{TRIES} broken ones in a row")

    def numbers(self, texts: Sequence[str]) -> Tensor:
        """Returns texts as numbers [B, t]."""
        ids, cut = self.words(texts)
        self.cut, self.texts = self.cut + cut, self.texts + len(texts)
        return torch.from_numpy(ids)

    def whole(self, size: int, *, batch: int) -> Iterator[tuple[Tensor, list[str]]]:
        """Yields all pairs in their order, uncropped: pixels [B, size, size, 3] and texts."""
        for start in range(0, len(self.pairs), batch):
            rows = range(start, min(start + batch, len(self.pairs)))
            found = list(self.pool.map(lambda row: self.read(row, least=size), rows))
            yield torch.from_numpy(np.stack([square(pixels, size) for pixels, _ in found])), [t for _, t in found]

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown(cancel_futures=True)


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Returns the middle of a picture as a square of ``size``: its shorter side is resized, the rest cut off."""
    h, w = pixels.shape[:2]
    side = min(h, w)
    left, top = (w - side) / 2, (h - side) / 2
    return resize(pixels, size=(size, size), box=(left, top, left + side, top + side))


def crop(pixels: np.ndarray, size: int, *, least: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a random part of a picture, of ``least`` to 1 of its area and 3:4 to 4:3, as a square of ``size``."""
    h, w = pixels.shape[:2]
    area, aspect = rng.uniform(least, 1.0) * h * w, np.exp(rng.uniform(*np.log(ASPECTS)))
    wide, high = min(w, (area * aspect) ** 0.5), min(h, (area / aspect) ** 0.5)
    left, top = rng.uniform(0, w - wide), rng.uniform(0, h - high)
    return resize(pixels, size=(size, size), box=(left, top, left + wide, top + high))


class Batches:
    """The training batches of one process; everything in one follows from seed, step and place in the whole batch."""

    def __init__(self, reader: Reader, options: PretrainOptions, *, place: Place) -> None:
        self.reader, self.options, self.place = reader, options, place
        pairs = reader.pairs
        self.order = Order(pairs.shard, options.batch, options.seed, window=pairs.window)

    def size(self, step: int) -> int:
        """Returns the side of the pictures of a step."""
        small = self.options.start_size and not self._finishes(step)
        return self.options.start_size if small else self.options.size

    def _finishes(self, step: int) -> bool:
        return step >= round((1 - self.options.finish) * self.options.steps)

    def from_step(self, first: int) -> Iterator[PairBatch]:
        """Yields the batches of a step and all that follow."""
        waiting: deque[tuple[int, list[Future[tuple[np.ndarray, str]]]]] = deque()
        step = first
        while first < self.options.steps:
            while len(waiting) < AHEAD and step < self.options.steps:
                rows = self.order.rows(step, self.place)
                ahead = [self.reader.pool.submit(self._one, int(row), step, number) for number, row in enumerate(rows)]
                waiting.append((step, ahead))
                step += 1
            first, futures = waiting.popleft()
            yield self._batch(first, [future.result() for future in futures])
            first += 1

    def _rng(self, step: int, number: int, *, use: int) -> np.random.Generator:
        """Returns the numbers of one use for the pair of a step that has this number in this process."""
        place = self.place.rank * (self.options.batch // self.place.world) + number
        return np.random.default_rng([self.options.seed, use, step, place])

    def _one(self, row: int, step: int, number: int) -> tuple[np.ndarray, str]:
        size = self.size(step)
        pixels, text = self.reader.read(row, least=2 * size)
        return crop(pixels, size, least=self.options.crop, rng=self._rng(step, number, use=1)), text

    def _batch(self, step: int, found: list[tuple[np.ndarray, str]]) -> PairBatch:
        texts = [text for _, text in found]
        labels = torch.tensor([label_of(text) for text in texts])
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in found]))
        return PairBatch(pixels, self.reader.numbers(texts), labels, self._kept(step, len(found)))

    def _kept(self, step: int, count: int) -> Tensor | None:
        """Returns the patches that are not left out, drawn for each picture."""
        if not self.options.drop or self._finishes(step):
            return None
        patches = (self.size(step) // self.options.patch) ** 2
        most = max(1, round((1 - self.options.drop) * patches))
        drawn = [self._rng(step, number, use=2).permutation(patches)[:most] for number in range(count)]
        return torch.from_numpy(np.sort(np.stack(drawn), axis=1))
