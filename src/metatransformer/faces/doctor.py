"""Doctor: what is installed, what ``auto`` chooses here, which trunks are at hand, and whether every modality runs.

Nothing is downloaded. The self-test makes a few samples of each modality and pushes them through transform, tokenizer,
the tiny trunk ``test`` and a head.
"""

import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatransformer.core.errors import MetaTransformerError, MissingDependencyError
from metatransformer.core.modality import Modality
from metatransformer.infer.loader import Loader
from metatransformer.infer.sources import examples_of
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device, choose_precision
from metatransformer.machine.versions import missing_packages, version_of
from metatransformer.modalities import get_modality, modality_names, usable_modalities
from metatransformer.pipeline import build_pipeline
from metatransformer.recipe import make_recipe
from metatransformer.trunk import list_encoders, load_encoder, locate
from metatransformer.trunk.backends import has_openvino
from metatransformer.trunk.cache import cache_folder

PACKAGES = (
    "metatransformer",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "pillow",
    "safetensors",
    "huggingface-hub",
    "onnx",
    "pydantic",
    "rich",
    "jaxtyping",
    "matplotlib",
    "jinja2",
    "tensorboardX",
    "shtab",
    "faster-coco-eval",
)
CLASSES, SAMPLES = 2, 3  # a class each: the least that a task, and a batch of several lengths, can be tried on

# What torch, numpy and file libraries raise when an installation is broken; each is reported, none stops the others.
FAILURES = (
    MetaTransformerError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def examine(console: Console) -> tuple[dict[str, Any], int]:
    """Prints and returns all findings; the status is 2 when something that should run here does not."""
    machine = machine_facts()
    console.table("machine", ["", "found"], machine.items())
    packages = {name: version_of(name) for name in PACKAGES}
    console.table("packages", ["package", "version"], packages.items())
    optional = optional_packages()
    rows = [(o["modality"], o["package"], o["version"], o["install"]) for o in optional]
    if rows:
        console.table("optional packages", ["modality", "package", "version", "to install"], rows)
    encoders = find_encoders()
    console.table("encoders", ["encoder", "where"], [(n, p or "not here yet") for n, p in encoders.items()])
    tests = {name: try_modality(name) for name in modality_names()}
    rows = [(name, t["result"], f"{t['seconds']:.2f}", t["detail"]) for name, t in tests.items()]
    console.table("self-test", ["modality", "result", "seconds", "detail"], rows)
    problems = find_problems(packages, tests)
    for problem in problems:
        console.warn(problem)
    console.note("something needs your attention" if problems else "everything that is installed works")
    found = {"machine": machine, "packages": packages, "optional": optional, "encoders": encoders}
    return {**found, "self_test": tests, "problems": problems}, 2 if problems else 0


def machine_facts() -> dict[str, str]:
    """Returns what this machine is and what ``auto`` chooses on it."""
    device = choose_device("auto")
    precision = choose_precision("auto", device=device)
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    cache = cache_folder()
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "torch": f"{torch.__version__} ({cuda})",
        "device 'auto'": f"{device}" + (f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""),
        "precision 'auto'": str(precision).removeprefix("torch."),
        "backends": ", ".join(["eager", "compile", *(["openvino", "int8"] if has_openvino() else [])]),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
        "memory": _memory(),
        "cache folder": f"{cache} ({_free(cache):.1f} GB free)",
    }


def optional_packages() -> list[dict[str, str]]:
    """Returns one entry for each package that only some modality needs, with the command that installs it."""
    entries = []
    for modality in usable_modalities():
        for package in modality.requires:
            missing = bool(missing_packages([package]))
            command = f"pip install 'metatransformer[{modality.extra}]'" if missing else ""
            version = "not installed" if missing else version_of(package)
            entry = {"modality": modality.name, "package": package, "version": version, "install": command}
            entries.append(entry)
    return entries


def find_encoders() -> dict[str, str]:
    """Returns where each known encoder lies on this machine, empty where it would have to be fetched."""
    places = {entry.name: locate(entry.name) for entry in list_encoders()}
    return {name: next((p.detail for p in found if p.found), "") for name, found in places.items()}


def try_modality(name: str) -> dict[str, Any]:
    """Returns the result of the self-test of one modality: "ok", "failed" or "not installed", with time and detail."""
    start = time.perf_counter()
    try:
        result, detail = "ok", run_modality(get_modality(name))
    except MissingDependencyError as error:
        result, detail = "not installed", error.do
    except FAILURES as error:
        result, detail = "failed", f"{type(error).__name__}: {error}"
    return {"result": result, "seconds": round(time.perf_counter() - start, 3), "detail": detail}


def run_modality(modality: Modality) -> str:
    """Runs made-up samples through an untrained pipeline and returns what went through, in words.

    Raises:
        MetaTransformerError: the modality refuses its own samples, or a package is missing.
    """
    missing = missing_packages(modality.requires)
    if missing:
        raise MissingDependencyError(missing[0], extra=modality.extra, purpose=f"modality '{modality.name}'")
    overrides = {**modality.synthetic, "encoder": "test", "head.read": [-1], "task.name": "classify"}
    recipe = make_recipe(modality.name, base={}, overrides=overrides)
    rng = np.random.default_rng(0)
    labels = [label for label in range(CLASSES) for _ in range(SAMPLES)]
    records = [modality.made_up(rng, label, key=f"made-up {i}") for i, label in enumerate(labels)]
    examples = examples_of(records, recipe)
    pipeline = build_pipeline(recipe, trunk=load_encoder("test"), examples=examples)
    loader = Loader(pipeline.route, examples, cache_mb=0, tasks=pipeline.tasks)
    ((_, batch),) = loader.in_order(batch_size=len(records))
    tokens = pipeline.model.tokenize(batch)
    outputs = pipeline.model(batch, task=pipeline.task_name)
    assert outputs.shape == (len(records), pipeline.task.outputs), tuple(outputs.shape)
    assert outputs.isfinite().all(), "outputs are not finite"
    return f"{len(records)} samples, up to {tokens.x.shape[1]} tokens, {pipeline.task.outputs} outputs"


def find_problems(packages: dict[str, str], tests: dict[str, dict[str, Any]]) -> list[str]:
    """Returns one sentence for each thing that should run here and does not; optional packages are no problem."""
    absent = [name for name, version in packages.items() if version == "not installed"]
    problems = [f"the package '{name}' is not installed; run: pip install {name}" for name in absent]
    failed = {name: test["detail"] for name, test in tests.items() if test["result"] == "failed"}
    return problems + [f"the self-test of '{name}' failed: {detail}" for name, detail in failed.items()]


def _memory() -> str:
    """Returns the machine's memory, "unknown" where the system does not tell it (Windows)."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB"


def _free(folder: Path) -> float:
    """Returns the free space in GB on the disk where ``folder`` lies or would lie."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(there).free / 1e9
