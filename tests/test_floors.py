"""The floors of docs/design.md: imports only go down, and some neighbours never see each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "metatransformer"

# A unit is a folder or a file of the package. Units of one floor may import each other unless they are STRANGERS.
FLOORS = {
    "core": 0,
    "nn": 1,
    "data": 1,
    "machine": 1,
    "trunk": 2,
    "tasks": 3,
    "readouts": 3,
    "modalities": 3,
    "recipe": 3,
    "model": 4,
    "pipeline": 5,
    "migrate": 5,
    "saved": 5,
    "together": 5,
    "infer": 6,
    "fit": 7,
    "pairs": 7,
    "report": 7,
    "export": 8,
    "serve": 8,
    "faces": 8,
    "bench": 8,
    "__main__": 9,
}
STRANGERS = [
    ("nn", "data"),
    ("data", "nn"),
    ("modalities", "recipe"),
    ("modalities", "tasks"),
    ("tasks", "modalities"),
]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports_of(path: Path) -> list[tuple[str, ...]]:
    """Returns the modules of this package that a file imports anywhere, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found += [tuple(name.split(".")[1:]) for name in names if name.startswith("metatransformer.")]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_go_down(path: Path):
    unit = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert unit in FLOORS, f"'{unit}' has no floor"
    for parts in imports_of(path):
        other = parts[0]
        assert other in FLOORS, f"'{other}' has no floor"
        assert FLOORS[other] <= FLOORS[unit], f"{unit} (floor {FLOORS[unit]}) imports {other} (floor {FLOORS[other]})"
        assert (unit, other) not in STRANGERS, f"{unit} imports {other}"


def test_modalities_never_see_each_other():
    folder = PACKAGE / "modalities"
    for path in folder.rglob("*.py"):
        own = path.relative_to(folder).with_suffix("").parts[0]
        seen = {parts[1] for parts in imports_of(path) if parts[0] == "modalities" and len(parts) > 1}
        # What begins with an underscore is shared.
        assert own == "__init__" or all(name == own or name.startswith("_") for name in seen), path


def test_every_unit_has_a_floor_and_every_floor_a_unit():
    units = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES}
    assert units == FLOORS.keys()
