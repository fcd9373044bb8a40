"""Data sets of the modality hyperspectral."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.infer.sources import read_index
from metatransformer.modalities import get_modality

FOLDS = 5
DRAWS = 5
SALINAS = "https://www.ehu.eus/ccwintco/index.php/Hyperspectral_Remote_Sensing_Scenes"
SALINAS_SHA256 = "21a5f547c89f7d2dcc044268a677ec74d89ff06af292cd53ebfad949a0057350"
SALINAS_FETCH = "Fetch SalinasA_corrected.mat and SalinasA_gt.mat from the source."
OTHERS = "on the 9,671 test pixels of the same scene, learned from these 695"


def _indian_pines(root: Path) -> list[Fold]:
    """Returns five stratified folds of the 695 spectra, each once the test split."""
    from sklearn.model_selection import StratifiedKFold

    records = _records(root / "hyperspectral/indian_pines_spectra", {})
    cutter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    folds = []
    for _, places in cutter.split(records, [record.target for record in records]):
        chosen = set(places.tolist())
        folds.append([replace(r, split="test" if i in chosen else "train") for i, r in enumerate(records)])
    return folds


def _salinas(root: Path) -> list[Fold]:
    """Returns five draws of 5 labelled pixels a class, the rest of the scene is the test."""
    options = [{"train_pixels": 5, "draw": draw} for draw in range(DRAWS)]
    return [_records(root / "hyperspectral/salinas_a", more) for more in options]


def _salinas_apart(root: Path) -> list[Fold]:
    """Returns five draws of 5 labelled pixels a class from few places, the test lies elsewhere."""
    options = [{"train_pixels": 5, "draw": draw, "split": "disjoint"} for draw in range(DRAWS)]
    return [_records(root / "hyperspectral/salinas_a", more) for more in options]


def _records(folder: Path, settings: Mapping[str, Any]) -> Fold:
    modality = get_modality("hyperspectral")
    return list(read_index(modality, folder, options=modality.options(**settings), labelled=True).records)


DATA_SETS = (
    DataSet(
        name="indian-pines",
        title="Indian Pines spectra",
        modality="hyperspectral",
        summary="Indian Pines, the 695 labelled spectra of SpectralFormer's training set, 16 classes",
        folds=_indian_pines,
        metrics=("accuracy", "balanced_accuracy", "kappa"),
        licence="none stated",
        source="https://github.com/danfenghong/IEEE_TGRS_GCN",
        folder="hyperspectral/indian_pines_spectra",
        split="five stratified folds (shuffled, seed 0); neighbouring pixels may stand on both sides",
        strong="plain:logistic,svm",
        minutes=6,
        published=(
            Published("Meta-Transformer-B16, frozen", 0.6762, f"arXiv 2307.10802, {OTHERS}"),
            Published("SpectralFormer, pixel-wise", 0.7855, f"arXiv 2107.02988, {OTHERS}"),
        ),
        sha256="09305589320370126c3703dc60a196bcf1349b4e576722f8f8a0b413474eb26a",
        fetch="Clone the source; take Train_X.mat and TrLabel.mat of its folder HSI_GCN.",
    ),
    DataSet(
        name="salinas-a",
        title="Salinas-A, 5 pixels a class",
        modality="hyperspectral",
        summary="Salinas-A (AVIRIS), 5 random labelled pixels a class, 6 classes",
        folds=_salinas,
        metrics=("accuracy", "balanced_accuracy", "kappa"),
        licence="none stated",
        source=SALINAS,
        folder="hyperspectral/salinas_a",
        split="5 random pixels a class (draws 0 to 4), all others test: windows overlap, which flatters",
        trunks=1,
        strong="plain:logistic,svm",
        minutes=16,
        sha256=SALINAS_SHA256,
        fetch=SALINAS_FETCH,
    ),
    DataSet(
        name="salinas-a-apart",
        title="Salinas-A, test far away",
        modality="hyperspectral",
        summary="Salinas-A (AVIRIS), 5 labelled pixels a class from few places, 6 classes",
        folds=_salinas_apart,
        metrics=("accuracy", "balanced_accuracy", "kappa"),
        licence="none stated",
        source=SALINAS,
        folder="hyperspectral/salinas_a",
        split="5 pixels a class from few tiles (draws 0 to 4); no window of the test shares a pixel with theirs",
        trunks=1,
        strong="plain:logistic,svm",
        modes=("ends", "lora", "all"),
        minutes=35,
        sha256=SALINAS_SHA256,
        fetch=SALINAS_FETCH,
    ),
)
