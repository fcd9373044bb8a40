"""The command line on bad input: one message, status 2, nothing half-written."""

import json
from pathlib import Path

import pandas as pd
import pytest
from common import CLI_IMAGE as IMAGE
from common import CLI_SETTINGS as SETTINGS
from common import Run, assert_one_message, run, tiny_recipe

from metatransformer.fit.run import RunFolder
from metatransformer.infer.loader import Place
from metatransformer.modalities import get_modality


def fit_words(data: Path, out: Path, *more: object) -> list[object]:
    return ["fit", data, *IMAGE, "--tune", "head", "--out", out, *SETTINGS, *more]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--encoder", "focus-s15"], r"'focus-s15'.*Did you mean 'focus-s14'\?"),
        (["--modality", "images"], r"modality: must be a known one; found 'images'. Did you mean 'image'\?"),
        (["optim.lrr=1e-3"], r"recipe key 'optim.lrr': must be a setting.*Did you mean 'optim.lr'\?"),
        (["input.sise=3"], r"Did you mean 'input.size'\?"),
        (["--task", "classfy"], r"task: must be a known one; found 'classfy'. Did you mean 'classify'\?"),
        (["task.metric=acuracy"], r"task.metric: .* Did you mean 'accuracy'\?"),
        (["--tune", "frozen"], "recipe key 'tune': must be head, tokens, ends, norm, lora.* or all; found 'frozen'"),
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
        (["embed", "PICTURE", "--out", "e.parquet"], "embed: must get either --modality, --inputs or --model"),
        (["embed", "PICTURE", *IMAGE, "--pool", "median", "--out", "e.parquet"], "pool: must be one of summary, mean"),
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


def test_overwriting_leaves_what_no_run_wrote(pictures: Path, tmp_path: Path, call: Run):
    run = tmp_path / "run"
    assert call(fit_words(pictures, run))[0] == 0
    fresh = written(run)
    (run / "pictures" / "test").mkdir(parents=True)
    for name in ("tensorboard/notes.txt", "model/old/mine.txt", "report-for-anna.html", "predictions_old.parquet"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine", encoding="utf-8")
    leftovers = ("pictures/test/scene.png", "model/heads/other.safetensors", ".last-1a2b3c4d.tmp.pt", "controls.json")
    for name in leftovers:
        (run / name).write_text("of the run before", encoding="utf-8")
    mine = written(run) - fresh - set(leftovers)
    assert len(mine) == 4
    status, _, err = call(fit_words(pictures, run, "--overwrite", "--seed", 1))
    assert status == 0, err
    assert written(run) == fresh | mine and not (run / "pictures").exists()
    (run / "run.json").write_text("{", encoding="utf-8")
    assert call(fit_words(pictures, run, "--overwrite"))[0] == 0 and written(run) == fresh | mine


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_overwriting_clears_what_every_task_left(tmp_path: Path):
    """Reports of a run of several tasks are called by these."""
    text = '{"status": "done", "recipe": {"tasks": {"days": {}, "outcome": {}}}}'
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    for name in ("report-days.html", "predictions-outcome.parquet", "report-weeks.html"):
        (tmp_path / name).touch()
    recipe = tiny_recipe(get_modality("image"))
    assert not RunFolder(tmp_path, place=Place()).open(recipe, identity={}, source="", overwrite=True)
    assert written(tmp_path) == {"run.json", "recipe.yaml", "report-weeks.html"}
