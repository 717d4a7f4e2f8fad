"""Nodes of one graph: Cora, by the split of each paper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn
from torch_geometric.data import Data

from models import convolutions, dcnn, difformer, gat, gcn, graph_bert, nodeformer
from models.checkpoints import trained
from models.datasets import cora
from models.results.page import Row
from models.splits import per_class, shares
from models.training import Recipe

Split = Callable[[Data, int], Data]


def on_cora(kind: type[nn.Module], recipe: Recipe, split: Split, seed: int, **sizes: Any) -> dict[str, Any]:
    """Facts of one network trained on Cora."""
    return trained(kind, split(cora(), seed), recipe, seed=seed, **sizes).facts


def _public(data: Data, seed: int) -> Data:
    return data


def _one_random(data: Data, seed: int) -> Data:
    """One split for all seeds, the one that DIFFormer reports on: they differ in their first weights."""
    return per_class(data, seed=123)


def _words(train: float, validation: float, data: Data, seed: int) -> Data:
    """These shares at random, the rest to test; a word is there or not, as in the papers before rows summed to one."""
    return _there_or_not(shares(data, seed, train, validation), seed)


def _there_or_not(data: Data, seed: int) -> Data:
    data = copy.copy(data)
    data.x = (data.x > 0).to(data.x.dtype)
    return data


def _one_random_of_words(data: Data, seed: int) -> Data:
    return _there_or_not(_one_random(data, seed), seed)


def _measured(kind: type[nn.Module], recipe: Recipe, split: Split, **sizes: Any) -> Callable[[int], dict[str, Any]]:
    return partial(on_cora, kind, recipe, split, **sizes)


_PUBLIC = "Cora, public split"
_RANDOM = "Cora, 20 a class, 500, 1000 at random (the authors' split, seed 123)"
_WORDS = "Cora, words 0 or 1,"
_ALONE = 55.1  # a multilayer perceptron, on features without the graph (Kipf and Welling 2017)
ROWS = [
    Row("GCN", _PUBLIC, "81.5 (Kipf and Welling 2017)", 81.0, _measured(gcn.GCN, gcn.PAPER, _public)),
    Row("GAT", _PUBLIC, "83.0 (Veličković et al. 2018)", 82.0, _measured(gat.GAT, gat.PAPER, _public)),
    Row(
        "ChebNet",
        _PUBLIC,
        "81.2 (Kipf and Welling 2017, K = 2)",
        79.0,
        _measured(convolutions.ChebNet, convolutions.CHEBNET, _public),
    ),
    Row("MoNet", _PUBLIC, "81.7 (Monti et al. 2017)", 80.0, _measured(convolutions.MoNet, convolutions.MONET, _public)),
    Row(
        "JK-concat",
        f"{_WORDS} 60/20/20 at random by seed",
        "89.1 (Xu et al. 2018)",
        87.1,
        _measured(convolutions.JK, convolutions.JK_CORA, partial(_words, 0.6, 0.2)),
    ),
    Row("SGC", _PUBLIC, "81.0 (Wu et al. 2019)", 80.0, _measured(convolutions.SGC, convolutions.SGC_CORA, _public)),
    Row(
        "APPNP",
        _PUBLIC,
        "83.3 (Chen et al. 2020; Gasteiger et al. 2019 have none on this split)",
        82.0,
        _measured(convolutions.APPNP, convolutions.APPNP_CORA, _public),
    ),
    Row(
        "GraphSAGE",
        _PUBLIC,
        "none (Hamilton et al. 2017); features alone 55.1",
        _ALONE,
        _measured(convolutions.SAGE, convolutions.CORA, _public),
    ),
    Row(
        "SIGN",
        _PUBLIC,
        "none (Rossi et al. 2020); features alone 55.1",
        _ALONE,
        _measured(convolutions.SIGN, replace(convolutions.CORA, epochs=100), _public),
    ),
    Row(
        "GPS",
        _PUBLIC,
        "none (Rampasek et al. 2022); features alone 55.1",
        _ALONE,
        _measured(convolutions.GPS, replace(convolutions.CORA, epochs=100), _public, hidden=32, dropout=0.5),
    ),
    Row(
        "SGFormer",
        f"{_WORDS} 20 a class, 500, 1000 at random (the authors' split, seed 123)",
        "84.5 (Wu et al. 2023)",
        83.5,
        _measured(
            convolutions.SGFormer,
            convolutions.SGFORMER_CORA,
            _one_random_of_words,
            hidden=64,
            attended=1,
            layers=4,
            share=0.8,
            dropout=(0.2, 0.5),
        ),
    ),
    Row(
        "DIFFormer-s",
        _RANDOM,
        "85.9 (Wu et al. 2023)",
        84.5,
        _measured(difformer.DIFFormer, difformer.CORA_S, _one_random),
    ),
    Row(
        "DIFFormer-a",
        _RANDOM,
        "84.1 (Wu et al. 2023)",
        83.0,
        _measured(difformer.DIFFormer, difformer.CORA_A, _one_random, kernel="a", dropout=0.0),
    ),
    Row(
        "NodeFormer",
        _RANDOM,
        "83.4 (Wu et al. 2023)",
        82.0,
        _measured(nodeformer.NodeFormer, nodeformer.CORA, _one_random),
    ),
    Row(
        "DCNN",
        f"{_WORDS} thirds at random by seed",
        "86.8 (Atwood and Towsley 2016)",
        84.8,
        _measured(dcnn.DCNN, dcnn.CORA, partial(_words, 1 / 3, 1 / 3)),
    ),
    Row(
        "Graph-BERT type",
        f"{_WORDS} public split",
        "84.3 (Zhang et al. 2020; pre-trained, best epoch on the test nodes)",
        80.0,
        lambda seed: graph_bert.load_or_train(_there_or_not(cora(), seed), seed=seed, **graph_bert.CORA_SIZES).facts,
        seeds=6,
    ),
]
