"""What the page of an exported folder says: how it is run, what goes in and comes out, how equal it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from metatransformer.export.graph import Entry
from metatransformer.export.settings import TENSORS, Prepared

RUNS = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}  # beside numpy, by format
READS = {
    **dict.fromkeys(("image", "xray", "infrared"), " pillow"),
    "text": " tokenizers",
    "audio": " soundfile soxr",
}
MEANS = {
    "classify": "the probability of each class",
    "multilabel": "the probability of each label",
    "regress": "the prediction in the target's unit",
    "forecast": "the next values, in spreads of the window from its last value (`run.py` tells them in the unit)",
}
FILES = "Its inputs are prepared by `prepare.py`, whose first lines say how and from what files."
ARRAYS = """\
It takes prepared tensors ({why}): NPZ files with the arrays below, without the batch axis, as
`metatransformer.export.prepared("RUN", "DATA", "FOLDER")` makes them; `example.npz` shows names, shapes and types."""
PAGE = """## Run it

```
pip install numpy {needs}
python run.py FILE_OR_FOLDER ... > predictions.csv
```

{takes}

| input | type | shape | unit | what it is |
| --- | --- | --- | --- | --- |
{rows}

A batch holds samples of one shape; every axis whose length differs is free. `outputs` are those of the head,
`answer` is {meaning}.

{same}.
"""


@dataclass(frozen=True)
class Parity:
    """The largest difference between graph and model: of ``outputs``, and of what ``prepare`` made of ``files``."""

    outputs: float
    samples: int
    prepared: float
    files: int


def page_of(
    entries: Sequence[Entry], names: Sequence[str], *, kind: str, task: str, how: Prepared, parity: Parity
) -> str:
    """Returns the part of the page that tells of a folder in the format ``kind``."""
    rows = [
        f"| `{name}` | {entry.declared.dtype} | {axes_of(entry).replace('*', '')} | {entry.declared.unit or '-'} | "
        f"{entry.declared.summary} |"
        for name, entry in zip(names, entries, strict=True)
    ]
    same = f"The graph's outputs equal the model's within {parity.outputs:.1e} on {parity.samples} samples"
    if parity.files:
        same += f", `prepare.py` the library's preprocessing within {parity.prepared:.1e} ({parity.files} samples)"
    return PAGE.format(
        needs=RUNS[kind] + READS.get(how.module, ""),
        takes=ARRAYS.format(why=how.why) if how.module == TENSORS else FILES,
        rows="\n".join(rows),
        meaning=MEANS[task],
        same=same,
    )


def axes_of(entry: Entry) -> str:
    """Returns the axes of an input of the graph."""
    return f"[batch, {', '.join(entry.declared.names)}]" if entry.declared.names else "[batch]"
