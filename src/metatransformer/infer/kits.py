"""What tasks whose answers are of parts of a sample need: of their one input, and of the settings."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Kit
from metatransformer.core.tokens import Tokens
from metatransformer.nn.queries import QueryHead
from metatransformer.pipeline import Pipeline

OneKit = TypeVar("OneKit", bound=Kit)

# What is done with the tokens of a batch: its keys, [B, h, w, K], which of them are real [B, h, w], and each sample's
# height and width in pixels.
Take = Callable[[Sequence[str], Tensor, Tensor, Sequence[tuple[int, int]]], Tensor]


def kit_of(pipeline: Pipeline, kind: type[OneKit]) -> OneKit:
    """Returns what the one input of the one task has for it.

    Raises:
        UsageError: its modality has nothing, or the task sees several.
    """
    (name, *others) = pipeline.recipe.inputs_of(pipeline.task_name)
    modality = pipeline.route[name].modality
    kit = modality.kit(pipeline.task.kit)
    if others or not isinstance(kit, kind):
        found = f"{modality.name}{' and others' if others else ''}"
        must = f"see one input whose samples have what '{pipeline.task.name}' answers for"
        raise UsageError("the task", must=must, found=found, do="See 'metatransformer modalities'.")
    return kit


def require_one_row(tokens: Tokens) -> None:
    """Raises UsageError where samples have several rows of tokens, as those that are read mirrored too."""
    if tokens.samples is not None:
        must, do = "have one row of tokens a sample for this task", "Set input.mirrored=false."
        raise UsageError("the input", must=must, found="several", do=do)


def require_parts(pipeline: Pipeline) -> None:
    """Raises UsageError for settings under which a task for parts of samples cannot be fitted."""
    recipe, solved = pipeline.recipe, pipeline.head.solved
    kit_of(pipeline, Kit)
    for key, must, found, fine in (
        ("tune", "be 'head'", recipe.tune, recipe.tune == "head"),
        ("head.readout", "be 'dense'", recipe.head.readout, recipe.head.readout == "dense"),
        ("head.features", "be 'trunk'", recipe.head.features, recipe.head.features == "trunk"),
        ("head.centres", "be 0", str(recipe.head.centres), solved or recipe.head.centres == 0),
        ("run.minutes", "be 0", f"{recipe.run.minutes:g}", recipe.run.minutes == 0),
        ("optim.folds", "be 'auto' or 0", str(recipe.optim.folds), recipe.optim.folds in ("auto", 0)),
    ):
        if not fine:
            must = f"{must} for the task '{pipeline.task.name}'" + ", whose head is trained" * (key == "head.centres")
            raise UsageError(f"recipe key '{key}'", must=must, found=found)
    readout = pipeline.head.readout
    if isinstance(pipeline.head, QueryHead) and (readout.direct or [*readout.facts.axes.values()] != [2]):
        must, do = "be 'solved' but for pictures, whose tokens lie on a grid", "Leave task.decoder alone."
        raise UsageError("recipe key 'task.decoder'", must=must, found="'queries'", do=do)
