"""Shards made by Ray Data: actors that hold one model each, on this machine or a cluster.

Ray hands out numbers of shards; what a shard is, the manifest says. An actor reads its samples, embeds them and writes
the shard itself, whole, so that a killed actor, machine or driver costs what it was working on and nothing twice. Ray's
usage statistics are off, and no dashboard is started.
"""

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from metatransformer.core.errors import DataError, MetaTransformerError, MissingDependencyError, UsageError
from metatransformer.infer.by_shards import Engine, Work
from metatransformer.machine.console import Console
from metatransformer.machine.device import processors

AHEAD = 2  # shards that wait at an actor while it makes one


def ray_engine(*, workers: int, address: str) -> Engine:
    """Returns what makes shards by ``workers`` actors (0 = one for each GPU or, without any, each processor), in the
    cluster at ``address`` ("" starts one here).

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("ray[data]", extra="scale", purpose="--engine ray") from error
    return partial(_make, workers=workers, address=address)


def _make(work: Work, pending: Sequence[int], console: Console, *, workers: int, address: str) -> int:
    import ray
    from ray.exceptions import RayError

    _start(address)
    devices = int(ray.cluster_resources().get("GPU", 0))
    workers = min(workers or devices or int(ray.cluster_resources().get("CPU", 1)), len(pending))
    gpus, cpus = (1, None) if devices >= workers else (None, 1)
    data = ray.data.from_items([{"shard": shard} for shard in pending], override_num_blocks=len(pending))
    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=AHEAD)
    maker: Any = _Maker  # a class whose objects are called: Ray makes one in each actor
    made = data.map(maker, fn_constructor_args=([ray.put(work)],), compute=pool, num_gpus=gpus, num_cpus=cpus)
    skipped = 0
    console.note(f"{len(pending)} shards by {workers} workers")
    try:
        with console.bar("shards", total=len(pending)) as bar:
            for row in made.iter_rows():
                if row["must"]:
                    raise DataError(row["where"], must=row["must"], found=row["found"], do=row["do"])
                skipped += row["skipped"]
                bar.advance()
    except RayError as error:
        found = str(error).strip().splitlines()[-1]
        raise UsageError("--engine ray", must="have workers that stay alive", found=found) from error
    finally:
        ray.shutdown()
    return skipped


def _start(address: str) -> None:
    """Starts Ray here, or joins a cluster."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: on a busy machine actors would hardly start
    import ray

    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else processors(),
            include_dashboard=None if address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        found = str(error).strip().splitlines()[0]
        raise UsageError("--address", must="be that of a running Ray cluster", found=found) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


class _Maker:
    """One actor: a model, and every shard that it is given."""

    def __init__(self, work: list[Any]) -> None:
        import ray

        torch.set_num_threads(max(1, processors() // max(1, int(ray.cluster_resources().get("CPU", 1)))))
        self.work: Work = ray.get(work[0])

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        told = {"shard": row["shard"], "skipped": 0, "where": "", "must": "", "found": "", "do": ""}
        if row["shard"] not in self.work.shards.missing():  # Ray has asked twice: another actor had made it and died
            return told
        try:
            return told | {"skipped": self.work.make(row["shard"], Console(quiet=True))}
        except MetaTransformerError as error:
            return told | {"where": error.where, "must": error.must, "found": error.found, "do": error.do}
