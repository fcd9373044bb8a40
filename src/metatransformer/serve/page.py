"""The page: choose a model, hand in a sample, and see the answer, what it rests on, and what is near.

Three plain files of this package, which load nothing from elsewhere.
"""

import base64
from dataclasses import replace
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from metatransformer.infer.explain import Covered, Explanation, require_explained
from metatransformer.pipeline import Pipeline
from metatransformer.serve.examples import example_of
from metatransformer.serve.hosted import Hosted, chosen

PLACES = 64  # of a sample, unless a request says another number
MOST_PLACES = 256
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def add_page(app: FastAPI) -> None:
    """Adds the page and what only it asks for."""
    for path, (name, kind) in FILES.items():
        _add_file(app, path, name, kind)

    @app.get("/example", include_in_schema=False)
    def example(request: Request, model: str = "") -> dict[str, Any]:
        one = chosen(request.app.state.server.hosted, model=model, modality="", trained=True)
        return {"inputs": {name: example_of(one, name) for name in one.pipeline.recipe.inputs}}


def _add_file(app: FastAPI, path: str, name: str, kind: str) -> None:
    content = resources.files("metatransformer.serve").joinpath(name).read_bytes()

    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})


def explainable(hosted: Hosted, task: str) -> Pipeline:
    """Returns a model as one of a task, the first unless one is named, whose answers can be explained.

    Raises:
        UsageError: there is no such task, or nothing can be told of its answers.
    """
    pipeline = hosted.pipeline.asked(task)
    pipeline = pipeline.of_task(task or next(iter(pipeline.tasks)))
    require_explained(pipeline)
    return pipeline


def at_home(covered: Covered, pipeline: Pipeline) -> Covered:
    """Returns what the process that reads has covered, with our own transforms instead of its copies."""
    seen = {name: one._replace(transform=pipeline.route[name].transform) for name, one in covered.seen.items()}
    return replace(covered, seen=seen)


def told(found: Explanation) -> dict[str, Any]:
    """Returns an explanation as JSON values, the picture in base64."""
    return {**found.to_dict(), "picture": base64.b64encode(found.png()).decode("ascii")}
