"""What stands around the rows of a text table: comments before it, spaces instead of separators."""

import re

_SEPARATOR = re.compile(rb"(?:\xef\xbb\xbf)?sep=.\s*", re.IGNORECASE)
_MARKS = (b"\t", b",", b";", b"|")
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?|nan|inf", re.IGNORECASE)
_SPACES = re.compile(rb"[ \t]+")
_SPACES_OR_QUOTED = re.compile(rb'("[^"\n]*")|[ \t]+')
_HEAD = 20  # lines that decide


def before(data: bytes) -> int:
    """Returns how many bytes of comments and empty lines stand before a table.

    Comments begin with //, or with # where they have other fields than the line below (else they name its columns, as
    numpy writes it); a line sep=; names the separator.
    """
    lines = data[: 2**16].splitlines(keepends=True)
    for place, line in enumerate(lines[:-1]):
        bare = line.removeprefix(b"\xef\xbb\xbf").strip()
        following = next((other.strip() for other in lines[place + 1 :] if other.strip()), b"")
        comment = bare.startswith(b"//") or _SEPARATOR.fullmatch(line)
        if bare.startswith(b"#") and not following.startswith(b"#"):
            comment = _fields(bare, like=following) != _fields(following, like=following)
        if bare and not comment and not (bare.startswith(b"#") and following.startswith(b"#")):
            return sum(map(len, lines[:place]))
    return 0


def _fields(line: bytes, *, like: bytes) -> int:
    """Returns how many fields a line has under the separator of another, where that has one; else how many words."""
    mark = max(_MARKS, key=like.count)
    return 1 + line.count(mark) if mark in like else len(line.lstrip(b"# ").split())


def spaced_to_tabs(data: bytes) -> bytes:
    """Returns a table with runs of spaces between its columns, as Fortran and R print them, with tabs instead; another
    table as it is.
    """
    head = [line.strip() for line in data[: 2**16].splitlines()[: _HEAD + 1] if line.strip()][:_HEAD]
    if len(head) < 2 or any(mark in line for line in head for mark in _MARKS[1:]):
        return data
    rows = [_SPACES_OR_QUOTED.sub(lambda found: b"x" if found[1] else b" ", line).split() for line in head]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return data
    if any(b"\t" in line for line in head) and len({line.count(b"\t") for line in head}) == 1:
        return data
    if not any(_NUMBER.fullmatch(cell) for cell in rows[-1]):
        return data
    lines = data.splitlines()
    if b'"' not in data:
        return b"\n".join(_SPACES.sub(b"\t", line.strip()) for line in lines) + b"\n"
    return b"\n".join(_SPACES_OR_QUOTED.sub(lambda found: found[1] or b"\t", line.strip()) for line in lines) + b"\n"
