"""The trunk: one pre-LN transformer that maps ``Tokens`` to ``Tokens`` and is frozen by one method.

Only the options that known weights need exist. The order is always: build, load weights, verify the fingerprint,
freeze, train; nothing initialises parameters after loading.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.core.tokens import Tokens
from metatransformer.nn.block import ACTIVATIONS, Block, Mask
from metatransformer.nn.lowrank import Adapters
from metatransformer.trunk.backends import Compiled, OpenVINO, chosen_backend, recomputes
from metatransformer.trunk.ragged import Layers, run_in_one, run_ragged

# Relative tolerance between the stored and the measured fingerprint. Float32 sums differ between
# processors by about 1e-5. On focus-s14 the smallest effect of a wrong setting is 2.9e-3 (GELU's
# tanh approximation; eps and head count: above 7e-2); a shallow trunk may not tell those two GELUs
# apart (tests/test_trunk_encoder.py, tests/test_trunk_golden.py).
FINGERPRINT_TOLERANCE = 2e-4
_MAKING = threading.Lock()  # of what is made of a trunk's weights: several threads may ask for the same


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a trunk. ``hidden`` is the MLP's inner width; ``depth`` 0 is the identity control."""

    width: int
    depth: int
    heads: int
    hidden: int
    eps: float = 1e-6
    activation: str = "gelu"
    pre_norm: bool = False
    layer_scale: bool = False
    final_norm: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UsageError("encoder.heads", must=f"divide the width {self.width}", found=str(self.heads))
        if self.activation not in ACTIVATIONS:
            raise UsageError("encoder.activation", must=f"be one of {sorted(ACTIVATIONS)}", found=self.activation)


class Trunk(nn.Module):
    """The layers: pre-LN blocks with optional pre-norm, layer scale and final norm.

    ``forward`` looks at no value and checks nothing, so that ``torch.export`` takes it as it is.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        norm = config.width, config.eps
        self.norm_pre = nn.LayerNorm(*norm) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                width=config.width,
                heads=config.heads,
                hidden=config.hidden,
                eps=config.eps,
                activation=config.activation,
                layer_scale=config.layer_scale,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(*norm) if config.final_norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        mask: Mask | None,
        *,
        after: Sequence[int],
        adapters: Adapters | None = None,
        recompute: bool = False,
    ) -> list[Tensor]:
        """Returns the normalised tokens ``[B, N, D]`` after each of the given numbers of blocks (0 = before the first).

        ``mask`` None means that every token is real; padded tokens are never attended to, and what comes out at their
        positions has no meaning. A mask ``[B, N, N]`` says it of each token apart, as a causal one does. Blocks behind
        the last one asked for are not computed. ``recompute`` computes each block again in the backward pass instead of
        keeping what lies inside it.
        """
        x = self.norm_pre(x)
        kept = {0: x}
        for number, block in enumerate(self.blocks[: max(after)]):
            given = x, mask, None if adapters is None else adapters.of_block(number)
            x = checkpoint(block, *given, use_reentrant=False) if recompute else block(*given)
            if number + 1 in after:
                kept[number + 1] = x
        return [self.norm(kept[k]) for k in after]


class Encoder(Trunk):
    """The trunk with checks at its border (``read``, ``encode``), a way to freeze it, and an identity."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.is_frozen = False
        self.in_one = False  # all rows go through the layers in one call, however unlike their lengths
        self._as_shared: tuple[int, ...] | None = None  # torch's counts of changes in place, then
        self._made: tuple[object, dict[tuple[object, ...], Any]] | None = None  # of which weights, and what of them

    @property
    def is_shared(self) -> bool:
        """Whether several models may hold this trunk; then it stays frozen."""
        return self._as_shared is not None

    def encode(self, tokens: Tokens, *, adapters: Adapters | None = None) -> Tokens:
        """Returns the tokens after the last block and the final norm."""
        return self.read(tokens, after=(self.config.depth,), adapters=adapters)[0]

    def read(self, tokens: Tokens, *, after: Sequence[int], adapters: Adapters | None = None) -> list[Tokens]:
        """Returns the normalised tokens after each of the given numbers of blocks, as ``forward`` does.

        Raises:
            UsageError: a number outside 0..depth, the tokens' width is not the trunk's, or a sample has no real token.
        """
        if (width := tokens.x.shape[-1]) != self.config.width:
            raise UsageError("encoder", must=f"get tokens of width {self.config.width}", found=str(width))
        if bad := [k for k in after if not 0 <= k <= self.config.depth]:
            raise UsageError("encoder blocks", must=f"lie in 0..{self.config.depth}", found=f"{bad[0]}")
        if not tokens.mask.any(dim=1).all():
            raise UsageError("encoder", must="get at least one real token a sample", found="none")
        layers = self._layers(tokens.x.device.type, after=after, adapters=adapters)
        run = run_in_one if self.in_one else partial(run_ragged, streams=getattr(layers, "streams", 1))
        return [replace(tokens, x=x) for x in run(layers, tokens.x, tokens.mask)]

    def _layers(self, device: str, *, after: Sequence[int], adapters: Adapters | None) -> Layers:
        """Returns the layers as this call computes them: a frozen trunk's by the chosen backend, and under autocast
        with linear weights that were converted once (equal bit for bit, half a trunk more of memory).

        Raises:
            UsageError: the backend cannot compute adapters.
        """
        name, lower = chosen_backend(), torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if lower else torch.float32
        if name == "eager" or torch.is_grad_enabled():
            frozen = not any(parameter.requires_grad for parameter in self.parameters())
            recompute = torch.is_grad_enabled() and recomputes()
            if name == "compile" and frozen and adapters is None and not recompute:
                return self._kept(("learns", dtype, *after), lambda: Compiled(self._lower(dtype), after))
            layers = self._kept((dtype,), lambda: self._lower(dtype)) if lower and frozen else self
            return partial(layers, after=after, adapters=adapters, recompute=recompute)
        if adapters is not None:
            raise UsageError(f"backend {name}", must="compute a model without adapters", found="some")
        if name == "compile":
            return self._kept((name, dtype, *after), lambda: Compiled(self._lower(dtype), after))
        kind = torch.int8 if name == "int8" else dtype
        return self._kept((name, kind, *after), lambda: self._converted(after, kind))

    def _converted(self, after: Sequence[int], dtype: torch.dtype) -> OpenVINO:
        identity = f"{self.bytes_hash()} {self.config}"
        return OpenVINO(self, after, width=self.config.width, dtype=dtype, identity=identity)

    def _kept(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Returns what was made of these very weights, or makes it."""
        weights = tuple((parameter.data_ptr(), parameter._version) for parameter in self.parameters())
        with _MAKING:
            if self._made is None or self._made[0] != weights:
                self._made = weights, {}
            made = self._made[1]
            if key not in made:
                made[key] = make()
            return made[key]

    def _lower(self, dtype: torch.dtype) -> Trunk:
        """Returns the layers with linear weights of this type."""
        linear = [name for name, module in self.named_modules() if isinstance(module, nn.Linear)]
        lower = {f"{name}.{kind}" for name in linear for kind in ("weight", "bias")}
        with torch.device("meta"):
            layers = Trunk(self.config)
        weights = {name: value.to(dtype) if name in lower else value for name, value in self.state_dict().items()}
        layers.load_state_dict(weights, assign=True)
        return layers.requires_grad_(False).eval()

    def initialize(self, *, seed: int) -> None:
        """Draws every parameter anew: linear weights from a truncated normal of deviation 0.02, biases 0, norms 1.

        The one place where trunk weights are drawn; it is called for the random control only.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)

    def freeze(self) -> None:
        """Stops every parameter from learning and keeps evaluation mode under ``train()``; gradients still pass."""
        self.is_frozen = True
        self.requires_grad_(False)
        self.train(False)

    def unfreeze(self) -> None:
        """Lets every parameter learn.

        Raises:
            UsageError: the trunk is shared.
        """
        self.requires_grad_(True)
        self.is_frozen = False

    def share(self) -> None:
        """Freezes the trunk for good, because several models will hold it. Its copies are free again."""
        self.freeze()
        self._as_shared = tuple(parameter._version for parameter in self.parameters())

    def require_untouched(self) -> None:
        """Raises UsageError when a parameter of a shared trunk was changed, or may learn."""
        if self._as_shared is None:
            return
        # A move to another kind of device may begin the count anew.
        counts = zip(self.parameters(), self._as_shared, strict=True)
        if any(parameter.requires_grad or parameter._version > then for parameter, then in counts):
            raise self._refuse("changed parameters")

    def requires_grad_(self, requires_grad: bool = True) -> "Encoder":
        """Lets every parameter learn or not; a shared trunk's may not."""
        if requires_grad and self.is_shared:
            raise self._refuse("a wish to train it")
        return super().requires_grad_(requires_grad)

    @staticmethod
    def _refuse(found: str) -> UsageError:
        do = "Change the copy that Pretrained.own_copy() gives."
        return UsageError("a trunk that models share", must="stay as it was loaded", found=found, do=do)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_as_shared": None, "_made": None}  # of a copy, which nobody shares yet

    def train(self, mode: bool = True) -> "Encoder":
        """Sets training mode, except on a frozen trunk, which stays in evaluation mode."""
        return super().train(mode and not self.is_frozen)

    def bytes_hash(self) -> str:
        """Returns the digest of all parameters: equal before and after frozen training."""
        return bytes_hash(self)

    @torch.no_grad()
    def fingerprint(self) -> tuple[float, ...]:
        """Returns eight numbers that the trunk's *function* determines: its output on a seeded probe.

        The probe's rows differ in scale (1e-3, 0.1, 1, 3), so that a wrong eps shows as well as a wrong head count or
        activation, which a comparison of shapes or bytes cannot see. Measured in float32 on the CPU.
        """
        width = self.config.width
        generator = torch.Generator().manual_seed(20230720)  # the date of the paper's first version
        scales = torch.tensor([1e-3, 0.1, 1.0, 3.0])
        x = torch.randn(4, 7, width, generator=generator) * scales[:, None, None]
        like = next(self.parameters(), x)
        device, dtype, training = like.device, like.dtype, self.training
        self.eval().to("cpu", torch.float32)
        directions = torch.randn(width, 2, generator=generator) / width**0.5
        with torch.autocast("cpu", enabled=False):
            (y,) = self(x, None, after=(self.config.depth,))  # [4, 7, D]
            per_row = (y @ directions).mean(dim=1)  # [4, 2]
        self.to(device, dtype)
        self.train(training)
        return tuple(float(f"{value:.6g}") for value in per_row.flatten())


def require_alike(expected: Sequence[float], found: Sequence[float], *, where: str) -> None:
    """Compares a trunk's fingerprint with the recorded one.

    Raises:
        WeightsError: they differ; the weights were built with another head count, eps, activation or layout.
    """
    scale = max(abs(value) for value in expected)
    worst = max(abs(a - b) for a, b in zip(expected, found, strict=True)) / scale
    if not worst <= FINGERPRINT_TOLERANCE:
        raise WeightsError(
            where,
            must="compute what was recorded for these weights (their fingerprint)",
            found=f"a difference of {worst:.1e} relative to {FINGERPRINT_TOLERANCE:.0e} allowed",
            do="The head count, eps, activation or the file itself is not the right one.",
        )


def bytes_hash(module: nn.Module) -> str:
    """Returns the digest of everything that a module's state holds."""
    return digest(module.state_dict())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names, shapes, types and bytes in the order of the names.

    It identifies the weights whatever file they stood in, and shows a changed bit that safetensors does not notice.
    """
    running = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        running.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        running.update(flat.view(torch.uint8).numpy().data)  # numpy knows no bfloat16
    return running.hexdigest()
