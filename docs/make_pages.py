"""Remakes docs/modalities/*.md and docs/tasks/*.md in place: runs each command and program there, and pastes what it
printed.

    python docs/make_pages.py --data DATA [NAME ...]

DATA holds the data sets as docs/results.md names their folders. Of a page these blocks are read, in order, in an empty
folder of its own:

* ``<!-- data: audio/fsdd/recordings as recordings -->`` makes a part of DATA known under a short name;
* ``<!-- python ... -->`` is run, but not shown;
* a block ``python`` is run; what it prints stands in a block ``text`` behind it;
* each line ``$ command`` of a block ``console`` is run, and what it printed stands below it; ``console exit=2`` is a
  command that must end so;
* ``<!-- picture: run/report.html, Confusions, pictures/audio.png, WORDS -->`` shows the first picture below that
  heading of a report, kept under that name.
"""

import argparse
import base64
import io
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from PIL import Image

from metatransformer.faces.cli import main as main_of_package

FOLDERS = [Path(__file__).parent / name for name in ("modalities", "tasks")]
LARGEST = 60_000  # bytes of a picture
PART = re.compile(
    r"<!-- data: (?P<source>\S+) as (?P<name>\S+) -->"
    r"|<!-- python\n(?P<hidden>.*?)-->"
    r"|```python\n(?P<python>.*?)```(?:\n+```text\n.*?```)?"
    r"|```console(?: exit=(?P<exit>\d+))?\n(?P<console>.*?)```"
    r"|(?P<mark><!-- picture: (?P<report>\S+), (?P<heading>[^,]+), (?P<picture>\S+), (?P<words>.+?) -->)"
    r"(?:\n!\[.*?\]\(\S+\))?",
    re.DOTALL,
)


class PageError(Exception):
    """A page's command ended otherwise than the page says, or its picture is not there."""


def main() -> None:
    """Remakes the named pages, all where none is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the data sets")
    parser.add_argument("names", nargs="*", metavar="NAME", help="pages; default: all")
    options = parser.parse_args()
    failed = []
    pages = [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
    for page in [page for page in pages if not options.names or page.stem in options.names]:
        try:
            text = remade(page.read_text(encoding="utf-8"), data=options.data.resolve(), beside=page.parent)
        except PageError as error:
            failed.append(f"{page.stem}: {error}")
        else:
            page.write_text(text, encoding="utf-8")
    raise SystemExit("\n".join(failed))


def remade(text: str, *, data: Path, beside: Path) -> str:
    """Returns a page with fresh outputs; its pictures are written ``beside`` it."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        place = Path(folder)
        text = PART.sub(lambda part: _remade_part(part, place=place, data=data, beside=beside), text)
        text = text.replace(f"{folder}/", "")  # where a person is, who types these commands
        for private in (folder, str(data), str(Path.home())):
            if private in text:
                raise PageError(f"the page shows a path of this machine: {private}")
    return text


def _remade_part(part: re.Match[str], *, place: Path, data: Path, beside: Path) -> str:
    whole = part.group(0)
    if part["source"]:
        (place / part["name"]).symlink_to(data / part["source"])
    elif part["hidden"] is not None:
        _program(part["hidden"])
    elif part["python"] is not None:
        printed = _program(part["python"])
        return f"```python\n{part['python']}```" + (f"\n\n```text\n{printed}```" if printed else "")
    elif part["console"] is not None:
        head, _, _ = whole.partition("\n")
        status = int(part["exit"] or 0)
        commands = [line.removeprefix("$ ") for line in part["console"].splitlines() if line.startswith("$ ")]
        blocks = [f"$ {command}\n{_command(command, status=status)}" for command in commands]
        return "\n".join([head, *blocks]) + "```"
    else:
        _write_picture(place / part["report"], heading=part["heading"], to=beside / part["picture"])
        return f"{part['mark']}\n![{part['words']}]({part['picture']})"
    return whole


def _command(command: str, *, status: int) -> str:
    """Returns what a command printed; it runs in this process, so that libraries and trunk are read once."""
    name, *words = shlex.split(command)
    assert name == "metatransformer", command
    with _heard(command) as heard:
        found = main_of_package(words)
    if found != status:
        raise PageError(f"ended with {found} instead of {status}: {command}\n{heard.getvalue()}")
    return _lines(heard)


def _program(text: str) -> str:
    """Returns what a Python program printed."""
    with _heard("python") as heard:
        exec(compile(text, "page", "exec"), {"__name__": "__main__"})
    return _lines(heard)


@contextmanager
def _heard(title: str) -> Iterator[io.StringIO]:
    """Yields what is printed on both streams until the block ends, in the order in which a terminal shows it."""
    begun, heard = time.monotonic(), io.StringIO()
    with redirect_stdout(heard), redirect_stderr(heard):
        yield heard
    print(f"$ {title}: {time.monotonic() - begun:.0f} s", flush=True)


def _lines(heard: io.StringIO) -> str:
    return "".join(f"{line.rstrip()}\n" for line in heard.getvalue().splitlines())


def _write_picture(report: Path, *, heading: str, to: Path) -> None:
    text = report.read_text(encoding="utf-8")
    below = rf"<h2>{re.escape(heading)}</h2>(?:(?!<h2>).)*?"
    found = re.search(rf'{below}<img src="data:image/png;base64,([^"]+)"', text, re.DOTALL)
    if not found:
        headings = ", ".join(re.findall("<h2>(.*?)</h2>", text))
        raise PageError(f"{report.name} has no picture below '{heading}'; its headings: {headings}")
    to.parent.mkdir(exist_ok=True)
    picture = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    picture.quantize(128).save(to, optimize=True)
    while to.stat().st_size > LARGEST:  # of photographs
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5))
        picture.quantize(128).save(to, optimize=True)


if __name__ == "__main__":
    main()
