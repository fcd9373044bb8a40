"""Retrieval between two sides of pairs: how often one of the nearest is right, beside what chance would give."""

from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metatransformer.nn.near import nearest

RANKS = (1, 5, 10)


def recalls(
    queries: Float[Tensor, "q E"],
    gallery: Float[Tensor, "g E"],
    asked: Int[Tensor, " q"],
    held: Int[Tensor, " g"],
    *,
    ranks: tuple[int, ...] = RANKS,
) -> dict[str, float]:
    """Returns R@k for each k: the share of queries with an answer of their own label among the k nearest."""
    _, places = nearest(queries, gallery, count=max(ranks))
    right = held[places] == asked[:, None]  # [q, k]
    return {f"R@{k}": float(right[:, :k].any(dim=1).float().mean()) for k in ranks}


def chance(asked: Int[Tensor, " q"], held: Int[Tensor, " g"], *, rank: int) -> float:
    """Returns R@``rank`` of a random order of the gallery."""
    many, count = len(held), min(rank, len(held))
    sizes = (held[None] == asked[:, None]).sum(dim=1).tolist()
    every = comb(many, count)
    return sum(1 - comb(many - size, count) / every for size in sizes) / max(1, len(sizes))


def both_ways(
    left: Float[Tensor, "n E"], right: Float[Tensor, "n E"], labels: Int[Tensor, " n"], *, names: tuple[str, str]
) -> dict[str, float]:
    """Returns R@k from left to right and back; of the right side each label stands once, by its first vector.

    ``names`` are those of the sides, as in ``image to text R@1``.
    """
    once = first_of_each(labels)
    there = recalls(left, right[once], labels, labels[once])
    back = recalls(right[once], left, labels[once], labels)
    found = {f"{names[0]} to {names[1]} {name}": value for name, value in there.items()}
    return found | {f"{names[1]} to {names[0]} {name}": value for name, value in back.items()}


def chance_both_ways(labels: Int[Tensor, " n"], *, names: tuple[str, str]) -> dict[str, float]:
    """Returns what ``both_ways`` would give for a random order."""
    once = labels[first_of_each(labels)]
    there = {f"{names[0]} to {names[1]} R@{k}": chance(labels, once, rank=k) for k in RANKS}
    return there | {f"{names[1]} to {names[0]} R@{k}": chance(once, labels, rank=k) for k in RANKS}


def first_of_each(labels: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """Returns the place of the first of each label, in their order."""
    seen: dict[int, int] = {}
    for place, label in enumerate(labels.tolist()):
        seen.setdefault(label, place)
    return torch.tensor(list(seen.values()), dtype=torch.int64)
