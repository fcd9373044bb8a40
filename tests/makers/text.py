"""Makes the small files of texts: tables of one text or two, a text file; and what goes wrong there."""

import gzip
import json
from pathlib import Path

import pandas as pd

TEXTS = (
    "a warm and funny film",
    "a dull and boring film",
    "lovely story , rich scenes",
    "awful story , flat scenes",
    'it\'s "good"',
    'it\'s "bad"',
    "good actors, fine scenes",
    "bad actors, poor scenes",
    "très beau café",
    "a pity",
)


def make(folder: Path) -> None:
    """Writes ten labelled texts in each kind of table, two files; and what goes wrong with texts."""
    rows = [{"number": n, "sentence": text, "label": "ab"[n % 2]} for n, text in enumerate(TEXTS)]
    frame = pd.DataFrame(rows)
    good = frame.to_csv(index=False, lineterminator="\n")
    (folder / "good.csv").write_text(good, encoding="utf-8")
    # As GLUE writes them: quotation marks are letters, and one of them is never closed.
    plain = [*("\t".join(map(str, row.values())) for row in rows), '10\t"well\ta']
    (folder / "good.tsv").write_text("\n".join(["\t".join(rows[0]), *plain]) + "\n", encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "good.jsonl").write_text(lines, encoding="utf-8")
    (folder / "good.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    frame.to_parquet(folder / "good.parquet", index=False)
    (folder / "good.txt").write_text("A longer text,\nwhich runs over two lines.\n", encoding="utf-8")
    pairs = frame.assign(question=[f"is it {row['label']} then ?" for row in rows]).drop(columns="number")
    pairs.to_csv(folder / "good_pairs.csv", index=False, lineterminator="\n")
    _make_broken(folder, good)


def _make_broken(folder: Path, good: str) -> None:
    lines = good.splitlines()
    (folder / "broken_empty.csv").write_bytes(b"")
    (folder / "broken_empty.txt").write_bytes(b"")
    (folder / "broken_spaces.txt").write_text(" \n\t\n")
    (folder / "broken_encoding.txt").write_bytes("très beau café\n".encode("latin-1"))
    (folder / "broken_encoding.csv").write_bytes(good.encode("latin-1"))
    (folder / "broken_wide.txt").write_bytes("a text\n".encode("utf-16"))
    (folder / "broken_binary.txt").write_bytes(b"a text\0with a zero\n")
    (folder / "broken_no_word.txt").write_bytes("\u200d\u200d\n".encode())
    (folder / "broken_missing.csv").write_text("\n".join([*lines[:3], "2,,a", *lines[4:]]) + "\n", encoding="utf-8")
    ragged = "\n".join([*lines[:3], "2,one, two,a", *lines[4:]]) + "\n"
    (folder / "broken_ragged.csv").write_text(ragged, encoding="utf-8")
    (folder / "broken_quote.csv").write_text(good.replace("a dull", '"a dull', 1), encoding="utf-8")
    (folder / "broken_numbers.csv").write_text("one,two,label\n1,2,a\n3,4,b\n")
    (folder / "broken_columns.csv").write_text("one,two,three,label\n" + "a text,the text,some text,a\n" * 3)
    (folder / "broken_surrogate.jsonl").write_text('{"text": "a lone \\ud800 half", "label": "a"}\n')
    data = (folder / "good.parquet").read_bytes()
    (folder / "broken_truncated.parquet").write_bytes(data[: len(data) // 2])
