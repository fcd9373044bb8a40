"""The loader: order from seed and epoch alone, equal shares, a cache that ends in time."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from common import loader_of, make_records, tiny_pipeline

from metatransformer.core.batch import Batch
from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data.examples import Examples
from metatransformer.infer.evaluate import compute_outputs
from metatransformer.infer.loader import Loader, Place
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline

QUIET = Console(quiet=True)
COUNT = 23


@pytest.fixture
def loader() -> Loader:
    return make_loader(cache_mb=64)


def make_loader(*, cache_mb: int, count: int = COUNT, workers: int = 0) -> Loader:
    pipeline = tiny_pipeline("image")
    made = loader_of(pipeline, make_records(pipeline.modality, train=count), cache_mb=cache_mb)
    made.workers = workers or made.workers
    made.prepare(QUIET, title="train")
    return made


def pixels_of(batch: Batch) -> torch.Tensor:
    return batch.parts["image"].inputs["pixels"]


def plan(loader: Loader, *, seed: int = 0, epoch: int = 0, place: Place | None = None) -> list[list[int]]:
    found = loader.plan(batch_size=5, seed=seed, epoch=epoch, place=place or Place())
    return [chunk.tolist() for chunk in found]


def epoch(loader: Loader, *, number: int = 0, skip: int = 0, augment: bool = True) -> list:
    found = loader.epoch(batch_size=5, seed=3, epoch=number, augment=augment, place=Place(), skip=skip)
    return [batch for _, batch in found]


def test_an_epoch_sees_every_sample_once(loader: Loader):
    assert sorted(sum(plan(loader), [])) == list(range(COUNT))
    assert sorted(map(len, plan(loader))) == [3, 5, 5, 5, 5]


def test_the_order_follows_from_seed_and_epoch(loader: Loader):
    assert plan(loader) == plan(make_loader(cache_mb=0))
    assert plan(loader) != plan(loader, epoch=1) != plan(loader, seed=1)


@pytest.mark.parametrize("how", ["epoch", "in order"])
def test_batches_hold_samples_of_similar_size(loader: Loader, how: str):
    sizes = [sum(a.nbytes for a in loader.view(i).inputs.values()) for i in range(COUNT)]
    chunks = plan(loader) if how == "epoch" else [indices for indices, _ in loader.in_order(batch_size=5)]
    ranges = sorted((min(sizes[i] for i in chunk), max(sizes[i] for i in chunk)) for chunk in chunks)
    assert len(ranges) == 5 and len(set(sizes)) > 1
    assert all(high <= low for (_, high), (low, _) in zip(ranges, ranges[1:], strict=False))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_batch(loader: Loader, world: int):
    whole = plan(loader)
    parts = [plan(loader, place=Place(rank, world)) for rank in range(world)]
    assert {len(part) for part in parts} == {len(whole)}
    for number, chunk in enumerate(whole):
        shares = [part[number] for part in parts]
        assert set(sum(shares, [])) == set(chunk) and all(shares)


def test_a_batch_smaller_than_the_processes_repeats_a_sample():
    small = make_loader(cache_mb=1, count=1)
    assert [plan(small, place=Place(rank, 3)) for rank in range(3)] == [[[0]]] * 3


def test_skipped_batches_are_those_before_a_kill(loader: Loader):
    whole, rest = epoch(loader), epoch(loader, skip=2)
    assert [batch.keys for batch in whole[2:]] == [batch.keys for batch in rest]
    assert torch.equal(pixels_of(whole[-1]), pixels_of(rest[-1]))


def test_augmentation_is_new_in_each_epoch_and_repeatable(loader: Loader):
    def pixels(number: int, augment: bool = True) -> np.ndarray:
        batches = epoch(loader, number=number, augment=augment)
        where = {key: (batch, row) for batch in batches for row, key in enumerate(batch.keys)}
        batch, row = where["sample 0"]
        part = batch.parts["image"]
        return part.inputs["pixels"][row][part.masks["pixels"][row]].numpy()

    assert np.array_equal(pixels(0), pixels(0)) and not np.array_equal(pixels(0), pixels(1))
    assert np.array_equal(pixels(0, augment=False), pixels(1, augment=False))


def test_targets_stand_beside_their_samples(loader: Loader):
    assert loader.target is not None
    for indices, batch in loader.in_order(batch_size=4):
        assert batch.keys == tuple(f"sample {index}" for index in indices)
        target = batch.targets["classify"]
        assert target.rows is None and torch.equal(target.values, loader.target[indices])


def test_all_samples_come_in_order_of_size(loader: Loader):
    found = np.concatenate([indices for indices, _ in loader.in_order(batch_size=4)])
    assert sorted(found) == list(range(COUNT))


def test_the_cache_ends_at_its_limit_and_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    cached, bare = make_loader(cache_mb=64), make_loader(cache_mb=0)
    reads: list[str] = []
    for loader in (cached, bare):
        reader = loader.route["image"]
        read = reader.modality.load

        def load(record, read=read):
            reads.append(record.key)
            return read(record)

        loader.route = {"image": replace(reader, modality=replace(reader.modality, load=load))}
    before = [pixels_of(batch) for batch in epoch(cached)]
    assert reads == []
    after = [pixels_of(batch) for batch in epoch(bare)]
    assert len(reads) == COUNT
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_bad_sample_shows_before_training():
    pipeline = tiny_pipeline("image")
    records = make_records(pipeline.modality, train=3)
    records[1] = replace(records[1], value=np.zeros((5, 7), dtype=np.int64))
    loader = loader_of(pipeline, records, cache_mb=1)
    with pytest.raises(DataError, match="sample 1: pixels: must be uint8"):
        loader.prepare(QUIET, title="train")


def test_unknown_labels_leave_the_target_out():
    pipeline = tiny_pipeline("image")
    records = [replace(record, target=None) for record in make_records(pipeline.modality, train=3)]
    loader = loader_of(pipeline, records, cache_mb=1)
    assert loader.target is None and not next(loader.in_order(batch_size=3))[1].targets


def texts() -> list[str]:
    rng = np.random.default_rng(5)
    return [" ".join(["plain"] * int(count)) for count in np.where(rng.random(61) < 0.2, 90, rng.integers(1, 7, 61))]


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    sides = [(8, 128), (128, 8), (32, 32), (16, 64), (64, 16)]
    return [rng.integers(0, 256, (*sides[number % 5], 3), dtype=np.uint8) for number in range(61)]


MIXED = {"text": texts, "image": pictures}


def mixed_loader(name: str, overrides: dict | None = None) -> tuple[Pipeline, Loader]:
    pipeline = tiny_pipeline(name, overrides)
    records = [Record(f"sample {number}", value=value) for number, value in enumerate(MIXED[name]())]
    examples = Examples.of(records, input=name, task="classify")
    return pipeline, Loader(pipeline.route, examples, cache_mb=0, tasks={})


@pytest.mark.parametrize(("name", "field"), [("text", "pieces"), ("image", "pixels")])
def test_samples_that_were_never_read_are_padded_to_others_of_like_shape(name: str, field: str):
    _, loader = mixed_loader(name)
    masks = [batch.parts[name].masks[field] for _, batch in loader.in_order(batch_size=7)]
    assert sum(mask.numel() for mask in masks) < 1.5 * sum(int(mask.sum()) for mask in masks)
    assert sum(map(len, masks)) == 61 and max(map(len, masks)) == 7


@pytest.mark.parametrize("name", ["text", "image"])
def test_outputs_are_those_of_each_sample_alone_in_the_given_order(name: str):
    pipeline, loader = mixed_loader(name, {"data.batch_size": 7})
    together = compute_outputs(pipeline, loader, console=QUIET, title="all")
    ones = [loader.part([index], tasks={}) for index in range(len(loader))]
    alone = [compute_outputs(pipeline, one, console=QUIET, title="one") for one in ones]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_a_window_ends_at_its_bytes(monkeypatch: pytest.MonkeyPatch):
    _, loader = mixed_loader("image")
    monkeypatch.setattr("metatransformer.infer.loader.WINDOW_BYTES", 1)
    assert [indices.tolist() for indices, _ in loader.in_order(batch_size=7)] == [[index] for index in range(61)]


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_threads_that_read_changes_nothing(workers: int):
    one, several = make_loader(cache_mb=0, workers=1), make_loader(cache_mb=0, workers=workers)
    for a, b in zip(epoch(one), epoch(several), strict=True):
        assert a.keys == b.keys and torch.equal(pixels_of(a), pixels_of(b))
    batches = zip(one.in_order(batch_size=4), several.in_order(batch_size=4), strict=True)
    assert all(np.array_equal(a, b) and torch.equal(pixels_of(x), pixels_of(y)) for (a, x), (b, y) in batches)


def test_the_first_bad_sample_is_told_and_no_thread_is_left():
    pipeline = tiny_pipeline("image")
    records = make_records(pipeline.modality, train=COUNT)
    for place in (4, 5, 11):
        records[place] = replace(records[place], value=np.zeros((5, 7), dtype=np.int64))
    loader = loader_of(pipeline, records, cache_mb=0)
    loader.workers, before = 5, threading.active_count()
    with pytest.raises(DataError, match="sample 4: pixels: must be uint8"):
        loader.prepare(QUIET, title="train")
    with pytest.raises(DataError, match="sample 4: pixels: must be uint8"):
        compute_outputs(pipeline, loader, console=QUIET, title="all")
    assert threading.active_count() == before


def test_an_error_in_the_model_ends_the_threads_that_read(monkeypatch: pytest.MonkeyPatch):
    pipeline, loader = mixed_loader("image", {"data.batch_size": 2})
    before = threading.active_count()

    def interrupted(*_: object, **__: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute_outputs(pipeline, loader, console=QUIET, title="all")
    assert threading.active_count() == before
