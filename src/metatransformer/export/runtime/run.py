"""Predicts with the exported model beside this file: python run.py FILE_OR_FOLDER ... > predictions.csv"""

import csv
import json
import sys
from pathlib import Path

from prepare import prepare  # the file beside this one: files -> the inputs of the graph

HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "config.json").read_text(encoding="utf-8"))


def load():
    """Returns the graph as a function: arrays by name, each [batch, ...] -> (outputs, answer)."""
    if CONFIG["format"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
        return lambda given: session.run(None, given)
    if CONFIG["format"] == "openvino":
        vars(sys)["modules"].setdefault("openvino_telemetry", None)  # nothing is sent
        import openvino

        compiled = openvino.Core().compile_model(HERE / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda given: list(compiled(given).values())
    import torch

    module = torch.export.load(HERE / "model.pt2").module(check_guards=False)
    return lambda given: [out.numpy() for out in module(*(torch.from_numpy(array) for array in given.values()))]


def told(answer, inputs):
    """Returns the cells of one sample's row behind its key."""
    if CONFIG["task"] == "classify":
        return [CONFIG["classes"][int(answer.argmax())], *(f"{share:.6f}" for share in answer)]
    if CONFIG["task"] == "forecast":  # in the unit of the series
        answer = inputs["level"] + inputs["spread"] * answer.astype("float64")
    return [f"{number:.6g}" for number in answer]


def main(paths):
    """Writes one row a sample to standard output, what is wrong to standard error; returns how many files are wrong."""
    model, rows, bad = load(), csv.writer(sys.stdout, lineterminator="\n"), 0
    rows.writerow(["key", *CONFIG["columns"]])
    for path in paths:
        for file in sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]:
            try:
                for key, inputs in prepare(file, CONFIG["settings"]):
                    _, answer = model({name: inputs[name][None] for name in CONFIG["inputs"]})
                    rows.writerow([key, *told(answer[0], inputs)])
            except (ValueError, OSError) as error:
                print(f"error: {file}: {error}", file=sys.stderr)
                bad += 1
    return bad


if __name__ == "__main__":
    sys.exit(1 if main([Path(word) for word in sys.argv[1:]]) else 0)
