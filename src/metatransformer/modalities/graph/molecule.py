"""Molecules: SMILES and SDF as graphs of atoms and bonds, read by RDKit.

Hydrogens stay implicit (their number is a property of the atom), salts and other mixtures stay whole: their fragments
are parts of one graph that no bond joins.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.delimited import decode
from metatransformer.data.limits import read_bytes
from metatransformer.data.records import counted
from metatransformer.modalities.graph.graphs import Graph

RADIUS = 2  # bonds around an atom that make a circular substructure, as ECFP4 has it
MOST_DRAWN = 200  # atoms: RDKit lays out a chain of 300 in a second, one of 600 in 40, one of 1,000 never
_CLOCK = re.compile(r"^\[\d\d:\d\d:\d\d\]\s*")
_BLOCK_END = "$$$$"
_MUST = "be a molecule that RDKit understands"
_WAY_OUT = "Correct it, or leave such rows out with input.unparsed=skip; 'metatransformer check' lists all."

SMILES_NAMES = ("smiles", "canonical_smiles", "isomeric_smiles", "isosmiles", "mol", "molecule", "structure")

# Two-dimensional descriptors of the whole molecule, by RDKit's names: size and shape, polarity, rings, flexibility,
# charge. ``log`` says which grow without bound with the molecule and are taken as log(1 + x).
DESCRIPTORS = (
    "MolLogP",
    "MolMR",
    "MolWt",
    "TPSA",
    "LabuteASA",
    "NumHDonors",
    "NumHAcceptors",
    "NumRotatableBonds",
    "NumHeteroatoms",
    "HeavyAtomCount",
    "RingCount",
    "NumAromaticRings",
    "NumAliphaticRings",
    "NumSaturatedRings",
    "FractionCSP3",
    "BertzCT",
    "BalabanJ",
    "HallKierAlpha",
    "Kappa1",
    "Kappa2",
    "Kappa3",
    "Chi0v",
    "Chi1v",
    "Chi2v",
    "MaxEStateIndex",
    "MinEStateIndex",
)
# Families of numbers: the surface of atoms whose charge, refractivity or lipophilicity lies in a range.
SURFACES = ("PEOE_VSA", "SMR_VSA", "SlogP_VSA")


@dataclass(frozen=True)
class Block:
    """One molecule of an SD file: its connection table, its name, and its properties as text."""

    text: str
    name: str
    properties: dict[str, str]


def read_sdf(path: Path) -> list[Block]:
    """Returns the molecules of an SD file (or the one of a MOL file) in order, none of them parsed yet.

    Raises:
        DataError: not text, or no molecule.
    """
    text = decode(read_bytes(path), path=path, latin=True).replace("\r\n", "\n")
    lines = text.split("\n" if "\n" in text else "\r")  # old Macintoshes wrote the latter
    blocks: list[Block] = []
    start = 0
    for place, line in enumerate(lines):
        if line.startswith(_BLOCK_END):
            blocks.append(_block(lines[start:place]))
            start = place + 1
    if any(line.strip() for line in lines[start:]):
        blocks.append(_block(lines[start:]))
    if not blocks:
        raise DataError(path, must="hold a molecule", found="an empty file")
    return blocks


def _block(lines: Sequence[str]) -> Block:
    end = next((i for i, line in enumerate(lines) if line.startswith("M  END")), len(lines) - 1)
    properties: dict[str, str] = {}
    rest = iter(lines[end + 1 :])
    for line in rest:
        if line.startswith(">") and (name := line[1:].partition("<")[2].rpartition(">")[0]):
            # Up to an empty line all is the value, whatever it looks like.
            properties[name] = "\n".join(takewhile(bool, rest)).strip()
    # A connection table is ASCII; other letters stand in names, and RDKit cuts them in half in what it says.
    table = "".join(f"{line}\n" for line in lines[: end + 1]).encode("ascii", "replace").decode("ascii")
    return Block(table, lines[0].strip() if lines else "", properties)


def read_smiles(path: Path) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Returns the molecules of a .smi file in order, none of them parsed yet, each with its properties.

    A line is a SMILES and, behind a tab or spaces, its name; a first line that begins with ``smiles`` names columns.
    Without such a line all that stands behind the SMILES is the name.

    Raises:
        DataError: not text, no molecule, or a line with more fields than the first line names.
    """
    text = decode(read_bytes(path), path=path, latin=True)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    names = ["smiles", "name"]
    if lines and _smiles_fields(lines[0][1])[0].lower().lstrip("#") in SMILES_NAMES:
        (_, header), *lines = lines
        names = _smiles_fields(header)
        rows = [(number, _smiles_fields(line)) for number, line in lines]
    else:
        rows = [(number, _smiles_fields(line, splits=1)) for number, line in lines]
    if not rows:
        raise DataError(path, must="hold a molecule", found="an empty file")
    for number, fields in rows:
        if len(fields) > len(names):
            must = f"hold at most {counted(len(names), 'field')}, as the first line names"
            raise DataError(f"{path}, line {number}", must=must, found=counted(len(fields), "field"))
    return [({"smiles": fields[0]}, dict(zip(names[1:], fields[1:], strict=False))) for _, fields in rows]


def _smiles_fields(line: str, *, splits: int = -1) -> list[str]:
    """Returns the fields of a line: by tabs where it has one, else the first word and the rest."""
    line = line.rstrip()  # empty fields at the end are none
    fields = line.split("\t", splits) if "\t" in line else line.split(None, 1)
    return [field.strip() for field in fields]


def parse_molecule(value: str | Mapping[str, Any], *, where: object) -> Any:
    """Returns RDKit's molecule of a SMILES, of ``{"smiles": ...}``, or of ``{"block": ...}``, a connection table.

    Raises:
        DataError: an empty cell, a text that RDKit does not understand (with its reason), or no atom.
    """
    kind, text = ("smiles", value) if isinstance(value, str) else next(iter(value.items()))
    if not isinstance(text, str) or not text.strip():
        raise DataError(where, must="hold a molecule", found="an empty cell", do=_WAY_OUT)
    chem = _chem(where)
    read = chem.MolFromSmiles if kind == "smiles" else chem.MolFromMolBlock
    molecule, reasons = _quietly(partial(read, text), where=where)
    if molecule is None:
        what = f"the SMILES {text!r}" if kind == "smiles" else "a connection table"
        found = f"{what}: {'; '.join(reasons) or 'no reason given'}"
        raise DataError(where, must=_MUST, found=found, do=_WAY_OUT)
    if molecule.GetNumAtoms() == 0:
        raise DataError(where, must="have at least one atom", found="an empty molecule", do=_WAY_OUT)
    return molecule


def read_molecule(value: str | Mapping[str, Any], *, where: object) -> Graph:
    """Returns a molecule as a graph of its atoms and bonds; see ``parse_molecule``."""
    molecule = parse_molecule(value, where=where)
    title = value if isinstance(value, str) else value.get("smiles") or _chem(where).MolToSmiles(molecule)
    return _graph(molecule, title=title, where=where)


def scaffold(value: str | Mapping[str, Any], *, where: object) -> str:
    """Returns the Bemis-Murcko scaffold as canonical SMILES, the molecule's own SMILES where it has no ring."""
    molecule = parse_molecule(value, where=where)
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule) or _chem(where).MolToSmiles(molecule)


def _chem(where: object) -> Any:
    try:
        from rdkit import Chem
    except ImportError as error:
        raise MissingDependencyError("rdkit", extra="graph", purpose=f"reading {where}") from error
    return Chem


class _Ear(logging.Handler):
    """Keeps what RDKit logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(_CLOCK.sub("", record.getMessage()).strip())


def _quietly(parse: Any, *, where: object) -> tuple[Any, list[str]]:
    """Returns what ``parse`` returns without a word on standard error; where that is None, parses again to hear why."""
    from rdkit import rdBase

    with rdBase.BlockLogs(), foreign(where, "RDKit", must=_MUST, do=_WAY_OUT):
        found = parse()
    if found is not None:
        return found, []
    ear, logger = _Ear(), logging.getLogger("rdkit")
    ears: list[logging.Handler] = [ear]
    before = (list(logger.handlers), logger.propagate)
    logger.handlers, logger.propagate = ears, False
    rdBase.LogToPythonLogger()
    try:
        # Outside the border, which would silence the log. A line that RDKit cannot hand over is not heard.
        with suppress(SystemError):
            parse()
    finally:
        rdBase.LogToCppStreams()
        logger.handlers, logger.propagate = before
    reasons = [line for line in ear.lines if line and not re.fullmatch(r"[~^]+", line)]
    # "check for mistakes around position 3:" is followed by a drawing of the place that a message cannot show.
    lines = [line.removeprefix("SMILES Parse Error: ").rstrip(":") for line in reasons if " " in line]
    return None, list(dict.fromkeys(lines))[:2]


def _graph(molecule: Any, *, title: str, where: object) -> Graph:
    from rdkit.Chem import rdDepictor

    places = None
    if molecule.GetNumAtoms() <= MOST_DRAWN:
        with foreign(where, "RDKit", must=_MUST, do=_WAY_OUT):
            rdDepictor.Compute2DCoords(molecule)
            places = molecule.GetConformer().GetPositions()[:, :2].astype(np.float32)
    atoms, bonds = list(molecule.GetAtoms()), list(molecule.GetBonds())
    edges = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds]
    around = _neighbourhoods(molecule)
    return Graph(
        count=len(atoms),
        edges=np.array(edges, dtype=np.int64).reshape(-1, 2),
        nodes={
            "element": [atom.GetSymbol() for atom in atoms],
            "charge": [f"{atom.GetFormalCharge():+d}" for atom in atoms],
            "hydrogens": [str(atom.GetTotalNumHs()) for atom in atoms],
            "hybridisation": [str(atom.GetHybridization()) for atom in atoms],
            "aromatic": [_yes(atom.GetIsAromatic()) for atom in atoms],
            "ring": [_ring(atom) for atom in atoms],
            "chirality": [str(atom.GetChiralTag()) for atom in atoms],
        },
        links={
            "bond": [str(bond.GetBondType()) for bond in bonds],
            "conjugated": [_yes(bond.GetIsConjugated()) for bond in bonds],
            "ring": [_yes(bond.IsInRing()) for bond in bonds],
            "stereo": [str(bond.GetStereo()) for bond in bonds],
        },
        environments=dict(Counter(around[:, 0].tolist())),
        around=around,
        whole=_descriptors(molecule, where=where),
        places=places,
        marks=[
            *((atom.GetAtomicNum(), atom.GetTotalNumHs(), atom.GetFormalCharge()) for atom in atoms),
            *((round(10 * bond.GetBondTypeAsDouble()), 0, 0) for bond in bonds),
        ],
        title=title,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _ring(atom: Any) -> str:
    """Returns the size of the smallest ring through an atom, "no" outside of rings."""
    if not atom.IsInRing():
        return "no"
    return next((str(size) for size in range(3, 8) if atom.IsInRingSize(size)), "large")


def _neighbourhoods(molecule: Any) -> np.ndarray:
    """Returns RDKit's circular substructures of up to ``RADIUS`` bonds ``[k, 3]``: identifier, middle atom, bonds."""
    from rdkit.Chem import rdFingerprintGenerator

    told = rdFingerprintGenerator.AdditionalOutput()
    told.AllocateBitInfoMap()
    rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS).GetSparseCountFingerprint(molecule, additionalOutput=told)
    found = [(kind, *place) for kind, places in told.GetBitInfoMap().items() for place in places]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _descriptors(molecule: Any, *, where: object) -> dict[str, float]:
    from rdkit import rdBase
    from rdkit.Chem import Descriptors, GetMolFrags, rdMolDescriptors

    with rdBase.BlockLogs(), foreign(where, "RDKit", must=_MUST, do=_WAY_OUT):
        values = {name: float(getattr(Descriptors, name)(molecule)) for name in DESCRIPTORS}
        for name in SURFACES:
            parts = getattr(rdMolDescriptors, f"{name}_")(molecule)
            values |= {f"{name}[{i}]": float(value) for i, value in enumerate(parts, start=1)}
    values["fragments"] = float(len(GetMolFrags(molecule)))
    values["charge"] = float(sum(atom.GetFormalCharge() for atom in molecule.GetAtoms()))
    return {name: value if math.isfinite(value) else math.nan for name, value in values.items()}
