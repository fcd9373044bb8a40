"""Retrieval and re-identification: pictures of one identity are found by one another, also of identities never seen.

A target is an identity, or an identity and the camera that saw it; what the data calls query and gallery is the split
``test``. Where it says neither, every sample is a query and all others are its gallery. Outputs are vectors, which are
compared by their cosine.

Scores, as re-identification has them: R@k, the share of queries with a right picture among the nearest k; mAP, the
mean of the average precision; mINP, the mean of (right pictures / rank of the last one) of Ye et al. 2021 (arXiv
2001.04193, eq. 4).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.figures import Cards, Lines, Neighbour, Section
from metatransformer.core.samples import ROLES
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.task import Baseline, Score, Support, Task, TaskOptions, Told
from metatransformer.data.records import listing
from metatransformer.nn.near import nearest, similarities, unit

IDENTITY, CAMERA, ROLE = 0, 1, 2  # columns of an encoded target
NO_CAMERA = -1
CURVE = 20  # nearest pictures, up to which a report shows R@k
MARGIN = 0.2  # of cosines, by which the farthest right picture of a batch is to be nearer than the nearest wrong one


class Sighting(NamedTuple):
    """One identity, as one camera saw it ("" = unknown); ``role`` is query, gallery, or "" for both."""

    identity: str
    camera: str = ""
    role: str = ""


@dataclass(frozen=True)
class RetrieveOptions(TaskOptions, Settings):
    """``cameras`` says which pictures of a gallery do not count for a query: "all" count; "other" leaves out those of
    its identity by its own camera, as Market-1501 does; "sysu-mm01" (cameras 1 to 6) leaves out those of camera 2 for a
    query of camera 3, which stand in one room, counts identities in R@k, and takes the infrared cameras 3 and 6 for
    queries where the data names none; "regdb" is "all". ``near``: how many nearest pictures a prediction tells.
    ``width``: the length of the vectors.
    """

    cameras: Literal["all", "other", "sysu-mm01", "regdb"] = "all"
    near: int = 5
    width: int = 64

    key = "recipe key 'task.{}'"
    rules = (
        Rule("near", "be at least 1", lambda own: own.near >= 1),
        Rule("width", "be at least 1", lambda own: own.width >= 1),
    )


class Gallery(NamedTuple):
    """What a query is compared with: a vector, a key and an identity each."""

    vectors: Tensor
    keys: Sequence[str]
    sightings: Sequence[Sighting]


class Retrieve(Task):
    """Vectors in which an identity's pictures are near each other."""

    name = "retrieve"
    title = "retrieval"
    scores = {
        "r1": Score(error="share", words="R@1"),
        "r5": Score(error="share", words="R@5"),
        "map": Score(error="share", words="mAP"),
        "minp": Score(error="share", words="mINP"),
    }
    options = RetrieveOptions
    estimator = "Retriever"
    compares = True
    constant_words = "all alike"

    def __init__(self, options: RetrieveOptions | None = None) -> None:
        super().__init__(options)
        self.given = options or RetrieveOptions(name=self.name)
        self.identities_ = 0
        self.gallery_: Gallery | None = None
        self._names: dict[int, str] = {}  # identities by their code, for messages

    # --- targets -----------------------------------------------------------------------------------------------------

    @classmethod
    def receive(cls, told: Told) -> Told:
        """Returns sightings; a query or gallery belongs to the split test, and an identity is never torn by a split
        that is drawn.
        """
        pairs = zip(told.targets, told.splits, strict=True)
        targets = [None if target is None else _sighting(target, role=split) for target, split in pairs]
        splits = ["test" if split in ROLES else split for split in told.splits]
        if any(group is not None for group in told.groups):
            return Told(targets, splits, told.groups)
        return Told(targets, splits, [None if target is None else target.identity for target in targets])

    def check(self, target: Any) -> None:
        """Refuses what is no identity, and a camera that the rule does not know."""
        if target is not None:
            self._camera(_sighting(target))

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns how many identities there are.

        Raises:
            DataError: one identity only, or one with a single picture, of which nothing can be learned.
        """
        counts = Counter(_sighting(target).identity for target in targets)
        if len(counts) < 2:
            raise DataError("training identities", must="be at least 2", found=f"{len(counts)}")
        _require_several(counts, where="training identities")
        self.identities_ = len(counts)

    @property
    def outputs(self) -> int:
        """The length of a vector: so many identities do not differ in more directions."""
        return min(self.given.width, max(1, self.identities_ - 1))

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns a code of the identity (the same in every split), the camera's, and 1 for a query, 2 for a gallery,
        0 for both, ``[B, 3]``.
        """
        seen = [_sighting(target) for target in targets]
        codes = {identity: _code(identity) for identity in {one.identity for one in seen}}
        self._names |= {code: identity for identity, code in codes.items()}
        rows = [(codes[one.identity], self._camera(one), ("", *ROLES).index(one.role)) for one in seen]
        target = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
        if self.given.cameras == "sysu-mm01" and not target[:, ROLE].any():
            infrared = (target[:, CAMERA] == 3) | (target[:, CAMERA] == 6)
            target[:, ROLE] = torch.where(infrared, 1, 2)
        return target

    def _camera(self, one: Sighting) -> int:
        """Returns a camera as a number."""
        if self.given.cameras == "sysu-mm01":
            digits = one.camera.removeprefix("cam")
            if digits not in set("123456"):
                found = repr(one.camera) if one.camera else "none"
                raise DataError(f"camera of '{one.identity}'", must="be 1 to 6 (task.cameras=sysu-mm01)", found=found)
            return int(digits)
        if self.given.cameras == "other" and not one.camera:
            do = "Use a column 'camera' beside 'identity', or --target IDENTITY,CAMERA."
            where = f"camera of '{one.identity}'"
            raise DataError(where, must="be known (task.cameras=other)", found="none", do=do)
        return _code(one.camera) if one.camera else NO_CAMERA

    def goal(self, target: Tensor) -> Tensor:
        """Returns the code of each sample's identity, ``[B, 1]``."""
        return target[:, IDENTITY, None]

    # --- scores ------------------------------------------------------------------------------------------------------

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns R@1, R@5, mAP and mINP over all queries that have a right picture in their gallery.

        Raises:
            DataError: an identity with one picture, or a query whose identity is not in the gallery.
        """
        self._require_pairs(target)
        found = [self._answers(*block) for block in self._ranked(outputs, target)]
        first, precision, inverse = (torch.cat([part[place] for part in found]) for place in range(3))
        if not len(first):
            found = f"none (task.cameras={self.given.cameras})"
            raise DataError("queries", must="have a right picture by another camera", found=found)
        return {
            "r1": float((first < 1).double().mean()),
            "r5": float((first < 5).double().mean()),
            "map": float(precision.mean()),
            "minp": float(inverse.mean()),
        }

    def _answers(self, right: Tensor, identities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns for queries how many wrong answers stand before the first right one, the average precision, and how
        much of the list up to the last right picture is right; of ``right`` ``[b, g]``, nearest first.
        """
        right = right.double()
        rank = torch.arange(1, right.shape[1] + 1, dtype=torch.float64)
        precision = (right.cumsum(dim=1) / rank * right).sum(dim=1) / right.sum(dim=1)
        first, last = right.argmax(dim=1), (right * rank).amax(dim=1)
        if self.given.cameras == "sysu-mm01":
            first = torch.tensor([len(row[:stop].unique()) for row, stop in zip(identities, first, strict=True)])
        return first, precision, right.sum(dim=1) / last

    def _ranked(self, outputs: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields for blocks of queries which pictures of the gallery are right, and their identities, ``[b, g]`` each,
        nearest first; those that do not count come last. Queries without a right picture are left out.
        """
        queries, gallery = _places(target)
        for block, near in similarities(outputs[queries], outputs[gallery]):
            barred = self._barred(target, queries[block], gallery)
            right = target[queries[block], IDENTITY, None] == target[None, gallery, IDENTITY]
            right &= ~barred
            order = near.masked_fill(barred, -torch.inf).argsort(dim=1, descending=True, stable=True)
            some = right.any(dim=1)
            yield right.gather(1, order)[some], target[gallery, IDENTITY][order[some]]

    def _barred(self, target: Tensor, queries: Tensor, gallery: Tensor) -> Tensor:
        """Returns which pictures of the gallery do not count for a query, ``[q, g]``: itself, and by the cameras."""
        barred = queries[:, None] == gallery[None]
        rule, (own, other) = self.given.cameras, (target[queries, None], target[None, gallery])
        if rule == "other":
            barred |= (own[..., IDENTITY] == other[..., IDENTITY]) & (own[..., CAMERA] == other[..., CAMERA])
        elif rule == "sysu-mm01":
            barred |= (own[..., CAMERA] == 3) & (other[..., CAMERA] == 2)
        return barred

    def _require_pairs(self, target: Tensor) -> None:
        """Raises DataError where a query has no picture of its identity to find, whatever the cameras."""
        roles = target[:, ROLE]
        if (roles == 0).any() and (roles > 0).any():
            must, do = "be query or gallery for all, or for none", "Say it of every sample of the test."
            raise DataError("splits", must=must, found=f"{int((roles == 0).sum())} that are neither", do=do)
        queries, gallery = _places(target)
        for places, word in ((queries, "query"), (gallery, "gallery")):
            if not len(places):
                raise DataError("the test", must=f"have a {word}", found="none")
        if not (roles > 0).any():
            _require_several(Counter(self._names[code] for code in target[:, IDENTITY].tolist()), where="identities")
            return
        missing = target[queries, IDENTITY][~torch.isin(target[queries, IDENTITY], target[gallery, IDENTITY])]
        if len(missing):
            names = listing(sorted({repr(self._names[code]) for code in missing.tolist()}), most=3)
            raise DataError(
                "queries",
                must="have a picture of their identity in the gallery",
                found=f"{len(missing):,} of {len(queries):,} without one ({names})",
                do="Add pictures of it to the gallery, or leave these queries out.",
            )

    def independent(self, target: Tensor) -> int:
        """Returns the number of queries."""
        return len(_places(target)[0])

    def errors(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Returns 1 for a query whose nearest picture is wrong, 0 for one that is right, and the mean for others."""
        found = torch.cat([right[:, 0] for right, _ in self._ranked(outputs, target)])
        queries, gallery = _places(target)
        barred = [self._barred(target, part, gallery) for part in queries.split(1024)]
        same = target[queries, IDENTITY, None] == target[None, gallery, IDENTITY]
        scored = queries[(same & ~torch.cat(barred)).any(dim=1)]
        wrong = np.full(len(target), 1 - float(found.double().mean()))
        wrong[scored.numpy()] = 1 - found.double().numpy()
        return wrong

    def doubts(self, outputs: Tensor, target: Tensor) -> Sequence[str]:
        """Names queries that no camera but their own has seen."""
        scored = sum(len(right) for right, _ in self._ranked(outputs, target))
        left = self.independent(target) - scored
        return [f"{left:,} queries have no right picture by another camera: not scored"] if left else []

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns how much nearer than ``MARGIN`` the nearest wrong sample of a batch is than the farthest right one,
        by cosine (batch-hard triplets: Hermans et al. 2017, arXiv 1703.07737, eq. 5); samples without one are 0.
        """
        every, names, losses = torch.arange(len(target), device=outputs.device), target[:, IDENTITY], []
        for block, near in similarities(outputs, outputs):
            same = names[block, None] == names[None]
            right = near.masked_fill(~same | (every[block, None] == every[None]), torch.inf).amin(dim=1)
            wrong = near.masked_fill(same, -torch.inf).amax(dim=1)
            known = right.isfinite() & wrong.isfinite()
            losses.append(torch.where(known, (MARGIN + wrong - right).clamp(min=0), 0 * near[:, 0]))
        return torch.cat(losses).mean()

    def constant(self) -> Tensor:
        """Returns a vector of no direction: all pictures are equally near."""
        return torch.zeros(self.outputs)

    @property
    def baseline(self) -> Baseline:
        """The modality's plain features, compared by their cosine as they are."""
        return Baseline("vectors")

    # --- answers -----------------------------------------------------------------------------------------------------

    def remember(self, outputs: Tensor, keys: Sequence[str], targets: Sequence[Any]) -> None:
        """Keeps samples, those of a gallery where some are, as what later queries are compared with."""
        seen = [_sighting(target) for target in targets]
        chosen = [place for place, one in enumerate(seen) if one.role == "gallery"] or [*range(len(seen))]
        self.gallery_ = Gallery(outputs[chosen].float(), [keys[i] for i in chosen], [seen[i] for i in chosen])

    def support(self, outputs: Tensor, answer: str = "") -> Support:
        """Returns how near a vector stays to this one, by cosine."""
        plain = super().support(outputs, answer)
        return plain._replace(
            words="its vector", unit="cosine", score=lambda other: unit(other) @ unit(outputs[None])[0]
        )

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the identity of the nearest picture of the gallery, and the nearest ones."""
        if self.gallery_ is None:
            raise UsageError(
                "retrieve", must="have a gallery to search in", found="none", do="Name one with --gallery."
            )
        return self._columns(*nearest(outputs, self.gallery_.vectors, count=self.given.near), self.gallery_)

    def answers(self, outputs: Tensor, *, keys: Sequence[str], targets: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns the same among the samples themselves where their identities are known, as ``metrics`` has it."""
        if not targets or any(target is None for target in targets):
            return self.decode(outputs)
        target, seen = self.encode(targets), [_sighting(target) for target in targets]
        gallery, every = _places(target)[1], torch.arange(len(target))
        chosen = Gallery(outputs[gallery], [keys[i] for i in gallery.tolist()], [seen[i] for i in gallery.tolist()])
        found = nearest(
            outputs,
            chosen.vectors,
            count=self.given.near,
            barred=lambda block: self._barred(target, every[block], gallery),
        )
        return self._columns(*found, chosen)

    def _columns(self, near: Tensor, places: Tensor, gallery: Gallery) -> dict[str, np.ndarray]:
        names = np.array([one.identity for one in gallery.sightings], dtype=object)
        keys, found, cosines = np.array(gallery.keys, dtype=object), places.numpy(), near.double().numpy()
        near_keys, near_names, gone = keys[found], names[found], ~np.isfinite(cosines)
        near_keys[gone] = near_names[gone] = None  # fewer count than are asked for
        cosines[gone] = np.nan
        columns = {"prediction": near_names[:, 0]}
        for rank in range(found.shape[1]):
            columns[f"nearest_{rank + 1}"] = near_keys[:, rank]
            columns[f"identity_{rank + 1}"] = near_names[:, rank]
            columns[f"similarity_{rank + 1}"] = cosines[:, rank]
        return columns

    def readable(self, targets: Sequence[Any]) -> Sequence[Any]:
        """Returns identities."""
        return [_sighting(target).identity for target in targets]

    @property
    def extent(self) -> str:
        """How many identities were learned."""
        return f"{self.identities_:,} identities"

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns R@k by k."""
        first = torch.cat([self._answers(*block)[0] for block in self._ranked(outputs, target)])
        curve = np.array([float((first < k).double().mean()) for k in range(1, CURVE + 1)])
        lines = Lines({"this model": curve}, across="nearest pictures k", up="queries with a right one among them: R@k")
        return (Section("Found among the nearest", (lines,)),)

    def cards(self, table: Mapping[str, np.ndarray], targets: Sequence[Any]) -> Cards:
        """Returns queries with their nearest pictures, the most similar wrong ones first."""
        seen = [_sighting(target) for target in targets]
        asked = np.array([one.role != "gallery" for one in seen])
        guesses, truths = [str(guess) for guess in table["prediction"]], [one.identity for one in seen]
        wrong = np.array([guess != truth for guess, truth in zip(guesses, truths, strict=True)])
        sure = np.asarray(table["similarity_1"], dtype=float)
        ranks = range(1, sum(name.startswith("nearest_") for name in table) + 1)
        near = [[table[f"{name}_{k}"] for name in ("nearest", "identity", "similarity")] for k in ranks]
        beside = [
            [
                Neighbour(key[i], name[i] == truths[i], f"{name[i]}, {cosine[i]:.2f}")
                for key, name, cosine in near
                if key[i]
            ]
            for i in range(len(seen))
        ]
        badness, worst = np.where(wrong, sure, -2.0), "queries whose nearest picture is wrong"
        return Cards(guesses, truths, badness, worst, wrong, beside=beside, asked=asked)

    # --- what is saved -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Returns identities by code, and keys and sightings of the gallery."""
        found = self.gallery_
        kept = {} if found is None else {"keys": list(found.keys), "sightings": [list(one) for one in found.sightings]}
        return {"identities": self.identities_, "gallery": kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes them back; the vectors come with ``load_tensors``."""
        self.identities_, kept = int(state["identities"]), state["gallery"]
        sightings = [Sighting(*map(str, one)) for one in kept.get("sightings", [])]
        self.gallery_ = Gallery(torch.zeros(0, self.outputs), list(kept["keys"]), sightings) if kept else None

    def tensors(self) -> dict[str, Tensor]:
        """Returns the vectors of the gallery."""
        return {} if self.gallery_ is None else {"gallery": self.gallery_.vectors}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes them back."""
        vectors = tensors["gallery"]
        if self.gallery_ is None or vectors.shape != (len(self.gallery_.keys), self.outputs):
            raise ValueError(f"a gallery of shape {tuple(vectors.shape)}")
        self.gallery_ = self.gallery_._replace(vectors=vectors)


def _sighting(target: Any, *, role: str | None = None) -> Sighting:
    """Returns a target as the data has it: an identity, or an identity and a camera."""
    if isinstance(target, Sighting):
        return target
    identity, camera = target if isinstance(target, tuple | list) and len(target) == 2 else (target, None)
    if identity is None or isinstance(identity, tuple | list | dict | float):
        do = "Use a column 'identity', perhaps with 'camera', or a folder an identity."
        raise DataError("identities", must="be a word or a whole number", found=repr(target)[:60], do=do)
    return Sighting(str(identity), "" if camera is None else str(camera), role if role in ROLES else "")


def _code(text: str) -> int:
    """Returns a number of 62 bits that stands for a text, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def _places(target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the places of queries and of the gallery."""
    roles = target[:, ROLE]
    return (roles != 2).nonzero().flatten(), (roles != 1).nonzero().flatten()


def _require_several(counts: Mapping[str, int], *, where: str) -> None:
    single = sorted(repr(name) for name, count in counts.items() if count == 1)
    if single:
        raise DataError(
            where,
            must="have at least 2 pictures each",
            found=f"{len(single):,} of {len(counts):,} with one ({listing(single, most=3)})",
            do="Add pictures of it, or leave it out.",
        )


TASK = Retrieve
