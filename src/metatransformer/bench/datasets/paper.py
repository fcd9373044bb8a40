"""The paper's own data sets that come as files, in their official layouts: ``metatransformer bench paper``.

None of them could be fetched where this was written: the readers are tested on made folders of the same layout. Left
out: RegDB and SYSU-MM01 (re-identification), COCO, ADE20K, S3DIS and ShapeNetPart (boxes and masks), which are no tasks
here; Ego4D's motion data, whose samples are cut by scripts of its own. Tables are in ``paper_tables``.
"""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.bench.datasets._paper import PAPER, official_lines, records_of, split_by_digest
from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record


def _imagenet(root: Path) -> list[Fold]:
    """Returns the official training pictures, and the validation pictures as test: no other labels are public."""
    folder = root / "imagenet"
    return [_split_folders("image", folder, train="train", test="val")]


def _split_folders(modality: str, folder: Path, *, train: str, test: str) -> Fold:
    fold: Fold = []
    for name, split in ((train, "train"), (test, "test")):
        records = records_of(modality, folder / name)
        fold += [replace(record, key=f"{name}/{record.key}", split=split) for record in records]
    return fold


def _speech_commands(root: Path) -> list[Fold]:
    """Returns the clips of the 35 words, with the official lists of validation and test; speakers are apart there."""
    folder = root / "speech_commands_v0.02"
    lists = {
        split: official_lines(folder / f"{name}_list.txt")
        for split, name in (("val", "validation"), ("test", "testing"))
    }
    known = {key: split for split, keys in lists.items() for key in keys}
    records = [r for r in records_of("audio", folder) if not str(r.target).startswith("_")]
    return [[replace(record, split=known.get(record.key, "train")) for record in records]]


def _chest_tuberculosis(root: Path) -> list[Fold]:
    """Returns the two folders of pictures, a fifth of them test by the digest of their name."""
    return [split_by_digest(records_of("xray", root / "TB_Chest_Radiography_Database"), text=lambda record: record.key)]


def _modelnet40(root: Path) -> list[Fold]:
    """Returns ``ModelNet40/<class>/<train|test>/*.off``: the class stands above the split."""
    folder = root / "ModelNet40"
    fold: Fold = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        for split in ("train", "test"):
            for file in sorted((place / split).glob("*.off")):
                fold.append(Record(file.relative_to(folder).as_posix(), path=file, target=place.name, split=split))
    if not fold:
        raise DataError(folder, must="hold CLASS/train/*.off and CLASS/test/*.off", found="none")
    return [fold]


def _ucf101(root: Path) -> list[Fold]:
    """Returns split 1 of three: ``UCF-101/<class>/*.avi`` with ``ucfTrainTestlist/trainlist01.txt``."""
    folder, lists = root / "UCF-101", root / "ucfTrainTestlist"
    fold: Fold = []
    for split in ("train", "test"):
        for line in official_lines(lists / f"{split}list01.txt"):
            name = line.split(" ")[0]
            # A group is one person and place: the official lists keep groups apart, so validation must as well.
            group = name.rsplit("_c", 1)[0]
            label = name.split("/")[0]
            fold.append(Record(name, path=folder / name, target=label, split=split, group=group))
    return [fold]


def _indian_pines(root: Path) -> list[Fold]:
    """Returns the pixels of the label maps TR and TE of one file with the cube."""
    return [records_of("hyperspectral", root / "IndianPine")]


DATA_SETS = (
    DataSet(
        suite="paper",
        name="imagenet-1k",
        modality="image",
        summary="ImageNet-1k",
        folds=_imagenet,
        metrics=("accuracy",),
        licence="research only, by registration",
        source="https://www.image-net.org",
        folder="imagenet",
        split="official; the validation pictures are the test",
        strong="plain:logistic",
        published=(Published("Meta-Transformer-B16, zero-shot", 0.693, PAPER),),
        fetch="Register, unpack train/ and val/ with one folder a class.",
    ),
    DataSet(
        suite="paper",
        name="speech-commands",
        modality="audio",
        summary="Speech Commands v2, 35 words",
        folds=_speech_commands,
        metrics=("accuracy",),
        licence="CC BY 4.0",
        source="https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        folder="speech_commands_v0.02",
        split="official lists, speakers apart",
        published=(Published("Meta-Transformer-B32, frozen", 0.783, PAPER, comparable=True),),
        fetch="Unpack the archive into DIR/speech_commands_v0.02.",
    ),
    DataSet(
        suite="paper",
        name="tuberculosis",
        modality="xray",
        summary="TB chest radiography database: normal, tuberculosis",
        folds=_chest_tuberculosis,
        metrics=("accuracy", "balanced_accuracy", "auroc"),
        licence="see the source",
        source="https://www.kaggle.com/datasets/tawsifurrahman/tuberculosis-tb-chest-xray-dataset",
        folder="TB_Chest_Radiography_Database",
        split="md5(file) mod 5 == 0 is test; none official, patients are not named",
        strong="hog:svm",
        published=(Published("Meta-Transformer-B16, frozen (accuracy)", 0.941, PAPER),),
        fetch="Unpack the archive; folders Normal/ and Tuberculosis/.",
    ),
    DataSet(
        suite="paper",
        name="modelnet40",
        modality="pointcloud",
        summary="ModelNet40 meshes",
        folds=_modelnet40,
        metrics=("accuracy", "balanced_accuracy"),
        licence="academic research use",
        source="https://modelnet.cs.princeton.edu/ModelNet40.zip",
        folder="ModelNet40",
        split="official",
        strong="plain:forest",
        published=(Published("Meta-Transformer-B16, frozen (other points of the same shapes)", 0.936, PAPER),),
        fetch="Unpack ModelNet40.zip.",
    ),
    DataSet(
        suite="paper",
        name="ucf101",
        modality="video",
        summary="UCF101, split 1 of 3",
        folds=_ucf101,
        metrics=("accuracy",),
        licence="none stated",
        source="https://www.crcv.ucf.edu/data/UCF101.php",
        folder="UCF-101",
        split="official split 1, groups apart",
        strong="plain:svm",
        published=(Published("Meta-Transformer-B16, frozen", 0.466, PAPER),),
        fetch="Unpack UCF101.rar (UCF-101/) and the splits (ucfTrainTestlist/) side by side.",
    ),
    DataSet(
        suite="paper",
        name="indian-pines-official",
        modality="hyperspectral",
        summary="Indian Pines, SpectralFormer's 695 training and 9,671 test pixels with their neighbours",
        folds=_indian_pines,
        metrics=("accuracy", "balanced_accuracy", "kappa"),
        licence="none stated",
        source="https://github.com/danfenghong/IEEE_TGRS_SpectralFormer",
        folder="IndianPine",
        split="official maps TR and TE",
        strong="plain:logistic,svm",
        published=(
            Published("Meta-Transformer-B16, frozen", 0.6762, PAPER, comparable=True),
            Published("SpectralFormer, pixel-wise", 0.7855, "arXiv 2107.02988", comparable=True),
            Published("SpectralFormer, patch-wise", 0.8176, "arXiv 2107.02988", comparable=True),
        ),
        fetch="Put IndianPine.mat (variables input, TR, TE) into a folder of its own.",
    ),
)
