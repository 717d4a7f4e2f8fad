"""What every explainer is: a small frozen dataclass of settings with one verb, ``explain(target) -> Explanation``."""

from __future__ import annotations

import dataclasses
import inspect
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import torch
from torch import Tensor

from explain.doubts import kept
from explain.explanation import Explanation
from explain.guard import untouched
from explain.spelling import check_names, settings_of
from explain.types import Players, Target
from explain.versions import versions


class Answer(TypedDict, total=False):
    """What a method finds; the rest of the `Explanation` (settings, seed, time, versions) is filled in for it."""

    scores: Tensor
    players: Players
    value: float
    base: float | None
    error: Tensor | None
    parts: dict[str, Tensor]
    checks: dict[str, Any]
    calls: int


class _Signature:
    """How an explainer is made, for `inspect` and editors, which would ask ``__new__``."""

    def __get__(self, instance: Any, owner: type[Explainer]) -> inspect.Signature:
        made = inspect.signature(owner.__init__)
        return made.replace(parameters=list(made.parameters.values())[1:], return_annotation=inspect.Signature.empty)


@dataclass(frozen=True)
class Explainer:
    """Base of the explainers. A new method is one file with a frozen dataclass and one ``_answer``.

    ``_answer`` may do what it likes to the model: it runs with the model in eval mode, and modes, hooks, parameters and
    the global random states are put back afterwards, also after an exception. Randomness comes from its generator.
    """

    __signature__ = _Signature()

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """A misspelt setting is answered with the one that was meant."""
        known = settings_of(cls.__init__)
        if known is not None:
            check_names(cls.__name__, settings, known)
        return super().__new__(cls)

    def explain(self, target: Target) -> Explanation:
        """Share the credit for ``target.value()`` among the players.

        Raises:
            TypeError: no target.
        """
        if not isinstance(target, Target):
            raise TypeError(
                f"{type(self).__name__}.explain needs a target such as explain.wrap(model, data).node(3) or "
                "explain.wrap(pipeline).trajectory(...), "
                f"got {type(target).__name__}"
            )
        seed, generator = seeded(getattr(self, "seed", None))
        started = time.perf_counter()
        with kept() as doubts, untouched(target.module, target.trained):
            target.forget()
            answer = self._answer(target, generator)
            return self._explanation(answer, target, seed, time.perf_counter() - started, doubts)

    def _explanation(
        self, answer: Answer, target: Target, seed: int, seconds: float, doubts: Sequence[str]
    ) -> Explanation:
        return Explanation(
            **answer,
            method=type(self).__name__,
            settings=self.settings() | taken(target),
            target=described(target),
            seed=seed,
            versions=versions(),
            seconds=seconds,
            doubts=doubts,
        )

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        raise NotImplementedError(f"{type(self).__name__} has no _answer")  # a new explainer's one method

    def settings(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.repr}


def taken(target: Target) -> dict[str, Any]:
    """The trained loss, given or found, where an answer hangs on it: a setting that the explainer does not have."""
    return {name: said for name, said in target.told.items() if name == "loss"}


def described(target: Target) -> dict[str, Any]:
    """What was asked, and what was found out about it while it was answered."""
    asked = target.describe()
    assumed = {**asked.get("assumed", {}), **target.told.get("assumed", {})}
    return {**asked, **target.told} | ({"assumed": assumed} if assumed else {})


def seeded(seed: int | torch.Generator | None) -> tuple[int, torch.Generator]:
    """A seed and a CPU generator started from it; a fresh seed where none is given, so that it can be written down.

    Raises:
        TypeError: neither an int nor a generator.
    """
    if isinstance(seed, torch.Generator):
        return seed.initial_seed(), seed
    if seed is None:
        seed = secrets.randbits(31)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, a torch.Generator or None, got {type(seed).__name__}")
    return seed, torch.Generator().manual_seed(seed)


def plain(setting: Any) -> Any:
    """A setting as a JSON value: itself where it is one, else a short description."""
    if setting is None or isinstance(setting, (bool, int, float, str)):
        return setting
    if isinstance(setting, Players):
        return f"{len(setting)} {setting.kind}"
    if isinstance(setting, torch.Generator):
        return f"generator({setting.initial_seed()})"
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):  # a solver with its own settings
        fields = {f.name: plain(getattr(setting, f.name)) for f in dataclasses.fields(setting) if f.repr}
        return {type(setting).__name__: fields}
    if isinstance(setting, dict):
        return {str(key): plain(value) for key, value in setting.items()}
    if isinstance(setting, (list, tuple)):
        return [plain(value) for value in setting] if len(setting) <= 16 else f"{len(setting)} {type(setting).__name__}"
    if isinstance(setting, Tensor):
        return f"tensor{list(setting.shape)}"
    return getattr(setting, "__qualname__", type(setting).__qualname__)
