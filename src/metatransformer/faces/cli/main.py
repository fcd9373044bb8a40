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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from metatransformer.core.errors import MetaTransformerError
from metatransformer.tasks import task_names

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")

DESCRIPTION = """\
Many kinds of data -> tokens -> one shared, frozen, pretrained transformer -> a small head per task.

  metatransformer demo                                            see it work in a few minutes
  metatransformer fit photos/ --modality image --out run          photos/ has one folder per class
  metatransformer predict run new/*.jpg --out predictions.csv
  metatransformer embed clips/ --modality audio --encoder focus-s14 --out vectors.parquet
"""

INPUTS_EPILOG = """\
--inputs: each row of the table brings several kinds of data. NAME=MODALITY reads the column NAME, NAME=MODALITY(COLUMN,
...) others; a table's rows without brackets take what is left. A cell names a file (from the table's folder), or is the
text or the molecule itself; an empty cell is an absent input. A film gives its pictures and its sound:
pictures=video(path),sound=audio(path). One modality may be there several times: front=image,kitchen=image.
"""

FIT_EPILOG = """\
DATA is one of these:
  a folder with one folder per class, perhaps inside train/, val/, test/
  a manifest: CSV, TSV, Parquet or JSONL with the columns path,label[,split][,group]
  a table with --target COL (its column 'split' counts, if there is one)
If it brings no split, one is drawn by class with a fixed seed, and the run says so.

{inputs}RUN tells what each input brings.

A YAML file as DATA is a suite, several data sets for one model on one trunk; a later call with more of them adds these:
  encoder: focus-s14
  sets:
    digits: {{data: digits/, modality: audio}}
    income: {{data: people.csv, modality: tabular, target: income}}
What a data set says are flags of 'fit' and settings; what stands beside 'sets' is of all. 'predict', 'evaluate' and
'embed' take --task NAME. 'fit ... --add-to MODEL --name NAME' adds one more task to any model of the same trunk.

key.sub=value changes any setting, for example optim.lr=3e-4 head.pool=mean input.size=140.
'metatransformer modalities NAME' lists the settings of a modality (input.*); RUN/recipe.yaml holds all that were used.

--tune says what learns:
  head         only the head, on features that are computed once: minutes on a laptop
  tokens       the tokenizer in front of the trunk, then as head (for texts, tables and graphs)
  ends         tokenizer and head; the trunk stays frozen (the paper's setting)
  norm         as ends, and the norm layers of the trunk
  lora[:RANK]  as ends, and low-rank adapters in the trunk's attention
  last:K       as ends, and the last K blocks of the trunk
  all          everything
All but head train by epochs and take hours. What they learn is kept only if it scores better on validation than the
untrained start; tokenizers that start at random (of texts, tables, graphs) are always trained.

tasks: {tasks}

  metatransformer fit photos/ --modality image --encoder focus-s14 --out run
  metatransformer fit speech.csv --modality audio --encoder focus-s14 --out run --controls
  metatransformer fit people.csv --modality tabular --target income --encoder focus-s14 --out run optim.epochs=5
  metatransformer fit homes.csv --inputs front=image,kitchen=image,rest=tabular(area,rooms) --target price --out run
  metatransformer fit load.csv --modality timeseries --target load --encoder focus-s14 --out run input.horizon=24
  metatransformer fit suite.yaml --out run
"""

CHECK_EPILOG = f"""\
{INPUTS_EPILOG}
  metatransformer check photos/ --modality image
  metatransformer check homes.csv --inputs front=image,kitchen=image,rest=tabular(area,rooms) --target price
"""

EMBED_EPILOG = f"""\
{INPUTS_EPILOG}The vectors of the inputs stand side by side, behind them whether each is there.
A model (--model) knows its inputs.

  metatransformer embed clips/ --modality audio --encoder focus-s14 --out vectors.parquet
  metatransformer embed homes.csv --inputs front=image,kitchen=image --encoder focus-s14 --out vectors.parquet
  metatransformer embed homes.csv --model run --out vectors.parquet
  metatransformer embed million/ --modality image --out vectors --shard 3/8     on the third of eight machines
  metatransformer embed s3://bucket/photos --modality image --out s3://bucket/vectors --engine ray --address auto
  metatransformer embed photos/ --model RUN --out photos.parquet               RUN of pretrain or align: vectors that
                                                                               'search --text' can be asked for
"""

SEARCH_EPILOG = """\
A list holds similarities within one kind of data, or across two that a run of 'align' or 'pretrain' has brought into
one space, and never both. Across works in vectors of that space (embed --model RUN), and in plain ones of an encoder
that came with a text tower. What nothing aligns directly, or no better than chance, is refused.

  metatransformer search vectors.parquet new.jpg --k 5
  metatransformer search vectors.parquet --duplicates --out twins.html
  metatransformer embed photos/ --model RUN --out photos.parquet
  metatransformer search photos.parquet --text "a dog in the snow" --text "a red car"
  metatransformer search photos.parquet bark.wav --side sound                  RUN aligned photo=image, sound=audio
"""

BENCH_EPILOG = """\
Runs each data set in a process of its own and writes results.json, results.md and report.html. An interrupted call
continues. Beside our score stand a constant answer, a plain and a strong baseline, and the same model on random trunks
and without a trunk. Some strong baselines need: pip install 'metatransformer[bench]'.

  metatransformer bench --list
  metatransformer bench --data DATA --out results --quick
  metatransformer bench speed --out speed                this machine's speed beside a plain transformers loop
  metatransformer bench speed --out speed --peers peers/bin/python    and beside timm, OpenCLIP
  metatransformer bench tasks --data DATA --out other    segmentation, detection, retrieval, bands
  metatransformer bench --data DATA --out results --only fsdd adult --seeds 3
  metatransformer bench --data DATA --out other --only fsdd head.read=[0.25]    another recipe, another folder
"""


PRETRAIN_EPILOG = """\
PAIRS is one of these:
  a folder of .tar shards, shards/*.tar or shards/{00000..00041}.tar, as img2dataset writes them: key.jpg, key.txt,
    and key.json where a filter asks for what is in it
  a table with the columns path and text (CSV, TSV, JSONL, Parquet)
  Parquet with the bytes of pictures and a column of texts, one file or a folder

RUN is then an encoder like any other: --encoder RUN/ for 'fit' and 'embed'; 'predict RUN x.jpg --classes "cat,dog"'.
A killed run continues exactly where its last checkpoint was. Under torchrun every process takes its share of a batch.

  metatransformer pretrain shards/ --out run --preset vit-b16
  metatransformer pretrain pairs.csv --out run --preset vit-ti16 size=64 patch=8 batch=256 steps=2000
  metatransformer pretrain shards/ --out run loss=sigmoid drop=0.5 start_size=112 similarity=0.28 language=en
  torchrun --nproc-per-node 8 -m metatransformer pretrain shards/ --out run batch=32768 checkpointing=true
"""


ALIGN_EPILOG = f"""\
{INPUTS_EPILOG}
Trunk and tokenizers stay as they are: a small map on each side learns from the pairs, and whole concepts are held out.
RUN/ledger.json says what was aligned, from how many pairs, and how well beside chance. 'predict RUN x.jpg --classes
"cat,dog"' then works for the first input, unless held-out retrieval was not above chance.

  metatransformer align icons.jsonl --inputs picture=image(file),words=text(text) --encoder focus-s14 --out run
  metatransformer align clips.csv --inputs sound=audio(path),words=text(caption) --out run --controls
"""


SERVE_EPILOG = """\
RUN is a run folder or a saved model, or NAME=RUN; runs of one trunk share it. Routes: /predict, /v1/embeddings (in
OpenAI's form), /neighbours, /models, /modalities, /health, /metrics, /docs. See docs/serve.md.

  metatransformer serve run
  metatransformer serve photos=run reviews=other/run --encoder focus-s14 --port 8000
  metatransformer serve run --index vectors.parquet --token-file token.txt --host 0.0.0.0
  curl -F files=@x.jpg http://127.0.0.1:8000/predict
"""


COMPLETION_EPILOG = """\
The script is written once, after an update again:

  metatransformer completion bash > ~/.local/share/bash-completion/completions/metatransformer
  metatransformer completion zsh > ~/.zfunc/_metatransformer      with fpath+=~/.zfunc before compinit in ~/.zshrc
  metatransformer completion fish > ~/.config/fish/completions/metatransformer.fish
"""


EXPORT_EPILOG = """\
DIR gets the graph of tokenizer, trunk and head with free batch and lengths, prepare.py (files -> its inputs: numpy,
and what reads the files), run.py (a short program that runs both) and a README. The graph is compared with the model on
samples; where it answers otherwise, nothing is written. Needs: pip install 'metatransformer[export]', or [openvino].

  metatransformer export run --out served && cd served && python run.py photo.jpg
  metatransformer export run --out served --format openvino
"""


class Command(NamedTuple):
    """One command: its arguments, each as argparse takes it; ``overrides`` says whether it takes ``key.sub=value``;
    ``module`` is where it stands.
    """

    summary: str
    arguments: Sequence[tuple[str, Mapping[str, Any]]] = ()
    epilog: Callable[[], str] = str
    overrides: bool = False
    module: str = "commands"


MODALITY = ("--modality", {"default": "", "metavar": "M", "help": "see 'metatransformer modalities'"})
INPUT_WORDS = "several kinds of data in one table: photo=image,notes=text(title),rest=tabular(age,dose); see below"
INPUTS = ("--inputs", {"default": "", "metavar": "I", "help": INPUT_WORDS})
TARGET_WORDS = "the column to learn (several with commas: --task multilabel)"
TASK_WORDS = "what is learned, see below; default: the modality's own, or what the column holds: classes or numbers"
TASK = ("--task", {"default": "", "help": TASK_WORDS})
TARGET = ("--target", {"default": "", "metavar": "COL", "help": TARGET_WORDS})
ONE_TASK = ("--task", {"default": "", "metavar": "T", "help": "one of the tasks of a model of several; default: all"})
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
PRECISION = "auto (default): bfloat16, or int8 with OpenVINO, where the processor gains by it and some vectors prove "
PRECISION += "nearly the same; int8 is --backend int8"
DEVICE = ("--device", {"default": "", "metavar": "D", "help": "auto (default), cpu, cuda, cuda:N or mps"})
SHARD = "make the I-th of N parts, beside other processes or machines that see the same --out; then call it without"
ENGINE = "ray: by workers that Ray starts, here or on a cluster (an extra, scale)"
ERRORS = "samples that cannot be read: stop at the first, or skip them and list them in errors.parquet (with Ray)"
VECTORS = ".parquet for one file, else a folder of shards; or a URL of one: s3://, gs://, ..."
SHARDS = (
    ("--shard", {"default": "", "metavar": "I/N", "help": SHARD}),
    ("--shard-rows", {"type": int, "default": 1024, "metavar": "N", "help": "samples a shard; default: 1024"}),
    ("--engine", {"default": "local", "choices": ("local", "ray"), "help": ENGINE}),
    ("--workers", {"type": int, "default": 0, "metavar": "N", "help": "default: one a GPU or processor"}),
    ("--address", {"default": "", "metavar": "A", "help": "a running Ray cluster; default: start one here"}),
    ("--errors", {"default": "", "choices": ("stop", "skip"), "help": ERRORS}),
)
BACKENDS = ("eager", "compile", "openvino", "int8")
COMPUTED = "what computes the trunk: eager (default), compile (torch), openvino (an extra; fastest on CPUs), or int8 "
COMPUTED += "(openvino with products of 8 bits: for CPUs without bfloat16)"
CHOSEN = "auto (default): openvino for thousands of samples on a CPU, where it is installed, else eager; or compile"
BACKEND = ("--backend", {"default": "eager", "choices": BACKENDS, "help": COMPUTED})
PEERS = "of speed: the Pythons of environments with timm, OpenCLIP or sentence-transformers"
CHECKPOINTING = "training by epochs computes each block again instead of keeping it: less memory, more time"
DATA = ("data", {"metavar": "DATA"})
RUN = ("run", {"metavar": "RUN", "help": "a run folder or a saved model"})
PATHS = ("paths", {"nargs": "+", "metavar": "PATH", "help": "files, folders, a manifest or a table"})
NAME = ("name", {"nargs": "?", "default": "", "metavar": "NAME"})
TRUNK = ("--encoder", {"default": "", "metavar": "PATH", "help": "the trunk's file, if it was moved"})
TRUNK_OF_DEMO = ("--encoder", {"default": "focus-s14", "metavar": "E", "help": "default: %(default)s"})
CONTROLS = "also score a constant answer, a plain baseline, a random trunk and no trunk"
MINUTES = "end after N minutes with the best model by then, complete and saved"
SCORED = "default: the data of the run. Its split 'test' is scored, or that of the run where it brings none"
POOLS = "how tokens become a vector: summary (default), mean, max, both or grid; with --model: features (default), "
POOLS += "or outputs of a model that retrieves (its default)"

GALLERY = "of retrieval: known samples to find the nearest of; default: what 'fit' kept apart"
CLASSES = "names of classes, without training: RUN is a run of pretrain or align, or weights of CLIP or SigLIP"
TEMPLATES = "a text with {} where the class stands, or a file with one a line; default: seven of CLIP's"
CAPTIONS = "known captions, one a line or a table's column text, the nearest of which are told; RUN as for --classes"
THROUGH = "a run of align or pretrain that may link INDEX with the query, beside its own; several times for several"
TEXT_SIDE = "what reads texts beside their words: minilm (default), words (nothing else), or a run of pretrain"
CONCEPT = "the column that is equal where samples show the same; default: the text, or the column group"
APPROXIMATE = "by an index beside INDEX, for a million vectors and more: built once, may miss some"
SERVE_TOKEN = "who asks must send 'Authorization: Bearer TOKEN'; or METATRANSFORMER_SERVE_TOKEN in the environment"
SERVE_QUEUE = "requests that wait or are answered, beyond which 503 is said; default: %(default)s"
SERVE_WAIT = "for others to be answered in one batch; default: %(default)g"
SERVE_DECODERS = "processes that read files; default: one for every two processors, at least 2"
COMPARED_ON = (
    "samples that graph and model are compared on, as for 'predict'; default: the data of the run, or made-up ones"
)
OUT_OF_SEARCH = ".csv, .tsv, .parquet or .jsonl; .html shows pairs of pictures"
PLACES = "parts of a sample, each of which costs one answer of the model; default: about %(default)s"
CONTROL = "also ask the model with a shuffled head: where it finds the same places, they tell nothing of the model"


def _side(usual: str) -> tuple[str, Mapping[str, Any]]:
    words = f"which of two aligned inputs PATH is of; default: {usual}"
    return "--side", {"default": "", "metavar": "NAME", "help": words}


COMMANDS: Mapping[str, Command] = {
    "demo": Command(
        "train, score and explain two small models on data that is already here",
        (
            ("--out", {"default": "metatransformer-demo", "metavar": "DIR", "help": "default: %(default)s"}),
            TRUNK_OF_DEMO,
        ),
    ),
    "modalities": Command("list the kinds of data, or describe one: files, units, settings", (NAME,)),
    "check": Command(
        "read every sample as 'fit' would and list all that are bad",
        (DATA, MODALITY, INPUTS, TASK, TARGET),
        lambda: CHECK_EPILOG,
        overrides=True,
    ),
    "fit": Command(
        "train a model on your files",
        (
            DATA,
            MODALITY,
            INPUTS,
            ("--out", {"required": True, "metavar": "RUN", "help": "the run folder; an unfinished run continues"}),
            TASK,
            TARGET,
            ("--encoder", {"default": "", "metavar": "E", "help": "default: meta-b16; see 'metatransformer weights'"}),
            (
                "--tune",
                {
                    "default": "",
                    "help": "head, tokens, ends, norm, lora[:RANK], last:K, all; default: the modality's own",
                },
            ),
            ("--epochs", {"type": int, "metavar": "N"}),
            ("--minutes", {"type": float, "metavar": "N", "help": MINUTES}),
            ("--seed", {"type": int, "metavar": "S"}),
            DEVICE,
            BACKEND,
            ("--checkpointing", {"action": "store_true", "help": CHECKPOINTING}),
            ("--recipe", {"default": "", "metavar": "R", "help": "a YAML file, or a Python file with recipe()"}),
            (
                "--controls",
                {
                    "action": "store_true",
                    "help": "also score a constant answer, a plain baseline, a random trunk and no trunk",
                },
            ),
            ("--overwrite", {"action": "store_true", "help": "replace the run in RUN"}),
            (
                "--add-to",
                {"default": "", "metavar": "MODEL", "help": "add what was fitted to a saved model, see below"},
            ),
            ("--name", {"default": "", "metavar": "NAME", "help": "what its task is called there"}),
        ),
        lambda: FIT_EPILOG.format(tasks=", ".join(task_names()), inputs=INPUTS_EPILOG),
        overrides=True,
    ),
    "evaluate": Command(
        "score a trained model on labelled data",
        (
            RUN,
            ("data", {"nargs": "?", "default": "", "metavar": "DATA", "help": SCORED}),
            ("--split", {"default": "", "help": "train, val, test, all, or new (not of the run)"}),
            ONE_TASK,
            TARGET,
            TRUNK,
            DEVICE,
            BACKEND,
        ),
    ),
    "predict": Command(
        "predict for new files; one row for each, in order",
        (
            RUN,
            PATHS,
            ("--out", {"required": True, "metavar": "FILE", "help": ".csv, .tsv, .parquet or .jsonl"}),
            ONE_TASK,
            ("--gallery", {"default": "", "metavar": "DATA", "help": GALLERY}),
            ("--classes", {"action": "append", "metavar": "A,B,...", "help": CLASSES}),
            ("--labels", {"action": "append", "dest": "classes", "metavar": "A,B,...", "help": "the same"}),
            ("--templates", {"default": "", "metavar": "T", "help": TEMPLATES}),
            ("--captions", {"default": "", "metavar": "FILE", "help": CAPTIONS}),
            ("--k", {"type": int, "metavar": "N", "help": "nearest captions a sample; default: 5"}),
            *SHARDS,
            TRUNK,
            DEVICE,
            BACKEND,
        ),
    ),
    "explain": Command(
        "show which places of a sample an answer rests on: a picture and a JSON file for each",
        (
            RUN,
            PATHS,
            ("--out", {"required": True, "metavar": "DIR", "help": "the folder that takes them"}),
            ("--answer", {"default": "", "metavar": "A", "help": "a class or label; default: the model's own answer"}),
            ("--places", {"type": int, "default": 100, "metavar": "N", "help": PLACES}),
            ("--control", {"action": "store_true", "help": CONTROL}),
            ("--most", {"type": int, "default": 20, "metavar": "N", "help": "samples; default: %(default)s"}),
            ONE_TASK,
            TRUNK,
            DEVICE,
        ),
    ),
    "embed": Command(
        "turn each sample into one vector; an interrupted call continues",
        (
            PATHS,
            ("--modality", {"default": "", "metavar": "M", "help": "needed unless --inputs or --model is given"}),
            INPUTS,
            ("--encoder", {"default": "", "metavar": "E", "help": "default: meta-b16"}),
            ("--target", {"default": "", "metavar": "COL", "help": "a column to leave out, such as the label"}),
            ("--model", {"default": "", "metavar": "RUN", "help": "a trained model; or a run of pretrain or align"}),
            _side("the first"),
            ONE_TASK,
            DEVICE,
            ("--pool", {"default": "", "help": POOLS}),
            ("--precision", {"default": "auto", "choices": PRECISIONS, "help": PRECISION}),
            ("--backend", {"default": "auto", "choices": ("auto", *BACKENDS), "help": CHOSEN}),
            *SHARDS,
            ("--out", {"required": True, "metavar": "FILE", "help": VECTORS}),
        ),
        lambda: EMBED_EPILOG,
        overrides=True,
    ),
    "search": Command(
        "find what is nearest to each input in what 'embed' wrote, or nearly the same in it",
        (
            ("index", {"metavar": "INDEX", "help": "the file or folder that 'embed' wrote"}),
            ("paths", {"nargs": "*", "metavar": "PATH", "help": "files, folders, a manifest or a table"}),
            ("--k", {"type": int, "default": 10, "metavar": "N", "help": "nearest ones a query; default: %(default)s"}),
            ("--duplicates", {"action": "store_true", "help": "instead of PATH: pairs of INDEX that are alike"}),
            ("--above", {"type": float, "default": None, "metavar": "S", "help": "cosine of pairs; default: 0.95"}),
            ("--approximate", {"action": "store_true", "help": APPROXIMATE}),
            ("--text", {"action": "append", "default": [], "metavar": "T", "help": "instead of PATH: words"}),
            _side("that of INDEX"),
            ("--through", {"action": "append", "default": [], "metavar": "RUN", "help": THROUGH}),
            ("--model", {"default": "", "metavar": "RUN", "help": "the model of INDEX, if it was moved"}),
            DEVICE,
            ("--out", {"default": "", "metavar": "FILE", "help": OUT_OF_SEARCH}),
        ),
        lambda: SEARCH_EPILOG,
    ),
    "serve": Command(
        "answer over HTTP with trained models, or with vectors of an encoder",
        (
            ("runs", {"nargs": "*", "metavar": "RUN", "help": "run folders or saved models, or NAME=RUN"}),
            ("--encoder", {"default": "", "metavar": "E", "help": "also plain vectors by this encoder"}),
            ("--trunk", {"default": "", "metavar": "PATH", "help": "the trunk's file of the runs, if it was moved"}),
            ("--index", {"default": "", "metavar": "INDEX", "help": "what 'embed' wrote, for /neighbours"}),
            ("--model", {"default": "", "metavar": "RUN", "help": "the model of INDEX, if it was moved"}),
            ("--host", {"default": "127.0.0.1", "metavar": "H", "help": "default: %(default)s, this machine alone"}),
            ("--port", {"type": int, "default": 8000, "metavar": "N", "help": "default: %(default)s"}),
            ("--token-file", {"default": "", "metavar": "FILE", "help": SERVE_TOKEN}),
            ("--urls", {"action": "store_true", "help": 'let requests name public files: {"url": ...}'}),
            (
                "--body-mb",
                {"type": float, "default": 32.0, "metavar": "N", "help": "of a request; default: %(default)g"},
            ),
            ("--files", {"type": int, "default": 64, "metavar": "N", "help": "of a request; default: %(default)s"}),
            ("--samples", {"type": int, "default": 1000, "metavar": "N", "help": "the same; default: %(default)s"}),
            ("--queue", {"type": int, "default": 64, "metavar": "N", "help": SERVE_QUEUE}),
            ("--wait-ms", {"type": float, "default": 8.0, "metavar": "N", "help": SERVE_WAIT}),
            ("--tokens", {"type": int, "default": 4096, "metavar": "N", "help": "in one batch; default: %(default)s"}),
            ("--decoders", {"type": int, "default": 0, "metavar": "N", "help": SERVE_DECODERS}),
            DEVICE,
            BACKEND,
        ),
        lambda: SERVE_EPILOG,
    ),
    "pretrain": Command(
        "train an encoder of your own on pairs of pictures and texts",
        (
            ("pairs", {"metavar": "PAIRS", "help": "see below"}),
            ("--out", {"required": True, "metavar": "RUN", "help": "the run folder; an unfinished run continues"}),
            ("--preset", {"default": "", "metavar": "P", "help": "vit-ti16, vit-s16, vit-b16 (default), vit-l14"}),
            ("--val", {"default": "", "metavar": "PAIRS", "help": "pairs that validate; default: some are held out"}),
            ("--steps", {"type": int, "metavar": "N"}),
            ("--seed", {"type": int, "metavar": "S"}),
            DEVICE,
            ("--overwrite", {"action": "store_true", "help": "replace the run in RUN"}),
        ),
        lambda: PRETRAIN_EPILOG,
        overrides=True,
    ),
    "align": Command(
        "bring a frozen encoder's samples and texts, or two kinds of samples, into one space",
        (
            DATA,
            (
                "--inputs",
                {"required": True, "metavar": "I", "help": "two, as picture=image(file),words=text(t)"},
            ),
            ("--out", {"required": True, "metavar": "RUN", "help": "the run folder"}),
            ("--encoder", {"default": "", "metavar": "E", "help": "default: meta-b16; see 'metatransformer weights'"}),
            ("--text", {"default": "minilm", "metavar": "T", "help": TEXT_SIDE}),
            ("--concept", {"default": "", "metavar": "COL", "help": CONCEPT}),
            ("--seed", {"type": int, "metavar": "S"}),
            DEVICE,
            ("--controls", {"action": "store_true", "help": "also shuffled pairs, a random trunk, plain features"}),
            ("--overwrite", {"action": "store_true", "help": "replace the run in RUN"}),
        ),
        lambda: ALIGN_EPILOG,
        overrides=True,
    ),
    "export": Command(
        "write a model as a graph (ONNX, OpenVINO, torch) in a folder that predicts without this package",
        (
            RUN,
            ("--out", {"required": True, "metavar": "DIR", "help": "a new folder"}),
            ("--format", {"default": "onnx", "metavar": "F", "help": "onnx (default), openvino or torch"}),
            ("--data", {"default": "", "metavar": "DATA", "help": COMPARED_ON}),
            ONE_TASK,
            TRUNK,
        ),
        lambda: EXPORT_EPILOG,
    ),
    "push": Command(
        "upload a trained model to the Hugging Face Hub, with a page that tells of it",
        (
            RUN,
            ("repository", {"metavar": "OWNER/NAME"}),
            ("--private", {"action": "store_true", "help": "a repository that only its owner sees"}),
            (
                "--with-samples",
                {"action": "store_true", "help": "also where its head holds features of training samples"},
            ),
            TRUNK,
        ),
    ),
    "pull": Command(
        "download a model that 'push' uploaded",
        (
            ("repository", {"metavar": "OWNER/NAME"}),
            ("--out", {"required": True, "metavar": "RUN", "help": "a new folder"}),
        ),
    ),
    "weights": Command(
        "show the known encoders and where each was looked for and found",
        (NAME, ("--fetch", {"action": "store_true", "help": "fetch and convert it now"})),
    ),
    "bench": Command(
        "the default recipes on real data, each beside its controls and baselines",
        (
            ("suite", {"nargs": "?", "default": "real12", "metavar": "SUITE", "help": "real12, tasks, paper or speed"}),
            ("--data", {"default": "", "metavar": "DIR", "help": "the folder that holds the data sets"}),
            ("--out", {"default": "", "metavar": "DIR", "help": "results; rows and runs that are in it are kept"}),
            ("--only", {"nargs": "+", "default": [], "metavar": "ROW", "help": "only these rows"}),
            ("--list", {"action": "store_true", "help": "show the rows and where to get their data"}),
            ("--quick", {"action": "store_true", "help": "a part of the data, one fold, one seed"}),
            ("--peers", {"nargs": "+", "default": [], "metavar": "PYTHON", "help": PEERS}),
            TRUNK_OF_DEMO,
            (
                "--seeds",
                {"type": int, "default": 0, "metavar": "N", "help": "runs of each model; default: as the row says"},
            ),
            (
                "--trunks",
                {"type": int, "default": 0, "metavar": "N", "help": "random trunks; default: as the row says"},
            ),
            (
                "--jobs",
                {"type": int, "default": 1, "metavar": "N", "help": "rows at the same time; default: %(default)s"},
            ),
        ),
        lambda: BENCH_EPILOG,
        overrides=True,
    ),
    "completion": Command(
        "print a script that completes commands, names and files in your shell",
        (("shell", {"choices": ("bash", "zsh", "fish")}),),
        lambda: COMPLETION_EPILOG,
        module="completion",
    ),
    "doctor": Command("check this installation: versions, device, optional libraries, a self-test"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = COMMANDS.get(words[0]) if words else None
    words, overrides = _without_overrides(words, chosen) if chosen and chosen.overrides else (words, [])
    options = _parser(chosen).parse_args(words)
    options.overrides = overrides
    paths = getattr(options, "paths", [])
    options.given = paths[0] if len(paths) == 1 else paths  # one is a folder, manifest or table; several are files
    module = COMMANDS[options.command].module
    commands = importlib.import_module(f"metatransformer.faces.cli.{module}")
    try:
        result, status = getattr(commands, options.command)(options)
    except MetaTransformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was finished is on disk, the same command continues", file=sys.stderr)
        return 130
    # Of the processes that torchrun starts, the first one speaks for all.
    if result is not None and os.environ.get("RANK", "0") == "0":
        print(json.dumps(result), flush=True)
    return status


def _without_overrides(words: list[str], command: Command) -> tuple[list[str], list[str]]:
    """Returns the other words and the ``key.sub=value`` ones; an existing file is none of these."""
    flags = [name for name, settings in command.arguments if settings.get("action") == "store_true"]

    def takes_value(word: str) -> bool:
        return word.startswith("--") and "=" not in word and word not in flags

    # A word behind an option that takes a value is that value.
    chosen = [
        position
        for position, word in enumerate(words)
        if OVERRIDE.match(word) and not os.path.exists(word) and not takes_value(words[position - 1])
    ]
    rest = [word for position, word in enumerate(words) if position not in chosen]
    return rest, [words[position] for position in chosen]


def _parser(chosen: Command | None = None) -> argparse.ArgumentParser:
    """Returns the parser of all commands; only the ``chosen`` one says all that it may."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="metatransformer", description=DESCRIPTION, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        epilog = command.epilog() if command is chosen else ""
        own = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            epilog=epilog,
            formatter_class=raw,
            allow_abbrev=False,
        )
        for argument, settings in command.arguments:
            own.add_argument(argument, **settings)
    return parser
