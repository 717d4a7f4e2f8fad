"""Every explainer is asked as cheaply as it can be, so that the table says what the explainers themselves would."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch

from explain.attention import Attention
from explain.counterfactual import Counterfactual
from explain.discovery.costs import calls_of, worth
from explain.discovery.table import Explainers, Fit, Refused, written
from explain.explainer import Explainer
from explain.gradient import Gradient
from explain.graph_lime import GraphLime
from explain.guard import untouched
from explain.influence import DTrak, Influence, SelfInfluence, TracIn, Trak
from explain.lime import Lime
from explain.mask import Mask
from explain.obstacles import obstacle
from explain.occlusion import Occlusion
from explain.shapley import Banzhaf, Interactions, Shapley
from explain.shapley.interactions import MOST_SAMPLED
from explain.subgraphx import SubgraphX
from explain.types import Game, Players, Target, offers

if TYPE_CHECKING:
    from explain.explanation import Explanation

T = TypeVar("T")
Cost = Callable[["Explanation", float], tuple[int | None, float | None]]

_LONG = 60.0  # seconds that nobody waits for a first look
_TOGETHER = 16  # coalitions of the batch that is timed
_MASKED = ("edges", "nodes", "features")
_ATTENDED = ("words", "patches", "superpixels", "edges", "nodes", "relations", "tokens")
_ORDER = ("Shapley", "Occlusion", "Gradient", "Interactions", "Counterfactual", "Banzhaf", "Lime", "Attention", "Mask")
_NOBODY = "nobody plays: the answer is empty"


def explainers(target: Target, *kinds: str, patience: float = 10.0) -> Explainers:
    """Which explainers fit a question, over which players, at what cost, which to ask first, and why not the others.

    Games are built and a few coalitions timed; other explainers are asked in their cheapest form as long as
    ``patience`` lasts, so that what is refused is what they refuse, in their own words. ``seconds`` are an upper bound:
    coalitions share a pass. First comes the fairest that takes less than a minute. Explainers that are fitted to many
    targets before (`GlobalSurrogate`, PGExplainer) are not asked. The model and the random states stay as they were.

    Args:
        target: the question.
        kinds: of players; all that the target has when none is given.
        patience: seconds that trials may take together. What would take longer is not tried (``tried``): then what it
            asks of the target is there, and it may still find something to refuse.

    Raises:
        TypeError: no target.

    >>> from explain import wrap
    >>> target = wrap(torch.nn.Linear(3, 1), task="regression").example(torch.ones(3))
    >>> found = explainers(target)
    >>> found.first.ask, found.first.calls, len(found.first.explainer.explain(target).scores)
    ('Shapley("features")', 8, 3)
    """
    if not isinstance(target, Target):
        raise TypeError(f"explainers needs a target such as wrap(model, data).node(3), got {type(target).__name__}")
    with warnings.catch_warnings(), untouched(target.module, target.trained):
        warnings.simplefilter("ignore")  # of trials with few samples
        asking = _Asking(target, kinds or target.kinds, time.perf_counter() + patience)
        asking.everyone()
        target.forget()
    refused = tuple(Refused(tuple(asks), words) for words, asks in asking.refused.items())
    return Explainers(repr(target), asking.call, tuple(sorted(asking.fits, key=_rank)), refused)


def _rank(fit: Fit) -> tuple[bool, bool, int]:
    """Short ones first, and where somebody plays; then the fairest, then the target's usual players."""
    name = type(fit.explainer).__name__
    place = _ORDER.index(name) if name in _ORDER else len(_ORDER)
    return fit.count == 0, (fit.seconds or 0.0) > _LONG, place


@dataclass
class _Asking:
    """One walk over all explainers: what fits, and by the words of the refusal what does not."""

    target: Target
    kinds: tuple[str, ...]
    until: float
    call: float = 0.0
    fits: list[Fit] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def everyone(self) -> None:
        """The number itself, then those who play, differentiate, learn, look, and ask the training."""
        self.call = _seconds(self.target.value)[1]
        playing = {kind: found for kind in self.kinds if (found := self._players(kind)) is not None}
        for kind, players in playing.items():
            self._play(kind, players)
        for kind, players in playing.items():
            self._differentiate(kind, players)
        for kind in [kind for kind in _MASKED if kind in playing] or [Mask().kind]:
            self._mask(kind)
        seen: list[str | None] = [kind for kind in _ATTENDED if kind in playing]
        for known in seen or [None]:
            self._try(Attention(known), Attention(known), 6, lambda why, seconds: (why.calls, seconds))
        around = len(playing.get("nodes", ())) if offers(self.target, "neighbourhood") else 0
        self._try(SubgraphX(), SubgraphX(1, rollouts=1, samples=2, children=1, seed=0), 8 * around, kind="nodes")
        self._try(GraphLime(), GraphLime(nodes=8, seed=0), 4 * bool(around), lambda why, seconds: (why.calls, None))
        self._train()

    # --- each kind of explainer ---

    def _players(self, kind: str) -> Players | None:
        return self._asked([f'"{kind}"'], lambda: self.target.players(kind))

    def _play(self, kind: str, players: Players) -> None:
        """Explainers of coalitions; what they would refuse is the game."""
        asked = [Shapley(kind), Occlusion(kind), Interactions(kind), Banzhaf(kind), Lime(kind)]
        count, change = len(players), None if self.target.has_classes else 1.0
        every = [*asked, Counterfactual(kind, change=change)]
        timed = self._asked([written(each) for each in every], lambda: _timed(self.target.game(kind)))
        if timed is None:
            return
        for explainer in asked:
            if isinstance(explainer, Interactions) and count > MOST_SAMPLED:  # by default of so many it refuses
                explainer = Interactions(kind, samples=8 * count)
            calls = calls_of(type(explainer).__name__, count)
            self._fits(explainer, kind, count, calls, timed.seconds(calls))
        change = change and timed.change
        found = Counterfactual(kind, change=change), Counterfactual(kind, 1, 1, 1, change)
        self._try(*found, 2 * count + 4, kind=kind)

    def _differentiate(self, kind: str, players: Players) -> None:
        steps = Gradient(kind).steps

        def cost(why: Explanation, seconds: float) -> tuple[int, float]:
            return why.calls + 2 * steps, seconds + 3 * steps * self.call

        self._try(Gradient(kind), Gradient(kind, "saliency", seed=0), 40, cost, kind)

    def _mask(self, kind: str) -> None:
        full = Mask(kind)
        runs = full.repeats * full.epochs
        cheap = Mask(kind, epochs=1, repeats=1, seed=0)
        self._try(full, cheap, 40, lambda why, seconds: (runs, seconds * runs), kind)

    def _train(self) -> None:
        """Explainers of the training, all refused alike where there is none; `DTrak` is so for other numbers too."""
        every = [Influence(), SelfInfluence(), TracIn(), Trak()]
        found = self._asked([written(each) for each in every], self.target.objective)
        self._try(DTrak(), DTrak(1, seed=0), 0 if found is None else 4 * found.size, kind="train")
        if found is None:
            return
        engine = Influence(solver="dot", curvature="ggn", damping=1.0, seed=0)
        each = 4 * found.size
        self._try(Influence(), engine, each, kind="train")
        self._try(SelfInfluence(), SelfInfluence(engine), each, kind="train")
        self._try(TracIn(), TracIn(seed=0), each, lambda why, seconds: (why.calls, seconds), "train")
        self._try(Trak(), Trak(1, seed=0), each, kind="train")

    # --- asking ---

    def _try(
        self,
        explainer: Explainer,
        cheap: Explainer,
        evaluations: int,
        cost: Cost = lambda why, seconds: (None, None),
        kind: str = "",
    ) -> None:
        """Ask the cheap form, of about so many evaluations, if there is time; ``cost`` says what the whole costs."""
        if evaluations * self.call > max(self.until - time.perf_counter(), 0.0):
            self._fits(explainer, kind, None, None, None, tried=False)
            return
        found = self._asked([written(explainer)], lambda: _seconds(lambda: cheap.explain(self.target)))
        if found is not None:
            why, seconds = found
            self._fits(explainer, why.players.kind, len(why.players), *cost(why, seconds))

    def _fits(
        self,
        explainer: Explainer,
        kind: str,
        count: int | None,
        calls: int | None,
        seconds: float | None,
        tried: bool = True,
    ) -> None:
        said = _NOBODY if count == 0 else worth(type(explainer).__name__, count or 0)
        self.fits.append(Fit(explainer, kind, count, calls, seconds, said, tried))

    def _asked(self, who: list[str], question: Callable[[], T]) -> T | None:
        """The answer; None where it is refused, and the words are kept."""
        try:
            return question()
        except Exception as error:  # whatever stands in the way is what would be met
            self.refused.setdefault(_words(error), []).extend(who)
            return None


def _words(error: Exception) -> str:
    """What was said, where this package says it; of others' errors what stood in the way."""
    last = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    own = last.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]
    return " ".join(str(error).split()) if own else obstacle(error)


def _seconds(question: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return question(), time.perf_counter() - started


@dataclass(frozen=True)
class _Timed:
    """The seconds of one coalition and of each more in a batch, and half of the way to the number of nobody."""

    one: float
    more: float
    change: float

    def seconds(self, calls: int) -> float:
        """Of so many."""
        return self.one + (calls - 1) * self.more


def _timed(game: Game) -> _Timed:
    """A few coalitions of a game; a second batch only where the first is quick."""
    (empty, full), two = _seconds(game.ends)
    change = float(f"{(empty - full) / 2:.2g}") or 1.0
    if two > 1:
        return _Timed(two / 2, two / 2, change)
    players = len(game.players)
    masks = torch.rand(_TOGETHER, players, generator=torch.Generator().manual_seed(0)) < 0.5
    one = min(_seconds(lambda: game(masks[:1]))[1], two)
    many = _seconds(lambda: game(masks))[1]
    return _Timed(one, max(many - one, 0.0) / (_TOGETHER - 1) or one / _TOGETHER, change)
