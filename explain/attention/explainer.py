"""Attention: what the model looked at, as shares. No sign, and no proof that looking mattered: that is in `checks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from explain.attention.ablation import uniform
from explain.attention.beside import (
    chosen_players,
    drawn_checks,
    drawn_parts,
    image_players,
    map_checks,
    map_parts,
    negative_words,
    warn_of_lists,
    warn_of_unseen,
    warn_when_flat,
)
from explain.attention.capture import capture
from explain.attention.deletion import deletion
from explain.attention.image_tokens import image_layout
from explain.attention.levels import LayerCall, layer_calls, levels
from explain.attention.maps import AttentionMap
from explain.attention.pixel_maps import Gathering, to_players
from explain.attention.rollout import NoChain, Residual, edge_credit, rollout, start
from explain.attention.selection import GuidanceBranch, Heads, Modules, Selection, Steps
from explain.attention.text_tokens import text_layout
from explain.attention.to_players import to_edges, to_positions
from explain.attention.told import Told
from explain.attention.word_maps import WordAggregate, WordMaps
from explain.doubts import doubt
from explain.explainer import Answer, Explainer
from explain.progress import in_sight
from explain.spelling import came
from explain.types import Players, Target, TypedEdges, Unsupported

_AGGREGATES = ("auto", "rollout", "mean", "last", "daam", "output")
_SHARES = "shares of attention: never negative, without a sign"


@dataclass(frozen=True)
class Attention(Explainer):
    """Shares of attention between the inputs and the rows that the number is read from.

    Scores are shares in [0, 1]: attention has no sign, so a high score says "looked at", never "pushed up". Heads are
    averaged, and so are the draws that a number is a mean of. ``checks["change_under_uniform"]`` tells how far the
    number moves when every attention is made uniform: a model that does not care what its attention says is not
    explained by it.

    Not for: what pushes the number up or down, or anything where the change under uniform attention is small.

    Args:
        players: a kind, `Players`, or None: "edges" for maps along edges, "nodes" or "tokens" for dense ones, "patches"
            for denoisers, "words" for runs with a prompt.
        aggregate: over the ``L`` maps; "auto" is "mean" over images, words and several steps of a run, else "rollout".
            "rollout" (Abnar and Zuidema 2020): nodes and tokens get ``r_0``, an edge gets
            ``(1/L) sum_l (1 - rho) r_l[target] alpha_l``, so that without a residual all edges of the graph, self-loops
            included, share 1. "mean": the mean over the maps of ``alpha`` (edges), or of what the rows look at (nodes,
            tokens). "last": what the rows look at in the last map. "daam", "output": maps of words, see there.
        residual: see `rollout`; only used there.
        modules: which layers, by name; this and what follows as in `capture`, before any weight is computed.
        heads: which heads, counted from 0.
        steps: which steps of a run.
        branch: which guidance branch; words are read in their own, those of a negative prompt in "uncond".
        attention: weights of layers that form none, said by functions as in `capture`. What is said and not computed
            cannot be made uniform in the network, so ``change_under_uniform`` is then not measured.
        progress: a bar where it takes more than five seconds.

    Graphs with types: the maps of all relations of a layer are one map over the nodes of all types, by flat numbers, so
    that edges, nodes and "relations" are the players of the game. One softmax over all relations (HGT) stays as it is;
    with one each (HeteroConv), a node's share is split alike over those that reach it, ``alpha / |relations|``; HAN's
    ``alpha`` is times its semantic attention. ``checks["levels"]`` are the layers put together, ``["relations"]`` says
    how, and ``parts["level.0"] [E']`` with ``["level.0.edge_index"]`` are the maps.

    Patches and superpixels: the pixels that the number is read from look, in every self-attention at its own
    resolution, ``ceil(H/f) x ceil(W/f)`` for an integer ``f`` (of latents, squares of pixels); what a token gets is
    spread evenly over the pixels that it covers. Draws, heads, layers, steps and branches are averaged ("last": the
    last layer of every pass), and the means over draws are in ``parts``. Text and label tokens keep what they get:
    ``mass_on_players`` is then below 1.

    Words of a prompt: the image looks at the text, in cross-attention (UNets, PixArt) or joint attention (SD3, Flux).
    With ``a_m(q, w) = sum_{k in w} A_m(q <- k)`` over a word's tokens ``w``, ``m`` every head of every layer at every
    step, and ``q(p)`` the image token that the latent pixel ``p`` lies in, the map of a word and its score are

    - "mean": ``M_w(p) = mean_m a_m(q(p), w)``, a probability, never stretched; the score its mean over ``p``: the share
      of the image's attention that the word gets.
    - "daam" (Tang et al. 2023, What the DAAM): ``M_w = sum_m max(0, bicubic(a_m(., w)))``, upsampled to the latent; the
      score the mean over ``p`` of ``M_w``, divided by how many were summed. DAAM's own code takes the mean over a
      word's tokens. In joint attention the image's rows and the text's columns are taken likewise.
    - "output" (Helbling et al. 2025, ConceptAttention): ``M_w(p) = mean softmax_w(o_q(p) . o_w)`` over layers and
      steps, ``o = A V`` all heads side by side, ``o_w`` the mean of the word's tokens; the score its mean over ``p``.
      There ``o`` is taken after the output projection, of concepts that the image does not see; here before it, of the
      prompt's own words. Joint attention only: where the text does not look, it has no ``o``.

    ``parts`` then hold ``maps [P, H, W]``, ``H x W`` the latent's; ``uniform [P]``, what the score would be if all that
    masks allow were looked at alike (``|w| / keys``; "output": 1/P); ``by_layer [P, L]`` for ``checks["layers"]`` and
    ``by_step [P, T]`` for ``steps [T]``, the scores of each alone. Words of the prompt are read in the guidance branch
    "cond", those of the negative prompt in "uncond"; a word that is not read, cut off or without its branch, gets 0
    (``unread``). ``checks["summed"]`` says how many maps a word's is of.

    Checks: ``maps``, ``layers``, ``row_sum_error`` (largest ``|row sum - 1|``), ``deviation_from_uniform`` (largest
    ``|n w - 1|`` over rows of ``n`` keys), ``change_under_uniform`` (number under uniform attention minus the number),
    ``mass_on_players`` (the part of all credit that the listed players hold), ``unseen`` (edge players in no map); over
    images ``steps``, ``branches``, and ``left_out``: maps that are not over the image, such as cross-attention to a
    text (``left_out_layers`` says why). Of words a deletion too: ``change_without_top``, how far the number moves
    without the word of the prompt that is looked at most, beside ``change_without_other``, another at random.

    Raises:
        NothingCaptured: the model computed no attention that can be seen.
        ValueError: players that are no positions or edges of the maps, or maps that do not chain (see `rollout`).
        Unsupported: players of another kind of model, dense maps beside those of typed edges, typed edges that a layer
            rearranges, rollout over images, "output" without joint attention, words where image and text tokens cannot
            be told.

    Warns:
        UserWarning: attention is within 1 % of uniform; layers cannot be seen that may look at words; or dense maps and
            maps along edges are mixed in a rollout.

    >>> Attention("edges", aggregate="last").aggregate
    'last'
    """

    players: str | Players | None = None
    aggregate: Literal["auto", "rollout", "mean", "last", "daam", "output"] = "auto"
    residual: Residual = "auto"
    modules: Modules = None
    heads: Heads = None
    steps: Steps = None
    branch: GuidanceBranch = None
    attention: Told = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.aggregate not in _AGGREGATES:
            raise ValueError(f"aggregate must be one of {', '.join(_AGGREGATES)}, {came(self.aggregate, _AGGREGATES)}")
        if self.residual != "auto" and not (isinstance(self.residual, (int, float)) and 0 <= self.residual < 1):
            raise ValueError(f"residual must be 'auto' or at least 0 and below 1, got {self.residual!r}")
        Selection(self.modules, self.heads, self.steps, self.branch)
        if self.attention is not None and not isinstance(self.attention, Mapping):
            raise TypeError(
                f"attention must be functions by layer, {{'convs.*': function}}, got {self.attention!r:.60}"
            )

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        kind = self.players.kind if isinstance(self.players, Players) else self.players
        if kind == "words" or (kind is None and type(target).tokens is not Target.tokens):
            with self._runs_in_sight(6) as runs:
                return self._words(target, generator, runs)
        if self.aggregate in ("daam", "output"):
            raise Unsupported(f"aggregate={self.aggregate!r} makes maps of words: Attention('words')")
        over_image = image_players(self.players, target)
        if over_image is None:
            return self._positions_or_edges(target)
        with self._runs_in_sight(5) as runs:
            return self._pixels(target, over_image, runs)

    def _runs_in_sight(self, count: int) -> Any:
        """A bar over so many runs of the network, each of all its steps."""
        return in_sight(desc="runs", total=count, progress=self.progress)

    def _pixels(self, target: Target, players: Players, runs: Any) -> Answer:
        if self.aggregate == "rollout":
            raise Unsupported(
                "rollout does not go over images: between the maps of a denoiser convolutions and other resolutions "
                "lie; use aggregate='mean' or 'last'"
            )
        labels = players.geometry.get("labels")
        if labels is None:
            raise ValueError(f"{players.kind} need geometry['labels'] [H, W], the player of each pixel, got none")
        if labels.dim() != 2:
            raise Unsupported(
                f"attention is shared over the pixels of images, got {players.kind} {list(labels.shape)}: "
                "`with capture(net) as maps` gives the maps of signals and videos themselves"
            )
        pixels = target.pixels()
        layout = image_layout(target.module, target.run, (labels.size(0), labels.size(1)))
        runs.update(2)
        gathering = Gathering(layout, pixels)
        with self._captured(target, gathering):
            target.run()
        runs.update()
        aggregate: Literal["mean", "last"] = "last" if self.aggregate == "last" else "mean"
        scores = to_players(gathering.credit(aggregate), players)
        value = target.value()
        runs.update()
        checks = gathering.checks() | {
            "change_under_uniform": self._change_under_uniform(target, value),
            "mass_on_players": float(scores.sum()),
            "scores": _SHARES,
        }
        warn_when_flat(gathering.choice, gathering.deviation)
        return Answer(
            scores=scores, players=players, value=value, base=None, parts=gathering.parts(), checks=checks, calls=5
        )

    def _change_under_uniform(self, target: Target, value: float) -> float | None:
        """How far the number moves when every attention is uniform; None where weights are said, not computed."""
        if self.attention:
            return None
        with uniform(target.module):
            return target.value() - value

    def _captured(self, target: Target, reduce: Callable[[AttentionMap], Any] | None = None) -> Any:
        """`capture` of the maps that are asked for."""
        return capture(
            target.module,
            reduce,
            modules=self.modules,
            heads=self.heads,
            steps=self.steps,
            branch=self.branch,
            attention=self.attention,
        )

    def _words(self, target: Target, generator: torch.Generator, runs: Any) -> Answer:
        if self.aggregate in ("rollout", "last"):
            raise Unsupported(
                f"aggregate={self.aggregate!r} does not go from a picture to words: use 'mean', 'daam' or 'output'"
            )
        value = target.value()
        runs.update()
        players = self.players if isinstance(self.players, Players) else target.players("words")
        tokens = self._tokens(target, players)
        aggregate: WordAggregate = self.aggregate if self.aggregate in ("daam", "output") else "mean"
        found = WordMaps(text_layout(target.module, target.run, list(tokens.values())), tokens, aggregate)
        runs.update()
        with self._captured(target, found):
            target.run()
        runs.update()
        scores = found.scores()
        checks = found.checks() | {
            "change_under_uniform": self._change_under_uniform(target, value),
            "mass_on_players": float(scores.sum()) / max(1, len(found.branches)),
            "unread": [name for i, name in enumerate(players.names) if i not in found.read()],
            "scores": _SHARES,
        }
        runs.update()
        prompt = [i for i in found.read() if not negative_words(players)[i]]
        may = prompt if len(prompt) > 1 else found.read()  # shares of one branch are compared
        checks |= deletion(target, players, scores, may, value, generator)
        warn_when_flat(True, found.deviation)
        warn_of_unseen(checks["unseen_layers"])
        return Answer(
            scores=scores, players=players, value=value, base=None, parts=found.parts(), checks=checks, calls=6
        )

    def _tokens(self, target: Target, players: Players) -> dict[str, Mapping[int, Sequence[Tensor]]]:
        """Of each branch that is read: where the words are in its text.

        Raises:
            Unsupported: the branch of the negative prompt, and no word of it.
        """
        negative = bool(negative_words(players).any())
        found: dict[str, Mapping[int, Sequence[Tensor]]] = {}
        if self.branch != "uncond":
            found[self.branch or "cond"] = target.tokens(players)
        if negative and self.branch in (None, "uncond"):
            found["uncond"] = target.tokens(players, negative=True)
        if not found:
            raise Unsupported("the branch 'uncond' reads words of a negative prompt, and none of these players is one")
        return found

    def _positions_or_edges(self, target: Target) -> Answer:
        drawn = []
        for run in in_sight(target.draw_by_draw(), "draws", self.progress):
            with self._captured(target) as maps:
                run()
            drawn.append(maps)
        return self._of_one_pass(drawn[0])._read(target, drawn)

    def _of_one_pass(self, maps: Sequence[AttentionMap]) -> Attention:
        """These settings, with means where the maps are of several steps, which do not look at one another.

        Raises:
            NoChain: a rollout through them was asked for.
        """
        steps = list(dict.fromkeys(attention.step for attention in maps))
        if len(steps) < 2 or self.aggregate not in ("auto", "rollout"):
            return self
        if self.aggregate == "rollout":
            raise NoChain(
                f"rollout goes through the layers of one pass, and these maps are of {len(steps)} steps of a run, "
                "whose first layer looks at a state that was drawn, not at what the step before looked at: use "
                f"aggregate='mean' or 'last', or one step, steps={steps[-1]}"
            )
        return replace(self, aggregate="mean")

    def _read(self, target: Target, drawn: Sequence[Sequence[AttentionMap]]) -> Answer:
        maps = drawn[0]
        players = chosen_players(self.players, target, maps)
        if (typed := target.typed_edges(players)) is not None:
            return self._typed(target, players, typed)
        if players.index.dim() > 1 or players.kind == "relations":
            raise Unsupported(
                f"{type(target).__name__} does not say whose edges these maps run along, got {players.kind} with an "
                f"index {list(players.index.shape)}; `with capture(net) as maps` gives the maps themselves"
            )
        rows = target.rows()
        value = target.value()
        checks = drawn_checks(drawn) | {"change_under_uniform": self._change_under_uniform(target, value)}
        try:
            each, totals, (unseen, *_) = zip(*(self._shares(own, rows, players) for own in drawn), strict=True)
        except NoChain as error:
            raise NoChain(f"{error}: {self._other(maps, rows, players)}") from error
        scores, total, parts = torch.stack(each).mean(0), sum(totals) / len(totals), drawn_parts(drawn)
        checks |= {} if unseen is None else {"unseen": unseen}
        checks["mass_on_players"] = float(scores.sum()) / total if total else None
        checks["scores"] = _SHARES
        self._warn(maps, rows, players, checks)
        return Answer(
            scores=scores, players=players, value=value, base=None, parts=parts, checks=checks, calls=2 + len(drawn)
        )

    def _typed(self, target: Target, players: Players, edges: TypedEdges) -> Answer:
        """Of a graph with types: the maps of its relations put together, layer by layer.

        Raises:
            NoChain: a rollout over layers that do not read one another.
        """
        with self._captured(target) as maps, layer_calls(target.module, maps) as calls:
            target.run()

        def again(moved: frozenset[int]) -> list[LayerCall]:
            with layer_calls(target.module, moved=moved) as others:
                target.run()
            return others

        found = levels(calls, edges, again)
        chained = self.aggregate in ("auto", "rollout")
        if chained and found.broken:
            raise NoChain(f"rollout goes layer by layer, and {found.broken}: use aggregate='mean' or 'last'")
        rows, value = target.rows(), target.value()
        unseen: dict[str, int] = {}
        if players.kind == "nodes":
            credit = self._positions(found.maps, rows).cpu()
            own = edges.owner.cpu()
            scores = credit.new_zeros(len(players)).index_add_(0, own[own >= 0], credit[own >= 0])
            total = float(credit.sum())
        else:
            used = found if self.aggregate != "last" else replace(found, maps=found.maps[-1:], places=found.places[-1:])
            flows = self._flows(used.maps, rows)
            scores, unseen["unseen"] = used.to_players(flows, edges.owner, len(players))
            scores, total = scores / len(flows), sum(float(flow.sum()) for flow in flows) / len(flows)
        checks = map_checks(maps) | {"change_under_uniform": self._change_under_uniform(target, value)} | unseen
        checks |= {"levels": found.layers, "relations": list(dict.fromkeys(found.shared)), "scores": _SHARES}
        checks["mass_on_players"] = float(scores.sum()) / total if total else None
        warn_when_flat(any(attention.widest() > 1 for attention in maps), checks["deviation_from_uniform"])
        parts = map_parts(maps) | {f"level.{i}": each.weights[:, 0].cpu() for i, each in enumerate(found.maps)}
        parts |= {f"level.{i}.edge_index": torch.stack(each.ends()).cpu() for i, each in enumerate(found.maps)}
        calls_made = 4 + len(found.maps)
        return Answer(
            scores=scores, players=players, value=value, base=None, parts=parts, checks=checks, calls=calls_made
        )

    def _shares(self, maps: Sequence[AttentionMap], rows: Tensor, players: Players) -> tuple[Tensor, float, int | None]:
        """Scores, the credit of all positions or edges together, and how many edges no map has."""
        if players.kind == "edges":
            return self._edges(maps, rows, players)
        credit = self._positions(maps, rows)
        return to_positions(credit, players), float(credit.sum()), None

    def _other(self, maps: Sequence[AttentionMap], rows: Tensor, players: Players) -> str:
        """The remedy: an aggregate of maps that have the rows of the last and look at what the first looks at."""
        size = maps[-1].queries, maps[0].keys
        aggregates: tuple[Literal["mean", "last"], ...] = ("mean", "last")
        for name in aggregates:
            used = maps if name == "mean" else maps[-1:]
            alike = all((attention.queries, attention.keys) == size for attention in used)
            if alike and self._fits(name, maps, rows, players):
                return f"use aggregate={name!r}"
        return f"no aggregate goes from these maps to {players.kind}; `with capture(net) as maps` gives the maps"

    def _fits(
        self, name: Literal["mean", "last"], maps: Sequence[AttentionMap], rows: Tensor, players: Players
    ) -> bool:
        try:
            replace(self, aggregate=name)._shares(maps, rows, players)
        except ValueError:
            return False
        return True

    def _positions(self, maps: Sequence[AttentionMap], rows: Tensor) -> Tensor:
        if self.aggregate in ("auto", "rollout"):
            return rollout(maps, rows, self.residual)[0]
        used = maps if self.aggregate == "mean" else maps[-1:]
        if len({attention.keys for attention in used}) > 1:
            sizes = sorted({attention.keys for attention in used})
            raise NoChain(f"aggregate='mean' needs maps over the same keys, got {sizes} keys")
        return torch.stack([attention.pull(start(attention, rows)) for attention in used]).mean(0)

    def _edges(self, maps: Sequence[AttentionMap], rows: Tensor, players: Players) -> tuple[Tensor, float, int]:
        used, flows = maps[-1:] if self.aggregate == "last" else maps, self._flows(maps, rows)
        scores, found = to_edges(used, flows, players)
        return scores / len(used), sum(float(flow.sum()) for flow in flows) / len(used), int((~found).sum())

    def _flows(self, maps: Sequence[AttentionMap], rows: Tensor) -> list[Tensor]:
        """What passes through every weight of the maps that count."""
        if self.aggregate in ("auto", "rollout"):
            return edge_credit(maps, rows, self.residual)
        if self.aggregate == "mean":
            return [attention.mean() for attention in maps]
        return [maps[-1].flow_from(start(maps[-1], rows))]

    def _warn(self, maps: Sequence[AttentionMap], rows: Tensor, players: Players, checks: dict[str, Any]) -> None:
        warn_when_flat(any(attention.widest() > 1 for attention in maps), checks["deviation_from_uniform"])
        warn_of_lists(maps, players)
        if self.aggregate in ("auto", "rollout") and len({attention.edge_index is None for attention in maps}) > 1:
            checks["mixed"] = True
            doubt(
                "dense maps and maps along edges are mixed: rollout takes them one after another in call order. Do "
                f"they run side by side? Then {self._other(maps, rows, players)}"
            )
