"""Counterfactuals: the fewest players whose absence changes the predicted class, or a number by a stated amount."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.explainer import Answer, Explainer
from explain.progress import in_sight
from explain.types import Game, Masks, Players, Target, Unsupported, Values


@dataclass(frozen=True)
class Counterfactual(Explainer):
    """``argmin |D|  such that  argmax f(N - D) != argmax f(N)``: of edges, as CF-GNNExplainer (Lucic et al. 2022).

    Every set of one player is tried, then of two, as long as they fit the budget: a set found so is *provably* among
    the smallest. Above that a beam search deletes one player more at a time from the sets with the least margin
    between the predicted class and the best other one, and what it finds is then thinned: no player of it can be put
    back. The predicted class is meant also where the number is that of another.

    The scores are what each deletion took from the number, in the order in which the deletions hurt most; they sum to
    the number's fall, and players that stay have zero.

    Not for: what a player is worth: those that stay get zero, however much they push the number.

    Args:
        players: a kind such as "edges", or `Players`; ``target.players("edges", undirected=True)`` deletes pairs.
        limit: the most players deleted.
        budget: the most coalitions evaluated for the sets of one size.
        width: sets kept by the beam.
        change: by how much the number shall change instead of the class, with its sign.
        seed: written down only: nothing is drawn.
        progress: a bar where it takes more than five seconds.

    ``checks``: ``class`` (the predicted one) or ``change``; ``flipped``; ``deleted`` (how many); ``deleted_players``
    (their names, as a mask ``parts["deleted"] [players]``); ``smallest`` (no smaller set does it, as all were tried);
    ``tried`` (the size up to which all sets were); ``margin_before``, ``margin_after`` (to the border, in the outputs'
    units).

    Raises:
        ValueError: a setting that is not a whole number of at least 1, a change that is none.
        Unsupported: a target without classes, and no ``change``.

    Warns:
        UserWarning: no set of up to ``limit`` players was found.

    >>> import explain
    >>> net = torch.nn.Linear(3, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[2.0, 1.0, -1.5]]))
    >>> why = Counterfactual("features").explain(explain.wrap(net, task="classification").example(torch.ones(3)))
    >>> why.scores, why.checks["smallest"]
    (tensor([2., 0., 0.], dtype=torch.float64), True)
    >>> regressor = explain.wrap(net, task="regression").example(torch.ones(3))
    >>> Counterfactual("features", change=1.2).explain(regressor).scores
    tensor([ 0.0000,  0.0000, -1.5000], dtype=torch.float64)
    """

    players: str | Players = "edges"
    limit: int = 10
    budget: int = 20_000
    width: int = 32
    change: float | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("limit", "budget", "width"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
        if self.change is not None:
            number = isinstance(self.change, (int, float)) and not isinstance(self.change, bool)
            if not number or not math.isfinite(self.change) or self.change == 0:
                raise ValueError(f"change must be a number other than 0, with its sign, or None; got {self.change!r}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        game, change = target.game(self.players), self.change
        value = game.ends()[1]
        goal = _other_class(target, game.players) if change is None else _other_number(game, value, change)
        before = float(goal.margins(_without(len(game.players), [()])))
        found = self._search(goal.margins, len(game.players))
        if not found.flips:
            doubt(self._not_found(game.players, goal.what, found.tried))
        deleted = torch.zeros(len(game.players), dtype=torch.bool)
        deleted[list(found.players)] = found.flips
        scores = _falls(game, found.players) if found.flips else torch.zeros(len(deleted), dtype=torch.float64)
        return Answer(
            scores=scores,
            players=game.players,
            value=value,
            base=None,
            parts={"deleted": deleted},
            checks={
                **game.checks,
                **goal.asked,
                "flipped": found.flips,
                "deleted": int(deleted.sum()),
                "deleted_players": [game.players.names[player] for player in deleted.nonzero().view(-1).tolist()],
                "smallest": found.flips and found.tried >= len(found.players) - 1,
                "tried": found.tried,
                "margin_before": before,
                "margin_after": found.margin,
            },
            calls=game.calls + (goal.margins.calls if change is None else 0),
        )

    def _not_found(self, players: Players, what: str, tried: int) -> str:
        """What was tried in vain, and which setting would try more, where one does."""
        kind, count = players.kind, len(players)
        if not count:
            return f"there are no {kind} that matter to this number, so that none changes {what}"
        said = f"no {min(self.limit, count)} or fewer {kind} were found whose absence changes {what}"
        if tried == count:
            return f"{said}: every set was tried, all of them together included"
        short = {"limit": self.limit < count, "budget or width": tried < self.limit}
        more = " or ".join(name for name, is_so in short.items() if is_so)
        return f"{said}: raise {more}, or it does not hang on them"

    def _search(self, margins: Game, players: int) -> _Found:
        """The first size at which a set flips the class; of those the one with the least margin."""
        beam: list[tuple[int, ...]] = [()]
        best = _Found((), math.inf, 0)
        tried = 0
        sizes = range(1, min(self.limit, players) + 1)
        for size in in_sight(sizes, desc="deleted", progress=self.progress):
            complete = tried == size - 1 and math.comb(players, size) <= self.budget
            sets = list(itertools.combinations(range(players), size)) if complete else _grown(beam, players)
            sets = sets[: self.budget]
            values = margins(_without(players, sets))
            tried = size if complete else tried
            order = values.argsort()
            best = _Found(sets[int(order[0])], float(values[order[0]]), tried)
            if best.flips:
                return best if complete else _thinned(margins, players, best)
            beam = [sets[i] for i in order[: self.width].tolist()]
        return best._replace(tried=tried)


class _Found(NamedTuple):
    """``players`` whose absence leaves this ``margin``, and the size up to which every set was ``tried``."""

    players: tuple[int, ...]
    margin: float
    tried: int

    @property
    def flips(self) -> bool:
        return self.margin < 0


class _Goal(NamedTuple):
    """What shall change: ``margins`` of coalitions, negative where it has; ``asked`` goes into the checks."""

    what: str
    margins: Game
    asked: dict[str, Any]


def _other_class(target: Target, players: Players) -> _Goal:
    """Another class than that which is predicted with every player.

    Raises:
        Unsupported: a number without classes.
    """
    if not target.has_classes:
        raise Unsupported(
            "a counterfactual changes the predicted class, and this target has no classes: say by how much its number, "
            f"{target.value():.4g}, shall change: Counterfactual(change=-0.5) lowers it by more than that"
        )
    label, margin = target.decision()
    return _Goal("the class", target.asking(margin).game(players), {"class": label})


def _other_number(game: Game, value: float, change: float) -> _Goal:
    """The number, further than ``change`` away to that side."""

    def margin(masks: Masks) -> Values:
        return abs(change) - math.copysign(1.0, change) * (game(masks) - value)

    margins = Game(game.players, margin, batch_size=game.batch_size)
    return _Goal(f"the number by {change:+.4g}", margins, {"change": change})


def _without(players: int, sets: list[tuple[int, ...]]) -> Tensor:
    """Masks with everyone but these, ``[sets, players]``; the sets are of one size."""
    masks = torch.ones(len(sets), players, dtype=torch.bool)
    return masks.scatter(1, torch.tensor(sets, dtype=torch.long).reshape(len(sets), -1), False)


def _grown(beam: list[tuple[int, ...]], players: int) -> list[tuple[int, ...]]:
    """Each set with one player more, every set once."""
    grown = {tuple(sorted((*each, i))): None for each in beam for i in range(players) if i not in each}
    return list(grown)


def _thinned(margins: Game, players: int, found: _Found) -> _Found:
    """The set without those that are not needed, the least needed first."""
    while len(found.players) > 1:
        fewer = [tuple(p for p in found.players if p != out) for out in found.players]
        values = margins(_without(players, fewer))
        least = int(values.argmin())
        if not values[least] < 0:
            break
        found = _Found(fewer[least], float(values[least]), found.tried)
    return found


def _falls(game: Game, deleted: tuple[int, ...]) -> Tensor:
    """What each deletion takes from the number, the one that takes most first."""
    scores = torch.zeros(len(game.players), dtype=torch.float64)
    gone: tuple[int, ...] = ()
    value = float(game(_without(len(scores), [()])))
    while left := [p for p in deleted if p not in gone]:
        values = game(_without(len(scores), [(*gone, p) for p in left]))
        next_ = int(values.argmin())
        scores[left[next_]] = value - float(values[next_])
        gone, value = (*gone, left[next_]), float(values[next_])
    return scores
