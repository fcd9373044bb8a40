"""What the docs site (mkdocs.yml) changes on the way: nothing is written twice.

* ``<!-- readme: Modalities -->`` becomes the text below that heading of README.md, ``<!-- readme: top -->`` what stands
  before the first one;
* ``<!-- file: CHANGELOG.md -->`` becomes that file of the repository;
* ``console exit=2`` (docs/make_pages.py) becomes ``console``.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def on_page_markdown(markdown: str, *, page: object, config: object, files: object) -> str:
    """Returns the page as it is built."""
    del page, config, files
    markdown = re.sub(r"<!-- readme: (.+?) -->", lambda found: readme_section(found[1]), markdown)
    markdown = re.sub(r"<!-- file: (.+?) -->", lambda found: _of_docs((ROOT / found[1]).read_text("utf-8")), markdown)
    return re.sub(r"^```console exit=\d+$", "```console", markdown, flags=re.MULTILINE)


def readme_section(heading: str) -> str:
    """Returns the text below a heading of README.md, with links as seen from docs/.

    Raises:
        KeyError: there is no such heading.
    """
    parts = re.split(r"^##? (.+)\n", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return _of_docs(sections["metatransformer" if heading == "top" else heading]).strip()


def _of_docs(text: str) -> str:
    return text.replace("](docs/", "](")
