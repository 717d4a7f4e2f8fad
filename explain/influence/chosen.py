"""Which parameters an answer is about: all that were trained, or those that ``parameters=`` names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import Tensor, nn

from explain.types import Objective, Players, Target, Unsupported

Choice: TypeAlias = str | nn.Module | Callable[[str, nn.Parameter], bool] | Iterable[str | nn.Parameter | nn.Module]
TRAINABLE = "trainable"
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile put these before the user's own names


def checked_choice(parameters: Any) -> Any:
    """A choice that may be read more than once: what a generator or a module has, in a tuple.

    Raises:
        TypeError: no choice.
        ValueError: an empty one.
    """
    if isinstance(parameters, str):
        return parameters
    if isinstance(parameters, nn.Module):
        parameters = parameters.parameters()
    elif callable(parameters):
        return parameters
    single = not isinstance(parameters, Iterable) or isinstance(parameters, Tensor)
    given = (parameters,) if single else tuple(parameters)
    found = tuple(p for one in given for p in (one.parameters() if isinstance(one, nn.Module) else (one,)))
    for one in found:
        if not isinstance(one, (str, nn.Parameter)):
            raise TypeError(
                "parameters must be 'trainable', a name or a pattern such as '*lora*', several of these, parameters of "
                f"the model, or a function (name, parameter) -> bool, got {type(one).__name__}"
            )
    if not found:
        raise ValueError("parameters is empty: name some, such as 'mid_block.*', or leave it out for all trained ones")
    return found


def chosen_objective(
    target: Target, train: Any = None, remove: str | Players = "labels", parameters: Any = TRAINABLE
) -> Objective:
    """The target's objective in these parameters alone; what was chosen is told to the target.

    The flags ``requires_grad`` of the user's module say which they are while the answer is made, so that nothing is
    kept for the derivatives of any other; the guard around every answer puts them back.

    Raises:
        ValueError: no such parameter.
        Unsupported: the objective has other parameters than the module.
    """
    said = choose(target.trained, parameters)
    objective = target.objective(train, remove)
    if parameters != TRAINABLE:
        wanted = sum(p.numel() for p in target.trained.parameters() if p.requires_grad)
        if sum(p.numel() for p in objective.params.values()) != wanted:
            raise Unsupported(
                f"{type(objective).__name__} has parameters of its own, which are not those of the module: leave "
                "parameters= out, and give it those that are to be differentiated"
            )
    if said:
        target.tell({**target.told, "assumed": {**target.told.get("assumed", {}), "parameters": said}})
    return objective


def choose(module: nn.Module, parameters: Any) -> str:
    """Flags these parameters, and no other, as trained; a sentence about it, empty where that is every one.

    Raises:
        ValueError: no such parameter, or none at all.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> choose(net, "1.*"), [name for name, p in net.named_parameters() if p.requires_grad]
    ("'1.*': 2 of 4 tensors, 4 of 13 numbers; the others held fixed", ['1.weight', '1.bias'])
    """
    everyone = list(module.parameters())
    if parameters != TRAINABLE:
        wanted = {id(p) for p in _wanted(module, parameters)}
        for p in everyone:
            p.requires_grad_(id(p) in wanted)
    found = [p for p in everyone if p.requires_grad]
    if len(found) == len(everyone):
        return ""
    numbers, total = (sum(p.numel() for p in some) for some in (found, everyone))
    counts = f"{len(found)} of {len(everyone)} tensors, {numbers:,} of {total:,} numbers; the others held fixed"
    return f"{_shown(parameters)}: {counts}"


def _wanted(module: nn.Module, parameters: Any) -> list[nn.Parameter]:
    """The parameters that a choice other than "trainable" stands for.

    Raises:
        ValueError: there is none.
    """
    if callable(parameters):
        found = [p for name, p in module.named_parameters() if _says(parameters, _own(name), p)]
    else:
        found = [p for one in ([parameters] if isinstance(parameters, str) else parameters) for p in _of(module, one)]
    differentiable = [p for p in found if p.is_floating_point()]
    if not differentiable:
        why = f"those of {found[0].dtype} have no derivative" if found else "it chose none"
        raise ValueError(f"parameters={_shown(parameters)} leaves nothing to differentiate: {why}. {_such_as(module)}")
    return differentiable


def _says(choice: Callable[[str, nn.Parameter], Any], name: str, p: nn.Parameter) -> bool:
    found = choice(name, p)
    if not isinstance(found, bool):
        raise TypeError(f"parameters as a function answers (name, parameter) with True or False, got {found!r:.80}")
    return found


def _of(module: nn.Module, one: str | nn.Parameter) -> list[nn.Parameter]:
    """The parameters that a name, a pattern, the name of a part of the module, or a parameter itself stands for.

    Raises:
        ValueError: there is none.
    """
    if isinstance(one, nn.Parameter):
        if all(p is not one for p in module.parameters()):
            raise ValueError(
                f"a parameter {list(one.shape)} was given that is none of {type(module).__name__}'s: those of the "
                "wrapped model itself are needed, not of a copy"
            )
        return [one]
    named = [(_own(name), name, p) for name, p in module.named_parameters(remove_duplicate=False)]  # tied ones: by each
    found = [p for own, name, p in named if _matches(one, own) or _matches(one, name)]
    if not found:
        if any(_matches(one, _own(name)) for name, _ in module.named_buffers()):
            raise ValueError(f"{one!r} names a buffer of {type(module).__name__}, and training differentiates none")
        near = difflib.get_close_matches(one.strip("*."), sorted(set(_words(own for own, _, _ in named))), 3)
        meant = f": did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise ValueError(f"no parameter of {type(module).__name__} is called {one!r}{meant} {_such_as(module)}")
    return found


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _own(name: str) -> str:
    """The name without what a wrapper put before it."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _words(names: Iterable[str]) -> Iterator[str]:
    """Every name, every part of the module that it is in, and every single word of it."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[: length + 1]) for length in range(len(parts)))
        yield from parts


def _such_as(module: nn.Module) -> str:
    names = [_own(name) for name, _ in module.named_parameters()]
    shown = ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]])
    return f"It has {shown}" if names else f"{type(module).__name__} has no parameters"


def _shown(parameters: Any) -> str:
    if parameters == TRAINABLE:
        return "those with requires_grad=True"
    if isinstance(parameters, str):
        return repr(parameters)
    if callable(parameters):
        return getattr(parameters, "__qualname__", type(parameters).__qualname__)
    names: Sequence[str] = [repr(one) for one in parameters if isinstance(one, str)]
    given = len(parameters) - len(names)
    return ", ".join([*names[:4], *["..."] * (len(names) > 4), *[f"{given} given"] * (given > 0)])
