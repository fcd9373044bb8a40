"""What a row says in words: whether the pretrained trunk helps, and what a person should use.

"Clearly" means by more than two standard errors, and in every fold or run that was compared. Where no error is known
(scores of ranks, overlapping windows of a series) only the figures are told.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from metatransformer.report.verdict import margin
from metatransformer.tasks import known_score

RIVALS = {"baseline": "plain baseline", "strong": "strong baseline", "identity": "model without a trunk"}
HEAD = ("data", "score", "does the pretrained trunk help?", "what to use")
FEW = 3  # random trunks; of fewer, no word on every one
EACH = ("accuracy", "rmse")  # scores to which each sample adds its part
CHEAPER = 0.5  # of our seconds: what is called less

Result = Literal["better", "worse", "level", "unknown"]


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Returns the cells below ``HEAD`` for each row that was run."""
    return [_verdict(row) for row in rows]


def _verdict(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    results: dict[str, Result] = {name: compared(row, name) for name in row["gains"]}
    rivals: dict[str, Result] = {name: results[name] for name in RIVALS if name in results}
    return row["name"], row["metrics"][0], _trunk(row, results.get("random")), _advice(row, rivals)


def _trunk(row: Mapping[str, Any], result: Result | None) -> str:
    if result is None:
        return "not measured"
    gain, count = row["gains"]["random"][row["metrics"][0]], row["trunks"]
    if result == "level":
        return "not shown: random trunks are within the error"
    if count < FEW:
        side = "worse" if gain["mean"] > 0 else "better"
        return f"{'the one random trunk' if count == 1 else 'both random trunks'} did {side}: too few to say more"
    if result == "unknown":
        sides = {(True, True): "worse", (False, False): "better"}
        side = sides.get((gain["low"] > 0, gain["high"] > 0), "now better, now worse")
        return f"random trunks score {side}, by an error that is not known"
    return "yes: every random trunk is clearly worse" if result == "better" else "no: it does harm"


def _advice(row: Mapping[str, Any], rivals: Mapping[str, Result]) -> str:
    """Returns the simplest model that nothing beat clearly, and which one has the best figure."""
    metric = row["metrics"][0]
    if not rivals:
        return "nothing else was run"
    gains = {name: row["gains"][name][metric]["mean"] for name in rivals}
    best = min(gains, key=lambda name: gains[name])
    if better := [name for name in rivals if rivals[name] == "worse"]:
        return f"{_named(row, min(better, key=lambda name: gains[name]))}: clearly better"
    if rivals[best] == "unknown" and gains[best] < 0:
        return f"{_named(row, best)}: a better figure, by an error that is not known"
    if level := [name for name in rivals if rivals[name] == "level"]:
        cheap = row["spent"][level[0]] < CHEAPER * row["fit_seconds"]
        words = f"{_named(row, level[0])}: no clear difference{', at less than half the cost' if cheap else ''}"
        ahead = best != level[0] and gains[best] < 0
        return words + (f"; the {RIVALS[best]} has the better figure" if ahead else "")
    known = "" if "unknown" not in rivals.values() else ", by an error that is not known"
    return f"this model: {'clearly ' * (not known)}better than {_listed(list(rivals))}{known}"


def _named(row: Mapping[str, Any], name: str) -> str:
    """Returns what a model is called, with the method that was chosen in most folds."""
    method = row["methods"].get(name, "").partition(" in ")[0]
    return f"{RIVALS[name]} ({method})" if method else RIVALS[name]


def _listed(names: Sequence[str]) -> str:
    """Returns ``a, b and c``."""
    *others, last = [RIVALS[name] for name in names]
    return f"{', '.join(others)} and {last}" if others else last


def compared(row: Mapping[str, Any], name: str) -> Result:
    """Returns what ours is beside another model.

    The error is that of the difference on the same samples where the lines tell, else that of two scores on as many
    samples; lines of before do not say how many independent ones there were.
    """
    metric = row["metrics"][0]
    gain, error = row["gains"][name][metric], row["errors"][name]
    ours, other = (row["scores"][model][metric]["mean"] for model in ("pretrained", name))
    samples = row["independent"] or (row["tested"] if metric in EACH else 0)
    limit = 2 * error if error is not None else None
    if error is None and samples:
        limit = margin(known_score(metric), ours, other, samples=samples)
    if limit is None:
        return "unknown"
    if abs(gain["mean"]) <= limit or gain["low"] <= 0 <= gain["high"]:
        return "level"
    return "better" if gain["mean"] > 0 else "worse"
