"""A second device on a machine that has none: tensors that lie elsewhere by name, and refuse those that do not.

Registered as torch's backend for others (PrivateUse1): ``.to("elsewhere")`` wraps a tensor of the CPU, each operation
runs there, and one over both devices fails as it does on a card.

``python tests/second_device.py`` asks explainers of graphs on both devices and prints the differences as JSON. A
process of its own, as a backend stays registered.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv

import explain
from explain import Attention, Gradient, Influence, Mask, Shapley

NAME = "elsewhere"
aten = torch.ops.aten
_COPIES = {aten._to_copy.default, aten.copy_.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_MAKERS = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm", "randperm.generator")


class Elsewhere(Tensor):
    """A tensor of the CPU, ``raw``, under the name of another device."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(function, args, kwargs or {})

    def __deepcopy__(self, memo: dict) -> Tensor:
        made = self.detach().clone().requires_grad_(self.requires_grad)
        made.__dict__.update({name: value for name, value in self.__dict__.items() if name != "raw"})
        memo[id(self)] = made
        return made

    def tolist(self) -> list:
        return self.raw.tolist()

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def untyped_storage(self) -> Any:
        return self.raw.untyped_storage()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device} | options)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy")

    __array__ = numpy


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _check(function: Any, args: tuple, kwargs: dict) -> None:
    """Fail as a card does where tensors of both devices meet.

    Raises:
        RuntimeError: they do.
    """
    exempt = function in _INDEXED and isinstance(args[0], Elsewhere)  # whose indices may lie on the CPU
    flat = tree_flatten(((args[:1] + args[2:]) if exempt else args, kwargs))[0]
    tensors = [each for each in flat if isinstance(each, Tensor)]
    there = [isinstance(each, Elsewhere) for each in tensors]
    if any(there) and not all(far or not each.dim() for far, each in zip(there, tensors, strict=True)):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {function} got both")


def _run(function: Any, args: tuple, kwargs: dict) -> Any:
    if function not in _COPIES:
        _check(function, args, kwargs)
    flat, spec = tree_flatten((args, kwargs))
    here = [
        each.raw
        if isinstance(each, Elsewhere)
        else torch.device("cpu")
        if isinstance(each, torch.device) and _is_there(each)
        else each
        for each in flat
    ]
    here_args, here_kwargs = tree_unflatten(here, spec)
    found = function(*here_args, **here_kwargs)
    if function is aten.copy_.default:
        return args[0]
    known = {id(each.raw): each for each in flat if isinstance(each, Elsewhere)}
    asked = kwargs.get("device")
    if not (_is_there(asked) if asked is not None else known):
        return found
    return tree_map(lambda each: known.get(id(each), Elsewhere(each)) if isinstance(each, Tensor) else each, found)


def register() -> tuple[torch.library.Library, torch.library.Library]:
    """Make the device known; whoever calls keeps what is returned."""
    _setup_privateuseone_for_python_backend(NAME)
    rest, makers = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    rest.fallback(lambda function, *args, **kwargs: _run(function, args, kwargs), "PrivateUse1")
    for name in _MAKERS:  # torch makes them by an `out` that it resizes, which a wrapper cannot follow
        function, _, overload = name.partition(".")
        made = getattr(getattr(aten, function), overload or "default")
        makers.impl(name, lambda *args, made=made, **kwargs: _run(made, args, kwargs), "PrivateUse1")
    for name in ("tensor", "as_tensor"):  # they ask for an operation that has no form in Python
        setattr(torch, name, _moved(getattr(torch, name)))
    return rest, makers


def _moved(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(data: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        if _is_there(device) and not isinstance(data, Tensor):
            return make(data, dtype=dtype, **options).to(device)
        return make(data, dtype=dtype, device=device, **options)

    return made


class Two(nn.Module):
    """Two layers of a kind."""

    def __init__(self, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = layer(3, 4), layer(4, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Dense(nn.Module):
    """Two layers over a dense adjacency, ``A (x W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        adjacency = x.new_zeros(x.size(0), x.size(0))
        adjacency[edge_index[1], edge_index[0]] = 1
        return adjacency @ self.second((adjacency @ self.first(x)).relu())


def _questions(name: str) -> dict[str, explain.Explainer]:
    """What is asked of a kind of network: where its tensors go ways that those of the others do not."""
    train = torch.tensor([True, True, False, True, True])  # on the CPU, as masks often are
    slopes: dict[str, explain.Explainer] = {
        "Gradient edges": Gradient("edges"),
        "Mask edges": Mask("edges", epochs=2, repeats=1, seed=0),
    }
    if name == "dense":
        return slopes
    if name == "GAT":
        graph_mask = Mask("edges", method="graph_mask", epochs=2, repeats=1, seed=0)
        return {"Attention edges": Attention("edges"), "Attention nodes": Attention("nodes"), "GraphMask": graph_mask}
    return slopes | {
        "Shapley nodes": Shapley("nodes"),
        "Gradient features": Gradient("features"),
        "Influence": Influence(train, curvature="ggn"),
        "Influence of edges": Influence(train, "edges", curvature="ggn"),
    }


def differences() -> Iterator[tuple[str, float | str]]:
    """Each question, and the largest difference of its answers on both devices or what went wrong."""
    edges = torch.tensor([[0, 2, 3, 4, 1, 4], [1, 1, 2, 0, 0, 3]])
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    data = Data(x=x, edge_index=edges, y=torch.tensor([0, 1, 1, 0, 1]))
    for name, build in {"GCN": lambda: Two(GCNConv), "GAT": lambda: Two(GATConv), "dense": Dense}.items():
        torch.manual_seed(1)
        net = build().eval()
        far, moved = copy.deepcopy(net).to(NAME), data.clone().to(NAME)
        for said, ask in _questions(name).items():
            try:
                one, other = (
                    ask.explain(explain.wrap(model, graph, task="node", weight_decay=0.1).node(1)).scores
                    for model, graph in ((net, data), (far, moved))
                )
                yield f"{name}, {said}", float((one - other).abs().max())
            except Exception as error:
                yield f"{name}, {said}", f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    kept = register()
    near, away = torch.ones(2), torch.ones(2).to(NAME)
    for mixed in (lambda: near + away, lambda: near[torch.zeros(1, dtype=torch.long).to(NAME)]):
        try:
            mixed()
        except RuntimeError:
            continue
        raise SystemExit("tensors of both devices met")
    print(json.dumps(dict(differences())))
