"""Doctor: facts as JSON, a self-test of every modality, status 2 when something is broken."""

import json

import pytest

from metatransformer.core.errors import MissingDependencyError
from metatransformer.faces import doctor
from metatransformer.faces.describe import get_modality
from metatransformer.machine.console import Console
from metatransformer.machine.versions import missing_packages, version_of
from metatransformer.modalities import modality_names

QUIET = Console(quiet=True)


def test_examine_finds_a_working_installation() -> None:
    found, status = doctor.examine(QUIET)
    assert status == 0 and found["problems"] == [] and json.loads(json.dumps(found)) == found
    assert sorted(found["self_test"]) == modality_names()
    assert {"python", "torch", "memory", "cache folder"} <= set(found["machine"])
    assert found["encoders"]["focus-s14"] == ""  # the tests' cache is empty, and nothing is downloaded


def test_a_broken_modality_is_reported_and_the_others_are_still_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        if name == "image":
            raise RuntimeError("no such operator")
        return get_modality(name)

    monkeypatch.setattr(doctor, "get_modality", broken)
    monkeypatch.setattr(doctor, "optional_packages", list)
    found, status = doctor.examine(QUIET)
    assert status == 2 and found["problems"] == ["the self-test of 'image' failed: RuntimeError: no such operator"]
    assert found["self_test"]["tabular"]["result"] == "ok"


def test_a_missing_optional_package_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(modality: object) -> str:
        raise MissingDependencyError("soundfile", extra="audio", purpose="reading FLAC")

    monkeypatch.setattr(doctor, "run_modality", missing)
    result = doctor.try_modality("image")
    assert result["result"] == "not installed" and "pip install 'metatransformer[audio]'" in result["detail"]
    assert doctor.find_problems({"torch": "2.13"}, {"image": result}) == []
    assert "pip install torch" in doctor.find_problems({"torch": "not installed"}, {})[0]


def test_versions_of_packages() -> None:
    assert version_of("torch")[0].isdigit() and version_of("no-such-package-at-all") == "not installed"
    assert missing_packages(["json", "no_such_package_at_all"]) == ["no_such_package_at_all"]
