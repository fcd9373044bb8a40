"""Alignment: a frozen trunk's samples of one modality with texts, or with another modality, from pairs.

Features are computed once; small linear maps on each side are fitted; whole concepts are held out, never single rows of
one. What came of it is written down as a ledger entry: the pair, whose features (fingerprints), how many pairs, and R@k
on held-out concepts beside chance and controls. Who compares the two later asks that entry.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Counts
from metatransformer.data.examples import Column, Examples
from metatransformer.data.rows import sheets_of
from metatransformer.data.write import atomic_file, write_json
from metatransformer.infer.embed import Embedding, embed, untrained
from metatransformer.infer.joined import read_joined
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.pairs.ledger import LEDGER, MAPS, features_of
from metatransformer.pairs.page import Table, write_pairs_page
from metatransformer.pairs.project import Maps, Plan, fit_maps, scores_of, shuffled
from metatransformer.pairs.read import label_of
from metatransformer.pairs.recall import RANKS, chance_both_ways, first_of_each
from metatransformer.pairs.run import PairsRun
from metatransformer.pairs.texts import Bag, TextSide, make_side
from metatransformer.recipe import Recipe, make_recipe
from metatransformer.trunk import load_encoder

FEATURES = "features"
HELD_OUT = 0.2
LEAST = 10  # concepts on each side of the split
SPREAD = 1.96  # standard errors above chance, below which nothing was shown


@dataclass(frozen=True)
class Side:
    """One side of the pairs: its input's ``name`` and modality, and the features [n, F] of all pairs."""

    name: str
    modality: str
    features: Tensor
    texts: TextSide | None = None
    model: Embedding | None = None


def align(
    data: Any,
    recipe: Recipe,
    out: Path,
    *,
    text: str,
    concept: str,
    controls: bool,
    overwrite: bool,
    console: Console,
) -> dict[str, Any]:
    """Aligns the two inputs of a recipe, writes the run folder, and returns its ledger entry.

    ``text`` names the encoder of texts, ``concept`` the column that says which pairs show the same.

    Raises:
        UsageError: not two inputs, a concept on both sides of the data's own split, or too few concepts.
        DataError: what reading the data raises.
    """
    if len(recipe.inputs) != 2:
        found = f"{len(recipe.inputs)}: {', '.join(recipe.inputs)}"
        raise UsageError("--inputs", must="name two inputs, as picture=image(file),words=text(caption)", found=found)
    found = read_joined(data, recipe, labelled=False)
    for note in found.notes:
        console.note(note)
    labels = _concepts(data, found.examples, found.recipe, concept)
    examples, labels = _whole(found.examples, labels, console)
    train, held = _split(examples.splits, labels, seed=recipe.run.seed)
    run = PairsRun(out, kind="align", place=Place())
    settings: dict[str, Any] = {
        "inputs": {name: one.modality for name, one in recipe.inputs.items()},
        "encoder": recipe.encoder,
    }
    settings |= {"text": text, "concept": concept, "seed": recipe.run.seed}
    run.start(settings, identity=examples.identity(), source=str(data), overwrite=overwrite)
    names = list(recipe.inputs)
    left, right = (_side(found.recipe, name, examples, train, text=text, run=run, console=console) for name in names)
    maps, plan, scores = _fit(left, right, labels, train, held, seed=recipe.run.seed)
    told = _ledger(left, right, labels, train, held, plan, scores) | {"scale": maps.scale}
    if controls:
        told["controls"] = _controls(found.recipe, left, right, examples, labels, train, held, console=console)
    _save(run, maps, left, right, told)
    write_page(run, told, plan)
    run.finish(told)
    _tell(told, run, console)
    return told


def _score_rows(told: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns columns and rows: each score beside chance and controls."""
    others = told.get("controls", {})
    columns = [told["scores"], told["chance"], *others.values()]
    rows = [[str(name), *(f"{own[name]:.4f}" if name in own else "-" for own in columns)] for name in told["scores"]]
    return ["held-out concepts", "score", "chance", *others], rows


def _tell(told: Mapping[str, Any], run: PairsRun, console: Console) -> None:
    """Prints the scores beside chance and controls, and whether anything was aligned."""
    console.table("alignment", *_score_rows(told))
    if not told["aligned"]:
        console.warn("held-out retrieval is not above chance: nothing was aligned, and nothing will be compared by it")
    console.note(f"run folder: {run.path} (report.html, {LEDGER})")


def _concepts(data: Any, examples: Examples, recipe: Recipe, concept: str) -> Tensor:
    """Returns a number a pair that is equal for what shows the same: by a column, else the text, else the group."""
    if concept:
        values: list[Any] = []
        for sheet in sheets_of(data)[0]:
            frame = sheet.read(header=recipe.data.header, text=True)
            if concept not in frame.columns:
                raise DataError(
                    sheet.where, must=f"have a column '{concept}'", found=", ".join(map(str, frame.columns))
                )
            values += frame[concept].astype(str).tolist()
        return torch.tensor([label_of(value) for value in values])
    texts = [name for name, one in recipe.inputs.items() if one.modality == "text"]
    if texts:
        return torch.tensor([label_of(text) for text in texts_of(examples, texts[0])])
    groups = [key if group is None else group for key, group in zip(examples.keys, examples.groups, strict=True)]
    return torch.tensor([label_of(group) for group in groups])


def texts_of(examples: Examples, name: str) -> list[str]:
    """Returns the texts of an input, "" where a sample has none; several columns stand one behind the other."""
    found = []
    for row in range(len(examples)):
        record = examples.inputs[name][row]
        value = {} if record is None else record.value
        parts = value.values() if isinstance(value, Mapping) else [value]
        found.append(" ".join(str(part) for part in parts if part is not None).strip())
    return found


def _whole(examples: Examples, labels: Tensor, console: Console) -> tuple[Examples, Tensor]:
    """Returns the pairs that have both sides."""
    there = [row for row in range(len(examples)) if all(column[row] is not None for column in examples.inputs.values())]
    if len(there) < len(examples):
        console.note(f"{len(examples) - len(there):,} rows lack one side and are left out")
    return examples.take(np.array(there, dtype=np.int64)), labels[there]


def _split(splits: Sequence[str | None], labels: Tensor, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs to learn from and those of held-out concepts: by the data's own split, else a fifth is drawn.

    Raises:
        UsageError: a concept on both sides, or fewer than ten on one.
    """
    own = np.array([split or "" for split in splits])
    names, places = np.unique(labels.numpy(), return_inverse=True)
    held = own == "test"
    if not held.any():
        apart = np.random.default_rng([seed, 3]).permutation(len(names)) < HELD_OUT * len(names)
        held = apart[places]
    both = set(places[held]) & set(places[~held])
    if both:
        do = "Name the column that says what shows the same with --concept, and split by it."
        raise UsageError("the split", must="have each concept on one side", found=f"{len(both)} on both", do=do)
    counts = len(set(places[~held])), len(set(places[held]))
    if min(counts) < LEAST:
        raise UsageError("pairs", must=f"hold {LEAST} concepts to learn from and {LEAST} held out", found=f"{counts}")
    return np.flatnonzero(~held), np.flatnonzero(held)


def _side(
    recipe: Recipe, name: str, examples: Examples, train: np.ndarray, *, text: str, run: PairsRun, console: Console
) -> Side:
    """Returns one side with its features, from the run folder where an earlier call has computed them."""
    modality = recipe.inputs[name].modality
    if modality == "text":
        texts = texts_of(examples, name)
        side = make_side(text, [texts[row] for row in train])
        return Side(name, modality, side.vectors(texts), texts=side)
    model, part = _embedding(recipe, name, examples, encoder=recipe.encoder, console=console)
    key = hashlib.sha256((model.identity() + part.identity()).encode()).hexdigest()[:16]
    path = run.path / f"{FEATURES}-{key}.safetensors"
    if path.is_file():
        return Side(name, modality, load_file(path)["features"], model=model)
    features = torch.from_numpy(embed(model, part, console=console))
    with atomic_file(path) as temporary:
        save_file({"features": features}, temporary)
    return Side(name, modality, features, model=model)


def _embedding(
    recipe: Recipe, name: str, examples: Examples, *, encoder: str, console: Console
) -> tuple[Embedding, Examples]:
    """Returns what makes features of one input, and the samples of that input alone."""
    one = recipe.inputs[name]
    options = {f"input.{key}": value for key, value in dataclasses.asdict(one.options).items()}
    run = {"run.device": recipe.run.device, "run.precision": recipe.run.precision, "run.seed": recipe.run.seed}
    alone = make_recipe(one.modality, base={}, overrides={**options, **run, "encoder": encoder})
    (own,) = alone.inputs
    column = examples.inputs[name]
    part = replace(examples, inputs={own: Column(column.take(np.arange(len(column))).records)}, targets={})
    trunk = load_encoder(encoder)
    pipeline = untrained(alone, trunk=trunk, examples=part, learned=True, console=console)
    return features_of(pipeline), part


def _fit(
    left: Side, right: Side, labels: Tensor, train: np.ndarray, held: np.ndarray, *, seed: int, contrastive: bool = True
) -> tuple[Maps, Plan, dict[str, float]]:
    """Returns maps fitted on the training pairs, what folds chose, and R@k on the held-out ones."""
    x, y = left.features.float(), right.features.float()
    maps, plan = fit_maps(x[train], y[train], labels[train], seed=seed, contrastive=contrastive)
    scores = scores_of(maps, x[held], y[held], labels[held], names=(left.name, right.name))
    own = labels[held]
    if len(first_of_each(own)) < len(own):
        scores |= {f"{left.name} to another {left.name} R@1": among(maps.of_left(x[held]), own)}
    return maps, plan, scores


def among(vectors: Tensor, labels: Tensor) -> float:
    """Returns how often the nearest other sample shows the same, of those that have another."""
    near = vectors @ vectors.T
    near.fill_diagonal_(-torch.inf)
    several = (labels[:, None] == labels).sum(dim=1) > 1
    right = labels[near.argmax(dim=1)] == labels
    return right[several].float().mean().item()


def _ledger(
    left: Side, right: Side, labels: Tensor, train: np.ndarray, held: np.ndarray, plan: Plan, scores: dict[str, float]
) -> dict[str, Any]:
    """Returns the entry: what was aligned, with what, and how well, beside chance."""
    own = labels[held]
    once = own[first_of_each(own)]
    by_chance = chance_both_ways(own, names=(left.name, right.name))
    same = (own[:, None] == own).sum(dim=1).float() - 1
    by_chance[f"{left.name} to another {left.name} R@1"] = (same[same > 0] / (len(own) - 1)).mean().item()
    sides = {}
    for side in (left, right):
        about: dict[str, Any] = {"modality": side.modality}
        if side.model is not None:
            trunk = side.model.pipeline.trunk
            about |= {"encoder": trunk.name, "sha256": trunk.sha256, "fingerprint": trunk.fingerprint}
        elif side.texts is not None:
            about |= {"encoder": side.texts.name, "sha256": side.texts.sha256}
        sides[side.name] = about
    told = {
        "sides": sides,
        "pairs": len(train),
        "concepts": len(first_of_each(labels[train])),
        "held_out_pairs": len(held),
        "held_out_concepts": len(once),
        "scores": scores,
        "chance": by_chance,
        "penalty": plan.penalty,
        "contrastive_steps": plan.steps,
    }
    ranks = [10, 1] if len(once) >= 2 * max(RANKS) else [1]  # of few concepts nearly all are among the ten nearest
    told["judged_by"] = f"R@{ranks[0]}"
    pairs = [
        (f"{a.name} to {b.name} R@{ranks[0]}", n) for a, b, n in ((left, right, len(once)), (right, left, len(once)))
    ]
    told["aligned"] = all(scores[name] > by_chance[name] + _error(by_chance[name], count) for name, count in pairs)
    return told


def _error(share: float, count: int) -> float:
    """Returns what a share of that many independent answers may differ by."""
    return SPREAD * math.sqrt(share * (1 - share) / max(1, count))


def _controls(
    recipe: Recipe,
    left: Side,
    right: Side,
    examples: Examples,
    labels: Tensor,
    train: np.ndarray,
    held: np.ndarray,
    *,
    console: Console,
) -> dict[str, dict[str, float]]:
    """Returns the scores of what should do worse: shuffled pairs, a random trunk, plain features against words."""
    seed = recipe.run.seed
    wrong = right.features.clone()
    wrong[train] = shuffled(right.features[train], labels[train], seed=seed)
    found = {"shuffled pairs": _fit(left, replace(right, features=wrong), labels, train, held, seed=seed)[2]}
    if left.model is None:
        return found
    name = f"random:{seed}:{recipe.encoder}"
    model, part = _embedding(recipe, left.name, examples, encoder=name, console=console)
    drawn = replace(left, features=torch.from_numpy(embed(model, part, console=console)))
    found["random trunk"] = _fit(drawn, right, labels, train, held, seed=seed)[2]
    if right.texts is not None:
        texts = texts_of(examples, right.name)
        words = Bag.of([texts[row] for row in train]).vectors(texts)
        plain = replace(left, features=_plain(left.model, part))
        bag = replace(right, features=words)
        found["ridge to words"] = _fit(plain, bag, labels, train, held, seed=seed, contrastive=False)[2]
    return found


def _plain(model: Embedding, part: Examples) -> Tensor:
    """Returns the modality's plain features, which a baseline without this package would see."""
    (reader,), (column,) = model.pipeline.route.values(), part.inputs.values()
    rows = []
    for record in column.records:
        features = reader.modality.plain(reader.raw(record), reader.view(record))
        if isinstance(features, Counts):
            must = "have plain features of the left side that are no counts"
            raise UsageError("--controls", must=must, found=reader.modality.name)
        rows.append(np.asarray(features, dtype=np.float32))
    return torch.from_numpy(np.stack(rows))


def _save(run: PairsRun, maps: Maps, left: Side, right: Side, told: Mapping[str, Any]) -> None:
    """Writes the maps, and the ledger entry with what makes the features again."""
    tensors = {name: getattr(maps, name).contiguous() for name in ("left", "left_bias", "right", "right_bias")}
    with atomic_file(run.path / MAPS) as temporary:
        save_file(tensors, temporary)
    made = {}
    for side in (left, right):
        own = side.texts.state() if side.texts is not None else None
        made[side.name] = own or (side.model.metadata()["recipe"] if side.model is not None else "")
    write_json(run.path / LEDGER, {"format": 1, **told, "made_of": made})


def write_page(run: PairsRun, told: Mapping[str, Any], plan: Plan) -> None:
    """Writes the report: scores beside chance and controls, and what was aligned."""
    facts = [(f"{name}: {key}", str(value)) for name, about in told["sides"].items() for key, value in about.items()]
    facts += [(name.replace("_", " "), str(told[name])) for name in told if isinstance(told[name], int | float | str)]
    tables: list[Table] = [("Scores", *_score_rows(told)), ("Ledger", ("what", "value"), facts)]
    names = " and ".join(get_modality(about["modality"]).name for about in told["sides"].values())
    lead = f"{names} aligned from {told['pairs']:,} pairs of {told['concepts']:,} concepts; "
    lead += f"ridge penalty {plan.penalty:g}, {plan.steps} contrastive steps, chosen by folds of whole concepts"
    write_pairs_page(run.path / "report.html", f"Alignment: {run.path.name}", lead, tables, [], [])
