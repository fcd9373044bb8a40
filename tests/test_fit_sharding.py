"""A trunk that is tuned in parts: two processes train as one does, and one takes up what two have left."""

from pathlib import Path

import pytest
import torch
from common import loader_of, make_records, run_alone, tiny_pipeline
from safetensors.torch import load_file

from metatransformer.fit.context import Context
from metatransformer.fit.objective import Supervised
from metatransformer.fit.run import RunFolder
from metatransformer.fit.sharding import newest_parts
from metatransformer.fit.train import Trainer
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console

QUIET = Console(quiet=True)
SETTINGS = {
    "data.batch_size": 4,
    "optim.lr": 1e-2,
    "optim.trunk_lr": 1e-2,
    "optim.epochs": 3,
    "run.checkpoint_minutes": 0.0,
}
STOP = 5  # steps of nine after which the first try ends


def make_trainer(tune: str, place: Place, out: Path | None = None) -> Trainer:
    """Returns a trainer of 11 samples: batches of 4, 4 and 3, of which two processes have unlike parts."""
    pipeline = tiny_pipeline("image", {**SETTINGS, "tune": tune})
    loaders = {}
    for split, seed in (("train", 0), ("val", 1)):
        loaders[split] = loader_of(pipeline, make_records(pipeline.modality, train=11, seed=seed))
        loaders[split].prepare(QUIET, title=split)
    run = None if out is None else RunFolder(out, place=place)
    if run is not None and run.writes:
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text("{}", encoding="utf-8")
    context = Context(run=run, place=place, memo=None, console=QUIET)
    return Trainer(pipeline, Supervised(pipeline.tasks), **loaders, start_loss=None, context=context)


def trained(tune: str, place: Place, out: Path | None = None) -> dict[str, torch.Tensor]:
    trainer = make_trainer(tune, place, out)
    history = trainer.fit().history
    told = torch.tensor([[line["train_loss"], line["val_log_loss"]] for line in history])
    return {"history": told} | {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


TWO = """
import sys, pathlib, torch, torch.distributed as dist
torch.set_num_threads(1)
import test_fit_sharding as here
from metatransformer.fit.sharding import local
from metatransformer.fit.train import Trainer, join_processes
from safetensors.torch import save_file
place, folder = join_processes(), pathlib.Path(sys.argv[1])
for tune in ("all", "last:1"):
    found = here.trained(tune, place)
    if place.rank == 0:
        save_file(found, folder / f"{tune}.safetensors")
trainer = here.make_trainer("all", place, folder / "run")
held = sum(local(p).numel() for n, p in trainer.learning.items() if n.startswith("encoder"))
total = sum(p.numel() for p in trainer.model.encoder.parameters())
assert held < 0.6 * total, (held, total)
step = Trainer._step
def stopped(self, batch):
    if self.progress.step == here.STOP:
        raise KeyboardInterrupt
    return step(self, batch)
Trainer._step = stopped
try:
    trainer.fit()
except KeyboardInterrupt:
    pass
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns what two processes trained, and a run that they left unfinished."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "two.py"
    (folder / "run").mkdir()
    script.write_text(TWO, encoding="utf-8")
    done = run_alone(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, script, folder])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("tune", ["all", "last:1"])
def test_two_processes_tune_the_trunk_as_one_does(two: Path, tune: str):
    alone, found = trained(tune, Place()), load_file(two / f"{tune}.safetensors")
    assert alone.keys() == found.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4, msg=name)


def test_one_process_takes_up_what_two_have_left(two: Path):
    parts = newest_parts(two / "run" / "checkpoints")
    assert parts is not None and parts.name == f"step-{STOP:09d}" and len(list(parts.parent.glob("step-*"))) == 1
    alone, found = trained("all", Place()), trained("all", Place(), two / "run")
    for name, tensor in alone.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4, msg=name)
