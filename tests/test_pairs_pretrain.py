"""Pretraining from the command line: exact after a kill, equal on two processes, and an encoder like any other."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import Run, run_alone
from pairs_common import COLOURS, TINY, words_for
from safetensors.torch import load_file

import metatransformer.pairs.pretrain as pretrain_module
from metatransformer.core.errors import UsageError
from metatransformer.infer.loader import Place
from metatransformer.pairs.batches import Batches, Reader, crop, square
from metatransformer.pairs.files import read_towers
from metatransformer.pairs.options import PRESETS, make_options
from metatransformer.pairs.read import Wanted, read_pairs
from metatransformer.pairs.recall import both_ways, chance
from metatransformer.pairs.words import choose_words


def test_a_run_leaves_figures_curves_and_both_towers(pretrained: Path):
    told = json.loads((pretrained / "metrics.json").read_text(encoding="utf-8"))
    assert told["pairs"] + told["held_out"] == 36 and told["held_out"] == 9 and told["steps"] == 8
    assert {"image to text R@1", "text to image R@10", "loss"} <= set(told["metrics"])
    assert told["chance"]["image to text R@1"] == pytest.approx(1 / 3)
    lines = [json.loads(line) for line in (pretrained / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9)) and "image to text R@1" in lines[3]
    page = (pretrained / "report.html").read_text(encoding="utf-8")
    assert "image to text R@1" in page and page.count("data:image/png") >= 2 and "a red" in page
    assert (pretrained / "model.safetensors").is_file() and (pretrained / "text.safetensors").is_file()
    assert list((pretrained / "tensorboard").iterdir()) and not (pretrained / "checkpoints").exists()
    assert json.loads((pretrained / "run.json").read_text(encoding="utf-8"))["status"] == "done"


def test_what_is_loaded_gives_the_vectors_that_were_validated(pretrained: Path, pair_table: Path):
    loaded = read_towers(pretrained)
    pairs = read_pairs(str(pair_table), Wanted())
    _, held = pairs.apart(0.25, 5000)
    reader = Reader(held, loaded.words, workers=1)
    ((pixels, texts),) = reader.whole(16, batch=64)
    left, right = loaded.towers.of_pictures(pixels), loaded.of_texts(texts)
    found = both_ways(left, right, torch.from_numpy(held.label), names=("image", "text"))
    told = json.loads((pretrained / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert found == {name: told[name] for name in found}
    reader.close()


def test_the_vision_tower_is_an_encoder_like_any_other(pretrained: Path, pair_table: Path, tmp_path: Path, call: Run):
    words = [
        "embed",
        pair_table.parent,
        "--modality",
        "image",
        "--encoder",
        f"{pretrained}/",
        "--out",
        tmp_path / "v.parquet",
    ]
    status, result, err = call([*words, "input.size=16", "run.device=cpu"])
    assert status == 0 and result["rows"] == 36 and result["width"] == 16, err


def test_a_killed_run_ends_bit_for_bit_as_a_whole_one(
    pretrained, pair_table: Path, tmp_path: Path, call: Run, monkeypatch
):
    step = pretrain_module.Pretrainer._step

    def killed(self, batch, bar):
        if self.progress.step == 6:
            raise KeyboardInterrupt
        step(self, batch, bar)

    monkeypatch.setattr(pretrain_module.Pretrainer, "_step", killed)
    out = tmp_path / "run"
    from metatransformer.faces.cli import main

    assert main([str(word) for word in words_for(pair_table, out, {})]) == 130
    assert not (out / "model.safetensors").exists()
    monkeypatch.setattr(pretrain_module.Pretrainer, "_step", step)
    status, _, err = call(words_for(pair_table, out, {}))
    assert status == 0 and "continuing after step 4" in err
    for name in ("model.safetensors", "text.safetensors"):
        whole, resumed = load_file(pretrained / name), load_file(out / name)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole), name
    logs = [
        [json.loads(line) | {"pairs_per_second": 0} for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (pretrained, out)
    ]
    assert logs[0] == logs[1]


STOPPED = """
import sys
import metatransformer.pairs.pretrain as module
from metatransformer.faces.cli import main
step = module.Pretrainer._step
def stopped(self, batch, bar):
    held, total = (sum(f(p).numel() for p in self.learning.values()) for f in (module.local, lambda p: p))
    assert held < 0.55 * total, (held, total)
    if self.progress.step == 3:
        raise KeyboardInterrupt
    step(self, batch, bar)
module.Pretrainer._step = stopped
assert main(sys.argv[1:]) == 130
"""


def test_two_processes_end_where_one_does(pair_table: Path, tmp_path: Path):
    settings = {"steps": 4, "validate": 2, "drop": 0.5, "start_size": 8, "finish": 0.5, "ema": 0.9, "clip": 0.5}
    settings["checkpointing"] = True
    alone = run_alone(["-m", "metatransformer", *words_for(pair_table, tmp_path / "one", settings)])
    assert alone.returncode == 0, alone.stderr
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "metatransformer"]
    both = run_alone([*launch, *words_for(pair_table, tmp_path / "two", settings)])
    assert both.returncode == 0, both.stderr
    for name in ("model.safetensors", "text.safetensors"):
        one, two = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
        assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one), name
    told = [json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["loss"] for name in ("one", "two")]
    assert told[0] == pytest.approx(told[1], abs=1e-5)
    # Each holds its part; what two have left, one takes up.
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED, encoding="utf-8")
    words = words_for(pair_table, tmp_path / "left", settings)
    left = run_alone([*launch[:-2], script, *words])
    assert left.returncode == 0, left.stderr
    assert list((tmp_path / "left" / "checkpoints").glob("step-*/.metadata"))
    on = run_alone(["-m", "metatransformer", *words])
    assert on.returncode == 0 and "continuing after step 2" in on.stderr, on.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "left"))
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)


def test_towers_learn_what_pictures_are_called(pair_table: Path, tmp_path: Path, call: Run):
    folder = tmp_path / "classes"
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for path in pair_table.parent.glob(f"{colour}-*-0.png"):
            (folder / colour / path.name).write_bytes(path.read_bytes())
    settings = {"steps": 120, "validate": 120, "batch": 18, "held_out": 0.0, "lr": 5e-3, "zero_shot": str(folder)}
    status, result, err = call([*words_for(pair_table, tmp_path / "run", settings), "--val", pair_table])
    assert status == 0, err
    assert result["metrics"]["image to text R@1"] > 0.6 > 5 * result["chance"]["image to text R@1"]
    assert result["metrics"]["zero-shot accuracy"] > 0.4


def test_broken_pictures_are_replaced_and_told(pair_table: Path, tmp_path: Path, call: Run):
    frame = pd.read_csv(pair_table)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    frame["path"] = [str(pair_table.parent / name) for name in frame["path"]]
    frame.loc[3, "path"] = str(tmp_path / "broken.png")
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    status, result, err = call(words_for(tmp_path / "pairs.csv", tmp_path / "run", {"held_out": 0.0}))
    assert status == 0 and result["broken"] == 1, err
    assert "1 training pictures could not be read, others took their place" in " ".join(err.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 60}, "batch: must be at most the 27 pairs; found 60"),
        ({"patch": 5}, "size: must be a multiple of patch; found 16"),
        ({"zero_shot": "nowhere"}, "must hold one folder of pictures a class"),
        ({"vocabulary": "nothing"}, "vocabulary: must be 'train', a known vocabulary"),
        ({"loss": "hinge"}, "loss.*must be 'infonce' or 'sigmoid'"),
        ({"rate": 3}, "recipe key 'rate': must be a setting"),
    ],
)
def test_bad_settings_are_refused_before_the_work(settings, message: str, pair_table: Path, tmp_path: Path, call: Run):
    status, _, err = call(words_for(pair_table, tmp_path / "run", settings))
    import re

    assert status == 2 and re.search(message, " ".join(err.split())), err
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_finished_run_and_one_of_other_settings_are_not_touched(pretrained: Path, pair_table: Path, call: Run):
    status, _, err = call(words_for(pair_table, pretrained, {}))
    assert status == 2 and "must not hold a finished run" in " ".join(err.split())
    status, _, err = call(words_for(pair_table, pair_table.parent, {}))
    assert status == 2 and "must be a new or empty folder" in " ".join(err.split())


def test_presets_are_published_sizes_and_shorter_runs_warm_up_in_proportion():
    options = make_options({})
    assert (options.width, options.depth, options.heads, options.lr, options.beta2) == (768, 12, 12, 5e-4, 0.98)
    assert make_options({"steps": 3900}).warmup == 20
    assert all(make_options({"preset": name}).preset == name for name in PRESETS)
    with pytest.raises(UsageError, match="Did you mean 'vit-b16'"):
        make_options({"preset": "vit-b32"})


def test_recall_and_chance_by_hand():
    left = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [-1.0, 0.0]])
    labels = torch.tensor([7, 8, 8, 9])
    right = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [-1.0, 0.0]])
    found = both_ways(left, right, labels, names=("a", "b"))
    # The third picture is nearest to the first text, which is not its own; each text finds a picture of its own.
    assert found["a to b R@1"] == pytest.approx(0.75) and found["a to b R@5"] == 1
    assert found["b to a R@1"] == 1
    assert chance(torch.tensor([7, 8]), labels, rank=1) == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert chance(torch.tensor([8]), labels, rank=2) == pytest.approx(1 - 1 / 6)


def test_crops_and_patches_follow_from_seed_and_step_alone(pair_table: Path):
    options = make_options({**TINY, "drop": 0.5, "start_size": 8, "finish": 0.25})
    pairs = read_pairs(str(pair_table), Wanted())
    words = choose_words("train", ["a red square"], size=60, context=8)
    reader = Reader(pairs, words, workers=1)
    first = list(Batches(reader, options, place=Place()).from_step(0))
    assert len(first) == 8
    later = next(Batches(reader, options, place=Place()).from_step(3))
    assert torch.equal(later.pixels, first[3].pixels) and torch.equal(later.ids, first[3].ids)
    assert later.kept is not None and first[3].kept is not None and torch.equal(later.kept, first[3].kept)
    assert first[5].pixels.shape == (6, 8, 8, 3) and first[5].kept is not None and first[5].kept.shape == (6, 2)
    assert first[6].pixels.shape == (6, 16, 16, 3) and first[6].kept is None
    second = next(Batches(reader, options, place=Place(1, 2)).from_step(3))
    assert torch.equal(second.pixels, first[3].pixels[3:])
    reader.close()


def test_the_middle_square_and_random_crops():
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 255
    assert square(pixels, 5).min() > 200  # splines look a little beyond the edge
    drawn = [crop(pixels, 7, least=0.3, rng=np.random.default_rng(n)) for n in range(9)]
    assert all(one.shape == (7, 7, 3) for one in drawn) and len({one.tobytes() for one in drawn}) > 5


def test_texts_end_begin_and_are_cut_with_a_count():
    words = choose_words("train", ["red square"] * 5, size=60, context=5)
    ids, cut = words(["red", "red square square red square"])
    assert cut == 1 and ids.shape == (2, 5)
    assert ids[0, 0] == ids[1, 0] == 1 and ids[1, -1] == 2 and ids[0].tolist()[1:].count(2) == 1
