"""The operation that wrote a tensor, behind views and copies."""

import pytest
import torch
from torch import nn

from explain.outputs import LastOperation

Z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "operation"),
    [
        (lambda z: z.softmax(1), "_softmax"),
        (lambda z: z.softmax(1)[:, :2].t(), "_softmax"),
        (lambda z: torch.cat([z.sigmoid(), z.sigmoid()]), "sigmoid"),
        (lambda z: torch.stack([z.sigmoid(), z])[0], None),
        (lambda z: z.clone().sigmoid_().double(), "sigmoid_"),
        (lambda z: nn.functional.log_softmax(z, 1).squeeze(), "_log_softmax"),
        (lambda z: z.sigmoid() * 2, "mul"),
        (lambda z: nn.Linear(3, 2)(z), "addmm"),
        (lambda z: torch.eye(40).to_sparse() @ z, "mm"),
    ],
)
def test_the_last_operation(make, operation):
    with torch.no_grad(), LastOperation() as last:
        found = make(Z)
        assert last.of(found) == operation
