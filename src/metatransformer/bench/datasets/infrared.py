"""Data sets of the modality infrared."""

from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold
from metatransformer.io.index import index_files


def _solar_modules(root: Path) -> list[Fold]:
    folder = root / "infrared/infrared_solar_modules"
    return [list(index_files(folder, suffixes=(".jpg",), require_labels=True).records)]


DATA_SETS = (
    DataSet(
        name="infrared-solar",
        modality="infrared",
        summary="InfraredSolarModules, at most 500 pictures a class",
        folds=_solar_modules,
        metrics=("balanced_accuracy", "accuracy"),
        licence="MIT",
        source="https://github.com/RaptorMaps/InfraredSolarModules",
    ),
)
