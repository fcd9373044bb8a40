"""One pool of trunks: equal weights are one frozen encoder, read once, measured once, changed never."""

import copy
import gc
import json
import os
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from common import make_records, tiny_pipeline, tiny_recipe
from safetensors.torch import load_file, save_file
from test_trunk_files import timm_like

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.core.tokens import Span, Tokens
from metatransformer.fit.fit import fit
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.saved import load_pipeline
from metatransformer.trunk import load_encoder, resolve
from metatransformer.trunk.encoder import Encoder

QUIET = Console(quiet=True)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns the list that gets the width of every encoder whose fingerprint is measured."""
    found: list[int] = []
    real = Encoder.fingerprint

    def counting(self: Encoder) -> tuple[float, ...]:
        found.append(self.config.width)
        return real(self)

    monkeypatch.setattr(Encoder, "fingerprint", counting)
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns the list that gets every weight file that is read."""
    found: list[Path] = []
    real = resolve.read_weights

    def counting(path, *, options, entry, remedy):
        found.append(path)
        return real(path, options=options, entry=entry, remedy=remedy)

    monkeypatch.setattr(resolve, "read_weights", counting)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Returns a weight file in timm's layout: 128 wide, so two heads by convention."""
    save_file(timm_like(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_equal_weights_are_one_encoder_that_is_read_and_measured_once(file, measured, read, tmp_path):
    first = load_encoder(str(file))
    again = load_encoder(str(file))
    assert again.encoder is first.encoder
    facts = [(t.name, t.sha256, t.fingerprint, t.licence, t.size, t.verified, t.note) for t in (first, again)]
    assert facts[0] == facts[1]
    assert (len(read), len(measured)) == (1, 1)
    torch.save(load_file(file), tmp_path / "w.pt")
    other = load_encoder(f"{tmp_path}/w.pt")  # by its tensors
    assert other.encoder is first.encoder and other.fingerprint == first.fingerprint
    assert (len(read), len(measured)) == (2, 1)
    assert load_encoder(f"{file}?pixels=clip").stem.mean != first.stem.mean
    assert load_encoder(f"{file}?heads=4").encoder is not first.encoder


def test_a_file_that_changed_is_read_again(file, measured, read):
    first = load_encoder(str(file))
    os.utime(file, ns=(0, 0))
    assert load_encoder(str(file)).encoder is first.encoder
    assert (len(read), len(measured)) == (2, 1)
    file.with_name("config.json").write_text(json.dumps({"hidden_size": 128, "num_attention_heads": 4}))
    assert load_encoder(str(file)).encoder.config.heads == 4
    file.with_name("config.json").unlink()
    save_file(timm_like(pre_norm=True), file)
    other = load_encoder(str(file))
    assert other.encoder.config.pre_norm and other.sha256 != first.sha256
    assert (len(read), len(measured)) == (4, 3)


def test_what_nobody_uses_is_freed_at_once_and_read_again(file, read):
    gc.disable()
    try:
        first = load_encoder(str(file))
        alive = weakref.ref(first.encoder)
        encoder = first.encoder
        del first
        assert load_encoder(str(file)).encoder is encoder and len(read) == 1
        del encoder
        assert alive() is None
    finally:
        gc.enable()
    load_encoder(str(file))
    assert len(read) == 2


def test_controls_do_not_read_the_file_of_what_is_in_use(file, measured, read):
    base = load_encoder(str(file))
    for name in (f"random:3:{file}", f"identity:{file}", f"shuffled:3:{file}"):
        control = load_encoder(name)
        assert torch.equal(control.stem.patch, base.stem.patch) and control.name == name
    assert (len(read), len(measured)) == (1, 4)


def test_threads_that_load_at_once_get_one_encoder(file, measured, read):
    together = threading.Barrier(5)

    def load(_: int):
        together.wait()
        return load_encoder(str(file))

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(load, range(5)))
    assert len({id(trunk.encoder) for trunk in found}) == 1
    assert (len(read), len(measured)) == (1, 1)


def test_saved_models_share_one_trunk_and_measure_it_once(tmp_path, measured):
    settings = {"encoder": "random:71:test", "tune": "ends"}
    for name in ("image", "tabular", "timeseries"):
        tiny_pipeline(name, settings).save(tmp_path / name, metrics={})
    tiny_pipeline("image", settings | {"tune": "all"}).save(tmp_path / "own", metrics={})
    base = load_encoder("test")  # which lends the control its front end
    measured.clear()
    models = [load_pipeline(tmp_path / name).model for name in ("image", "tabular", "timeseries", "image")]
    assert len({id(model.encoder) for model in models}) == len(measured) == 1
    del base
    assert load_pipeline(tmp_path / "image").model.encoder is models[0].encoder and len(measured) == 1
    own = load_pipeline(tmp_path / "own").model.encoder
    assert own is not models[0].encoder and not own.is_shared


# --- nobody changes what is shared ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["all", "norm", "last:1"])
def test_a_trunk_that_learns_is_a_copy(tune: str):
    shared = load_encoder("random:72:test")
    before = shared.encoder.bytes_hash()
    modality = get_modality("image")
    changes = {"encoder": "random:72:test", "tune": tune, "optim.epochs": 1, "optim.trunk_lr": 1e-2, "head.hidden": 3}
    fitted = fit(make_records(modality, train=8, val=4), tiny_recipe(modality, changes), console=QUIET)
    own = fitted.pipeline.trunk.encoder
    assert own is fitted.pipeline.model.encoder is not shared.encoder
    assert own.bytes_hash() != before == shared.encoder.bytes_hash()
    assert load_encoder("random:72:test").encoder is shared.encoder


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_copies_are_free(copied):
    shared = load_encoder("random:73:test")
    other, own = copied(shared.encoder), shared.own_copy()
    assert shared.own_copy() is not own is own.own_copy()
    for encoder in (other, own.encoder):
        assert encoder.is_frozen and not encoder.is_shared
        assert encoder.bytes_hash() == shared.encoder.bytes_hash()
        encoder.unfreeze()
        encoder.initialize(seed=1)
        encoder.require_untouched()
    assert load_encoder("random:73:test").encoder is shared.encoder


def test_a_shared_trunk_does_not_learn():
    shared = load_encoder("random:74:test").encoder
    for change in (shared.unfreeze, shared.requires_grad_):
        with pytest.raises(UsageError, match="must stay as it was loaded; .* Change the copy that Pretrained.own_copy"):
            change()
    assert shared.is_frozen and not any(parameter.requires_grad for parameter in shared.parameters())
    shared.freeze()
    shared.to(torch.float64).to(torch.float32)  # a move between devices or types is none
    shared.require_untouched()


@torch.no_grad()
def _add(encoder: Encoder) -> None:
    encoder.blocks[1].mlp.fc1.weight.add_(1.0)


@pytest.mark.parametrize("change", [_add, lambda encoder: encoder.norm.requires_grad_(True)])
def test_what_was_changed_all_the_same_is_not_handed_out(change):
    shared = load_encoder("random:75:test")
    pipeline = tiny_pipeline("image", trunk=shared)
    change(shared.encoder)
    with pytest.raises(UsageError, match="a trunk that models share: must stay as it was loaded; found changed param"):
        load_encoder("random:75:test")
    with pytest.raises(UsageError, match="changed parameters"):
        tiny_pipeline("image", trunk=pipeline.trunk)


def test_a_front_end_is_the_callers_own():
    one, other = load_encoder("random:76:test"), load_encoder("random:76:test")
    one.stem.patch.zero_()
    assert other.stem.patch.abs().sum() > 0 < load_encoder("random:76:test").stem.patch.abs().sum()


def test_a_trunk_loaded_in_inference_mode_is_trained_through_elsewhere(file):
    with torch.inference_mode():
        first = load_encoder(str(file))
    x = torch.ones(2, 3, 128, requires_grad=True)
    tokens = Tokens(x, torch.ones(2, 3, dtype=torch.bool), (Span("probe", 0, 3),))
    assert load_encoder(str(file)).encoder is first.encoder
    first.encoder.encode(tokens).x.square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_a_recorded_trunk_is_compared_without_a_measurement(measured):
    trunk = load_encoder("random:77:test")
    config = vars(trunk.encoder.config)
    measured.clear()
    trunk.require_same(config=config, fingerprint=trunk.fingerprint, where="m")
    with pytest.raises(WeightsError, match="m: must have the shape .*'heads': 8.*; found EncoderConfig.*heads=4"):
        trunk.require_same(config=config | {"heads": 8}, fingerprint=trunk.fingerprint, where="m")
    with pytest.raises(WeightsError, match="m: must compute what was recorded"):
        trunk.require_same(config=config, fingerprint=[2 * x for x in trunk.fingerprint], where="m")
    assert measured == []
