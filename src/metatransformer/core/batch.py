"""Batches: samples of one modality, padded and masked as their fields declare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metatransformer.core.fields import Field
from metatransformer.core.samples import View


@dataclass(frozen=True)
class Batch:
    """Tensors for a tokenizer, with the keys of their samples.

    ``inputs[name]`` is ``[B, *axes]``, ``masks[name]`` is ``[B, *ragged axes]`` (True = real); ``target`` is what the
    task's ``encode`` made of the labels, None when they are unknown.
    """

    keys: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on another device."""
        return replace(
            self,
            inputs={name: x.to(device, non_blocking=True) for name, x in self.inputs.items()},
            masks={name: x.to(device, non_blocking=True) for name, x in self.masks.items()},
            target=None if self.target is None else self.target.to(device, non_blocking=True),
        )


def collate(samples: Sequence[View], *, fields: Mapping[str, Field], target: Tensor | None = None) -> Batch:
    """Returns transformed samples as one batch; ``fields`` are the modality's."""
    inputs, masks = {}, {}
    for name, field in fields.items():
        array, mask = field.stack([sample.inputs[name] for sample in samples])
        inputs[name], masks[name] = torch.from_numpy(array), torch.from_numpy(mask)
    return Batch(tuple(sample.key for sample in samples), inputs, masks, target)
