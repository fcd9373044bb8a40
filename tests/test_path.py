"""The path of one predicted picture: how many functions and files of this package a reader has to follow.

Counted are functions (no lambdas and comprehensions) that are entered once everything is imported and the trunk is in
memory. The bounds are what holds, with little to spare: who needs more says why in docs/design.md.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from common import CLI_IMAGE, CLI_SETTINGS, ROOT, Run

from metatransformer.infer.predict import predict
from metatransformer.infer.sources import examples_of, read_unlabelled
from metatransformer.machine.console import Console
from metatransformer.saved import load_pipeline

PACKAGE = str(ROOT / "src" / "metatransformer")
QUIET = Console(quiet=True)
MOST = {"command": (227, 52), "loading": (72, 25), "predicting": (120, 34)}  # functions, files


def entered(action: Callable[[], object]) -> tuple[int, int]:
    """Returns how many functions of this package, and files, ``action`` enters, in all threads."""
    action()  # imports, and what is kept from the first time
    found: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            found.add((code.co_filename, code.co_qualname))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
    return len(found), len({file for file, _ in found})


def test_the_path_of_one_picture_stays_short(pictures: Path, tmp_path: Path, call: Run):
    run, picture = tmp_path / "run", pictures / "a" / "0.png"
    assert call(["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", run, *CLI_SETTINGS])[0] == 0
    pipeline = load_pipeline(run / "model")  # it also holds the trunk
    examples = examples_of(read_unlabelled(pipeline.recipe, picture).records, pipeline.recipe)
    found = {
        "command": entered(lambda: call(["predict", run, picture, "--out", tmp_path / "p.csv"])),
        "loading": entered(lambda: load_pipeline(run / "model")),
        "predicting": entered(lambda: predict(pipeline, examples, console=QUIET)),
    }
    for name, (functions, files) in found.items():
        most = MOST[name]
        assert functions <= most[0] and files <= most[1], found
