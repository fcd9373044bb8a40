"""A trained model on the Hugging Face Hub: what ``push`` uploads and ``pull`` brings back.

Uploaded are ``model.json``, tensors (safetensors) and a page; nothing of the training data, and no path of the machine
that trained it. Who may write, huggingface_hub's own login says (``hf auth login``, or HF_TOKEN).
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors as hub_errors

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.write import write_json
from metatransformer.export.card import card_of, facts_of
from metatransformer.export.folder import appearing, require_free
from metatransformer.machine.console import Console
from metatransformer.nn.beside import Beside
from metatransformer.nn.kernel import KernelLayer
from metatransformer.pipeline import ADAPTERS, ORIGINS, Pipeline
from metatransformer.saved import read_description, saved_model

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PAGE = "README.md"
FILES = ["model.json", PAGE, "*.safetensors", f"{ADAPTERS.parent}/adapter_config.json"]
PLACE = re.compile(r"(?:~|[A-Za-z]:)?[\\/]|\.{1,2}[\\/]")  # what a path begins with


def push_model(
    pipeline: Pipeline, run: Path, repository: str, *, private: bool, with_samples: bool, console: Console
) -> dict[str, Any]:
    """Uploads a saved model with its page; returns where it is.

    Raises:
        UsageError: no name of a repository; a head that holds training samples, which nobody allowed; the Hub refuses
            or cannot be reached.
    """
    require_name(repository)
    if held := held_samples(pipeline):
        if not with_samples:
            must, do = (
                "hold no training samples to be given away",
                "Fit with head.features=trunk, or say --with-samples.",
            )
            raise UsageError(f"push {run}", must=must, found=held, do=do)
        console.note(f"uploaded with the model: {held}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = gather(pipeline, run, repository, folder)
        with _hub(f"push {repository}"):
            api = huggingface_hub.HfApi(library_name="metatransformer")
            address = str(api.create_repo(repository, private=private, exist_ok=True))
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="metatransformer push")
    console.note(f"{len(files)} files at {address}")
    return {"repository": repository, "address": address, "files": files}


def pull_model(repository: str, out: Path, *, console: Console) -> dict[str, Any]:
    """Downloads a model into a new folder, which ``predict`` and all others take.

    Raises:
        UsageError: no name of a repository, a place that is taken; the Hub refuses or cannot be reached.
        DataError: the repository holds no model of ours.
    """
    require_name(repository)
    require_free(out)
    with appearing(out) as folder:
        with _hub(f"pull {repository}"):
            huggingface_hub.snapshot_download(repository, local_dir=folder, allow_patterns=FILES)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the Hub's notes of the download
        try:
            description = read_description(folder)
        except DataError as error:
            do = "Name a repository that 'metatransformer push' wrote."
            raise DataError(repository, must="hold a model of metatransformer", found=error.found, do=do) from error
    trunk = description["encoder"]
    console.note(f"trunk: {trunk['name']}" + ("" if not trunk["included"] else " (in the model)"))
    console.note(f"use it: metatransformer predict {out} FILE --out predictions.csv")
    return {"out": str(out), "trunk": trunk["name"], "tasks": list(description["tasks"])}


def require_name(repository: str) -> None:
    """Raises UsageError for what is no name of a repository."""
    if not NAME.fullmatch(repository):
        raise UsageError("repository", must="be OWNER/NAME on the Hugging Face Hub", found=repr(repository))


def held_samples(pipeline: Pipeline) -> str:
    """Returns which training samples could be read out of a model's heads, in words; "" where none."""
    found = []
    for name, task in pipeline.tasks.items():
        head = pipeline.model.head(name)
        parts = [*head.beside.items(), *(item for more in head.lacking.values() for item in more.named_children())]
        for key, beside in parts:
            if key.startswith("plain:") and isinstance(beside, Beside) and isinstance(beside.last, KernelLayer):
                count = len(beside.last.centres)
                found.append(
                    f"plain features (such as thumbnails, rows) of {count:,} training samples in head '{name}'"
                )
        if task.compares and task.tensors():
            found.append(f"vectors and names of known samples in task '{name}'")
    return "; ".join(dict.fromkeys(found))


def gather(pipeline: Pipeline, run: Path, repository: str, folder: Path) -> list[str]:
    """Copies what is uploaded into a folder; returns its files."""
    model = saved_model(run)
    description = read_description(model)
    parts = [about["tokenizer"] for about in description["inputs"].values()]
    parts += [about[key] for about in description["tasks"].values() for key in ("head", "tensors") if key in about]
    parts += ["encoder.safetensors"] if description["encoder"]["included"] else []
    parts += [
        name for name in (ORIGINS, str(ADAPTERS), f"{ADAPTERS.parent}/adapter_config.json") if (model / name).is_file()
    ]
    for part in parts:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / part, folder / part)
    encoder = {**description["encoder"], "name": nameless(description["encoder"]["name"])}
    write_json(folder / "model.json", {**description, "recipe": nameless(description["recipe"]), "encoder": encoder})
    told = _loading(repository, local=encoder["name"] != description["encoder"]["name"], included=encoder["included"])
    (folder / PAGE).write_text(card_of(facts_of(pipeline, run), told=told), encoding="utf-8")
    return ["model.json", PAGE, *parts]


def nameless(value: Any) -> Any:
    """Returns settings in which each path is the name of its file alone."""
    if isinstance(value, Mapping):
        return {key: nameless(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [nameless(one) for one in value]
    if isinstance(value, str) and (PLACE.match(value) or (re.search(r"[\\/]", value) and Path(value).exists())):
        return re.split(r"[\\/]", value)[-1]
    return value


def _loading(repository: str, *, local: bool, included: bool) -> str:
    name = repository.partition("/")[2]
    encoder = ' --encoder "the file of the trunk"' if local and not included else ""
    return f"""## Use it

```
pip install metatransformer
metatransformer pull {repository} --out {name}
metatransformer predict {name} FILE_OR_FOLDER --out predictions.csv{encoder}
```

In Python: `metatransformer.load("{name}").predict(files)`.
"""


@contextmanager
def _hub(where: str) -> Iterator[None]:
    """Turns what the Hub's client raises into one message."""
    try:
        yield
    except hub_errors.OfflineModeIsEnabled as error:
        raise UsageError(where, must="reach the Hugging Face Hub", found="HF_HUB_OFFLINE is set") from error
    except hub_errors.LocalTokenNotFoundError as error:
        raise UsageError(where, must="be logged in", found="no token", do="Call 'hf auth login' first.") from error
    except (hub_errors.HFValidationError, hub_errors.LocalEntryNotFoundError) as error:
        raise UsageError(where, must="name what the Hub has", found=_words(error), do="Is there a network?") from error
    except (OSError, hub_errors.HTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        do = "Call 'hf auth login' with a token that may do this." if status in (401, 403) else "Is there a network?"
        must = "be answered by the Hugging Face Hub"
        raise UsageError(where, must=must, found=_words(error), do="" if status == 404 else do) from error


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"'{lines[0].rstrip('.')}'" if lines else type(error).__name__
