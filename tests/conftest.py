"""Tests run side by side, one a core; within each torch keeps to one thread, which small models prefer anyway."""

import sys

import matplotlib as mpl
import pytest
import shapes
import torch

mpl.use("agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _shapes_are_as_declared():
    with pytest.MonkeyPatch.context() as patch:
        shapes.hold(patch)
        yield


@pytest.fixture(autouse=True)
def _pictures_are_closed():
    """No test sees the figures of another."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
