"""Training by several processes, each of which holds a part of every parameter of a trunk that learns (FSDP2).

What lies between two steps of training is many times the trunk: gradients, two moments, an average, the best epoch's
weights. Each process has its part of all that; a block is gathered while it computes. Beside a trunk that is tuned
stands the whole one that the process reads features with, before and after. Checkpoints are those of
``torch.distributed.checkpoint``: a folder of parts that any number of processes loads.
"""

import copy
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from metatransformer.core.errors import DataError
from metatransformer.infer.loader import Place
from metatransformer.model import MetaTransformer
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import keeps_trunk

_DONE = ".metadata"  # is written last


def shards_trunk(pipeline: Pipeline, place: Place) -> bool:
    """Returns whether each process holds a part of the trunk: where it learns itself, and every process calls it as
    often as the others in a step, which samples of several inputs or tasks do not.
    """
    alone = len(pipeline.route) == len(pipeline.tasks) == 1
    return place.world > 1 and alone and not keeps_trunk(pipeline.recipe.tune)


def with_parts(model: MetaTransformer, *, device: torch.device, place: Place) -> MetaTransformer:
    """Returns the model with a copy of its trunk of which each process holds a part; the rest of it is shared."""
    encoder = copy.deepcopy(model.encoder)
    encoder.in_one = True
    share_out(encoder, encoder.blocks, device=device, place=place)
    return model.with_encoder(encoder)


def share_out(module: nn.Module, blocks: Iterable[nn.Module], *, device: torch.device, place: Place) -> None:
    """Leaves each process a part of every parameter of a module; each of its ``blocks`` is gathered by itself."""
    mesh = init_device_mesh(device.type, (place.world,))
    for own in (*blocks, module):
        # The outermost would stay gathered after a forward pass without a backward one, whatever is loaded then.
        fully_shard(own, mesh=mesh, reshard_after_forward=True)


def local(x: Tensor) -> Tensor:
    """Returns this process's part of a tensor, the tensor itself where it is whole; both share memory."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """Returns all of a tensor; every process must ask."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Clips the norm of all gradients together, as ``torch.nn.utils.clip_grad_norm_`` does of tensors of one kind."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    parts = [grad for grad in grads if isinstance(grad, DTensor)]
    squares = sum((local(grad).square().sum() for grad in parts), start=torch.zeros((), device=grads[0].device))
    dist.all_reduce(squares)
    squares = squares + sum(grad.square().sum() for grad in grads if not isinstance(grad, DTensor))
    factor = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in grads:
        local(grad).mul_(factor)


def share_gradients(parameters: Iterable[nn.Parameter], place: Place) -> None:
    """Averages gradients over all processes, in place.

    One averaged copy instead of DistributedDataParallel: what is whole is small, and nothing has to be wrapped.
    """
    for parameter in parameters if place.world > 1 else ():
        if isinstance(parameter, DTensor):  # it has been averaged on its way
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= place.world


def moments_of(optimizer: torch.optim.Optimizer, learning: Mapping[str, nn.Parameter]) -> dict[str, dict[str, Any]]:
    """Returns what AdamW remembers of each parameter by its name, so that any number of processes can take it up."""
    moments = {}
    for name, parameter in learning.items():
        state = optimizer.state[parameter]
        if not state:  # before the first step
            zeros = {key: torch.zeros_like(parameter.detach()) for key in ("exp_avg", "exp_avg_sq")}
            state |= {"step": torch.tensor(0.0), **zeros}
        moments[name] = state
    return moments


def save_parts(folder: Path, state: Mapping[str, Any], *, step: int, place: Place) -> None:
    """Writes a checkpoint of all processes beside the one before, which then goes."""
    path = folder / f"step-{step:09d}"
    dcp.save(dict(state), checkpoint_id=path)
    if place.rank == 0:
        drop_parts(folder, but=path)
    dist.barrier()


def drop_parts(folder: Path, *, but: Path | None = None) -> None:
    """Removes checkpoints that ``save_parts`` wrote."""
    for path in folder.glob("step-*"):
        if path != but:
            shutil.rmtree(path, ignore_errors=True)


def newest_parts(folder: Path) -> Path | None:
    """Returns the last complete checkpoint that ``save_parts`` wrote."""
    return max((path.parent for path in folder.glob(f"step-*/{_DONE}")), default=None)


def load_parts(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Returns ``state`` with the values of a checkpoint; tensors are filled in place, in the parts that they have.

    Raises:
        DataError: the checkpoint is damaged.
    """
    try:
        with warnings.catch_warnings():  # one process may well load what several have written
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            dcp.load(state, checkpoint_id=path, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        found = str(next(iter(error.failures.values()))).splitlines()[0]
        raise DataError(
            path, must="be a checkpoint of this run", found=found, do="Start again with --overwrite."
        ) from error
    return state
