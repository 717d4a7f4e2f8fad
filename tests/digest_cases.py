"""What Python keeps in the order of hashes, which differ from process to process."""

from torch import nn


class Setful(nn.Module):
    """A network with sets of its own."""

    def __init__(self):
        super().__init__()
        self.names, self.rare = {"a", "b", "c", "d", "e"}, frozenset("vwxyz")
        self.table = {"kinds": {("x", 1), ("y", 2)}, "inner": {"k": {"l", "m", "n"}}}

    def forward(self, x):
        return x if self.names in ({"p"}, {"q", "r", "s"}) else -x


def asked():
    """A network and a payoff."""
    known = {"u", "v", "w"}
    return Setful(), lambda rows: rows[:, 0] * ("u" in known)
