"""What ``align`` wrote down, read again: a ledger entry, the maps of both sides, and what makes their features.

An entry says which two kinds of samples were aligned, with whose features (fingerprints), from how many pairs, and how
well on held-out concepts beside chance. Who compares the two asks it, and gets nothing where nothing was shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.infer.embed import Embedding, remade
from metatransformer.machine.console import Console
from metatransformer.pairs.project import Maps
from metatransformer.pairs.texts import TextSide, load_side
from metatransformer.pipeline import Pipeline, readout_of
from metatransformer.recipe import HeadOptions
from metatransformer.trunk.encoder import require_alike
from metatransformer.trunk.files import read_tensors

LEDGER, MAPS = "ledger.json", "aligned.safetensors"
BLOCKS = (0.5, 0.75, 1.0)  # of the trunk's depth whose features are read: what aligns best often lies before the end


@dataclass(frozen=True)
class Aligned:
    """What ``align`` saved: maps, the ledger entry, and by its name what makes features of each side, left first."""

    maps: Maps
    ledger: Mapping[str, Any]
    sides: Mapping[str, Embedding | TextSide]


def read_ledger(folder: Path) -> dict[str, Any]:
    """Returns a ledger entry.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        told = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
        names = list(told["sides"])
        key = f"{names[0]} to {names[1]} {told['judged_by']}"
        _ = told["aligned"], told["scores"][key], told["chance"][key], [told["made_of"][name] for name in names]
        _ = float(told["scale"]), [told["sides"][name]["modality"] for name in names]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _damaged(folder / LEDGER, error) from error
    return told


def _damaged(path: Path, error: Exception) -> WeightsError:
    found = f"'{type(error).__name__}: {error}'"
    return WeightsError(path, must="be what 'metatransformer align' wrote", found=found, do="Align again.")


def require_aligned(told: Mapping[str, Any], *, where: object) -> None:
    """Raises UsageError for an entry whose held-out retrieval was not above chance."""
    if not told["aligned"]:
        first, second = told["sides"]
        key = f"{first} to {second} {told['judged_by']}"
        found = f"{key} {told['scores'][key]:.3f} where chance has {told['chance'][key]:.3f}"
        do = "Align with more pairs, or another encoder."
        raise UsageError(where, must="have aligned its two sides better than chance", found=found, do=do)


def read_aligned(folder: Path, *, device: str) -> Aligned:
    """Returns what ``align`` saved.

    Raises:
        WeightsError: a file is damaged, or an encoder is no longer the one that was aligned.
        UsageError: nothing was aligned: held-out retrieval was not above chance.
    """
    told = read_ledger(folder)
    require_aligned(told, where=folder)
    tensors, _ = read_tensors(folder / MAPS, remedy="Align again.")
    try:
        maps = Maps(**tensors, scale=float(told["scale"]))
    except TypeError as error:
        raise _damaged(folder / MAPS, error) from error
    sides: dict[str, Embedding | TextSide] = {}
    for name, about in told["sides"].items():
        made = told["made_of"][name]
        if isinstance(made, dict):
            sides[name] = load_side(made, where=folder)
            continue
        pipeline = remade(made, device=device, console=Console(quiet=True))
        require_alike(about["fingerprint"], pipeline.trunk.fingerprint, where=f"{folder}: {name}")
        sides[name] = features_of(pipeline)
    return Aligned(maps, told, sides)


def features_of(pipeline: Pipeline) -> Embedding:
    """Returns what makes the features of one side: summary and mean behind several blocks."""
    depth = pipeline.trunk.encoder.config.depth
    read: Sequence[int] = sorted({max(0, round(share * depth)) for share in BLOCKS})
    head = replace(HeadOptions(cells=pipeline.recipe.head.cells), read=tuple(read), pool="both")
    tokenizers = {each: pipeline.model.tokenizer(each) for each in pipeline.route}
    return Embedding(pipeline, readout_of(head, tokenizers, trunk=pipeline.trunk), "both")
