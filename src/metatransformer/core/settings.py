"""Settings: dataclasses built from plain values of a file or a command line, and their rules; errors name the key."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import pydantic

from metatransformer.core.errors import UsageError, nearest


class Rule(NamedTuple):
    """What a setting must be beside its type: ``must`` completes "NAME must ...", ``holds`` is asked of all settings,
    so that one may depend on another.
    """

    name: str
    must: str
    holds: Callable[[Any], bool]


class Settings:
    """The base of frozen dataclasses of settings that obey ``rules``; ``key`` is what one is called in a message."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    key: ClassVar[str] = "input.{}"

    def __post_init__(self) -> None:
        """Raises UsageError for the first setting whose rule is broken."""
        for name, must, holds in self.rules:
            if not holds(self):
                raise UsageError(self.key.format(name), must=must, found=repr(getattr(self, name)))


def typed(kind: type[Any], values: Any, *, prefix: str) -> Any:
    """Returns the dataclass ``kind`` built from nested plain values; ``prefix`` stands before every key in an error.

    Raises:
        UsageError: an unknown key (with the nearest valid one), or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"recipe section '{prefix.rstrip('.')}'", must="hold keys", found=repr(values))
    types: dict[str, Any] = {item.name: item.type for item in dataclasses.fields(kind)}
    found = dict(values)
    for key, value in values.items():
        if key not in types:
            do = nearest(f"{prefix}{key}", [prefix + name for name in types])
            raise UsageError(f"recipe key '{prefix}{key}'", must="be a setting", found="no such one", do=do)
        if dataclasses.is_dataclass(types[key]) and not isinstance(value, types[key]):
            found[key] = typed(types[key], value, prefix=f"{prefix}{key}.")
        elif types[key] is str and isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = str(value)  # a number where a text belongs is a text: a column 2024
    try:
        return pydantic.TypeAdapter(kind).validate_python(found)
    except pydantic.ValidationError as error:
        raise _refusal(error, prefix=prefix) from error


def _refusal(error: pydantic.ValidationError, *, prefix: str) -> UsageError:
    """Returns the error for the first wrong setting, with all that it may be."""
    problems = error.errors()
    cause = problems[0].get("ctx", {}).get("error")
    if isinstance(cause, UsageError):  # from a rule of the settings, which says it best
        return cause
    # What stands behind the setting's name is a position, or one of several types.
    key = problems[0]["loc"][0]
    texts = [item["msg"] for item in problems if item["loc"][0] == key]
    must = " or ".join(dict.fromkeys(text.removeprefix("Input should ") for text in texts))
    return UsageError(f"recipe key '{prefix}{key}'", must=must, found=repr(problems[0]["input"]))
