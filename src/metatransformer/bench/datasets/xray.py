"""Data sets of the modality xray."""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.core.samples import Record
from metatransformer.data.index import index_files


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


DATA_SETS = (
    DataSet(
        name="xray-covid",
        title="chest X-rays, 3 classes",
        modality="xray",
        summary="chest X-rays: COVID-19, pneumonia, no findings; patients apart but for COVID-19",
        folds=_chest_xrays,
        metrics=("balanced_accuracy", "accuracy"),
        licence="none stated; NIH ChestX-ray8 with attribution, covid-chestxray-dataset per image",
        source="https://github.com/muhammedtalo/COVID-19",
        folder="xray/covid_xray_3class",
        split="md5(patient or file name) mod 5 == 0 is test",
        seeds=3,
        published=(Published("DarkCovidNet, 5 folds (accuracy)", 0.870, "Ozturk et al. 2020"),),
        minutes=6,
        strong="hog:svm;plain:svm,logistic,forest",
        sha256="5bb37d12bc8568d6824a932e2ad4f80828cf44ca57f7416b3c1918ed07d8ed7f",
        fetch="Take the folder 'X-Ray Image DataSet' of the source, pictures at most 256 pixels, split as said.",
    ),
    DataSet(
        name="xray-pair",
        title="chest X-rays, 2 classes",
        modality="xray",
        summary="chest X-rays of one source: pneumonia, no findings; patients apart",
        folds=_chest_pair,
        metrics=("balanced_accuracy", "accuracy"),
        licence="NIH ChestX-ray8: free with attribution",
        source="https://github.com/muhammedtalo/COVID-19",
        folder="xray/covid_xray_3class",
        split="as xray-covid",
        seeds=3,
        strong="hog:svm;plain:svm,logistic,forest",
        minutes=5,
        sha256="5bb37d12bc8568d6824a932e2ad4f80828cf44ca57f7416b3c1918ed07d8ed7f",
        fetch="As xray-covid.",
    ),
)
