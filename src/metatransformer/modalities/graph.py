"""Graph: molecules and general graphs; a token a node, an edge, a kind of neighbourhood, a number.

File: CSV, TSV, JSON lines or Parquet with a column of SMILES; SDF and MOL (several molecules a file, properties as
targets); GraphML; edge lists (.edgelist, .edges: two node names and perhaps a weight a line); a folder in TU text
format (DS_A.txt, DS_graph_indicator.txt, ...). In memory: SMILES, ``io.graphs.Graph``, networkx graphs, or mappings
with ``nodes`` (a number) and ``edges`` [m, 2].
Tokens: a token a node and an edge: its words (element, charge, hydrogens, hybridisation, aromatic, ring, chirality; bond,
conjugated, ring, stereo; or labels and attributes of your own) looked up and summed, its numbers coded, its type, and the
identifiers of its node or of both its nodes (Laplacian eigenvectors with random signs in training, orthogonal random
vectors, or return chances of random walks). Beside them a token for each kind of circular neighbourhood that training saw
more than once (Morgan, Weisfeiler-Lehman) with how often it occurs, and a token for each number of the whole (RDKit
descriptors; size, degrees, cycles). No positions: a graph numbered otherwise has the same tokens.
Sources: Meta-Transformer (arXiv 2307.10802), which takes TokenGT (arXiv 2207.02505) for graphs; extended-connectivity
fingerprints (Rogers and Hahn 2010) for neighbourhoods; Gorishniy et al. 2022 (arXiv 2203.05556) for codes of numbers.
Errors: a molecule that RDKit does not understand, no atom or node, an edge to a node that is not there, infinite numbers,
properties that training did not have, more tokens than ``max_tokens``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metatransformer.core.errors import DataError, NotFittedError, UsageError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, SummaryToken, Tokenizer, Transform
from metatransformer.core.samples import Record, Sample
from metatransformer.core.tokens import Span, Tokens
from metatransformer.io.columns import Column, column_from
from metatransformer.io.graph_index import GRAPH_SUFFIXES, index_graphs, load_graph
from metatransformer.io.graphs import Graph, Word, degrees
from metatransformer.nn.graph import (
    EndEmbedding,
    laplacian_identifiers,
    random_identifiers,
    walk_identifiers,
)
from metatransformer.nn.numeric import PiecewiseLinear, bin_edges

STD = 0.128  # per channel of a whole token: what focus-s14's patch embeddings measure on photographs
PARTS = 3  # words, numbers, identifiers: what a token of a node or edge is summed from
NODE, EDGE, FIRST = 1, 2, 3  # rows of the table of words; 0 is "nothing", and stays zero
MOST_WORDS = 40  # distinct whole numbers up to which a column of them is taken for words
COUNTS = 8  # occurrences of a neighbourhood that are told apart
DEGREE = "edges at the node"
FINGERPRINT = 1024  # entries of the plain baseline's counts; the frequent neighbourhoods have one to themselves
DEFAULTS = {"task.name": "regress", "head.read": [0.33], "optim.lr": 3e-3}


@dataclass(frozen=True)
class GraphOptions:
    """Where molecules stand, how they are split, and what becomes a token.

    ``column``: the column of SMILES, "auto" = found by its name. ``unparsed``: "refuse" a molecule that RDKit does not
    understand, or "skip" it. ``split``: where data brings none, "random", or by "scaffold" (Bemis-Murcko; molecules
    without a ring stand for themselves). ``identifiers`` and ``size``: what says which nodes an edge joins, and how many
    components it has. ``environments``: the most kinds of neighbourhood with a token of their own, the frequent
    first (0 = none). ``whole``: whether numbers of the whole get tokens. ``max_tokens``: a graph with more nodes and
    edges is refused.
    """

    column: str = "auto"
    unparsed: Literal["refuse", "skip"] = "refuse"
    split: Literal["random", "scaffold"] = "random"
    identifiers: Literal["laplacian", "random", "walk"] = "laplacian"
    size: int = 16
    environments: int = 2048
    whole: bool = True
    max_tokens: int = 2048
    bins: int = 16

    def __post_init__(self) -> None:
        for name, good, must in (
            ("size", self.size >= 1, "be at least 1"),
            ("environments", self.environments >= 0, "be at least 0"),
            ("max_tokens", self.max_tokens >= 1, "be at least 1"),
            ("bins", self.bins >= 2, "be at least 2"),
        ):
            if not good:
                raise UsageError(f"input.{name}", must=must, found=str(getattr(self, name)))


class GraphTransform(Transform):
    """Graph -> codes and numbers of its tokens, identifiers of its nodes, neighbourhoods, numbers of the whole.

    Learns ``nodes_`` and ``links_`` (columns of properties: words, or means, scales and bins of numbers), ``kinds_`` (the
    neighbourhoods that have a token) and ``whole_`` (the numbers of the whole).
    """

    def __init__(self, options: GraphOptions, stem: Stem) -> None:
        del stem
        self.options = options
        self.nodes_: tuple[Column, ...] = ()
        self.links_: tuple[Column, ...] = ()
        self.whole_: tuple[Column, ...] = ()
        self.kinds_: tuple[int, ...] = ()
        self.fitted_ = False

    def fit(self, samples: Iterable[Sample]) -> None:
        """Learns words, scales, bins and neighbourhoods from training graphs."""
        nodes, links, whole = _Columns(), _Columns(), _Columns()
        kinds: Counter[int] = Counter()
        for sample in samples:
            graph = sample.inputs["graph"]
            nodes.add(_node_columns(graph))
            links.add(graph.links)
            whole.add({name: [value] for name, value in graph.whole.items()})
            kinds.update(graph.environments.keys())
        bins = self.options.bins
        shared = [(kind, count) for kind, count in kinds.items() if count > 1]
        shared.sort(key=lambda pair: (-pair[1], pair[0]))
        self._take(
            nodes=nodes.learn(bins=bins),
            links=links.learn(bins=bins),
            whole=tuple(_number(name, found, bins=bins) for name, found in whole.numbers()),
            kinds=tuple(kind for kind, _ in shared[: self.options.environments]),
        )

    def _take(
        self,
        *,
        nodes: Sequence[Column],
        links: Sequence[Column],
        whole: Sequence[Column],
        kinds: Sequence[int],
    ) -> None:
        """Sets what was learned and what reading a graph needs of it."""
        self.nodes_, self.links_, self.whole_ = tuple(nodes), tuple(links), tuple(whole)
        self.kinds_, self.fitted_ = tuple(kinds), True
        self._kind = {kind: row for row, kind in enumerate(self.kinds_, start=1)}
        self._rows: list[dict[str, int]] = []
        row = FIRST
        for column in self.words:
            self._rows.append({word: row + i for i, word in enumerate(column.words)})
            row += len(column.words)
        self.rows = row

    @property
    def words(self) -> list[Column]:
        """The columns of words, those of nodes first."""
        return [column for column in (*self.nodes_, *self.links_) if column.kind == "category"]

    @property
    def numbers(self) -> list[Column]:
        """The columns of numbers, those of nodes first."""
        return [column for column in (*self.nodes_, *self.links_) if column.kind == "number"]

    def __call__(self, sample: Sample) -> Sample:
        """Returns the arrays of the fields.

        Raises:
            NotFittedError: before ``fit``.
            DataError: a property is missing or of another kind than in training; too many tokens.
        """
        if not self.fitted_:
            raise NotFittedError("graph transform", must="have learned its words", found="none", do="Fit first.")
        graph: Graph = sample.inputs["graph"]
        tokens = graph.count + len(graph.edges)
        if tokens > self.options.max_tokens:
            raise DataError(
                sample.key,
                must=f"have at most {self.options.max_tokens} nodes and edges",
                found=f"{tokens:,}",
                do="Cut it into parts, or set input.max_tokens (memory grows with its square).",
            )
        codes, numbers = self._tokens(graph, key=sample.key)
        own = np.repeat(np.arange(graph.count)[:, None], 2, axis=1)
        identifiers = self._identifiers(graph)
        places = graph.places if graph.places is not None else _spectral(graph)
        marks = np.zeros(tokens, dtype=np.int64)
        marks[: len(graph.marks)] = graph.marks
        return sample.with_inputs(
            {
                "codes": codes,
                "numbers": numbers,
                "ends": np.concatenate([own, graph.edges]).astype(np.int64),
                "identifiers": identifiers,
                "directed": np.array(graph.directed, dtype=np.float32),
                "environments": self._environments(graph),
                "whole": self._whole(graph, key=sample.key),
                "places": places.astype(np.float32),
                "marks": marks,
            }
        )

    def _tokens(self, graph: Graph, *, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns words [t, a] as rows of the table and standardised numbers [t, b], NaN where there is none."""
        words, numbers = self.words, self.numbers
        tokens = graph.count + len(graph.edges)
        codes = np.zeros((tokens, 1 + len(words)), dtype=np.int64)
        codes[: graph.count, 0], codes[graph.count :, 0] = NODE, EDGE
        values = np.full((tokens, len(numbers)), np.nan, dtype=np.float32)
        parts = ((_node_columns(graph), self.nodes_, 0, "node"), (graph.links, self.links_, graph.count, "edge"))
        for given, columns, start, what in parts:
            for column in columns:
                if column.name not in given:
                    raise DataError(
                        key,
                        must=f"have the {what} property '{column.name}', as in training",
                        found=f"{', '.join(given) or 'none'}",
                    )
                cells = given[column.name]
                stretch = slice(start, start + len(cells))
                if column.kind == "category":
                    place = next(i for i, other in enumerate(words) if other is column)
                    known = self._rows[place]
                    codes[stretch, 1 + place] = [known.get(_word(cell), 0) for cell in cells]
                else:
                    place = next(i for i, other in enumerate(numbers) if other is column)
                    values[stretch, place] = _standard(cells, column, where=f"{key}, {what} property '{column.name}'")
        return codes, values

    def _identifiers(self, graph: Graph) -> np.ndarray:
        size = self.options.size
        if self.options.identifiers == "laplacian":
            return laplacian_identifiers(graph.edges, count=graph.count, size=size)
        if self.options.identifiers == "walk":
            return walk_identifiers(graph.edges, count=graph.count, size=size)
        return random_identifiers(count=graph.count, size=size, rng=np.random.default_rng(0))

    def _environments(self, graph: Graph) -> np.ndarray:
        """Returns row and number of the known neighbourhoods, then 0 and how many others there are."""
        known = [(self._kind[kind], count) for kind, count in graph.environments.items() if kind in self._kind]
        rest = sum(count for kind, count in graph.environments.items() if kind not in self._kind)
        return np.array([(0, rest), *sorted(known)], dtype=np.int64)

    def _whole(self, graph: Graph, *, key: str) -> np.ndarray:
        missing = [column.name for column in self.whole_ if column.name not in graph.whole]
        if missing:
            raise DataError(
                key,
                must="be of the kind that training saw (molecules, or general graphs)",
                found=f"a graph without '{missing[0]}'",
            )
        parts = [_standard([graph.whole[column.name]], column, where=f"{key}, {column.name}") for column in self.whole_]
        return np.concatenate(parts)

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Returns the graph with the signs of its eigenvectors flipped, or with other random identifiers."""
        identifiers = sample.inputs["identifiers"]
        if self.options.identifiers == "laplacian":
            identifiers = identifiers * rng.choice(np.array([-1, 1], dtype=np.float32), size=identifiers.shape[1])
        elif self.options.identifiers == "random":
            count, size = identifiers.shape
            identifiers = random_identifiers(count=count, size=size, rng=rng)
        return sample.with_inputs({**sample.inputs, "identifiers": identifiers})

    @property
    def notes(self) -> tuple[str, ...]:
        """How the graphs were understood."""
        return ()

    def state(self) -> dict[str, Any]:
        """Returns columns and neighbourhoods."""
        columns = {"nodes": self.nodes_, "links": self.links_, "whole": self.whole_}
        return {name: [asdict(column) for column in found] for name, found in columns.items()} | {
            "kinds": list(self.kinds_)
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back columns and neighbourhoods."""
        found = {name: [column_from(column) for column in state[name]] for name in ("nodes", "links", "whole")}
        self._take(**found, kinds=state["kinds"])


class _Columns:
    """Cells of training graphs by column, in the order of their first appearance."""

    def __init__(self) -> None:
        self.cells: dict[str, list[Word]] = {}

    def add(self, columns: Mapping[str, Sequence[Word]]) -> None:
        for name, cells in columns.items():
            self.cells.setdefault(name, []).extend(cells)

    def learn(self, *, bins: int) -> tuple[Column, ...]:
        """Returns what each column is; one without any value is left out."""
        found = []
        for name, cells in self.cells.items():
            known = [cell for cell in cells if cell is not None]
            if not known:
                continue
            if name == DEGREE or (all(isinstance(cell, float) for cell in known) and not _few(known)):
                found.append(_number(name, known, bins=bins))
            else:
                words = Counter(_word(cell) for cell in known)
                order = sorted(words, key=lambda word: (-words[word], word))
                found.append(Column(name, "category", words=tuple(order)))
        return tuple(found)

    def numbers(self) -> list[tuple[str, list[Word]]]:
        """Returns the columns with the cells that are known; those that never are, are left out."""
        found = [(name, [c for c in cells if c is not None and c == c]) for name, cells in self.cells.items()]
        return [(name, cells) for name, cells in found if cells]


def _few(cells: Sequence[Any]) -> bool:
    """Returns whether numbers are rather labels: whole, and few different ones."""
    distinct = set(cells)
    return len(distinct) <= MOST_WORDS and all(cell == int(cell) for cell in distinct)


def _word(cell: Word) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _node_columns(graph: Graph) -> dict[str, Sequence[Word]]:
    """Returns the columns of a graph's nodes, their degree among them, which every graph has."""
    return {DEGREE: degrees(graph).astype(float).tolist(), **graph.nodes}


def _number(name: str, cells: Sequence[Any], *, bins: int) -> Column:
    values = np.array(cells, dtype=np.float64)
    column = Column(name, "number", mean=float(values.mean()), scale=float(values.std()) or 1.0)
    return replace(column, edges=tuple(bin_edges((values - column.mean) / column.scale, bins=bins)))


def _standard(cells: Sequence[Word], column: Column, *, where: str) -> np.ndarray:
    if odd := next((cell for cell in cells if isinstance(cell, str)), None):
        raise DataError(where, must="hold numbers, as in training", found=repr(odd))
    values = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    return np.clip((values - column.mean) / column.scale, -1e30, 1e30).astype(np.float32)


def _spectral(graph: Graph) -> np.ndarray:
    """Returns two smooth eigenvectors as places to draw nodes at."""
    return laplacian_identifiers(graph.edges, count=graph.count, size=3)[:, 1:]


class GraphTokenizer(Tokenizer):
    """The summary token, then numbers of the whole, nodes and edges, neighbourhoods."""

    def __init__(self, options: GraphOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        assert isinstance(transform, GraphTransform) and transform.fitted_
        words = max(len(transform.nodes_), len(transform.links_), 1)
        part = STD / PARTS**0.5
        table = torch.randn(transform.rows, width) * part / words**0.5
        table[0] = 0
        self.table = nn.Parameter(table)
        edges = [column.edges for column in transform.numbers]
        self.number = PiecewiseLinear(edges, width=width, std=part / len(edges) ** 0.5)
        self.ends = EndEmbedding(options.size, width=width, std=part * 2)
        self.with_whole = options.whole and bool(transform.whole_)
        if self.with_whole:
            whole = [column.edges for column in transform.whole_]
            self.whole = PiecewiseLinear(whole, width=width, std=STD * 0.6)
            self.column = nn.Parameter(torch.randn(len(whole), width) * STD * 0.8)
        self.with_kinds = options.environments > 0
        if self.with_kinds:
            self.kinds = nn.Parameter(torch.randn(1 + len(transform.kinds_), width) * STD * 0.8)
            self.count = nn.Parameter(torch.randn(1 + COUNTS, width) * STD * 0.6)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the tokens of a batch; see the fields of the modality for its arrays."""
        parts = [self._graph(inputs, masks["codes"])]
        real = [masks["codes"]]
        if self.with_whole:
            whole = inputs["whole"]
            gone = whole.isnan()[..., None]
            parts.insert(0, self.whole(whole.nan_to_num()).masked_fill(gone, 0) + self.column)
            real.insert(0, torch.ones_like(whole, dtype=torch.bool))
        if self.with_kinds:
            mask = masks["environments"]
            kind, count = inputs["environments"].masked_fill(~mask[..., None], 0).unbind(dim=-1)
            parts.append(F.embedding(kind, self.kinds) + F.embedding(count.clamp(max=COUNTS), self.count))
            real.append(mask)
        x, mask = self.summary(torch.cat(parts, dim=1), torch.cat(real, dim=1))
        return Tokens(x, mask, (Span("graph", 0, x.shape[1], summary=0),))

    def _graph(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Returns the tokens of nodes and edges ``[B, t, D]``."""
        codes = inputs["codes"].masked_fill(~mask[..., None], 0)
        ends = inputs["ends"].masked_fill(~mask[..., None], 0)
        numbers = inputs["numbers"]
        gone = numbers.isnan() | ~mask[..., None]
        flat = self.number(numbers.masked_fill(gone, 0).flatten(0, 1)).unflatten(0, numbers.shape[:2])
        x = F.embedding(codes, self.table, padding_idx=0).sum(dim=2)
        x = x + flat.masked_fill(gone[..., None], 0).sum(dim=2)
        return x + self.ends(inputs["identifiers"], ends, inputs["directed"])


def load(record: Record) -> dict[str, Graph]:
    """Returns ``graph``.

    Raises:
        DataError: see the module.
    """
    return {"graph": load_graph(record)}


def features(sample: Sample) -> np.ndarray:
    """Returns the numbers of the whole (0 where unknown), and log(1 + count) of every known neighbourhood."""
    rows, counts = sample.inputs["environments"].T
    fingerprint = np.bincount(rows % FINGERPRINT, weights=counts, minlength=FINGERPRINT)
    return np.concatenate([np.nan_to_num(sample.inputs["whole"]), np.log1p(fingerprint)]).astype(np.float32)


def draw(axes: Any, sample: Sample) -> None:
    """Paints nodes and edges."""


def synthesize(rng: np.random.Generator, label: int) -> dict[str, Any]:
    """Returns a chain with an alcohol (even label) or a substituted benzene (odd label) as SMILES."""
    tail = "".join(rng.choice(["C", "C", "C", "N", "O", "C(=O)", "C(F)"], size=int(rng.integers(1, 6))))
    return {"smiles": f"c1ccc(C{tail})cc1" if label % 2 else f"OC{tail}C"}


MODALITY = Modality(
    name="graph",
    summary="molecules (SMILES, SDF) and general graphs (GraphML, edge lists, TU format)",
    source=Source(kind="table", suffixes=GRAPH_SUFFIXES, index=index_graphs),
    fields={
        "codes": Field("t* a", "int64", low=0, summary="words of each node and edge, as rows of one table"),
        "numbers": Field("t* b", missing=True, summary="standardised numbers of each node and edge"),
        "ends": Field("t* 2", "int64", low=0, summary="both nodes of an edge; a node twice"),
        "identifiers": Field("n* k", low=-1.001, high=1.001, summary="what tells the nodes apart"),
        "directed": Field("", low=0, high=1, summary="whether the ends of an edge differ"),
        "environments": Field("s* 2", "int64", low=0, summary="kinds of neighbourhood and how often"),
        "whole": Field("d", missing=True, summary="standardised numbers of the whole graph"),
        "places": Field("n* 2", summary="where nodes are drawn, pictures only"),
        "marks": Field("t*", "int64", low=0, summary="atomic numbers, 10 x bond orders, pictures only"),
    },
    options=GraphOptions,
    load=load,
    transform=GraphTransform,
    tokenizer=GraphTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="the class token; words, numbers and neighbourhoods are learned from your graphs",
    units="none",
    task="regress",
    metric="rmse",
    defaults=DEFAULTS,
    baseline="boosting",
    requires=("rdkit", "networkx"),
    extra="graph",
)
