"""The run folder of what learns from pairs: ``run.json`` (kind, settings, data), ``log.jsonl``, ``tensorboard/``,
``checkpoints/``, ``metrics.json``, ``report.html``, and what it made.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metatransformer.core.errors import UsageError
from metatransformer.data.write import write_json
from metatransformer.fit.run import RunFolder
from metatransformer.fit.train import wait_for_all
from metatransformer.infer.loader import Place
from metatransformer.machine.about import about_machine
from metatransformer.pairs.scans import FOLDER

WRITTEN = (
    *("log.jsonl", "metrics.json", "report.html", "*.safetensors", "ledger.json", ".*.tmp.*"),
    *("tensorboard/events.out.tfevents.*", "checkpoints/*.pt", "checkpoints/.*.tmp.*"),
    *("checkpoints/step-*/*.distcp", "checkpoints/step-*/.metadata*"),
)


class PairsRun(RunFolder):
    """One run of ``kind`` "pretrain" or "align" on disk."""

    def __init__(self, path: Path, *, kind: str, place: Place) -> None:
        super().__init__(path, place=place)
        self.kind, self.place = kind, place

    def start(self, settings: Mapping[str, Any], *, identity: str, source: str, overwrite: bool) -> bool:
        """Creates the folder, or takes up an unfinished run; returns whether there is one to continue.

        Raises:
            UsageError: the folder holds other files, a finished run, or one of other settings or data.
            DataError: the folder cannot be made.
        """
        about = self.claim(overwrite=overwrite)
        continues = about is not None
        if about is not None:
            self._require_unchanged(about, settings, identity)
        wait_for_all(self.place)  # nobody writes before everybody has looked
        if self.writes and not continues:
            for pattern in WRITTEN:
                for path in self.path.glob(pattern):
                    path.unlink()
            started = datetime.now(UTC).isoformat(timespec="seconds")
            about = {"status": "running", "kind": self.kind, "started": started, "machine": about_machine()}
            about |= {"settings": dict(settings), "identity": identity, "data": source}
            write_json(self.path / "run.json", about)
        wait_for_all(self.place)
        return continues

    def claim(self, *, overwrite: bool) -> dict[str, Any] | None:
        """Returns what an unfinished run says of itself, None where there is none to continue; changes nothing.

        Raises:
            UsageError: the folder holds other files, a finished run, or one of another command.
        """
        files = [file for file in self.path.iterdir() if file.name != FOLDER] if self.path.is_dir() else []
        if all(file.match(".*.tmp.*") for file in files):
            return None
        where, do = f"--out {self.path}", "Name another folder, or add --overwrite to replace it."
        if not (self.path / "run.json").is_file():
            raise UsageError(where, must="be a new or empty folder", found="other files in it", do="Name another.")
        about = self.about()
        if about.get("kind") != self.kind:
            found = "a run of another command"
            raise UsageError(where, must=f"be new, or hold a run of '{self.kind}'", found=found, do="Name another.")
        if overwrite:
            return None
        if about["status"] == "done":
            raise UsageError(where, must="not hold a finished run", found=f"one of {about['started']}", do=do)
        return about

    def _require_unchanged(self, about: Mapping[str, Any], settings: Mapping[str, Any], identity: str) -> None:
        told = {name: tuple(v) if isinstance(v, list) else v for name, v in about["settings"].items()}
        changed = [name for name, value in settings.items() if told.get(name) != value]
        changed += ["the pairs"] if about["identity"] != identity else []
        if changed:
            where, do = f"--out {self.path}", "Name another folder, or add --overwrite to replace it."
            must = "continue with the settings and pairs that it was started with"
            raise UsageError(where, must=must, found=f"another {', '.join(changed)}", do=do)
