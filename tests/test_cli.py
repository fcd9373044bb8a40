"""Each command as a user runs it, and what each mistake says: one message, status 2, nothing half-done."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from common import CLI_IMAGE as IMAGE
from common import CLI_SETTINGS as SETTINGS
from common import Run, run_alone, words_of

from metatransformer.modalities import modality_names


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


def test_evaluate_scores_what_the_run_kept_apart(pictures: Path, trained: Path, call: Run):
    table = pd.read_csv(trained / "split.csv")
    counts = table["split"].value_counts()
    assert len(table) == 24 and set(counts.index) == {"train", "val", "test"}
    told = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]
    for words in (["evaluate", trained], ["evaluate", trained, pictures], ["evaluate", trained / "model", pictures]):
        status, result, err = call(words)
        assert status == 0, err
        assert result["samples"] == counts["test"] and result["split"] == "test"
        assert result["metrics"] == pytest.approx(told)
        assert "split as the run was, by key (split.csv): train" in " ".join(err.split())
    assert f"the data of the run: {pictures}" in " ".join(call(["evaluate", trained])[2].split())


@pytest.mark.parametrize(("split", "words"), [("train", "score flatters"), ("val", "again on train and val")])
def test_a_split_that_was_learned_from_is_called_so(trained: Path, call: Run, split: str, words: str):
    status, result, err = call(["evaluate", trained, "--split", split])
    counts = pd.read_csv(trained / "split.csv")["split"].value_counts()
    assert status == 0 and result["samples"] == counts[split] and words in " ".join(err.split()), err


def test_samples_that_a_run_never_saw_are_told_apart(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    shutil.copytree(pictures, tmp_path / "more")
    shutil.copy(pictures / "a" / "0.png", tmp_path / "more" / "a" / "100.png")
    (tmp_path / "more" / "a" / "0.png").write_bytes((pictures / "a" / "2.png").read_bytes())  # another one of that key
    status, result, err = call(["evaluate", trained, tmp_path / "more", "--split", "new"])
    same = (pictures / "a" / "0.png").stat().st_size == (pictures / "a" / "2.png").stat().st_size
    assert status == 0 and result["samples"] == (1 if same else 2), err
    shutil.copytree(pictures / "a", tmp_path / "other" / "a" / "deep")
    shutil.copytree(pictures / "b", tmp_path / "other" / "b" / "deep")
    status, result, err = call(["evaluate", trained, tmp_path / "other"])
    assert status == 0 and result["samples"] == 24 and result["split"] == "all", err
    assert "none of these samples is one of the run's: all are scored" in err
    status, result, err = call(["evaluate", trained / "model", tmp_path / "other", "--split", "dev"])
    assert status == 2 and "--split: must be left out for data without splits" in err


def test_a_run_whose_data_is_gone_asks_for_it(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    shutil.copytree(trained, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "run" / "run.json").write_text(json.dumps(about | {"data": str(tmp_path / "gone")}), encoding="utf-8")
    status, _, err = call(["evaluate", tmp_path / "run"])
    assert status == 2 and "Use 'evaluate RUN DATA'" in " ".join(err.split())
    (tmp_path / "run" / "split.csv").write_text("key,split,content\na,x,1\n", encoding="utf-8")
    status, _, err = call(["evaluate", tmp_path / "run", pictures])
    assert status == 2 and "split.csv: must hold key, split and content; found 'the splits ['x']'" in err


def test_rows_of_another_table_are_not_those_of_the_run(table: Path, tmp_path: Path, call: Run):
    words = ["fit", table, "--modality", "tabular", "--encoder", "test", "--target", "label", "--tune", "head"]
    assert call([*words, "--out", tmp_path / "run", *words_of({"head.read": [-1], "run.precision": "float32"})])[0] == 0
    status, result, err = call(["evaluate", tmp_path / "run"])
    counts = pd.read_csv(tmp_path / "run" / "split.csv")["split"].value_counts()
    assert status == 0 and result["samples"] == counts["test"] and result["split"] == "test", err
    frame = pd.read_csv(table)
    frame.iloc[::-1].to_csv(tmp_path / "other.csv", index=False)  # each row under another key
    status, result, err = call(["evaluate", tmp_path / "run", tmp_path / "other.csv"])
    assert status == 0 and result["samples"] == len(frame), err


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
    assert status == 0 and result["samples"] == 4 and result["split"] == "test", err
    status, result, err = call(["evaluate", tmp_path / "run", tmp_path / "list.csv", "--split", "all"])
    assert status == 0 and result["samples"] == 24 and "score flatters" in err


def test_settings_without_an_effect_are_refused(pictures: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, *IMAGE, "--tune", "head", "--out", tmp_path / "run", *SETTINGS]
    status, _, err = call([*words, "--epochs", 3])
    assert status == 2 and "optim.epochs: must be left alone in tune mode 'head'" in " ".join(err.split())
    for split in ("train", "val"):
        shutil.copytree(pictures, tmp_path / "data" / split)
    words[1] = tmp_path / "data"
    for setting, why in (
        ("data.test_fraction=0.3", "no test is cut from"),
        ("data.val_fraction=0.3", "its split 'val'"),
    ):
        status, _, err = call([*words, setting])
        assert status == 2 and f"{setting[:-4]}: must be left alone here; found a setting" in err and why in err, err
    assert not (tmp_path / "run").exists()


def test_data_without_a_test_split_is_scored_on_val(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    for split in ("train", "val"):
        shutil.copytree(pictures, tmp_path / split)
    status, result, err = call(["evaluate", trained, tmp_path])
    assert status == 0 and result["samples"] == 24 and result["split"] == "val", err
    status, result, err = call(["evaluate", trained, tmp_path, "--split", "train"])
    assert status == 0 and result["samples"] == 24 and "flatters" in err


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
    status, result, err = call(["evaluate", tmp_path / "run", table, "--split", "all"])
    assert status == 0 and result["samples"] == 40, err


def test_controls_stand_beside_the_score(pictures: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, *IMAGE, "--tune", "head", "--out", tmp_path / "run", "--controls", *SETTINGS]
    status, result, err = call(words)  # a flag before key=value takes none of it
    assert status == 0, err
    assert set(result["controls"]) == {"constant", "baseline", "random", "identity"}
    saved = json.loads((tmp_path / "run" / "controls.json").read_text(encoding="utf-8"))
    assert saved == {"split": "test", "controls": result["controls"]}
    assert result["controls"]["constant"]["accuracy"] == pytest.approx(0.5)  # two classes of the same size


def test_check_lists_every_bad_file_and_goes_on(pictures: Path, tmp_path: Path, call: Run):
    status, result, err = call(["check", pictures, "--modality", "image", *SETTINGS])
    assert (status, result["samples"], result["bad"]) == (0, 24, 0), err
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((pictures / "a" / "2.png").read_bytes()[: 99 if name != "b/2.png" else 9999])
    status, result, err = call(["check", tmp_path, "--modality", "image"])
    assert (status, result["samples"], result["bad"]) == (2, 3, 3)
    assert [problem["key"] for problem in result["problems"]] == ["a/1.png", "b/3.png", "the data as a whole"]
    assert err.count("bad: ") == 3 and "3 samples read, 3 bad" in err and "must be enough to cut a" in err


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
