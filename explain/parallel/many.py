"""One explainer over many targets, an explanation a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from explain.explainer import Explainer
from explain.explanation import Explanation
from explain.parallel.digest import attributes, fingerprint, shown
from explain.parallel.store import Store
from explain.parallel.tasks import run
from explain.types import Target
from explain.versions import versions

if TYPE_CHECKING:
    from distributed import Client


def explain_many(
    explainer: Explainer,
    targets: Sequence[Target],
    folder: str | os.PathLike[str] | None = None,
    client: Client | None = None,
    progress: bool = True,
) -> list[Explanation]:
    """``[explainer.explain(target) for target in targets]``, resumed from a folder, on a cluster where one is given.

    The folder's files are those of ``Explanation.save``, in the order of the targets. They are used again only where
    all that the answers hang on is the same (`fingerprint`): explainer, model, data, baselines, payoffs and losses with
    the code and the closures of functions, versions of libraries; and where each target still says the same number.

    Args:
        explainer: any of them; give it a seed, else each explanation draws its own.
        targets: what is asked; with a client pickled together, once, so that they share their model.
        folder: where finished explanations are kept.
        client: a ``distributed.Client``; in this process when None.
        progress: a bar with the time left, where it takes more than five seconds.

    Raises:
        Stale: the folder is of other targets, another model or explainer.
        Undigestable: something that an answer hangs on has no content to compare, such as a payoff with an open file.
        ClusterLost: the cluster ended; what was finished is kept.
        OSError: the folder cannot be written to.
        TypeError: something that is no target, or no client.

    >>> from torch import nn, ones
    >>> from explain import Shapley, wrap
    >>> model = wrap(nn.Linear(2, 1), task="regression")
    >>> found = explain_many(Shapley("features"), [model.example(ones(2)), model.example(2 * ones(2))])
    >>> [len(why.scores) for why in found]
    [2, 2]
    """
    targets = list(targets)
    for given in targets:
        if not isinstance(given, Target):
            raise TypeError(f"targets must be such as explain.wrap(model, data).node(3), got {type(given).__name__}")
    store = None
    if folder is not None:
        numbers = [target.value() for target in targets]  # which also reads data anew that was edited
        modules = list({id(target.module): target.module for target in targets}.values())
        key = {
            "model": fingerprint(modules),
            "method": type(explainer).__qualname__,
            "explainer": fingerprint(type(explainer)),
            "settings": shown({name: value for name, value in vars(explainer).items() if name != "progress"}),
            "targets": fingerprint([target.describe() for target in targets]),
            "what they are asked of": _asked_of(targets),
            "versions": versions(),
        }
        store = Store(folder, key, {"the targets' numbers": numbers}, save=Explanation.save, load=Explanation.load)

    def explain(number: int) -> Explanation:
        return explainer.explain(targets[number])

    return run(explain, range(len(targets)), store=store, client=client, progress=progress, description="explanations")


def _asked_of(targets: Sequence[Target]) -> dict[str, Any]:
    """Fingerprints of all that targets and their models hold beside the module, part by part, so that each is named."""
    asked = [attributes(target) for target in targets]
    wrapped = [attributes(held.pop("model", None)) for held in asked]
    kinds = [type(target) for target in targets]
    return {**_parts(targets, asked), "wrap": _parts(targets, wrapped), "kinds of targets": fingerprint(kinds)}


def _parts(targets: Sequence[Target], held: Sequence[dict[str, Any]]) -> dict[str, str]:
    names = sorted({name for one in held for name in one})
    found = {}
    for name in names:
        parts = [one.get(name, ...) for one in held]
        if any(part is not target.module for part, target in zip(parts, targets, strict=True)):
            found[name.strip("_")] = fingerprint({name: parts})
    return found
