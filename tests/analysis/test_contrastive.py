import pytest
import torch

from explain.analysis import (
    alignment,
    content_share,
    invariance,
    recoverability,
    separability,
    turned_by_edges,
)
from models.content_style import content_style


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_of_views_that_are_the_same_nothing_has_moved():
    h = drawn(6, 4)
    views = torch.stack([h, 3 * h])
    assert torch.allclose(invariance(h, views), torch.ones(6).double())
    assert alignment(h, views) == pytest.approx(0)
    assert alignment(h, -views) == pytest.approx(4)
    assert torch.allclose(invariance(h, -views), -torch.ones(6).double())


def test_separability_is_by_hand_without_the_example_itself():
    h, y = drawn(8, 3), torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])
    found = separability(h, y)
    for i in range(8):
        near = {j: (1 + float(torch.cosine_similarity(h[i], h[j], dim=0))) / 2 for j in range(8) if j != i}
        own = max(value for j, value in near.items() if y[j] == y[i])
        other = max(value for j, value in near.items() if y[j] != y[i])
        assert float(found[i]) == pytest.approx(own / other)


def test_classes_are_recovered_where_augmentation_leaves_them():
    y = torch.arange(60) % 3
    h = 5 * torch.nn.functional.one_hot(y).double() + 0.1 * drawn(60, 3)
    kept, lost = recoverability(h, h[None] + 0.1, y), recoverability(h, torch.zeros(1, 60, 3).double(), y)
    assert kept.plain == kept.augmented == lost.plain == 1.0
    assert lost.augmented == pytest.approx(lost.chance)


def test_a_representation_turns_by_the_edges_that_it_reads_both_ways():
    graph = content_style(1, ratio=3.0)[0]

    def content_edges(graphs):
        return torch.stack([torch.tensor([5.0, float(one.num_edges)]) for one in graphs])

    turned = turned_by_edges(content_edges, graph)
    assert turned.shape == graph.content.shape
    assert torch.allclose(turned[::2], turned[1::2])
    share = content_share(turned, graph.content)  # all edges alike
    assert share.lift == pytest.approx(1)
    assert content_share(graph.content.double(), graph.content).share == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: invariance(drawn(3, 2), drawn(3, 2)), r"augmented \[views, n, columns\]"),
        (lambda: separability(drawn(3, 2), torch.tensor([0, 0, 1])), "two examples of each class"),
        (lambda: separability(drawn(3, 2), torch.tensor([0, 0, 0])), "two classes or more"),
        (lambda: content_share(torch.zeros(2), torch.tensor([True, False])), "some score other than 0"),
        (lambda: content_share(torch.ones(2), torch.tensor([1, 0])), "of torch.int64"),
        (
            lambda: turned_by_edges(lambda graphs: torch.ones(2), content_style(1)[0]),
            r"a row a graph, got \[2\]",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()
