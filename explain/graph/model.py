"""GraphModel: a trained graph network and its data, ready to be asked about a node, an edge or a graph."""

from __future__ import annotations

from explain.graph.network import GraphNetwork
from explain.graph.players.absent_features import Baseline
from explain.graph.targets import GraphTarget
from explain.graph.tensors.data_object import pair_store
from explain.graph.tensors.structure import Structure
from explain.introduction import introduced
from explain.payoffs import Payoff, named, whole_number
from explain.spelling import meant, spelled


class GraphModel(GraphNetwork):
    """Any torch_geometric or plain-torch graph network, wrapped once so that nothing behind it asks what it was.

    Args:
        module: takes ``x [nodes, features]`` and ``edge_index [2, edges]`` (or a dense adjacency, a data object,
            dictionaries by type) and returns logits ``[rows, outputs]``: a tensor, or a tuple or dictionary with them.
        data: a ``Data`` or ``HeteroData``; for graph tasks a dataset or list of them, or one ``Batch``, which
            keeps its own ``batch`` in every coalition where its nodes or pairs are asked about.
        task: "node", "edge" or "graph". None: a list means "graph", as does a ``Batch`` where the answer has a row for
            each of its graphs; one graph "edge" where the answer has a row for each pair of ``edge_label_index``, else
            "node". "node" with a list: the nodes of many graphs or snapshots, ``model.node(3, graph=7)``.
        weight_decay: the penalty ``weight_decay/2 |theta|^2`` that the model was trained with.
        loss: what was trained: "cross_entropy", "bce", "mse", "mae", "huber", "hinge", "poisson", "multi_margin" (the
            hinge of several classes), "brier" (the squared error of the probabilities), or a function
            ``(outputs, labels) -> [examples]``; taken from outputs and labels where these leave no doubt.
        outputs: what they are: "logits", "probabilities", "log_probabilities", or a regressor's "values"; by default
            read off the model's answers on the whole data and the labels.
        output: which part of a tuple, dictionary or object that forward returns: its position, its name, or a function.
        inputs: sources of forward's parameters, ``{"feat": "x"}``, where their names do not tell; these and no other
            optional ones. None switches one off, ``{"edge_weight": None}``.
        call: your own call in one line, ``lambda net, data: net(data.x, data.edge_index)``. Its arguments are those
            that are passed, proved on the whole data (``describe()["call_gap"]``); where they are computed in the call,
            coalitions are your call on the smaller data. For graph tasks ``data`` is a ``Batch`` of one or more graphs;
            for links it holds ``edge_label_index``.
        recompute: functions that made fields of the data out of its edges (positional codes, powers of the adjacency,
            propagated features), by field: ``{"pe": AddLaplacianEigenvectorPE(8, attr_name="pe")}``, of a data object
            to the field or to an object that holds it. In each coalition the field is then computed from what is left,
            as for the whole graph, which is proved on the data (``checks["recompute_gap"]``); columns that are known
            up to their signs have those of the data. Without it such fields stay as they are, which is warned of.
        decoder: for link models that return embeddings, ``(z, edge_label_index [2, pairs]) -> [pairs]``; a module with
            ``encode`` and ``decode`` needs none.
        node_names: one text a node, by type where there are types; of several graphs a list for each, or a function
            of a graph that gives it, such as ``lambda data: [ATOMS[i] for i in data.x.argmax(1)]``. None: those in the
            data, ``data.node_names``; the same of the next three.
        class_names: one a class, or one an output of a regressor.
        feature_names: one a column of ``x``.
        edge_names: one an edge.

    Raises:
        TypeError: data of another kind, a parameter without a source, or with several, another dtype or device, names
            that are no texts.
        ValueError: an empty graph, edges that point outside, an unknown task, another number of names, a field that is
            not computed again as it is in the data.

    >>> from torch_geometric.datasets import KarateClub
    >>> from torch_geometric.nn import GCN
    >>> model = GraphModel(GCN(34, 8, num_layers=2, out_channels=4), KarateClub()[0])
    >>> model.task, len(model.node(3).players("nodes")) <= 33
    ('node', True)
    """

    def __repr__(self) -> str:
        asked = {"node": "node(number)", "edge": "edge(source, target)", "graph": "graph(number)"}[self.task]
        of = "one graph" if self.single else f"{len(self.data)} graphs"
        return introduced(self, self.module, f"task {self.task}, {of}", asked, self.assumed)

    @spelled
    def node(
        self,
        node: int | str | tuple[str, int | str],
        label: int | None = None,
        *,
        payoff: Payoff | None = None,
        payoff_name: str | None = None,
        removal: str = "delete",
        baseline: Baseline = "zeros",
        batch_size: int | None = None,
        graph: int | None = None,
    ) -> GraphTarget:
        """The model's answer for one node (``(type, number)`` in heterogeneous graphs).

        Args:
            node: its number or name, or ``(type, number)``.
            label: the class the number is read for, the predicted one when None; of a regressor which of its outputs.
            payoff: "logit", "probability", "log_probability", "loss", "value" (the model's own number) or a callable
                ``[rows, outputs] -> [rows]``; None: the model's own number, whose name follows from ``outputs``.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            removal: "delete" takes an absent edge out and the model renormalises; "message" multiplies its message by
                zero; "features" keeps the structure and replaces an absent node's features. A node that is deleted is
                gone with its row wherever the model could see it without edges (norms, attention over all, positions).
            baseline: absent features become "zeros", the "mean" over the nodes, "marginal" draws of them, or your own
                values, ``[features]``.
            batch_size: coalitions in one forward; by default from a memory budget.
            graph: which graph of a list.

        Raises:
            ValueError: no such node, class or graph.
        """
        self._expect("node")
        if self.single != (graph is None):
            raise ValueError(
                f"graph= says which graph of a list has the node, got graph={graph!r} and "
                f"{'one graph' if self.single else f'{len(self.data)} graphs'}"
            )
        found = self._whole() if graph is None else self.structure(graph)
        kind, number = self._node(found, node)
        asked = named(payoff, payoff_name)
        return GraphTarget(self, found, ((kind, number),), label, asked, removal, baseline, batch_size, graph)

    @spelled
    def edge(
        self,
        source: int | str | tuple[str, int | str],
        target: int | str | tuple[str, int | str],
        label: int | None = None,
        *,
        payoff: Payoff | None = None,
        payoff_name: str | None = None,
        removal: str = "delete",
        baseline: Baseline = "zeros",
        batch_size: int | None = None,
    ) -> GraphTarget:
        """The model's answer for a pair of nodes, linked or not; see `node` for the rest."""
        self._expect("edge")
        graph = self._whole()
        focus = (self._node(graph, source), self._node(graph, target))
        self._check_ends((focus[0][0], focus[1][0]))
        return GraphTarget(self, graph, focus, label, named(payoff, payoff_name), removal, baseline, batch_size)

    @spelled
    def graph(
        self,
        index: int = 0,
        label: int | None = None,
        *,
        payoff: Payoff | None = None,
        payoff_name: str | None = None,
        removal: str = "delete",
        baseline: Baseline = "zeros",
        batch_size: int | None = None,
    ) -> GraphTarget:
        """The model's answer for one graph of the data set; an absent node leaves the pooling too. See `node`."""
        self._expect("graph")
        asked = named(payoff, payoff_name)
        return GraphTarget(self, self.structure(index), (), label, asked, removal, baseline, batch_size, index)

    def _check_ends(self, kinds: tuple[str, str]) -> None:
        """Check that a pair is of the types whose numbers stand in the data's own ``edge_label_index``.

        Raises:
            ValueError: it is of others.
        """
        named = getattr(pair_store(self.data), "_key", None)
        if named is not None and kinds != (named[0], named[2]):
            raise ValueError(
                f"the data's edge_label_index is of {named}: a pair is (({named[0]!r}, 0), ({named[2]!r}, 0)), got one "
                f"of {kinds[0]!r} and {kinds[1]!r}"
            )

    def _whole(self) -> Structure:
        if self._structure is None:
            raise ValueError("give one graph, not a list, to ask about its nodes or edges")
        return self.reread()

    def _expect(self, task: str) -> None:
        if self.task != task:
            how = f'this model was wrapped for task="{self.task}"'
            if self.inferred:
                how = f'no task was named, and "{self.task}" was inferred, as {self.inferred.why}'
            if task == "edge" and not self.single:
                raise ValueError(f'{how}: pairs are asked about on one graph, explain.wrap(model, graph, task="edge")')
            raise ValueError(f'{how}: wrap it with task="{task}" to ask this')

    @staticmethod
    def _node(graph: Structure, node: int | str | tuple[str, int | str]) -> tuple[str, int]:
        if isinstance(node, tuple) and len(node) != 2:
            raise ValueError(f"node must be a number, or (type, number) in heterogeneous graphs, got {node!r}")
        kind, number = node if isinstance(node, tuple) else (next(iter(graph.counts)), node)
        if not isinstance(node, tuple) and len(graph.counts) > 1:
            raise ValueError(f"name the node's type too, such as ({next(iter(graph.counts))!r}, {node!r})")
        if kind not in graph.counts:
            known = f"node types are {', '.join(graph.counts)}" if len(graph.counts) > 1 else "nodes here have no types"
            raise ValueError(f"{known}; got {node!r}")
        if isinstance(number, str):
            return kind, _named(graph, kind, number)
        found = whole_number(number)
        if found is None or not 0 <= found < graph.counts[kind]:
            raise ValueError(f"node must be a whole number from 0 to {graph.counts[kind] - 1}, got {number!r}")
        return kind, found


def _named(graph: Structure, kind: str, name: str) -> int:
    """The number of the node of this name.

    Raises:
        ValueError: no node or several have it, or nodes have no names.
    """
    names = graph.names.nodes.get(kind)
    if names is None:
        last = graph.counts[kind] - 1
        raise ValueError(f"node must be a whole number from 0 to {last}, as nodes have no names, got {name!r}")
    if (times := names.count(name)) != 1:
        remedy = ": give its number" if times else meant(name, names)
        raise ValueError(f"{times or 'no'} nodes are called {name!r}{remedy}")
    return names.index(name)
