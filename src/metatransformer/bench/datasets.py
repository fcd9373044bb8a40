"""Real data sets as data: where their files lie, how they are split, what they are scored by.

A data set is one or more folds; a fold is a list of records whose split is ``train`` or ``test`` (and ``val``
where it is official). Nothing of the data is in this repository; ``source`` says where it is to be had.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metatransformer.core.samples import Record
from metatransformer.io.index import index_files, index_table
from metatransformer.modalities import get_modality

Fold = list[Record]


@dataclass(frozen=True)
class DataSet:
    """One row of the table.

    ``folds`` reads the records below a data folder; ``overrides`` are no tuning but facts of the data (a missing
    header, a metric).
    """

    name: str
    modality: str
    summary: str
    folds: Callable[[Path], list[Fold]]
    metrics: tuple[str, ...]
    licence: str
    source: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _cifar10(root: Path) -> list[Fold]:
    index = index_files(root / "image/cifar10", suffixes=(".jpg",), require_labels=True)
    return [list(index.records)]


def _spoken_digits(root: Path) -> list[Record]:
    """Returns all recordings; file names are ``<digit>_<speaker>_<number>.wav``."""
    index = index_files(root / "audio/fsdd/recordings", suffixes=(".wav",), require_labels=False)
    records = []
    for record in index.records:
        assert record.path is not None
        digit, speaker, number = record.path.stem.split("_")
        split = "test" if int(number) < 5 else "train"
        records.append(replace(record, target=digit, group=speaker, split=split))
    return records


def _fsdd(root: Path) -> list[Fold]:
    # The official split has every speaker on both sides, so speakers do not group its validation part either.
    return [[replace(record, group=None) for record in _spoken_digits(root)]]


def _fsdd_speakers(root: Path) -> list[Fold]:
    records = _spoken_digits(root)
    speakers = sorted({record.group for record in records if record.group})
    return [
        [replace(r, split="test" if r.group == speaker else "train") for r in records]
        for speaker in speakers
    ]


def _adult(root: Path) -> list[Fold]:
    fold: Fold = []
    for file, split in (("adult.data", "train"), ("adult.test", "test")):
        index = index_table(root / "tabular/adult" / file, target="column_15", header=False)
        for record in index.records:
            # The test file ends its labels with a full stop.
            label = str(record.target).rstrip(".")
            fold.append(replace(record, key=f"{file}/{record.key}", target=label, split=split))
    return [fold]


def _chest_xrays(root: Path) -> list[Fold]:
    folder = root / "xray/covid_xray_3class"
    index = index_files(folder, suffixes=(".jpg",), require_labels=True)
    # NIH names are PATIENT_NUMBER.jpg: a patient must not be torn apart by the validation split.
    return [[replace(record, group=_patient(record)) for record in index.records]]


def _patient(record: Record) -> str:
    assert record.path is not None
    name = record.path.stem
    nih = len(name) == 12 and name[8] == "_" and (name[:8] + name[9:]).isdigit()
    return name[:8] if nih else name


def _chest_pair(root: Path) -> list[Fold]:
    """Returns the two classes of one source: nothing but the picture can tell them apart."""
    pair = ("no_findings", "pneumonia")
    return [[record for record in fold if record.target in pair] for fold in _chest_xrays(root)]


def _solar_modules(root: Path) -> list[Fold]:
    folder = root / "infrared/infrared_solar_modules"
    return [list(index_files(folder, suffixes=(".jpg",), require_labels=True).records)]


def _motion(folder: str) -> Callable[[Path], list[Fold]]:
    """Returns the folds of a folder of motion recordings that brings its own split."""

    def folds(root: Path) -> list[Fold]:
        source = get_modality("imu").source
        index = index_files(root / folder, suffixes=source.suffixes, require_labels=True, parts=source.parts)
        return [list(index.records)]

    return folds


DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            name="cifar10",
            modality="image",
            summary="CIFAR-10, 500 training and 200 test pictures a class",
            folds=_cifar10,
            metrics=("accuracy",),
            licence="none stated",
            source="https://www.cs.toronto.edu/~kriz/cifar.html",
        ),
        DataSet(
            name="fsdd",
            modality="audio",
            summary="Free Spoken Digit Dataset, official split",
            folds=_fsdd,
            metrics=("accuracy",),
            licence="CC BY-SA 4.0",
            source="https://github.com/Jakobovski/free-spoken-digit-dataset",
        ),
        DataSet(
            name="fsdd-speakers",
            modality="audio",
            summary="Free Spoken Digit Dataset, leave one speaker out (6 folds)",
            folds=_fsdd_speakers,
            metrics=("accuracy",),
            licence="CC BY-SA 4.0",
            source="https://github.com/Jakobovski/free-spoken-digit-dataset",
        ),
        DataSet(
            name="adult",
            modality="tabular",
            summary="UCI Adult (census income), official split",
            folds=_adult,
            metrics=("accuracy", "auroc"),
            licence="CC BY 4.0",
            source="https://archive.ics.uci.edu/dataset/2/adult",
        ),
        DataSet(
            name="xray-covid",
            modality="xray",
            summary="chest X-rays: COVID-19, pneumonia, no findings; patients apart",
            folds=_chest_xrays,
            metrics=("balanced_accuracy", "accuracy"),
            licence="none stated; NIH ChestX-ray8 with attribution, covid-chestxray-dataset per image",
            source="https://github.com/muhammedtalo/COVID-19",
        ),
        DataSet(
            name="xray-pair",
            modality="xray",
            summary="chest X-rays of one source: pneumonia, no findings; patients apart",
            folds=_chest_pair,
            metrics=("balanced_accuracy", "accuracy"),
            licence="NIH ChestX-ray8: free with attribution",
            source="https://github.com/muhammedtalo/COVID-19",
        ),
        DataSet(
            name="infrared-solar",
            modality="infrared",
            summary="InfraredSolarModules, at most 500 pictures a class",
            folds=_solar_modules,
            metrics=("balanced_accuracy", "accuracy"),
            licence="MIT",
            source="https://github.com/RaptorMaps/InfraredSolarModules",
        ),
        DataSet(
            name="italian-signs",
            modality="imu",
            summary="Italian Sign Language alphabet by armband, 100 steps of 10 axes, split by file name",
            folds=_motion("imu/italian_sign_language_imu"),
            metrics=("accuracy",),
            licence="none stated",
            source="https://github.com/airtlab/An-EMG-and-IMU-Dataset-for-the-Italian-Sign-Language-Alphabet",
        ),
        DataSet(
            name="basic-motions",
            modality="imu",
            summary="BasicMotions (UEA), smart watch, official split",
            folds=_motion("imu/basic_motions"),
            metrics=("accuracy",),
            licence="research use with citation",
            source="https://www.timeseriesclassification.com/description.php?Dataset=BasicMotions",
        ),
    )
}
