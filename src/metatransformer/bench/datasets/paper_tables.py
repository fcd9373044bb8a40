"""The paper's own data sets that come as tables, in their official layouts: ``metatransformer bench paper``.

As in ``paper``, none could be fetched where this was written. GLUE and PCQM4Mv2 keep the labels of their test parts:
what they call dev or valid is the test here, and validation is drawn from training.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.bench.datasets._paper import PAPER, records_of, split_by_digest
from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data.table import read_content
from metatransformer.infer.sources import read_index
from metatransformer.modalities import get_modality

# What an array of whole numbers is rebuilt from; files of numpy 1 call the first one by its old name.
_REBUILD: Any = np.zeros(0).__reduce__()[0]
_NUMPY = [_REBUILD, (_REBUILD, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, np.dtypes.Int64DType]


def _bank(root: Path) -> list[Fold]:
    """Returns the clients, a fifth of them test by the digest of their row."""
    records = records_of("tabular", root / "bank" / "bank-full.csv", target="y")
    return [split_by_digest(records, text=lambda record: str(record.value))]


def _series(file: str) -> Callable[[Path], list[Fold]]:
    """Returns 70 / 10 / 20 % of the rows in time; 96 rows seen, 96 forecast."""

    def folds(root: Path) -> list[Fold]:
        modality = get_modality("timeseries")
        options = modality.options(lookback=96, horizon=96, rows=(0.7, 0.1, 0.2))
        return [list(read_index(modality, root / file, options=options, labelled=True).records)]

    return folds


def _glue(folder: str, *, texts: tuple[str, str], label: str, test: str = "dev.tsv") -> Callable[[Path], list[Fold]]:
    """Returns pairs of texts of GLUE's tables. QQP has a few lines without a text or a field; they are left out."""

    def folds(root: Path) -> list[Fold]:
        fold: Fold = []
        for file, split in (("train.tsv", "train"), (test, "test")):
            path = root / folder / file
            names, *rows = [line.rstrip("\r").split("\t") for line in read_content(path).split("\n") if line.strip()]
            if missing := {*texts, label} - set(names):
                raise DataError(path, must=f"have the columns {', '.join((*texts, label))}", found=f"no {min(missing)}")
            for number, row in enumerate(rows):
                if len(row) != len(names):
                    continue
                cells = dict(zip(names, row, strict=True))
                if all(cells[name].strip() for name in texts):
                    value = {name: cells[name] for name in texts}
                    fold.append(Record(f"{split}/{number}", value=value, target=cells[label], split=split))
        return [fold]

    return folds


def _pcqm4m(root: Path) -> list[Fold]:
    """Returns the molecules of the official training and valid parts, with the gap between their orbitals in eV."""
    folder = root / "pcqm4m-v2"
    with torch.serialization.safe_globals(_NUMPY):
        parts = torch.load(folder / "split_dict.pt", weights_only=True)
    table = pd.read_csv(folder / "raw" / "data.csv.gz", usecols=["smiles", "homolumogap"])
    fold: Fold = []
    for part, split in (("train", "train"), ("valid", "test")):
        rows = table.iloc[np.asarray(parts[part])]
        for number, smiles, gap in zip(rows.index, rows["smiles"], rows["homolumogap"], strict=True):
            fold.append(Record(str(number), value={"smiles": smiles}, target=float(gap), split=split))
    return [fold]


AUTOFORMER: dict[str, Any] = {
    "licence": "none stated",
    "source": "https://github.com/thuml/Autoformer (all_six_datasets)",
    "split": "70 / 10 / 20 % in time; of many windows every n-th (input.windows)",
    "metrics": ("mse", "mae"),
    "strong": "plain:ridge;direct:ridge",
    "overrides": {"input.lookback": 96, "input.horizon": 96},
}
GLUE: dict[str, Any] = {
    "modality": "text",
    "licence": "per task, see the source",
    "source": "https://gluebenchmark.com/tasks",
    "split": "GLUE's train and dev; dev is the test",
    "strong": "tfidf:logistic;sentences:logistic",
}


def _published(score: float, *, metric: str = "") -> tuple[Published, ...]:
    return (
        Published(f"Meta-Transformer-B16, frozen{metric and f' ({metric})'}", score, f"{PAPER} (split not stated)"),
    )


def _horizons(score: float) -> tuple[Published, ...]:
    return (Published("Meta-Transformer-B16, frozen, mean of horizons 96 to 720", score, PAPER),)


DATA_SETS = (
    DataSet(
        suite="paper",
        name="bank-marketing",
        modality="tabular",
        summary="UCI Bank Marketing, 45,211 clients; 88 % say no",
        folds=_bank,
        metrics=("accuracy", "auroc"),
        licence="CC BY 4.0",
        source="https://archive.ics.uci.edu/dataset/222/bank+marketing",
        folder="bank",
        split="md5(row) mod 5 == 0 is test; none official",
        strong="plain:boosting",
        published=(Published("Meta-Transformer-B16, frozen (accuracy)", 0.901, PAPER),),
        fetch="Unpack bank.zip; bank-full.csv is used.",
    ),
    *(
        DataSet(
            suite="paper",
            name=name,
            modality="timeseries",
            summary=summary,
            folds=_series(f"{folder}/{file}"),
            folder=folder,
            published=_horizons(score),
            fetch=f"{file} of the archive that the source links to.",
            **AUTOFORMER,
        )
        for name, folder, file, score, summary in (
            ("weather", "weather", "weather.csv", 0.797, "Weather (Jena 2020, 21 columns, 10 minutes), 96 to 96"),
            ("traffic", "traffic", "traffic.csv", 0.694, "Traffic (862 roads of San Francisco, hours), 96 to 96"),
            ("exchange", "exchange_rate", "exchange_rate.csv", 1.430, "Exchange (8 currencies, days), 96 to 96"),
        )
    ),
    DataSet(
        suite="paper",
        name="mrpc",
        summary="MRPC (GLUE): do two sentences say the same",
        folds=_glue("MRPC", texts=("#1 String", "#2 String"), label="Quality"),
        metrics=("accuracy", "macro_f1"),
        folder="MRPC",
        published=_published(0.811, metric="F1 of the positive class"),
        fetch="MRPC/train.tsv and dev.tsv as GLUE's download script writes them.",
        **GLUE,
    ),
    DataSet(
        suite="paper",
        name="qqp",
        summary="QQP (GLUE): do two questions ask the same",
        folds=_glue("QQP", texts=("question1", "question2"), label="is_duplicate"),
        metrics=("accuracy", "macro_f1"),
        folder="QQP",
        published=_published(0.660, metric="F1 of the positive class"),
        fetch="Unpack QQP.zip.",
        **GLUE,
    ),
    DataSet(
        suite="paper",
        name="mnli",
        summary="MNLI (GLUE): does one sentence follow from another, matched genres",
        folds=_glue("MNLI", texts=("sentence1", "sentence2"), label="gold_label", test="dev_matched.tsv"),
        metrics=("accuracy",),
        folder="MNLI",
        published=_published(0.634),
        fetch="Unpack MNLI.zip.",
        **GLUE,
    ),
    DataSet(
        suite="paper",
        name="qnli",
        summary="QNLI (GLUE): does a sentence answer a question",
        folds=_glue("QNLI", texts=("question", "sentence"), label="label"),
        metrics=("accuracy",),
        folder="QNLI",
        published=_published(0.563),
        fetch="Unpack QNLIv2.zip.",
        **GLUE,
    ),
    DataSet(
        suite="paper",
        name="pcqm4m-v2",
        modality="graph",
        summary="PCQM4Mv2: gap between orbitals of 3.4 million molecules, eV",
        folds=_pcqm4m,
        metrics=("mae", "rmse"),
        licence="CC BY 4.0",
        source="https://ogb.stanford.edu/docs/lsc/pcqm4mv2",
        folder="pcqm4m-v2",
        split="official training part; the valid part is the test",
        overrides={"task.metric": "mae"},
        strong="plain:boosting",
        published=(Published("Meta-Transformer-B16, frozen, PCQM4M", 0.8863, PAPER),),
        fetch="Unpack pcqm4m-v2.zip: raw/data.csv.gz and split_dict.pt are used.",
    ),
)
