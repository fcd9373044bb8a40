"""Ways to compute the layers of a frozen trunk: as they stand, compiled by torch, or by OpenVINO (an extra), which also
multiplies numbers of 8 bits.

A way belongs to a call and not to a saved model; a trunk that learns is always computed by the layers as they stand.
The others are made once for what is read and for batches with and without padding, and then take batches of any size.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from metatransformer.core.errors import MissingDependencyError, UsageError
from metatransformer.nn.int8 import with_int8
from metatransformer.trunk.cache import cache_folder, make_room

BACKENDS = ("eager", "compile", "openvino", "int8")
LONG_ROW = 1024  # tokens
GROUP = 64  # numbers of a token that share a scale where products are of 8 bits
MOST_CONVERTED = 4 * 2**30  # bytes of converted trunks that are kept; one of ViT-B/16 has 0.34 GB
COMPILERS = (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")  # where torch looks for one
_CHOSEN: ContextVar[str] = ContextVar("backend", default="eager")
_RECOMPUTES: ContextVar[bool] = ContextVar("recomputes", default=False)


@contextmanager
def backend(name: str, *, recompute: bool = False) -> Iterator[None]:
    """Lets frozen trunks be computed by "eager" (the layers as they stand), "compile" (torch, seconds to minutes until
    the first answer, needs a C++ compiler), "openvino" (on a CPU, in the precision of the call) or "int8" (by
    OpenVINO, with products of 8-bit numbers, all else in float32).

    Gradients pass through what "compile" made as well; elsewhere through the layers as they stand, which ``recompute``
    lets keep only what goes into each block: the rest is computed again in the backward pass.

    Raises:
        UsageError: another name, or no C++ compiler.
        MissingDependencyError: OpenVINO is not installed.
    """
    if name not in BACKENDS:
        raise UsageError("backend", must=f"be one of {', '.join(BACKENDS)}", found=repr(name))
    if name == "compile" and not any(map(shutil.which, COMPILERS)):
        do = "Install one, or use the backend eager or openvino."
        raise UsageError("backend compile", must="find a C++ compiler", found=f"none of {', '.join(COMPILERS)}", do=do)
    if name in ("openvino", "int8"):
        import_openvino()
    tokens = _CHOSEN.set(name), _RECOMPUTES.set(recompute)
    try:
        yield
    finally:
        _CHOSEN.reset(tokens[0])
        _RECOMPUTES.reset(tokens[1])


def chosen_backend() -> str:
    """Returns the way that the caller asked for."""
    return _CHOSEN.get()


def recomputes() -> bool:
    """Returns whether blocks are computed again in the backward pass."""
    return _RECOMPUTES.get()


def has_openvino() -> bool:
    """Returns whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


class _Reading(nn.Module):
    """The layers read after fixed blocks, with a mask or without."""

    def __init__(self, trunk: nn.Module, after: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.after = tuple(after)

    def forward(self, x: Tensor, *masks: Tensor) -> list[Tensor]:
        """Returns tokens after each of the blocks."""
        return self.trunk(x, masks[0] if masks else None, after=self.after)


class Compiled:
    """The layers as torch compiles them."""

    def __init__(self, trunk: nn.Module, after: Sequence[int]) -> None:
        self.layers = torch.compile(_Reading(trunk, after), dynamic=True)

    def __call__(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Returns tokens after each of the blocks."""
        return self.layers(x, *(() if mask is None else (mask,)))


class OpenVINO:
    """The layers as OpenVINO computes them on a CPU, in ``dtype``; what it converted is kept in the cache.

    Int8 is the type of what is multiplied with weights; what lies between is float32. ``identity`` tells its weights
    and shape. Rows are computed in ``streams`` side by side, each by one thread.
    """

    def __init__(
        self, trunk: nn.Module, after: Sequence[int], *, width: int, dtype: torch.dtype, identity: str
    ) -> None:
        self._reading, self._width, self._dtype = _Reading(trunk, after).eval(), width, dtype
        told = f"{identity} {tuple(after)} {import_openvino().__version__}{' int8' * (dtype == torch.int8)}"
        self._name = hashlib.sha256(told.encode()).hexdigest()[:32]
        self._made: dict[tuple[bool, int], list[Any]] = {}
        self.streams = torch.get_num_threads()

    def __call__(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Returns tokens after each of the blocks.

        Raises:
            UsageError: the tokens are not on a CPU.
        """
        if x.device.type != "cpu":
            raise UsageError(f"backend {chosen_backend()}", must="run on the device 'cpu'", found=str(x.device))
        # A few long rows are faster by all threads together.
        streams = 1 if len(x) < self.streams and x.shape[1] >= LONG_ROW else self.streams
        masked = mask is not None
        if (masked, streams) not in self._made:
            self._made[masked, streams] = self._compiled(masked, streams=streams)
        requests = self._made[masked, streams][: len(x)]
        given = [x.float().numpy()] + ([] if mask is None else [mask.numpy()])
        pieces = zip(*(np.array_split(values, len(requests)) for values in given), strict=True)
        for request, own in zip(requests, pieces, strict=True):
            request.start_async(list(own), share_inputs=True)
        for request in requests:
            request.wait()
        found = [[torch.from_numpy(tensor.data) for tensor in request.output_tensors] for request in requests]
        return [torch.cat(layer) for layer in zip(*found, strict=True)]

    def _compiled(self, masked: bool, *, streams: int) -> list[Any]:
        """Returns what computes batches with or without padding, one a stream."""
        openvino = import_openvino()
        file = cache_folder() / "openvino" / f"{self._name}{'-masked' if masked else ''}.xml"
        if not file.is_file():
            self._convert(file, masked)
            own = sum(file.with_suffix(suffix).stat().st_size for suffix in (".xml", ".bin"))
            make_room(file.parent, "*", most=max(MOST_CONVERTED, own))
        for suffix in (".xml", ".bin"):
            os.utime(file.with_suffix(suffix))  # what is used stays
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._dtype == torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": self.streams,
            "NUM_STREAMS": streams,
            **({"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP)} if self._dtype == torch.int8 else {}),
        }
        compiled = core.compile_model(core.read_model(file), "CPU", settings)
        return [compiled.create_infer_request() for _ in range(streams)]

    def _convert(self, file: Path, masked: bool) -> None:
        """Writes the graph and its weights, each whole or not at all."""
        openvino = import_openvino()
        file.parent.mkdir(parents=True, exist_ok=True)
        axes = {0: torch.export.Dim("rows", min=1, max=2**20), 1: torch.export.Dim("count", min=1, max=2**20)}
        given = torch.zeros(2, 3, self._width), torch.ones(2, 3, dtype=torch.bool)
        shapes = {"x": axes, "masks": (axes,)} if masked else {"x": axes}
        with warnings.catch_warnings(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # of torch's exporter, for those who wrote it
            reading = with_int8(self._reading) if self._dtype == torch.int8 else self._reading
            exported = torch.export.export(reading, given[: 1 + masked], dynamic_shapes=shapes)
            graph = openvino.convert_model(exported)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            written = Path(folder) / file.name
            openvino.save_model(graph, written, compress_to_fp16=False)
            for suffix in (".bin", ".xml"):  # who finds the graph finds its weights
                os.replace(written.with_suffix(suffix), file.with_suffix(suffix))


def import_openvino() -> Any:
    """Returns OpenVINO, which sends nothing about its use: the package that would is hidden from it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError("openvino", extra="openvino", purpose="backend openvino") from error
    return openvino
