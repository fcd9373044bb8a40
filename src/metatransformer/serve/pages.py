"""What the interface says of itself: examples of every route, and a page of them that loads nothing from elsewhere."""

import html
import json
from collections.abc import Mapping
from typing import Any

ABOUT = """\
Samples come as files (multipart/form-data) or as JSON. A sample in JSON is a text, an object of columns, numbers in
nested lists, or a file: {"base64": TEXT, "name": NAME}, in a form {"file": NAME}, and {"url": URL} where the server
allows it. A model may be left unnamed where there is one. What cannot be answered is told as
{"error": {"message": ..., "type": ..., "code": ...}}; 503 says with Retry-After when to come again.
"""

HEALTH = {"status": "ok", "models": 1, "sandbox": True}
MODELS = {
    "models": [
        {
            "name": "photos",
            "kind": "model",
            "inputs": {"image": {"modality": "image", "columns": []}},
            "tasks": {"classify": {"kind": "classify", "metric": "accuracy", "classes": ["cat", "dog"]}},
            "width": 768,
            "pool": "features",
            "encoder": "focus-s14",
            "licence": "Apache-2.0",
        }
    ]
}  # fmt: skip
MODALITIES = {
    "modalities": [
        {
            "name": "image",
            "title": "Image",
            "summary": "photographs and other pictures",
            "units": "8 or 16 bits",
            "suffixes": [".jpg", ".png"],
            "takes": ["files", "arrays"],
            "models": ["photos"],
        }
    ]
}
_ONE = {"base64": "iVBORw0KGgo...", "name": "x.png"}
PREDICT = {
    "pictures": {"model": "photos", "inputs": [_ONE]},
    "texts": {"model": "reviews", "inputs": ["a fine film", "dull"]},
    "rows of a table": {"model": "people", "rows": [{"age": 37, "job": "nurse"}, {"age": None, "job": "cook"}]},
    "several inputs": {"model": "homes", "inputs": [{"front": _ONE, "area": 120, "rooms": 4}]},
    "series": {"model": "load", "rows": [{"time": "2026-01-01 00:00", "load": 41.5}]},
}
PREDICTED = {
    "model": "photos",
    "predictions": [
        {"key": "x.png", "task": "classify", "prediction": "cat", "probabilities": {"cat": 0.93, "dog": 0.07}}
    ],
    "notes": [],
}
EXPLAIN = {
    "a text": {"model": "reviews", "inputs": ["a fine film"], "places": 64},
    "another answer": {"model": "photos", "inputs": [_ONE], "answer": "dog"},
}
EXPLAINED = {
    "model": "reviews",
    "key": "0",
    "task": "classify",
    "answer": "good",
    "unit": "log odds of good",
    "score": 2.1,
    "copies": 4,
    "control": None,
    "inputs": {
        "text": {
            "modality": "text",
            "absent": None,
            "covered": "nothing: blotted out",
            "grid": [],
            "places": [{"place": "fine", "value": 1.7, "text": 0, "begin": 2, "end": 6}],
        }
    },
    "picture": "iVBORw0KGgo...",
}
EMBED = {
    "texts": {"model": "reviews", "input": ["a fine film"], "encoding_format": "float"},
    "pictures": {"modality": "image", "input": [_ONE], "encoding_format": "base64", "dimensions": 256},
}
EMBEDDED = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.12, -0.4]}],
    "model": "photos",
    "usage": {"prompt_tokens": 257, "total_tokens": 257},
}
NEAR = {"pictures": {"inputs": [_ONE], "k": 3}}
NEIGHBOURS = {
    "index": 20000,
    "neighbours": [{"query": "x.png", "rank": 1, "id": "cats/17.jpg", "similarity": 0.91}],
}
_FORM = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "inputs": {"type": "string", "description": 'JSON, where {"file": NAME} is one of the files'},
        "rows": {"type": "string", "description": "JSON: rows of one table"},
    },
}
_WRONG = {
    400: "no JSON, or a damaged form",
    401: "the token is missing or another one",
    404: "no such model",
    408: "the request did not come whole in time",
    413: "too many bytes",
    415: "neither JSON nor a form",
    422: "samples that cannot be read; the message says which, and what to do",
    503: "as many requests as the server takes; see Retry-After",
}


def example(content: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Returns FastAPI's ``responses`` with one example."""
    return {200: {"content": {"application/json": {"example": content}}}}


def taking(requests: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what FastAPI is told of a route that takes samples."""
    examples = {name: {"value": value} for name, value in requests.items()}
    content = {
        "application/json": {"schema": {"type": "object"}, "examples": examples},
        "multipart/form-data": {"schema": _FORM},
    }
    wrong = {status: {"description": text} for status, text in _WRONG.items()}
    return {
        "responses": {**example(answer), **wrong},
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def docs(schema: Mapping[str, Any]) -> str:
    """Returns a page of all routes and their examples."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(route.get('summary', ''))}</p>")
            content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
            for name, one in content.get("examples", {}).items():
                parts.append(f"<h3>{html.escape(name)}</h3>{_code(one['value'])}")
            answer = route.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
            if "example" in answer:
                parts.append(f"<h3>answer</h3>{_code(answer['example'])}")
    about = html.escape(str(schema["info"].get("description", "")))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>metatransformer</title>'
        '<meta name="viewport" content="width=device-width"></head><body><h1>metatransformer</h1>'
        f'<p>{about}</p><p><a href="/openapi.json">openapi.json</a></p>{"".join(parts)}</body></html>'
    )


def _code(value: Any) -> str:
    return f"<pre>{html.escape(json.dumps(value, indent=1))}</pre>"
