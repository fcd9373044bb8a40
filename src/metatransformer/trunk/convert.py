"""From a foreign state dict to canonical names, with every key accounted for.

Axes: D width, p patch side in pixels, h w grid.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metatransformer.core.errors import WeightsError
from metatransformer.core.modality import Stem
from metatransformer.trunk.layouts import BLOCK, Layout, detect


@dataclass(frozen=True)
class Converted:
    """A state dict in canonical names; ``stem`` has no pixel statistics, which it does not hold."""

    layout: Layout
    trunk: dict[str, Tensor]
    stem: Stem
    dropped: tuple[str, ...]

    @property
    def width(self) -> int:
        """The width D."""
        return self.trunk["blocks.0.norm1.weight"].shape[0]

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return 1 + max(int(name.split(".")[1]) for name in self.trunk if name.startswith("blocks."))

    @property
    def shape(self) -> dict[str, int | bool]:
        """What a state dict does say of its ``EncoderConfig``."""
        return {
            "width": self.width,
            "depth": self.depth,
            "hidden": self.trunk["blocks.0.mlp.fc1.weight"].shape[0],
            "pre_norm": "norm_pre.weight" in self.trunk,
            "layer_scale": "blocks.0.ls1.gamma" in self.trunk,
            "final_norm": "norm.weight" in self.trunk,
        }


def convert(state: Mapping[str, Tensor], *, where: str) -> Converted:
    """Returns the state dict in canonical names, in float32.

    Raises:
        WeightsError: an unknown layout, keys that nobody asked for, or keys that are missing.
    """
    layout, prefix = detect(state, where=where)
    raw: dict[str, Tensor] = {}
    dropped, unexpected = [], []
    for key, tensor in state.items():
        inside = key.startswith(prefix)
        bare = key.removeprefix(prefix)
        name = rename(layout, bare) if inside else None
        if name is not None and name not in raw:
            raw[name] = tensor.detach().to(torch.float32).contiguous()
        elif _listed(bare, layout.drops if inside else layout.outside):
            dropped.append(key)
        else:
            unexpected.append(key)
    fuse(raw)
    trunk = {name: tensor for name, tensor in raw.items() if not name.startswith("stem.")}
    missing = sorted((expected(trunk) | set(layout.requires)) - raw.keys())
    _report(layout, unexpected, missing, where=where)
    return Converted(layout, trunk, _stem(raw, layout, where=where), tuple(dropped))


def _listed(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in names)


def rename(layout: Layout, key: str) -> str | None:
    """Returns the canonical name of a key without its prefix, None when there is none."""
    match = re.match(layout.block, key)
    if match is None:
        return layout.whole.get(key)
    part, _, leaf = match["tail"].replace("in_proj_", "in_proj.").rpartition(".")
    leaf = "gamma" if leaf == "lambda1" else leaf
    return f"blocks.{match['n']}.{layout.parts[part]}.{leaf}" if part in layout.parts else None


def fuse(raw: dict[str, Tensor]) -> None:
    """Joins separate query, key and value projections, in place."""
    for name in [name for name in raw if ".attn.q." in name]:
        names = [name.replace(".attn.q.", f".attn.{letter}.") for letter in "qkv"]
        if all(part in raw for part in names):
            fused = torch.cat([raw.pop(part) for part in names])  # 3 x [D, D] -> [3D, D]
            raw[name.replace(".attn.q.", ".attn.qkv.")] = fused


def expected(trunk: Mapping[str, Tensor]) -> set[str]:
    """Returns the names that a trunk of this depth and these options has."""
    numbers = {int(name.split(".")[1]) for name in trunk if name.startswith("blocks.")}
    tails = [f"{part}.{leaf}" for part in BLOCK for leaf in ("weight", "bias")]
    if any(".ls1." in name or ".ls2." in name for name in trunk):
        tails += ["ls1.gamma", "ls2.gamma"]
    names = {f"blocks.{n}.{tail}" for n in range(max(numbers, default=0) + 1) for tail in tails}
    for norm in ("norm", "norm_pre"):
        if f"{norm}.weight" in trunk or f"{norm}.bias" in trunk:
            names |= {f"{norm}.weight", f"{norm}.bias"}
    return names


def _report(layout: Layout, unexpected: list[str], missing: list[str], *, where: str) -> None:
    if not unexpected and not missing:
        return
    parts = []
    for word, names in (("unexpected", sorted(unexpected)), ("missing", missing)):
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            parts.append(f"{word}: {', '.join(names[:8])}{more}")
    raise WeightsError(
        where,
        must=f"hold a plain vision transformer with biases in the layout '{layout.name}'",
        found="; ".join(parts),
        do="Register tokens, distillation tokens and gated MLPs are not supported.",
    )


def _stem(raw: Mapping[str, Tensor], layout: Layout, *, where: str) -> Stem:
    """Returns the front end; the class token takes in its row of the positions if there is one.

    Raises:
        WeightsError: a kernel that is not for square RGB patches, or positions that do not fill a square.
    """
    stem = Stem(
        patch=raw.get("stem.patch"),
        bias=raw.get("stem.bias"),
        positions=raw.get("stem.positions"),
        class_token=raw.get("stem.class_token"),
    )
    if stem.patch is not None and not (
        stem.patch.ndim == 4 and stem.patch.shape[1] == 3 and stem.patch.shape[2] == stem.patch.shape[3]
    ):
        raise WeightsError(where, must="have a patch kernel [D, 3, p, p]", found=f"{list(stem.patch.shape)}")
    if layout.name == "canonical":
        return stem
    token = None if stem.class_token is None else stem.class_token.flatten()
    if stem.positions is None:
        return replace(stem, class_token=token)
    rows = stem.positions.reshape(-1, stem.positions.shape[-1])  # [1 + h*w, D] or [h*w, D]
    side = math.isqrt(len(rows))
    if len(rows) == side**2 + 1 and token is not None:
        token, rows = token + rows[0], rows[1:]
    if len(rows) != side**2:
        raise WeightsError(
            where, must="have positions for a square grid, with or without a class token", found=f"{len(rows)} rows"
        )
    return replace(stem, class_token=token, positions=rows.reshape(side, side, -1))
