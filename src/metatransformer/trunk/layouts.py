"""The names that other libraries give to a vision transformer's tensors, and the way to ours.

A layout is data: how its keys are recognised, what each becomes, and which ones belong to a classifier, a projection or
a text tower and are dropped. Every key must be one or the other; nothing is skipped in silence (``convert.py``). The
canonical names are those of ``Encoder.state_dict()`` plus ``stem.patch``, ``stem.bias``, ``stem.positions``,
``stem.class_token``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from metatransformer.core.errors import WeightsError

LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
BLOCK = ("norm1", "norm2", *LINEAR)


@dataclass(frozen=True)
class Layout:
    """How one library names its tensors, and what it assumes without writing it down.

    ``mark`` recognises one key and captures the ``prefix`` in front of the trunk's names. ``block`` captures a block's
    number and the ``tail`` behind it; ``parts`` maps a tail without its leaf, ``whole`` every other key. ``drops`` are
    left out where they stand behind the prefix, ``outside`` where they stand without it; a name that ends in a dot
    stands for all that begin so. ``eps``, ``activation`` and ``pixels`` hold when nobody says otherwise.
    """

    name: str
    mark: str
    block: str
    parts: Mapping[str, str]
    whole: Mapping[str, str]
    drops: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    eps: float = 1e-6
    activation: str = "gelu"
    pixels: str = "imagenet"


def _norm(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{leaf}": f"{ours}.{leaf}" for leaf in ("weight", "bias")}


_OURS = {part: part for part in (*BLOCK, "ls1", "ls2")}
_SPLIT = {
    **{f"attention.attention.{w}": f"attn.{w[0]}" for w in ("query", "key", "value")},
    **{f"attention.{letter}_proj": f"attn.{letter}" for letter in "qkv"},
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_EMBEDDINGS = {
    "embeddings.cls_token": "stem.class_token",
    "embeddings.position_embeddings": "stem.positions",
    "embeddings.patch_embeddings.projection.weight": "stem.patch",
    "embeddings.patch_embeddings.projection.bias": "stem.bias",
    **_norm("layernorm", "norm"),
}
_FULL = ("stem.patch", "stem.positions", "stem.class_token", "norm.weight")

_TIMM = Layout(
    name="timm",
    mark=r"^(?P<prefix>)blocks\.0\.attn\.qkv\.weight$",
    block=r"^blocks\.(?P<n>\d+)\.(?P<tail>.+)$",
    parts=_OURS,
    whole={
        "cls_token": "stem.class_token",
        "pos_embed": "stem.positions",
        "patch_embed.proj.weight": "stem.patch",
        "patch_embed.proj.bias": "stem.bias",
        **_norm("norm", "norm"),
        **_norm("norm_pre", "norm_pre"),
    },
    drops=("head.", "fc_norm.", "pre_logits.", "mask_token"),
    pixels="half",
)

_CLIP = Layout(
    name="clip",
    mark=r"^(?P<prefix>vision_model\.|)encoder\.layers\.0\.self_attn\.q_proj\.weight$",
    block=r"^encoder\.layers\.(?P<n>\d+)\.(?P<tail>.+)$",
    parts={
        **{f"self_attn.{letter}_proj": f"attn.{letter}" for letter in "qkv"},
        "self_attn.out_proj": "attn.proj",
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    whole={
        "embeddings.class_embedding": "stem.class_token",
        "embeddings.position_embedding.weight": "stem.positions",
        "embeddings.patch_embedding.weight": "stem.patch",
        **_norm("pre_layrnorm", "norm_pre"),  # their spelling
        **_norm("post_layernorm", "norm"),
    },
    drops=("embeddings.position_ids",),
    outside=("text_model.", "visual_projection.", "text_projection.", "logit_scale"),
    requires=(*_FULL, "norm_pre.weight"),
    eps=1e-5,
    activation="quick_gelu",
    pixels="clip",
)

LAYOUTS = (
    Layout(
        name="canonical",
        mark=r"^(?P<prefix>)stem\.(patch|positions|class_token)$",
        block=r"^blocks\.(?P<n>\d+)\.(?P<tail>.+)$",
        parts=_OURS,
        whole={
            **{f"stem.{name}": f"stem.{name}" for name in ("patch", "bias", "class_token")},
            "stem.positions": "stem.positions",
            **_norm("norm", "norm"),
            **_norm("norm_pre", "norm_pre"),
        },
    ),
    replace(  # timm's SigLIP image towers, alone or as OpenCLIP has them: patches are asked by one learned query
        _TIMM,
        name="timm-siglip",
        mark=r"^(?P<prefix>visual\.trunk\.|)attn_pool\.latent$",
        drops=(*_TIMM.drops, "attn_pool."),
        outside=("text.", "visual.head.", "logit_scale", "logit_bias"),
        requires=("stem.patch", "stem.positions", "norm.weight"),
        activation="gelu_tanh",
    ),
    replace(  # timm's CLIP image towers
        _TIMM, name="timm-clip", mark=r"^(?P<prefix>)norm_pre\.weight$", eps=1e-5, pixels="clip"
    ),
    _TIMM,
    Layout(  # the published Meta-Transformer files: blocks and nothing else
        name="meta-transformer",
        mark=r"^(?P<prefix>)0\.attn\.qkv\.weight$",
        block=r"^(?P<n>\d+)\.(?P<tail>.+)$",
        parts={part: part for part in BLOCK},
        whole={},
        eps=1e-5,
        pixels="clip",
    ),
    Layout(
        name="open_clip",
        mark=r"^(?P<prefix>visual\.|)transformer\.resblocks\.0\.attn\.in_proj_weight$",
        block=r"^transformer\.resblocks\.(?P<n>\d+)\.(?P<tail>.+)$",
        parts={
            "ln_1": "norm1",
            "ln_2": "norm2",
            "attn.in_proj": "attn.qkv",
            "attn.out_proj": "attn.proj",
            "mlp.c_fc": "mlp.fc1",
            "mlp.c_proj": "mlp.fc2",
            "ls_1": "ls1",
            "ls_2": "ls2",
        },
        whole={
            "class_embedding": "stem.class_token",
            "positional_embedding": "stem.positions",
            "conv1.weight": "stem.patch",
            **_norm("ln_pre", "norm_pre"),
            **_norm("ln_post", "norm"),
        },
        drops=("proj",),
        outside=(
            *("transformer.", "text.", "token_embedding.", "ln_final.", "positional_embedding"),
            *("text_projection", "logit_scale", "logit_bias", "attn_mask"),
        ),
        requires=("stem.patch", "stem.positions", "stem.class_token"),
        eps=1e-5,
        pixels="clip",
    ),
    Layout(
        name="vit",
        mark=r"^(?P<prefix>(?:\w+\.)??)(?:encoder\.layer|layers)\.0\.layernorm_before\.weight$",
        block=r"^(?:encoder\.layer|layers)\.(?P<n>\d+)\.(?P<tail>.+)$",
        parts={
            **_SPLIT,
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "intermediate.dense": "mlp.fc1",
            "output.dense": "mlp.fc2",
        },
        whole=_EMBEDDINGS,
        drops=("pooler.", "embeddings.mask_token"),
        outside=("classifier.",),
        requires=_FULL,
        eps=1e-12,
        pixels="half",
    ),
    Layout(
        name="dinov2",
        mark=r"^(?P<prefix>(?:\w+\.)??)encoder\.layer\.0\.layer_scale1\.lambda1$",
        block=r"^encoder\.layer\.(?P<n>\d+)\.(?P<tail>.+)$",
        parts={**_SPLIT, "norm1": "norm1", "norm2": "norm2", "layer_scale1": "ls1", "layer_scale2": "ls2"},
        whole=_EMBEDDINGS,
        drops=("embeddings.mask_token",),
        outside=("classifier.", "head.", "decoder."),
        requires=_FULL,
    ),
    replace(  # no class token; all patches are asked by one learned query
        _CLIP,
        name="siglip",
        mark=r"^(?P<prefix>vision_model\.|)head\.probe$",
        whole={
            "embeddings.position_embedding.weight": "stem.positions",
            "embeddings.patch_embedding.weight": "stem.patch",
            "embeddings.patch_embedding.bias": "stem.bias",
            **_norm("post_layernorm", "norm"),
        },
        drops=("embeddings.position_ids", "head."),
        outside=("text_model.", "logit_scale", "logit_bias"),
        requires=("stem.patch", "stem.positions", "norm.weight"),
        eps=1e-6,
        activation="gelu_tanh",
        pixels="half",
    ),
    _CLIP,
)


def detect(keys: Iterable[str], *, where: str) -> tuple[Layout, str]:
    """Returns the layout that the keys are written in, and the prefix before the trunk's names.

    Raises:
        WeightsError: no known layout.
    """
    keys = list(keys)
    for layout in LAYOUTS:
        prefixes = [match["prefix"] for key in keys if (match := re.match(layout.mark, key))]
        if prefixes:
            # A text tower may carry the same names without a prefix (OpenCLIP).
            return layout, max(prefixes, key=len)
    raise WeightsError(
        where,
        must=f"hold a vision transformer in a known layout ({', '.join(x.name for x in LAYOUTS)})",
        found=f"{len(keys)} tensors named like {', '.join(sorted(keys)[:3])}",
    )
