"""A trained denoiser of labels with its graph and its noise, and all that was found out about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from explain.diffusion.categorical import Categorical
from explain.diffusion.process import Gaussian, Prediction
from explain.diffusion.schedules import ddim, gaussian_of
from explain.graph_diffusion.copies import Copies, checked_graph, union
from explain.graph_diffusion.label_losses import LabelLoss, OwnLabelLoss
from explain.graph_diffusion.network import Call, LabelNetwork, as_module
from explain.graph_diffusion.processes import CategoricalLabels, GaussianLabels, LabelProcess
from explain.graph_diffusion.readings import READINGS, SCALES, readings, said, settled
from explain.guard import evaluating
from explain.payoffs import whole_number
from explain.spelling import came

Sampler: TypeAlias = Callable[[Any, Data, Tensor, torch.Generator], Tensor]
OWN = "a run is your own call, sampler(network, graph, known, generator)"


class TrainedLabelDenoiser:
    """A denoiser of labels, its graph, who is known, and its noise; see `LabelDiffusionModel` for the settings.

    ``assumed`` says what was taken to be so without being told.
    """

    def __init__(
        self,
        net: Any,
        graph: Data,
        *,
        scheduler: Any = None,
        betas: Tensor | Sequence[float] | None = None,
        process: Gaussian | Categorical | None = None,
        sampler: Sampler | None = None,
        time: str | Callable[[Tensor], Tensor] | None = None,
        call: Call | None = None,
        prediction_type: Prediction | None = None,
        scale: str | None = None,
        rule: str | None = None,
        classes: int | None = None,
        known: Tensor | None = None,
        label: str = "y",
        loss: str | OwnLabelLoss | None = None,
        weight_decay: float = 0.0,
        draws: int = 16,
    ) -> None:
        given = [
            name
            for name, part in (("scheduler", scheduler), ("betas", betas), ("process", process))
            if part is not None
        ]
        if len(given) + (sampler is not None) != 1:
            raise TypeError(
                "say once how the labels of this graph are sampled: betas= ([T]), scheduler= (diffusers) or process= "
                "(Gaussian, Categorical) of its training, or your own function sampler=(network, graph, known, "
                f"generator) -> labels; got {', '.join([*given, *['sampler'] * (sampler is not None)]) or 'none'}"
            )
        if sampler is not None:
            ours = {"time": time, "call": call, "prediction_type": prediction_type, "scale": scale, "rule": rule}
            ours |= {"loss": loss}
            if unused := [name for name, part in ours.items() if part is not None]:
                raise TypeError(f"{', '.join(unused)}= are of our sampler, and {OWN}, which calls the network itself")
        if not (isinstance(net, nn.Module) or callable(net)):
            raise TypeError(f"a denoiser of labels is a module or a function, got {type(net).__name__}")
        self.net, self.module = net, as_module(net)
        self.trained = LabelLoss(loss, weight_decay, draws)
        self.graph, self.label, self.sampler = checked_graph(graph, label), label, sampler
        self.assumed: dict[str, str] = {}
        self.nodes = int(graph.num_nodes)
        self.known = self._who_is_known(known)
        self.classes = self._how_many(classes)
        self.truth = _classes_in(graph, label, self.nodes)
        self.reads_edges = True
        bad = self.known & ((self.truth < 0) | (self.truth >= self.classes))
        if bool(bad.any()):
            raise ValueError(
                f"known labels must be classes from 0 to {self.classes - 1}, got {int(self.truth[bad][0])} at node "
                f"{int(bad.nonzero()[0])}: say classes= and who is known, known=bool [{self.nodes}]"
            )
        self.labels = F.one_hot(self.truth.clamp(0, self.classes - 1), self.classes).to(self.device, self.dtype)
        self.network: LabelNetwork | None = None
        self.process: LabelProcess | None = None
        if sampler is None:
            noise = process if betas is None and scheduler is None else self._noise(scheduler, betas, prediction_type)
            if not isinstance(noise, (Gaussian, Categorical)) or (isinstance(noise, Gaussian) and noise.signal is None):
                raise TypeError(
                    "labels are run here with Gaussian noise or with Categorical draws, not by flows or degradations, "
                    f"got {type(noise).__name__}: give your own loop, sampler="
                )
            if isinstance(noise, Gaussian) and betas is None:
                prediction_type = prediction_type or noise.prediction
            self.network = LabelNetwork(net, self.module, graph, self.classes, noise.steps, time, call)
            self._try(noise)
            self.process = self._read(noise, prediction_type, scale, rule)
            self.assumed |= self.network.assumed

    def _noise(self, scheduler: Any, betas: Any, prediction_type: Prediction | None) -> Gaussian:
        """The noise of a scheduler, or of betas, whose levels are those of float64."""
        if betas is None:
            self.assumed["steps"] = (
                f"ancestral, of the noise of {type(scheduler).__name__}; for its own step() give your loop as sampler="
            )
            return gaussian_of(scheduler, prediction_type)
        made = gaussian_of(ddim(betas, prediction_type), None)
        return replace(made, signal=(1 - torch.as_tensor(betas, dtype=torch.float64)).cumprod(0).sqrt())

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's parameters, of the features where it has none."""
        held = [part for part in (*self.module.parameters(), self.graph.get("x")) if part is not None]
        return next((part.dtype for part in held if part.is_floating_point()), torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """Of the graph."""
        return self.graph.edge_index.device

    def _who_is_known(self, known: Tensor | None) -> Tensor:
        if known is None:
            known = self.graph.get("train_mask")
            if known is None:
                raise ValueError(
                    f"whose label is known? Give known=bool [{self.nodes}], or graph.train_mask (nobody: all False)"
                )
            self.assumed["known"] = f"graph.train_mask, {int(known.sum())} of {self.nodes} nodes"
        if known.shape != (self.nodes,) or known.dtype != torch.bool:
            raise ValueError(f"known must be bool [{self.nodes}], got {known.dtype} {list(known.shape)}")
        if bool(known.any()) and self.label not in self.graph:
            raise ValueError(f"the graph has no field {self.label!r} with the known labels: give label=")
        return known.to(self.device)

    def _how_many(self, classes: int | None) -> int:
        if classes is None:
            if self.label not in self.graph:
                raise ValueError("how many classes are there? Give classes=")
            classes = int(self.graph[self.label].max()) + 1
            self.assumed["classes"] = f"{classes}, the largest of graph.{self.label} and 0"
        found = whole_number(classes)
        if found is None or found < 2:
            raise ValueError(f"classes must be a whole number of at least 2, got {classes!r}")
        return found

    def asked(self) -> Copies:
        """The graph as it is."""
        return Copies(self.known[None])

    def union(self, copies: Copies) -> Data:
        """The copies as one graph, without the labels that are not known."""
        return union(self.graph, copies, self.truth.to(self.device), self.label)

    def _try(self, process: Gaussian | Categorical) -> None:
        """Call the network, on one copy and on two side by side, of which one has lost an edge and a label."""
        assert self.network is not None
        generator = torch.Generator().manual_seed(0)
        y = torch.randn(2 * self.nodes, self.classes, generator=generator).to(self.labels)
        edges = torch.ones(2, self.graph.edge_index.size(1), dtype=torch.bool, device=self.device)
        edges[1, : max(1, edges.size(1) // 3)] = False
        known = self.known.repeat(2, 1)
        both = Copies(known, edges)
        parts = [self.union(both.one(row)) for row in (0, 1)]
        t = process.steps // 2
        self.network.tried(parts[0], y[: self.nodes], t)
        self.batched = self.network.batched(self.union(both), parts, y, t)
        if not self.batched:
            self.assumed["batch"] = "copies side by side are not answered as each by itself: each is run by itself"
        with torch.no_grad(), evaluating(self.module):
            none = self.union(Copies(self.known[None], torch.zeros_like(edges[:1])))
            with_edges, without = (self.network(graph, y[: self.nodes], t) for graph in (parts[0], none))
        self.reads_edges = edges.size(1) == 0 or not torch.equal(with_edges, without)
        if not self.reads_edges:
            self.assumed["edges"] = "the network answers the same without any: it reads no edge_index that it is given"

    def _read(
        self, process: Gaussian | Categorical, prediction_type: Prediction | None, scale: str | None, rule: str | None
    ) -> LabelProcess:
        """The noise on labels, with how the network's answer is read.

        Raises:
            ValueError: a process of other classes, or an unknown prediction, scale or rule.
            TypeError: a rule of Gaussian noise, or a prediction or scale of classes that are drawn.
        """
        if isinstance(process, Categorical):
            if prediction_type is not None or scale is not None:
                raise TypeError("prediction_type= and scale= are of Gaussian noise; of Categorical logits are answered")
            rule = rule or "mixture"
            if process.classes != self.classes:
                raise ValueError(
                    f"the process has {process.classes} classes and the labels {self.classes}: say classes= (a mask "
                    "is one of them)"
                )
            if rule not in ("mixture", "joint"):
                raise ValueError(f"rule must be 'mixture' (DiGress) or 'joint' (D3PM), got {rule!r}")
            self.assumed["prediction"] = f"logits of p(label | noised labels); reverse step: {rule}"
            return CategoricalLabels(process, rule)
        if rule is not None:
            raise TypeError("rule= is of Categorical, how logits make a reverse step; these labels have Gaussian noise")
        if scale is not None and scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, of one-hot labels, {came(scale, SCALES)}")
        if prediction_type is not None and prediction_type not in READINGS:
            raise ValueError(f"prediction_type must be one of {', '.join(READINGS)}, {came(prediction_type, READINGS)}")
        assert process.signal is not None
        if prediction_type is None or scale is None:
            assert self.network is not None
            network, whole = self.network, self.union(self.asked())
            with torch.no_grad(), evaluating(self.module):
                read = readings(
                    lambda y, t: network(whole, y, t),
                    process.signal,
                    self.labels,
                    self.known if bool(self.known.any()) else torch.ones_like(self.known),
                    READINGS if prediction_type is None else (prediction_type,),
                    tuple(SCALES) if scale is None else (scale,),
                )
            best = settled(read)
            prediction_type, scale = best.prediction, best.scale
            self.assumed["prediction"] = said(best, read)
        low, high = SCALES[scale]
        return GaussianLabels(replace(process, prediction=prediction_type), low, high)


def _classes_in(graph: Data, label: str, nodes: int) -> Tensor:
    """The label of each node, int64 ``[n]``.

    Raises:
        ValueError: labels that are no whole numbers.
    """
    if label not in graph:
        return torch.zeros(nodes, dtype=torch.long)
    found = graph[label]
    if found.is_floating_point() and not torch.equal(found, found.round()):
        raise ValueError(f"labels must be classes, whole numbers, got graph.{label} with {float(found[0]):.3g}")
    return found.long()
