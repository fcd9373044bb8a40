"""The file formats of a graph: ONNX, OpenVINO's, torch's own; each written whole and run as its users run it."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from metatransformer.core.border import foreign
from metatransformer.core.errors import MissingDependencyError, UsageError
from metatransformer.export.graph import OUTPUTS
from metatransformer.trunk.backends import import_openvino

Run = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]
OPSET = 20
BY_ONNX = (
    "Install what writes ONNX, by which it goes then: pip install 'metatransformer[export]'; or use --format onnx."
)


@dataclass(frozen=True)
class Format:
    """One format: its ``file``, the packages that write it (``needs``) and those that run it, and the ``extra``."""

    file: str
    needs: tuple[str, ...]
    runs: tuple[str, ...]
    extra: str


FORMATS: Mapping[str, Format] = {
    "onnx": Format("model.onnx", ("onnxscript", "onnxruntime"), ("onnxruntime",), "export"),
    "openvino": Format("model.xml", ("openvino",), ("openvino",), "openvino"),
    "torch": Format("model.pt2", (), ("torch",), ""),
}


def require_format(name: str) -> Format:
    """Returns a format that can be written here.

    Raises:
        UsageError: no such format.
        MissingDependencyError: a package that writes it is not installed.
    """
    if name not in FORMATS:
        raise UsageError("--format", must=f"be one of {', '.join(FORMATS)}", found=repr(name))
    chosen = FORMATS[name]
    for package in chosen.needs:
        if find_spec(package) is None:
            raise MissingDependencyError(package, extra=chosen.extra, purpose=f"export --format {name}")
    return chosen


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what the exporters say to those who wrote them."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        finally:
            logging.disable(before)


def write_graph(program: torch.export.ExportedProgram, path: Path, *, names: Sequence[str]) -> None:
    """Writes a traced graph in the format of the file's ending; ``names`` are those of its inputs."""
    with quiet():
        if path.suffix == ".onnx":
            _write_onnx(program, path, names=names)
        elif path.suffix == ".xml":
            _write_openvino(program, path, names=names)
        else:
            torch.export.save(program, path)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, *, names: Sequence[str]) -> None:
    made = torch.onnx.export(
        program, input_names=names, output_names=OUTPUTS, opset_version=OPSET, dynamo=True, verbose=False
    )
    assert made is not None
    made.save(path)


def _write_openvino(program: torch.export.ExportedProgram, path: Path, *, names: Sequence[str]) -> None:
    """Writes OpenVINO's format: by way of ONNX where that can be written, for it then knows every operation.

    Raises:
        UsageError: the graph has an operation that OpenVINO does not know by itself.
    """
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        source: object = program
        if find_spec("onnxscript"):
            source = Path(folder) / "model.onnx"
            _write_onnx(program, Path(folder) / "model.onnx", names=names)
        with foreign(
            "export --format openvino",
            "OpenVINO",
            must="know every operation of the graph",
            do=BY_ONNX,
            kind=UsageError,
        ):
            graph = openvino.convert_model(source)
        for ports, given in ((graph.inputs, names), (graph.outputs, OUTPUTS)):
            for port, name in zip(ports, given, strict=True):
                port.get_tensor().set_names({name})
        openvino.save_model(graph, path, compress_to_fp16=False)


def read_graph(path: Path, *, names: Sequence[str]) -> Run:
    """Returns what runs a written graph, as the folder's own ``run.py`` does."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda given: [np.asarray(out) for out in session.run(None, {name: given[name] for name in names})]
    if path.suffix == ".xml":
        compiled = import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda given: [*compiled({name: given[name] for name in names}).values()]
    module = torch.export.load(path).module(check_guards=False)
    return lambda given: [out.numpy() for out in module(*(torch.from_numpy(given[name]) for name in names))]
