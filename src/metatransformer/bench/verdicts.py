"""What a row says in plain words: what the trunk brings, and what a user should pick instead.

"Clearly" means by more than two standard errors, and in every fold or run that was compared. Where no error is known
(scores of ranks, overlapping windows of a series) only the figures are told.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from metatransformer.report.verdict import margin
from metatransformer.tasks import known_score

RIVALS = {"baseline": "plain baseline", "strong": "strong baseline", "identity": "model without a trunk"}
FEW = 3  # random trunks; of fewer, no word on every one
EACH = ("accuracy", "rmse")  # scores to which each sample adds its part
CHEAPER = 0.5  # of our seconds: what is called less

Result = Literal["better", "worse", "level", "unknown"]


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one sentence for each row that was run."""
    return [_verdict(row) for row in rows]


def _verdict(row: Mapping[str, Any]) -> str:
    results: dict[str, Result] = {name: compared(row, name) for name in row["gains"]}
    rivals: dict[str, Result] = {name: results[name] for name in RIVALS if name in results}
    return f"{row['name']} ({row['metrics'][0]}): {_trunk(row, results.get('random'))}; {_advice(row, rivals)}."


def _trunk(row: Mapping[str, Any], result: Result | None) -> str:
    if result is None:
        return "what the pretrained trunk brings was not measured"
    gain, count = row["gains"]["random"][row["metrics"][0]], row["trunks"]
    if result == "level":
        return "the pretrained trunk brings nothing that these runs could show"
    if count < FEW:
        side = "worse" if gain["mean"] > 0 else "better"
        return f"{'the one random trunk' if count == 1 else 'both random trunks'} did {side}: too few to say more"
    if result == "unknown":
        sides = {(True, True): "worse", (False, False): "better"}
        side = sides.get((gain["low"] > 0, gain["high"] > 0), "now better, now worse")
        return f"random trunks have {side} figures, with no error known for this score"
    helps = "helps, every random one is worse" if result == "better" else "does harm"
    return f"the pretrained trunk {helps}"


def _advice(row: Mapping[str, Any], rivals: Mapping[str, Result]) -> str:
    metric = row["metrics"][0]
    if not rivals:
        return "nothing else was run beside it"
    if better := [name for name, result in rivals.items() if result == "worse"]:
        return f"use the {_listed(better, word='or')} instead: clearly better here"
    ahead = [name for name in rivals if rivals[name] == "unknown" and row["gains"][name][metric]["mean"] < 0]
    if ahead:
        return f"the {_listed(ahead)} {'have' if len(ahead) > 1 else 'has'} the better figure"
    if level := [name for name, result in rivals.items() if result == "level"]:
        cheap = all(row["spent"][name] < CHEAPER * row["fit_seconds"] for name in level)
        words = f"no clear difference to the {_listed(level)}" + (", at less than half the cost" if cheap else "")
        best = min(level, key=lambda name: row["gains"][name][metric]["mean"])
        return words + (f"; the {RIVALS[best]} has the better figure" if row["gains"][best][metric]["mean"] < 0 else "")
    if "unknown" in rivals.values():
        return f"it has a better figure than the {_listed(list(rivals))}"
    return f"it beats the {_listed(list(rivals))}"


def _listed(names: Sequence[str], *, word: str = "and") -> str:
    """Returns ``a, the b and the c``."""
    *others, last = [RIVALS[name] for name in names]
    return f"{', the '.join(others)} {word} the {last}" if others else last


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
