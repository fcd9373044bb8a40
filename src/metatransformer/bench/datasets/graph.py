"""Data sets of the modality graph: molecules of MoleculeNet, as DeepChem keeps them."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import DataSet, Fold, Published
from metatransformer.modalities.graph import GraphOptions
from metatransformer.modalities.graph.index import index_graphs

TOX21 = (
    *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma"),
    *("SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
)


def _molecules(file: str, target: str) -> Callable[[Path], list[Fold]]:
    """Returns the one fold of a table; a molecule is tested when the MD5 sum of its SMILES is divisible by 5.

    Molecules that RDKit does not understand are left out, as MoleculeNet does.
    """

    def folds(root: Path) -> list[Fold]:
        path = root / "graph/moleculenet" / file
        options = GraphOptions(unparsed="skip")
        index = index_graphs(path, target=target, labelled=True, header=True, options=options)
        return [[replace(record, split=_split(record.value["smiles"])) for record in index.records]]

    return folds


def _split(smiles: str) -> str:
    tested = int(hashlib.md5(smiles.encode(), usedforsecurity=False).hexdigest(), 16) % 5 == 0
    return "test" if tested else "train"


SHA256 = "f135aef63b66ee7ad79d6e14763255938e5633247f7d251699c851e315b9dda4"
FETCH = "Take delaney-processed.csv and tox21.csv.gz from datasets, clintox.csv.gz from examples/clintox/datasets."

DATA_SETS = (
    DataSet(
        name="esol",
        title="ESOL solubility",
        modality="graph",
        summary="ESOL, solubility of 1,128 molecules (log mol/l), split by hash of the SMILES",
        folds=_molecules("delaney-processed.csv", "measured log solubility in mols per litre"),
        metrics=("rmse", "mae"),
        licence="MIT",
        source="https://github.com/deepchem/deepchem",
        folder="graph/moleculenet",
        split="md5(SMILES) mod 5 = 0 is test",
        seeds=3,
        strong="plain:boosting,ridge",
        minutes=3,
        published=(
            Published("D-MPNN, random split, 5 folds", 0.980, "10.1038/s42004-023-00857-x, table 2"),
            Published("PharmHGT, random split, 5 folds", 0.680, "the same table"),
        ),
        sha256=SHA256,
        fetch=FETCH,
    ),
    DataSet(
        name="tox21",
        title="Tox21, 12 assays",
        modality="graph",
        summary="Tox21, 12 toxicity assays with gaps, 8,006 molecules, split by hash of the SMILES",
        folds=_molecules("tox21.csv.gz", ",".join(TOX21)),
        metrics=("mean_auroc", "mean_average_precision"),
        licence="MIT",
        source="https://github.com/deepchem/deepchem",
        folder="graph/moleculenet",
        split="md5(SMILES) mod 5 = 0 is test",
        strong="plain:forest,boosting",
        minutes=35,
        sha256=SHA256,
        fetch=FETCH,
        overrides={"task.name": "multilabel"},
    ),
    DataSet(
        name="clintox",
        title="ClinTox",
        modality="graph",
        summary="ClinTox, approval and toxicity of 1,487 drugs, split by hash of the SMILES",
        folds=_molecules("clintox.csv.gz", "FDA_APPROVED,CT_TOX"),
        metrics=("mean_auroc", "mean_average_precision"),
        licence="MIT",
        source="https://github.com/deepchem/deepchem",
        folder="graph/moleculenet",
        split="md5(SMILES) mod 5 = 0 is test",
        seeds=3,
        strong="plain:forest,boosting",
        minutes=7,
        sha256=SHA256,
        fetch=FETCH,
        overrides={"task.name": "multilabel"},
    ),
)
