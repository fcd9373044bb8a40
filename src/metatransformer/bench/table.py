"""From the lines of the rows to figures, and the table of results as Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from metatransformer.bench.paired import paired_error, pairs
from metatransformer.bench.verdicts import HEAD, RIVALS, verdicts
from metatransformer.tasks import known_score

COLUMNS = {
    "pretrained": "ours",
    "constant": "constant answer",
    "baseline": "plain baseline",
    "strong": "strong baseline",
    "identity": "no trunk",
    "random": "random trunk",
}
SPENT = ("fit, minutes", "memory, MiB")
POOLED = "pooled_balanced_accuracy"  # of the test samples of all folds together
RANGES = (
    "In brackets stand the lowest and the highest: of the random trunks or seeds, each a mean over the folds, where "
    "there are several; else of the folds."
)

IN_WORDS = (
    'In words. "Clearly" is by more than two standard errors, and in every fold or run. What to use is the simplest '
    "model that none was clearly better than."
)


def summarise(lines: Sequence[Mapping[str, Any]], *, metrics: Sequence[str]) -> dict[str, Any]:
    """Returns, by model and metric, mean, lowest and highest; the gain of the trunk; what was spent.

    The range is over seeds (of the mean over folds) where there are several, else over folds. What is said to be spent
    is what the first fit spent: later ones share its samples.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["variant"].partition("#")[0], []).append(line)
    scores = {
        name: {metric: _spread(group, metric) for metric in metrics if metric == POOLED or metric in group[0]["scores"]}
        for name, group in groups.items()
    }
    ours = groups.get("pretrained", [])
    others = [name for name in ("random", *RIVALS) if {"pretrained", name} <= groups.keys()]
    return {
        "scores": scores,
        "gains": {name: {metric: _gain(groups, name, metric) for metric in metrics} for name in others},
        "errors": {name: paired_error(ours, groups[name], metric=metrics[0]) for name in others},
        "methods": {name: _methods(group) for name, group in groups.items() if "method" in group[0]},
        "parameters": {name: group[0]["parameters"] for name, group in groups.items() if "parameters" in group[0]},
        "samples": ours[0]["samples"] if ours else {},
        "tested": sum({line["fold"]: line["samples"]["test"] for line in ours}.values()),
        "independent": sum({line["fold"]: line.get("independent", 0) for line in ours}.values()),
        "tune": ours[0]["tune"] if ours else "",
        "seconds": sum(line["seconds"] for line in lines),
        "fit_seconds": ours[0]["seconds"] if ours else 0.0,
        "spent": {name: group[0]["seconds"] for name, group in groups.items()},
        "revisions": sorted({line["revision"] for line in lines if line.get("revision")}),
        "peak_mib": ours[0]["peak_mib"] if ours else 0,
        "trunks": _trunks(groups.get("random", [])),
        # How many fits of a tune mode kept what training had changed, of how many.
        "tuned": {
            name: (sum(not line.get("untuned", False) for line in group), len(group))
            for name, group in groups.items()
            if name.startswith("tune:")
        },
    }


def _methods(group: Sequence[Mapping[str, Any]]) -> str:
    """Returns what was chosen, and in how many folds where they did not choose the same."""
    chosen = Counter(line["method"] for line in group).most_common()
    if len(chosen) == 1:
        return chosen[0][0]
    return ", ".join(f"{name} in {count} of {len(group)} folds" for name, count in chosen)


def _trunks(group: Sequence[Mapping[str, Any]]) -> int:
    """Returns how many random trunks were drawn: the same ones, by number or seed, in each fold, or one for each."""
    drawn = {(line["variant"], line["seed"]) for line in group}
    return len(drawn) if len(drawn) > 1 else len({line["fold"] for line in group})


def _spread(group: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    runs: dict[Any, list[Mapping[str, Any]]] = {}
    for line in group:
        runs.setdefault((line["variant"], line["seed"]), []).append(line)
    seeds = {
        run: [_pooled(lines)] if metric == POOLED else [line["scores"][metric] for line in lines]
        for run, lines in runs.items()
    }
    means = [mean(values) for values in seeds.values()]
    values = means if len(means) > 1 else next(iter(seeds.values()))
    return {"mean": mean(means), "low": min(values), "high": max(values), "runs": len(group)}


def _pooled(folds: Sequence[Mapping[str, Any]]) -> float:
    """Returns the balanced accuracy of all folds' test samples together."""
    counts = np.sum([fold["confusion"] for fold in folds], axis=0)
    present = counts.sum(axis=1) > 0
    return float((counts.diagonal()[present] / counts.sum(axis=1)[present]).mean())


def _gain(groups: Mapping[str, Sequence[Mapping[str, Any]]], name: str, metric: str) -> dict[str, float]:
    """Returns by how much the pretrained trunk is better than something else in the same fold and with the same seed.

    The range is over random trunks or seeds (of their means over folds) where a fold has several, else over folds.
    """
    sign = 1 if known_score(metric).higher else -1
    if metric == POOLED:
        ours, other = _spread(groups["pretrained"], metric), _spread(groups[name], metric)
        ends = sorted(ours["mean"] - other[end] for end in ("low", "high"))
        return {"mean": ours["mean"] - other["mean"], "low": ends[0], "high": ends[1]}
    runs: dict[Any, list[float]] = {}
    for own, other in pairs(groups["pretrained"], groups[name]):
        difference = sign * (own["scores"][metric] - other["scores"][metric])
        runs.setdefault((other["variant"], own["seed"]), []).append(difference)
    means = [mean(values) for values in runs.values()]
    values = means if len(means) > 1 else next(iter(runs.values()))
    return {"mean": mean(means), "low": min(values), "high": max(values)}


def markdown(results: Mapping[str, Any]) -> str:
    """Returns the table, what it says in plain words, and how it was made."""
    done = complete(results["rows"])
    parts = [table(head(), [cells(row, metric) for row in done for metric in row["metrics"]]), RANGES]
    parts.append(f"{IN_WORDS}\n\n{table(HEAD, verdicts(done))}")
    if modes := _modes(done):
        parts.append("\n".join(["Other tune modes (seed 0):", "", *modes]))
    if networks := _networks(done):
        parts.append("\n".join(["A small U-Net from scratch, of as many minutes as the fit took:", "", *networks]))
    if published := _published(results["rows"]):
        parts.append("\n".join(["Published figures (not run here):", "", *published]))
    if missing := [row for row in results["rows"] if row["status"] != "done"]:
        parts.append("\n".join(f"* {row['name']}: {row['status']}. {row['words']}" for row in missing))
    parts.append("\n".join(_about(row) for row in results["rows"]))
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    note = "A part of the data, one fold and one seed only. " if results["quick"] else ""
    made = f"Made by `{results['command']}` ({about})."
    parts.append(f"{note}Trunk `{results['encoder']}`. {_spent(results)} {made}")
    return "\n\n".join(part for part in parts if part) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def complete(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rows that were run to their end: means over a part of the folds compare with nothing."""
    return [row for row in rows if row["status"] == "done" and "pretrained" in row["scores"]]


def _spent(results: Mapping[str, Any]) -> str:
    """Returns how long the fits and baselines of all rows took together, and the call if nothing of it was there."""
    apart = sum(row["seconds"] for row in results["rows"]) / 60
    whole = results.get("call_minutes")
    call = "several calls" if whole is None else f"one call of {whole:.0f} minutes"
    return f"Fits and baselines of all rows: {apart:.0f} minutes, one after the other, in {call}."


def _about(row: Mapping[str, Any]) -> str:
    strong = row["methods"].get("strong", "-")
    what = f"{row['summary']}; split: {row['split']}; strong baseline: {strong}"
    made = f"; made at {', '.join(row['revisions'])}" if row["revisions"] else ""
    made += f"; {row['words']}" if row["status"] == "done" and row["words"] else ""
    return f"* {row['name']} ({row['modality']}): {what}; licence: {row['licence']}; {row['source']}{made}"


def head() -> list[str]:
    """Returns the titles of the columns."""
    return ["data", "metric", *COLUMNS.values(), "trunk gain", "trainable (tokenizer / trunk / head)", *SPENT]


def cells(row: Mapping[str, Any], metric: str) -> list[str]:
    """Returns one line of the table."""
    scores = [figure(row, name, metric) for name in COLUMNS]
    gain = row["gains"].get("random", {}).get(metric)
    text = "-" if gain is None else f"{gain['mean']:+.3f} ({gain['low']:+.3f}..{gain['high']:+.3f})"
    counts = " / ".join(f"{part['trainable']:,}" for part in row["parameters"]["pretrained"].values())
    return [row["name"], metric, *scores, text, counts, f"{row['fit_seconds'] / 60:.1f}", f"{row['peak_mib']:,}"]


def figure(row: Mapping[str, Any], name: str, metric: str) -> str:
    """Returns a score as text, with its range where there were several runs; "-" where it was not run."""
    if metric not in row["scores"].get(name, {}):
        return "-"
    score = row["scores"][name][metric]
    text = f"{score['mean']:.3f}"
    return text if score["runs"] == 1 else f"{text} ({score['low']:.3f}..{score['high']:.3f})"


def _networks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        if "unet" in row["scores"]:
            told = ", ".join(f"{metric} {figure(row, 'unet', metric)}" for metric in row["metrics"])
            lines.append(f"* {row['name']}: {told} ({row['methods']['unet']}, {row['spent']['unet'] / 60:.1f} minutes)")
    return lines


def _modes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        metric = row["metrics"][0]
        for name in row["scores"]:
            if name.startswith("tune:"):
                trainable = sum(part["trainable"] for part in row["parameters"][name].values())
                score = f"{metric} {figure(row, name, metric)} ({trainable:,} parameters)"
                kept, fits = row["tuned"][name]
                gain = "" if kept == fits else f"; tuning was a gain on validation in {kept} of {fits}, else untuned"
                lines.append(f"* {row['name']}, {name.removeprefix('tune:')}: {score}{gain}")
    return lines


def _published(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        for one in row["published"]:
            how = "comparable" if one["comparable"] else "not comparable"
            lines.append(f"* {row['name']}: {one['method']} {one['score']:g} ({how}; {one['source']})")
    return lines
