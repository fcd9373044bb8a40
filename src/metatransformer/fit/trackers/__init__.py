"""Who is told of a run beside ``log.jsonl``: TensorBoard, and the trackers that ``log.to`` names (extras of their own).

Nothing leaves this machine unless the user's environment names a place: MLflow writes ``mlruns/`` beside the run
folder (or to ``MLFLOW_TRACKING_URI``), W&B ``wandb/`` beside it, offline (or as ``WANDB_MODE`` says), trackio its own
folder. What these packages would tell their makers is switched off. An unfinished run that goes on is the same run
there, too.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metatransformer.core.errors import MissingDependencyError, UsageError
from metatransformer.recipe import LogOptions

ADAPTERS = {"mlflow": "mlflow", "trackio": "trackio", "wandb": "wandb"}  # the package that each adapter imports


@dataclass(frozen=True)
class Told:
    """What a tracker is told of a run: its folder, an id that no other run has, and its settings by dotted key."""

    folder: Path
    id: str
    project: str
    settings: Mapping[str, Any]


@runtime_checkable
class Tracker(Protocol):
    """One tracker of one run."""

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Tells values of one step."""
        ...

    def end(self, scores: Mapping[str, float]) -> None:
        """Tells the last scores, and that the run is done."""
        ...


def require_trackers(log: LogOptions, out: Path | None) -> None:
    """Says before any work whether what is asked for can be.

    Raises:
        UsageError: there is no run folder, and so nothing to tell.
        MissingDependencyError: a tracker's package is not installed.
    """
    if out is None and log != LogOptions():
        found = ", ".join(log.to) or "nothing"
        raise UsageError("recipe key 'log.to'", must="be left out where no run folder is written", found=found)
    for name in log.to:
        if name in ADAPTERS and importlib.util.find_spec(ADAPTERS[name]) is None:
            raise MissingDependencyError(ADAPTERS[name], extra=name, purpose=f"recipe key 'log.to', {name}")


def open_trackers(folder: Path, about: Mapping[str, Any]) -> list[Tracker]:
    """Returns the trackers that a run's record (``run.json``) names, but for TensorBoard, which has no state."""
    recipe = about.get("recipe", {})
    log = recipe.get("log", {})
    names = [name for name in log.get("to", LogOptions.to) if name in ADAPTERS]
    if not names:
        return []
    id = hashlib.sha256(f"{folder.absolute()} {about['started']}".encode()).hexdigest()[:16]
    told = Told(folder, f"{folder.absolute().name}-{id}", log.get("project", LogOptions.project), flat(recipe, "."))
    return [importlib.import_module(f"{__name__}.to_{name}").Run(told) for name in names]


def flat(tree: Mapping[str, Any], between: str) -> dict[str, Any]:
    """Returns a tree's leaves by their path."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = flat(value, between) if isinstance(value, Mapping) else {"": value}
        found |= {f"{name}{between}{key}" if key else name: leaf for key, leaf in inner.items()}
    return found
