"""What came with a request, as files under names of our own in a folder that is removed with the request.

A stranger's name is shown again and used for nothing else but its ending.
"""

import binascii
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from metatransformer.core.errors import DataError, nearest

ENDING = re.compile(r"(\.[A-Za-z0-9]{1,12}){1,2}$")
SHOWN = 100  # letters of a name


class Uploads:
    """The files of one request. Those whose names differ in their endings alone do so here, too: they belong together,
    as a scene and its header.
    """

    def __init__(self, root: Path, *, most: int) -> None:
        self.folder = root / secrets.token_hex(8)
        self.folder.mkdir(mode=0o700)
        self._mark, self._most = f"f{secrets.token_hex(4)}", most
        self._stems: dict[str, str] = {}
        self.names: dict[Path, str] = {}  # what a stranger calls them

    def close(self) -> None:
        """Removes all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, name: str) -> Path:
        """Returns where a file of this name is to be written.

        Raises:
            DataError: there are as many as a request may have.
        """
        if len(self.names) >= self._most:
            must = f"have at most {self._most} files"
            raise DataError("a request", must=must, found="more", do="Send several requests.")
        shown = re.split(r"[/\\]", name)[-1]
        shown = "".join(letter if letter.isprintable() else "?" for letter in shown)[-SHOWN:] or "file"
        found = ENDING.search(shown)
        ending = found.group().lower() if found else ""
        if ending.count(".") == 2 and not ending.endswith((".gz", ".bz2", ".xz", ".zip")):
            ending = "." + ending.rpartition(".")[2]
        stem = self._stems.setdefault(shown.lower().removesuffix(ending), f"{self._mark}-{len(self._stems)}")
        path = self.folder / f"{stem}{ending}"
        if path in self.names:
            path = self.folder / f"{self._mark}-{len(self._stems)}x{len(self.names)}{ending}"
        self.names[path] = shown
        return path

    def keep(self, name: str, content: IO[bytes]) -> Path:
        """Returns the file that ``content`` was written into."""
        path = self.place(name)
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
        return path

    def of_base64(self, name: str, text: str) -> Path:
        """Returns the file that a text stands for.

        Raises:
            DataError: it is no base64.
        """
        try:
            content = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise DataError(f"'{name}'", must="be base64", found="other characters or a wrong length") from error
        path = self.place(name)
        path.write_bytes(content)
        return path

    def called(self, name: object) -> Path:
        """Returns the file that a stranger calls so.

        Raises:
            DataError: there is none, or there are several.
        """
        found = [path for path, own in self.names.items() if own == name]
        if len(found) != 1:
            known = nearest(str(name), self.names.values()) if self.names else "No file was sent."
            raise DataError('{"file": NAME}', must="name one file of this request", found=repr(name), do=known)
        return found[0]

    def shown(self, text: str) -> str:
        """Returns a text with strangers' names instead of ours, and without a folder of ours."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), "the request")
        for path, name in self.names.items():
            text = text.replace(path.name, name)
        for path, name in self.names.items():
            text = text.replace(path.name.partition(".")[0], name.partition(".")[0])
        return text


def resolve(tree: Any, uploads: Uploads, fetched: Mapping[str, Path], *, depth: int = 0) -> Any:
    """Returns samples as JSON has them with a ``Path`` in the place of each file: ``{"file": NAME}`` of this request,
    ``{"base64": TEXT, "name": NAME}``, or ``{"url": URL}``.

    Raises:
        DataError: one that is not there.
    """
    if isinstance(tree, dict) and "file" in tree and set(tree) <= {"file"}:
        return uploads.called(tree["file"])
    if isinstance(tree, dict) and "base64" in tree and set(tree) <= {"base64", "name"}:
        name, text = tree.get("name"), tree["base64"]
        if not isinstance(name, str) or not isinstance(text, str):
            raise DataError(
                '{"base64": TEXT, "name": NAME}', must="have a text and a name with an ending", found="none"
            )
        return uploads.of_base64(name, text)
    if isinstance(tree, dict) and "url" in tree and set(tree) <= {"url"}:
        return fetched[str(tree["url"])]
    if depth < 2 and isinstance(tree, dict):
        return {key: resolve(value, uploads, fetched, depth=depth + 1) for key, value in tree.items()}
    if depth < 2 and isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return [resolve(value, uploads, fetched, depth=depth + 1) for value in tree]
    return tree


def urls_in(tree: Any, *, depth: int = 0) -> list[str]:
    """Returns the addresses that ``resolve`` will ask for."""
    if isinstance(tree, dict) and set(tree) == {"url"}:
        return [str(tree["url"])]
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [url for value in inside for url in urls_in(value, depth=depth + 1)] if depth < 3 else []
