"""Each command as a user runs it, and what each mistake says: one message, status 2, nothing half-done."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from common import make_records, run, run_alone, words_of
from PIL import Image

import metatransformer as mt
import metatransformer.engine.embed as embed_module
from metatransformer.engine.run import RunFolder
from metatransformer.modalities import get_modality, modality_names

SETTINGS = words_of({"input.size": 16, "head.read": [-1], "run.device": "cpu", "run.precision": "float32"})
IMAGE = ["--modality", "image", "--encoder", "test"]

Run = Callable[[Sequence[object]], tuple[int, dict[str, Any], str]]


@pytest.fixture
def call(capsys) -> Run:
    """Runs a command in this process."""
    return lambda words: run(words, capsys)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 24 pictures, one folder per class."""
    root = tmp_path_factory.mktemp("pictures")
    for record in make_records(get_modality("image"), train=24):
        (root / record.target).mkdir(exist_ok=True)
        Image.fromarray(record.value).save(root / record.target / f"{record.key.split()[1]}.png")
    return root


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a finished run."""
    from metatransformer.cli import main

    out = tmp_path_factory.mktemp("trained") / "run"
    assert main([str(word) for word in ["fit", pictures, *IMAGE, "--tune", "head", "--out", out, *SETTINGS]]) == 0
    return out


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a CSV file of 40 rows with a class and a number to learn."""
    rng = np.random.default_rng(0)
    rows = [get_modality("tabular").synthesize(rng, i % 2)["row"] | {"label": "ab"[i % 2]} for i in range(40)]
    path = tmp_path_factory.mktemp("table") / "people.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


# --- what works -------------------------------------------------------------------------------------------------------


def test_fit_leaves_a_complete_run_folder(trained: Path):
    files = {path.name for path in trained.iterdir()}
    assert {"recipe.yaml", "run.json", "log.jsonl", "metrics.json", "model"} <= files
    assert {"predictions.parquet", "report.html"} <= files and "checkpoints" not in files
    about = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert about["status"] == "done" and about["seed"] == 0
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["encoder"] == "test" and recipe["input"]["size"] == 16 and recipe["tune"] == "head"
    predictions = pd.read_parquet(trained / "predictions.parquet")
    assert set(predictions["split"]) == {"val", "test"}
    assert {"key", "target", "prediction", "confidence", "p(a)", "p(b)"} <= set(predictions.columns)


def test_the_resolved_recipe_repeats_the_run(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, "--modality", "image", "--recipe", trained / "recipe.yaml", "--out", tmp_path / "run"]
    status, result, err = call(words)
    assert status == 0, err
    assert result["metrics"] == json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def test_evaluate_scores_all_or_one_split(pictures: Path, trained: Path, call: Run):
    status, result, err = call(["evaluate", trained, pictures])
    assert status == 0, err
    assert result["samples"] == 24 and result["split"] == "all" and 0 <= result["metrics"]["accuracy"] <= 1
    status, result, err = call(["evaluate", trained / "model", pictures, "--split", "dev"])
    assert status == 2 and "--split: must be left out for data that brings no splits" in err


def test_predict_writes_a_row_for_each_file_in_order(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    files = [pictures / "b" / "11.png", pictures / "a" / "2.png", pictures / "b" / "1.png"]
    for ending, read in [("csv", pd.read_csv), ("parquet", pd.read_parquet)]:
        status, result, err = call(["predict", trained, *files, "--out", tmp_path / f"p.{ending}"])
        assert status == 0 and result["rows"] == 3, err
        found = read(tmp_path / f"p.{ending}")
        assert found["key"].tolist() == ["b/11.png", "a/2.png", "b/1.png"]
        assert found["prediction"].isin(["a", "b"]).all()
        np.testing.assert_allclose(found["p(a)"] + found["p(b)"], 1, rtol=1e-6)


def test_a_prediction_never_replaces_its_input(table: Path, trained: Path, call: Run):
    before = table.read_bytes()
    status, _, err = call(["predict", trained, table, "--out", table.parent / "." / table.name])
    assert status == 2 and "must be another file than the input" in " ".join(err.split())
    assert table.read_bytes() == before


def test_a_model_runs_where_its_device_is_not(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    shutil.copytree(trained / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about["recipe"]["run"]["device"] = "cuda:7"
    file.write_text(json.dumps(about), encoding="utf-8")
    words = ["predict", tmp_path / "model", pictures / "a", "--out", tmp_path / "p.csv"]
    assert call(words)[0] == 0
    status, _, err = call([*words, "--device", "cuda:7"])
    assert status == 2 and "present on this machine; found 'cuda:7'" in " ".join(err.split())


def test_a_metric_that_a_split_cannot_have_is_refused_before_training(pictures: Path, tmp_path: Path, call: Run):
    shutil.copytree(pictures, tmp_path / "data" / "train")
    shutil.copytree(pictures / "a", tmp_path / "data" / "test" / "a")
    words = ["fit", tmp_path / "data", *IMAGE, "--tune", "head", "--out", tmp_path / "run", *SETTINGS]
    status, _, err = call([*words, "task.metric=auroc"])
    assert status == 2 and "split 'test', metric 'auroc': must see every class" in " ".join(err.split()), err
    assert not (tmp_path / "run").exists()


def test_several_labels_of_pictures_are_learned(pictures: Path, tmp_path: Path, call: Run):
    files = sorted(pictures.rglob("*.png"))
    lines = [f"{file},{int(file.parent.name == 'a')},{number % 2}" for number, file in enumerate(files)]
    (tmp_path / "list.csv").write_text("\n".join(["path,first,odd", *lines]) + "\n", encoding="utf-8")
    words = ["fit", tmp_path / "list.csv", *IMAGE, "--task", "multilabel", "--target", "first,odd", "--tune", "head"]
    status, result, err = call([*words, "--out", tmp_path / "run", *SETTINGS])
    assert status == 0 and "mean_auroc" in result["metrics"]["test"], err
    status, result, err = call(["evaluate", tmp_path / "run", tmp_path / "list.csv"])
    assert status == 0 and result["samples"] == 24, err


def test_epochs_that_change_nothing_are_told(pictures: Path, tmp_path: Path, call: Run, caplog):
    words = ["fit", pictures, *IMAGE, "--tune", "head", "--epochs", 3, "--out", tmp_path / "run", *SETTINGS]
    assert call(words)[0] == 0 and "optim.epochs: without effect in tune mode 'head'" in caplog.text


def test_a_score_over_training_samples_is_called_so(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    for split in ("train", "val"):
        shutil.copytree(pictures, tmp_path / split)
    status, result, err = call(["evaluate", trained, tmp_path])
    assert status == 0 and result["samples"] == 48 and "its split 'train' too, which flatters" in " ".join(err.split())
    status, result, err = call(["evaluate", trained, tmp_path, "--split", "val"])
    assert status == 0 and result["samples"] == 24 and "flatters" not in err


@pytest.mark.parametrize(("target", "task"), [("label", "classify"), ("income", "regress")])
def test_a_table_is_learned_and_predicted(table: Path, tmp_path: Path, call: Run, target: str, task: str):
    words = ["fit", table, "--modality", "tabular", "--encoder", "test", "--target", target, "--task", task]
    settings = words_of({"head.read": [-1], "run.precision": "float32"})
    status, result, err = call([*words, "--epochs", 2, "--out", tmp_path / "run", *settings])
    assert status == 0, err
    assert ("accuracy" if task == "classify" else "rmse") in result["metrics"]["test"]
    status, _, err = call(["predict", tmp_path / "run", table, "--out", tmp_path / "p.csv"])
    assert status == 0 and "not used" not in err, err
    assert len(pd.read_csv(tmp_path / "p.csv")) == 40
    status, result, err = call(["evaluate", tmp_path / "run", table])
    assert status == 0 and result["samples"] == 40, err


def test_controls_stand_beside_the_score(pictures: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, *IMAGE, "--tune", "head", "--out", tmp_path / "run", "--controls", *SETTINGS]
    status, result, err = call(words)  # a flag before key=value takes none of it
    assert status == 0, err
    assert set(result["controls"]) == {"constant", "baseline", "random", "identity"}
    saved = json.loads((tmp_path / "run" / "controls.json").read_text(encoding="utf-8"))
    assert saved == {"split": "test", "controls": result["controls"]}
    assert result["controls"]["constant"]["accuracy"] == pytest.approx(0.5)  # two classes of the same size


def test_embed_writes_one_vector_for_each_file(pictures: Path, tmp_path: Path, call: Run):
    words = ["embed", pictures, *IMAGE, "--pool", "both", "--out", tmp_path / "e.parquet", *SETTINGS]
    status, result, err = call(words)
    assert status == 0, err
    assert result == {"out": str(tmp_path / "e.parquet"), "rows": 24, "width": 64, "done_before": 0}
    found = pd.read_parquet(tmp_path / "e.parquet")
    assert found["id"].tolist()[:2] == ["a/0.png", "a/2.png"] and set(found["modality"]) == {"image"}
    assert np.stack(found["embedding"]).shape == (24, 64)
    metadata = pq.read_schema(tmp_path / "e.parquet").metadata
    assert metadata[b"metatransformer.encoder"] == b"test" and metadata[b"metatransformer.pooling"] == b"both"
    status, result, _ = call(words)
    assert status == 0 and result["done_before"] == 24


def test_embed_by_a_trained_model(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    status, result, err = call(["embed", pictures / "a", "--model", trained, "--out", tmp_path / "e.parquet"])
    assert status == 0 and (result["rows"], result["width"]) == (12, 32), err


def test_embed_continues_neither_with_another_model_nor_on_changed_files(
    pictures: Path, trained: Path, tmp_path: Path, call: Run
):
    folder, out = tmp_path / "a", tmp_path / "e.parquet"
    shutil.copytree(pictures / "a", folder)
    words = ["embed", folder, *IMAGE, "--out", out, *SETTINGS]
    assert call(words)[0] == 0
    # A head alone leaves the vectors as they are.
    assert call(["embed", folder, "--model", trained, "--out", out])[1]["done_before"] == 12
    ends = tmp_path / "ends"
    learn = ["fit", pictures, *IMAGE, "--tune", "ends", "--epochs", 1, "--out", ends, *SETTINGS]
    assert call(learn)[0] == 0
    for other in (["embed", folder, "--model", ends, "--out", out], [*words, "input.size=32"]):
        status, _, err = call(other)
        assert status == 2 and "another model or other settings" in " ".join(err.split()), err
    file = min(folder.iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    status, _, err = call(words)
    assert status == 2 and "this one has files or values that changed since" in " ".join(err.split()), err


def test_embed_says_when_a_front_end_was_never_trained(table: Path, tmp_path: Path, call: Run):
    words = ["embed", table, "--modality", "tabular", "--encoder", "test", "--out", tmp_path / "e.parquet"]
    status, result, err = call(words)
    assert status == 0 and result["rows"] == 40, err
    assert "warning: the tabular tokenizer was never trained on tabular data" in " ".join(err.split())


def test_vectors_of_a_table_do_not_see_its_target(table: Path, tmp_path: Path, call: Run):
    blind = pd.read_csv(table).drop(columns="label")
    blind.to_csv(tmp_path / "blind.csv", index=False)
    words = ["--modality", "tabular", "--encoder", "test", "--out"]
    vectors = []
    for number, data in enumerate(([tmp_path / "blind.csv"], [table, "--target", "label"], [table])):
        assert call(["embed", data[0], *words, tmp_path / f"{number}.parquet", *data[1:]])[0] == 0
        vectors.append(np.stack(pd.read_parquet(tmp_path / f"{number}.parquet")["embedding"]))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])
    with pytest.warns(UserWarning, match="never trained"):
        made = mt.Embedder("tabular", encoder="test", target="label", device="cpu").fit_transform(pd.read_csv(table))
    np.testing.assert_allclose(made, vectors[0], rtol=1e-5, atol=1e-6)


def test_an_interrupted_embed_continues(pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    embed, open_shards, calls = embed_module.embed, embed_module.open_shards, []
    monkeypatch.setattr(embed_module, "open_shards", partial(open_shards, shard_rows=7))

    def interrupted(model, records, *, console):
        calls.append(len(records))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(model, records, console=console)

    monkeypatch.setattr(embed_module, "embed", interrupted)
    words = ["embed", pictures, *IMAGE, "--out", tmp_path / "e.parquet", *SETTINGS]
    status, _, err = call(words)
    assert status == 130 and "the same command continues" in err and not (tmp_path / "e.parquet").exists()
    status, result, err = call(words)
    assert status == 0 and result["done_before"] == 14 and "14 of 24 rows are done already" in err
    assert calls == [7, 7, 7, 7, 3]
    assert pd.read_parquet(tmp_path / "e.parquet")["id"].is_unique


def test_check_lists_every_bad_file_and_goes_on(pictures: Path, tmp_path: Path, call: Run):
    status, result, err = call(["check", pictures, "--modality", "image", *SETTINGS])
    assert (status, result["samples"], result["bad"]) == (0, 24, 0), err
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((pictures / "a" / "2.png").read_bytes()[: 99 if name != "b/2.png" else 9999])
    status, result, err = call(["check", tmp_path, "--modality", "image"])
    assert (status, result["samples"], result["bad"]) == (2, 3, 2)
    assert [problem["key"] for problem in result["problems"]] == ["a/1.png", "b/3.png"]
    assert err.count("bad: ") == 2 and "3 samples read, 2 bad" in err


def test_modalities_are_listed_and_described(call: Run):
    status, result, err = call(["modalities"])
    assert status == 0 and result["modalities"] == modality_names() and "image" in err
    status, _, err = call(["modalities", "image"])
    assert status == 0 and "input.size" in err


def test_weights_say_where_they_were_looked_for(call: Run):
    status, result, err = call(["weights"])
    assert status == 0 and {"meta-b16", "focus-s14"} <= result.keys(), err
    assert not any(place["found"] for place in result["meta-b16"])
    status, result, _ = call(["weights", "test"])
    assert status == 0 and result["test"][0]["found"]


def test_the_installed_command_ends_with_one_json_line(table: Path):
    done = run_alone(["-m", "metatransformer", "check", table, "--modality", "tabular", "--target", "label"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"samples": 40, "bad": 0, "problems": []}
    assert "40 samples read, 0 bad" in done.stderr


# --- what the user must change ----------------------------------------------------------------------------------------


def fit_words(data: Path, out: Path, *more: object) -> list[object]:
    return ["fit", data, *IMAGE, "--tune", "head", "--out", out, *SETTINGS, *more]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--encoder", "focus-s15"], r"'focus-s15'.*Did you mean 'focus-s14'\?"),
        (["--modality", "images"], r"modality: must be a known one; found 'images'. Did you mean 'image'\?"),
        (["optim.lrr=1e-3"], r"recipe key 'optim.lrr': must be a setting.*Did you mean 'optim.lr'\?"),
        (["input.sise=3"], r"Did you mean 'input.size'\?"),
        (["--task", "classfy"], r"task.name: must be a known task; found classfy. Did you mean 'classify'\?"),
        (["task.metric=acuracy"], r"task.metric: .* Did you mean 'accuracy'\?"),
        (["--tune", "frozen"], "recipe key 'tune': must be head, ends, norm, lora.* or all; found 'frozen'"),
        (["head.hidden=5"], "head.hidden / head.dropout: must be 0 in tune mode 'head'"),
        (["head.read=[99]"], r"head.read: must lie in -(\d)..\1 for this trunk"),
        (["run.device=tpu9"], "run.device: must be auto, cpu"),
        (["--recipe", "nowhere.yaml"], "recipe nowhere.yaml: must be a YAML or Python file; found no such file"),
        (["data.val_fraction=1.5"], r"data.val_fraction': must lie in \[0, 1\)"),
    ],
)
def test_a_wrong_argument_is_one_message(pictures: Path, tmp_path: Path, call: Run, more: list, message: str):
    status, result, err = call(fit_words(pictures, tmp_path / "run", *more))
    assert (status, result) == (2, {})
    assert_one_message(err, message)


def assert_one_message(err: str, pattern: str) -> None:
    """Checks that the last line, and no other, is an error that matches; notes may stand before it."""
    lines = err.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in err, err
    assert re.search(pattern, next(line for line in lines if line.startswith("error: "))), err


def test_an_empty_folder(tmp_path: Path, call: Run):
    (tmp_path / "data").mkdir()
    status, _, err = call(fit_words(tmp_path / "data", tmp_path / "run"))
    assert status == 2
    assert_one_message(err, "data: must hold files that end in .*; found no file")


def test_a_missing_folder(tmp_path: Path, call: Run):
    status, _, err = call(fit_words(tmp_path / "data", tmp_path / "run"))
    assert status == 2
    assert_one_message(err, "data: must exist; found nothing")


def test_a_table_without_its_target(table: Path, tmp_path: Path, call: Run):
    words = ["fit", table, "--modality", "tabular", "--encoder", "test", "--out", tmp_path / "run"]
    status, _, err = call(words)
    assert status == 2
    assert_one_message(err, "--target: must name the column to learn")
    status, _, err = call([*words, "--target", "lable"])
    assert status == 2
    assert_one_message(err, "must have a column 'lable'.*Did you mean 'label'")


def test_a_class_that_stands_only_in_test(pictures: Path, tmp_path: Path, call: Run):
    rows = [(pictures / name / f"{2 * i + (name == 'b')}.png", name, "train") for name in "ab" for i in range(8)]
    rows.append((pictures / "a" / "16.png", "c", "test"))
    manifest = tmp_path / "m.csv"
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(manifest, index=False)
    status, _, err = call(fit_words(manifest, tmp_path / "run"))
    assert status == 2
    assert_one_message(err, "the test split: must hold classes that train has too; found 'c'")


def test_a_corrupt_picture_stops_fit_before_training(pictures: Path, tmp_path: Path, call: Run):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for source in sorted((pictures / name).iterdir())[:5]:
            (tmp_path / "data" / name / source.name).write_bytes(source.read_bytes())
    bad = sorted((tmp_path / "data" / "b").iterdir())[2]
    bad.write_bytes(bad.read_bytes()[:77])
    status, _, err = call(fit_words(tmp_path / "data", tmp_path / "run"))
    assert status == 2
    assert_one_message(err, bad.name)
    assert not (tmp_path / "run").exists()  # once the file is repaired, the same command works
    assert call(fit_words(pictures, tmp_path / "run"))[0] == 0
    before = (tmp_path / "run" / "run.json").read_bytes()
    status, _, err = call(fit_words(tmp_path / "data", tmp_path / "run", "--overwrite"))
    assert status == 2 and (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_link_to_nothing_is_named(pictures: Path, tmp_path: Path, call: Run):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for source in sorted((pictures / name).iterdir())[:5]:
            (tmp_path / "data" / name / source.name).symlink_to(source)
    (tmp_path / "data" / "a" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    status, _, err = call(fit_words(tmp_path / "data", tmp_path / "run"))
    assert status == 2 and not (tmp_path / "run").exists()
    assert_one_message(err, "dead.png: must be a file; found 'No such file")


def test_a_full_disk_while_logging(pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    # Writing to this device fails as writing to a full disk does.
    monkeypatch.setattr(RunFolder, "log_file", property(lambda _: Path("/dev/full")))
    status, result, err = call(fit_words(pictures, tmp_path / "run"))
    assert (status, result) == (2, {})
    assert_one_message(err, "/dev/full: must have room on its disk")
    monkeypatch.undo()
    (tmp_path / "run" / "recipe.yaml").unlink()  # where the disk was full even earlier
    status, _, err = call(fit_words(pictures, tmp_path / "run"))
    assert status == 0 and "continuing the unfinished run" in err and (tmp_path / "run" / "recipe.yaml").is_file()


def test_a_run_that_was_interrupted_has_no_model_yet(pictures: Path, tmp_path: Path, call: Run):
    (tmp_path / "run.json").write_text('{"status": "running"}', encoding="utf-8")
    status, _, err = call(["predict", tmp_path, pictures, "--out", tmp_path / "p.csv"])
    assert status == 2
    assert_one_message(err, "must be a finished run; .* Continue it with the same 'fit' command")


def test_a_bad_picture_leaves_no_embeddings_behind(pictures: Path, tmp_path: Path, call: Run):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.png").write_bytes((pictures / "a" / "2.png").read_bytes()[:77])
    status, _, err = call(["embed", tmp_path / "data", *IMAGE, "--out", tmp_path / "e.parquet", *SETTINGS])
    assert status == 2 and [path.name for path in tmp_path.iterdir()] == ["data"]
    assert_one_message(err, "bad.png: must be a whole picture")


def test_a_run_folder_with_foreign_files_is_never_touched(pictures: Path, tmp_path: Path, call: Run):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine", encoding="utf-8")
    for more in ([], ["--overwrite"]):
        status, _, err = call(fit_words(pictures, tmp_path / "run", *more))
        assert status == 2
        assert_one_message(err, "must be a new or empty folder; found other files in it")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_finished_run_is_replaced_only_on_demand(pictures: Path, tmp_path: Path, call: Run):
    assert call(fit_words(pictures, tmp_path / "run"))[0] == 0
    before = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    status, _, err = call(fit_words(pictures, tmp_path / "run"))
    assert status == 2 and (tmp_path / "run" / "run.json").stat().st_mtime_ns == before
    assert_one_message(err, "must not hold a finished run; .*add --overwrite to replace it")
    assert call(fit_words(pictures, tmp_path / "run", "--overwrite", "--seed", 1))[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["seed"] == 1


def test_an_unfinished_run_continues_only_with_its_own_recipe(pictures: Path, tmp_path: Path, call: Run):
    assert call(fit_words(pictures, tmp_path / "run"))[0] == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "run" / "run.json").write_text(json.dumps(about | {"status": "running"}), encoding="utf-8")
    status, _, err = call(fit_words(pictures, tmp_path / "run", "optim.l2=[0.1]"))
    assert status == 2
    assert_one_message(err, "must continue with the recipe, data and weights that it was started with; found another")
    status, _, err = call(fit_words(pictures, tmp_path / "run"))
    assert status == 0 and "continuing the unfinished run" in err
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["step"] for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "RUN", "PICTURE", "--out", "p.xlsx"], "p.xlsx: must end in .csv"),
        (["predict", "RUN", "PICTURE", "--out", "RUN/run.json/p.csv"], "must lie in a folder that can be written"),
        (["predict", "NOWHERE", "PICTURE", "--out", "p.csv"], "must be a saved model"),
        (["predict", "RUN", "NOWHERE", "--out", "p.csv"], "nowhere: must exist"),
        (["predict", "RUN", "PICTURE", "--out", "p.csv", "--encoder", "random:1:test"], "fingerprint"),
        (["embed", "PICTURE", "--out", "e.parquet"], "embed: must get either --modality or --model"),
        (["embed", "PICTURE", *IMAGE, "--pool", "max", "--out", "e.parquet"], "pool: must be one of summary, mean"),
        (["embed", "PICTURE", "--model", "RUN", "--out", "e.parquet", "input.size=3"], "must get no recipe overrides"),
        (["weights", "--fetch"], "weights --fetch: must name an encoder"),
        (["weights", "focus-s15"], r"Did you mean 'focus-s14'\?"),
        (["modalities", "imagge"], r"Did you mean 'image'\?"),
        (["evaluate", "RUN", "PICTURE"], "must bring a label for every item"),
    ],
)
def test_other_commands_say_what_is_wrong(
    pictures: Path, trained: Path, tmp_path: Path, call: Run, words: list, message: str, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = {"RUN": trained, "PICTURE": pictures / "a" / "2.png", "NOWHERE": tmp_path / "nowhere"}
    status, result, err = call([str(word).replace("RUN", str(trained)) for word in (names.get(w, w) for w in words)])
    assert (status, result) == (2, {})
    assert_one_message(err, message)
    assert list(tmp_path.iterdir()) == []


def test_the_default_encoder_offline_names_the_ways_out(pictures: Path, tmp_path: Path, call: Run):
    status, _, err = call(["fit", pictures, "--modality", "image", "--out", tmp_path / "run"])
    assert status == 2
    assert_one_message(err, "encoder 'meta-b16': must be found in one place; .*--encoder focus-s14")
    assert not (tmp_path / "run").exists()


def test_a_misspelt_option_shows_the_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["fit", "data", "--modalty", "image"], capsys)
    assert caught.value.code == 2
    assert "usage: metatransformer fit" in capsys.readouterr().err
