"""A DataLoader is read as training iterates over it: the same examples, or a refusal that says what to give."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.nn import GCN

import explain
from explain import Influence
from explain.loaders import positions_of

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
DATA = TensorDataset(X, Y)
HALF = list(range(0, 60, 2))


class Endless(Sampler):
    def __iter__(self):
        return itertools.cycle(range(60))


class EndlessBatches(Sampler):
    def __iter__(self):
        return itertools.repeat([0, 1])


class Stream(IterableDataset):
    def __iter__(self):
        return zip(itertools.cycle(X), itertools.cycle(Y), strict=False)


class Keys(Sampler):
    def __iter__(self):
        return iter(["a", "b"])


def fitted():
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        found = nn.functional.cross_entropy(net(X[HALF]), Y[HALF])
        found = found + 0.025 * sum((p**2).sum() for p in net.parameters())
        found.backward()
        return found

    optimiser.step(loss)
    return net


def ask(train, **settings):
    target = explain.wrap(fitted(), task="classification", train=train, weight_decay=0.05).example(X[1], 1)
    return Influence(solver="exact", curvature="hessian", damping=0.0, **settings).explain(target)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, 8, sampler=SubsetRandomSampler(HALF)),
        DataLoader(DATA, batch_sampler=BatchSampler(SubsetRandomSampler(HALF), 8, drop_last=False)),
        DataLoader(DATA, batch_sampler=[HALF[:10], HALF[10:]]),
        DataLoader(DATA, 7, sampler=HALF),
        DataLoader(DATA, batch_size=None, sampler=HALF),
    ],
)
def test_the_examples_of_a_sampler_are_those_that_were_trained_on(loader):
    if loader.batch_size is None and loader.batch_sampler is None:  # the items are batches
        loader = DataLoader(TensorDataset(X[:, None], Y[:, None]), batch_size=None, sampler=HALF)
    found, right = ask(loader), ask((X[HALF], Y[HALF]))
    torch.testing.assert_close(found.scores, right.scores)
    if loader.batch_size is not None or loader.batch_sampler is not None:
        assert found.players.index.tolist() == HALF
        assert found.players.names[1] == "train 2"
    assert found.checks["gradient_norm"] < 1e-3  # at the minimum of these examples


def test_items_without_rows_are_no_batches():
    with pytest.raises(ValueError, match=r"batch_size=None.*give the data set itself"):
        ask(DataLoader(DATA, batch_size=None))


def test_drop_last_in_order_drops_the_last():
    assert positions_of(DataLoader(DATA, 8, drop_last=True)).tolist() == list(range(56))
    assert positions_of(DataLoader(DATA, 10, drop_last=True, shuffle=True)).tolist() == list(range(60))
    assert len(positions_of(DataLoader(DATA, 8, sampler=WeightedRandomSampler(torch.ones(60), 60, False)))) == 60


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(DATA, 8, sampler=WeightedRandomSampler(torch.rand(60), 60)), "replacement"),
        (DataLoader(DATA, 8, sampler=RandomSampler(DATA, replacement=True)), "replacement"),
        (DataLoader(DATA, 8, sampler=RandomSampler(DATA, num_samples=20)), "other examples in every epoch"),
        (DataLoader(DATA, 8, drop_last=True, shuffle=True), "drop_last of a shuffled set"),
        (DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 8, True)), "drop_last of a shuffled set"),
        (DataLoader(DATA, 8, sampler=[0, 0, 1]), "more than once"),
        (DataLoader(DATA, 8, sampler=Endless()), "without an end"),
        (DataLoader(DATA, batch_sampler=EndlessBatches()), "more than once"),
        (DataLoader(DATA, 8, sampler=torch.utils.data.DistributedSampler(DATA, 2, 0)), "one process of 2"),
    ],
)
def test_examples_that_come_otherwise_in_training_are_refused_with_the_remedy(loader, message):
    with pytest.raises(ValueError, match=message) as told:
        ask(loader)
    assert "Subset(dataset, positions)" in str(told.value) or "give the data set itself" in str(told.value)


def test_keys_are_no_positions():
    with pytest.raises(TypeError, match="whole numbers, positions in it, got str"):
        positions_of(DataLoader(DATA, 8, sampler=Keys()))


def test_a_stream_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr("explain.examples.STREAMED", 500)
    with pytest.raises(ValueError, match="does not end before"):
        ask(DataLoader(Stream(), 8))


def test_a_third_column_is_refused_and_may_be_used_by_a_loss():
    weights = torch.rand(60, generator=torch.Generator().manual_seed(1))
    with pytest.raises(TypeError, match=r"3 parts: if the third is its weight .* loss="):
        ask(DataLoader(TensorDataset(X, Y, weights), 8))
    with pytest.raises(TypeError, match=r"3 parts: if the third is its weight .* loss="):
        ask((X, Y, weights))

    def weighted(outputs, labels):
        return labels[:, 1] * nn.functional.cross_entropy(outputs, labels[:, 0].long(), reduction="none")

    kept = torch.zeros(60)
    kept[HALF] = 2.0  # the mean over all, weighted so, is that over the half
    train = TensorDataset(X, torch.stack([Y.float(), kept], 1))
    model = explain.wrap(fitted(), task="classification", train=train, weight_decay=0.05, loss=weighted)
    found = Influence(solver="exact", curvature="hessian", damping=0.0).explain(model.example(X[1], 1)).scores
    torch.testing.assert_close(found[HALF], ask((X[HALF], Y[HALF])).scores)
    assert not found[1::2].any()


def test_a_loader_and_its_samplers_are_as_before():
    generator = torch.Generator().manual_seed(3)
    sampler = SubsetRandomSampler(HALF, generator=generator)
    state, seen = generator.get_state(), torch.get_rng_state()
    positions_of(DataLoader(DATA, 8, sampler=sampler))
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), seen)


def test_padding_to_the_longest_of_a_batch_is_refused():
    def padded(rows):
        longest = max(int(y) for _, y in rows) + 2
        return torch.stack([x[:longest] for x, _ in rows]), torch.stack([y for _, y in rows])

    with pytest.raises(ValueError, match="collate_fn gives an example another form"):
        ask(DataLoader(TensorDataset(X, torch.arange(60) % 2), 8, collate_fn=padded))


def test_many_numbers_have_the_positions_of_one_loader():
    loader = DataLoader(DATA, 8, sampler=SubsetRandomSampler(HALF))
    model = explain.wrap(fitted(), task="classification", train=loader, weight_decay=0.05)
    for newton in (False, True):
        answers = Influence(seed=0, newton=newton).explain_all([model.example(X[i], 1) for i in range(2)])
        assert [answer.players.index.tolist() for answer in answers] == [HALF, HALF]


def graphs():
    generator = torch.Generator().manual_seed(0)
    return [
        Data(
            x=torch.randn(4, 3, generator=generator),
            edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]),
            y=torch.tensor([i % 2]),
        )
        for i in range(6)
    ]


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = GCN(3, 4, 1, 2)

    def forward(self, x, edge_index, batch):
        return self.net(x, edge_index).new_zeros(int(batch.max()) + 1, 2).index_add(0, batch, self.net(x, edge_index))


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_graphs_of_a_loader():
    data = graphs()
    target = explain.wrap(Pooled(), data, weight_decay=0.5).graph(0, 1)
    loader = GraphLoader(data, 2, sampler=SubsetRandomSampler([1, 4, 2]))
    found = Influence(train=loader, damping=0.0, curvature="ggn").explain(target)
    right = Influence(train=[data[i] for i in (1, 2, 4)], damping=0.0, curvature="ggn").explain(target)
    torch.testing.assert_close(found.scores, right.scores)
    assert found.players.names == ("graph 1", "graph 2", "graph 4")


def test_a_mask_of_many_splits_is_refused_with_the_remedy():
    data = graphs()[0]
    data.y, data.train_mask = torch.arange(4) % 2, torch.ones(4, 3) > 0
    target = explain.wrap(GCN(3, 4, 1, 2), data, weight_decay=0.5).node(1)
    with pytest.raises(ValueError, match=r"train_mask \[4, 3\] holds 3 splits.*train_mask\[:, 0\]"):
        Influence().explain(target)
    data.train_mask = data.train_mask[:, :1]
    assert len(explain.wrap(GCN(3, 4, 1, 2), data).node(1).objective().players) == 4
