"""Data: the karate club and the digits as published, and a clear word when Cora or MNIST is not at hand."""

import gzip
import os

import pytest
import torch

from models.datasets import cora, digits, karate_club, mnist


def test_the_karate_club_as_published():
    data = karate_club()
    assert data.train_mask.nonzero().view(-1).tolist() == [0, 4, 8, 24]  # torch_geometric's own
    assert not (data.train_mask & data.test_mask).any()
    assert data.y.bincount().tolist() == [13, 12, 4, 5]


@pytest.mark.parametrize("labelled", [1, 4])
def test_so_many_labels_in_each_community(labelled):
    data = karate_club(labelled)
    assert data.y[data.train_mask].bincount().tolist() == [labelled] * 4
    assert int((data.train_mask | data.test_mask).sum()) == 34


@pytest.mark.parametrize("labelled", [0, 5])
def test_too_many_labels(labelled):
    with pytest.raises(ValueError, match="from 1 to 4"):
        karate_club(labelled)


def test_cora_says_what_to_do_when_it_is_not_there(monkeypatch, tmp_path):
    monkeypatch.delenv("EXPLAIN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set EXPLAIN_DATA to a folder"):
        cora()
    (tmp_path / "Planetoid" / "Cora" / "raw").mkdir(parents=True)
    (tmp_path / "Planetoid" / "Cora" / "raw" / "ind.cora.x").touch()
    with pytest.raises(FileNotFoundError, match=r"lacks ind\.cora\.tx"):
        cora(tmp_path)


def test_digits_in_two_parts():
    random = torch.get_rng_state()
    train, held_out = digits()
    assert torch.equal(torch.get_rng_state(), random)
    assert len(train.images) + len(held_out.images) == 1797
    assert (train.labels.bincount() + held_out.labels.bincount()).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    for images, labels in (train, held_out):
        assert (images.min(), images.max()) == (-1, 1)
        assert len(images) == len(labels)
    assert torch.equal(digits()[0].images, train.images)


@pytest.mark.skipif("EXPLAIN_DATA" not in os.environ, reason="EXPLAIN_DATA does not name a data folder")
def test_mnist_in_two_parts():
    train, held_out = mnist()
    assert train.images.shape == (6667, 1, 28, 28)
    assert held_out.images.shape == (3333, 1, 28, 28)
    assert (train.labels.bincount() + held_out.labels.bincount()).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert (train.images.min(), train.images.max()) == (-1, 1)


def test_mnist_says_what_to_do_when_it_is_not_there_or_not_whole(monkeypatch, tmp_path):
    monkeypatch.delenv("EXPLAIN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MNIST is not part of this project: set EXPLAIN_DATA"):
        mnist()
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="lacks t10k-images-idx3-ubyte"):
        mnist(tmp_path)
    labels, images = raw / "t10k-labels-idx1-ubyte.gz", raw / "t10k-images-idx3-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4])))
    for damaged in (b"", b"no gzip", gzip.compress(b""), gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 1]))):
        images.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole idx file"):
            mnist(tmp_path)
    images.write_bytes(gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7])))
    with pytest.raises(ValueError, match="must hold 10000 digits"):
        mnist(tmp_path)
