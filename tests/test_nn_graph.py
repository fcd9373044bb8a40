"""Identifiers of nodes, and the tokens that carry them."""

import numpy as np
import pytest
import torch

from metatransformer.core.modality import Stem
from metatransformer.nn.graph import (
    EndEmbedding,
    GraphTokenizer,
    adjacency,
    laplacian_identifiers,
    random_identifiers,
    walk_identifiers,
)

# A triangle 0 1 2 with a tail 2 3 4: no two nodes but 0 and 1 are alike, and no eigenvalue is double but one.
TAIL = np.array([[0, 1], [1, 2], [2, 0], [2, 3], [3, 4]])


def relabelled(edges: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the edges after node i has become node order[i]."""
    return order[edges]


def test_laplacian_identifiers_are_its_smoothest_eigenvectors():
    joined = adjacency(TAIL, count=5)
    degree = joined.sum(axis=1)
    assert degree.tolist() == [2, 2, 3, 2, 1]
    found = laplacian_identifiers(TAIL, count=5, size=7)
    assert found.shape == (5, 7) and found.dtype == np.float32
    assert not found[:, 5:].any()  # five nodes have five eigenvectors
    laplacian = np.eye(5) - joined / np.sqrt(np.outer(degree, degree))
    values = np.linalg.eigvalsh(laplacian)
    # float32 rounding of unit vectors
    np.testing.assert_allclose(laplacian @ found[:, :5], found[:, :5] * values, atol=1e-6)
    np.testing.assert_allclose(found[:, :5] @ found[:, :5].T, np.eye(5), atol=1e-6)
    np.testing.assert_allclose(found[:, 0], np.sqrt(degree / degree.sum()), atol=1e-6)


def test_laplacian_identifiers_follow_the_numbering_up_to_signs():
    order = np.array([3, 0, 4, 1, 2])
    first = laplacian_identifiers(TAIL, count=5, size=5)
    second = laplacian_identifiers(relabelled(TAIL, order), count=5, size=5)
    np.testing.assert_allclose(np.abs(second[order]), np.abs(first), atol=1e-5)


def test_walk_identifiers_are_chances_to_be_back():
    path = np.array([[0, 1], [1, 2]])
    found = walk_identifiers(path, count=3, size=4)
    # from an end: never after 1 or 3 steps, one half after 2; from the middle always after 2
    np.testing.assert_allclose(found, [[0, 0.5, 0, 0.5], [0, 1, 0, 1], [0, 0.5, 0, 0.5]], atol=1e-7)
    order = np.array([3, 0, 4, 1, 2])
    again = walk_identifiers(relabelled(TAIL, order), count=5, size=11)
    np.testing.assert_allclose(again[order], walk_identifiers(TAIL, count=5, size=11), atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 7, 13])
def test_random_identifiers_tell_nodes_apart(count: int):
    found = random_identifiers(count=count, size=7, rng=np.random.default_rng(0))
    assert found.shape == (count, 7) and found.dtype == np.float32
    gram = found @ found.T
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-6)
    if count <= 7:
        np.testing.assert_allclose(gram, np.eye(count), atol=1e-6)
    else:
        assert np.abs(gram - np.eye(count)).max() < 0.999


@pytest.mark.parametrize("count", [1, 3])
def test_graphs_without_edges_have_identifiers(count: int):
    none = np.zeros((0, 2), dtype=np.int64)
    assert np.isfinite(laplacian_identifiers(none, count=count, size=5)).all()
    assert not walk_identifiers(none, count=count, size=5).any()


def test_an_undirected_edge_has_no_first_end():
    torch.manual_seed(0)
    ends = EndEmbedding(3, width=11, std=0.1)
    identifiers = torch.randn(2, 5, 3)
    there, back = torch.tensor([[[0, 1]], [[2, 3]]]), torch.tensor([[[1, 0]], [[3, 2]]])
    undirected, directed = torch.zeros(2), torch.ones(2)
    torch.testing.assert_close(ends(identifiers, there, undirected), ends(identifiers, back, undirected))
    assert not torch.allclose(ends(identifiers, there, directed), ends(identifiers, back, directed))
    node = torch.tensor([[[4, 4]], [[0, 0]]])
    torch.testing.assert_close(ends(identifiers, node, directed), ends(identifiers, node, undirected))
    expected = 2 * identifiers[0, 4] @ ends.both
    torch.testing.assert_close(ends(identifiers, node, directed)[0, 0], expected)


def tokenizer(**more) -> GraphTokenizer:
    torch.manual_seed(0)
    settings = {
        "rows": 7,
        "words": 2,
        "numbers": [[-1.0, 0.0, 1.0]],
        "whole": [[-1.0, 1.0], [0.0, 2.0], [0.0, 1.0]],
        "groups": [0, 1, 1],
        "kinds": 3,
        "size": 2,
        "width": 13,
        "stem": Stem(),
    }
    return GraphTokenizer(**{**settings, **more})


def inputs() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Returns a graph of two nodes and one edge, of two kinds of neighbourhood, with a gap among its numbers."""
    arrays = {
        "codes": torch.tensor([[[1, 3, 0], [1, 4, 0], [2, 0, 5]]]),
        "numbers": torch.tensor([[[0.5], [-0.5], [torch.nan]]]),
        "ends": torch.tensor([[[0, 0], [1, 1], [0, 1]]]),
        "identifiers": torch.tensor([[[0.6, 0.8], [-0.8, 0.6]]]),
        "directed": torch.zeros(1),
        "environments": torch.tensor([[[0, 1], [2, 20]]]),
        "whole": torch.tensor([[0.5, torch.nan, 0.25]]),
    }
    masks = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in arrays.items() if x.ndim > 2}
    return arrays, masks


def test_tokens_are_sums_of_what_a_node_or_edge_has():
    made = tokenizer()
    arrays, masks = inputs()
    tokens = made(arrays, masks)
    # summary, two groups of numbers, two nodes, an edge, two neighbourhoods
    assert tokens.x.shape == (1, 8, 13) and tokens.mask.all()
    values = made.whole(torch.tensor([[0.5, 0.0, 0.25]]))[0]
    names = made.names
    torch.testing.assert_close(tokens.x[0, 1], values[0] + names[0])
    torch.testing.assert_close(tokens.x[0, 2], values[2] / 2**0.5 + names[1])  # the gap adds nothing
    torch.testing.assert_close(tokens.x[0, 0], made.summary.token + (values[0] + values[2]) / 3**0.5)
    node = made.table[1] + made.table[3] + made.number(torch.tensor([[0.5]]))[0, 0]
    node = node + 2 * torch.tensor([0.6, 0.8]) @ made.ends.both
    torch.testing.assert_close(tokens.x[0, 3], node)
    edge = made.table[2] + made.table[5] + torch.tensor([-0.2, 1.4]) @ made.ends.both
    torch.testing.assert_close(tokens.x[0, 5], edge)
    torch.testing.assert_close(tokens.x[0, 7], made.kinds[2] + made.count[8])  # counts stop at 8


def test_parts_can_be_left_out():
    arrays, masks = inputs()
    assert tokenizer(whole=[], groups=[], kinds=None)(arrays, masks).x.shape == (1, 4, 13)
    made = tokenizer()
    assert not made.table[0].any()
    made(arrays, masks).x.square().sum().backward()
    assert made.table.grad is not None and not made.table.grad[0].any()  # "nothing" stays zero
