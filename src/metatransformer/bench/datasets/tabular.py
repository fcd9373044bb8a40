"""Data sets of the modality tabular."""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.data.index import index_table


def _adult(root: Path) -> list[Fold]:
    fold: Fold = []
    for file, split in (("adult.data", "train"), ("adult.test", "test")):
        index = index_table(root / "tabular/adult" / file, target="column_15", header=False)
        for record in index.records:
            # The test file ends its labels with a full stop.
            label = str(record.target).rstrip(".")
            fold.append(replace(record, key=f"{file}/{record.key}", target=label, split=split))
    return [fold]


DATA_SETS = (
    DataSet(
        name="adult",
        title="UCI Adult",
        modality="tabular",
        summary="UCI Adult (census income), official split",
        folds=_adult,
        metrics=("accuracy", "auroc"),
        licence="CC BY 4.0",
        source="https://archive.ics.uci.edu/dataset/2/adult",
        folder="tabular/adult",
        split="official files adult.data and adult.test",
        published=(
            Published(
                "Meta-Transformer-B16, frozen (accuracy)", 0.859, "arXiv 2307.10802; 8:1:1, without education_num"
            ),
            Published("CatBoost, 15 seeds (accuracy)", 0.8727, "github.com/yandex-research/rtdl-revisiting-models"),
            Published("FT-Transformer, 15 seeds (accuracy)", 0.8587, "the same repository"),
        ),
        strong="plain:boosting",
        trunks=1,
        minutes=38,
        sha256="78578483c13f464678b635e8294a6fb1e57196eb77e1f519c7fc7d3d75b50787",
        fetch="Fetch adult.data and adult.test from the source; remove the first line of adult.test, a remark.",
    ),
)
