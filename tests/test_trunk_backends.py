"""Compiled trunks: what they compute is what the layers compute, and a wish that cannot be had is refused."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from common import run_alone, tiny_recipe
from test_trunk_encoder import draw, tokens, trained

import metatransformer as mt
from metatransformer.core.errors import MissingDependencyError, UsageError
from metatransformer.fit.fit import require_backend
from metatransformer.modalities import get_modality
from metatransformer.nn.int8 import Int8Linear, with_int8
from metatransformer.nn.lowrank import Adapters
from metatransformer.trunk.backends import backend, chosen_backend, recomputes
from metatransformer.trunk.cache import make_room
from metatransformer.trunk.encoder import Encoder

CLOSE = {"atol": 2e-4, "rtol": 2e-4}  # float32 in another order, on values of order 10

NEEDS_OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra openvino")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METATRANSFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[1, 6:] = mask[3, 2:] = False
    return draw(5, 9, 21), mask


def check_batches(name: str, close: dict[str, float] = CLOSE) -> None:
    encoder = trained()
    encoder.freeze()
    x, mask = padded()
    with torch.no_grad():
        for rows, count in ((5, 9), (1, 3), (2, 9)):
            for given in (tokens(x[:rows, :count], mask[:rows, :count]), tokens(x[:rows, :count])):
                expected = encoder.read(given, after=(1, 3))
                with backend(name):
                    found = encoder.read(given, after=(1, 3))
                for one, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(one.x, other.x, **close)
    assert chosen_backend() == "eager"


@NEEDS_OPENVINO
def test_openvino_takes_batches_of_any_size_with_padding_and_without(cache: Path):
    check_batches("openvino")
    assert len(list((cache / "openvino").glob("*.xml"))) == 2


@NEEDS_OPENVINO
def test_products_of_8_bits_take_batches_of_any_size_and_are_nearly_those_of_float32(cache: Path):
    check_batches("int8", {"atol": 0.25, "rtol": 0.05})


@NEEDS_OPENVINO
def test_what_was_converted_for_8_bits_is_kept_beside_the_rest(cache: Path):
    encoder, found = trained(), []
    encoder.freeze()
    for name in ("openvino", "int8", "openvino", "int8"):
        with torch.no_grad(), backend(name):
            found.append(encoder.encode(tokens(padded()[0])).x)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    assert len(list((cache / "openvino").glob("*.xml"))) == 2


def test_weights_of_8_bits_are_within_half_a_step_of_their_own_output():
    linear = torch.nn.Linear(7, 3)
    with torch.no_grad():
        linear.weight[1] *= 1000
        linear.weight[2] = 0
    found = Int8Linear(linear)
    weights = found.scales * found.levels
    steps = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    assert found.levels.dtype == torch.int8 and found.levels.abs().amax(dim=1).tolist() == [127, 127, 0]
    assert bool(((weights - linear.weight).abs() <= steps * 0.5001).all())
    x = draw(4, 5, 7)
    torch.testing.assert_close(found(x), torch.nn.functional.linear(x, weights, linear.bias))


def test_a_copy_gets_weights_of_8_bits_and_the_layers_stay_as_they_are():
    encoder = trained()
    before = encoder.bytes_hash()
    kinds = [type(module) for module in with_int8(encoder).modules()]
    assert kinds.count(Int8Linear) == 4 * encoder.config.depth and torch.nn.Linear not in kinds
    assert encoder.bytes_hash() == before and not any(isinstance(module, Int8Linear) for module in encoder.modules())


def test_compiled_layers_take_batches_of_any_size_with_padding_and_without():
    # In a process of its own: the compiler cannot see through the types that are checked in tests.
    code = "from test_trunk_backends import check_batches; check_batches('compile')"
    found = run_alone(["-c", code])
    assert found.returncode == 0, found.stderr


@NEEDS_OPENVINO
def test_vectors_from_python_are_computed_by_the_backend_of_their_block(cache: Path):
    pictures = np.random.default_rng(0).integers(0, 256, size=(3, 28, 28, 3), dtype=np.uint8)
    embedder = mt.Embedder("image", encoder="test", recipe={"input.size": 28}).fit(pictures)
    expected = embedder.transform(pictures), mt.embed(pictures[0], modality="image", encoder="test")
    assert not (cache / "openvino").exists()
    with mt.backend("openvino"):
        found = embedder.transform(pictures), mt.embed(pictures[0], modality="image", encoder="test")
    assert list((cache / "openvino").glob("*.xml"))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


@NEEDS_OPENVINO
def test_openvino_in_bfloat16_follows_changed_weights_and_keeps_what_it_converted(cache: Path):
    encoder = trained()
    encoder.freeze()
    x, _ = padded()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        with backend("openvino"):
            one = encoder.encode(tokens(x)).x
            files = sorted(path.name for path in (cache / "openvino").iterdir())
            encoder.load_state_dict(trained(seed=6).state_dict())
            other = encoder.encode(tokens(x)).x
        expected = encoder.encode(tokens(x)).x
    assert [Path(name).suffix for name in files] == [".bin", ".xml"]
    assert len(list((cache / "openvino").iterdir())) == 4
    assert not torch.allclose(one, other, atol=0.5)
    torch.testing.assert_close(other, expected, atol=0.3, rtol=0.05)
    assert "openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"] is None


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path):
    for age, name in enumerate(("new", "old", "older")):
        for suffix in (".bin", ".xml"):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(bytes(10))
            os.utime(path, (1000 - age, 1000 - age))
    make_room(tmp_path, "*", most=60)
    assert len(list(tmp_path.iterdir())) == 6
    make_room(tmp_path, "*", most=45)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "new", "old", "old"]


def test_a_trunk_that_learns_is_computed_by_the_layers_themselves():
    encoder = trained()
    with backend("compile"):
        encoder.encode(tokens(draw(2, 5, 21))).x.sum().backward()
    assert encoder._made is None


def gradients(encoder: Encoder) -> list[torch.Tensor]:
    """Returns the gradients of the tokens and, where it learns, of the trunk."""
    x, mask = padded()
    x.requires_grad_()
    sum(layer.x.square().sum() for layer in encoder.read(tokens(x, mask), after=(1, 3))).backward()
    found = [x, *encoder.parameters()]
    return [one.grad.clone() for one in found if one.grad is not None]


@pytest.mark.parametrize("frozen", [True, False])
def test_blocks_that_are_computed_again_give_equal_gradients_and_keep_less(frozen: bool):
    encoder = trained()
    if frozen:
        encoder.freeze()

    def kept(recompute: bool) -> tuple[list[torch.Tensor], int]:
        sizes: list[int] = []

        def note(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        encoder.zero_grad()
        with backend("eager", recompute=recompute), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            return gradients(encoder), sum(sizes)

    (expected, many), (found, few) = kept(False), kept(True)
    assert len(found) == (1 if frozen else 1 + len(list(encoder.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert few < many / 3
    assert not recomputes()


def check_gradients() -> None:
    encoder = trained()
    encoder.freeze()
    (expected,) = gradients(encoder)
    with backend("compile"):
        (found,) = gradients(encoder)
    assert encoder._made is not None
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_gradients_pass_through_a_compiled_frozen_trunk():
    code = "from test_trunk_backends import check_gradients; check_gradients()"
    found = run_alone(["-c", code])
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("tune", ["lora:2", "last:1", "norm", "all"])
def test_a_trunk_that_is_tuned_is_not_compiled(tune: str):
    with (
        backend("compile"),
        pytest.raises(UsageError, match=f"--backend: must be eager with tune={tune}, which changes what .* found comp"),
    ):
        require_backend(tiny_recipe(get_modality("image"), {"tune": tune}))
    with backend("compile"):
        require_backend(tiny_recipe(get_modality("image"), {"tune": "ends"}))


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch):
    with (
        pytest.raises(UsageError, match="backend: must be one of eager, compile, openvino, int8; found 'onnx'"),
        backend("onnx"),
    ):
        pass
    encoder = trained()
    adapters = Adapters(encoder, rank=2, depth=3)
    with torch.no_grad(), backend("compile"), pytest.raises(UsageError, match="must compute a model without adapters"):
        encoder.encode(tokens(draw(2, 5, 21)), adapters=adapters)
    monkeypatch.setenv("PATH", "")
    with (
        pytest.raises(UsageError, match="backend compile: must find a C.. compiler; found none of"),
        backend("compile"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"metatransformer\[openvino\]"), backend("openvino"):
        pass
