"""Pooling: from the tokens that the trunk returns to one vector a sample. No parameters, so results can be cached."""

import torch
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.core.tokens import Tokens

POOLS = ("summary", "mean", "both")


def mean_tokens(tokens: Tokens) -> Float[Tensor, "B D"]:
    """Returns the mean of the real tokens that are no summary; of the summaries where there is nothing else."""
    ordinary = tokens.mask & ~tokens.summaries()
    ordinary = torch.where(ordinary.any(dim=1, keepdim=True), ordinary, tokens.mask)
    weights = ordinary.to(tokens.x.dtype).unsqueeze(-1)  # [B, N, 1]
    return (tokens.x * weights).sum(dim=1) / weights.sum(dim=1)


def summary_token(tokens: Tokens) -> Float[Tensor, "B D"]:
    """Returns the summary token; the mean of the real ones when several modalities were joined.

    Raises:
        UsageError: no span has a summary token.
    """
    marks = tokens.summaries()
    if not marks.any():
        raise UsageError(
            "head.pool", must="be 'mean' for tokens without a summary", found="'summary'"
        )
    weights = (tokens.mask & marks).to(tokens.x.dtype).unsqueeze(-1)
    return (tokens.x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def pool(tokens: Tokens, *, kind: str) -> Float[Tensor, "B F"]:
    """Returns ``summary``, ``mean`` (width D) or ``both`` side by side (width 2 D)."""
    assert kind in POOLS, kind
    if kind == "summary":
        return summary_token(tokens)
    if kind == "mean":
        return mean_tokens(tokens)
    return torch.cat([summary_token(tokens), mean_tokens(tokens)], dim=-1)
