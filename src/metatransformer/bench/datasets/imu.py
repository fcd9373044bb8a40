"""Data sets of the modality imu."""

from collections.abc import Callable
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold
from metatransformer.data.index import index_files
from metatransformer.modalities import get_modality


def _motion(folder: str) -> Callable[[Path], list[Fold]]:
    """Returns the folds of a folder of motion recordings that brings its own split."""

    def folds(root: Path) -> list[Fold]:
        source = get_modality("imu").source
        index = index_files(root / folder, suffixes=source.suffixes, require_labels=True, parts=source.parts)
        return [list(index.records)]

    return folds


DATA_SETS = (
    DataSet(
        name="italian-signs",
        title="Italian signs",
        modality="imu",
        summary="Italian Sign Language alphabet by armband, 100 steps of 10 axes, split by file name",
        folds=_motion("imu/italian_sign_language_imu"),
        metrics=("accuracy",),
        licence="none stated",
        source="https://github.com/airtlab/An-EMG-and-IMU-Dataset-for-the-Italian-Sign-Language-Alphabet",
        folder="imu/italian_sign_language_imu",
        split="md5(file name) mod 10 < 3 is test",
        seeds=3,
        strong="plain:svm,forest;minirocket:ridge",
        minutes=6,
        sha256="4e812e132a3a7982993676131cacbed9eda5f1d9c1059f37bfb2899c8d4df7df",
        fetch="Clone the source; take the IMU part of its folder Dataset.",
    ),
    DataSet(
        name="basic-motions",
        title="BasicMotions",
        modality="imu",
        summary="BasicMotions (UEA), smart watch, official split",
        folds=_motion("imu/basic_motions"),
        metrics=("accuracy",),
        licence="research use with citation",
        source="https://www.timeseriesclassification.com/description.php?Dataset=BasicMotions",
        folder="imu/basic_motions",
        split="official",
        seeds=3,
        modes=("ends", "lora", "last:2", "all"),
        strong="plain:svm,forest;minirocket:ridge",
        minutes=10,
        sha256="e247c28cf59fb7e3f54689708502ba8e042d3ea3d97c407aa01178d33920036a",
        fetch="Fetch BasicMotions_TRAIN.ts and _TEST.ts from the source.",
    ),
)
