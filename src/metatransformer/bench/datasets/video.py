"""Data sets of the modality video."""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold
from metatransformer.infer.sources import read_index
from metatransformer.modalities import get_modality

FOLDS = 5


def _lung_ultrasound(root: Path) -> list[Fold]:
    """Returns five folds of whole source groups, each once the test split."""
    from sklearn.model_selection import GroupKFold

    modality = get_modality("video")
    manifest = root / "video/lung_ultrasound/index.csv"
    records = read_index(modality, manifest, options=modality.options(), labelled=True).records
    groups = [record.group for record in records]
    folds = []
    for _, places in GroupKFold(FOLDS).split(records, groups=groups):
        chosen = set(places.tolist())
        folds.append([replace(r, split="test" if i in chosen else "train") for i, r in enumerate(records)])
    return folds


DATA_SETS = (
    DataSet(
        name="lung-ultrasound",
        title="lung ultrasound, new sources",
        modality="video",
        summary="lung ultrasound videos: COVID-19, pneumonia, regular; sources apart (three patients have several)",
        folds=_lung_ultrasound,
        metrics=("balanced_accuracy", "pooled_balanced_accuracy", "accuracy"),
        licence="per video in its index: CC BY 2.0 and 4.0, CC BY-NC 4.0, CC BY-NC-SA 3.0 and 4.0, emergency licence",
        source="https://github.com/jannisborn/covid19_pocus_ultrasound",
        folder="video/lung_ultrasound",
        split="GroupKFold(5) on source_group, files in the order of the index",
        overrides={"task.metric": "balanced_accuracy"},
        seeds=3,
        strong="plain:logistic,svm,forest",
        minutes=7,
        sha256="525f3ceb8156d0670f294259cf38b5ec092fbae80042c691a4c3af80479d77db",
        fetch="Clone the source; take data/pocus_videos. The index tells which files were shortened.",
    ),
)
