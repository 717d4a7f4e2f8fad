"""GraphNetwork: the user's network, how it is called, and the graphs that it is called with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Batch, Data, HeteroData

from explain.classes import names_of_classes
from explain.draws import own_words
from explain.graph.arguments.callables import Decoder, UserCall
from explain.graph.arguments.proving import read
from explain.graph.arguments.task import Task, task_of
from explain.graph.findings import Findings
from explain.graph.hooks.caches import uncached
from explain.graph.state import contents
from explain.graph.tensors.inputs import check_values, structure_of
from explain.graph.tensors.labels import labels_of
from explain.graph.tensors.members import Members, check_one_graph
from explain.graph.tensors.names import Given, named
from explain.graph.tensors.recomputed import Recompute, recomputed
from explain.graph.tensors.structure import NODE, Copies, Structure
from explain.guard import usual_modes
from explain.losses import Loss, check_loss, check_weight_decay
from explain.names import is_text
from explain.outputs import Kind, Meaning, check_kind, column_count
from explain.parts import Output, Part
from explain.payoffs import whole_number
from explain.plain import plain_operations
from explain.spelling import came
from explain.types import Parameters

TASKS = ("node", "edge", "graph")


class GraphNetwork:
    """A graph network that says its outputs for copies of a graph; the doors to ask it are above, see `GraphModel`."""

    found = ("findings", "seen")  # follow from the rest

    def __init__(
        self,
        module: nn.Module,
        data: Data | HeteroData | Sequence[Data],
        *,
        task: str | None = None,
        weight_decay: float = 0.0,
        loss: Loss | None = None,
        outputs: Kind | None = None,
        output: Output | None = None,
        inputs: Mapping[str, str | None] | None = None,
        call: UserCall | None = None,
        decoder: Decoder | None = None,
        node_names: Any = None,
        class_names: Sequence[str] | None = None,
        feature_names: Any = None,
        edge_names: Any = None,
        recompute: Mapping[str, Recompute] | None = None,
    ) -> None:
        single = isinstance(data, (Data, HeteroData))
        if not single and (not len(data) or not isinstance(data[0], (Data, HeteroData))):
            raise TypeError("data must be a torch_geometric Data or HeteroData, or a non-empty list or dataset of them")
        if task not in (*TASKS, None):
            raise ValueError(f"task must be one of {', '.join(TASKS)}, {came(task, TASKS)}")
        self.inferred: Task | None = None  # the task, where the user named none
        if task is None:
            with usual_modes():
                many = Task("graph", "several graphs were given")
                self.inferred = task_of(module, data, inputs, decoder, call, output) if single else many
            task = self.inferred.name
        self.task = task
        if single and self.task == "graph" and isinstance(data, Batch):
            data, single = Members(data), False
        if not single and self.task == "edge":
            raise ValueError('a list of graphs is for task="graph" or task="node"; give one graph for task="edge"')
        self.module = module
        self.data = data
        self.weight_decay = weight_decay
        self.loss = loss
        self.given_outputs = outputs
        self.part = Part(output, column_count(labels_of(data, self.task)))
        self.named = Given(node_names, edge_names, feature_names)
        self.class_names = class_names
        check_loss(loss)
        check_weight_decay(weight_decay)
        check_kind(outputs)
        with usual_modes():
            if self.task == "graph":
                check_one_graph(data if single else data[0])
            found = read(module, data if single else data[0], self.task, inputs, decoder, call, self.part)
        self.net = found.net
        self.inputs = replace(found.inputs, recomputed=recomputed(recompute, found.inputs.own))
        guess = self.inferred if self.inferred and self.inferred.guessed else None
        said = {"task": f"{guess.name}: {guess.why}; task= says otherwise"} if guess else {}
        # what was taken without being told, and why
        self.assumed: dict[str, str] = said | found.assumed | own_words(module)
        self.checks: dict[str, float] = found.checks
        self.single = single
        self.findings = Findings()
        self.seen: Hashable = contents(data) if single else None  # what of the data is kept was read from this
        first = self.structure(0) if single or recompute else None  # what is not computed as it is held is refused now
        self._structure = first if single else None

    def structure(self, index: int) -> Structure:
        """One graph of the data as checked tensors.

        Raises:
            ValueError: no such graph.
        """
        last = 0 if self.single else len(self.data) - 1
        if (found := whole_number(index)) is None or not 0 <= found <= last:
            raise ValueError(f"graph must be a whole number from 0 to {last}, got {index!r}")
        with usual_modes():
            data = self.data if self.single else self.data[found]
            if self.task == "graph":
                check_one_graph(data)
            graph = structure_of(data, self.inputs)
            graph = named(graph, data, self.named.of(data, None if self.single else found))
        check_values(self.module, graph)
        if (again := self.inputs.recomputed) is not None:
            with usual_modes():
                self.checks["recompute_gap"] = again.gap(graph, self.inputs.as_object)
        return graph

    def names_of_classes(self, meaning: Meaning) -> tuple[str, ...]:
        """What the classes are called, or a regressor's outputs: as was said, as the data says, or nothing.

        Raises:
            TypeError: no list of texts.
            ValueError: not one a class.
        """
        own = getattr(self.data if self.single else self.data[0], "class_names", None)
        given = own if self.class_names is None and is_text(own) else self.class_names
        return names_of_classes(given, meaning)

    def outputs(
        self,
        copies: Copies,
        pairs: Tensor | None = None,
        node_type: str | None = None,
        params: Parameters | None = None,
    ) -> Tensor:
        """The model's logits ``[rows, outputs]`` for copies of a graph, with other parameters when given."""
        expected = copies.num_graphs if self.task == "graph" else copies.structure.counts.get(node_type or NODE)
        expected = pairs.size(1) if pairs is not None else expected
        with uncached(self.module), self.findings.apart.given(copies) as given:
            args, kwargs = self.inputs.arguments(given, pairs)
            if params is None:
                return self.part.rows(self.net(*args, **kwargs), expected, node_type)
            with plain_operations(self.module):
                return self.part.rows(functional_call(self.net, params, args, kwargs), expected, node_type)

    def reread(self) -> Structure:
        """The one graph of the data: that which is kept, or, where the data was edited since, what it holds now."""
        assert self._structure is not None
        if (seen := contents(self.data)) != self.seen:
            self.seen, self._structure = seen, self.structure(0)
        return self._structure

    @property
    def whole_structure(self) -> Structure | None:
        """The one graph of the data; None for a list of graphs."""
        return self._structure

    def state(self) -> Hashable:
        """The present state of the network and its data; what was found out about another one is forgotten."""
        return self.findings.current(self.net, self.seen)
