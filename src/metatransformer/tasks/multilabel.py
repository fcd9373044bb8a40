"""Several yes-or-no questions a sample, some of them without an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import metrics as measure
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Cards, Rows, Section
from metatransformer.core.task import Baseline, Score, Support, Task, TaskOptions, chosen
from metatransformer.data.rows import split_target

ANSWERS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
GAP = float("nan")


class Multilabel(Task):
    """Binary cross entropy over the labels that are known; a gap teaches nothing and is not scored.

    A target is a sequence of 0, 1 or None, one for each label, or a single one of these. Labels are called as the
    columns of ``task.target``; where another number of them is learned, they are numbered.
    """

    name = "multilabel"
    title = "labels"
    scores = {
        "mean_auroc": Score(error="share", words="mean AUROC"),
        "mean_average_precision": Score(error="share"),
        "macro_f1": Score(error="share", words="macro F1"),
    }

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self.given = split_target(options.target) if options is not None else ()
        self.names_: list[str] = []
        self.rates_: list[float] = []

    def check(self, target: Any) -> None:
        """Refuses what is no answer."""
        _answers(target)

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns names and how often each label is 1 where it is known.

        Raises:
            DataError: a value that is no answer, samples with another number of labels, a label without both answers.
        """
        widths = {len(_answers(target)) for target in targets}
        if len(widths) != 1 or 0 in widths:
            raise DataError(
                "training labels", must="be as many in every sample, and at least one", found=f"{sorted(widths)}"
            )
        (width,) = widths
        numbered = [f"label_{i + 1}" for i in range(width)]
        self.names_ = list(self.given) if len(self.given) == width else numbered
        values = self._table(targets)
        known, ones = (~np.isnan(values)).sum(axis=0), np.nansum(values, axis=0)
        if single := [name for name, n, k in zip(self.names_, known, ones, strict=True) if k in (0, n)]:
            raise DataError(
                f"label '{single[0]}'",
                must="be 0 for some training samples and 1 for others",
                found="only one of them" if known[self.names_.index(single[0])] else "no known value",
                do="Leave it out of --target.",
            )
        self.rates_ = (ones / known).tolist()

    @property
    def outputs(self) -> int:
        """The number of labels."""
        return len(self.names_)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns the answers ``[B, labels]``, NaN in gaps."""
        return torch.from_numpy(self._table(targets)).float()

    def _table(self, targets: Sequence[Any]) -> np.ndarray:
        rows = [_answers(target) for target in targets]
        if odd := next((row for row in rows if len(row) != len(self.names_)), None):
            raise DataError("labels", must=f"be {len(self.names_)} in every sample", found=str(len(odd)))
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.names_))

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the mean binary cross entropy over all known answers of the batch, 0 where there is none."""
        known = ~target.isnan()
        each = F.binary_cross_entropy_with_logits(outputs, target.nan_to_num(), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns means over the labels of which the data has both answers, and how many these are.

        Raises:
            DataError: there is none.
        """
        rows = [row for row in self.label_scores(outputs, target) if np.isfinite(row["auroc"])]
        if not rows:
            raise DataError(
                f"metric '{self.primary}'",
                must="see both answers of at least one label",
                found="none",
                do="Score more data.",
            )
        pairs = {"mean_auroc": "auroc", "mean_average_precision": "average_precision", "macro_f1": "f1"}
        found = {name: float(np.mean([row[key] for row in rows])) for name, key in pairs.items()}
        return {**found, "labels_scored": float(len(rows))}

    def label_scores(self, outputs: Tensor, target: Tensor) -> list[dict[str, Any]]:
        """Returns a row a label: ``label``, ``known``, ``positive``, ``auroc``, ``average_precision``, ``f1``.

        The scores are NaN where the data lacks one of the answers.
        """
        # Ranks of the outputs themselves: a sigmoid may round equal ones differently and so untie them.
        log_odds, truth = outputs.double().numpy(), target.numpy()
        rows = []
        for place, name in enumerate(self.names_):
            known = ~np.isnan(truth[:, place])
            y, p = truth[known, place].astype(int), log_odds[known, place]
            row = {"label": name, "known": int(known.sum()), "positive": int(y.sum())}
            both = 0 < y.sum() < len(y)
            row["auroc"] = float(measure.roc_auc_score(y, p)) if both else GAP
            row["average_precision"] = float(measure.average_precision_score(y, p)) if both else GAP
            row["f1"] = float(measure.f1_score(y, p > 0)) if both else GAP
            rows.append(row)
        return rows

    def independent(self, target: Tensor) -> int:
        """Returns how many samples have the rarer answer of the label where these are fewest."""
        counts = torch.stack([(target == 1).sum(dim=0), (target == 0).sum(dim=0)]).min(dim=0).values
        return int(counts[counts > 0].min()) if (counts > 0).any() else 1

    def support(self, outputs: Tensor, answer: str = "") -> Support:
        """Returns the log odds of the most probable label, or of the one that is named."""
        name = chosen(answer, self.names_, usual=int(outputs.argmax()))
        return Support(name, f"log odds of {name}", lambda other: other[:, self.names_.index(name)].double())

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the names of the labels above one half as text, and one probability column a label."""
        chance = outputs.double().sigmoid().numpy()
        texts = [self._text(row > 0.5) for row in chance]
        columns = {"prediction": np.array(texts, dtype=object)}
        for number, name in enumerate(self.names_):
            columns[f"p({name})"] = chance[:, number]
        return columns

    def readable(self, targets: Sequence[Any]) -> Sequence[Any]:
        """Returns the names of the labels that are 1 as text."""
        return [self.text(target) for target in targets]

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns the scores by label."""
        columns = ("label", "known", "positive", "AUROC", "average precision", "F1")
        rows = [tuple(row.values()) for row in self.label_scores(outputs, target)]
        return (Section("By label", (Rows(columns, rows),)),)

    def cards(self, table: Mapping[str, np.ndarray], targets: Sequence[Any]) -> Cards:
        """Returns positive labels; first come the largest distances of a known answer."""
        chance = np.stack([table[f"p({name})"] for name in self.names_], axis=1)
        badness = np.nan_to_num(np.abs(chance - self.encode(targets).numpy())).max(axis=1)
        texts = [[text or "none" for text in column] for column in (table["prediction"], self.readable(targets))]
        return Cards(texts[0], texts[1], badness)

    def text(self, target: Any) -> str:
        """Returns a target as ``decode`` writes a prediction."""
        return self._text(np.array(_answers(target)) == 1)

    def _text(self, positive: np.ndarray) -> str:
        return ", ".join(name for name, yes in zip(self.names_, positive, strict=True) if yes)

    @property
    def baseline(self) -> Baseline:
        """A classifier a label."""
        return Baseline("labels")

    def constant(self) -> Tensor:
        """Returns the log odds of each label's training rate."""
        rates = torch.tensor(self.rates_, dtype=torch.float32)
        return (rates / (1 - rates)).log()

    def state(self) -> dict[str, Any]:
        """Returns names and rates."""
        return {"names": self.names_, "rates": self.rates_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back names and rates."""
        self.names_, self.rates_ = list(state["names"]), [float(rate) for rate in state["rates"]]


def _answers(target: Any) -> list[float]:
    """Returns the answers of one sample, NaN in gaps."""
    several = isinstance(target, Sequence | np.ndarray) and not isinstance(target, str)
    return [_answer(value) for value in (target if several else [target])]


def _answer(value: Any) -> float:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return GAP
    text = str(value).strip().lower()
    answer = ANSWERS.get(text.removesuffix(".0"))
    if answer is None:
        raise DataError(
            "labels",
            must="be 0, 1 or empty (also false, true, no, yes)",
            found=repr(value),
            do="Use --task regress for numbers and --task classify for one label of several classes.",
        )
    return answer


TASK = Multilabel
