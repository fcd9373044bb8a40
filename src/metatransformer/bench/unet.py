"""A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597) from scratch: segmentation without a trunk."""

import time
from itertools import count, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metatransformer.core.modality import Dense
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.dense import dense_task
from metatransformer.infer.kits import kit_of
from metatransformer.machine.console import Console

WIDTHS = (16, 32, 64, 128)
PART = 192  # pixels: the side of the parts that it learns from
BATCH = 4


class UNet(nn.Module):
    """Pixels ``[B, 3, h, w]`` in, log odds ``[B, C, h, w]`` out; sides are multiples of 8."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b) for a, b in pairwise((channels, *WIDTHS)))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairwise(WIDTHS))
        self.last = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the log odds."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if not level else F.max_pool2d(x, 2))
            kept.append(x)
        for block, beside in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="bilinear"), beside], dim=1))
        return self.last(x)


def _block(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, width):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def unet_answers(fitted: Fitted, *, seconds: float, console: Console) -> tuple[str, Tensor]:
    """Returns a U-Net in words, and what it answers to the test split as the task keeps it.

    It is trained for ``seconds`` on random parts of the training and validation pictures, in the size in which the
    model reads them, and mirror images; its rate ends at 0 when the time does.
    """
    pipeline, task = fitted.pipeline, dense_task(fitted.pipeline)
    begun, seen = time.monotonic(), _Seen(fitted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pipeline.recipe.run.seed)
        net = UNet(seen.pixels(*seen.known[0]).shape[0], task.outputs)
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
        shares = torch.tensor([float(share) for share in seen.shares()])
        weights = shares.clamp(min=1e-6) ** (1 / 3 - 1)  # classes count by the cube root of their share, as for a head
        for step in count():
            gone = (time.monotonic() - begun) / seconds
            if gone >= 1 and step:
                break
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * min(1.0, gone)))
            pixels, classes = seen.batch(step)
            loss = F.cross_entropy(net(pixels), classes, weight=weights, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    console.note(f"a U-Net of {sum(p.numel() for p in net.parameters()):,} parameters took {step:,} steps")
    return f"U-Net, {step:,} steps of {BATCH} parts", _answers(net.eval(), fitted, seen)


class _Seen:
    """The pictures of train and val as a model reads them, and the classes of their pixels."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted, self.task = fitted, dense_task(fitted.pipeline)
        self.known = [(split, row) for split in ("train", "val") for row in range(len(fitted.loaders[split]))]
        self.kept: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def pixels(self, split: str, row: int) -> Tensor:
        """Returns the pixels ``[c, h, w]``."""
        pixels = torch.from_numpy(np.asarray(self.fitted.loaders[split].view(row).inputs["pixels"], dtype=np.float32))
        return pixels.permute(2, 0, 1)

    def classes(self, split: str, row: int) -> np.ndarray:
        """Returns the classes of its pixels in its own size, -1 where they are not known."""
        return self.task.numbers(self.fitted.loaders[split].examples.targets[self.fitted.pipeline.task_name][row])

    def shares(self) -> np.ndarray:
        """Returns how often each class occurs."""
        rows = [self.classes(*one) for one in self.known[:: max(1, len(self.known) // 100)]]
        counts = sum(np.bincount(row[row >= 0], minlength=self.task.outputs) for row in rows)
        return counts / np.sum(counts)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns parts ``[B, c, p, p]`` and the classes of their pixels ``[B, p, p]``."""
        rng, parts = np.random.default_rng([self.fitted.pipeline.recipe.run.seed, step]), []
        for place in rng.integers(len(self.known), size=BATCH):
            one = self.known[place]
            if one not in self.kept:
                pixels, classes = self.pixels(*one), torch.from_numpy(self.classes(*one)).float()
                small = F.interpolate(classes[None, None], size=pixels.shape[1:], mode="nearest-exact")[0, 0]
                self.kept[one] = pixels.half(), small.to(torch.int16)
            parts.append(_part(*self.kept[one], rng))
        pixels, classes = zip(*parts, strict=True)
        return torch.stack(pixels), torch.stack(classes).long()


def _part(pixels: Tensor, classes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Returns a random part, perhaps mirrored; beyond the picture it is 0, of no class."""
    height, width = classes.shape
    y, x = (int(rng.integers(max(1, side - PART + 1))) for side in (height, width))
    pixels, classes = pixels[:, y : y + PART, x : x + PART].float(), classes[y : y + PART, x : x + PART]
    room = (0, PART - classes.shape[1], 0, PART - classes.shape[0])
    pixels, classes = F.pad(pixels, room), F.pad(classes, room, value=-1)
    return (pixels.flip(2), classes.flip(1)) if rng.random() < 0.5 else (pixels, classes)


@torch.no_grad()
def _answers(net: UNet, fitted: Fitted, seen: _Seen) -> Tensor:
    dense, task, loader, found = kit_of(fitted.pipeline, Dense), seen.task, fitted.loaders["test"], []
    for row in range(len(loader)):
        pixels, truth = seen.pixels("test", row), seen.classes("test", row)
        height, width = pixels.shape[1:]
        outputs = net(F.pad(pixels, (0, -width % 8, 0, -height % 8))[None])[0, :, :height, :width]
        places = loader.view(row).places
        assert places is not None
        numbers = dense.at(outputs.permute(1, 2, 0), places, None).argmax(dim=1).numpy().reshape(truth.shape)
        found.append(task.answer(numbers, truth))
    return torch.stack(found).float()
