"""Data sets of the modality audio."""

from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.core.samples import Record
from metatransformer.data.index import index_files


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
    return [[replace(r, split="test" if r.group == speaker else "train") for r in records] for speaker in speakers]


DATA_SETS = (
    DataSet(
        name="fsdd",
        title="spoken digits, official split",
        modality="audio",
        summary="Free Spoken Digit Dataset, official split",
        folds=_fsdd,
        metrics=("accuracy",),
        licence="CC BY-SA 4.0",
        source="https://github.com/Jakobovski/free-spoken-digit-dataset",
        folder="audio/fsdd",
        split="official: recordings 0 to 4 test, the others train",
        strong="mfcc:svm,logistic",
        minutes=7,
        published=(Published("multi-modal-embed-small, frozen, linear", 0.62, "mteb, pull request 5011"),),
        sha256="38c5b7463bf61730ccda74e2356bd5e86b3d4eed9f1d83253af8b78c1d71dc77",
        fetch="Clone github.com/Jakobovski/free-spoken-digit-dataset; its folder recordings/ is used.",
    ),
    DataSet(
        name="fsdd-speakers",
        title="spoken digits, new speakers",
        modality="audio",
        summary="Free Spoken Digit Dataset, leave one speaker out (6 folds)",
        folds=_fsdd_speakers,
        metrics=("accuracy",),
        licence="CC BY-SA 4.0",
        source="https://github.com/Jakobovski/free-spoken-digit-dataset",
        folder="audio/fsdd",
        split="leave one speaker out",
        trunks=1,
        strong="mfcc:svm,logistic",
        minutes=16,
        sha256="38c5b7463bf61730ccda74e2356bd5e86b3d4eed9f1d83253af8b78c1d71dc77",
        fetch="Clone github.com/Jakobovski/free-spoken-digit-dataset; its folder recordings/ is used.",
    ),
)
