"""The one training loop: AdamW with warm-up and cosine, best epoch by validation, exact resume.

Runs on one process or under ``torchrun``: each process takes its share of every batch and the gradients are averaged.
Only parameters that learn are kept in checkpoints.
"""

import atexit
import importlib
import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from metatransformer.core.batch import Batch
from metatransformer.core.errors import UsageError
from metatransformer.fit.choose import by_loss, rule, within_error
from metatransformer.fit.context import Context
from metatransformer.fit.objective import Objective
from metatransformer.fit.pace import FIRST, TRAINED, WORTH
from metatransformer.fit.sharding import (
    clip,
    drop_parts,
    load_parts,
    local,
    moments_of,
    newest_parts,
    save_parts,
    shards_trunk,
    share_gradients,
    whole,
    with_parts,
)
from metatransformer.fit.shares import shared_outputs
from metatransformer.infer.evaluate import score_outputs
from metatransformer.infer.loader import Batches, Loader, Place
from metatransformer.machine.clock import duration, memory_gb
from metatransformer.machine.console import Bar, Console
from metatransformer.machine.device import choose_device, choose_precision
from metatransformer.pipeline import Pipeline

# Of the rate of what is new: adapters and solved heads start at answers that are good already. On infrared pictures the
# whole rate undid the trunk within an epoch (docs/log.md).
GENTLE = 0.1
WARMUP = 0.1  # share of all steps
CLIP = 1.0  # norm of the gradients
TOLD = 5  # steps that are let go by before time is taken, and of which it is taken
VALIDATED = 0.1  # of the time of a fit (run.minutes) at most goes to one validation
SUM = "loss"  # of several tasks, which have no score in common


def join_processes() -> Place:
    """Returns this process's place; joins the others when started by ``torchrun``."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Place()
    if not dist.is_initialized():
        # Imported later, as checkpointing does, its default arguments would hold the group beyond its end, and a thread
        # of it that lets go of a tensor while the interpreter ends aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group()  # gloo for the CPU, and NCCL for GPUs where there are some
        atexit.register(_leave_processes)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return Place(dist.get_rank(), world)


def _leave_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wait_for_all(place: Place) -> None:
    """Returns when every process has come here."""
    if place.world > 1:
        dist.barrier()


@dataclass
class Progress:
    """How far a training got; everything here is in the checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    lines: int = 0
    best: float | None = None
    kept: int = 0  # position in ``history`` of the epoch whose weights these are
    loss_sum: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def choose_epochs(epochs: int | Literal["auto"], *, steps: int) -> int:
    """Returns the number of epochs of ``steps`` steps each; "auto" makes about 1,000 steps, in 4 to 40 epochs."""
    return min(40, max(4, round(1000 / steps))) if epochs == "auto" else epochs


@runtime_checkable
class Lessons(Protocol):
    """What is learned from, batch by batch: as ``Loader``."""

    def steps(self, *, batch_size: int, place: Place) -> int:
        """Returns how many batches an epoch has."""
        ...

    def epoch(
        self, *, batch_size: int, seed: int, epoch: int, augment: bool, drop: float, place: Place, skip: int
    ) -> Batches:
        """Yields the batches of one epoch, the first ``skip`` left out."""
        ...


class Trainer:
    """Trains one pipeline on ``objective``.

    ``start_loss`` is the training loss before any training; that start then counts as epoch 0, and is kept where no
    epoch betters it. Heads that were solved before learn slowly then, unless they are ``fresh``. ``units`` are what the
    losses of several tasks are counted in.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        objective: Objective,
        *,
        train: Lessons,
        val: Loader,
        start_loss: float | None,
        fresh: bool = False,
        units: Mapping[str, float] = MappingProxyType({}),
        context: Context,
    ) -> None:
        self.pipeline, self.objective, self.train, self.val = pipeline, objective, train, val
        self.start_loss, self.fresh, self.units = start_loss, fresh, units
        self.run, self.place, self.console, self.clock = context.run, context.place, context.console, context.clock
        self.recipe = pipeline.recipe
        self.device = choose_device(self.recipe.run.device)
        self.precision = choose_precision(self.recipe.run.precision, device=self.device)
        self.model = pipeline.model.to(self.device)
        self.parted = shards_trunk(pipeline, context.place)
        # What is trained: the model itself, or one whose trunk every process has a part of.
        self.taught = with_parts(self.model, device=self.device, place=self.place) if self.parted else self.model
        self.learning = {n: p for n, p in self.taught.named_parameters() if p.requires_grad}
        optim, data = self.recipe.optim, self.recipe.data
        self.steps_per_epoch = train.steps(batch_size=data.batch_size, place=context.place)
        self.epochs = choose_epochs(optim.epochs, steps=self.steps_per_epoch)
        self.total_steps = self.epochs * self.steps_per_epoch
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, 0.999))
        self.average = {name: p.detach().clone() for name, p in self.learning.items()}
        self.progress = Progress()
        self._saved = time.monotonic()
        self._begun, self._first_step = self._saved, self.progress.step

    def _groups(self) -> list[dict[str, Any]]:
        """Returns the parameter groups, one for each rate; vectors are not decayed."""
        groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.learning.items():
            kind = self._rate(name), parameter.ndim >= 2, isinstance(parameter, DTensor)
            groups.setdefault(kind, []).append(parameter)
        decay = self.recipe.optim.weight_decay
        return [
            {"params": params, "lr": lr, "base": lr, "weight_decay": decay if matrix else 0.0}
            for (lr, matrix, _), params in groups.items()
        ]

    def _rate(self, name: str) -> float:
        """Returns the learning rate of a parameter, by what its start is worth."""
        optim, (part, *_) = self.recipe.optim, name.split(".")
        pretrained = {
            "encoder": self.recipe.tune != "norm",  # norms are few and forgiving
            "tokenizers": part == "tokenizers" and self.model.tokenizer(name.split(".")[1]).native,
        }
        if pretrained.get(part, False):
            return optim.trunk_lr
        solved = part == "heads" and self.start_loss is not None and not self.fresh
        return optim.lr * GENTLE if solved or part == "adapters" else optim.lr

    def fit(self) -> Progress:
        """Trains to the end, leaves the best weights in the model and returns the history.

        Raises:
            UsageError: the loss is no longer finite.
        """
        self._share_start()
        self._resume()
        self.console.note(self.rule)
        if self.start_loss is not None and not self.progress.history:
            self._validate(train_loss=self.start_loss)
        total = self.total_steps - self.progress.step
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.console.bar("training, steps", total=total) as bar:
            self._begun, self._first_step = time.monotonic(), self.progress.step
            while self.progress.epoch < self.epochs and not (self.progress.step and self._time_is_up()):
                self._epoch(bar)
                train_loss = self.progress.loss_sum / max(1, self.progress.batch)
                self.progress.epoch, self.progress.batch, self.progress.loss_sum = self.progress.epoch + 1, 0, 0.0
                self._validate(train_loss=train_loss)
        self._load(self.progress.weights)
        self._publish()
        return self.progress

    def _epoch(self, bar: Bar) -> None:
        """Trains on the rest of the current epoch."""
        progress, recipe = self.progress, self.recipe
        self.taught.train()
        batches = self.train.epoch(
            batch_size=recipe.data.batch_size,
            seed=recipe.run.seed,
            epoch=progress.epoch,
            augment=recipe.data.augment,
            drop=recipe.data.drop_inputs if len(self.pipeline.route) > 1 else 0.0,
            place=self.place,
            skip=progress.batch,
        )
        with closing(batches):
            for _, batch in batches:
                loss = self._step(batch)
                progress.loss_sum += loss
                progress.step += 1
                progress.batch += 1
                bar.advance(status=f"epoch {progress.epoch + 1}, loss {loss:.3f}")
                self._foretell()
                if self._time_is_up():
                    return
                if self.run is not None and self._is_time_to_save():
                    self._save()

    def _is_time_to_save(self) -> bool:
        minutes = torch.tensor((time.monotonic() - self._saved) / 60)
        if self.parted:  # all write, so the clock of one counts
            dist.broadcast(minutes, src=0)
        return float(minutes) > self.recipe.run.checkpoint_minutes

    def _foretell(self) -> None:
        """Says after the first steps how long training will take, and how much memory."""
        steps = self.progress.step - self._first_step
        if steps == TOLD:
            self._told = time.monotonic()
        if steps != 2 * TOLD:
            return
        each = (time.monotonic() - self._told) / TOLD
        seconds = each * (self.total_steps - self.progress.step)
        if seconds > WORTH and not self.clock.limited:
            size = f", {memory_gb():.1f} GB of memory so far" if memory_gb() else ""
            plan = f"{self.epochs} epochs of {self.steps_per_epoch:,} steps"
            sooner = "" if any(task.kit for task in self.pipeline.tasks.values()) else "; --minutes N ends sooner"
            self.console.note(f"about {duration(seconds)} of training, {plan}{size}{sooner}")

    def _time_is_up(self) -> bool:
        """Returns whether training must end now, so that time is left for what comes after it."""
        return self.clock.limited and self._elapsed() >= 1

    def _elapsed(self) -> float:
        """Returns the share of the time for training that is gone: 1 when validation still fits in."""
        steps = max(1, self.progress.step - self._first_step)
        spent = time.monotonic() - self._begun
        # A step of training costs about three times as much as one of validation.
        validation = spent / steps / 3 * len(self.val) / self.recipe.data.batch_size
        left = self.clock.left(TRAINED) - min(validation, self.clock.seconds * VALIDATED)
        return spent / max(spent + left, 1e-9)

    def _step(self, batch: Batch) -> float:
        """Takes one optimiser step and returns the loss."""
        # Dropout, like order and augmentation, follows from seed, step and process: nothing has to be carried over.
        place = self.progress.step * self.place.world + self.place.rank
        torch.manual_seed(self.recipe.run.seed * 1_000_003 + place)
        factor = self._schedule(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            loss = self.objective.step(self.taught, batch.to(self.device)) * self._weight(batch)
        value = self._of_all(loss.detach().clone())
        if not math.isfinite(value):
            raise UsageError(
                f"training step {self.progress.step}",
                must="have a finite loss",
                found=str(value),
                do="Lower optim.lr, or set run.precision=float32.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share_gradients(self.learning.values(), self.place)
        (clip if self.parted else nn.utils.clip_grad_norm_)(self.learning.values(), CLIP)
        self.optimizer.step()
        self._update_average()
        return value

    def _share_start(self) -> None:
        # Each process has solved its head: one rounding error could choose another one.
        if self.place.world > 1:
            for tensor in (*self.model.heads.buffers(), *self.model.heads.parameters()):
                dist.broadcast(tensor.data, src=0)
            self.average = {name: p.detach().clone() for name, p in self.learning.items()}

    def _weight(self, batch: Batch) -> float:
        """Returns how much this process's part of a batch counts against the mean part."""
        return 1.0 if self.place.world == 1 else len(batch) / self._of_all(torch.tensor(float(len(batch))))

    def _of_all(self, value: Tensor) -> float:
        """Returns the mean of a value over all processes."""
        if self.place.world > 1:
            dist.all_reduce(value)
        return float(value) / self.place.world

    def _schedule(self, step: int) -> float:
        """Returns the factor on the learning rate: linear warm-up, then half a cosine to zero."""
        warm = max(1, round(WARMUP * self.total_steps))
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, self.total_steps - warm)
        if self.clock.limited:  # the rate ends at 0 when the time does
            done = min(1.0, max(done, self._elapsed()))
        return 0.5 * (1 + math.cos(math.pi * done))

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average follows closely at first: its start, the untrained weights, is worth nothing.
        step = self.progress.step
        decay = min(self.recipe.optim.average, (1 + step) / (10 + step))
        for name, parameter in self.learning.items():
            local(self.average[name]).lerp_(local(parameter.detach()), 1 - decay)

    def _validate(self, *, train_loss: float) -> None:
        """Scores the averaged weights, keeps the best, logs, and saves a checkpoint."""
        progress = self.progress
        self._shorten_validation()
        current = {name: p.detach().clone() for name, p in self.learning.items()}
        self._load(self.average)
        self._publish()
        line: dict[str, Any] = {"epoch": progress.epoch, "step": progress.step, "train_loss": train_loss}
        line["lr"] = self.optimizer.param_groups[0]["lr"]
        scores = self._scores()
        line |= {f"val_{name}": value for name, value in scores.items()}
        kept = progress.history[progress.kept] if progress.history else None
        value = scores[self.primary]
        better = progress.best is None or self._is_better(value, progress.best)
        progress.best = value if better else progress.best
        if keep := kept is None or self._takes_over(line, kept, better=better):
            progress.kept = len(progress.history)
            progress.weights = {name: t.clone() for name, t in self.average.items()}
        line["kept"] = keep
        progress.history.append(line)
        self._load(current)
        loss = f", log loss {line['val_log_loss']:.4f}" if "val_log_loss" in line else ""
        stays = "kept" if keep else f"epoch {progress.history[progress.kept]['epoch']} stays kept"
        self.console.note(
            f"epoch {progress.epoch}/{self.epochs}: training loss {line['train_loss']:.4f}, "
            f"validation {self.primary} {value:.4f}{loss}; {stays}"
        )
        if self.run is not None:
            self.run.log(line)
            progress.lines += 1
            self._save()

    def _shorten_validation(self) -> None:
        """Leaves as many validation samples as can be scored in their part of a limited time."""
        steps = self.progress.step - self._first_step
        if not self.clock.limited or not steps or self.progress.history:
            return
        each = (time.monotonic() - self._begun) / steps / 3 / self.recipe.data.batch_size
        most = max(FIRST, int(self.clock.seconds * VALIDATED / max(each, 1e-9)))
        if most < len(self.val):
            self.console.warn(f"{most:,} of {len(self.val):,} validation samples choose, for the time is short")
            self.val = self.val.part(range(most), tasks=self.val.tasks)

    def _scores(self) -> dict[str, float]:
        """Returns the scores of the one task; of several the scores of each, and the sum of their losses."""
        found: dict[str, float] = {}
        several = len(self.pipeline.tasks) > 1
        for name, task in self.pipeline.tasks.items():
            val = self.val.of_task(name)
            quiet = Console(quiet=True)
            outputs = shared_outputs(
                self.pipeline.of_task(name), val, place=self.place, console=quiet, title="validating"
            )
            scores = score_outputs(self.pipeline.of_task(name), val, outputs)
            found |= {f"{name}_{key}": value for key, value in scores.items()} if several else scores
            if several:
                assert val.target is not None
                loss = float(task.loss(outputs, val.target)) / self.units.get(name, 1.0)
                found[SUM] = found.get(SUM, 0.0) + loss
        if self.place.world > 1:  # one rounding error, and some would stop where others go on
            told = [found]
            dist.broadcast_object_list(told, src=0)
            (found,) = told
        return found

    @property
    def rule(self) -> str:
        """Which epoch is kept, in words."""
        if len(self.pipeline.tasks) > 1:
            return "of the epochs the one with the least sum of validation losses is kept"
        return rule(self.pipeline.task, what="epochs")

    @property
    def primary(self) -> str:
        """The score that chooses the epoch: of several tasks the sum of their losses."""
        return SUM if len(self.pipeline.tasks) > 1 else self.pipeline.task.primary

    def _is_better(self, value: float, best: float) -> bool:
        return value < best if len(self.pipeline.tasks) > 1 else self.pipeline.task.is_better(value, best)

    def _takes_over(self, line: dict[str, Any], kept: dict[str, Any], *, better: bool) -> bool:
        """Returns whether an epoch takes the place of the one that is kept.

        Of shares that the samples cannot tell from the best it is the one of least loss: a handful of answers that
        flipped would else throw epochs of training away. Of other scores it is the best.
        """
        if len(self.pipeline.tasks) > 1 or not by_loss(self.pipeline.task):
            return better
        name = f"val_{self.primary}"
        assert self.progress.best is not None
        enough = within_error(self.progress.best, samples=len(self.val))
        return kept[name] < enough or (line[name] >= enough and line["val_log_loss"] < kept["val_log_loss"])

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.learning.items():
            local(parameter).copy_(local(weights[name]))

    @torch.no_grad()
    def _publish(self) -> None:
        """Leaves in the model what a trunk in parts has learned."""
        for name, parameter in self.model.named_parameters() if self.parted else ():
            if name in self.learning:
                parameter.copy_(whole(self.learning[name]))

    def _save(self) -> None:
        assert self.run is not None
        self._saved = time.monotonic()
        if self.parted:
            folder, step = self.run.checkpoint.parent, self.progress.step
            save_parts(folder, self._parts(), step=step, place=self.place)
            return
        self.run.save_checkpoint(
            {
                "progress": vars(self.progress),
                "weights": {name: p.detach() for name, p in self.learning.items()},
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            }
        )
        if self.place.rank == 0:
            drop_parts(self.run.checkpoint.parent)  # of several processes, whose run this one took up

    def _parts(self) -> dict[str, Any]:
        """Returns the whole state of training by names, so that any number of processes can take it up."""
        moments = moments_of(self.optimizer, self.learning)
        progress = json.dumps({key: value for key, value in vars(self.progress).items() if key != "weights"})
        best = self.progress.weights or {name: tensor.clone() for name, tensor in self.average.items()}
        weights = {name: parameter.detach() for name, parameter in self.learning.items()}
        return {"progress": progress, "weights": weights, "average": self.average, "best": best, "moments": moments}

    def _resume(self) -> None:
        """Takes up the last checkpoint, if the run has one; of a trunk in parts also one of fewer or more processes."""
        if self.run is None:
            return
        state = self.run.load_checkpoint()
        parts = newest_parts(self.run.checkpoint.parent)
        if parts is not None:
            state = load_parts(parts, self._parts())
            self.progress = Progress(**json.loads(state["progress"]), weights=state["best"])
        elif state is not None:
            self._take(state)
        else:
            return
        self.run.rewind_log(self.progress.lines)
        self.console.note(f"continuing after epoch {self.progress.epoch}, step {self.progress.step}")

    def _take(self, state: dict[str, Any]) -> None:
        """Takes up the state that one process, or several with whole trunks, wrote."""
        if self.parted:
            must, do = "be of several processes", "Continue on one process, or start again with --overwrite."
            raise UsageError("the checkpoint of this run", must=must, found="one of a single process", do=do)
        self.progress = Progress(**state["progress"])
        self._load(state["weights"])
        self.average = {n: t.to(self.device) for n, t in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
