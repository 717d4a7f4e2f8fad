"""The same questions to other libraries, each in its own words; scores ``[n, q]`` up to a factor.

The penalty and the damping are their ``regularization``. What is inverted on the Gauss-Newton problems is the Hessian
of the linearised network, which is the Gauss-Newton matrix: so all solve the same systems.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.influence_problems import Problem

Run = Callable[[Problem], Tensor]


class Linearised(nn.Module):
    """``f(theta_0, x) + J(theta_0, x) (theta - theta_0)``, whose Hessian is the Gauss-Newton matrix of ``f``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.moved = copy.deepcopy(net)
        self.fixed = [net]  # a list, so that its parameters are not those of this module
        self.start = {name: p.detach() for name, p in net.named_parameters()}

    def forward(self, x: Tensor) -> Tensor:
        moved = dict(self.moved.named_parameters())
        step = {name: p - self.start[name] for name, p in moved.items()}
        value, change = jvp(lambda p: functional_call(self.fixed[0], p, (x,)), (self.start,), (step,))
        return value + change


def solved_module(problem: Problem) -> nn.Module:
    """The module whose Hessian is the problem's matrix, without what is on the diagonal."""
    return Linearised(problem.module) if problem.curvature == "ggn" else copy.deepcopy(problem.module)


def pydvl(problem: Problem, kind: str, batch: int | None = None, **options: object) -> Tensor:
    """pyDVL: ``kind`` is the name of its influence model."""
    import pydvl.influence.torch as peer

    model = getattr(peer, kind)(solved_module(problem), F.cross_entropy, regularization=problem.ridge, **options)
    train = TensorDataset(problem.inputs, problem.labels)
    fitted = model.fit(DataLoader(train, batch_size=batch or len(train), shuffle=batch is not None))
    return fitted.influences(problem.asked, problem.asked_labels, problem.inputs, problem.labels).detach().T


def dattri(problem: Problem, kind: str, **options: object) -> Tensor:
    """dattri: ``kind`` is the name of its attributor; one batch, as its results depend on the number of batches."""
    import dattri.algorithm.influence_function as peer
    from dattri.task import AttributionTask

    module = solved_module(problem).eval()

    def single(params: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        x, label = pair
        return F.cross_entropy(functional_call(module, params, (x[None],)), label[None].long())

    def mean(params: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        x, label = pair
        return F.cross_entropy(functional_call(module, params, (x,)), label.long())

    def loss(params: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        return single(params, pair) if pair[1].dim() == 0 else mean(params, pair)

    task = AttributionTask(loss_func=loss, model=module, checkpoints=module.state_dict())
    engine = getattr(peer, kind)(task=task, **options)
    train = DataLoader(TensorDataset(problem.inputs, problem.labels), batch_size=len(problem.labels))
    asked = DataLoader(TensorDataset(problem.asked, problem.asked_labels), batch_size=len(problem.asked_labels))
    engine.cache(train)
    return engine.attribute(train, asked).detach()


def captum(problem: Problem, kind: str, **options: object) -> Tensor:
    """captum: ``kind`` is the name of its influence function."""
    import captum.influence._core.arnoldi_influence_function as arnoldi
    import captum.influence._core.influence_function as naive

    module = solved_module(problem)
    train = TensorDataset(problem.inputs, problem.labels)
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(module.state_dict(), file.name)
        engine = getattr(arnoldi, kind, None) or getattr(naive, kind)
        made = engine(
            module,
            train,
            file.name,
            lambda net, path: net.load_state_dict(torch.load(path)) and 1.0,
            loss_fn=nn.CrossEntropyLoss(reduction="none"),
            batch_size=len(train),
            **options,
        )
        return made.influence((problem.asked, problem.asked_labels)).detach().T


def kronfluence(problem: Problem, strategy: str) -> Tensor:
    """kronfluence: Kronecker factors of each layer, no inverse of the whole."""
    from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model

    class Classification(Task):
        def compute_train_loss(self, batch, model, sample=False):  # type: ignore[no-untyped-def]
            x, labels = batch
            logits = model(x)
            if sample:
                with torch.no_grad():
                    labels = torch.multinomial(logits.detach().softmax(1), 1).flatten()
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch, model):  # type: ignore[no-untyped-def]
            x, labels = batch
            return F.cross_entropy(model(x), labels, reduction="sum")

    task = Classification()
    model = prepare_model(nn.Sequential(copy.deepcopy(problem.module)), task)  # it cannot replace the root itself
    train = TensorDataset(problem.inputs, problem.labels)
    asked = TensorDataset(problem.asked, problem.asked_labels)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("benchmark", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
        arguments = FactorArguments(strategy=strategy)
        analyzer.fit_all_factors("factors", train, 512, factor_args=arguments, overwrite_output_dir=True)
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            asked,
            train,
            per_device_query_batch_size=50,
            per_device_train_batch_size=512,
            score_args=ScoreArguments(damping_factor=problem.ridge),
            overwrite_output_dir=True,
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].T


def peers(problem: Problem) -> dict[str, Run]:
    """Every setting tried, by library and method; the fastest that reaches an accuracy is the one reported."""
    linear, graph = problem.name.startswith("logistic"), problem.name.startswith("GCN")
    found: dict[str, Run] = {}
    for tolerance in (1e-1, 1e-2, 1e-3):
        found[f"pyDVL block CG {tolerance:g}"] = partial(
            pydvl, kind="CgInfluence", rtol=tolerance, atol=0.0, solve_simultaneously=True, maxiter=300
        )
    found["pyDVL Nyström 100"] = partial(pydvl, kind="NystroemSketchInfluence", rank=100)
    for steps in (30, 100) if linear else (5, 10, 20):
        found[f"dattri CG {steps}"] = partial(
            dattri, kind="IFAttributorCG", max_iter=steps, tol=1e-12, regularization=problem.ridge
        )
    if linear:
        found["pyDVL direct"] = partial(pydvl, kind="DirectInfluence")
        found["dattri explicit"] = partial(dattri, kind="IFAttributorExplicit", regularization=problem.ridge)
        found["captum naive 650"] = partial(
            captum, kind="NaiveInfluenceFunction", projection_dim=650, hessian_reg=problem.ridge * len(problem.labels)
        )
    found["captum Arnoldi 50"] = partial(
        captum,
        kind="ArnoldiInfluenceFunction",
        projection_dim=50,
        arnoldi_dim=60,
        hessian_reg=problem.ridge * len(problem.labels),
    )
    if not graph:  # a graph network under one linear head has no layers of examples to factorise
        found["kronfluence EK-FAC"] = partial(kronfluence, strategy="ekfac")
        found["kronfluence K-FAC"] = partial(kronfluence, strategy="kfac")
    return found | _recursions(problem)


def _recursions(problem: Problem) -> dict[str, Run]:
    """LiSSA of pyDVL and dattri over batch sizes and depths, with a scale that settles.

    Over the whole set just above the largest eigenvalue, the quickest there is; three times that for small batches,
    whose own eigenvalues are larger. dattri's damping shrinks ``h``: that of ``A`` divided by the scale is the same.
    """
    found: dict[str, Run] = {}
    for batch, depth in problem.recursions:
        size = batch or len(problem.labels)
        scale = (1.05 if batch is None else 3.0) * problem.largest
        found[f"pyDVL LiSSA {depth} x {size}"] = partial(
            pydvl, kind="LissaInfluence", batch=size, maxiter=depth, scale=scale, rtol=1e-6, warn_on_max_iteration=False
        )
        found[f"dattri LiSSA {depth} x {size}"] = partial(
            dattri,
            kind="IFAttributorLiSSA",
            recursion_depth=depth,
            batch_size=size,
            damping=problem.ridge / scale,
            scaling=scale,
        )
    return found
