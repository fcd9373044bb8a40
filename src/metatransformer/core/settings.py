"""Settings: dataclasses built from plain values of a file or a command line, and their rules; errors name the key."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from metatransformer.core.errors import UsageError, nearest


def require(options: Any, *, rules: Mapping[str, tuple[bool, str]], key: str = "input.{}") -> None:
    """Raises UsageError for the first setting of ``options`` whose rule, ``(holds, must)`` by its name, is broken.

    ``key`` is what a setting is called in the message, with {} for its name.
    """
    for name, (holds, must) in rules.items():
        if not holds:
            raise UsageError(key.format(name), must=must, found=repr(getattr(options, name)))


def typed(kind: type, values: Any, *, prefix: str) -> Any:
    """Returns the dataclass ``kind`` built from nested plain values; ``prefix`` stands before every key in an error.

    Raises:
        UsageError: an unknown key (with the nearest valid one), or a value of the wrong type.
    """
    values = _known(kind, values, prefix=prefix)
    try:
        return pydantic.TypeAdapter(kind).validate_python(values)
    except pydantic.ValidationError as error:
        raise _refusal(kind, error, prefix=prefix) from error


def _refusal(kind: type, error: pydantic.ValidationError, *, prefix: str) -> UsageError:
    """Returns the error for the first wrong setting, with all that it may be."""
    problems = error.errors()
    cause = problems[0].get("ctx", {}).get("error")
    if isinstance(cause, UsageError):  # from the options' own check, which says it best
        return cause
    key = _key_of(kind, problems[0]["loc"])
    texts = [item["msg"] for item in problems if _key_of(kind, item["loc"]) == key]
    must = " or ".join(dict.fromkeys(text.removeprefix("Input should ") for text in texts))
    return UsageError(f"recipe key '{prefix}{key}'", must=must, found=repr(problems[0]["input"]))


def _key_of(kind: Any, location: Sequence[int | str]) -> str:
    """Returns the dotted key of a setting; what follows behind it (a position, one of several types) is left out."""
    parts: list[str] = []
    for part in location:
        if not dataclasses.is_dataclass(kind):
            break
        parts.append(str(part))
        kind = {item.name: item.type for item in dataclasses.fields(kind)}.get(str(part))
    return ".".join(parts)


def _known(kind: type[Any], values: Any, *, prefix: str) -> dict[str, Any]:
    """Returns the values, all of whose keys are settings; a number where a text belongs is a text: a column 2024."""
    if not isinstance(values, Mapping):
        raise UsageError(f"recipe section '{prefix.rstrip('.')}'", must="hold keys", found=repr(values))
    types: dict[str, Any] = {item.name: item.type for item in dataclasses.fields(kind)}
    found = dict(values)
    for key, value in values.items():
        if key not in types:
            known = [prefix + name for name in types]
            raise UsageError(
                f"recipe key '{prefix}{key}'",
                must="be a setting",
                found="no such one",
                do=nearest(prefix + key, known),
            )
        if dataclasses.is_dataclass(types[key]):
            found[key] = _known(types[key], value, prefix=f"{prefix}{key}.")
        elif types[key] is str and isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = str(value)
    return found
