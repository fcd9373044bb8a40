"""The run folder: what was asked, on what, with what, and how far it got.

``recipe.yaml`` (resolved), ``run.json`` (versions, seed, data and weight hashes, status), ``split.csv`` (what was
learned from, what was kept apart), ``log.jsonl``, ``tensorboard/``, ``checkpoints/``, ``model/``, ``metrics.json``,
``predictions.parquet``, ``report.html``.
"""

import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import SPLITS
from metatransformer.data.write import append_bytes, atomic_file, write_json
from metatransformer.fit.board import add_scalars
from metatransformer.fit.trackers import Tracker, flat, open_trackers
from metatransformer.infer.loader import Place
from metatransformer.machine.about import about_machine
from metatransformer.recipe import LogOptions, Recipe, to_dict, to_yaml

# What a run leaves behind beside run.json, as patterns below its folder; {} is the suffix of a task among several.
WRITTEN = (
    *("recipe.yaml", "split.csv", "log.jsonl", "metrics.json", "controls.json", ".*.tmp.*"),
    *("tensorboard/events.out.tfevents.*", "checkpoints/*.pt", "checkpoints/*.f16", "checkpoints/.*.tmp.*"),
    *("checkpoints/step-*/*.distcp", "checkpoints/step-*/.metadata*"),
    *("model/model.json", "model/*.safetensors", "model/*/*.safetensors", "model/adapters/adapter_config.json"),
    *("model/.*.tmp.*", "model/*/.*.tmp.*"),
)
WRITTEN_OF_TASK = (
    *("predictions{}.parquet", "report{}.html"),
    *(f"boxes{{}}/{split}.json" for split in SPLITS),
    *(f"pictures{{}}/{split}/{name}" for split in SPLITS for name in ("*.png", "*.npy", "*.json", ".*.tmp.*")),
)


class RunFolder:
    """One run on disk. ``place`` other than the first process writes nothing."""

    def __init__(self, path: Path, *, place: Place) -> None:
        self.path = path
        self.writes = place.rank == 0

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run continues from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def log_file(self) -> Path:
        """One JSON object for each epoch or head."""
        return self.path / "log.jsonl"

    def check(self, recipe: Recipe, *, identity: Mapping[str, str], overwrite: bool) -> bool:
        """Returns whether there is an unfinished run to continue; changes nothing.

        Raises:
            UsageError: the folder holds a finished run, a run of another recipe or data, or foreign files, or
                may not be written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path}", must="be a folder", found="a file")
        nearest = next(p for p in (self.path.absolute(), *self.path.absolute().parents) if p.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            found = "a read-only one" if nearest.is_dir() else "a file"
            raise UsageError(
                f"--out {self.path}", must="lie in a folder that can be written", found=f"{found}: {nearest}"
            )
        # A run that was killed while its first file was written leaves a temporary one.
        if not self.path.exists() or all(file.match(".*.tmp.*") for file in self.path.iterdir()):
            return False
        if not (overwrite and (self.path / "run.json").is_file()):
            self._require_same(recipe, identity)
            return True
        return False

    def open(self, recipe: Recipe, *, identity: Mapping[str, str], source: str, overwrite: bool) -> bool:
        """Creates the folder, or takes up an unfinished run; returns whether there is one to continue.

        ``source`` is where the data lies, "" where that is not known.

        Raises:
            UsageError: what ``check`` refuses.
            DataError: the folder cannot be made.
        """
        if self.check(recipe, identity=identity, overwrite=overwrite):
            self._write_recipe(recipe)  # a full disk may have stopped the run before it was there
            return True
        if self.writes and (self.path / "run.json").is_file():
            self._clear()
        self._create(recipe, identity, source)
        return False

    def _clear(self) -> None:
        """Removes what a run wrote but ``run.json``, which is replaced; whatever else lies in the folder stays."""
        try:
            tasks = self.about()["recipe"].get("tasks", {})
        except (DataError, KeyError, TypeError, AttributeError):  # damaged: of one task, as most are
            tasks = {}
        suffixes = ["", *(f"-{name}" for name in tasks)]
        patterns = [*WRITTEN, *(pattern.format(suffix) for pattern in WRITTEN_OF_TASK for suffix in suffixes)]
        found = [path for pattern in patterns for path in self.path.glob(pattern) if not path.is_dir()]
        for path in found:
            path.unlink(missing_ok=True)
        folders = {folder for path in found for folder in path.relative_to(self.path).parents} - {Path()}
        for folder in sorted(folders, reverse=True):  # inner ones first
            if not any((self.path / folder).iterdir()):
                (self.path / folder).rmdir()

    def _create(self, recipe: Recipe, identity: Mapping[str, str], source: str) -> None:
        if not self.writes:
            return
        about = {
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": about_machine(),
            "seed": recipe.run.seed,
            "recipe": to_dict(recipe),
            "identity": dict(identity),
            "data": source,
        }
        # First: a run that is killed from here on is known as one and can be continued or overwritten.
        write_json(self.path / "run.json", about)
        self._write_recipe(recipe)

    def _write_recipe(self, recipe: Recipe) -> None:
        with atomic_file(self.path / "recipe.yaml") as temporary:
            temporary.write_text(to_yaml(recipe), encoding="utf-8")

    def is_done(self, recipe: Recipe, *, identity: Mapping[str, str]) -> bool:
        """Returns whether it holds a finished run of this recipe and data, not an unfinished one.

        Raises:
            UsageError: it holds another one.
        """
        self._require_alike(recipe, identity)
        return self.about()["status"] == "done"

    def metrics(self) -> dict[str, Any]:
        """Returns what ``finish`` wrote."""
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    def _require_same(self, recipe: Recipe, identity: Mapping[str, str]) -> None:
        where = f"--out {self.path}"
        if not (self.path / "run.json").is_file():
            raise UsageError(where, must="be a new or empty folder", found="other files in it", do="Name another.")
        about = self.about()
        if about["status"] == "done":
            raise UsageError(
                where,
                must="not hold a finished run",
                found=f"one of {about['started']}",
                do="Name another folder, or add --overwrite to replace it.",
            )
        self._require_alike(recipe, identity)

    def _require_alike(self, recipe: Recipe, identity: Mapping[str, str]) -> None:
        about = self.about()
        changed = [key for key, value in identity.items() if about["identity"].get(key) != value]
        if about["recipe"] | {"log": {}} != to_dict(recipe) | {"log": {}}:  # who is told changes no result
            changed.append("recipe")
        if changed:
            raise UsageError(
                f"--out {self.path}",
                must="continue with the recipe, data and weights that it was started with",
                found=f"another {' and '.join(changed)}",
                do="Name another folder, or add --overwrite to start again.",
            )

    def about(self) -> dict[str, Any]:
        """Returns the content of ``run.json``.

        Raises:
            DataError: it is damaged.
        """
        path = self.path / "run.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise DataError(
                path, must="be the record of a run", found=f"'{error}'", do="Start again with --overwrite."
            ) from error

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Writes ``metrics.json``, marks the run as done and removes the checkpoint, which nothing needs any more."""
        if not self.writes:
            return
        write_json(self.path / "metrics.json", dict(metrics))
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.path / "run.json", self.about() | {"status": "done", "ended": ended})
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        scores = _numbers(flat(metrics.get("metrics", {}), "/"))
        for tracker in self._trackers:
            tracker.end(scores)

    def log(self, line: Mapping[str, Any]) -> None:
        """Appends one line to ``log.jsonl`` and tells its numbers to the trackers of ``log.to`` at ``line["step"]``.

        Raises:
            DataError: the disk is full.
        """
        if not self.writes:
            return
        append_bytes(self.log_file, (json.dumps(line) + "\n").encode())
        self._show(line)
        for tracker in self._trackers:
            tracker.add(_numbers(line), step=line["step"])

    @cached_property
    def _trackers(self) -> list[Tracker]:
        return open_trackers(self.path, self.about())

    @cached_property
    def _on_board(self) -> bool:
        return "tensorboard" in self.about().get("recipe", {}).get("log", {}).get("to", LogOptions.to)

    def _show(self, line: Mapping[str, Any]) -> None:
        if self._on_board:
            add_scalars(self.path / "tensorboard", _numbers(line), step=line["step"])

    def rewind_log(self, lines: int) -> None:
        """Drops what was logged after the checkpoint that a run continues from."""
        path = self.log_file
        if self.writes and path.is_file():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            for line in kept:
                self._show(json.loads(line))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Writes the training state; the one before stays until the new one is complete."""
        if self.writes:
            self.checkpoint.parent.mkdir(exist_ok=True)
            with atomic_file(self.checkpoint) as temporary:
                torch.save(dict(state), temporary)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Returns the last training state, None when the run was killed before the first.

        Raises:
            DataError: the file is damaged.
        """
        if not self.checkpoint.is_file():
            return None
        try:
            return torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, OSError) as error:
            raise DataError(
                self.checkpoint,
                must="be a checkpoint of this run",
                found=str(error).splitlines()[0],
                do="Start again with --overwrite.",
            ) from error


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if isinstance(value, float)}


def source_of(folder: Path) -> str:
    """Returns where the data of a run lies, of its folder or its model's; "" where that is not known.

    Raises:
        DataError: the record of the run is damaged.
    """
    runs = [RunFolder(place, place=Place()) for place in (folder, folder.parent) if (place / "run.json").is_file()]
    return str(runs[0].about().get("data", "")) if runs else ""
