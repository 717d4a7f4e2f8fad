"""LabelDiffusionModel: a trained denoiser of the labels on a graph, ready to be asked about a run or a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from explain.diffusion.settings import checked_batch_size, checked_count, checked_seed
from explain.graph_diffusion.processes import CategoricalLabels, GaussianLabels
from explain.graph_diffusion.settings import BASELINES, checked_steps, checked_temperature
from explain.graph_diffusion.targets import RunTarget, StepTarget
from explain.graph_diffusion.trained import OWN, TrainedLabelDenoiser
from explain.guard import usual_modes
from explain.introduction import introduced
from explain.payoffs import named
from explain.spelling import came, spelled


class LabelDiffusionModel(TrainedLabelDenoiser):
    """A denoiser of the labels of all nodes of a graph, ``p(Y_unknown | graph, Y_known)``, with its noise.

    Args:
        net: the network, ``(x, y_t [n, C], t, edge_index, ...)`` by these or like names.
        graph: torch_geometric ``Data`` with ``edge_index``; the labels that are known and ``train_mask``.
        scheduler: a diffusers scheduler, whose noise is that of the training.
        betas: float ``[T]`` in its place.
        process: or the process itself, `Gaussian` on one-hot labels or `Categorical`.
        sampler: or your own call, ``(network, graph, known, generator) -> labels``: classes int64 ``[n]`` or scores
            ``[n, C]``. It is run as it is on changed graphs; ``known`` int64 ``[n]`` is -1 where a label is not known.
        time: the unit that forward takes its time in: "step" (0 to T-1, of `Categorical` 1 to T), "unit" (``t / T``),
            or a function of the step.
        call: how you call the network, ``(net, graph, y_t, t) -> [n, C]``, where forward's names do not say.
        prediction_type: "epsilon", "sample" or "v_prediction"; found out on the known labels when None. A network of
            `Categorical` answers logits.
        scale: of one-hot labels, "0/1" or "-1/1"; found out as well.
        rule: of `Categorical`, "mixture" (DiGress; when None) or "joint" (D3PM); see there.
        classes: ``C``; from the labels when None.
        known: bool ``[n]``, whose label is known; ``graph.train_mask`` when None.
        label: the field of the graph with the labels.
        loss: what it was trained with, for `Influence`: "nodes", the squared error or of classes the cross-entropy, a
            mean over all nodes, "known_and_others", a mean over the known ones and one over the others (DPM-SNC), or
            your own function ``(prediction, wanted, noised [rows, n, C], t [rows]) -> [rows, n]``.
        weight_decay: as in ``torch.optim.SGD``.
        draws: of step and noise that stand for all that training drew, the same for all labels.

    Raises:
        TypeError: none or several of scheduler, betas, process and sampler; a network whose arguments cannot be told;
            options of another noise, or of ours beside your own sampler.
        ValueError: labels, classes or masks that do not go together; a prediction that cannot be told.

    ``assumed`` says what was taken to be so without being told; it is written into every answer.

    >>> from torch_geometric.data import Data
    >>> pair = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([0, 1]), num_nodes=2)
    >>> def follow(network, graph, known, generator):  # each node is what its neighbours are not, unknown is 0
    ...     turned = torch.zeros_like(known)
    ...     turned[graph.edge_index[1]] = 1 - known[graph.edge_index[0]].clamp_min(0)
    ...     return torch.where(known >= 0, known, turned)
    >>> model = LabelDiffusionModel(torch.nn.Identity(), pair, sampler=follow, known=torch.tensor([True, False]))
    >>> model.trajectory(node=1, label=1).value()
    1.0
    """

    def __repr__(self) -> str:
        return introduced(self, self.net, f"{self.nodes} nodes", "trajectory(node), step(t=, node=)", self.assumed)

    @spelled
    def trajectory(
        self,
        node: int | None = None,
        label: int | None = None,
        *,
        payoff: str | Callable[[Tensor], Tensor] | None = None,
        payoff_name: str | None = None,
        seed: int = 0,
        draws: int = 8,
        steps: int | None = None,
        temperature: float | None = None,
        constrained: bool | None = None,
        baseline: str = "zeros",
        batch_size: int | None = None,
    ) -> RunTarget:
        """What runs of the sampler say of a node's label, or a function of all labels.

        Args:
            node: who is asked about; None for a function of all labels.
            label: the class; the one where most runs end when None.
            payoff: "probability", the share of runs in which the node ends as the label; "state", the mean of its
                ``y_0``, 1 for sure, which has a derivative; or a function of the ends ``[m, n, C] -> [m]``.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            seed: of the noise: every coalition meets the same, node by node.
            draws: runs that the number is a mean of.
            steps: of the schedule that are taken; all when None.
            temperature: what all noise of a Gaussian run is scaled by; 1 when None.
            constrained: whether the known labels correct a Gaussian run (manifold-constrained); yes when None.
            baseline: what absent features show, "zeros" or the "mean" of the nodes.
            batch_size: coalitions in one forward pass.

        Raises:
            ValueError: no such node, label, payoff or steps; settings of our sampler beside your own.
        """
        _check_baseline(baseline)
        settings = (node, label, named(payoff, payoff_name), checked_seed(seed), checked_count(draws, "draws"))
        process, constraint, taken = self.process, False, 0
        if process is None:
            given = {"steps": steps, "temperature": temperature, "constrained": constrained}
            if ours := [name for name, part in given.items() if part is not None]:
                raise ValueError(f"{', '.join(ours)} are of our sampler, and {OWN}: set them in there")
        else:
            gaussian = isinstance(process, GaussianLabels)
            if isinstance(process, CategoricalLabels) and (temperature not in (None, 1) or constrained):
                raise ValueError("temperature and constrained are of Gaussian labels, and these are classes")
            constraint, taken = gaussian and constrained is not False, checked_steps(steps, len(process.times))
            if isinstance(process, GaussianLabels):
                process = replace(process, temperature=checked_temperature(1 if temperature is None else temperature))
        with usual_modes():
            return RunTarget(self, *settings, taken, process, constraint, baseline, checked_batch_size(batch_size))

    @spelled
    def step(
        self,
        state: Tensor | None = None,
        *,
        t: int,
        node: int | None = None,
        label: int | None = None,
        payoff: str | Callable[[Tensor], Tensor] | None = None,
        payoff_name: str | None = None,
        seed: int = 0,
        draws: int = 8,
        baseline: str = "zeros",
        batch_size: int | None = None,
    ) -> StepTarget:
        """What the network foresees of a node's label once all labels are noised to step ``t``.

        Args:
            state: the clean labels, int64 ``[n]``; the graph's when None.
            t: the step of the schedule.
            node: who is asked about; None for a function of all labels.
            label: the class; the foreseen one when None.
            payoff: of `Categorical` "log_probability" (when None) or "probability" of the label; of Gaussian labels,
                which have none, "x0", its ``y0_hat`` on a scale from 0 to 1; or a function ``[m, n, C] -> [m]`` of
                what is foreseen.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            seed: of the noise.
            draws: noise draws that the number is a mean of.
            baseline: what absent features show, "zeros" or the "mean" of the nodes.
            batch_size: coalitions in one forward pass.

        Raises:
            ValueError: no such state, step, node, label or payoff.
        """
        _check_baseline(baseline)
        clean = self.truth if state is None else torch.as_tensor(state)
        if (
            clean.shape != (self.nodes,)
            or clean.is_floating_point()
            or not bool(((clean >= 0) & (clean < self.classes)).all())
        ):
            raise ValueError(
                f"state must be the class of each node, int64 [{self.nodes}] from 0 to {self.classes - 1}, got "
                f"{clean.dtype} {list(clean.shape)}{'' if state is not None else ' from the graph: give state='}"
            )
        if isinstance(self.process, CategoricalLabels):
            t = self.process.process.checked_step(t)
        elif isinstance(self.process, GaussianLabels):
            t = int(self.process.process.checked_step(t))
        settings = (node, label, named(payoff, payoff_name), checked_seed(seed), checked_count(draws, "draws"))
        with usual_modes():
            return StepTarget(
                self, clean.long().to(self.device), t, *settings, baseline, checked_batch_size(batch_size)
            )


def _check_baseline(baseline: str) -> None:
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, {came(baseline, BASELINES)}")
