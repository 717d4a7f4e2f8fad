import pytest
import torch
from torch_geometric.nn import GCN, LGConv, LightGCN

from explain.analysis import because, similar
from models import lightgcn

USERS, ITEMS = 12, 8


@pytest.fixture(scope="module")
def likes():
    """Users of two tastes, each of whom likes some items of their half."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS))
    same = pairs[:, 0] % 2 == pairs[:, 1] % 2
    liked = pairs[same & (torch.rand(len(pairs), generator=generator) < 0.7)].T
    liked[1] += USERS
    return torch.cat([liked, liked.flip(0)], 1)


def trained(likes, layers):
    torch.manual_seed(0)
    model = LightGCN(USERS + ITEMS, 8, layers)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    half = likes[:, : likes.size(1) // 2]
    for _ in range(60):
        other = torch.stack([half[0], USERS + torch.randint(0, ITEMS, half[0].shape)])
        loss = model.recommendation_loss(model(likes, half), model(likes, other), likes.unique())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("layers", [1, 3])
def test_the_parts_are_the_score_and_what_the_user_hears(likes, layers):
    model = trained(likes, layers)
    user, item, liked = 0, USERS + 1, likes[1][likes[0] == 0]  # an item of the other taste
    why = because(model, likes, user, item)
    assert why.gap < 1e-5
    assert why.score == pytest.approx(model(likes, torch.tensor([[user], [item]])).item(), rel=1e-4)
    assert sorted(why.items.tolist()) == sorted(liked.tolist())
    assert why.own + float(why.parts.sum()) == pytest.approx(why.score, abs=1e-5)
    if layers == 1:  # one message less, all else as it is
        degree = likes[1].bincount().double()
        x = model.embedding.weight.detach().double()
        target = 0.5 * x[item] + 0.5 * sum(
            x[j] / (degree[j] * degree[item]).sqrt() for j in likes[0][likes[1] == item].tolist()
        )
        for one, part in zip(why.items.tolist(), why.parts.tolist(), strict=True):
            lost = 0.5 * float(x[one] @ target) / float((degree[user] * degree[one]).sqrt())
            assert part == pytest.approx(lost, rel=1e-4)


def test_removal_is_the_model_without_the_like(likes):
    model = trained(likes, 2)
    why = because(model, likes, 1, USERS + 1)
    one = int(why.items[0])
    gone = ((likes == torch.tensor([[1], [one]])).all(0)) | ((likes == torch.tensor([[one], [1]])).all(0))
    pair = torch.tensor([[1], [USERS + 1]])
    assert float(why.removed[0]) == pytest.approx((model(likes, pair) - model(likes[:, ~gone], pair)).item(), abs=1e-5)


class Mean(lightgcn.LightGCN):
    """Written by others: the mean of the embedding and its steps, without a name for their weights."""


def test_another_implementation_is_split_by_what_it_does(likes):
    net = lightgcn.train(Mean(USERS + ITEMS, 8, 2), likes[:, : likes.size(1) // 2], USERS, seed=0, steps=60)
    same = LightGCN(USERS + ITEMS, 8, 2)
    with torch.no_grad():
        same.embedding.weight.copy_(net.embedding.weight)
    mine, theirs = (because(each, likes, 0, USERS + 1) for each in (net, same))
    pair = torch.tensor([[0], [USERS + 1]])
    assert mine.score == pytest.approx(net(likes, pair).item(), rel=1e-4)
    assert mine.gap < 1e-5
    assert torch.equal(mine.items, theirs.items)
    assert torch.allclose(mine.parts, theirs.parts, atol=1e-5)
    assert torch.allclose(mine.removed, theirs.removed, atol=1e-5)


class Summed(lightgcn.LightGCN):
    """Steps that are sums, without weights."""

    def __init__(self, nodes):
        super().__init__(nodes, 4, 2)
        self.step = LGConv(normalize=False)


def test_steps_without_weights_are_split_too(likes):
    torch.manual_seed(0)
    net, user, item = Summed(USERS + ITEMS), 0, USERS + 1
    why, x = because(net, likes, user, item), net.embedding.weight.detach().double()
    A = torch.zeros(len(x), len(x)).double()
    A[likes[1], likes[0]] = 1
    states = [x, A @ x]  # that a neighbour sends
    target = (x + A @ x + A @ A @ x)[item] / 3
    expected = [float(sum(state[one] for state in states) @ target) / 3 for one in why.items.tolist()]
    assert why.parts.tolist() == pytest.approx(expected, rel=1e-5)
    assert why.gap < 1e-6


class Last(lightgcn.LightGCN):
    """Only the last step counts."""

    def embeddings(self, edge_index):
        return self.step(self.step(self.embedding.weight, edge_index), edge_index)


class Bent(lightgcn.LightGCN):
    """Scores that are no products."""

    def forward(self, edge_index, edge_label_index):
        return super().forward(edge_index, edge_label_index).tanh()


@pytest.mark.parametrize("kind", [Last, Bent])
def test_scores_that_are_no_products_of_the_averages_are_refused(likes, kind):
    net = kind(USERS + ITEMS)
    with torch.no_grad():
        net.embedding.weight.mul_(10)
    with pytest.raises(TypeError, match=rf"those of {kind.__name__} are not \(off by .*: ask Shapley"):
        because(net, likes, 0, USERS + 1)


def test_similar_items_are_those_of_one_taste(likes):
    embedded = trained(likes, 2).get_embedding(likes)
    found = similar(embedded, USERS, k=3, among=torch.arange(USERS, USERS + ITEMS))
    assert {item % 2 for item, _ in found} == {0}
    assert USERS not in [item for item, _ in found]


def test_what_has_no_exact_split_is_refused(likes):
    with pytest.raises(TypeError, match=r"one nn.Embedding, steps by LGConv\), got GCN: ask Shapley"):
        because(GCN(2, 2, 1), likes, 0, USERS)
    model = LightGCN(USERS + ITEMS + 1, 2, 1)
    with pytest.raises(ValueError, match="has liked nothing"):
        because(model, likes, USERS + ITEMS, USERS)
    with pytest.raises(ValueError, match="nodes 0 to 20, got -1"):
        because(model, likes, -1, USERS)
