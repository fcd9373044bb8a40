"""The whole model: tokenizers + one trunk + heads, and the modes that say which of them learn."""

from collections.abc import Mapping

from torch import Tensor, nn

from metatransformer.core.batch import Batch
from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Tokenizer
from metatransformer.core.tokens import Tokens
from metatransformer.nn.block import LayerScale
from metatransformer.nn.lowrank import Adapters
from metatransformer.recipe import keeps_trunk, tune_mode
from metatransformer.tasks.head import Head
from metatransformer.trunk.encoder import Encoder


class MetaTransformer(nn.Module):
    """``heads[task](encoder(Tokens.cat(tokenizers[m](batch[m]) for each modality m)))``."""

    def __init__(self, *, tokenizers: Mapping[str, Tokenizer], encoder: Encoder, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)
        self.adapters: Adapters | None = None

    def tokenizer(self, modality: str) -> Tokenizer:
        """Returns the tokenizer of a modality."""
        tokenizer = self.tokenizers[modality]
        assert isinstance(tokenizer, Tokenizer)
        return tokenizer

    def head(self, task: str) -> Head:
        """Returns the head of a task."""
        head = self.heads[task]
        assert isinstance(head, Head)
        return head

    def tune(self, mode: str) -> None:
        """Chooses what learns: ``head`` the heads; ``ends`` tokenizers and heads, with gradients through the frozen
        trunk (the paper's F); ``all`` everything (the paper's T); ``norm``, ``lora:RANK`` and ``last:K`` what
        ``recipe.Recipe`` says of them. Call it on the complete model.

        Raises:
            UsageError: an unknown mode, or more blocks than the heads need.
        """
        kind, number = tune_mode(mode)
        assert keeps_trunk(mode) or not self.encoder.is_shared, "other models hold this trunk"
        self.tokenizers.requires_grad_(kind != "head")
        self.heads.requires_grad_(True)
        needed = max(block for name in self.heads for block in self.head(name).blocks)
        if kind == "all":
            self.encoder.unfreeze()
        else:
            self.encoder.freeze()
        self.adapters = Adapters(self.encoder, rank=number, depth=needed) if kind == "lora" else None
        if kind == "norm":
            for module in self.encoder.modules():
                if isinstance(module, nn.LayerNorm | LayerScale):
                    module.requires_grad_(True)
        elif kind == "last":
            if number > needed:
                must = f"name at most {needed} blocks, as the head reads"
                raise UsageError("recipe key 'tune'", must=must, found=mode)
            self.encoder.blocks[needed - number : needed].requires_grad_(True)
            self.encoder.norm.requires_grad_(True)

    def parameter_counts(self) -> dict[str, dict[str, int]]:
        """Returns trainable and total parameters of tokenizer, trunk and head, counted on the complete model.

        Adapters count as trunk.
        """
        trunk = nn.ModuleList([self.encoder] if self.adapters is None else [self.encoder, self.adapters])
        parts = {"tokenizer": self.tokenizers, "trunk": trunk, "head": self.heads}
        return {
            name: {
                "trainable": sum(p.numel() for p in part.parameters() if p.requires_grad),
                "total": sum(p.numel() for p in part.parameters()),
            }
            for name, part in parts.items()
        }

    def tokenize(self, batches: Mapping[str, Batch]) -> Tokens:
        """Returns the tokens of all given modalities of the same samples, side by side."""
        return Tokens.cat([self.tokenizer(name)(batch.inputs, batch.masks) for name, batch in batches.items()])

    def layers(self, batches: Mapping[str, Batch], *, head: str) -> list[Tokens]:
        """Returns the trunk's tokens after each block that the head reads."""
        return self.encoder.read(self.tokenize(batches), after=self.head(head).blocks, adapters=self.adapters)

    def pooled(self, batches: Mapping[str, Batch], *, head: str) -> Tensor:
        """Returns the pooled features ``[B, F]`` that the head predicts from."""
        return self.head(head).pooled(self.layers(batches, head=head))

    def forward(self, batches: Mapping[str, Batch], head: str) -> Tensor:
        """Returns the outputs ``[B, outputs]`` of one head."""
        return self.head(head)(self.layers(batches, head=head))
