"""The training loss of a graph network once a node, an edge or a feature is gone: for one player, and for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.tensors.cuts import Focus, Place
from explain.graph.training.leave_one_out import LeaveOneOut
from explain.graph.training.sites import Site, Sites, sites, whole_sites
from explain.threads import found_alone
from explain.training import TrainingObjective
from explain.types import LossChange, Parameters, Players

_BUDGET = 2**22  # numbers held at once by the copies of one forward pass
_CALL = 2**18  # what a forward pass costs beside its numbers, in numbers


@dataclass(frozen=True, eq=False)
class GraphRemoval:
    """``J(theta; G)`` of a graph network, whose players are nodes, edges or features of ``G``, or several.

    Without a player the loss is that of the edited graph ``G'``, ``J(theta; G') = (1/n) sum_i loss_i(theta; G') +
    weight_decay/2 |theta|^2`` with ``n`` kept fixed; a node that is gone takes the losses of its own label and of
    training pairs with it along.

    Args:
        base: the objective on ``G``, whose players are the training examples.
        number: what is asked.
        place: where its coalitions are evaluated.
        players: nodes, edges or features, of the whole graph.
        foci: the nodes of each training example; for graph tasks one empty focus, of the explained graph, if it was
            trained on.
        positions: of these examples in the training set, int64 ``[len(foci)]``.
    """

    base: TrainingObjective
    number: GraphNumber
    place: Place
    players: Players
    foci: list[Focus]
    positions: Tensor

    def __post_init__(self) -> None:
        _ = self.left_out.owner  # players that do not fit are refused now
        _ = self.sites  # found by asking the model, which must not happen within a derivative

    # --- the objective on the unedited graph ---

    @property
    def params(self) -> Parameters:
        """``theta``, by name."""
        return self.base.params

    @property
    def local(self) -> bool:
        """The graph is an input of every example."""
        return False

    @property
    def weight_decay(self) -> float:
        """As in ``torch.optim.SGD``."""
        return self.base.weight_decay

    @property
    def convex(self) -> bool:
        """Whether the loss is known to be convex in the outputs."""
        return self.base.convex

    @property
    def size(self) -> int:
        """``n``, the number of training examples."""
        return self.base.size

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Positions of the training examples."""
        return self.base.batches(batch_size, generator)

    @cached_property
    def _near(self) -> TrainingObjective:
        """The base read from the part of the graph that its examples need: what else there is costs as much."""
        if self.sites.hops is None:
            return self.base
        together, model = self.sites.together, self.number.model
        return replace(self.base, predict=lambda params, batch: together.outputs(model, params, 1)[0, batch])

    def outputs(self, params: Parameters, batch: Tensor) -> Tensor:
        """``[examples, outputs]``."""
        return self._near.outputs(params, batch)

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """``[examples]``."""
        return self.base.loss(outputs, batch)

    def train_loss(self, params: Parameters, batch: Tensor) -> Tensor:
        """``[examples]``."""
        return self._near.train_loss(params, batch)

    def measurement(self, params: Parameters) -> Tensor:
        """The number, a scalar."""
        return self.base.measurement(params)

    # --- the same on edited graphs ---

    @cached_property
    def left_out(self) -> LeaveOneOut:
        """What the absence of each player does."""
        return LeaveOneOut(self.number, self.players)

    @cached_property
    def _touching(self) -> dict[Site, Tensor]:
        return {}

    @found_alone
    def sites(self) -> Sites:
        """Where edits are evaluated."""
        return sites(self.number, self.foci)

    @property
    def rows_stay(self) -> bool:
        """Whether a node that should be gone can still be seen: its row is kept, and the model looks past its edges."""
        gone = self.players.kind == "nodes" and self.number.removal == "delete"
        return gone and bool(self.number.focus) and self.sites.hops is None

    def dropped(self) -> Tensor:
        """Player and training example, for each example that leaves with a player, int64 ``[2, m]``."""
        if self.players.kind != "nodes" or not self.foci or not self.foci[0]:
            return torch.zeros(2, 0, dtype=torch.long)
        starts = self.number.graph.node_starts
        flat = torch.tensor([[starts[kind] + number for kind, number in focus] for focus in self.foci])
        owner = self.left_out.owner.cpu()[flat]
        example, place = (owner < len(self.players)).nonzero().T
        return torch.stack([owner[example, place], self.positions.cpu()[example]]).unique(dim=1)

    def edited(self, player: int) -> TrainingObjective:
        """The objective on the graph without this player, evaluated on the whole of it.

        Raises:
            IndexError: no such player.
        """
        if not 0 <= player < len(self.players):
            raise IndexError(f"player must be from 0 to {len(self.players) - 1}, got {player}")
        full, one = whole_sites(self.number, self.foci), torch.tensor([player])

        def predict(params: Parameters, batch: Tensor) -> Tensor:
            if not self.foci:
                return self.base.predict(params, batch)
            found = self._copies(full.together, params, one)[0]
            if self.foci[0]:
                return found[batch]
            trained = torch.isin(batch, self.positions.to(batch.device))  # an edited graph among others
            return torch.where(trained[:, None], found, self.base.predict(params, batch))

        owner, example = self.dropped()
        return replace(
            self.base.without(example[owner == player]),
            predict=predict,
            number=lambda params: self._numbers(full.number, params, one)[0],
        )

    def moving(self) -> Tensor:
        """Players within reach of the number, bool ``[P]``."""
        found = torch.zeros(len(self.players), dtype=torch.bool)
        return found.index_fill(0, self.left_out.touching(self.sites.number.place), True)

    def numbers(self, params: Parameters, players: Tensor) -> Tensor:
        """The number without each of these players, ``[k]``."""
        return self._numbers(self.sites.number, params, players)

    def loss_changes(self, players: Tensor) -> list[LossChange]:
        """Of every example within reach of an edit: each in its own part of the graph, or all in one, by cost."""
        plans = []
        for chosen in (self.sites.apart, [self.sites.together][: len(self.sites.apart)]):
            reached = [(site, seen[torch.isin(seen, players)]) for site in chosen if len(seen := self._seen(site))]
            plans.append([(site, found.split(self._count(site))) for site, found in reached])
        cheapest = min(plans, key=lambda plan: sum(self._cost(site, chunks) for site, chunks in plan))
        return [
            LossChange(chunk, partial(self._change, site=site, players=chunk))
            for site, chunks in cheapest
            for chunk in chunks
        ]

    # --- how ---

    def _change(self, params: Parameters, site: Site, players: Tensor) -> Tensor:
        """What the examples of a site add to ``L' - L`` for each of these players, ``[k]``."""
        outputs = self.base.link(self._copies(site, params, players, unedited=True))
        count, batch = len(players) + 1, self.positions[site.examples].to(outputs.device)
        losses = self.base.loss(outputs.flatten(0, 1), batch.repeat(count)).view(count, -1)
        kept = self._kept(site, players).to(losses)
        return (losses[:-1] * kept - losses[-1:]).sum(1) / self.size

    def _kept(self, site: Site, players: Tensor) -> Tensor:
        """Whether each example of the site is still there without each of these players, bool ``[k, m]``."""
        owner, example = self.dropped()
        row = torch.full((len(self.players),), -1).index_put((players,), torch.arange(len(players)))[owner]
        column = torch.full((self.size,), -1)
        column[self.positions[site.examples].cpu()] = torch.arange(len(site.examples))
        column = column[example]
        here = (row >= 0) & (column >= 0)
        kept = torch.ones(len(players), len(site.examples), dtype=torch.bool)
        kept[row[here], column[here]] = False
        return kept

    def _numbers(self, site: Site, params: Parameters, players: Tensor) -> Tensor:
        return self.number.read(self._copies(site, params, players)[:, 0].double())

    def _copies(self, site: Site, params: Parameters, players: Tensor, unedited: bool = False) -> Tensor:
        """Outputs without each of these players, and of the unedited graph, ``[k, m, outputs]`` or ``[k + 1, ...]``."""
        everyone = torch.cat([players, players.new_full((1,), -1)])  # pooling counts graphs by the last one it sees
        groups = [everyone] if self.place.together else list(everyone.split(1))
        found = torch.cat(
            [site.outputs(self.number.model, params, len(g), self.left_out.edits(site.place, g)) for g in groups]
        )
        return found if unedited else found[:-1]

    def _seen(self, site: Site) -> Tensor:
        if site not in self._touching:
            self._touching[site] = self.left_out.touching(site.place)
        return self._touching[site]

    def _count(self, site: Site) -> int:
        """Copies of a site that are evaluated together."""
        if self.number.batch_size is not None:
            return self.number.batch_size
        pairs = self.place.copies_at_once(site.place.graph.num_nodes)
        return pairs or max(1, _BUDGET // site.place.graph.footprint)

    def _cost(self, site: Site, chunks: tuple[Tensor, ...]) -> int:
        return sum(_CALL + (len(chunk) + 1) * site.place.graph.footprint for chunk in chunks)
