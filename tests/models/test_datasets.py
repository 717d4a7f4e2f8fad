"""Data: the karate club as it is published, and a clear word when Cora is not at hand."""

import pytest

from models.datasets import cora, karate_club


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
