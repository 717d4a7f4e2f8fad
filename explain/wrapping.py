"""wrap(): looks at what it is given and asks the right family; the only file that imports families."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from torch import Tensor, nn

from explain.guard import check_recordable, usual_modes
from explain.spelling import check_names, settings_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from explain.diffusion.model import DiffusionModel
    from explain.diffusion.pipelines.model import PipelineModel
    from explain.graph.model import GraphModel
    from explain.graph_diffusion.graph_model import GraphDiffusionModel
    from explain.graph_diffusion.model import LabelDiffusionModel
    from explain.supervised.model import SupervisedModel

_Model = TypeVar("_Model")
ACCEPTED = (
    "explain.wrap takes a torch.nn.Module and, for a graph model, a torch_geometric Data, HeteroData, Dataset or list "
    "of Data; for a classifier or regressor on tables or images task='classification' or 'regression', and as data its "
    "training set (inputs, labels), a Dataset, a DataLoader, or a background tensor; for a denoiser a diffusers "
    "pipeline, or a module or function (x_t, t, label) with scheduler= (diffusers) or betas= ([T]), and time= the unit "
    "that a network of your own takes its time in; for a denoiser of labels on a graph both that graph and the noise, "
    "scheduler=, betas=, process= or your own sampler=; for one of whole graphs process=GraphNoise(...)"
)
_TIMES = {"t", "time", "times", "timestep", "timesteps", "time_step", "sigma", "sigmas", "noise_level", "noise_labels"}
_NOISE = {"scheduler", "betas", "process", "sampler"}  # beside a graph: its labels are denoised
STORED = (
    "stored weights are not a model, and a pickle may run code while it is read: build the module, load its weights "
    "from safetensors (module.load_state_dict(safetensors.torch.load_file(path))), and wrap the module"
)


@overload
def wrap(
    model: nn.Module, data: Any = None, *, task: Literal["classification", "regression"], **options: Any
) -> SupervisedModel: ...
@overload
def wrap(model: nn.Module, data: None = None, *, outputs: str, **options: Any) -> SupervisedModel: ...
@overload
def wrap(model: Callable[..., Any], data: Any, *, sampler: Any, **options: Any) -> LabelDiffusionModel: ...
@overload
def wrap(model: Callable[..., Any], data: Any, *, betas: Any, **options: Any) -> LabelDiffusionModel: ...
@overload
def wrap(model: Callable[..., Any], data: Any, *, process: Any, **options: Any) -> LabelDiffusionModel: ...
@overload
def wrap(model: Callable[..., Any], data: Any, *, scheduler: Any, **options: Any) -> LabelDiffusionModel: ...
@overload
def wrap(model: nn.Module, data: Any, *, task: str | None = None, **options: Any) -> GraphModel: ...
@overload
def wrap(model: Callable[..., Any], data: None = None, *, process: Any, **options: Any) -> GraphDiffusionModel: ...
@overload
def wrap(model: nn.Module | Callable[..., Any], *, scheduler: Any, **options: Any) -> DiffusionModel: ...
@overload
def wrap(model: nn.Module | Callable[..., Any], *, betas: Any, **options: Any) -> DiffusionModel: ...
@overload
def wrap(model: DiffusionPipeline, **options: Any) -> PipelineModel: ...
def wrap(
    model: Any, data: Any = None, *, task: str | None = None, **options: Any
) -> GraphModel | SupervisedModel | DiffusionModel | PipelineModel | LabelDiffusionModel | GraphDiffusionModel:
    """A trained model, ready to be asked.

    Args:
        model: the trained module, left exactly as it is; for denoisers also a diffusers pipeline or a function. What it
            says of itself, ``model.assumed = {"short name": "a sentence"}``, stands in every answer.
        data: graphs (torch_geometric ``Data``, ``HeteroData``, a dataset or list of them) for a graph model; one graph
            beside its noise for a denoiser of labels; otherwise the training set (``(inputs, labels)``, a Dataset or a
            DataLoader) or a background tensor ``[m, *shape]``.
        task: graphs: "node", "edge" or "graph", inferred when None. Otherwise "classification" or "regression", which
            follows from ``outputs`` where that is given: "values" are a regressor's.
        options: those of `GraphModel`, `SupervisedModel`, `DiffusionModel` (``scheduler`` or ``betas`` make a module
            or function a denoiser) or `LabelDiffusionModel` (so do ``process`` and ``sampler`` beside a graph):
            ``weight_decay``, ``loss``, ``outputs`` (what they mean), ``output`` (which), ...

    Raises:
        TypeError: ``model`` is no module (a path, a pickle, a state dict, ...), or data that no family knows.
        ValueError: a task that does not go with the data.

    >>> wrap(nn.Linear(2, 3), task="classification").example(Tensor([0.0, 1.0])).players("features").names
    ('feature 0', 'feature 1')
    """
    with usual_modes():
        return _wrapped(model, data, task, options)


def _wrapped(
    model: Any, data: Any, task: str | None, options: dict[str, Any]
) -> GraphModel | SupervisedModel | DiffusionModel | PipelineModel | LabelDiffusionModel | GraphDiffusionModel:
    if isinstance(model, nn.Module):
        check_recordable(model)
    if isinstance(model, (str, bytes, bytearray, os.PathLike, io.IOBase, Mapping)):
        raise TypeError(f"{ACCEPTED}; got a model of type {_name(model)}: {STORED}")
    if _holds_graphs(data) and {*_NOISE, "time"} & set(options):
        return _label_denoiser(model, data, task, options)
    if data is None and "process" in options:
        return _graph_denoiser(model, task, options)
    if _is_pipeline(model) or {"scheduler", "betas", "time"} & set(options):
        return _denoiser(model, data, task, options)
    if not isinstance(model, nn.Module):
        remedy = "wrap its call in a torch.nn.Module"
        if _holds_graphs(data):
            remedy = "give the torch.nn.Module itself, and how you call it as call=lambda net, data: net(...)"
        raise TypeError(f"{ACCEPTED}; got a model of type {_name(model)}: {remedy}")
    if _holds_graphs(data):
        if task in ("classification", "regression"):
            raise ValueError(
                f"task={task!r} is for tables and images; these graphs have 'node', 'edge' or 'graph'; of a "
                "regressor say outputs='values', of classes 'logits', 'probabilities' or 'log_probabilities'"
            )
        from explain.graph.model import GraphModel

        return _made(GraphModel, model, data, task=task, **options)
    for held in ("dataset", "data"):  # of a loader of graphs, or of one that samples from a graph
        if _holds_graphs(getattr(data, held, None)):
            raise TypeError(f"{ACCEPTED}; got a {_name(data)}: give what it loads, explain.wrap(model, loader.{held})")
    if task is None and data is None and (advice := _denoises(model)):
        raise TypeError(advice)
    if task is None and isinstance(options.get("outputs"), str) and not _of_graphs(model):
        task = "regression" if options["outputs"] == "values" else "classification"
    if task not in ("classification", "regression"):
        raise ValueError(f"{ACCEPTED}; got task={task!r} and data of type {_name(data)}")
    from explain.supervised.model import SupervisedModel
    from explain.supervised.training_set import holds_examples

    if isinstance(data, Tensor):
        return _made(SupervisedModel, model, task=task, **{"background": data, **options})
    if data is not None and not holds_examples(data):
        several = isinstance(data, (tuple, list)) and len(data) > 2 and all(isinstance(part, Tensor) for part in data)
        remedy = "join the inputs of a model of several into one, [n, features], and split it in a module around it"
        raise TypeError(f"{ACCEPTED}; got data of type {_name(data)}{f' of {len(data)}: {remedy}' if several else ''}")
    return _made(SupervisedModel, model, task=task, **({} if data is None else {"train": data}) | options)


def _denoiser(model: Any, data: Any, task: str | None, options: dict[str, Any]) -> DiffusionModel | PipelineModel:
    if task is not None:
        raise ValueError(f"a denoiser has no task, got task={task!r}: it is asked by step(x0, t) or trajectory()")
    if data is not None:
        raise TypeError(
            f"a denoiser takes no data, got {_name(data)}: give training images to Influence(train=(images, labels)), "
            "reference images to step(..., reference=images)"
        )
    if isinstance(model, type) or not (_is_pipeline(model) or callable(model)):
        raise TypeError(f"{ACCEPTED}; got a model of type {_name(model)}")
    if _is_pipeline(model):
        from explain.diffusion.pipelines.model import PipelineModel

        return PipelineModel(model, **options)
    from explain.diffusion.model import DiffusionModel

    return _made(DiffusionModel, model, **options)


def _graph_denoiser(model: Any, task: str | None, options: dict[str, Any]) -> GraphDiffusionModel:
    if task is not None:
        raise ValueError(f"a denoiser of graphs has no task, got task={task!r}: it is asked by step() or trajectory()")
    if isinstance(model, type) or not callable(model):
        raise TypeError(f"{ACCEPTED}; got a model of type {_name(model)}")
    from explain.graph_diffusion.graph_model import GraphDiffusionModel

    return _made(GraphDiffusionModel, model, **options)


def _label_denoiser(model: Any, data: Any, task: str | None, options: dict[str, Any]) -> LabelDiffusionModel:
    if task is not None:
        raise ValueError(
            f"a denoiser of labels has no task, got task={task!r}: it is asked by trajectory(node) or step(t=, node=)"
        )
    if isinstance(model, type) or not callable(model):
        raise TypeError(f"{ACCEPTED}; got a model of type {_name(model)}")
    from explain.graph_diffusion.model import LabelDiffusionModel

    return _made(LabelDiffusionModel, model, data, **options)


def _made(family: Callable[..., _Model], *given: Any, **options: Any) -> _Model:
    """A family's model; a misspelt option is answered with the one that was meant."""
    known = settings_of(family)
    check_names("wrap", options, options if known is None else known[len(given) :])
    return family(*given, **options)


def _is_pipeline(model: Any) -> bool:
    """Whether this is a diffusers pipeline; its type is only looked up where something has imported diffusers."""
    diffusers = sys.modules.get("diffusers")
    return diffusers is not None and isinstance(model, diffusers.DiffusionPipeline)


def _denoises(model: nn.Module) -> str:
    """What a denoiser lacks that is given without its schedule; empty for other modules."""
    parts = [type(model).__mro__, *(type(part).__mro__ for part in model.children())]
    of_diffusers = any(kind.__module__.startswith("diffusers.models") for mro in parts for kind in mro)
    marks = ("p_losses", "p_sample", "q_sample", "sqrt_alphas_cumprod", "alphas_cumprod")
    whole_diffusion = any(hasattr(model, mark) for mark in marks)
    if not (of_diffusers or whole_diffusion or _TIMES & set((settings_of(model.forward) or [])[1:2])):
        return ""
    return (
        f"{_name(model)} looks like a denoiser and comes without its noise schedule: give scheduler= (diffusers, for "
        "instance pipeline.scheduler) or betas= ([T]) of its training, together "
        "with the network alone where this holds a whole diffusion"
    )


def _of_graphs(model: nn.Module) -> bool:
    """Whether layers of torch_geometric are in it: its inputs are no tables."""
    kinds = (kind for part in model.modules() for kind in type(part).__mro__)
    return any(kind.__module__.startswith("torch_geometric.") for kind in kinds)


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
