"""How large a shard should be: many workers, some of them slow, each killed now and then, make all shards of a set.

    python docs/simulate_scale.py                 prints the tables of docs/scale.md
    python docs/simulate_scale.py --figure FILE   draws them as well

A worker starts (container, weights), takes a shard, makes it in ``overhead + files / rate`` times its own slowness and
a bit of chance, and writes it. One that is killed loses the shard that it was making, and starts again. Shards are
handed out as workers become free (``queue``: Ray, or more parts than workers), or each worker has its own ``I/N``.
"""

import argparse
import heapq
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fleet:
    """Workers, and what they do to a shard. Times are in seconds, ``rate`` in files a second of a usual worker."""

    workers: int = 1000
    rate: float = 400.0  # ViT-B/16 at 224 pixels, in bfloat16 on one GPU, fed by four cores that decode
    overhead: float = 0.5  # a shard's list, first batch, last batch and write
    start: float = 120.0  # of a container with 1 GB of packages and 350 MB of weights
    slow: float = 0.03  # share of workers that are three times as slow, on a busy disk or network
    killed_every: float = 6 * 3600.0  # of one worker in the mean, as preempted machines are
    spread: float = 0.15  # of the time of a shard, of its logarithm


def simulate(files: int, size: int, fleet: Fleet, *, queue: bool = True, seed: int = 0) -> dict[str, float]:
    """Returns hours until all is there, the share of the fleet's time that went into results, and what was lost."""
    rng = np.random.default_rng(seed)
    shards = -(-files // size)
    slowness = np.where(rng.random(fleet.workers) < fleet.slow, 3.0, 1.0)
    death = fleet.start + rng.exponential(fleet.killed_every, fleet.workers)
    free = [(fleet.start, worker) for worker in range(fleet.workers)]
    left = [len(range(worker, shards, fleet.workers)) for worker in range(fleet.workers)]
    chance = rng.lognormal(0.0, fleet.spread, 4096)
    todo, lost, kills, last, drawn = shards, 0.0, 0, 0.0, 0
    while free:
        now, worker = heapq.heappop(free)
        if not (todo if queue else left[worker]):
            continue
        drawn += 1
        end = now + fleet.overhead + size / fleet.rate * slowness[worker] * chance[drawn % 4096]
        if death[worker] < end:  # the shard goes back, and is the next one that somebody takes
            kills, lost = kills + 1, lost + max(0.0, death[worker] - now)
            again = max(now, death[worker]) + fleet.start
            death[worker] = again + rng.exponential(fleet.killed_every)
            heapq.heappush(free, (again, worker))
            continue
        todo, left[worker], last = todo - 1, left[worker] - 1, max(last, end)
        heapq.heappush(free, (end, worker))
    ideal = files / fleet.rate
    return {
        "shards": shards,
        "hours": last / 3600,
        "useful": ideal / (last * fleet.workers),
        "kills": kills,
        "lost": lost / ideal,
    }


SIZES = [2**n for n in range(6, 19, 2)]
FILES = 100_000_000


def table(fleet: Fleet, *, queue: bool) -> list[dict[str, float]]:
    """Returns a row for each size of a shard."""
    return [{"size": size} | simulate(FILES, size, fleet, queue=queue) for size in SIZES]


FLEETS = {
    "1,000 GPUs": Fleet(),
    "64 GPUs": Fleet(workers=64),
    "256 processor cores": Fleet(workers=256, rate=5.0, start=30.0),
}


def main() -> None:
    """Prints the tables, and draws them where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", metavar="FILE")
    figure, found = parser.parse_args().figure, {}
    for name, fleet in FLEETS.items():
        for queue in (True, False):
            found[name, queue] = rows = table(fleet, queue=queue)
            print(f"\n{name}, {'a queue of shards' if queue else 'shards I/N of its own for each worker'}\n")
            print(
                "| files a shard | shards | hours | useful time | kills | made twice |\n|---:|---:|---:|---:|---:|---:|"
            )
            for row in rows:
                shape = "| {size:,.0f} | {shards:,.0f} | {hours:.2f} | {useful:.0%} | {kills:,.0f} | {lost:.2%} |"
                print(shape.format(**row))
    if figure:
        draw(found, figure)


def draw(found: dict[tuple[str, bool], list[dict[str, float]]], path: str) -> None:
    """Draws the share of useful time by the size of a shard."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for colour, name in zip(("tab:blue", "tab:green", "tab:orange"), FLEETS, strict=True):
        for queue in (True, False):
            rows = found[name, queue]
            label = f"{name}, {'queue' if queue else 'I/N'}"
            x, y = [row["size"] for row in rows], [100 * row["useful"] for row in rows]
            axes.plot(x, y, "o-" if queue else "x--", color=colour, label=label)
    axes.set(xscale="log", xlabel="files a shard", ylabel="useful time, %", ylim=(0, 100))
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
