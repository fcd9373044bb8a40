"""Classes by their names alone: a picture is what its nearest class text says.

The procedure is OpenCLIP's (``open_clip/zero_shot_classifier.py``): each class stands in every template, the vectors of
these texts have length 1, their mean is taken, and it gets length 1 again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.modalities._picture.pixels import as_rgb
from metatransformer.modalities._picture.read import PICTURE_SUFFIXES, read_image
from metatransformer.pairs.batches import square
from metatransformer.pairs.towers import Towers
from metatransformer.pairs.words import Words

# Of CLIP's 80 for ImageNet the seven that its authors found best together (their notebook of prompts).
TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
BATCH = 64

TextsToVectors = Callable[[list[str]], Float[Tensor, "n E"]]


def class_vectors(classes: Sequence[str], templates: Sequence[str], encode: TextsToVectors) -> Float[Tensor, "C E"]:
    """Returns a vector of length 1 a class.

    Raises:
        UsageError: fewer than two classes, one twice, or a template without a place for the class.
    """
    if isinstance(classes, str):
        raise UsageError("classes", must="be a list of names", found=repr(classes))
    if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
        raise UsageError("--classes", must="name two classes or more, each once", found=", ".join(classes) or "none")
    if wrong := [template for template in templates if template.count("{}") != 1]:
        raise UsageError("--templates", must="hold {} once, where the class stands", found=repr(wrong[0]))
    texts = [template.format(name) for name in classes for template in templates]
    vectors = F.normalize(encode(texts).float(), dim=1).reshape(len(classes), len(templates), -1)
    return F.normalize(vectors.mean(dim=1), dim=1)


def shares(
    vectors: Float[Tensor, "n E"], classes: Float[Tensor, "C E"], *, scale: float, bias: float | None
) -> Float[Tensor, "n C"]:
    """Returns how likely each class is: shares that sum to 1, or of a sigmoid model (``bias``) each for itself."""
    near = scale * vectors @ classes.T
    return near.softmax(dim=1) if bias is None else (near + bias).sigmoid()


def folder_check(folder: Path, *, size: int) -> Callable[[Towers, Words], Mapping[str, float]]:
    """Returns what scores towers on a folder with one folder of pictures a class, which is called after it.

    Raises:
        DataError: not two folders with pictures.
    """
    files = {
        place.name: sorted(path for path in place.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        for place in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if place.is_dir()
    }
    names = [name for name, paths in files.items() if paths]
    if len(names) < 2:
        raise DataError(
            f"zero_shot={folder}", must="hold one folder of pictures a class", found=f"{len(names)} of them"
        )
    truth = torch.tensor([number for number, name in enumerate(names) for _ in files[name]])
    paths = [path for name in names for path in files[name]]

    @torch.no_grad()
    def check(towers: Towers, words: Words) -> Mapping[str, float]:
        device = towers.log_scale.device

        def encode(texts: list[str]) -> Tensor:
            return towers.of_texts(torch.from_numpy(words(texts)[0]).to(device)).cpu()

        classes = class_vectors([name.replace("_", " ") for name in names], TEMPLATES, encode)
        right = 0
        for start in range(0, len(paths), BATCH):
            pixels = [square(as_rgb(read_image(p), where=str(p)), size) for p in paths[start : start + BATCH]]
            vectors = towers.of_pictures(torch.from_numpy(np.stack(pixels)).to(device)).cpu()
            right += int(((vectors @ classes.T).argmax(dim=1) == truth[start : start + BATCH]).sum())
        return {"zero-shot accuracy": right / len(paths)}

    return check
