"""The results as the README shows them, made from the tables of docs/results.md.

``python -m metatransformer.bench.readme docs/results.md README.md`` writes them into it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from metatransformer.bench.datasets import DATA_SETS
from metatransformer.bench.table import COLUMNS, head, table
from metatransformer.bench.verdicts import HEAD
from metatransformer.tasks import known_score

START, END = "<!-- results -->\n", "<!-- /results -->"
FIGURES = ("ours", "constant", "plain", "strong", "no trunk", "random trunk")  # of COLUMNS, in fewer words


def results_block(results: str) -> str:
    """Returns two tables: figures, the best of a row in bold, and what they say; one row a data set.

    ``results`` is the text of docs/results.md.
    """
    figures: dict[str, list[str]] = {}
    for cells in _rows(results, [*head()]):
        figures.setdefault(cells["data"], _figures(cells))  # the first score of a data set is the one that decides
    words = [[*_about(cells["data"]), *list(cells.values())[2:]] for cells in _rows(results, [*HEAD])]
    lines = [[*_about(name), *cells] for name, cells in figures.items()]
    scores = table(["modality", "data", "score", *FIGURES], lines)
    return f"{scores}\n\n{table(['modality', 'data', *HEAD[2:]], words)}\n"


def _about(name: str) -> tuple[str, str]:
    return DATA_SETS[name].modality, DATA_SETS[name].title


def _figures(cells: Mapping[str, str]) -> list[str]:
    metric = cells["metric"]
    means = [cells[title].partition(" (")[0] for title in COLUMNS.values()]
    known = [float(mean) for mean in means if mean != "-"]
    best = max(known) if known_score(metric).higher else min(known)
    return [metric.replace("_", " "), *(f"**{m}**" if m != "-" and float(m) == best else m for m in means)]


def _rows(text: str, columns: list[str]) -> list[dict[str, str]]:
    """Returns the rows of the table with these columns."""
    _, _, below = text.partition(f"{table(columns, [])}\n")
    lines = below.partition("\n\n")[0].splitlines()
    return [dict(zip(columns, line.strip("| ").split(" | "), strict=True)) for line in lines]


def main() -> None:
    """Writes the results of the first file into the second."""
    results, readme = map(Path, sys.argv[1:])
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    block = results_block(results.read_text(encoding="utf-8"))
    readme.write_text(f"{before}{START}{block}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
