"""Data sets of the modality pointcloud."""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold
from metatransformer.data.index import index_files

FOLDER = "pointcloud/modelnet10_voxel_points"


def _modelnet10(root: Path) -> list[Fold]:
    """Returns one fold: the PLY files in their train and test folders; the voxel grids beside them are left alone."""
    records = []
    for split in ("train", "test"):
        index = index_files(root / FOLDER / split, suffixes=(".ply",), require_labels=True)
        records += [replace(record, key=f"{split}/{record.key}", split=split) for record in index.records]
    return [records]


DATA_SETS = (
    DataSet(
        name="modelnet10",
        title="ModelNet10",
        modality="pointcloud",
        summary="ModelNet10, 1024 points from 30^3 voxels, 993 of the training clouds, 50 test clouds a class",
        folds=_modelnet10,
        metrics=("accuracy",),
        licence="academic research use",
        source="https://modelnet.cs.princeton.edu",
        folder=FOLDER,
        split="official; 93 to 100 of its training and 50 of its test shapes a class",
        minutes=4,
        strong="plain:svm,forest",
        sha256="c600b26d7ae6fbd6ed8e72efdb3e1123e1a383d69e9cf21531d61ccec247b82f",
        fetch="Voxel grids: data/modelnet10.npz of github.com/amitregmi/VoxNet-Google-Colab; points: the centres of "
        "surface voxels moved by up to half a voxel, 1024 drawn, numpy.random.RandomState(class number).",
    ),
)
