"""Whether one graph's network answers for its nodes or for pairs of them, where the user does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from explain.graph.arguments.callables import Decoder, Linked, UserCall, callable_module, unwrapped
from explain.graph.arguments.naming import named
from explain.graph.arguments.signature import signature_of
from explain.graph.arguments.trial import Trial
from explain.graph.tensors.data_object import pair_store
from explain.parts import Output, Part

PAIRS = "edge_label_index"
_COUNTS = range(3, 17)  # of pairs that a network is tried on


@dataclass(frozen=True)
class Task:
    """A task that nobody named, what it was read from, and whether that was a guess."""

    name: str
    why: str
    guessed: bool = False


def task_of(
    module: nn.Module,
    data: Data | HeteroData,
    given: Mapping[str, str | None] | None = None,
    decoder: Decoder | None = None,
    call: UserCall | None = None,
    output: Output | None = None,
) -> Task:
    """The task of a network on one graph: "edge" where its answer has a row for each pair it is given, else "node".

    It is asked about a number of pairs that is the number of no nodes. What answers a row a node is a "node" model,
    even if it could be given pairs.
    """
    if decoder is not None:
        return Task("edge", "decoder= scores pairs")
    module = unwrapped(module)
    net = callable_module(module, "edge", None)
    if isinstance(data, Batch) and _pools(module, data, given, call, output):
        return Task("graph", f"the answer has a row for each of the {data.num_graphs} graphs of the batch")
    names = signature_of(module, net.encoder if isinstance(net, Linked) else module.forward)
    takes, holds = PAIRS in names.names or isinstance(net, Linked), PAIRS in pair_store(data)
    named_so = isinstance(given, Mapping) and PAIRS in given.values()
    if not (takes or holds or named_so):
        return Task("node", "one graph was given")
    trial = Trial(module, data, "node", Part(output))
    if trial.large:
        task = "edge" if PAIRS in names.required else "node"
        return Task(task, f"the graph is too large to try whether the answer has a row a pair of {PAIRS}", True)
    trial = replace(trial, data=_with_pairs(data))
    if _answers(trial, given, call):
        return Task("node", f"the answer has a row a node, though there is {PAIRS} to score pairs", takes)
    trial = replace(trial, task="edge")
    if _answers(trial, given, call):
        return Task("edge", f"the answer has a row for each pair of {PAIRS}", True)
    return Task("node", f"the answer has no row for each pair of {PAIRS}", takes)


def _pools(
    module: nn.Module,
    data: Batch,
    given: Mapping[str, str | None] | None,
    call: UserCall | None,
    output: Output | None,
) -> bool:
    """Whether a network answers one row for the largest graph of a batch."""
    try:
        largest = int(data.ptr.diff().argmax()) if "ptr" in data else 0
        trial = Trial(module, data.get_example(largest), "graph", Part(output))
    except (RuntimeError, AttributeError):  # a batch that cannot be taken apart
        return False
    return trial.data.num_nodes > 1 and _answers(trial, given, call)


def _with_pairs(data: Data | HeteroData) -> Data | HeteroData:
    """The graph with as many pairs as there are no nodes of any type."""
    made = data.clone()
    store, typed = pair_store(made), isinstance(made, HeteroData)
    if PAIRS not in store and typed and made.edge_types:
        store = made[made.edge_types[0]]
    pairs = store.get(PAIRS, store.get("edge_index"))
    if not isinstance(pairs, Tensor) or pairs.dim() != 2 or len(pairs) != 2 or not pairs.numel():
        return made
    taken = {int(part.num_nodes or 0) for part in (made.node_stores if typed else [made])}
    order = torch.arange(next((k for k in _COUNTS if k not in taken), 1), device=pairs.device) % pairs.size(1)
    store[PAIRS] = pairs[:, order]
    if isinstance(labels := store.get("edge_label"), Tensor) and len(labels) == pairs.size(1):
        store["edge_label"] = labels[order]
    return made


def _answers(trial: Trial, given: Mapping[str, str | None] | None, call: UserCall | None) -> bool:
    """Whether the network, called as the task has it, answers a row for each thing that the task asks about."""
    try:
        if call is not None:
            return trial.runs(trial.asked(lambda: call(trial.module, trial.sample())))
        found = named(trial, given or {}, None)
        if found.inputs.whole and not isinstance(found.net, Linked):
            return trial.runs(trial.asked(lambda: found.net(trial.sample())))
        return trial.runs(trial.says(found.net, found.inputs))
    except Exception:  # it is not called so
        return False
