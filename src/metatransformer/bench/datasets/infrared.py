"""Data sets of the modality infrared."""

from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold
from metatransformer.data.index import index_files


def _solar_modules(root: Path) -> list[Fold]:
    folder = root / "infrared/infrared_solar_modules"
    return [list(index_files(folder, suffixes=(".jpg",), require_labels=True).records)]


DATA_SETS = (
    DataSet(
        name="infrared-solar",
        title="solar modules, 12 classes",
        modality="infrared",
        summary="InfraredSolarModules, at most 500 pictures a class",
        folds=_solar_modules,
        metrics=("balanced_accuracy", "accuracy"),
        licence="MIT",
        source="https://github.com/RaptorMaps/InfraredSolarModules",
        folder="infrared/infrared_solar_modules",
        split="per class at most 500 of the shuffled numbers (random.Random(0)), the first fifth test",
        strong="hog:svm;plain:svm,forest",
        minutes=12,
        sha256="d4f3a3b38b0a185afe92269d79fdc83b356a7a96a3a59a5267b265cfebdf45b2",
        fetch="Take InfraredSolarModules.zip of the source; pick as said.",
    ),
)
