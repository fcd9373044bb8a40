"""The trunk: padding, reading between blocks, freezing, hash, fingerprint, parity with torch."""

import dataclasses

import pytest
import torch
from torch import nn

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.core.tokens import Span, Tokens
from metatransformer.nn.block import quick_gelu, tanh_gelu
from metatransformer.nn.lowrank import Adapters
from metatransformer.trunk.encoder import FINGERPRINT_TOLERANCE, Encoder, EncoderConfig, require_alike

CONFIG = EncoderConfig(width=21, depth=3, heads=3, hidden=29)
# Float32 sums in another order, on values of order 1.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def trained(config: EncoderConfig = CONFIG, *, seed: int = 5) -> Encoder:
    """A trunk with weights as large and uneven as trained ones, biases and norms included."""
    encoder = Encoder(config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.3)
    return encoder.eval()


def tokens(x: torch.Tensor, mask: torch.Tensor | None = None) -> Tokens:
    full = torch.ones(x.shape[:2], dtype=torch.bool)
    return Tokens(x, full if mask is None else mask, (Span("probe", 0, x.shape[1]),))


def draw(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def change(encoder: Encoder, **settings: object) -> Encoder:
    """The same tensors in a trunk of other settings."""
    other = Encoder(dataclasses.replace(encoder.config, **settings))
    other.load_state_dict(encoder.state_dict())
    return other


def test_a_padded_sample_equals_itself_alone():
    encoder, x = trained(), draw(2, 11, 21)
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    with torch.no_grad():
        both = encoder.encode(tokens(x, mask)).x
        torch.testing.assert_close(both[1:, :7], encoder.encode(tokens(x[1:, :7])).x, **TOLERANCE)
        torch.testing.assert_close(both[:1], encoder.encode(tokens(x[:1])).x, **TOLERANCE)
        x[1, 7:] = 1e4  # what stands in the padding does not matter
        torch.testing.assert_close(encoder.encode(tokens(x, mask)).x[1, :7], both[1, :7], **TOLERANCE)


def test_padding_may_stand_anywhere():
    encoder, x = trained(), draw(1, 11, 21)
    mask = torch.ones(1, 11, dtype=torch.bool)
    mask[0, [0, 5]] = False
    with torch.no_grad():
        kept = encoder.encode(tokens(x, mask)).x[mask]
        torch.testing.assert_close(kept, encoder.encode(tokens(x[:, mask[0]])).x[0], **TOLERANCE)


def test_the_order_of_tokens_does_not_matter():
    encoder, x = trained(), draw(2, 11, 21)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.encode(tokens(x[:, order])).x, encoder.encode(tokens(x)).x[:, order], **TOLERANCE
        )


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_parity_with_torchs_own_layers(activation: str):
    theirs = {"gelu": "gelu", "gelu_tanh": tanh_gelu, "quick_gelu": quick_gelu}[activation]
    encoder = trained(dataclasses.replace(CONFIG, activation=activation))
    x, mask = draw(2, 11, 21), torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    y = x
    for block in encoder.blocks:
        layer = nn.TransformerEncoderLayer(21, 3, 29, 0.0, theirs, CONFIG.eps, batch_first=True, norm_first=True)
        state = block.state_dict()
        names = {
            "attn.qkv.": "self_attn.in_proj_",
            "attn.proj.": "self_attn.out_proj.",
            "mlp.fc1.": "linear1.",
            "mlp.fc2.": "linear2.",
        }
        for ours, other in names.items():
            state = {name.replace(ours, other): tensor for name, tensor in state.items()}
        layer.load_state_dict(state)
        y = layer(y, src_key_padding_mask=~mask)  # theirs: True = padding
    expected = encoder.norm(y)[mask]
    torch.testing.assert_close(encoder.encode(tokens(x, mask)).x[mask], expected, **TOLERANCE)


def test_read_gives_the_normalised_state_after_each_number_of_blocks():
    encoder, x = trained(dataclasses.replace(CONFIG, pre_norm=True)), draw(2, 5, 21)
    first, third, same = encoder.read(tokens(x), after=(0, 3, 3))
    torch.testing.assert_close(first.x, encoder.norm(encoder.norm_pre(x)))
    torch.testing.assert_close(third.x, encoder.encode(tokens(x)).x)
    assert torch.equal(third.x, same.x)
    two = encoder.norm(encoder.blocks[1](encoder.blocks[0](encoder.norm_pre(x), None), None))
    torch.testing.assert_close(encoder.read(tokens(x), after=(2,))[0].x, two)


class WithAdapters(nn.Module):
    """What is exported of a trunk with adapters: both as one module."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapters = Adapters(encoder, rank=2, depth=2)
        for parameter in self.adapters.parameters():
            parameter.data = draw(*parameter.shape)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
        return self.encoder(x, mask, after=(1, 3), adapters=self.adapters)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("changes", [{}, {"pre_norm": True}, {"layer_scale": True, "final_norm": False}], ids=str)
@pytest.mark.parametrize("adapted", [False, True])
def test_the_blocks_are_exported_for_any_number_of_samples_and_tokens(
    changes: dict[str, bool], padded: bool, adapted: bool
):
    encoder = trained(dataclasses.replace(CONFIG, **changes))
    encoder.freeze()
    module: nn.Module = WithAdapters(encoder).requires_grad_(False) if adapted else encoder
    keywords = {} if adapted else {"after": (1, 3)}
    masks = [torch.arange(n).expand(b, n) < torch.arange(2, 2 + b)[:, None] for b, n in ((3, 5), (2, 11), (7, 13))]
    axes = {0: torch.export.Dim("B", min=1), 1: torch.export.Dim("N", min=1)}
    shapes = {"x": axes, "mask": axes if padded else None}
    shapes = shapes if adapted else shapes | {"after": (None, None)}
    first = draw(*masks[0].shape, 21), masks[0] if padded else None
    exported = torch.export.export(module, first, keywords, dynamic_shapes=shapes).module()
    for mask in masks:
        given = draw(*mask.shape, 21), mask if padded else None
        for found, expected in zip(exported(*given, **keywords), module(*given, **keywords), strict=True):
            assert torch.equal(found, expected)


def test_depth_zero_without_norms_is_the_identity():
    encoder = Encoder(EncoderConfig(width=21, depth=0, heads=1, hidden=21, final_norm=False))
    x = draw(2, 5, 21)
    assert torch.equal(encoder.encode(tokens(x)).x, x)
    assert encoder.state_dict() == {}
    require_alike(encoder.fingerprint(), encoder.fingerprint(), where="identity")


def test_a_frozen_trunk_stays_in_evaluation_mode_and_lets_gradients_through():
    encoder, x = trained(), draw(2, 5, 21).requires_grad_()
    encoder.freeze()
    assert not encoder.train().training and encoder.is_frozen
    assert not any(module.training for module in encoder.modules())
    encoder.encode(tokens(x)).x.square().sum().backward()
    assert x.grad is not None and bool((x.grad.abs().sum(dim=-1) > 0).all())
    assert all(parameter.grad is None for parameter in encoder.parameters())
    encoder.unfreeze()
    assert encoder.train().training
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_frozen_bytes_survive_training_and_one_changed_bit_shows():
    encoder = trained()
    encoder.freeze()
    before, head = encoder.bytes_hash(), nn.Linear(21, 2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        head(encoder.encode(tokens(draw(2, 5, 21))).x).square().sum().backward()
        optimizer.step()
    assert encoder.bytes_hash() == before
    weight = encoder.blocks[2].mlp.fc2.weight
    weight.data.view(torch.int32)[0, 0] ^= 1
    assert encoder.bytes_hash() != before


def test_initialize_depends_on_the_seed_only():
    one, two, other = Encoder(CONFIG), Encoder(CONFIG), Encoder(CONFIG)
    one.initialize(seed=3)
    torch.manual_seed(1)
    two.initialize(seed=3)
    other.initialize(seed=4)
    assert one.bytes_hash() == two.bytes_hash() != other.bytes_hash()
    weight = one.blocks[0].mlp.fc1.weight
    assert 0.017 < weight.std().item() < 0.023  # 0.02, from 609 draws: 2.9 % standard error


@pytest.mark.parametrize(
    "settings",
    [
        {"heads": 7},
        {"heads": 1},
        {"eps": 1e-5},
        {"eps": 1e-12},
        {"activation": "quick_gelu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_fingerprint_refuses_wrong_settings(settings: dict[str, object], pre_norm: bool):
    encoder = trained(dataclasses.replace(CONFIG, pre_norm=pre_norm))
    expected, found = encoder.fingerprint(), change(encoder, **settings).fingerprint()
    scale = max(abs(value) for value in expected)
    moved = max(abs(a - b) for a, b in zip(expected, found, strict=True)) / scale
    # Well outside the tolerance, so that no rounding on another machine can hide it. The two forms
    # of GELU differ by 1e-4 on so small a trunk: tests/test_trunk_golden.py has a real one.
    assert moved > 10 * FINGERPRINT_TOLERANCE
    with pytest.raises(WeightsError, match="w.pth: must compute what was recorded.*head count"):
        require_alike(expected, found, where="w.pth")
    require_alike(expected, encoder.fingerprint(), where="w.pth")


def test_the_fingerprint_is_measured_in_float32_and_leaves_the_trunk_as_it_was():
    encoder = trained()
    expected, threads = encoder.fingerprint(), torch.get_num_threads()
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder.fingerprint() == expected
    try:
        torch.set_num_threads(3)
        require_alike(expected, encoder.fingerprint(), where="threads")
    finally:
        torch.set_num_threads(threads)
    rounded = trained().to(torch.bfloat16).train()
    kept = [parameter.detach().clone() for parameter in rounded.parameters()]
    rounded.fingerprint()
    assert rounded.training
    assert all(
        now.dtype == torch.bfloat16 and torch.equal(now, then)
        for now, then in zip(rounded.parameters(), kept, strict=True)
    )


def test_not_a_number_is_refused():
    encoder = trained()
    expected = encoder.fingerprint()
    encoder.blocks[1].attn.proj.bias.data[4] = float("nan")
    with pytest.raises(WeightsError, match="nan"):
        require_alike(expected, encoder.fingerprint(), where="w.pth")


def test_wrong_arguments_are_named():
    encoder = trained()
    with pytest.raises(UsageError, match="encoder: must get tokens of width 21; found 20"):
        encoder.encode(tokens(draw(2, 5, 20)))
    with pytest.raises(UsageError, match=r"encoder blocks: must lie in 0..3; found 4"):
        encoder.read(tokens(draw(2, 5, 21)), after=(1, 4))
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(UsageError, match="at least one real token a sample"):
        encoder.encode(tokens(draw(2, 5, 21), mask))
    with pytest.raises(UsageError, match="encoder.heads: must divide the width 21; found 4"):
        EncoderConfig(width=21, depth=1, heads=4, hidden=29)
    with pytest.raises(UsageError, match=r"encoder.activation: must be one of \['gelu'"):
        EncoderConfig(width=21, depth=1, heads=3, hidden=29, activation="relu")


def in_bfloat16(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return encoder.encode(tokens(x)).x


def as_autocast(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return encoder(x, None, after=(3,))[0]


def test_frozen_weights_are_converted_once_and_nothing_changes_by_it():
    encoder, x = trained(), draw(2, 7, 21)
    encoder.freeze()
    before = encoder.bytes_hash()
    torch.testing.assert_close(in_bfloat16(encoder, x), as_autocast(encoder, x), atol=0, rtol=0)
    kept = encoder._made
    in_bfloat16(encoder, x)
    assert encoder._made is kept is not None
    assert encoder.bytes_hash() == before
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    with torch.no_grad():  # weights that somebody changed are seen
        encoder.blocks[1].mlp.fc1.weight.mul_(2)
    torch.testing.assert_close(in_bfloat16(encoder, x), as_autocast(encoder, x), atol=0, rtol=0)
    encoder.load_state_dict(trained(seed=6).state_dict())
    torch.testing.assert_close(in_bfloat16(encoder, x), as_autocast(encoder, x), atol=0, rtol=0)


def test_gradients_through_converted_weights_are_those_of_autocast():
    encoder, one, other = trained(), draw(2, 7, 21).requires_grad_(), draw(2, 7, 21).requires_grad_()
    encoder.freeze()
    in_bfloat16(encoder, one).sum().backward()
    as_autocast(encoder, other).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=0, rtol=0)


def test_a_trunk_that_learns_is_not_converted_once():
    encoder = trained()
    in_bfloat16(encoder, draw(2, 7, 21)).sum().backward()
    assert encoder._made is None
    assert encoder.blocks[0].attn.qkv.weight.grad is not None
