"""Loops by timm, OpenCLIP and sentence-transformers, run as a script by the Python of an environment of their own.

    python speed_peers.py PEER WORK      PEER: a key of MAKERS, WORK: as bench speed calls it

The first line of standard input holds the files, or texts, as JSON, each further line asks for one loop; the answer is
a line. The first two ask for torchvision, whose builds do not import beside a CPU build of torch. Their models call
nothing of it in a forward pass, so modules of nothing but empty classes stand in where it is not installed.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

SIDE, BATCH = 224, 32
WORD = "word"  # the one that texts are made of
NAMES = {
    "timm": {"ViT-B/16": "vit_base_patch16_224", "ViT-S/14": "vit_small_patch14_dinov2"},
    "open_clip": {"ViT-B/16": "ViT-B-16"},
    "sentence_transformers": {"text": "a BERT of the size of ViT-S/14"},
}
Loop = Callable[[Sequence[str]], object]


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


def of_timm(work: str) -> Loop:
    """Returns a loop over pictures by a model with random weights, which cost what trained ones cost."""
    _stand_in()
    import timm

    return partial(run_loop, timm.create_model(NAMES["timm"][work], img_size=SIDE, num_classes=0).eval())


def of_open_clip(work: str) -> Loop:
    """Returns the same of OpenCLIP's vision tower."""
    _stand_in()
    import open_clip

    return partial(run_loop, open_clip.create_model(NAMES["open_clip"][work]).visual.eval())


def of_sentence_transformers(_: str) -> Loop:
    """Returns what encodes texts by a BERT with random weights, a token a word."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    width = 384
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", WORD]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
        transformers.BertTokenizer(str(Path(folder) / "vocab.txt")).save_pretrained(folder)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            num_hidden_layers=12,
            num_attention_heads=6,
            intermediate_size=4 * width,
        )
        transformers.BertModel(config).save_pretrained(folder)
        model = SentenceTransformer(modules=[Transformer(folder), Pooling(width)], device="cpu")
    return partial(model.encode, batch_size=BATCH, show_progress_bar=False)


MAKERS = {"timm": of_timm, "open_clip": of_open_clip, "sentence_transformers": of_sentence_transformers}


def _stand_in() -> None:
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIn())


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
    peer, work = sys.argv[1:3]
    loop, values = MAKERS[peer](work), json.loads(sys.stdin.readline())
    print("ready", flush=True)
    for _ in sys.stdin:
        loop(values)
        print("done", flush=True)


if __name__ == "__main__":
    main()
