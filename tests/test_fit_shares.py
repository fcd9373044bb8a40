"""Fits by several processes: each reads and embeds its share of the samples, and what comes of it is that of one."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from common import make_records, run_alone, tiny_recipe

from metatransformer.fit.fit import fit
from metatransformer.fit.shares import Held, are_shared
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality

QUIET = Console(quiet=True)
HEAD = {"tune": "head", "head.pool": "summary", "head.read": [-1], "head.centres": 0, "optim.l2": [1.0, 0.1, 0.01]}
# What is summed up (a line, a kernel, classes that count alike), and what needs all samples (folds, plain features).
SETTINGS: dict[str, dict[str, Any]] = {
    "line": HEAD,
    "kernel": {**HEAD, "head.centres": 17},
    "balanced": {**HEAD, "task.metric": "balanced_accuracy"},
    "folds": {**HEAD, "optim.folds": 3},
    "likelihood": {**HEAD, "optim.solver": "likelihood"},
}


PLAIN: tuple[dict[str, Any], str] = {"tune": "head", "head.features": "auto"}, "tabular"


def outputs_of(settings: Mapping[str, Any], modality: str = "image") -> dict[str, list[list[float]]]:
    kind = get_modality(modality)
    records = make_records(kind, train=97, val=19, test=11)
    fitted = fit(records, tiny_recipe(kind, settings), console=QUIET)
    return {split: outputs.double().tolist() for split, outputs in fitted.outputs.items()}


def all_outputs() -> dict[str, Any]:
    found = {name: outputs_of(settings) for name, settings in SETTINGS.items()}
    return {**found, "plain": outputs_of(*PLAIN)}


FOUR = """
import json, sys
import torch
torch.set_num_threads(1)
import test_fit_shares as here
import metatransformer.infer.loader as loader_module
read = []
real = loader_module.Loader.sample
def sample(self, index):
    read.append(self.examples.keys[index])
    return real(self, index)
loader_module.Loader.sample = sample
found = here.all_outputs()
import torch.distributed as dist
told = [None] * 4
dist.all_gather_object(told, sorted(set(read)))
if dist.get_rank() == 0:
    open(sys.argv[1], "w").write(json.dumps({"outputs": found, "read": told}))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns what four processes answered, and which samples each of them read."""
    folder = tmp_path_factory.mktemp("four")
    script, out = folder / "four.py", folder / "told.json"
    script.write_text(FOUR, encoding="utf-8")
    done = run_alone(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 4, script, out])
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*SETTINGS, "plain"])
def test_four_processes_answer_as_one(told: dict[str, Any], name: str):
    alone = outputs_of(SETTINGS[name]) if name in SETTINGS else outputs_of(*PLAIN)
    for split, outputs in alone.items():
        found = torch.tensor(told["outputs"][name][split])
        torch.testing.assert_close(found, torch.tensor(outputs), atol=1e-6, rtol=1e-6)


def test_each_process_reads_its_share(told: dict[str, Any]):
    keys = [key for keys in told["read"] for key in keys]
    assert len(keys) == len(set(keys)) == 97 + 19 + 11


def test_few_samples_are_not_shared():
    assert not are_shared(3, Place(0, 4)) and not are_shared(100, Place()) and are_shared(4, Place(0, 4))
    train, val = Held.of(5, Place(1, 2)), Held.of(4, Place(1, 2))
    assert train.places.tolist() == [1, 3]
    assert train.behind(val).places.tolist() == [1, 3, 6, 8] and train.behind(val).count == 9
