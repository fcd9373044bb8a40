"""Contrastive pretraining of two towers: AdamW with warm-up and cosine, exact resume, retrieval as validation.

Runs on one process or under ``torchrun``: each process reads and computes its share of every batch, sees the vectors of
all others, and holds its part of both towers (FSDP2). What a step does follows from seed and step alone.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Stem
from metatransformer.fit.sharding import (
    clip,
    drop_parts,
    load_parts,
    local,
    moments_of,
    newest_parts,
    save_parts,
    share_gradients,
    share_out,
    whole,
)
from metatransformer.fit.train import join_processes, wait_for_all
from metatransformer.infer.loader import Place
from metatransformer.machine.clock import duration, memory_gb
from metatransformer.machine.console import Bar, Console
from metatransformer.machine.device import choose_device, choose_precision
from metatransformer.pairs.batches import Batches, PairBatch, Reader
from metatransformer.pairs.files import save_towers
from metatransformer.pairs.losses import contrast
from metatransformer.pairs.options import PretrainOptions
from metatransformer.pairs.page import write_page
from metatransformer.pairs.read import Pairs, Wanted, read_pairs
from metatransformer.pairs.recall import both_ways, chance_both_ways
from metatransformer.pairs.run import PairsRun
from metatransformer.pairs.scans import FOLDER, Scans
from metatransformer.pairs.towers import MOST_SCALE, TextConfig, Towers, VisionConfig, draw_towers
from metatransformer.pairs.words import Words, choose_words
from metatransformer.trunk.catalog import CLIP
from metatransformer.trunk.encoder import EncoderConfig

NAMES = ("image", "text")
LEARNED_FROM = 200_000  # texts that a vocabulary is learned from, at most, evenly spaced
LINES = 1000  # of a log, at most: it holds means over steps
HELD_BATCH = 64
TOLD = 10  # steps after which the time that is left is told
LICENCE = "that of the pairs it was trained on"
Check = Callable[[Towers, Words], Mapping[str, float]]  # more figures of a validation


@dataclass
class Progress:
    """How far a pretraining got; everything here is in the checkpoint."""

    step: int = 0
    lines: int = 0
    losses: list[float] = field(default_factory=list)  # since the last line of the log
    history: list[dict[str, Any]] = field(default_factory=list)


class Pretrainer:
    """Trains towers, which ``draw`` begins, on batches; ``held`` are pairs that validate, None where none are."""

    def __init__(
        self,
        draw: Callable[[], Towers],
        train: Reader,
        held: Reader | None,
        options: PretrainOptions,
        *,
        run: PairsRun | None,
        place: Place,
        console: Console,
        check: Check | None = None,
    ) -> None:
        self.options, self.run, self.place, self.console, self.check = options, run, place, console, check
        self.device = choose_device(options.device)
        self.precision = choose_precision(options.precision, device=self.device)
        self.draw, self.towers = draw, draw().to(self.device).train()
        if place.world > 1:
            for tower in (self.towers.vision, self.towers.text):
                share_out(tower, tower.trunk.blocks, device=self.device, place=place)
        self.batches, self.held = Batches(train, options, place=place), held
        self.learning = dict(self.towers.named_parameters())
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {(matrix, False): [] for matrix in (True, False)}
        for p in self.learning.values():  # foreach takes tensors of one kind
            groups.setdefault((p.ndim >= 2, isinstance(p, DTensor)), []).append(p)
        given = [
            {"params": group, "weight_decay": options.weight_decay if matrix else 0.0}
            for (matrix, _), group in groups.items()
            if group
        ]
        self.optimizer = torch.optim.AdamW(given, betas=(options.beta1, options.beta2), eps=options.eps, lr=options.lr)
        self.average = {n: p.detach().clone() for n, p in self.learning.items()} if options.ema else {}
        self.progress, self.every = Progress(), max(1, math.ceil(options.steps / LINES))

    def fit(self) -> Progress:
        """Trains to the end; the first process's towers are then whole, and hold what is to be saved: the averaged
        weights, if there are any.

        Raises:
            UsageError: the loss is no longer finite.
        """
        self._resume()
        first, begun = self.progress.step, time.monotonic()
        saved, since = begun, begun
        with self.console.bar("pretraining, steps", total=self.options.steps - first) as bar:
            for batch in self.batches.from_step(first):
                self._step(batch.to(self.device), bar)
                step, now = self.progress.step, time.monotonic()
                if step % self.every == 0 or self._validates(step):
                    self._log(seconds=(now - since) / len(self.progress.losses))
                    since = time.monotonic()
                if step - first == TOLD:
                    self._foretell((now - begun) / TOLD)
                if self._validates(step) or (now - saved) / 60 > self.options.save_minutes:
                    self._save()
                    saved = time.monotonic()
        self._load(self.average)
        if self.place.world > 1:
            self._gather()
        return self.progress

    def _gather(self) -> None:
        towers = self.draw().to(self.device) if self.place.rank == 0 else None
        with torch.no_grad():
            for name, part in self.towers.state_dict().items():
                tensor = whole(part)  # of one at a time, and every process must ask
                if towers is not None:
                    towers.state_dict()[name].copy_(tensor)
        if towers is not None:
            self.towers = towers

    def _validates(self, step: int) -> bool:
        return step % self.options.validate == 0 or step == self.options.steps

    def _step(self, batch: PairBatch, bar: Bar) -> None:
        """Takes one optimiser step."""
        options, towers = self.options, self.towers
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.progress.step)
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            left = towers.of_pictures(batch.pixels, kept=batch.kept, saving=options.checkpointing)
            right = towers.of_texts(batch.ids, saving=options.checkpointing)
        loss = contrast(
            left,
            right,
            kind=options.loss,
            scale=towers.scale,
            bias=towers.bias,
            labels=batch.labels,
            chunk=options.chunk,
            place=self.place,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share_gradients(self.learning.values(), self.place)
        value = self._mean(loss.detach())
        if not math.isfinite(value):
            do = "Lower lr, or set precision=float32."
            raise UsageError(f"step {self.progress.step}", must="have a finite loss", found=str(value), do=do)
        if options.clip:
            (clip if self.place.world > 1 else nn.utils.clip_grad_norm_)(self.learning.values(), options.clip)
        self.optimizer.step()
        with torch.no_grad():
            towers.log_scale.clamp_(max=math.log(MOST_SCALE))
            decay = min(options.ema, (1 + self.progress.step) / (10 + self.progress.step))
            for name, average in self.average.items():
                local(average).lerp_(local(self.learning[name].detach()), 1 - decay)
        self.progress.step += 1
        self.progress.losses.append(value)
        bar.advance(status=f"loss {value:.3f}")

    def _mean(self, loss: Tensor) -> float:
        """Returns the loss of the whole batch."""
        if self.place.world > 1:
            dist.all_reduce(loss)
        return loss.item() / self.place.world

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step: linear warm-up, then half a cosine to zero."""
        options = self.options
        if step < options.warmup:
            return options.lr * (step + 1) / options.warmup
        done = (step - options.warmup) / max(1, options.steps - options.warmup)
        return options.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _foretell(self, each: float) -> None:
        left = duration(each * (self.options.steps - self.progress.step))
        size = f", {memory_gb():.1f} GB of memory so far" if memory_gb() else ""
        rate = self.options.batch / each
        self.console.note(f"about {left} for {self.options.steps:,} steps, {rate:,.0f} pairs a second{size}")

    def _log(self, *, seconds: float) -> None:
        """Adds a line to the log: mean loss since the last one and, where it is time, what validation says."""
        progress = self.progress
        line: dict[str, Any] = {"step": progress.step, "loss": sum(progress.losses) / len(progress.losses)}
        line |= {"lr": self.rate(progress.step - 1), "scale": self.towers.scale.item()}
        line["pairs_per_second"] = self.options.batch / seconds
        if self._validates(progress.step):
            line |= self._validate()
            told = ", ".join(
                f"{name} {value:.3f}" for name, value in line.items() if name.endswith(("R@1", "accuracy"))
            )
            self.console.note(f"step {progress.step:,}/{self.options.steps:,}: loss {line['loss']:.4f}, {told}")
        progress.losses = []
        progress.history.append(line)
        progress.lines += 1
        if self.run is not None:
            self.run.log(line)

    def _validate(self) -> dict[str, float]:
        """Returns retrieval among held-out pairs and other checks, by the weights that would be saved now.

        Every process computes all of it, for each has only a part of the towers.
        """
        current = {name: p.detach().clone() for name, p in self.learning.items()} if self.average else {}
        self._load(self.average)
        self.towers.eval()
        found = {} if self.held is None else self.retrieval(self.held)
        found |= {} if self.check is None else self.check(self.towers, self.batches.reader.words)
        self.towers.train()
        self._load(current)
        return found

    @torch.no_grad()
    def retrieval(self, held: Reader) -> dict[str, float]:
        """Returns R@k among held-out pairs, both ways."""
        left, right, labels = self.vectors(held)
        return both_ways(left, right, labels, names=NAMES)

    @torch.no_grad()
    def vectors(self, held: Reader) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the vectors of held-out pictures and texts, and the labels of their pairs."""
        left, right = [], []
        for pixels, texts in held.whole(self.options.size, batch=HELD_BATCH):
            left.append(self.towers.of_pictures(pixels.to(self.device)).cpu())
            right.append(self.towers.of_texts(held.numbers(texts).to(self.device)).cpu())
        return torch.cat(left), torch.cat(right), torch.from_numpy(held.pairs.label)

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in weights.items():
            local(self.learning[name]).copy_(local(tensor))

    def _save(self) -> None:
        if self.run is None:
            return
        folder = self.run.checkpoint.parent
        if self.place.world > 1:
            save_parts(folder, self._parts(), step=self.progress.step, place=self.place)
            return
        weights = {name: p.detach() for name, p in self.learning.items()}
        state = {"progress": vars(self.progress), "weights": weights, "average": self.average}
        self.run.save_checkpoint({**state, "optimizer": self.optimizer.state_dict()})
        drop_parts(folder)  # of several processes, whose run this one took up

    def _parts(self) -> dict[str, Any]:
        """Returns the whole state of training by names, so that any number of processes can take it up."""
        weights = {name: p.detach() for name, p in self.learning.items()}
        moments = moments_of(self.optimizer, self.learning)
        return {
            "progress": json.dumps(vars(self.progress)),
            "weights": weights,
            "average": self.average,
            "moments": moments,
        }

    def _resume(self) -> None:
        """Takes up the last checkpoint, if the run has one; of several processes also one of fewer or more."""
        if self.run is None:
            return
        state, parts = self.run.load_checkpoint(), newest_parts(self.run.checkpoint.parent)
        if parts is not None:
            self.progress = Progress(**json.loads(load_parts(parts, self._parts())["progress"]))
        elif state is not None:
            self._take(state)
        else:
            return
        self.run.rewind_log(self.progress.lines)
        self.console.note(f"continuing after step {self.progress.step:,}")

    def _take(self, state: Mapping[str, Any]) -> None:
        """Takes up the state that one process wrote."""
        if self.place.world > 1:
            must, do = "be of several processes", "Continue on one process, or start again with --overwrite."
            raise UsageError("the checkpoint of this run", must=must, found="one of a single process", do=do)
        self.progress = Progress(**state["progress"])
        self._load(state["weights"])
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])


def pretrain(
    place: str, out: Path, options: PretrainOptions, *, val: str = "", overwrite: bool, console: Console
) -> dict[str, Any]:
    """Trains towers on the pairs at ``place``, writes the run folder, and returns what a program wants to know.

    Raises:
        DataError, UsageError: what reading pairs and the run folder refuse, or fewer pairs than fill a batch.
    """
    ours = join_processes()
    if options.batch % ours.world:
        raise UsageError("batch", must=f"be a multiple of the {ours.world} processes", found=str(options.batch))
    check = _zero_shot_check(options) if options.zero_shot else None  # refused before the work
    run = PairsRun(out, kind="pretrain", place=ours)
    run.claim(overwrite=overwrite)  # refused before the work, too
    learned, held = _pairs(place, val, options, Scans(out / FOLDER), ours, console)
    settings, identity = dataclasses.asdict(options), learned.identity() + (held.identity() if len(held) else "")
    source = str(Path(place).absolute())
    if run.start(settings, identity=identity, source=source, overwrite=overwrite):
        console.note(f"an unfinished run is in {out}")
    words = choose_words(options.vocabulary, _texts(learned), size=options.vocabulary_size, context=options.context)
    pixels = Stem(mean=CLIP[0], std=CLIP[1])
    draw = partial(draw_towers, *configs(options, words), pixels=pixels, loss=options.loss, seed=options.seed)
    readers = [Reader(part, words, workers=options.workers) for part in (learned, held)]
    trainer = Pretrainer(
        draw,
        readers[0],
        readers[1] if len(held) else None,
        options,
        run=run,
        place=ours,
        console=console,
        check=check,
    )
    try:
        progress = trainer.fit()
        _tell_each_other(readers[0], ours)
        told = _finish(trainer, readers, progress, run, words, console) if ours.rank == 0 else {}
    finally:
        for reader in readers:
            reader.close()
    wait_for_all(ours)
    return told


def _tell_each_other(reader: Reader, place: Place) -> None:
    """Lets every process know what the others could not read, and how many texts they cut."""
    if place.world == 1:
        return
    told: list[Any] = [None] * place.world
    dist.all_gather_object(told, (reader.broken, reader.cut, reader.texts))
    for broken, _, _ in told:
        reader.broken |= broken
    reader.cut, reader.texts = sum(cut for _, cut, _ in told), sum(texts for _, _, texts in told)


def _pairs(
    place: str, val: str, options: PretrainOptions, scans: Scans, ours: Place, console: Console
) -> tuple[Pairs, Pairs]:
    """Returns pairs to learn from and held-out ones, and says what was left out."""
    wanted = Wanted(**{item.name: getattr(options, item.name) for item in dataclasses.fields(Wanted)})
    read = partial(read_pairs, workers=options.workers, scans=scans, first=ours.rank / ours.world)
    found = read(place, wanted)
    told = [f"{count:,} {name}" for name, count in found.left_out.items()]
    told += [f"{len(found.broken):,} broken (as {found.broken[0]})"] if found.broken else []
    console.note(f"{len(found):,} pairs" + (f"; left out: {', '.join(told)}" if told else ""))
    learned, held = found.apart(0.0 if val else options.held_out, options.most_held_out)
    if val:
        held = read(val, dataclasses.replace(wanted, duplicates="all"))
    if scans.found:
        console.note(f"{scans.found:,} shards are as an earlier start found them")
    if scans.full:
        console.warn(f"no room for more of {scans.folder}: a later start will look through the other shards again")
    if ours.rank == 0:
        scans.clean()
    if len(learned) < options.batch:
        do = "Set a smaller batch."
        raise UsageError("batch", must=f"be at most the {len(learned):,} pairs", found=f"{options.batch:,}", do=do)
    return learned, held


def _texts(pairs: Pairs) -> Sequence[str]:
    """Returns at most 200,000 texts, evenly spaced."""
    count = len(pairs)
    rows = range(0, count, max(1, math.ceil(count / LEARNED_FROM)))
    return [pairs.read(row)[1] for row in rows]


def configs(options: PretrainOptions, words: Words) -> tuple[VisionConfig, TextConfig]:
    """Returns the towers that the settings ask for."""
    seen = EncoderConfig(options.width, options.depth, options.heads, 4 * options.width, eps=1e-5, pre_norm=True)
    read = EncoderConfig(options.text_width, options.text_depth, options.text_heads, 4 * options.text_width, eps=1e-5)
    text = TextConfig(read, words.count, options.context, options.outputs, words.end, options.causal)
    return VisionConfig(seen, options.patch, options.size, options.outputs), text


def _zero_shot_check(options: PretrainOptions) -> Check:
    from metatransformer.pairs.zero_shot import folder_check

    return folder_check(Path(options.zero_shot), size=options.size)


def _finish(
    trainer: Pretrainer,
    readers: Sequence[Reader],
    progress: Progress,
    run: PairsRun,
    words: Words,
    console: Console,
) -> dict[str, Any]:
    """Writes towers, report and figures; returns what a program wants to know."""
    towers, (learned, held) = trainer.towers.eval(), readers
    sha256, fingerprint = save_towers(run.path, towers, words, licence=LICENCE)
    metrics = {k: v for k, v in progress.history[-1].items() if isinstance(v, float)}
    told: dict[str, Any] = {"run": str(run.path), "steps": progress.step, "metrics": metrics}
    told |= {"pairs": len(learned.pairs), "held_out": len(held.pairs), "broken": len(learned.broken) + len(held.broken)}
    told |= {"left_out": dict(learned.pairs.left_out), "broken_beforehand": len(learned.pairs.broken)}
    if len(held.pairs):
        told["chance"] = chance_both_ways(torch.from_numpy(held.pairs.label), names=NAMES)
    for words_of, reader in (("training", learned), ("held-out", held)):
        if reader.broken:
            first = next(iter(reader.broken.values()))
            console.warn(
                f"{len(reader.broken):,} {words_of} pictures could not be read, others took their place: {first}"
            )
    if learned.cut:
        console.warn(f"{learned.cut / learned.texts:.1%} of the texts were longer than context={words.context} and cut")
    told["cut"] = learned.cut / max(1, learned.texts)
    write_page(run, told, trainer, held if len(held.pairs) else None, fingerprint=fingerprint, sha256=sha256)
    run.finish(told)
    shutil.rmtree(run.path / FOLDER, ignore_errors=True)  # a finished run is not started again
    console.note(f"run folder: {run.path} (report.html); use it with --encoder {run.path}/")
    return told
