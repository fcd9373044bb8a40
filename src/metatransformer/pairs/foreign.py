"""Both towers out of other libraries' weights: OpenCLIP (also with timm's pictures), CLIP and SigLIP of transformers.

The vision tower is read as every encoder is (``trunk``); here are the names of the text tower, and of what maps both to
one space. The tokenizer is the ``tokenizer.json`` beside the weights.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.nn.block import ACTIVATIONS
from metatransformer.pairs.files import Loaded, assembled
from metatransformer.pairs.towers import TextConfig
from metatransformer.pairs.words import read_tokenizer
from metatransformer.trunk import WeightSource, fetch, load_encoder
from metatransformer.trunk.catalog import TOWER_FILES
from metatransformer.trunk.convert import expected, fuse, rename
from metatransformer.trunk.encoder import EncoderConfig
from metatransformer.trunk.files import read_tensors, read_torch
from metatransformer.trunk.layouts import LAYOUTS, Layout
from metatransformer.trunk.names import Given
from metatransformer.trunk.settings import ACTIVATION_NAMES

_BY_NAME = {layout.name: layout for layout in LAYOUTS}
_NORM = {f"final_layer_norm.{leaf}": f"norm.{leaf}" for leaf in ("weight", "bias")}
_EMBEDDED = {"embeddings.token_embedding.weight": "words.weight", "embeddings.position_embedding.weight": "places"}
_TRANSFORMERS = replace(_BY_NAME["clip"], name="text of clip", whole={**_EMBEDDED, **_NORM}, requires=())
_OPEN_CLIP = replace(
    _BY_NAME["open_clip"],
    name="text of open_clip",
    whole={
        "token_embedding.weight": "words.weight",
        "positional_embedding": "places",
        **{f"ln_final.{leaf}": f"norm.{leaf}" for leaf in ("weight", "bias")},
    },
    requires=(),
)
_POOL = "visual.trunk.attn_pool."  # timm's, of SigLIP's pictures
# What recognises a text tower, its prefix, and its layout.
_TEXTS = (
    ("text_model.embeddings.token_embedding.weight", "text_model.", _TRANSFORMERS),
    ("text.token_embedding.weight", "text.", _OPEN_CLIP),
    ("token_embedding.weight", "", _OPEN_CLIP),
)


def read_foreign(place: str, spec: Given, *, ways: str) -> Loaded:
    """Returns the towers of a weight file, or of a folder with one.

    Raises:
        UsageError: there is no text tower.
        WeightsError: damaged weights, another architecture, or no tokenizer.
    """
    path, remedy = spec.path, "Copy or download it again."
    state = read_tensors(path, remedy=remedy)[0] if path.suffix == ".safetensors" else read_torch(path, remedy=remedy)
    found = next(((prefix, layout) for mark, prefix, layout in _TEXTS if mark in state), None)
    if found is None:
        raise UsageError(place, must="have a text tower", found="an encoder without one", do=ways)
    prefix, layout = found
    siglip = any(mark in state for mark in ("text_model.head.weight", f"{_POOL}latent"))
    text = _text(state, prefix, layout, where=str(path))
    tensors = {f"text.{name}": tensor for name, tensor in text.items()} | _maps(state, prefix, where=str(path))
    context, width = text["places"].shape
    words = read_tokenizer(path.parent, context=context, whole=siglip)
    config = TextConfig(
        _shape(path, text, width=width, siglip=siglip),
        words=len(text["words.weight"]),
        context=context,
        outputs=len(tensors["text.out.weight"]),
        end=words.end,
        causal=not siglip,
        pool="last" if siglip else "end",
        bias=siglip,
    )
    own = {"pool": "attention" if siglip else "summary", "outputs": config.outputs}
    return assembled(load_encoder(place), config, words, tensors, own=own, where=path)


def fetch_towers(repository: str) -> Path:
    """Returns the weight file of both towers in the Hub's cache, its configuration and tokenizer beside it.

    Raises:
        WeightsError: the Hub cannot be reached, or a file is not there.
    """
    sources = [WeightSource("hub", repository, file) for file in TOWER_FILES]
    found = [fetch.hub_cached(source) or fetch.hub_download(source) for source in sources]
    return found[-1]


def _text(state: Mapping[str, Tensor], prefix: str, layout: Layout, *, where: str) -> dict[str, Tensor]:
    """Returns the text tower's tensors in the names of ``TextTower``, without its map.

    Raises:
        WeightsError: tensors are missing.
    """
    raw: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = rename(layout, key.removeprefix(prefix)) if key.startswith(prefix) else None
        if name is not None:
            raw[name] = tensor.float().contiguous()
    fuse(raw)
    trunk = {name: tensor for name, tensor in raw.items() if name not in ("words.weight", "places")}
    if missing := sorted((expected(trunk) | {"words.weight", "places", "norm.weight"}) - raw.keys()):
        raise WeightsError(where, must="hold a whole text tower", found=f"no {', '.join(missing[:3])}")
    return {name if name not in trunk else f"trunk.{name}": tensor for name, tensor in raw.items()}


def _maps(state: Mapping[str, Tensor], prefix: str, *, where: str) -> dict[str, Tensor]:
    """Returns what maps both towers to one space, and scale and bias."""
    found: dict[str, Tensor] = {}
    turned = {"visual.proj": "vision.out.weight", f"{prefix}text_projection": "text.out.weight"}
    straight = {
        "visual_projection.weight": "vision.out.weight",
        "text_projection.weight": "text.out.weight",
        "text_model.head.weight": "text.out.weight",
        "text_model.head.bias": "text.out.bias",
        "text.text_projection.weight": "text.out.weight",
        "text.text_projection.bias": "text.out.bias",
        "logit_scale": "log_scale",
        "logit_bias": "bias",
    }
    for key, tensor in state.items():
        if key in turned:
            found[turned[key]] = tensor.float().T.contiguous()
        elif key in straight:
            found[straight[key]] = tensor.float().reshape(()) if key.startswith("logit") else tensor.float()
        elif key.startswith("vision_model.head."):
            found[f"vision.out.{key.removeprefix('vision_model.head.')}"] = tensor.float()
    found |= _timm_pool(state)
    if missing := {"text.out.weight", "log_scale"} - found.keys():
        raise WeightsError(where, must="map both towers to one space", found=f"no {', '.join(sorted(missing))}")
    return found


def _timm_pool(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns timm's attention over patches in the names of ``AttentionPool``, nothing where there is none."""
    own = {key.removeprefix(_POOL): tensor.float() for key, tensor in state.items() if key.startswith(_POOL)}
    names = {"latent": "probe"}
    for leaf in ("weight", "bias"):
        if f"q.{leaf}" in own and f"kv.{leaf}" in own:
            own[f"in_proj_{leaf}"] = torch.cat([own.pop(f"q.{leaf}"), own.pop(f"kv.{leaf}")])
        names |= {f"in_proj_{leaf}": f"attention.in_proj_{leaf}", f"proj.{leaf}": f"attention.out_proj.{leaf}"}
        names |= {f"norm.{leaf}": f"layernorm.{leaf}"}
    return {f"vision.out.{names.get(name, name)}": tensor for name, tensor in own.items()}


def _shape(path: Path, text: Mapping[str, Tensor], *, width: int, siglip: bool) -> EncoderConfig:
    """Returns the shape of the text tower: what the tensors show, a configuration beside them, or conventions tell."""
    depth = 1 + max(int(name.split(".")[2]) for name in text if name.startswith("trunk.blocks."))
    hidden = len(text["trunk.blocks.0.mlp.fc1.weight"])
    told = _told(path)
    usual = "gelu_tanh" if siglip else "quick_gelu" if "text_config" in told else "gelu"
    own = told.get("text_config", told.get("text_cfg", {}))
    heads = own.get("num_attention_heads", own.get("heads", width // 64 if width % 64 == 0 else None))
    if heads is None:
        do = "Put the config.json of the same repository beside the weights."
        raise WeightsError(path, must="come with the head count of its text tower", found="no config.json", do=do)
    name = own.get("hidden_act", "quick_gelu" if told.get("quick_gelu") else usual)
    activation = ACTIVATION_NAMES.get(name, name)
    if activation not in ACTIVATIONS:
        raise WeightsError(path, must=f"have a hidden_act among {', '.join(ACTIVATION_NAMES)}", found=repr(name))
    eps = float(own.get("layer_norm_eps", 1e-6 if siglip else 1e-5))
    return EncoderConfig(width, depth, int(heads), hidden, eps=eps, activation=activation)


def _told(path: Path) -> Mapping[str, Any]:
    """Returns what a configuration beside the weights says of both towers; nothing where there is none."""
    for name, section in (("open_clip_config.json", "model_cfg"), ("config.json", "")):
        file = path.with_name(name)
        if not file.is_file():
            continue
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            return dict(told[section] if section else told)
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(file, must="be the JSON configuration of the weights", found=f"'{error}'") from error
    return {}
