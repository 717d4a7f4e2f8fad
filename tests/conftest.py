"""Tests run side by side, one a core; within each torch keeps to one thread, which small models prefer anyway."""

import matplotlib as mpl
import torch

mpl.use("agg")
torch.set_num_threads(1)
