"""What may be written for an encoder, and what is refused with the way out."""

import pytest

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.trunk.catalog import KNOWN
from metatransformer.trunk.names import Given, Known, Made, Options, parse_name


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_known_names_and_controls():
    assert parse_name("meta-b16") == Known(KNOWN["meta-b16"])
    assert parse_name("known:meta-b16") == parse_name("meta-b16")
    assert parse_name("random:7") == Made("random", 7)
    assert parse_name("random:7:dinov2-s14") == Made("random", 7, Known(KNOWN["dinov2-s14"]))
    assert parse_name("identity") == Made("identity")
    assert parse_name("identity:test") == Made("identity", 0, Made("test"))
    assert parse_name("random:1:identity:test").base == parse_name("identity:test")


@pytest.mark.parametrize("name", ["w.pth", "./w.pth", "w.PTH"])
def test_paths_are_known_by_separator_or_ending(here, name):
    (here / "w.pth").touch()
    (here / "w.PTH").touch()
    assert parse_name(name).path.name == name.removeprefix("./")


def test_options_behind_a_path(here):
    (here / "w.pth").touch()
    assert parse_name("w.pth?heads=12&eps=1e-6&activation=gelu&pixels=clip").options == Options(
        heads=12, eps=1e-6, activation="gelu", pixels="clip"
    )
    assert parse_name("random:0:w.pth?like=meta-b16").base.options == Options(like="meta-b16")


def test_a_folder_stands_for_its_only_weight_file(here):
    folder = here / "dinov2-small"
    folder.mkdir()
    with pytest.raises(WeightsError, match="folder with exactly one; found none"):
        parse_name("./dinov2-small")
    (folder / "a.pth").touch()
    assert parse_name("./dinov2-small") == Given(parse_name("./dinov2-small/a.pth").path, Options())
    (folder / "b.pth").touch()
    with pytest.raises(WeightsError, match="found a.pth, b.pth. Name the file itself"):
        parse_name("./dinov2-small")
    (folder / "model.safetensors").touch()
    assert parse_name("./dinov2-small").path.name == "model.safetensors"


def test_a_known_name_that_is_a_file_here_is_refused_with_both_spellings(here):
    (here / "focus-s14").touch()
    with pytest.raises(UsageError, match=r"Write ./focus-s14 for the file, known:focus-s14 for"):
        parse_name("focus-s14")
    assert isinstance(parse_name("known:focus-s14"), Known)
    assert isinstance(parse_name("./focus-s14"), Given)
    (here / "mine").touch()
    with pytest.raises(UsageError, match=r"Write ./mine for the file, a known name otherwise"):
        parse_name("mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meta-b61", r"found 'meta-b61'. Did you mean 'meta-b16'\? Valid: dinov2-s14, focus-s14"),
        ("", "found ''"),
        ("random", r"must be written random:<seed>\[:<encoder>\]; found 'random'"),
        ("random:", "must be written random"),
        ("random:-1", "must be written random"),
        ("random:x", "must be written random"),
        ("random:1:nothing", "found 'nothing'"),
        ("timm/vit_base_patch16_clip_224.laion2b", "Hub repository. It is known as 'meta-b16'"),
        ("w.pth?hads=3", r"w.pth: .*found 'hads'. Did you mean 'heads'\?"),
        ("w.pth?heads=3.5", r"w.pth\?heads: must be a positive whole number; found '3.5'"),
        ("w.pth?heads=0", "must be a positive whole number"),
        ("w.pth?eps=nan", "must be a positive number; found 'nan'"),
        ("w.pth?eps=-1", "must be a positive number"),
        ("w.pth?activation=relu", r"w.pth\?activation: .* Valid: gelu, gelu_tanh, quick_gelu"),
        ("w.pth?pixels=grey", "Valid: clip, half, imagenet"),
        ("w.pth?like=meta-b61", "Did you mean 'meta-b16'"),
        ("w.pth?like=meta-b16&heads=3", "must have 'like' as its only option"),
    ],
)
def test_what_is_refused(here, name, message):
    (here / "w.pth").touch()
    with pytest.raises(UsageError, match=message):
        parse_name(name)


def test_a_path_to_nothing():
    with pytest.raises(WeightsError, match="no/such.pth: must be a weight file; found no such file"):
        parse_name("no/such.pth")
