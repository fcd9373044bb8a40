"""How fast the package is on this machine, beside others that do the same work on the same weights, in one run.

What is compared takes turns, so that whatever else the machine does meets all alike; a ratio is of times of one turn.
Weights are random: they cost what trained ones cost. Peers: the usual loop over files with Pillow and transformers, and
with timm and OpenCLIP where an environment of their own has them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from metatransformer.bench import speed_peers
from metatransformer.bench.speed_figure import speed_figure
from metatransformer.bench.speed_peers import BATCH, NAMES, SIDE, WORD
from metatransformer.core.batch import collate
from metatransformer.core.errors import MissingDependencyError, UsageError
from metatransformer.core.tokens import Span, Tokens
from metatransformer.data.write import atomic_file, write_json
from metatransformer.faces.embedder import Embedder
from metatransformer.fit.memo import Memo
from metatransformer.fit.store import FeatureStore
from metatransformer.infer.loader import Loader, run_batches
from metatransformer.infer.sources import examples_of, read_unlabelled
from metatransformer.machine.about import about_machine
from metatransformer.machine.clock import memory_gb
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_precision
from metatransformer.pipeline import Pipeline
from metatransformer.trunk import load_encoder
from metatransformer.trunk.backends import backend, has_openvino
from metatransformer.trunk.encoder import Encoder, EncoderConfig

STEP = 16  # samples of a training step
SHAPES = ((640, 480), (480, 640), (800, 600), (500, 500), (1024, 683), (375, 500))  # width, height of photographs
LENGTHS = (64, 256, 1024, 4096, 8192)  # tokens of one row
BATCHES = (1, 4, 16, 64)  # rows of 257 tokens
# The parts of a profile, by what torch calls its operations.
PARTS = {
    "matrix products": ("addmm", "mm", "bmm", "linear", "convolution"),
    "attention": ("attention",),
    "GELU": ("gelu",),
    "normalisation": ("layer_norm",),
}
QUIET = Console(quiet=True)
CPU = torch.device("cpu")
Precision = Literal["float32", "bfloat16"]


class Size(NamedTuple):
    """A trunk: its width, heads, patch, and the class of transformers that has this layout."""

    width: int
    heads: int
    patch: int
    kind: str


SIZES = {"ViT-B/16": Size(768, 12, 16, "ViT"), "ViT-S/14": Size(384, 6, 14, "Dinov2")}


@dataclass(frozen=True)
class Line:
    """Seconds of each turn of two ways to do ``what``, the second ours, and what there is to say of it."""

    what: str
    other: str
    ours: str
    seconds: tuple[tuple[float, ...], tuple[float, ...]]
    samples: int
    note: str = ""

    @property
    def name(self) -> str:
        """Which work by which two ways."""
        return f"{self.what}, {self.ours} / {self.other}"

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, by turn, rising."""
        return sorted(other / own for other, own in zip(*self.seconds, strict=True))

    def cells(self) -> tuple[str, ...]:
        """Returns the row of a table."""
        low, middle, high = self.ratios[0], statistics.median(self.ratios), self.ratios[-1]
        rates = [f"{self.samples / min(times):,.1f}" for times in self.seconds]
        return self.what, self.other, rates[0], self.ours, rates[1], f"{middle:.2f} ({low:.2f}..{high:.2f})", self.note


HEAD = ("work", "beside", "a second", "ours", "a second", "times faster (of turns)", "")


def run_speed(out: Path, *, quick: bool, peers: Sequence[str] = (), console: Console) -> dict[str, Any]:
    """Measures all, tells it, and writes results.json and results.md into ``out``.

    ``peers`` are the Pythons of environments with timm, OpenCLIP, sentence-transformers or several of them.

    Raises:
        MissingDependencyError: transformers is not installed.
        UsageError: one of ``peers`` has none of them.
    """
    pythons = find_peers(peers)
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("transformers", extra="test", purpose="bench speed") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    turns, count = (2, 32) if quick else (5, 128)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        files = make_photographs(Path(folder) / "photos", count=count)
        for name, size in SIZES.items():
            weights = Path(folder) / name.replace("/", "-")
            for line in of_trunk(name, size, files=files, weights=weights, turns=turns, pythons=pythons):
                console.note(" | ".join(line.cells()))
                lines.append(line)
        lines += of_ragged(weights, turns=turns, count=4 * count)
        lines += of_texts(weights, turns=turns, count=4 * count, pythons=pythons)
        lines.append(of_step(turns=turns))
        lines.append(of_store(weights, files, folder=Path(folder) / "features"))
        shares = of_parts(weights, files)
    costs = "tokens a second", "peak memory, MiB"
    tables = {
        "where the time of embed goes, ViT-S/14, eager": (("part", "share of the time"), shares),
        "one row of many tokens, ViT-S/14": (
            ("tokens", "tokens a second", "peak memory, MiB"),
            of_lengths(quick=quick),
        ),
        "rows together, ViT-S/14": (("rows of 257 tokens", *costs), of_batches()),
        "start, seconds over the bare interpreter": (("command", "least of turns"), startup(turns)),
    }
    console.table("speed", list(HEAD), [line.cells() for line in lines])
    for title, (head, rows) in tables.items():
        console.table(title, list(head), rows)
    return _write(out, lines, tables)


def make_photographs(folder: Path, *, count: int) -> list[Path]:
    """Writes JPEG files of mixed shape that compress as photographs do."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        small = Image.fromarray(rng.integers(0, 256, size=(24, 32, 3), dtype=np.uint8))
        files.append(folder / f"{number}.jpg")
        small.resize(shape, Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def of_trunk(
    name: str, size: Size, *, files: Sequence[Path], weights: Path, turns: int, pythons: Mapping[str, str]
) -> Iterator[Line]:
    """Yields photographs to vectors, and the trunk alone against the products that it is made of."""
    peer = _peer(size)
    peer.save_pretrained(weights)
    loops: dict[str, Callable[[], object]] = {"transformers, float32": lambda: _plain_loop(peer, files)}
    ours = []
    vectors: dict[str, np.ndarray] = {}
    for way, precision in _ways():
        alike = {"input.size": SIDE, "input.mirrored": False}  # as the loop: the default reads the mirror image as well
        embedder = Embedder("image", encoder=str(weights), precision=precision, recipe=alike)
        embedder.fit([str(files[0])])
        ours.append(_told(way, precision))
        loops[ours[-1]] = partial(_embed, embedder, files, way, vectors, ours[-1])
    with ExitStack() as stack:
        others = [one for one in pythons if name in NAMES[one]]
        for one in others:
            loops[f"{one}, float32"] = stack.enter_context(Peer(pythons[one], one, name, files)).run
        times = take_turns(loops, turns=turns)
    what = f"{name}: {len(files)} JPEG files"
    for told in ours:
        note = (
            "" if told == "float32" else f"cosine to float32 {_cosine(vectors[told], vectors['float32']):.5f} or more"
        )
        seconds = times["transformers, float32"], times[told]
        yield Line(what, "transformers, float32", told, seconds, len(files), note)
    for one in others:
        theirs = f"{one}, float32"
        yield Line(what, theirs, ours[-1], (times[theirs], times[ours[-1]]), len(files))
    yield from _ceilings(name, size, weights, turns=turns)


def find_peers(pythons: Sequence[str]) -> dict[str, str]:
    """Returns by peer the first of some interpreters that can import it.

    Raises:
        UsageError: one of them has none, or is no interpreter.
    """
    code = f"import importlib.util as u; print(*[n for n in {list(NAMES)!r} if u.find_spec(n)])"
    must, do = f"be the Python of an environment with one of {', '.join(NAMES)}", "See docs/speed.md."
    found: dict[str, str] = {}
    for python in pythons:
        try:
            names = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise UsageError(f"--peers {python}", must=must, found=f"'{error}'", do=do) from error
        if not names:
            raise UsageError(f"--peers {python}", must=must, found="none of them", do=do)
        found = {**dict.fromkeys(names, python), **found}
    return found


class Peer:
    """A process of another environment that runs a peer's loop over files or texts when it is asked."""

    def __init__(self, python: str, peer: str, work: str, values: Sequence[Path] | Sequence[str]) -> None:
        words = [python, speed_peers.__file__, peer, work]
        # Without PYTHONPATH: it would bring this environment's packages along.
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)
        self._name = peer
        self._ask(json.dumps([*map(str, values)]), "ready")

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self) -> None:
        """Runs the loop once."""
        self._ask("again", "done")

    def _ask(self, line: str, answer: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        if (found := self._process.stdout.readline().strip()) != answer:
            raise UsageError(
                f"--peers, {self._name}", must="run its model", found=repr(found), do="See its error above."
            )


def _embed(
    embedder: Embedder, values: Sequence[Path | str], way: str, vectors: dict[str, np.ndarray], told: str
) -> None:
    with backend(way):
        vectors[told] = embedder.transform([*map(str, values)])


def _ways() -> list[tuple[str, Precision]]:
    """Returns the backends and precisions that this machine has: float32 by the layers as they stand first, what
    ``embed`` takes by itself for many files last.
    """
    native = _native()
    ways: list[tuple[str, Precision]] = [("eager", "float32"), ("eager", native)]
    if has_openvino():
        ways += [("int8", "float32"), ("openvino", native)]
    # Bfloat16 where there is some; else numbers of 8 bits.
    return sorted(dict.fromkeys(ways), key=lambda way: way[0] == ("openvino" if native == "bfloat16" else "int8"))


def _told(way: str, precision: str) -> str:
    return {"eager": precision, "int8": "int8, openvino"}.get(way, f"{precision}, {way}")


def _native() -> Precision:
    return "bfloat16" if choose_precision("auto", device=CPU) == torch.bfloat16 else "float32"


def _peer(size: Size) -> Any:
    import transformers

    config = getattr(transformers, f"{size.kind}Config")(
        hidden_size=size.width,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        patch_size=size.patch,
        image_size=SIDE,
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{size.kind}Model")(config).eval()


@torch.no_grad()
def _plain_loop(model: Any, files: Sequence[Path]) -> np.ndarray:
    """Returns vectors as a script of a few lines has them: open, resize, stack, run."""
    found = []
    for start in range(0, len(files), BATCH):
        pixels = np.stack([_pixels(file) for file in files[start : start + BATCH]])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        found.append(model(pixel_values=x).last_hidden_state[:, 0])
    return torch.cat(found).numpy()


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32) / 127.5 - 1


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / lengths).min())


@torch.no_grad()
def _ceilings(name: str, size: Size, weights: Path, *, turns: int) -> Iterator[Line]:
    """Yields a matrix product of as many operations as the trunk has, beside the trunk, by each backend."""
    encoder = load_encoder(str(weights)).encoder
    tokens, depth, native = (SIDE // size.patch) ** 2 + 1, encoder.config.depth, _native()
    x, rows = torch.randn(BATCH, tokens, size.width), BATCH * tokens
    full = Tokens(x, torch.ones(BATCH, tokens, dtype=torch.bool), (Span("image", 0, tokens),))
    dtype = getattr(torch, native)
    left, right = torch.randn(rows, size.width).to(dtype), torch.randn(size.width, 4 * size.width).to(dtype)
    operations = rows * depth * (24 * size.width**2 + 4 * tokens * size.width)
    products = operations / (2 * rows * 4 * size.width**2)

    def trunk(way: str) -> None:
        with backend(way), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            encoder.encode(full)

    def product() -> None:
        for _ in range(round(products)):
            torch.mm(left, right)

    ways = [way for way, precision in _ways() if precision == native and way != "int8"]
    times = take_turns({"product": product, **{way: partial(trunk, way) for way in ways}}, turns=turns)
    for way in ways:
        rate = operations / min(times[way]) / 1e9
        note = f"{rate:,.0f} GFLOP/s, {min(times['product']) / min(times[way]):.0%} of the products'"
        seconds = times["product"], times[way]
        yield Line(f"{name}: trunk alone, {native}", "matrix products", way, seconds, BATCH, note)


def of_ragged(weights: Path, *, turns: int, count: int) -> list[Line]:
    """Returns sounds and texts of mixed length: batches as they come, beside batches of like length."""
    rng, lines = np.random.default_rng(0), []
    waves = [rng.normal(0, 0.1, size=int(16_000 * s)).astype(np.float32) for s in rng.uniform(1, 10, size=count // 4)]
    words = _texts(rng, count=count)
    for modality, values, recipe in (("audio", waves, {}), ("text", words, {"input.vocabulary": "train"})):
        embedder = Embedder(modality, encoder=str(weights), precision=_native(), recipe=recipe)
        with_words = embedder.fit(values)
        pipeline = with_words.pipeline_
        loader = _loader(pipeline, values)
        readout = with_words._embedding.readout
        loader.prepare(QUIET, title="")
        ways: dict[str, Callable[[], object]] = {
            "arrival": lambda p=pipeline, x=loader, r=readout: _in_arrival_order(p, x, r),
            "sorted": lambda p=pipeline, x=loader, r=readout: run_batches(
                lambda batch: p.model.read_out(batch, r), p, x, console=QUIET, title=""
            ),
        }
        times = take_turns(ways, turns=turns)
        what = f"{modality} of mixed length, ViT-S/14"
        lines.append(
            Line(what, "arrival order", "like lengths together", (times["arrival"], times["sorted"]), len(values))
        )
    return lines


def _texts(rng: np.random.Generator, *, count: int) -> list[str]:
    """Returns texts of mixed length, most of 10 to 60 words."""
    return [" ".join([WORD] * int(n)) for n in np.exp(rng.normal(3.2, 0.8, size=count)).clip(2, 128)]


def of_texts(weights: Path, *, turns: int, count: int, pythons: Mapping[str, str]) -> Iterator[Line]:
    """Yields texts to vectors, a token a word, beside a peer's model of the same size."""
    texts = _texts(np.random.default_rng(0), count=count)
    vectors: dict[str, np.ndarray] = {}
    for one in (one for one in pythons if "text" in NAMES[one]):
        loops: dict[str, Callable[[], object]] = {}
        for way, precision in _ways():
            recipe = {"input.vocabulary": "train", "head.read": [-1]}  # all blocks, as theirs
            embedder = Embedder("text", encoder=str(weights), precision=precision, recipe=recipe).fit(texts)
            loops[_told(way, precision)] = partial(_embed, embedder, texts, way, vectors, _told(way, precision))
        with Peer(pythons[one], one, "text", texts) as peer:
            times = take_turns({"theirs": peer.run, **loops}, turns=turns)
        for told in loops:
            what = f"{count} texts of mixed length, ViT-S/14"
            yield Line(what, f"{one}, float32", told, (times["theirs"], times[told]), count)


def _loader(pipeline: Pipeline, data: Any) -> Loader:
    examples = examples_of(read_unlabelled(pipeline.recipe, data).records, pipeline.recipe)
    return Loader(pipeline.route, examples, cache_mb=2_000, tasks={})


@torch.no_grad()
def _in_arrival_order(pipeline: Pipeline, loader: Loader, readout: Any) -> None:
    """Computes batches as they come, each padded to its longest sample, as a plain loop does."""
    dtype, size, model = getattr(torch, _native()), pipeline.recipe.data.batch_size, pipeline.model
    for start in range(0, len(loader), size):
        samples = [loader.sample(place) for place in range(start, min(start + size, len(loader)))]
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            tokens = model.tokenize(collate(samples, fields=loader.fields))
            layers = model.encoder(tokens.x, tokens.mask, after=readout.blocks)
            readout([replace(tokens, x=x) for x in layers])


def of_store(weights: Path, files: Sequence[Path], *, folder: Path) -> Line:
    """Returns the features of a first fit beside those of a second one, in a process that remembers nothing."""
    from metatransformer.faces.sklearn import Classifier

    labels = [number % 2 for number in range(len(files))]
    model = Classifier("image", encoder=str(weights), recipe={"head.features": "trunk"}, precision="auto")
    pipeline = model.fit([*map(str, files)], labels).pipeline_

    def features() -> None:
        store = FeatureStore(folder, most_gb=1)
        Memo(most_mb=0, store=store).features(pipeline, _loader(pipeline, [*map(str, files)]), console=QUIET, title="")

    first, second = timed(features), timed(features)
    what = f"features of {len(files)} JPEG files, ViT-S/14"
    return Line(what, "first fit", "a later fit", ((first,), (second,)), len(files))


def of_parts(weights: Path, files: Sequence[Path]) -> list[tuple[str, str]]:
    """Returns which shares of the time of ``embed`` its operations take; the rest waits for files, copies and adds."""
    embedder = Embedder("image", encoder=str(weights), precision=_native(), recipe={"input.size": SIDE})
    embedder.fit([str(files[0])]).transform([*map(str, files[:2])])
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        whole = timed(lambda: embedder.transform([*map(str, files)]))
    spent = dict.fromkeys(PARTS, 0.0)
    for event in seen.key_averages():
        found = [part for part, names in PARTS.items() if any(name in event.key for name in names)]
        if found:
            spent[found[-1]] += event.self_cpu_time_total / 1e6
    spent["reading, copies, sums, Python"] = whole - sum(spent.values())
    return [(part, f"{seconds / whole:.0%}") for part, seconds in spent.items()]


def of_lengths(*, quick: bool) -> list[tuple[str, str, str]]:
    """Returns tokens a second and peak memory of rows of many tokens, each in a process of its own."""
    return [_of_rows(1, tokens, told=tokens) for tokens in (LENGTHS[:3] if quick else LENGTHS)]


def of_batches() -> list[tuple[str, str, str]]:
    """Returns tokens a second and peak memory by the number of rows of a picture that run together."""
    return [_of_rows(rows, 257, told=rows) for rows in BATCHES]


def _of_rows(rows: int, tokens: int, *, told: int) -> tuple[str, str, str]:
    seconds, peak = _in_process(f"some_rows({rows}, {tokens})")
    return f"{told:,}", f"{rows * tokens / seconds:,.0f}", f"{peak:,.0f}"


@torch.no_grad()
def some_rows(rows: int, tokens: int) -> tuple[float, float]:
    """Returns the seconds of rows through a random trunk of the size of ViT-S/14, and the peak memory in MiB."""
    encoder = Encoder(EncoderConfig(width=384, depth=12, heads=6, hidden=1536)).eval()
    encoder.freeze()
    x, dtype = torch.randn(rows, tokens, 384), getattr(torch, _native())
    full = Tokens(x, torch.ones(rows, tokens, dtype=torch.bool), (Span("image", 0, tokens),))

    def forward() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            encoder.encode(full)

    forward()
    return min(timed(forward) for _ in range(3)), 1024 * memory_gb()


def of_step(*, turns: int) -> Line:
    """Returns a training step in front of a frozen trunk in float32 beside one in the machine's own precision."""
    ways: list[Precision] = ["float32", _native()]
    times: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, float] = {}
    for _ in range(turns):
        for way in dict.fromkeys(ways):
            seconds, peaks[way] = _in_process(f"one_step({way!r})")
            times[way].append(seconds)
    first, last = ways
    note = f"peak memory {peaks[last] / peaks[first]:.0%} of {peaks[first]:,.0f} MiB"
    return Line("ViT-B/16: a step of mode ends", first, last, (tuple(times[first]), tuple(times[last])), STEP, note)


def one_step(precision: Precision) -> tuple[float, float]:
    """Returns the seconds of a step of learned tokens in front of a frozen random trunk, and the peak memory in MiB."""
    encoder = Encoder(EncoderConfig(width=768, depth=12, heads=12, hidden=3072))
    encoder.freeze()
    learned, x = torch.nn.Linear(768, 768), torch.randn(STEP, 197, 768)
    mask, spans, dtype = torch.ones(STEP, 197, dtype=torch.bool), (Span("image", 0, 197),), getattr(torch, precision)

    def step() -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = encoder.encode(Tokens(learned(x), mask, spans)).x.float().square().mean()
        loss.backward()

    step()
    return min(timed(step) for _ in range(3)), 1024 * memory_gb()


def _in_process(call: str) -> tuple[float, float]:
    """Returns two numbers that a function of this module has in a process of its own."""
    code = f"from metatransformer.bench import speed; print(*speed.{call})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak = map(float, found.stdout.split())
    return seconds, peak


def startup(turns: int) -> list[tuple[str, str]]:
    """Returns how much longer than the bare interpreter an import and the help take."""
    commands = {
        "bare": ["-c", "pass"],
        "import metatransformer": ["-c", "import metatransformer"],
        "metatransformer --help": ["-m", "metatransformer", "--help"],
    }
    ways = {
        name: lambda words=words: subprocess.run([sys.executable, *words], capture_output=True, check=True)
        for name, words in commands.items()
    }
    times = take_turns(ways, turns=max(turns, 5))
    return [(name, f"{min(times[name]) - min(times['bare']):.2f}") for name in list(commands)[1:]]


def take_turns(ways: Mapping[str, Callable[[], object]], *, turns: int) -> dict[str, tuple[float, ...]]:
    """Returns the seconds of each way in each turn, behind one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            seconds = timed(way)
            if turn:
                found[name].append(seconds)
    return {name: tuple(seconds) for name, seconds in found.items()}


def timed(way: Callable[[], object]) -> float:
    """Returns how many seconds a call takes."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _write(
    out: Path, lines: Sequence[Line], tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]]
) -> dict[str, Any]:
    about = {**about_machine(), "processors": str(os.cpu_count())}
    rows = [{"work": line.what, "beside": line.other, "ours": line.ours, "ratios": line.ratios, "seconds": line.seconds,
             "samples": line.samples, "note": line.note} for line in lines]  # fmt: skip
    parts = [_markdown(HEAD, [line.cells() for line in lines])]
    parts += [f"{title}\n\n{_markdown(*table)}" for title, table in tables.items()]
    words = ", ".join(f"{name} {value}" for name, value in about.items() if value)
    with atomic_file(out / "results.md") as temporary:
        temporary.write_text("\n\n".join([*parts, words]) + "\n", encoding="utf-8")
    with atomic_file(out / "results.png") as temporary:
        temporary.write_bytes(speed_figure([(line.name, line.ratios) for line in lines]))
    write_json(out / "results.json", {"rows": rows, "tables": {n: list(t) for n, t in tables.items()}, "about": about})
    told = {line.name: round(statistics.median(line.ratios), 3) for line in lines}
    return {"out": str(out), "rows": told}


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
