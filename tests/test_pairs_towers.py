"""Both towers: equal to what the package computes of the same weights, masks that hold, and what is left out."""

import pytest
import torch
from torch import Tensor

from metatransformer.core.modality import Stem
from metatransformer.core.tokens import Tokens
from metatransformer.nn.image import PictureTokenizer
from metatransformer.pairs.towers import TextConfig, TextTower, Towers, VisionConfig, draw_towers
from metatransformer.trunk.encoder import Encoder, EncoderConfig

END = 2


def drawn(*, causal: bool = True, pool: str = "summary", loss: str = "infonce") -> Towers:
    vision = VisionConfig(EncoderConfig(24, 2, 3, 48, pre_norm=pool == "summary"), 4, 12, 10, pool=pool)
    text = TextConfig(EncoderConfig(20, 2, 2, 40), words=31, context=9, outputs=10, end=END, causal=causal)
    return draw_towers(vision, text, pixels=Stem(), loss=loss, seed=1).eval()


def pictures(count: int = 3, side: int = 12) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, side, side, 3), generator=draw, dtype=torch.uint8)


def test_the_vision_tower_is_an_encoder_behind_the_picture_front_end():
    towers = drawn()
    stem, vision = towers.vision.stem(), towers.vision
    front = PictureTokenizer(name="image", channels=3, width=24, stem=stem)
    encoder = Encoder(vision.config.trunk)
    encoder.load_state_dict(vision.trunk.state_dict())
    pixels = pictures()
    tokens: Tokens = front({"pixels": pixels}, {"pixels": torch.ones(pixels.shape[:3], dtype=torch.bool)})
    assert torch.allclose(vision.out(encoder.encode(tokens).x[:, 0]), vision(pixels), atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_nothing_behind_the_end_of_a_text_changes_its_vector(causal: bool):
    tower = drawn(causal=causal).text
    ids = torch.tensor([[1, 5, 6, END], [1, 7, END, 0]])
    longer = torch.tensor([[1, 5, 6, END, 0, 0], [1, 7, END, 9, 9, END]])
    assert torch.allclose(tower(ids), tower(longer), atol=1e-6)
    changed = torch.tensor([[1, 5, 8, END], [1, 8, END, 0]])
    assert (tower(ids) - tower(changed)).abs().max() > 1e-4


def test_a_causal_tower_sees_no_token_that_follows():
    seen = {}
    for causal in (True, False):
        tower = drawn(causal=causal).text
        ends: list[Tensor] = []
        hook = tower.trunk.norm.register_forward_hook(lambda *call, ends=ends: ends.append(call[2]))
        tower(torch.tensor([[1, 5, 6, END], [1, 5, 9, END]]))
        hook.remove()
        seen[causal] = (ends[0][0, :2] - ends[0][1, :2]).abs().max()
    assert seen[True] == 0 and seen[False] > 1e-4


def test_a_causal_text_tower_equals_torchs_own():
    tower = drawn().text
    layer = torch.nn.TransformerEncoderLayer(
        20, 2, 40, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    theirs = torch.nn.TransformerEncoder(layer, 2, norm=torch.nn.LayerNorm(20, eps=1e-6), enable_nested_tensor=False)
    names = {"attn.qkv.": "self_attn.in_proj_", "attn.proj": "self_attn.out_proj", "mlp.fc1": "linear1"}
    names |= {"mlp.fc2": "linear2", "blocks": "layers"}
    state = tower.trunk.state_dict()
    for ours, other in names.items():
        state = {name.replace(ours, other): tensor for name, tensor in state.items()}
    theirs.load_state_dict(state)
    ids = torch.tensor([[1, 5, 6, 3, END]])
    x = tower.words(ids) + tower.places[:5]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5)
    with torch.no_grad():
        expected = tower.out(theirs.eval()(x, mask=mask, is_causal=True)[:, -1])
    assert torch.allclose(tower(ids), expected, atol=1e-6)


def test_patches_are_left_out_and_order_does_not_matter():
    vision = drawn().vision
    every = torch.arange(9).flip(0).expand(3, 9)
    assert torch.allclose(vision(pictures(), kept=every), vision(pictures()), atol=1e-5)
    some = torch.tensor([[0, 4, 8]] * 3)
    changed = pictures()
    changed[:, :4, 4:8] = 0  # patch 1, which is not kept
    assert torch.equal(vision(pictures(), kept=some), vision(changed, kept=some))


@pytest.mark.parametrize("pool", ["summary", "attention"])
def test_blocks_computed_again_give_the_same_gradients(pool: str):
    towers, found = drawn(pool=pool).train(), []
    for saving in (False, True):
        towers.zero_grad()
        towers.of_pictures(pictures(), saving=saving).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in towers.vision.trunk.parameters() if p.grad is not None]))
    assert torch.allclose(*found, atol=1e-6) and found[0].abs().max() > 0


def test_scale_and_bias_begin_as_published_and_the_scale_has_a_limit():
    clip, siglip = drawn(), drawn(loss="sigmoid")
    assert clip.scale.item() == pytest.approx(1 / 0.07) and clip.bias is None
    assert siglip.scale.item() == pytest.approx(10) and siglip.bias is not None and siglip.bias.item() == -10
    with torch.no_grad():
        clip.log_scale.fill_(9.0)
    assert clip.scale.item() == pytest.approx(100)


def test_towers_are_drawn_from_the_seed_and_nothing_else():
    torch.manual_seed(99)
    first = drawn()
    state = torch.get_rng_state()
    second = drawn()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert isinstance(first.text, TextTower)
