"""Fit of a dense task: a head is solved on drawn places of all samples, and answers for all places of each.

What chooses among heads are places of the validation split, drawn as they come; those of training are half drawn so,
half from every class of a sample alike, and weighed (``Places.importance``).
"""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from metatransformer.core.modality import Dense
from metatransformer.data.write import atomic_file
from metatransformer.fit.choose import Known
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted, refits, suffix_of
from metatransformer.fit.queries import fit_queries
from metatransformer.fit.solve import Lessons, choose_head, take
from metatransformer.infer.dense import Drawn, Keep, dense_task, draw_places, raw_view, write_answer
from metatransformer.infer.evaluate import Features, compute_outputs
from metatransformer.infer.kits import kit_of

SHOWN = 6  # samples of a split whose answers are painted


def fit_places(fitted: Fitted, context: Context) -> None:
    """Solves the head of the one task, keeps the best by the validation split, and leaves its answers to that split; or
    trains it, where it is not solved.
    """
    pipeline, task = fitted.pipeline, dense_task(fitted.pipeline)
    if not pipeline.head.solved:
        fit_queries(fitted, context)
        return
    drawn = {split: _drawn(fitted, split, context) for split in ("train", "val")}
    known, held_out = (Known(Features(part.features), part.target) for part in drawn.values())
    single = replace(fitted, pipeline=replace(pipeline, tasks={pipeline.task_name: task.places}))
    choice = choose_head(single, Lessons(known, held_out), context, by_split=True)
    take(pipeline, choice.head(single.pipeline, known))
    fitted.outputs["val"] = compute_outputs(
        pipeline,
        fitted.loaders["val"],
        console=context.console,
        title="scoring val",
        keep=keeping(fitted, "val", context),
    )
    if refits(pipeline):
        take(pipeline, choice.head(single.pipeline, known.with_more(held_out)))
        context.console.note("fitted again with this choice on train and val together")


def _drawn(fitted: Fitted, split: str, context: Context) -> Drawn:
    """Returns places of a split, from the run folder when a killed run left them there."""
    pipeline, most = fitted.pipeline, dense_task(fitted.pipeline).drawn
    path = None
    if context.run is not None and context.run.writes:
        path = context.run.checkpoint.parent / f"features-{pipeline.task_name}-{split}.pt"
    if path is not None and path.is_file():
        try:
            return Drawn(*torch.load(path, weights_only=True))
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, TypeError):
            context.console.note(f"{path} is damaged: computed again")
    loader = fitted.loaders[split]
    found = draw_places(
        pipeline,
        loader,
        most=most * len(loader) // len(fitted.loaders["train"]),  # as many of each sample
        balanced=split == "train",
        seed=pipeline.recipe.run.seed,
        console=context.console,
        title=f"features of places, {split}",
    )
    if path is not None:
        with atomic_file(path) as temporary:
            torch.save(tuple(found), temporary)
    return found


def keeping(fitted: Fitted, split: str, context: Context) -> Keep | None:
    """Returns what writes the answers to a split into the run folder, and paints some; None where nothing is kept."""
    if context.run is None or not context.run.writes:
        return None
    loader, folder = fitted.loaders[split], context.run.path
    suffix = suffix_of(fitted, fitted.pipeline.task_name)
    shown = set(np.linspace(0, len(loader) - 1, min(SHOWN, len(loader))).round().astype(int).tolist())

    def keep(row: int, numbers: np.ndarray) -> None:
        write_answer(fitted.pipeline, loader, row, numbers, folder=folder / f"masks{suffix}" / split)
        if row in shown:
            _paint(fitted, split, row, numbers, folder / f"pictures{suffix}" / split / f"{row:06}.png")

    return keep


def _paint(fitted: Fitted, split: str, row: int, numbers: np.ndarray, path: Path) -> None:
    """Writes a picture of a sample, its true classes and its answer side by side."""
    pipeline, loader = fitted.pipeline, fitted.loaders[split]
    dense, task, raw = kit_of(pipeline, Dense), dense_task(pipeline), raw_view(pipeline, loader, row)
    names, colours = task.legend
    truth = task.numbers(loader.examples.targets[pipeline.task_name][row])
    figure = Figure(figsize=(9.6, 3.2), layout="constrained", dpi=180)
    nothing = np.full_like(numbers, -1)
    for axes, (title, shown) in zip(
        figure.subplots(1, 3), (("sample", nothing), ("truth", truth), ("answer", numbers)), strict=True
    ):
        dense.paint(axes, raw, shown, colours)
        axes.set_title(title, fontsize=8)
    there = np.union1d(truth[truth >= 0], numbers)
    handles = [Patch(color="#{:02x}{:02x}{:02x}".format(*colours[one]), label=names[one]) for one in there]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), fontsize=7, frameon=False)
    figure.suptitle(loader.examples.keys[row], fontsize=8, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)
