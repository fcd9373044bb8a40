"""Running something over all batches of a split."""

from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device, choose_precision
from metatransformer.pipeline import Pipeline


@torch.no_grad()
def run_batches(
    compute: Callable[[Batch], Tensor], pipeline: Pipeline, loader: Loader, *, console: Console, title: str
) -> Tensor:
    """Returns ``compute``, by the pipeline's model, of every batch as rows in the order of the loader's samples,
    float32 on the CPU.
    """
    device = choose_device(pipeline.recipe.run.device)
    precision = choose_precision(pipeline.recipe.run.precision, device=device)
    pipeline.model.to(device).eval()
    rows: Tensor | None = None
    with (
        console.bar(title, total=len(loader)) as bar,
        closing(loader.in_order(batch_size=pipeline.recipe.data.batch_size)) as batches,
    ):
        for indices, batch in batches:
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                out = compute(batch.to(device))
            if rows is None:
                rows = torch.empty(len(loader), *out.shape[1:])
            rows[torch.as_tensor(indices)] = out.float().cpu()
            bar.advance(len(indices))
    assert rows is not None, "no samples"
    return rows
