"""What a score says beside its controls, in one sentence that is computed and never flattering.

"Clearly" means that a difference exceeds two standard errors, with the two scores taken as independent. They come from
the same samples, so this is the careful side: a paired test would call more differences clear.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from metatransformer.core.task import Score, Task

CONTROL_NAMES = {
    "baseline": "plain baseline (scikit-learn)",
    "random": "same recipe, random trunk",
    "identity": "same recipe, no trunk",
}


def control_words(name: str, task: Task) -> str:
    """Returns a control's name as people write it."""
    return task.constant_words if name == "constant" else CONTROL_NAMES[name]


NOT_PRETRAINED = ("random", "shuffled", "identity", "test")


def independent(task: Task, outputs: Tensor, target: Tensor, *, groups: Sequence[str | None]) -> int:
    """Returns on how many independent answers a score rests.

    Samples of one group (a person, a recording, a tile of a scene) are right or wrong together: the answers count as
    many times less as their errors scatter more by groups than alone (the design effect of Kish 1965). One group alone
    is one answer.
    """
    whole, names = task.independent(target), [str(row) if one is None else f"{one} " for row, one in enumerate(groups)]
    codes = np.unique(names, return_inverse=True)[1]
    count = int(codes.max()) + 1
    if count == len(names) or count < 2:
        return whole if count == len(names) else 1
    errors = task.errors(outputs, target)
    errors = errors - errors.mean()
    if not errors.any():  # all right, or all alike: nothing tells whether groups differ
        return min(whole, count)
    together = count / (count - 1) * np.square(np.bincount(codes, weights=errors)).sum()
    return max(1, round(whole / max(1.0, together / np.square(errors).sum())))


def margin(score: Score, a: float, b: float, *, samples: int) -> float | None:
    """Returns two standard errors of the difference of two values of a score, None for one without a simple formula.

    ``samples`` are those of ``independent``. Source: for a share p the binomial variance p (1 - p) / n with one
    success and one failure added; for a root mean square s of n normal deviations s^2 / 2n.
    """
    if score.error == "share":
        shares = [(p * samples + 1) / (samples + 2) for p in (a, b)]
        return 2 * sum(p * (1 - p) / samples for p in shares) ** 0.5
    if score.error == "distance":
        return 2 * ((a**2 + b**2) / (2 * samples)) ** 0.5
    if score.error == "square":  # the variance of one square is twice the square of the mean
        return 2 * (2 * (a**2 + b**2) / samples) ** 0.5
    if score.error == "explained":  # 1 - R2 is a mean of squares in shares of the variance
        return 2 * (2 * ((1 - a) ** 2 + (1 - b) ** 2) / samples) ** 0.5
    return None


def compare(task: Task, ours: float, other: float, *, samples: int) -> int:
    """Returns 1 when ``ours`` is clearly better, -1 when it is clearly worse, 0 when these samples cannot tell."""
    limit = margin(task.scores[task.primary], ours, other, samples=samples)
    if limit is None or abs(ours - other) <= limit:
        return 0
    return 1 if task.is_better(ours, other) else -1


def is_pretrained(encoder: str) -> bool:
    """Returns whether an encoder's name means weights that were trained on data."""
    return encoder.partition(":")[0] not in NOT_PRETRAINED


def verdict(
    task: Task,
    scores: Mapping[str, float],
    controls: Mapping[str, Mapping[str, float]],
    *,
    samples: int,
    encoder: str,
    frozen: bool,
) -> str:
    """Returns what the trunk brings on ``samples`` scored samples, and says so where it shows no gain."""
    metric = task.primary
    ours = scores[metric]
    known = {name: values[metric] for name, values in controls.items() if metric in values}
    score = f"{task.words(metric)} {ours:.3f}"
    if not is_pretrained(encoder):
        return f"{_first(score)}. The trunk '{encoder}' was never trained, so this says nothing about pretraining."
    if not known:
        return f"{_first(score)}. No controls were run, so it is not known whether the pretrained trunk helps here."
    results = {name: compare(task, ours, value, samples=samples) for name, value in known.items()}
    findings = [
        _what_the_trunk_brings(results, frozen=frozen),
        _beside_the_baseline(results),
        _beside_the_constant(results),
    ]
    sentence = f"Here {'; '.join(finding for finding in findings if finding)}: {score}"
    clauses = [f"{value:.3f} {_PLACES[name]}{_SIGNS[results[name]]}" for name, value in known.items()]
    return f"{sentence}, against {', '.join(clauses)}."


_PLACES = {
    "constant": "for the constant answer",
    "baseline": "for the plain baseline",
    "random": "on a random trunk",
    "identity": "with no trunk",
}
_SIGNS = {1: "", 0: " (too close to tell)", -1: " (better)"}


def _first(text: str) -> str:
    """Returns a text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _what_the_trunk_brings(results: Mapping[str, int], *, frozen: bool) -> str:
    trunk = f"the {'frozen' if frozen else 'tuned'} pretrained trunk"
    names = {"random": "a random one", "identity": "none at all"}
    tried = {names[name]: result for name, result in results.items() if name in names}
    if not tried:
        return f"nothing was run without {trunk}"
    gains = [name for name, result in tried.items() if result > 0]
    losses = [name for name, result in tried.items() if result < 0]
    if losses:
        return f"{trunk} does harm: it is clearly worse than {' and '.join(losses)}"
    if len(gains) == len(tried):
        return f"{trunk} helps"
    if gains:
        return f"{trunk} helps against {gains[0]}, but not clearly against {next(n for n in tried if n not in gains)}"
    return f"these samples show no gain by {trunk}"


def _beside_the_baseline(results: Mapping[str, int]) -> str:
    endings = {
        1: "the model beats a plain baseline",
        0: "a plain baseline is not clearly worse",
        -1: "a plain baseline is better",
    }
    return endings[results["baseline"]] if "baseline" in results else ""


def _beside_the_constant(results: Mapping[str, int]) -> str:
    return "the model is not clearly better than a constant answer" if results.get("constant", 1) < 1 else ""
