"""Labels are told apart by their values, their shape and how many outputs there are."""

import pytest
import torch

from explain.outputs import label_form


@pytest.mark.parametrize(
    ("labels", "count", "form"),
    [
        (torch.tensor([0, 1]), 1, "classes"),
        (torch.tensor([True, False]), 1, "classes"),
        (torch.tensor([0.0, 1.0]), 1, "classes"),
        (torch.tensor([[0.0], [1.0]]), 1, "classes"),
        (torch.tensor([0.0, 2.0]), 3, "classes"),
        (torch.tensor([0.5, 2.0]), 3, "reals"),
        (torch.tensor([-1.0, 1.0]), 1, "signs"),
        (torch.tensor([0, 3]), 1, "whole"),
        (torch.tensor([[0, 1], [1, 0]]), 2, "one_hot"),
        (torch.tensor([[0.0, 1.0], [1.0, float("nan")]]), 2, "multi_hot"),
        (torch.tensor([[0.3, 0.7]]), 2, "soft"),
        (torch.tensor([[0.3, 1.7]]), 2, "reals"),
    ],
)
def test_forms_of_labels(labels, count, form):
    assert label_form(labels, count) == form
