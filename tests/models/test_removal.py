"""Influence of nodes and edges against retraining: the karate club and a block model; the whole table is a script."""

import torch

from models.removal import Training, blocks, karate, some, table, without


def test_the_karate_club_exhaustively():
    nodes, edges = karate(nodes=(8, 33), newton=False)
    assert (nodes.removals, edges.removals) == (66, 156)
    assert nodes.total >= 0.98
    assert nodes.learned >= 0.95
    assert edges.total >= 0.99
    assert edges.worst >= 0.99
    assert edges.learned >= 0.95
    assert nodes.structural < 0.9  # neither part alone
    assert nodes.gradient < 1e-12
    assert nodes.lambda_min >= 0.05 - 1e-9
    assert list(table([nodes, edges]).kind) == ["nodes", "edges"]


def test_data_without():
    data = blocks(size=10, labelled=3)
    gone = without(data, "nodes", torch.tensor([2]))
    assert 2 not in gone.edge_index
    assert not gone.x[2].any()
    assert not gone.train_mask[2]
    assert int(data.train_mask.sum()) == 9
    fewer = without(data, "edges", torch.tensor([0]))
    assert fewer.edge_index.equal(data.edge_index[:, 1:])
    assert Training(data, 0.1, 9).n == 9


def test_some_of_the_players():
    import explain
    from models.removal import Sgc

    target = explain.wrap(Sgc(8, 3).double(), blocks(size=10, labelled=3)).node(0)
    players = target.players("edges", all=True, undirected=True)
    chosen = some(players, torch.tensor([1, 3]))
    assert chosen.names == (players.names[1], players.names[3])
    assert chosen.geometry["ends"].equal(players.geometry["ends"][:, [1, 3]])
    assert len(chosen.groups) == 2
