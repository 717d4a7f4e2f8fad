"""A wrapped model in a few words: whose it is, what it is asked by, and what was taken for granted."""

from __future__ import annotations

from collections.abc import Mapping


def introduced(model: object, network: object, facts: str, asked: str, assumed: Mapping[str, str]) -> str:
    """One line, and one more for each thing that was taken to be so though nobody said it.

    >>> print(introduced(1, 1.5, "node", "node(3)", {"task": "node: the labels are one a node"}))
    int of float, node: ask node(3)
      assumed task: node: the labels are one a node
    """
    head = f"{type(model).__name__} of {getattr(network, '__name__', None) or type(network).__name__}"
    lines = [f"  assumed {name}: {why}" for name, why in assumed.items()]
    return "\n".join([f"{head}{f', {facts}' if facts else ''}: ask {asked}", *lines])
