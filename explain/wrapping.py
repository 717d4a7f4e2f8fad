"""wrap(): looks at what it is given and asks the right family; the only file that imports families."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, overload

from torch import Tensor, nn

if TYPE_CHECKING:
    from explain.graph.model import GraphModel
    from explain.supervised.model import SupervisedModel

ACCEPTED = (
    "explain.wrap takes a torch.nn.Module and, for a graph model, a torch_geometric Data, HeteroData, Dataset or list "
    "of Data; for a classifier or regressor on tables or images task='classification' or 'regression', and as data its "
    "training set (inputs, labels), a Dataset, a DataLoader, or a background tensor"
)


@overload
def wrap(
    model: nn.Module, data: Any = None, *, task: Literal["classification", "regression"], **options: Any
) -> SupervisedModel: ...
@overload
def wrap(model: nn.Module, data: Any, *, task: str | None = None, **options: Any) -> GraphModel: ...
def wrap(
    model: nn.Module, data: Any = None, *, task: str | None = None, **options: Any
) -> GraphModel | SupervisedModel:
    """A trained model, ready to be asked.

    Args:
        model: the trained module, left exactly as it is.
        data: graphs (torch_geometric ``Data``, ``HeteroData``, a dataset or list of them) for a graph model; otherwise
            the training set (``(inputs, labels)``, a Dataset or a DataLoader) or a background tensor ``[m, *shape]``.
        task: graphs: "node", "edge" or "graph", inferred when None. Otherwise "classification" or "regression".
        options: those of `GraphModel` or `SupervisedModel`: ``weight_decay``, ``loss``, ...

    Raises:
        TypeError: ``model`` is not a ``torch.nn.Module``, or data that no family knows.
        ValueError: a task that does not go with the data.

    >>> wrap(nn.Linear(2, 3), task="classification").example(Tensor([0.0, 1.0])).players("features").names
    ('feature 0', 'feature 1')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{ACCEPTED}; got a model of type {_name(model)}: wrap its call in a torch.nn.Module")
    if _holds_graphs(data):
        if task in ("classification", "regression"):
            raise ValueError(f"task={task!r} is for tables and images; these graphs have 'node', 'edge' or 'graph'")
        from explain.graph.model import GraphModel

        return GraphModel(model, data, task=task, **options)
    if task not in ("classification", "regression"):
        raise ValueError(f"{ACCEPTED}; got task={task!r} and data of type {_name(data)}")
    from explain.supervised.model import SupervisedModel
    from explain.supervised.objective import holds_examples

    if isinstance(data, Tensor):
        return SupervisedModel(model, task=task, **{"background": data, **options})
    if data is not None and not holds_examples(data):
        raise TypeError(f"{ACCEPTED}; got data of type {_name(data)}")
    return SupervisedModel(model, task=task, **({} if data is None else {"train": data}) | options)


def _holds_graphs(data: Any) -> bool:
    """Whether these are torch_geometric's; its types are only looked up where something has imported them."""
    pyg = sys.modules.get("torch_geometric.data")
    if pyg is None:
        return False
    if isinstance(data, (list, tuple)):
        return bool(data) and all(isinstance(part, pyg.data.BaseData) for part in data)
    return isinstance(data, (pyg.data.BaseData, pyg.Dataset))


def _name(thing: Any) -> str:
    return "None" if thing is None else f"{type(thing).__module__}.{type(thing).__qualname__}"
