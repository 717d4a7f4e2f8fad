"""A loop of the user's own, recorded step by step as it runs, and taken again for its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from explain.influence.linear_maps import Flat
from explain.influence.through.course import MEMORY, Batch, Course, Step, module_of
from explain.influence.through.optimizers import Update, kind_of, update_of
from explain.influence.through.randomness import Drawn, States
from explain.influence.through.stage import Stage
from explain.layouts import held_bytes
from explain.types import NonFinite, Objective, Parameters, Unsupported

LossesOf = Callable[..., Tensor]  # (positions [k], *given) -> [k]


class Recording:
    """What a training did: losses, batches, random states and settings of every step; made by `recorded`."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, module: nn.Module, generators: Sequence[torch.Generator]
    ) -> None:
        self.module, self.optimizer, self.generators = module, optimizer, generators
        self.kind = kind_of(optimizer)
        self.names = _names(optimizer, module)
        self.start = {name: p.detach().clone() for name, p in self._parameters()}
        self.before = self._taken()
        self.buffers = _floats(module)
        self.stage = Stage(module)
        self.steps: list[Step] = []
        self.states: dict[int, list[Parameters]] = {}  # before every so many steps, as few as `Course.known` needs
        self.every = 1
        self.moving: set[str] | None = None
        self.end: Parameters | None = None
        self._pending: list[Batch] = []
        self._clip: float | None = None

    def loss(self, examples: Any, losses_of: LossesOf, *given: Any, scale: float = 1.0) -> Tensor:
        """The mean loss of a batch, ``scale (1/k) sum_i losses_of(examples, *given)_i``, to call ``backward()`` on.

        ``losses_of`` is called once now, and again with other parameters of the module whenever the training is taken
        again: it must hang on its arguments, not on variables of the loop. What it draws from the global generators
        (dropout, noise, augmentation) is drawn again; what was drawn outside of it goes in ``given``.

        Args:
            examples: positions ``[k]`` in the training set that the model is wrapped with.
            losses_of: ``(examples int64 [k], *given) -> losses [k]``, each example's own, such as
                ``lambda at: cross_entropy(net(x[at]), y[at], reduction="none")``.
            given: what else it is given.
            scale: of several batches that share one step of the optimizer.

        Raises:
            ValueError: not one loss an example.
            TypeError: positions that are none.
        """
        positions = _positions(examples)
        before = States.now(self.generators)
        losses = losses_of(positions, *given)
        drawn = before.since()
        if not isinstance(losses, Tensor) or losses.shape != positions.shape:
            got = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"losses_of must give one loss an example, [{len(positions)}], got {got}: torch's own take "
                'reduction="none", and the mean is taken here'
            )
        if not torch.is_grad_enabled():  # looked at, not trained on
            return scale * losses.mean()
        again = _again(self.stage, losses_of, positions, given, drawn, self.stage.training())
        self._pending.append(Batch(positions, again, scale, losses.detach().clone()))
        return scale * losses.mean()

    def clip(self, largest: float) -> Tensor:
        """``torch.nn.utils.clip_grad_norm_`` of all that the optimizer trains, written down for this step.

        Args:
            largest: norm of the gradient.
        """
        self._clip = float(largest)
        everyone = [p for group in self.optimizer.param_groups for p in group["params"]]
        return torch.nn.utils.clip_grad_norm_(everyone, largest)

    def course(self, objective: Objective) -> Course:
        """The training as steps, of the parameters of this objective.

        Raises:
            Unsupported: the run did not end, or trained another model or other parameters.
            ValueError: positions outside of the training set.
        """
        end = self._ended()
        own = {id(p): name for name, p in module_of(objective).named_parameters()}
        mine = dict(self._parameters())
        if any(id(p) not in own for p in mine.values()):
            raise Unsupported("the recorded run trained another module: wrap the very one that was given to recorded()")
        names = {name: own[id(p)] for name, p in mine.items() if name in end}
        if set(names.values()) != set(objective.params):
            raise Unsupported(
                f"the recorded run trained {len(names)} tensors and the question is about {len(objective.params)}: "
                f"name those that were trained, Influence(parameters={sorted(names.values())[:4]}...)"
            )
        largest = max(int(b.positions.max()) for step in self.steps for b in step.batches)
        if largest >= objective.size:
            raise ValueError(
                f"example {largest} was trained on, and the training set has {objective.size}: give the whole of it, "
                "train=, in the order of the recorded positions"
            )
        flat = Flat({name: self.start[name] for name in names})
        known = {t: torch.stack([flat.vector(row) for row in rows]) for t, rows in self.states.items()}
        groups = tuple(
            sum(mine[n].numel() for n in group if n in names) for group in self.names if any(n in names for n in group)
        )
        return Course(flat, groups, known[0], self.steps, objective.size, self.before, names, known, self.module)

    def ended(self, objective: Objective) -> tuple[Tensor, str]:
        """The parameters ``[p]`` that the run ended with, and whose they are.

        Raises:
            Unsupported: the model has others now.
        """
        end = self._ended()
        mine = dict(self._parameters())
        if any(not torch.equal(mine[name], value) for name, value in end.items()):
            raise Unsupported(
                "the model was changed after the recorded run (trained on, or given averaged weights), and the number "
                "would be another model's: ask about the model as the run left it"
            )
        return Flat(end).vector(end), (
            "the recorded run did: losses must hang on their arguments alone, the data be as they were, gradients be "
            "clipped by run.clip, and random numbers come from the global generators or recorded(generators=[...])"
        )

    def said(self) -> str:
        """The run in a few words."""
        return f"a recorded run: {len(self.steps)} steps of {type(self.optimizer).__name__}"

    def _ended(self) -> Parameters:
        if self.end is None or not self.steps:
            raise Unsupported("the recorded run has not ended: leave the block of recorded() first, after a step")
        return self.end

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """By name, in the order of the optimizer's groups."""
        own = dict(self.module.named_parameters())
        return ((name, own[name]) for group in self.names for name in group)

    def _taken(self) -> int:
        """How many steps the optimizer has taken before, as far as these matter to it.

        Raises:
            Unsupported: different numbers of them.
        """
        states = (self.optimizer.state.get(p, {}) for _, p in self._parameters())
        counts = {int(s.get("step", s.get("momentum_buffer") is not None)) for s in states}
        if len(counts) > 1:
            raise Unsupported("the optimizer has taken more steps with some parameters than with others: start anew")
        return counts.pop()

    def _state(self, moving: set[str]) -> list[Parameters]:
        """These parameters, and what the optimizer keeps beside each."""
        mine = {name: p for name, p in self._parameters() if name in moving}
        kept = [
            {name: self.optimizer.state.get(p, {}).get(slot) for name, p in mine.items()} for slot in self.kind.kept
        ]
        return [
            {name: torch.zeros_like(mine[name]) if x is None else x.detach().clone() for name, x in row.items()}
            for row in (mine, *kept)
        ]

    def _keep(self, moving: set[str]) -> None:
        """The state before this step, if it is its turn; every second one is given up where there are too many."""
        if len(self.steps) % self.every:
            return
        self.states[len(self.steps)] = self._state(moving)
        size = sum(held_bytes(x) for row in self.states[0] for x in row.values())
        if len(self.states) * size > MEMORY and len(self.states) > 2 * math.isqrt(len(self.steps) + 1):
            self.every *= 2
            self.states = {t: rows for t, rows in self.states.items() if t % self.every == 0}

    def _step(self, optimizer: torch.optim.Optimizer, given: Any, named: Any) -> None:
        """Before each step of the optimizer: what it will do.

        Raises:
            Unsupported: a step that cannot be taken again.
        """
        if any(x is not None for x in (*given[1:], *named.values())):
            raise Unsupported("a step with a closure is not followed: take the loss, call backward(), then step()")
        if not self._pending:
            raise Unsupported("a step of the optimizer without a loss: take each loss by run.loss(examples, losses_of)")
        if _names(optimizer, self.module) != self.names:
            raise Unsupported("the optimizer's parameters changed during the run: record each stage by itself")
        moving = {name for name, p in self._parameters() if p.grad is not None and p.requires_grad}
        if self.moving is None:
            self.moving = moving
        if moving != self.moving or not moving:
            changed = ", ".join(sorted(moving ^ self.moving)[:3]) or "none has a gradient"
            raise Unsupported(
                f"other parameters are trained than at the first step ({changed}): those that are frozen "
                "midway are not followed, record each stage by itself"
            )
        self._keep(moving)
        updates: list[Update] = [
            update_of(self.kind, group)
            for group, names in zip(optimizer.param_groups, self.names, strict=True)
            if moving & set(names)
        ]
        same = self.steps and list(self.steps[-1].updates) == updates
        self.steps.append(Step(tuple(self._pending), self._clip, self.steps[-1].updates if same else tuple(updates)))
        self._pending, self._clip = [], None

    def _finish(self) -> None:
        """After the loop: what it ended with.

        Raises:
            Unsupported: buffers of the module were trained along.
            NonFinite: it diverged.
        """
        moved = [name for name, value in _floats(self.module).items() if not torch.equal(value, self.buffers[name])]
        if moved:
            raise Unsupported(
                f"the buffer {moved[0]!r} changed during the run, as BatchNorm's running statistics do, and torch has "
                "no derivative by what moved it: train with these in eval mode, or with GroupNorm or LayerNorm"
            )
        for t, step in enumerate(self.steps, 1):
            if any(batch.seen is not None and not batch.seen.isfinite().all() for batch in step.batches):
                raise NonFinite(f"the run diverged: the loss of step {t} of {len(self.steps)} is NaN or infinity")
        moving = self.moving or set()
        self.end = {name: p.detach().clone() for name, p in self._parameters() if name in moving}


@contextmanager
def recorded(
    optimizer: torch.optim.Optimizer, module: nn.Module, generators: Sequence[torch.Generator] = ()
) -> Iterator[Recording]:
    """Within: a training loop of your own, recorded; the run is then given as ``Influence(through=run)``.

    Settings are read from the optimizer at every step, so that schedules are followed; of random numbers the states of
    the generators are kept, for dropout, noise and augmentation. The run is proved by taking it again: it must end with
    the same parameters.

    Args:
        optimizer: ``SGD``, ``Adam`` or ``AdamW`` of ``torch.optim``.
        module: what it trains.
        generators: what losses are drawn with, beside the global ones.

    Raises:
        Unsupported: another optimizer, or one of parameters that are not the module's; a step without a loss,
            parameters frozen or buffers changed meanwhile.
        NonFinite: the run diverged.

    >>> import explain
    >>> net, x = nn.Linear(1, 1, bias=False), torch.tensor([[1.0], [2.0]])
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with recorded(optimizer, net) as run:
    ...     for positions in torch.tensor([[0], [1]] * 10):
    ...         optimizer.zero_grad()
    ...         run.loss(positions, lambda at: (net(x[at]) - 3 * x[at]).square().mean(1)).backward()
    ...         optimizer.step()
    >>> asked = explain.wrap(net, task="regression", train=(x, 3 * x)).example(torch.ones(1))
    >>> explain.Influence(through=run).explain(asked).checks["steps"]
    20
    """
    run = Recording(optimizer, module, generators)
    hook = optimizer.register_step_pre_hook(run._step)
    try:
        yield run
    finally:
        hook.remove()
    run._finish()


def _names(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[list[str]]:
    """The names of the parameters of each group.

    Raises:
        Unsupported: one is not the module's.
    """
    own = {id(p): name for name, p in module.named_parameters()}
    if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
        raise Unsupported(f"the optimizer trains parameters that are not those of this {type(module).__name__}")
    return [[own[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def _floats(module: nn.Module) -> Parameters:
    return {name: b.detach().clone() for name, b in module.named_buffers() if b.is_floating_point()}


def _positions(examples: Any) -> Tensor:
    """Positions int64 ``[k]``, of its own.

    Raises:
        TypeError: something else.
        ValueError: none, or negative ones.
    """
    found = examples if isinstance(examples, Tensor) else torch.as_tensor(examples)
    if found.dim() != 1 or found.dtype not in (torch.int32, torch.int64):
        raise TypeError(
            f"examples must be int64 positions [k] in the training set, got {found.dtype} {list(found.shape)}"
        )
    if not len(found) or int(found.min()) < 0:
        raise ValueError(f"a batch holds positions from 0 on, got {found.tolist()[:8]}")
    return found.long().clone()


def _again(
    stage: Stage, losses_of: LossesOf, positions: Tensor, given: tuple[Any, ...], drawn: Drawn, training: set[int]
) -> Callable[[Parameters], Tensor]:
    """The losses of this batch as a function of the parameters, with the modes and random states of this moment."""

    def losses(params: Parameters) -> Tensor:
        with stage.played(params, training), drawn.again():
            return losses_of(positions, *given)

    return losses
