"""A transformer on a table: attention to its feature tokens, read by a class token."""

import pytest
import torch
from torch import nn

from explain.attention import Attention
from explain.supervised import SupervisedModel
from explain.types import Players, Unsupported

FEATURES = 5


class Transformer(nn.Module):
    """Every feature a token; the class token comes first."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(FEATURES, 8))
        self.first = nn.Parameter(torch.randn(1, 8))
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        tokens = torch.cat([self.first.expand(len(x), 1, 8), x[:, :, None] * self.scale], 1)
        return self.head(self.body(tokens)[:, 0])


def asked(**options):
    torch.manual_seed(0)
    model = SupervisedModel(Transformer().eval(), task="classification", **options)
    return model.example(torch.randn(FEATURES))


def test_the_class_token_looks_at_features():
    tokens = Players("tokens", torch.arange(1, FEATURES + 1), tuple("abcde"))
    why = Attention(tokens, aggregate="last").explain(asked(query_rows=(0,)))
    weights = why.parts["attention.0"]  # [batch, heads, queries, keys]
    torch.testing.assert_close(why.scores, weights.double().mean((0, 1))[0, 1:], rtol=1e-5, atol=1e-7)
    assert why.checks["change_under_uniform"] != 0


def test_the_query_rows_must_be_said():
    with pytest.raises(Unsupported, match=r"query_rows=\(0,\)\) for a class token"):
        asked().rows()
