"""The whole model: a tokenizer an input, one trunk, a head a task, and the modes that say which of them learn."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metatransformer.core.batch import Batch
from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Tokenizer
from metatransformer.core.readout import Readout
from metatransformer.core.tokens import Tokens
from metatransformer.nn.block import LayerScale
from metatransformer.nn.head import Head
from metatransformer.nn.lowrank import Adapters
from metatransformer.recipe import keeps_trunk, tune_mode
from metatransformer.trunk.encoder import Encoder


class MetaTransformer(nn.Module):
    """``heads[t](encoder(Tokens.cat(tokenizers[i](batch[i]) for each input i that the task t sees)))``.

    To the tokens of inputs that are ``meeting`` others a learned vector of each (0 at first) is added; those of
    ``apart`` go through the trunk by themselves and meet behind it. ``adapters`` stand beside the trunk, which other
    models may share.
    """

    def __init__(
        self,
        *,
        tokenizers: Mapping[str, Tokenizer],
        encoder: Encoder,
        heads: Mapping[str, Head],
        adapters: Adapters | None = None,
        meeting: Sequence[str] = (),
        apart: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.apart = frozenset(apart)
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)
        self.adapters = adapters
        self.origins = nn.ParameterDict({name: nn.Parameter(torch.zeros(encoder.config.width)) for name in meeting})

    def tokenizer(self, name: str) -> Tokenizer:
        """Returns the tokenizer of an input."""
        tokenizer = self.tokenizers[name]
        assert isinstance(tokenizer, Tokenizer)
        return tokenizer

    def head(self, task: str) -> Head:
        """Returns the head of a task."""
        head = self.heads[task]
        assert isinstance(head, Head)
        return head

    def with_heads(self, heads: Mapping[str, Head]) -> "MetaTransformer":
        """Returns a model of the same tokenizers, trunk and adapters behind other heads."""
        tokenizers = {name: self.tokenizer(name) for name in self.tokenizers}
        other = MetaTransformer(tokenizers=tokenizers, encoder=self.encoder, heads=heads, adapters=self.adapters)
        other.apart, other.origins = self.apart, self.origins
        return other

    def with_encoder(self, encoder: Encoder) -> "MetaTransformer":
        """Returns a model of the same tokenizers, adapters and heads around another trunk."""
        other = self.with_heads({name: self.head(name) for name in self.heads})
        other.encoder = encoder
        return other

    def tune(self, mode: str) -> None:
        """Chooses what learns: ``head`` the heads; ``ends`` tokenizers and heads, with gradients through the frozen
        trunk (the paper's F); ``all`` everything (the paper's T); ``norm``, ``lora:RANK`` and ``last:K`` what
        ``recipe.Recipe`` says of them. Where the trunk itself learns it must be this model's own.

        Raises:
            UsageError: an unknown mode, or more blocks than the heads need.
        """
        kind, number = tune_mode(mode)
        assert keeps_trunk(mode) or not self.encoder.is_shared, "other models hold this trunk"
        ends = kind != "head"
        self.tokenizers.requires_grad_(ends)
        self.origins.requires_grad_(ends)
        self.heads.requires_grad_(True)
        if kind == "all":
            self.encoder.unfreeze()
        else:
            self.encoder.freeze()
        if kind == "norm":
            for module in self.encoder.modules():
                if isinstance(module, nn.LayerNorm | LayerScale):
                    module.requires_grad_(True)
        elif kind == "last":
            needed = self.depth_read()
            if number > needed:
                must = f"name at most {needed} blocks, as the head reads"
                raise UsageError("recipe key 'tune'", must=must, found=mode)
            self.encoder.blocks[needed - number : needed].requires_grad_(True)
            self.encoder.norm.requires_grad_(True)

    def depth_read(self) -> int:
        """Returns the last block that a head reads."""
        return max(block for name in self.heads for block in self.head(name).readout.blocks)

    def parameter_counts(self) -> dict[str, dict[str, int]]:
        """Returns trainable and total parameters of tokenizer, trunk and head, counted on the complete model.

        Adapters count as trunk.
        """
        trunk = nn.ModuleList([self.encoder] if self.adapters is None else [self.encoder, self.adapters])
        parts = {"tokenizer": nn.ModuleList([self.tokenizers, self.origins]), "trunk": trunk, "head": self.heads}
        return {
            name: {
                "trainable": sum(p.numel() for p in part.parameters() if p.requires_grad),
                "total": sum(p.numel() for p in part.parameters()),
            }
            for name, part in parts.items()
        }

    def tokenize(self, batch: Batch, *, inputs: Sequence[str] = ()) -> Tokens:
        """Returns the tokens of the given inputs (of all, by default) of the same samples, side by side.

        Raises:
            UsageError: no sample of the batch has any of them.
        """
        wanted = self._wanted(batch, inputs)
        return self._beside([self._tokens(name, batch) for name in wanted if name in batch.parts], wanted, batch)

    def _wanted(self, batch: Batch, inputs: Sequence[str]) -> list[str]:
        wanted = [name for name in self.tokenizers if not inputs or name in inputs]
        if not any(name in batch.parts for name in wanted):
            raise UsageError("batch", must=f"hold one of the inputs {', '.join(wanted)}", found="none of them")
        return wanted

    def _tokens(self, name: str, batch: Batch) -> Tokens:
        """Returns the tokens of the samples that have an input."""
        part = batch.parts[name]
        tokens = self.tokenizer(name)(part.inputs, part.masks).named(name)
        if name in self.origins:
            tokens = replace(tokens, x=tokens.x + self.origins[name].to(tokens.x.dtype))
        return tokens

    def _beside(self, found: Sequence[Tokens], wanted: Sequence[str], batch: Batch) -> Tokens:
        """Returns the tokens of inputs side by side, with a gap for each sample that lacks one."""
        there = [name for name in wanted if name in batch.parts]
        rows = [batch.parts[name].rows for name in there]
        pairs = zip(found, rows, strict=True)
        tokens = Tokens.cat([part if own is None else part.spread(own, count=len(batch)) for part, own in pairs])
        return tokens if len(wanted) == len(there) else self._with_gaps(tokens, wanted, batch)

    def _with_gaps(self, tokens: Tokens, wanted: Sequence[str], batch: Batch) -> Tokens:
        """Returns the tokens with direct features of 0 for inputs that no sample of the batch has."""
        widths = {name: self.tokenizer(name).direct for name in wanted}
        if not any(widths.values()):
            return tokens
        known = iter(
            []
            if tokens.direct is None
            else tokens.direct.split([widths[n] for n in wanted if n in batch.parts and widths[n]], dim=1)
        )
        ready = [
            next(known) if n in batch.parts else tokens.x.new_zeros(len(batch), widths[n]) for n in wanted if widths[n]
        ]
        return replace(tokens, direct=torch.cat(ready, dim=1))

    def read_out(self, batch: Batch, readout: Readout) -> Tensor:
        """Returns what a readout makes of the tokens of the inputs that it sees."""
        return readout(self.layers(batch, readout))

    def layers(self, batch: Batch, readout: Readout) -> list[Tokens]:
        """Returns the tokens that a readout reads, after each of its blocks."""
        inputs = tuple(readout.facts.axes)
        if not self.apart.intersection(inputs):
            return self._through(self.tokenize(batch, inputs=inputs), readout)
        wanted = self._wanted(batch, inputs)
        layers = [self._through(self._tokens(name, batch), readout) for name in wanted if name in batch.parts]
        return [self._beside(parts, wanted, batch) for parts in zip(*layers, strict=True)]

    def _through(self, tokens: Tokens, readout: Readout) -> list[Tokens]:
        return self.encoder.read(tokens, after=readout.blocks, adapters=self.adapters)

    def features(self, batch: Batch, *, task: str) -> Float[Tensor, "S F"]:
        """Returns the features that the head of a task predicts from."""
        return self.read_out(batch, self.head(task).readout)

    def forward(self, batch: Batch, task: str) -> Float[Tensor, "S C"]:
        """Returns the outputs of one task."""
        head = self.head(task)
        return head.answer(batch, lambda: self.read_out(batch, head.readout))
