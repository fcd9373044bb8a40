"""The commands that give a model away: ``export``, ``push``, ``pull``."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from metatransformer.core.errors import UsageError
from metatransformer.machine.console import Console
from metatransformer.saved import load_pipeline

Result = tuple[dict[str, Any], int]


def export(options: Namespace) -> Result:
    """Writes a model as a folder that predicts without this package."""
    from metatransformer.export.folder import export_model, made_up, require_free
    from metatransformer.export.formats import require_format
    from metatransformer.fit.run import source_of
    from metatransformer.infer.joined import read_told

    console, run, out = Console(), Path(options.run), Path(options.out)
    require_format(options.format)
    require_free(out)
    pipeline = load_pipeline(run, encoder=options.encoder, device="cpu").asked(options.task)
    if not pipeline.tasks:
        raise UsageError(f"export {run}", must="have a task", found="one that only embeds", do="Use 'embed'.")
    if len(pipeline.tasks) > 1 and not options.task:
        must = f"name one of the model's tasks: {', '.join(pipeline.tasks)}"
        raise UsageError("export RUN --task", must=must, found="none")
    pipeline = pipeline.of_task(options.task or pipeline.task_name)
    data = options.data or source_of(run)
    if data and (options.data or Path(data).exists()):
        console.note(f"compared on samples of {data}")
        examples = read_told(data, pipeline.recipe, labelled=False, console=console).examples
    else:
        examples = made_up(pipeline)
        console.note("compared on made-up samples, for the data of the run is not here")
    return export_model(pipeline, examples, out, kind=options.format, run=run, console=console), 0


def push(options: Namespace) -> Result:
    """Uploads a model to the Hub."""
    from metatransformer.export.hub import push_model

    pipeline = load_pipeline(Path(options.run), encoder=options.encoder, device="cpu")
    told = push_model(
        pipeline,
        Path(options.run),
        options.repository,
        private=options.private,
        with_samples=options.with_samples,
        console=Console(),
    )
    return told, 0


def pull(options: Namespace) -> Result:
    """Downloads a model from the Hub."""
    from metatransformer.export.hub import pull_model

    return pull_model(options.repository, Path(options.out), console=Console()), 0
