"""Data sets of the modality pointcloud."""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold
from metatransformer.io.index import index_files


def _modelnet10(root: Path) -> list[Fold]:
    """Returns one fold: the PLY files in their train and test folders; the voxel grids beside them are left alone."""
    folder = root / "pointcloud" / "modelnet10_voxel_points"
    records = []
    for split in ("train", "test"):
        index = index_files(folder / split, suffixes=(".ply",), require_labels=True)
        records += [replace(record, key=f"{split}/{record.key}", split=split) for record in index.records]
    return [records]


DATA_SETS = (
    DataSet(
        name="modelnet10",
        modality="pointcloud",
        summary="ModelNet10, 1024 points from 30^3 voxels, 993 of the training clouds, 50 test clouds a class",
        folds=_modelnet10,
        metrics=("accuracy",),
        licence="academic research use",
        source="https://modelnet.cs.princeton.edu",
    ),
)
