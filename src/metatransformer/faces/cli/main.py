"""Parsing and exit status. Nothing heavy is imported before a command runs, so that ``--help`` answers at once.

People read standard error; programs read the last line of standard output, one JSON object. Exit status: 0 done, 2 the
user must change something (one message, no traceback), 1 a bug.
"""

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from metatransformer.core.errors import MetaTransformerError
from metatransformer.tasks import task_names

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
TAKES_OVERRIDES = ("fit", "check", "embed", "bench")
FLAGS = ("--controls", "--overwrite", "--quick", "--list")  # the options of these commands that take no value

DESCRIPTION = """\
Many kinds of data -> tokens -> one shared, frozen, pretrained transformer -> a small head per task.

  metatransformer demo                                            see it work in a few minutes
  metatransformer fit photos/ --modality image --out run          photos/ has one folder per class
  metatransformer predict run new/*.jpg --out predictions.csv
  metatransformer embed clips/ --modality audio --encoder focus-s14 --out vectors.parquet
"""

FIT_EPILOG = """\
DATA is one of these:
  a folder with one folder per class, perhaps inside train/, val/, test/
  a manifest: CSV, TSV, Parquet or JSONL with the columns path,label[,split][,group]
  a table with --target COL (its column 'split' counts, if there is one)
If it brings no split, one is drawn by class with a fixed seed, and the run says so.

key.sub=value changes any setting, for example optim.lr=3e-4 head.pool=mean input.size=140.
'metatransformer modalities NAME' lists the settings of a modality (input.*); RUN/recipe.yaml holds all that were used.

--tune says what learns:
  head         only the head, on features that are computed once: minutes on a laptop
  ends         tokenizer and head; the trunk stays frozen (the paper's setting)
  norm         as ends, and the norm layers of the trunk
  lora[:RANK]  as ends, and low-rank adapters in the trunk's attention
  last:K       as ends, and the last K blocks of the trunk
  all          everything
All but head train by epochs and take hours. What they learn is kept only if it scores better on validation than the
untrained start; tokenizers that start at random (of texts, tables, graphs) are always trained.

  metatransformer fit photos/ --modality image --encoder focus-s14 --out run
  metatransformer fit speech.csv --modality audio --encoder focus-s14 --out run --controls
  metatransformer fit people.csv --modality tabular --target income --encoder focus-s14 --out run optim.epochs=5
  metatransformer fit load.csv --modality timeseries --target load --encoder focus-s14 --out run input.horizon=24
"""


BENCH_EPILOG = """\
Runs each data set in a process of its own and writes results.json, results.md and report.html. An interrupted call
continues. Beside our score stand a constant answer, a plain and a strong baseline, and the same model on random trunks
and without a trunk. Some strong baselines need: pip install 'metatransformer[bench]'.

  metatransformer bench --list
  metatransformer bench --data DATA --out results --quick
  metatransformer bench --data DATA --out results --only fsdd adult --seeds 3
  metatransformer bench --data DATA --out other --only fsdd head.read=[0.25]    another recipe, another folder
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, overrides = _take_overrides(words)
    options = _parser().parse_args(words)
    options.overrides = overrides
    commands = importlib.import_module("metatransformer.faces.cli.commands")
    try:
        result, status = getattr(commands, options.command)(options)
    except MetaTransformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was finished is on disk, the same command continues", file=sys.stderr)
        return 130
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, the first one speaks for all
        print(json.dumps(result), flush=True)
    return status


def _take_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits ``key.sub=value`` words off, for the commands that take them; an existing file is never one."""
    if not words or words[0] not in TAKES_OVERRIDES:
        return words, []

    def is_override(word: str) -> bool:
        return bool(OVERRIDE.match(word)) and not Path(word).exists()

    def takes_value(word: str) -> bool:
        return word.startswith("--") and "=" not in word and word not in FLAGS

    # A word behind an option that takes a value is that value.
    chosen = [
        position for position, word in enumerate(words) if is_override(word) and not takes_value(words[position - 1])
    ]
    return (
        [word for position, word in enumerate(words) if position not in chosen],
        [words[position] for position in chosen],
    )


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="metatransformer", description=DESCRIPTION, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, description=summary, epilog=epilog, formatter_class=raw, allow_abbrev=False
        )

    demo = command("demo", "train, score and explain two small models on data that is already here")
    demo.add_argument("--out", default="metatransformer-demo", metavar="DIR", help="default: %(default)s")
    demo.add_argument("--encoder", default="focus-s14", metavar="E", help="default: %(default)s")

    names = command("modalities", "list the kinds of data, or describe one: files, units, settings")
    names.add_argument("name", nargs="?", default="", metavar="NAME")

    check = command("check", "read every sample as 'fit' would and list all that are bad")
    check.add_argument("data", metavar="DATA")
    _modality(check)
    _target(check)

    _fit(command("fit", "train a model on your files", FIT_EPILOG))

    _evaluate(command("evaluate", "score a trained model on labelled data"))
    _predict(command("predict", "predict for new files; one row for each, in order"))
    _embed(command("embed", "turn each sample into one vector; an interrupted call continues"))

    weights = command("weights", "show the known encoders and where each was looked for and found")
    weights.add_argument("name", nargs="?", default="", metavar="NAME")
    weights.add_argument("--fetch", action="store_true", help="fetch and convert it now")

    _bench(command("bench", "the default recipes on real data, each beside its controls and baselines", BENCH_EPILOG))

    command("doctor", "check this installation: versions, device, optional libraries, a self-test")
    return parser


def _fit(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("data", metavar="DATA")
    _modality(fit)
    fit.add_argument("--out", required=True, metavar="RUN", help="the run folder; an unfinished run continues")
    fit.add_argument("--task", default="", help=f"{', '.join(task_names())}; default: the modality's own")
    _target(fit)
    fit.add_argument("--encoder", default="", metavar="E", help="default: meta-b16; see 'metatransformer weights'")
    fit.add_argument(
        "--tune", default="", help="head, ends, norm, lora[:RANK], last:K, all; default: the modality's own"
    )
    fit.add_argument("--epochs", type=int, metavar="N")
    fit.add_argument("--seed", type=int, metavar="S")
    _device(fit)
    fit.add_argument("--recipe", default="", metavar="R", help="a YAML file, or a Python file with recipe()")
    fit.add_argument(
        "--controls",
        action="store_true",
        help="also score a constant answer, a plain baseline, a random trunk and no trunk",
    )
    fit.add_argument("--overwrite", action="store_true", help="replace the run in RUN")


def _evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("run", metavar="RUN", help="a run folder or a saved model")
    evaluate.add_argument("data", metavar="DATA", help="its split 'test' if it has one, else all of it")
    evaluate.add_argument("--split", default="", help="train, val or test instead")
    _target(evaluate)
    _trunk_place(evaluate)


def _predict(predict: argparse.ArgumentParser) -> None:
    predict.add_argument("run", metavar="RUN", help="a run folder or a saved model")
    predict.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, a manifest or a table")
    predict.add_argument("--out", required=True, metavar="FILE", help=".csv, .tsv, .parquet or .jsonl")
    _trunk_place(predict)


def _embed(embed: argparse.ArgumentParser) -> None:
    embed.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, a manifest or a table")
    embed.add_argument("--modality", default="", metavar="M", help="needed unless --model is given")
    embed.add_argument("--encoder", default="", metavar="E", help="default: meta-b16")
    embed.add_argument("--target", default="", metavar="COL", help="a column to leave out, such as the label")
    embed.add_argument("--model", default="", metavar="RUN", help="embed with a trained model instead")
    _device(embed)
    pool = "how tokens become a vector: summary (default), mean, max, both or grid; with --model: features (default)"
    embed.add_argument("--pool", default="", help=pool)
    embed.add_argument("--out", required=True, metavar="FILE", help=".parquet for one file, else a folder of shards")


def _bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("suite", nargs="?", default="real12", metavar="SUITE", help="real12 (default) or paper")
    bench.add_argument("--data", default="", metavar="DIR", help="the folder that holds the data sets")
    bench.add_argument("--out", default="", metavar="DIR", help="results; rows and runs that are in it are kept")
    bench.add_argument("--only", nargs="+", default=[], metavar="ROW", help="only these rows")
    bench.add_argument("--list", action="store_true", help="show the rows and where to get their data")
    bench.add_argument("--quick", action="store_true", help="a part of the data, one fold, one seed")
    bench.add_argument("--encoder", default="focus-s14", metavar="E", help="default: %(default)s")
    bench.add_argument("--seeds", type=int, default=0, metavar="N", help="runs of each model; default: as the row says")
    bench.add_argument("--trunks", type=int, default=0, metavar="N", help="random trunks; default: as the row says")
    bench.add_argument("--jobs", type=int, default=1, metavar="N", help="rows at the same time; default: %(default)s")


def _modality(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--modality", required=True, metavar="M", help="see 'metatransformer modalities'")


def _target(parser: argparse.ArgumentParser) -> None:
    words = "the column to learn (several with commas: --task multilabel)"
    parser.add_argument("--target", default="", metavar="COL", help=words)


def _trunk_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", default="", metavar="PATH", help="the trunk's file, if it was moved")
    _device(parser)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="", metavar="D", help="auto (default), cpu, cuda, cuda:N or mps")
