"""Contrastive losses equal their formulas and transformers', in chunks, with equal captions, and on two processes."""

import json

import pytest
import torch
import torch.nn.functional as F
from common import run_alone
from torch import Tensor

from metatransformer.infer.loader import Place
from metatransformer.pairs.losses import contrast

B, E = 11, 7
ALONE = Place()


def vectors(count: int = B) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    left, right = (F.normalize(torch.randn(count, E, generator=draw), dim=1) for _ in range(2))
    return left.requires_grad_(), right.requires_grad_()


def computed(
    kind: str, left: Tensor, right: Tensor, *, labels: Tensor | None = None, chunk: int = 64, place: Place = ALONE
) -> Tensor:
    scale, bias = torch.tensor(9.0), torch.tensor(-4.0) if kind == "sigmoid" else None
    labels = torch.arange(len(left)) + place.rank * len(left) if labels is None else labels
    return contrast(left, right, kind=kind, scale=scale, bias=bias, labels=labels, chunk=chunk, place=place)


def by_hand(kind: str, left: Tensor, right: Tensor, labels: Tensor | None = None) -> Tensor:
    """Sums over single pairs, in float64, as the papers write them."""
    near = 9.0 * left.double() @ right.double().T - (4.0 if kind == "sigmoid" else 0.0)
    labels = torch.arange(len(left)) if labels is None else labels
    same = labels[:, None] == labels
    if kind == "sigmoid":
        return sum(
            torch.log(1 + torch.exp(-(1 if same[i, j] else -1) * near[i, j]))
            for i in range(len(left))
            for j in range(len(left))
        ) / len(left)
    total = torch.zeros((), dtype=torch.float64)
    for table in (near, near.T):
        for i, row in enumerate(table):
            shares = row.exp() / row.exp().sum()
            total = total - shares[same[i]].log().mean()
    return total / (2 * len(left))


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize("repeated", [False, True])
def test_losses_equal_the_formula_with_their_gradients(kind: str, chunk: int, repeated: bool):
    labels = torch.arange(B) % 4 if repeated else None
    left, right = vectors()
    found, expected = computed(kind, left, right, labels=labels, chunk=chunk), by_hand(kind, left, right, labels)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    for ours, theirs in zip(
        torch.autograd.grad(found, [left, right]), torch.autograd.grad(expected, [left, right]), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_losses_equal_transformers():
    transformers = pytest.importorskip("transformers")
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    left, right = (x.detach() for x in vectors())
    near = 9.0 * right @ left.T
    assert float(computed("infonce", left, right)) == pytest.approx(float(image_text_contrastive_loss(near)), abs=1e-6)
    shape = {"hidden_size": 12, "intermediate_size": 13, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        text_config={**shape, "vocab_size": 17, "max_position_embeddings": 5, "projection_size": 12},
        vision_config={**shape, "image_size": 8, "patch_size": 4},
    )
    torch.manual_seed(5)
    model = transformers.SiglipModel(config).eval()
    ids = torch.arange(15).reshape(3, 5)
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=torch.randn(3, 3, 8, 8), return_loss=True)
        found = contrast(
            out.image_embeds,
            out.text_embeds,
            kind="sigmoid",
            scale=model.logit_scale[0].exp(),
            bias=model.logit_bias[0],
            labels=torch.arange(3),
            chunk=2,
            place=ALONE,
        )
    assert float(found) == pytest.approx(float(out.loss), abs=1e-6)


TWO = """
import json, pathlib, torch
import torch.distributed as dist
from test_pairs_losses import computed, vectors, B
from metatransformer.fit.train import join_processes
place = join_processes()
found = {}
for kind in ("infonce", "sigmoid"):
    left, right = vectors(2 * B)
    rows = slice(place.rank * B, (place.rank + 1) * B)
    loss = computed(kind, left[rows], right[rows], chunk=4, place=place)
    grads = torch.autograd.grad(loss, [left, right])
    total = loss.detach().reshape(1)
    for tensor in (total, *grads):
        dist.all_reduce(tensor)
        tensor /= 2
    found[kind] = [float(total), *(grad.flatten().tolist() for grad in grads)]
if place.rank == 0:
    print(json.dumps(found))
dist.destroy_process_group()
# No thread of the group is left that could let go of a tensor while the interpreter ends.
assert not [path for path in pathlib.Path("/proc/self/task").glob("*/comm") if "gloo" in path.read_text()]
"""


def test_two_processes_equal_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    done = run_alone(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, script])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    for kind in ("infonce", "sigmoid"):
        left, right = vectors(2 * B)
        loss = computed(kind, left, right)
        grads = torch.autograd.grad(loss, [left, right])
        assert told[kind][0] == pytest.approx(loss.item(), abs=1e-6)
        assert told[kind][0] == pytest.approx(by_hand(kind, left, right).item(), abs=1e-6)
        for found, grad in zip(told[kind][1:], grads, strict=True):
            assert torch.allclose(torch.tensor(found), grad.flatten(), atol=1e-6)


def test_memory_grows_with_the_batch_and_not_with_its_square():
    # What is kept for the backward pass: rows, columns and labels of every chunk, and no similarities.
    kept: list[int] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    left, right = vectors(256)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        computed("infonce", left, right, chunk=16)
    assert max(kept) <= 256 * E
