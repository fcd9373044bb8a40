"""Zero-shot: OpenCLIP's procedure step by step, towers of other libraries, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from common import Run
from PIL import Image
from safetensors.torch import save_file
from test_trunk_layouts import randomize

import metatransformer as mt
from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.data.stored import Stored
from metatransformer.pairs.across import _require_summary
from metatransformer.pairs.files import read_towers
from metatransformer.pairs.foreign import read_foreign
from metatransformer.pairs.space import Space, open_space
from metatransformer.pairs.zero_shot import class_vectors, shares
from metatransformer.trunk import WeightSource, fetch
from metatransformer.trunk.names import Given, parse_name

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

CLASSES = ["red", "blue", "grey"]
TEMPLATES = ["a {} square", "{}", "a {} bar"]
SHAPE = {"hidden_size": 21, "intermediate_size": 29, "num_hidden_layers": 2, "num_attention_heads": 3}
WORDS, CONTEXT, OUTPUTS = 13, 7, 11
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}  # float32 sums in another order, on values of order 1


def test_class_vectors_are_open_clips_by_hand():
    table = {text: torch.randn(5, generator=torch.Generator().manual_seed(n)) for n, text in enumerate("abcdef")}
    names = {"x 0": "a", "y 0": "b", "x 1": "c", "y 1": "d"}

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.stack([table[names[text]] for text in texts])

    found = class_vectors(["0", "1"], ["x {}", "y {}"], encode)
    for row, (one, other) in zip(found, ("ab", "cd"), strict=True):
        mean = (table[one] / table[one].norm() + table[other] / table[other].norm()) / 2
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_predictions_follow_the_procedure(pretrained: Path, pair_table: Path, tmp_path: Path, call: Run):
    files = sorted(pair_table.parent.glob("*-bar-1.png"))
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES), encoding="utf-8")
    out = tmp_path / "p.csv"
    words = ["predict", pretrained, *files, "--classes", ",".join(CLASSES), "--out", out, "--device", "cpu"]
    status, result, err = call([*words, "--templates", tmp_path / "templates.txt"])
    assert status == 0 and result["rows"] == 4, err
    found = pd.read_csv(out)
    loaded = read_towers(pretrained)
    texts = [template.format(name) for name in CLASSES for template in TEMPLATES]
    means = F.normalize(F.normalize(loaded.of_texts(texts), dim=1).reshape(3, 3, -1).mean(dim=1), dim=1)
    pixels = torch.stack(
        [torch.from_numpy(np.array(Image.open(f).resize((16, 16), Image.Resampling.BICUBIC))) for f in files]
    )
    expected = (loaded.towers.scale * loaded.towers.of_pictures(pixels) @ means.T).softmax(dim=1).detach()
    assert np.allclose(found[[f"p({name})" for name in CLASSES]], expected, atol=1e-5)
    assert found["prediction"].tolist() == [CLASSES[place] for place in expected.argmax(dim=1).tolist()]
    again = mt.zero_shot(
        [str(file) for file in files], CLASSES, encoder=str(pretrained), templates=TEMPLATES, device="cpu"
    )
    assert np.allclose(again["confidence"], expected.max(dim=1).values, atol=1e-5)
    near = mt.similarity([str(file) for file in files], texts, encoder=str(pretrained), device="cpu")
    assert near.shape == (4, 9) and np.abs(near).max() <= 1 + 1e-6


def test_a_sigmoid_model_judges_each_class_for_itself():
    vectors, classes = F.normalize(torch.randn(3, 4), dim=1), F.normalize(torch.randn(2, 4), dim=1)
    found = shares(vectors, classes, scale=10.0, bias=-3.0)
    assert torch.allclose(found, 1 / (1 + torch.exp(-(10 * vectors @ classes.T - 3))), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "red"], "must name two classes or more, each once; found red"),
        (["--classes", "red,red"], "must name two classes or more, each once"),
        (["--classes", "red,blue", "--templates", "no place"], "must be a text with {} where the class stands"),
        (["--classes", "red,blue", "--gallery", "x"], "must go without --task, --gallery and --encoder"),
    ],
)
def test_bad_questions_are_refused(words, message, pretrained: Path, pair_table: Path, tmp_path: Path, call: Run):
    status, _, err = call(["predict", pretrained, pair_table.parent, "--out", tmp_path / "p.csv", *words])
    assert status == 2 and message in " ".join(err.split()), err
    assert not (tmp_path / "p.csv").exists()


def test_what_shares_no_space_with_texts_is_refused(pretrained: Path, tmp_path: Path, pair_table: Path):
    file = [str(next(pair_table.parent.glob("*.png")))]
    with pytest.raises(
        UsageError, match="'test': must have a text tower; found an encoder without one. Ways out: a run"
    ):
        mt.zero_shot(file, CLASSES, encoder="test")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(pretrained / "model.safetensors", alone)
    with pytest.raises(UsageError, match="must have a text tower"):
        mt.zero_shot(file, CLASSES, encoder=f"{alone}/")
    (tmp_path / "fitted").mkdir()
    (tmp_path / "fitted" / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="must share a space with texts; found a fitted model"):
        mt.zero_shot(file, CLASSES, encoder=str(tmp_path / "fitted"))


def test_a_text_is_no_list_of_classes(pretrained: Path, pair_table: Path):
    with pytest.raises(UsageError, match="classes: must be a list of names; found 'red,blue'"):
        mt.zero_shot([str(next(pair_table.parent.glob("*.png")))], "red,blue", encoder=str(pretrained))


def test_a_text_tower_of_another_run_is_refused(pretrained: Path, tmp_path: Path):
    from safetensors import safe_open

    shutil.copytree(pretrained, tmp_path / "run")
    path = tmp_path / "run" / "text.safetensors"
    with safe_open(path, framework="pt") as file:
        record, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    tensors["log_scale"] = tensors["log_scale"] + 1
    save_file(tensors, path, metadata=record)
    with pytest.raises(WeightsError, match="text.safetensors: must belong to.*found changed bytes"):
        read_towers(tmp_path / "run")


# --- other libraries --------------------------------------------------------------------------------------------------


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of words that begins and ends texts as CLIP's does."""
    names = ["<|startoftext|>", "<|endoftext|>", "<unk>", "a", "red", "blue", "grey", "square", "bar"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [("<|startoftext|>", 0), ("<|endoftext|>", 1)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (2, 10, 10, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def normalised(pixels: torch.Tensor, mean: object, std: object) -> torch.Tensor:
    values = (pixels.float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    return values.permute(0, 3, 1, 2)


def given(folder: Path) -> Given:
    spec = parse_name(f"{folder}/")
    assert isinstance(spec, Given)
    return spec


def test_clip_of_transformers_gives_equal_vectors(tmp_path: Path):
    text = {**SHAPE, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "eos_token_id": 1, "bos_token_id": 0}
    vision = {**SHAPE, "image_size": 10, "patch_size": 5}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=OUTPUTS)
    model = randomize(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    loaded = read_foreign(f"{tmp_path}/", given(tmp_path), ways="")
    ids = torch.tensor([[0, 3, 4, 7, 1, 1], [0, 5, 1, 1, 1, 1]])
    pixels, stem = pictures(), loaded.encoder.stem
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=normalised(pixels, stem.mean, stem.std))
        assert torch.allclose(loaded.towers.of_texts(ids), out.text_embeds, **TOLERANCE)
        assert torch.allclose(loaded.of_texts(["a red square", "blue"]), out.text_embeds, **TOLERANCE)
        assert torch.allclose(loaded.towers.of_pictures(pixels), out.image_embeds, **TOLERANCE)
        near = loaded.towers.scale * out.image_embeds @ out.text_embeds.T
        assert torch.allclose(near, out.logits_per_image, **TOLERANCE)


def test_siglip_of_transformers_gives_equal_vectors(tmp_path: Path):
    text = {**SHAPE, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "projection_size": 21}
    vision = {**SHAPE, "image_size": 10, "patch_size": 5}
    model = randomize(transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)))
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    loaded = read_foreign(f"{tmp_path}/", given(tmp_path), ways="")
    ids, _ = loaded.words(["A red Square", "blue"])
    assert ids.shape == (2, CONTEXT)  # this tower reads its padding
    pixels, stem = pictures(), loaded.encoder.stem
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(ids), pixel_values=normalised(pixels, stem.mean, stem.std))
        assert torch.allclose(loaded.of_texts(["A red Square", "blue"]), out.text_embeds, **TOLERANCE)
        assert torch.allclose(loaded.towers.of_pictures(pixels), out.image_embeds, **TOLERANCE)
        near = loaded.towers.scale * out.image_embeds @ out.text_embeds.T + loaded.towers.bias
        assert torch.allclose(near, out.logits_per_image, **TOLERANCE)


def test_siglip_of_open_clip_on_pictures_of_timm_gives_equal_vectors(tmp_path: Path):
    """Their names, written from a model of transformers that computes the same."""
    shape = {**SHAPE, "hidden_size": 64, "num_attention_heads": 1}
    text = {**shape, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "projection_size": 64}
    config = transformers.SiglipConfig(text_config=text, vision_config={**shape, "image_size": 10, "patch_size": 5})
    model = randomize(transformers.SiglipModel(config))
    state = {timm_name(name): tensor for name, tensor in model.state_dict().items()}
    for name in [name for name in state if ".q_proj." in name]:
        parts = [state.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        joined = name.replace(".q_proj.", ".qkv." if "visual" in name else ".in_proj_")
        state[joined] = torch.cat(parts)
    for leaf in ("weight", "bias"):
        both = state.pop(f"visual.trunk.attn_pool.in_proj_{leaf}")
        state[f"visual.trunk.attn_pool.q.{leaf}"], state[f"visual.trunk.attn_pool.kv.{leaf}"] = both[:64], both[64:]
    state["visual.trunk.pos_embed"] = state["visual.trunk.pos_embed"][None]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "open_clip_model.safetensors")
    cfg = {"embed_dim": 64, "text_cfg": {"heads": 1}, "vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}), encoding="utf-8")
    save_tokenizer(tmp_path)
    loaded = read_foreign(f"{tmp_path}/", given(tmp_path), ways="")
    ids, pixels = torch.from_numpy(loaded.words(["A red Square", "blue"])[0]), pictures()
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=normalised(pixels, (0.5,) * 3, (0.5,) * 3))
        assert torch.allclose(loaded.towers.of_texts(ids), out.text_embeds, **TOLERANCE)
        assert torch.allclose(loaded.towers.of_pictures(pixels), out.image_embeds, **TOLERANCE)
        near = loaded.towers.scale * out.image_embeds @ out.text_embeds.T + loaded.towers.bias
        assert torch.allclose(near, out.logits_per_image, **TOLERANCE)
    with pytest.raises(UsageError, match="must be pooled as the tower does; found vectors pooled by 'summary'"):
        require_summary_of(open_space(f"{tmp_path}/", device="cpu"))


def require_summary_of(space: Space) -> None:
    pictures, _ = space.beside_texts()
    manifest = {"sha256": pictures.about["sha256"], "pooling": "summary"}
    _require_summary(Stored(Path("index"), (), manifest), pictures, where="here")


def timm_name(name: str) -> str:
    """What OpenCLIP and timm call a tensor of SigLIP that transformers calls ``name``."""
    pairs = {
        "vision_model.embeddings.patch_embedding": "visual.trunk.patch_embed.proj",
        "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
        "vision_model.encoder.layers": "visual.trunk.blocks",
        "vision_model.post_layernorm": "visual.trunk.norm",
        "vision_model.head.probe": "visual.trunk.attn_pool.latent",
        "vision_model.head.attention.in_proj": "visual.trunk.attn_pool.in_proj",
        "vision_model.head.attention.out_proj": "visual.trunk.attn_pool.proj",
        "vision_model.head.layernorm": "visual.trunk.attn_pool.norm",
        "vision_model.head": "visual.trunk.attn_pool",
        "text_model.embeddings.token_embedding": "text.token_embedding",
        "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
        "text_model.encoder.layers": "text.transformer.resblocks",
        "text_model.final_layer_norm": "text.ln_final",
        "text_model.head": "text.text_projection",
    }
    for theirs, other in pairs.items():
        name = name.replace(theirs, other)
    if name.startswith("visual"):
        return (
            name.replace("self_attn.out_proj", "attn.proj").replace("self_attn", "attn").replace("layer_norm", "norm")
        )
    if name.startswith("text.transformer"):
        name = name.replace("self_attn", "attn").replace("layer_norm", "ln_")
        name = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
    return name


@pytest.mark.parametrize("prefix", ["", "text."])
def test_the_layout_of_open_clip_holds_the_same_towers(tmp_path: Path, prefix: str):
    """OpenCLIP's names and turned maps, written from a model of transformers that computes the same."""
    text = {**SHAPE, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "eos_token_id": 1, "hidden_act": "gelu"}
    vision = {**SHAPE, "image_size": 10, "patch_size": 5, "hidden_act": "gelu"}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=OUTPUTS)
    model = randomize(transformers.CLIPModel(config))
    save_as_open_clip(model, tmp_path, prefix)
    loaded = read_foreign(f"{tmp_path}/", given(tmp_path), ways="")
    ids, pixels, stem = torch.tensor([[0, 3, 4, 1]]), pictures(), loaded.encoder.stem
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=normalised(pixels, stem.mean, stem.std))
        assert torch.allclose(loaded.towers.of_texts(ids), out.text_embeds, **TOLERANCE)
        assert torch.allclose(loaded.towers.of_pictures(pixels), out.image_embeds, **TOLERANCE)


def save_as_open_clip(model: torch.nn.Module, folder: Path, prefix: str) -> None:
    state = {}
    for name, tensor in model.state_dict().items():
        state[open_clip_name(name, prefix)] = tensor.T if name.endswith("projection.weight") else tensor
    for name in [name for name in state if ".q_proj." in name]:
        parts = [state.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        state[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")
    cfg = {"embed_dim": OUTPUTS, "text_cfg": {"heads": 3}, "vision_cfg": {"head_width": 7, "width": 21, "layers": 2}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}), encoding="utf-8")
    save_tokenizer(folder)


def test_a_known_trunk_brings_its_towers_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = {**SHAPE, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "eos_token_id": 1, "hidden_act": "gelu"}
    vision = {**SHAPE, "image_size": 10, "patch_size": 5, "hidden_act": "gelu"}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=OUTPUTS)
    save_as_open_clip(randomize(transformers.CLIPModel(config)), tmp_path, "")
    asked = []

    def cached(source: WeightSource) -> Path:
        asked.append((source.address, source.file))
        return tmp_path / source.file

    monkeypatch.setattr(fetch, "hub_cached", cached)
    pictures, texts = open_space("meta-b16", device="cpu").beside_texts()
    assert texts.of(["a red bar"]).shape == (1, OUTPUTS) and pictures.about["space"] == "meta-b16"
    assert {address for address, _ in asked} == {"laion/CLIP-ViT-B-16-laion2B-s34B-b88K"} and len(asked) == 3


def open_clip_name(name: str, prefix: str) -> str:
    pairs = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding": "visual.conv1",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
        "vision_model.encoder.layers": "visual.transformer.resblocks",
        "visual_projection.weight": "visual.proj",
        "text_model.embeddings.token_embedding": f"{prefix}token_embedding",
        "text_model.embeddings.position_embedding.weight": f"{prefix}positional_embedding",
        "text_model.encoder.layers": f"{prefix}transformer.resblocks",
        "text_model.final_layer_norm": f"{prefix}ln_final",
        "text_projection.weight": f"{prefix}text_projection",
        "self_attn.out_proj": "attn.out_proj",
        "self_attn": "attn",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for theirs, other in pairs.items():
        name = name.replace(theirs, other)
    return name


def test_weights_without_their_tokenizer_are_refused(tmp_path: Path):
    text = {**SHAPE, "vocab_size": WORDS, "max_position_embeddings": CONTEXT}
    vision = {**SHAPE, "image_size": 10, "patch_size": 5}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=OUTPUTS)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="must hold the tokenizer of its text tower; found no tokenizer.json"):
        read_foreign(f"{tmp_path}/", given(tmp_path), ways="")
