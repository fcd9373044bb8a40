"""Loops over files by timm and OpenCLIP, run as a script by the Python of an environment of their own.

    python speed_peers.py PEER SIZE      PEER: timm or open_clip, SIZE: as bench speed calls it

The first line of standard input names the files as JSON, each further line asks for one loop; the answer is a line.
Both ask for torchvision, whose builds do not import beside a CPU build of torch. Their models call nothing of it in a
forward pass, so modules of nothing but empty classes stand in where it is not installed.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

SIDE, BATCH = 224, 32
NAMES = {
    "timm": {"ViT-B/16": "vit_base_patch16_224", "ViT-S/14": "vit_small_patch14_dinov2"},
    "open_clip": {"ViT-B/16": "ViT-B-16"},
}


class _Nothing(type):
    """A class in which every name is another such class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(name, (), {})


class _Empty(ModuleType):
    """A module in which every name is a class that does nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # of a package: parts of it may be imported

    def __getattr__(self, name: str) -> Any:
        return getattr(_Nothing("torchvision", (), {}), name)


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        found = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if found else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leaves it empty."""


def make_model(peer: str, size: str) -> Any:
    """Returns a peer's model of pictures with random weights, which cost what trained ones cost."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIn())
    if peer == "timm":
        import timm

        return timm.create_model(NAMES[peer][size], img_size=SIDE, num_classes=0).eval()
    import open_clip

    return open_clip.create_model(NAMES[peer][size]).visual.eval()


def run_loop(model: Any, files: Sequence[str]) -> None:
    """Makes vectors as a script of a few lines does: open, resize, stack, run."""
    import numpy as np
    import torch
    from PIL import Image

    with torch.no_grad():
        for start in range(0, len(files), BATCH):
            pixels = []
            for file in files[start : start + BATCH]:
                with Image.open(file) as picture:
                    pixels.append(np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32))
            model(torch.from_numpy(np.stack(pixels) / 127.5 - 1).permute(0, 3, 1, 2).contiguous())


def main() -> None:
    """Answers until standard input ends."""
    model, files = make_model(*sys.argv[1:3]), json.loads(sys.stdin.readline())
    print("ready", flush=True)
    for _ in sys.stdin:
        run_loop(model, files)
        print("done", flush=True)


if __name__ == "__main__":
    main()
