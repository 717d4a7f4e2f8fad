"""Training sets that are read by position: what they give, what they refuse, and rows of them within transforms."""

import pickle

import pytest
import torch
from shard_cases import Generated, asked, bounded
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from explain.examples import Examples, Rows, examples_of, pieces


@pytest.fixture
def small(monkeypatch):
    bounded(monkeypatch.setattr)


class Endless(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return ((torch.ones(600) * i, i % 2) for i in range(self.count))


def test_a_stream_without_positions_is_kept_while_it_fits(small):
    assert len(asked(600).objective(Endless(40)).inputs) == 40
    for train in (Endless(10_000), DataLoader(Endless(10_000), batch_size=10)):
        with pytest.raises(ValueError, match=r"no positions to come back to.*give a map-style Dataset"):
            asked(600).objective(train)


class Augmented(Generated):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.randn(()), y


class Other(Generated):
    def __init__(self, item):
        super().__init__(600, features=600)
        self.item = item

    def __getitem__(self, i):
        return self.item if i == 599 else super().__getitem__(i)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (Augmented(600, 600), ValueError, "turn its random augmentation off"),
        (Other((torch.full((600,), float("nan")), 0)), ValueError, "training inputs hold NaN"),
        (Other((torch.ones(600), 7)), ValueError, r"from 0 to 1, got \[600\] from 0 to 7"),
        (TensorDataset(torch.ones(600, 600)), TypeError, r"gives pairs \(input, label\)"),
        (TensorDataset(torch.ones(600, 600), torch.full((600,), 0.5)), ValueError, "which loss was trained"),
        (TensorDataset(torch.ones(600, 7), torch.ones(600).long()), ValueError, r"train must be inputs \[n, 600\]"),
        (TensorDataset(torch.ones(600, 600).double(), torch.ones(600).long()), TypeError, "must be torch.float32"),
    ],
)
def test_a_data_set_that_does_not_fit_is_told_so(small, train, error, message):
    with pytest.raises(error, match=message):
        asked(600).objective(train)


class Named(Generated):
    def __getitem__(self, i):
        return dict(zip(("pixels", "label"), super().__getitem__(i), strict=True))


def test_rows_with_names_are_said_to_be_paired_by_the_user(small):
    dataset = Named(600, 600)
    with pytest.raises(TypeError, match=r"a mapping of pixels, label: .*\(row\['pixels'\], row\['label'\]\)"):
        asked(600).objective(dataset)
    loader = DataLoader(
        dataset, collate_fn=lambda rows: default_collate([(row["pixels"], row["label"]) for row in rows])
    )
    assert torch.equal(asked(600).objective(loader).labels, asked(600).objective(Generated(600, 600)).labels)


def test_rows_read_within_transforms_and_hold_what_is_set():
    x, w = torch.randn(9, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    rows = Rows(Examples(TensorDataset(x, torch.arange(9))), 0)
    at = torch.tensor([[1, 4], [3, 3], [8, 0]])

    def gradient(source):
        return torch.func.vmap(torch.func.grad(lambda w, i: (source[i] @ w).square().sum()), (None, 0))(w, at)

    torch.testing.assert_close(gradient(rows), gradient(x))
    changed = rows.clone()
    changed[torch.tensor([4])] = torch.zeros(1, 3)
    assert torch.equal(changed[torch.tensor([3, 4])], torch.stack([x[3], torch.zeros(3).double()]))
    assert torch.equal(rows[4], x[4])
    assert torch.equal(rows[torch.arange(9) == 4], x[4:5])
    assert (rows.shape, rows.dim(), rows.is_floating_point()) == (x.shape, 2, True)
    assert torch.equal(pickle.loads(pickle.dumps(changed))[4], torch.zeros(3).double())


def test_rows_brought_elsewhere_and_in_pieces(small, monkeypatch):
    x = torch.arange(24).view(8, 3)
    rows = Rows(Examples(TensorDataset(x, torch.arange(8))), 0)
    other = rows.to(rows.device, torch.float64)
    assert torch.equal(other[2:7:2], x[2:7:2].double())
    assert rows.dtype == torch.int64
    monkeypatch.setattr("explain.examples.READ", 48)  # two rows of 24 bytes, and one more
    assert [len(piece) for piece in pieces(rows)] == [len(piece) for piece in pieces(x)] == [3, 3, 2]
    assert torch.equal(torch.cat(list(pieces(rows))), x)
    for whole in (torch.tensor(3.0), torch.zeros(0, 2), torch.eye(3).to_sparse()):
        assert [piece is whole for piece in pieces(whole)] == [True]


def test_what_batches_hold_is_for_the_caller_to_say(small, monkeypatch):
    data = [{"x": torch.ones(2) * i, "mask": i % 2, "y": i} for i in range(5)]

    def columns(batch):
        return batch["x"], batch["mask"], batch["y"]

    held = examples_of(data, columns).columns
    assert [part.tolist() for part in held[1:]] == [[0, 1, 0, 1, 0], [0, 1, 2, 3, 4]]
    monkeypatch.setattr("explain.examples.HELD", 0)
    streamed = examples_of(data, columns).columns
    assert isinstance(streamed, Examples)
    assert streamed.width == 3
    assert all(torch.equal(a, b[2:4]) for a, b in zip(streamed.read([2, 3]), held, strict=True))
    with pytest.raises(TypeError, match=r"gives pairs .* got a mapping of x, mask, y"):
        examples_of(data)
