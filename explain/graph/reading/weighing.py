"""How the presence of an edge is made a number: the amount of its messages, else the weight of its entry, proved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from explain.derivatives import Derivative, derivative
from explain.graph.games.trials import trials
from explain.graph.hooks.entries import read_beside_layers
from explain.graph.hooks.messages import scaled_messages
from explain.graph.number import GraphNumber
from explain.graph.reading.entries import Entries, WeighedNumber, candidates
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import EDGE, copies
from explain.types import NonFinite, Unsupported, present_atoms

_NEARLY = 1e-6  # of a weight that is all but gone
_JUMP = 0.01  # of what the absence of edges changes
_MOST = 0.5  # of that, in a network that takes no weights: it would be explained by something else than it is
_TRIED = 8  # coalitions


class Proof(NamedTuple):
    """Where the weights stand, and what was measured.

    ``gap``: the most that an answer without weights differs from that without the edges, relative; ``jump``: how much
    of the change lies at the very end, where weights leave zero; ``moves``: whether any edge changes the answer.
    """

    entries: Entries
    gap: float
    jump: float
    moves: bool

    @property
    def checks(self) -> dict[str, float | str]:
        """For the answer."""
        if not self.moves:
            return {"entries": "none: no edge changes the answer"}
        return {"entries": self.entries.name, "entries_gap": self.gap, "entries_jump": self.jump}

    @property
    def doubt(self) -> str:
        """What is to be said of it; empty where there is nothing."""
        if self.jump <= _JUMP:
            return ""
        return (
            f"where weights of edges leave zero the answers jump by {self.jump:.2g} of all that the absence of edges "
            "changes (they are divided by their sum, or it is asked whether they are there), which no derivative sees: "
            "Shapley, Lime and Occlusion take edges out"
        )


def _check_messages(number: GraphNumber, place: Place) -> None:
    """Check that the messages of edges can be told apart, also in a graph that lacks one, and are all that edges do.

    Raises:
        Unsupported: they cannot, or edges are read beside the layers that send them.
    """
    present = torch.ones(2, place.graph.num_edges, dtype=torch.bool, device=place.edges.device)
    present[1, :1] = False
    for keep in present[: 1 + int(present.size(1) > 1)].split(1):
        made = copies(place.graph, 1, edge_keep=keep)
        amounts = torch.ones(made.structure.num_edges, device=keep.device)
        with torch.no_grad(), scaled_messages(number.module, made.structure, amounts):
            number.answers(place, made)
    with torch.no_grad():
        beside = read_beside_layers(number.module, place.graph, lambda: number.outputs(place, 1))
    if beside:
        raise Unsupported(f"the network reads its edges beside its message-passing layers too, by {beside}")


def presence(number: GraphNumber, place: Place, owner: Tensor, players: int) -> Proof | None:
    """Where the weights of edges stand, see `entries_of`; None where the amounts of their messages are the plainer way.

    Raises:
        Unsupported: neither can be told apart.
    """
    try:
        _check_messages(number, place)
    except Unsupported as refusal:
        try:
            return entries_of(number, place, owner, players)
        except Unsupported as other:
            raise Unsupported(
                "edges have nothing here that could be differentiated or masked: use Shapley, Lime or Occlusion, which "
                f"take them out. Of messages: {str(refusal).split(': use ')[0]}. Of weights: {other}"
            ) from None
    return None


def entries_of(number: GraphNumber, place: Place, owner: Tensor, players: int) -> Proof:
    """Where the weights of edges stand: the first place where the answer without weights is that without the edges.

    Args:
        number: what is asked.
        place: where.
        owner: the player of each edge, -1 for none.
        players: how many.

    Raises:
        Unsupported: there is none; or the number's own removal is another one.
    """
    if number.removal != "delete":
        raise Unsupported(f'weights of edges answer what removal="delete" asks, got removal={number.removal!r}')
    if list(place.graph.edges) != [EDGE]:
        raise Unsupported("weights of edges that no messages tell apart are looked for in graphs without types")
    said = []
    trial = _Trial(number, place, owner, players)
    for entries in candidates(number):
        found = trial.of(entries)
        if isinstance(found, Proof):
            return found
        said.append(f"{entries.name}: {found}")
    raise Unsupported("; ".join(said))


def derivative_by_weights(number: GraphNumber, place: Place, entries: Entries) -> Derivative:
    """How torch's derivative of the number by these weights stands to small steps of them."""
    weighed = WeighedNumber(number, entries)
    weights = entries.weights(place.graph, number.answer)[None]
    with torch.enable_grad():
        leaf = weights.clone().requires_grad_()
        told = weighed.numbers(place, leaf)
        (gradient,) = torch.autograd.grad(told.sum(), leaf)
    moved = torch.ones_like(weights, dtype=torch.bool)
    asked = weights, float(told.detach()), gradient, moved, torch.Generator().manual_seed(0)
    return derivative(lambda batch: weighed.numbers(place, batch), *asked, batch=1)


class _Trial:
    """Coalitions of edges, and what the network answers without the others."""

    def __init__(self, number: GraphNumber, place: Place, owner: Tensor, players: int) -> None:
        self.number, self.place = number, place
        masks = trials(place, torch.where(owner < 0, players, owner), players, edges=True)
        kept = torch.linspace(0, len(masks) - 1, min(_TRIED, len(masks))).long().to(masks.device)
        none = torch.zeros_like(masks[:1])
        present, answers = [], []
        for keep in present_atoms(torch.cat([~none, none, masks[kept]]), owner).split(1):
            try:
                with torch.no_grad():
                    answers.append(number.outputs(place, 1, edge_keep=keep))
                present.append(keep)
            except Exception as error:  # whatever a user's forward raises of a graph without some edges, or any
                failed = error
        if len(present) < 3:
            raise Unsupported(
                f"it fails without edges ({type(failed).__name__}: {failed}), which weights of 0 stand for"
            )
        self.present, self.answers = torch.cat(present), torch.cat(answers)
        self.allowed = tolerance(self.answers)

    def of(self, entries: Entries) -> Proof | str:
        """What was measured of weights that stand there, or why they do not."""
        weighed = WeighedNumber(self.number, entries)
        weights = entries.weights(self.place.graph, self.answers)
        try:
            with torch.no_grad():
                without = self._asked(weighed, weights * self.present)
                nearly = self._asked(weighed, weights * torch.where(self.present, 1, _NEARLY))
            self._check_differentiable(weighed, weights)
        except Exception as error:  # whatever a user's forward raises of weights that it does not know
            return f"fails with them ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        gap = relative(without, self.answers)
        change = float((self.answers - self.answers[:1]).abs().max())
        moves = change > self.allowed * float(self.answers.abs().max())
        if not moves and gap <= self.allowed:
            return Proof(entries, gap, 0.0, moves=False)
        if entries.how is not None and not weighed.met:
            return "there are none"
        if not gap <= self.allowed:
            return f"with weights of 0 it answers otherwise than without the edges, by {gap:.2g} of its answers"
        jump = float((nearly - without).abs().max()) / change
        if not float((nearly - self.answers[:1]).abs().max()) > self.allowed * float(self.answers.abs().max()):
            return "it is only asked whether they are there, not how large they are"
        if entries.how is not None and jump > _MOST:
            return f"where they leave zero the answers jump by {jump:.2g} of all that the absence of edges changes"
        return Proof(entries, gap, jump, moves=True)

    def _asked(self, weighed: WeighedNumber, weights: Tensor) -> Tensor:
        return torch.cat([weighed.outputs(self.place, one) for one in weights.split(1)])

    def _check_differentiable(self, weighed: WeighedNumber, weights: Tensor) -> None:
        """Check that torch has a derivative, or raise what it raises of an operation without one.

        Raises:
            NonFinite: it is NaN or infinite.
        """
        with torch.enable_grad():
            leaf = weights.clone().requires_grad_()
            told = weighed.outputs(self.place, leaf[None]).sum()
            if told.requires_grad:
                (gradient,) = torch.autograd.grad(told, leaf, allow_unused=True)
                if gradient is not None and not gradient.isfinite().all():
                    raise NonFinite("torch's derivative is NaN or infinite, as of equal eigenvalues")
