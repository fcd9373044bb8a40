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
os.environ["HF_HUB_CACHE"] = os.path.join(CACHE, "hub")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):  # what torchrun sets
    os.environ.pop(name, None)

from jaxtyping import install_import_hook  # noqa: E402

# Every signature of the package is checked while the tests run: tensor shapes and plain types.
install_import_hook("metatransformer", "checker.check")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


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
