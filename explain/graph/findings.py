"""What was found out about a network in its present state: asked once, forgotten as soon as the state is another."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor, nn

from explain.graph.state import fingerprint, tensors
from explain.graph.tensors.apart import Apart
from explain.graph.tensors.cuts import Reach
from explain.graph.tensors.derived import Derived
from explain.graph.tensors.structure import Structure
from explain.outputs import Meaning

# what of a coalition's graph is left out; degrees: also edges into the farthest nodes; weighted: those, summed into one
Trimming: TypeAlias = Literal["nothing", "unreached", "weighted", "degrees"]


class Batching(NamedTuple):
    """``together``: whether different coalitions evaluated in one pass answer as each does alone. ``squares``: numbers
    of one copy that grow with the square of the copies (a matrix of all pairs of nodes is made within).
    """

    together: bool
    squares: int = 0


class Findings:
    """What was found out about a network, and the state of network and data that it was found in."""

    def __init__(self) -> None:
        self.state: Hashable = None
        self._forget()

    def _forget(self) -> None:
        self.apart = Apart()
        self.seeded: bool | None = None  # whether what it draws is seeded by its input; None: not looked at
        self.answers: dict[str, list[Tensor]] = {}  # two answers for all nodes of a type
        self.meanings: dict[str | None, Meaning] = {}  # of the outputs, by the type of node that is asked about
        self.depths: dict[tuple[str, ...], Reach | None] = {}  # by the types of the explained nodes
        self.proved: set[Reach] = set()  # receptive fields that were checked on the whole graph
        self.batching: Batching | None = None
        self.trims: dict[str, Trimming] = {}
        self.program: object | None = None  # what the fast path runs, or why there is none; None: not looked at
        self.derived: tuple[Structure, tuple[Derived, ...]] | None = None  # a graph's fields that follow from its edges
        self.agreement: dict[Hashable, float] = {}  # of the fast path with the network, by kind of question

    def current(self, net: nn.Module, seen: Hashable) -> Hashable:
        """The state of network and data; what is known of another one is forgotten."""
        state = (*fingerprint(net), seen)
        if state != self.state:
            self.state = state
            self._forget()
        return state

    def moved(self, net: nn.Module) -> bool:
        """Whether a parameter lies elsewhere or was written since the state was taken."""
        return not isinstance(self.state, tuple) or tensors(net) != self.state[0]
