"""What a client is told when a request cannot be answered: one shape for every route."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class Problem(Exception):
    """A request that is not answered: its HTTP ``status``, a ``message`` for a person, and a ``kind`` for a program."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.headers = status, message, kind, dict(headers)

    def body(self) -> dict[str, Any]:
        """Returns what is sent."""
        return {"error": {"message": self.message, "type": self.kind, "code": self.status}}


def too_large(most: int) -> Problem:
    """Returns the problem of a body of more than ``most`` bytes."""
    return Problem(413, f"the request: must have at most {most:,} bytes; found more. Send less at once.")
