"""Trunks that are made, not loaded: the random and identity controls, and the tests' tiny one.

``random:<seed>:<encoder>`` keeps that encoder's own front end (patch kernel, positions, class token, pixel statistics)
and draws only the blocks: what it loses against the encoder is what the pretrained *trunk* was worth.
``shuffled:<seed>:<encoder>`` is the sharper one: each matrix keeps its numbers in another order, and norms, biases and
layer scales stay, so that only what the matrices learned is gone.
"""

import torch
from torch import Tensor, nn

from metatransformer.core.modality import Stem
from metatransformer.trunk.catalog import KNOWN, WeightEntry
from metatransformer.trunk.encoder import Encoder, EncoderConfig, digest
from metatransformer.trunk.files import Weights, stem_tensors
from metatransformer.trunk.pretrained import Pretrained

SHAPE: WeightEntry = KNOWN["focus-s14"]  # whose architecture a nameless control has
TINY = EncoderConfig(width=32, depth=6, heads=4, hidden=64)
TINY_PATCH, TINY_GRID = 4, 8


def make(kind: str, *, seed: int, base: Pretrained | None) -> Weights:
    """Returns the made trunk of this kind (see ``names.Made``)."""
    if kind == "random":
        return make_random(seed=seed, base=base)
    if kind == "identity":
        return make_identity(base=base)
    if kind == "shuffled":
        assert base is not None  # the name demands one
        return make_shuffled(seed=seed, base=base)
    return make_test()


def make_random(*, seed: int, base: Pretrained | None) -> Weights:
    """Returns a trunk of ``base``'s shape drawn from ``seed``, behind ``base``'s front end.

    Without a base the architecture is that of ``focus-s14``, and the front end is drawn as well.
    """
    if base is None:
        grid = 37  # the grid of positions of focus-s14
        stem = _draw_stem(width=SHAPE.config.width, patch=SHAPE.patch, grid=grid, seed=seed)
        return _pack(SHAPE.config, _draw_trunk(SHAPE.config, seed=seed), stem, size=SHAPE.size)
    note = "Random trunk behind the base's front end."
    trunk = _draw_trunk(base.encoder.config, seed=seed)
    return _pack(base.encoder.config, trunk, base.stem, size=base.size, licence=base.licence, note=note)


def make_shuffled(*, seed: int, base: Pretrained) -> Weights:
    """Returns ``base`` with the entries of each matrix of its trunk in an order drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    trunk = {name: tensor.cpu() for name, tensor in sorted(base.encoder.state_dict().items())}
    for name, tensor in trunk.items():
        if tensor.ndim > 1:
            order = torch.randperm(tensor.numel(), generator=generator)
            trunk[name] = tensor.flatten()[order].reshape(tensor.shape)
    note = "A trunk of shuffled matrices behind the base's front end."
    return _pack(base.encoder.config, trunk, base.stem, size=base.size, licence=base.licence, note=note)


def make_identity(*, base: Pretrained | None) -> Weights:
    """Returns no trunk at all: depth 0, no norms, of ``base``'s width and behind its front end."""
    width = base.encoder.config.width if base else SHAPE.config.width
    config = EncoderConfig(width=width, depth=0, heads=1, hidden=width, final_norm=False)
    if base is None:
        return _pack(config, {}, Stem(), size=SHAPE.size)
    return _pack(config, {}, base.stem, size=base.size, licence=base.licence)


def make_test() -> Weights:
    """Returns the tests' tiny trunk: 32 wide, 2 blocks, 4-pixel patches on an 8 x 8 grid."""
    stem = _draw_stem(width=TINY.width, patch=TINY_PATCH, grid=TINY_GRID, seed=0)
    return _pack(TINY, _draw_trunk(TINY, seed=0), stem, size=TINY_PATCH * TINY_GRID)


def _draw_trunk(config: EncoderConfig, *, seed: int) -> dict[str, Tensor]:
    # The layers draw default weights from torch's global stream while they are built; that must not
    # show outside.
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(config)
    encoder.initialize(seed=seed)
    return {name: tensor.detach() for name, tensor in encoder.state_dict().items()}


def _draw_stem(*, width: int, patch: int, grid: int, seed: int) -> Stem:
    """Returns a front end drawn like the trunk: truncated normal of deviation 0.02, bias 0."""
    generator = torch.Generator().manual_seed(seed + 1)  # not the trunk's own stream

    def draw(*shape: int) -> Tensor:
        return nn.init.trunc_normal_(torch.empty(shape), std=0.02, generator=generator)

    return Stem(
        patch=draw(width, 3, patch, patch),
        bias=torch.zeros(width),
        positions=draw(grid, grid, width),
        class_token=draw(width),
    )


def _pack(
    config: EncoderConfig,
    trunk: dict[str, Tensor],
    stem: Stem,
    *,
    size: int,
    licence: str = "none needed (random numbers)",
    note: str = "Made in memory, never trained.",
) -> Weights:
    return Weights(config, trunk, stem, size, licence, sha256=digest({**trunk, **stem_tensors(stem)}), note=note)
