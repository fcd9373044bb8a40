"""What every test runs under: checked shapes and types, one thread, an empty cache, and no network."""

import atexit
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator

# Before the package or the Hub's client is imported: both read their settings then.
CACHE = tempfile.mkdtemp(prefix="metatransformer-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["METATRANSFORMER_CACHE"] = CACHE
os.environ["METATRANSFORMER_FEATURES_GB"] = "0"  # tests of it set another size
os.environ["HF_HUB_CACHE"] = os.path.join(CACHE, "hub")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):  # what torchrun sets
    os.environ.pop(name, None)

from jaxtyping import install_import_hook  # noqa: E402

# Every signature of the package is checked while the tests run: tensor shapes and plain types.
install_import_hook("metatransformer", "checker.check")

from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from common import CLI_IMAGE, CLI_SETTINGS, Run, make_records, run  # noqa: E402
from pairs_common import align_words, draw_concepts, draw_pairs, pair_words, split_concepts, words_for  # noqa: E402
from PIL import Image  # noqa: E402

from metatransformer.faces.cli import main  # noqa: E402
from metatransformer.modalities import get_modality  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile("tests", deadline=None)  # how long an example takes, the machine decides
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuses every connection that leaves this machine."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        local = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
        assert local, f"a test asked the network for {address}"
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    yield


@pytest.fixture
def call(capsys) -> Run:
    """Runs a command in this process."""
    return lambda words: run(words, capsys)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 24 pictures, one folder per class."""
    root = tmp_path_factory.mktemp("pictures")
    for record in make_records(get_modality("image"), train=24):
        (root / record.target).mkdir(exist_ok=True)
        Image.fromarray(record.value).save(root / record.target / f"{record.key.split()[1]}.png")
    return root


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a finished run."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert (
        main([str(word) for word in ["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", out, *CLI_SETTINGS]]) == 0
    )
    return out


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a CSV file of 40 rows with a class and a number to learn."""
    rng = np.random.default_rng(0)
    rows = [get_modality("tabular").synthesize(rng, i % 2)["row"] | {"label": "ab"[i % 2]} for i in range(40)]
    path = tmp_path_factory.mktemp("table") / "people.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def pair_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a table of drawn pictures and their words."""
    return draw_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def pretrained(pair_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run that pretrained two tiny towers."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    assert main([str(word) for word in words_for(pair_table, out, {})]) == 0
    return out


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a table of 24 concepts, three pictures of each, and what each is called."""
    return draw_concepts(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def seen(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the same table with a split in which 12 concepts are held out."""
    return split_concepts(drawn, tmp_path_factory.mktemp("seen") / "seen.csv")


@pytest.fixture(scope="session")
def aligned(seen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run that aligned pictures with words."""
    out = tmp_path_factory.mktemp("aligned") / "run"
    assert main([str(word) for word in align_words(seen, out, "--concept", "concept", "--controls")]) == 0
    return out


@pytest.fixture(scope="session")
def paired(seen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run that aligned two kinds of pictures, beside ``two.csv`` with the pairs."""
    folder = tmp_path_factory.mktemp("paired")
    assert main([str(word) for word in pair_words(seen, folder)]) == 0
    return folder / "run"
