"""A modality of somebody else's package: one module and one entry point, and everything works with it."""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from common import run

import metatransformer as mt
from metatransformer.core.registry import known_modules
from metatransformer.modalities import get_modality, modality_names

SONAR = '''"""Echoes of a sonar: one token a ping.

File: none, arrays in memory only. Tokens: a linear map of each ping. Sources: none. Errors: the field's.
"""

from dataclasses import dataclass

import numpy as np
import torch

from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, SummaryToken, Tokenizer, Transform
from metatransformer.core.tokens import Span, Tokens


@dataclass(frozen=True)
class SonarOptions:
    gain: float = 1.0


class SonarTransform(Transform):
    def __init__(self, options, stem):
        self.options = options

    def __call__(self, sample):
        return sample.with_inputs({"pings": sample.inputs["pings"] * np.float32(self.options.gain)})


class SonarTokenizer(Tokenizer):
    def __init__(self, options, transform, width, stem):
        super().__init__()
        self.linear = torch.nn.Linear(5, width)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs, masks):
        x, mask = self.summary(self.linear(inputs["pings"]), masks["pings"])
        return Tokens(x, mask, (Span("sonar", 0, x.shape[1], summary=0, grid=(x.shape[1] - 1,)),))


def load(record):
    return {"pings": np.asarray(record.value, dtype=np.float32)}


def synthesize(rng, label):
    return {"pings": rng.normal(2 * label, 1, size=(int(rng.integers(2, 7)), 5)).astype(np.float32)}


MODALITY = Modality(
    name="sonar",
    summary="echoes",
    source=Source("files", (".ping",)),
    fields={"pings": Field("t* 5", unit="dB")},
    options=SonarOptions,
    load=load,
    transform=SonarTransform,
    tokenizer=SonarTokenizer,
    features=lambda sample: sample.inputs["pings"].mean(axis=0),
    draw=lambda axes, sample: axes.imshow(sample.inputs["pings"]),
    synthesize=synthesize,
    native="the class token",
    units="dB",
)
'''


def announce(about: Path, line: str) -> None:
    """Lets the package announce a modality so; within one process nobody else's files change so."""
    (about / "entry_points.txt").write_text(f"[metatransformer.modalities]\n{line}\n", encoding="utf-8")
    importlib.invalidate_caches()
    known_modules.cache_clear()


@pytest.fixture
def sonar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Installs a package with one modality in a folder of its own."""
    (tmp_path / "their_sonar.py").write_text(SONAR, encoding="utf-8")
    about = tmp_path / "their_sonar-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-sonar\nVersion: 1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    announce(about, "sonar = their_sonar")
    yield about
    sys.modules.pop("their_sonar", None)


def test_it_is_listed_fitted_saved_and_loaded(sonar: Path, tmp_path: Path):
    assert "sonar" in modality_names() and modality_names() == sorted(modality_names())
    rng = np.random.default_rng(0)
    labels = [number % 2 for number in range(30)]
    pings = [get_modality("sonar").synthesize(rng, label)["pings"] for label in labels]
    classifier = mt.Classifier("sonar", encoder="test", epochs=8, precision="float32", recipe={"optim.lr": 1e-2})
    classifier.fit(pings[:20], labels[:20])
    assert classifier.score(pings[20:], labels[20:]) >= 0.9
    classifier.save(tmp_path / "model")
    again = mt.load(tmp_path / "model").predict_proba(pings)
    np.testing.assert_array_equal(again, classifier.predict_proba(pings))


def test_it_is_known_to_the_command_line(sonar: Path, capsys):
    status, result, _ = run(["modalities"], capsys)
    assert status == 0 and "sonar" in result["modalities"]


@pytest.mark.parametrize("broken", ["import no_such_library\n", "MODALITY = 7\n"])
def test_a_broken_one_is_told_and_stops_nothing_else(sonar: Path, tmp_path: Path, capsys, caplog, broken: str):
    (tmp_path / "their_sonar.py").write_text(broken, encoding="utf-8")
    status, result, err = run(["modalities"], capsys)
    assert status == 0 and "pointcloud" in err
    assert re.search("no_such_library.*Mend or uninstall|must define a MODALITY named 'sonar'", caplog.text)
    with pytest.raises(
        mt.UsageError, match="no_such_library|must define a MODALITY named 'sonar', as it is announced; found 7"
    ):
        get_modality("sonar")


def test_it_may_be_announced_with_its_constant(sonar: Path):
    announce(sonar, "sonar = their_sonar:MODALITY")
    assert get_modality("sonar").name == "sonar"


def test_it_cannot_replace_a_modality_of_the_package(sonar: Path):
    announce(sonar, "image = their_sonar")
    with pytest.raises(mt.UsageError, match="must not redefine a modality of this package; found image"):
        modality_names()


def test_its_module_must_carry_the_announced_name(sonar: Path):
    announce(sonar, "radar = their_sonar")
    with pytest.raises(mt.UsageError, match="must define a MODALITY named 'radar'"):
        get_modality("radar")
    shutil.rmtree(sonar)
