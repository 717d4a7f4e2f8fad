"""The inverse of a layer-wise Kronecker product: K-FAC, and EK-FAC with its eigenvalues corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from explain.influence.curvature import Curvature
from explain.influence.directions import directions
from explain.influence.example_gradients import MEMORY
from explain.influence.layers import Name, Use, matrix, watched
from explain.influence.linear_maps import Columns, Flat, slope, twice_differentiable
from explain.influence.solvers.solution import Solution, residuals
from explain.influence.spectrum import Indefinite, Spectrum
from explain.progress import in_sight
from explain.types import Objective, Parameters


@dataclass(frozen=True)
class Kfac:
    """``A ~= blocks of (A_l (x) G_l) + (weight_decay + damping) I``, one block a layer (Martens and Grosse 2015).

    The factors are::

        A_l = mean over rows of a a^T          [in + 1, in + 1], a the layer's input with a 1 for the bias
        G_l = (1/n) sum over rows of g g^T     [out, out], g the derivative in the layer's output

    of ``z^T outputs``, with directions ``z`` that make up the Hessian of the loss in the outputs: an approximation of
    the Gauss-Newton matrix, whatever ``A`` is. Images of a convolution have a row a position (Grosse and Martens 2016).
    Parameters of other layers (norms, embeddings, scales) get the diagonal of the Gauss-Newton matrix. The residual is
    that of ``A`` itself.

    Args:
        samples: random directions ``z`` an example; when None all of them up to 32 outputs, else 8.

    Raises:
        ValueError: samples below 1.
    """

    samples: int | None = None

    name = "kfac"
    remedy = "It takes the layers for independent: read the order of the scores, not their size, or use solver='cg'"
    curvature = "ggn"  # what it approximates, whatever it is asked to invert
    corrected = False

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples must be at least 1 or None, got {self.samples}")

    def solve(
        self, A: Curvature, b: Tensor, spectrum: Spectrum, generator: torch.Generator, progress: bool = False
    ) -> Solution:
        """The layer-wise inverse, times ``b``.

        Raises:
            Indefinite: an eigenvalue of a block is zero, and there is no damping.
            Unsupported: the layers cannot be seen.
        """
        objective = A.objective
        layers = _eigenbases(objective, self.samples, generator, progress)
        names = {name for pair in layers for name in pair if name is not None}
        values: dict[str | Name, Tensor] = {name: basis.values for name, basis in layers.items()}
        if self.corrected or names != set(objective.params):
            measured = layers if self.corrected else {}
            others = [name for name in objective.params if name not in names]
            values |= _second_moments(objective, measured, others, self.samples, generator, progress)
        x = _applied(A, layers, values, b.double().reshape(A.size, -1)).reshape(b.shape)
        checks = {
            "layers": len(layers),
            "kronecker_parameters": sum(objective.params[name].numel() for name in names),
            "diagonal_parameters": sum(p.numel() for name, p in objective.params.items() if name not in names),
        }
        each = residuals(b - A @ x, b)
        return Solution(x, float(each.max()), iterations=0, residuals=each, checks=checks)


@dataclass(frozen=True)
class Ekfac(Kfac):
    """K-FAC in whose eigenbasis the eigenvalues are measured (George et al. 2018).

    They are the second moments there::

        lambda_jk = (1/n) sum_i ((U_G^T D_i U_A)_jk)^2,   D_i [out, in + 1] the gradient of z^T outputs_i in the layer

    Args:
        samples: as for `Kfac`.
    """

    name = "ekfac"
    corrected = True


class _Basis(NamedTuple):
    """Eigenvectors of ``A_l`` and ``G_l``, in columns, and the eigenvalues of their product ``[out, in + 1]``."""

    inputs: Tensor
    outputs: Tensor
    values: Tensor


def _eigenbases(
    objective: Objective, samples: int | None, generator: torch.Generator, progress: bool
) -> dict[Name, _Basis]:
    inputs: dict[Name, Tensor] = {}
    rows: dict[Name, int] = {}
    outputs: dict[Name, Tensor] = {}
    for batch in in_sight(list(objective.batches()), desc="kfac", progress=progress):
        found, uses = watched(objective, batch)
        for use in uses:
            a = use.rows()
            inputs[use.name] = inputs.get(use.name, 0) + a.T @ a
            rows[use.name] = rows.get(use.name, 0) + len(a)
        for z in directions(objective, found.detach(), batch, samples, generator):
            for use, g in zip(uses, _backward(found, uses, z), strict=True):
                outputs[use.name] = outputs.get(use.name, 0) + g.T @ g / objective.size
    shared = {name for name in inputs for other in inputs if name != other and name[0] == other[0]}
    found_bases = {}
    for name in inputs.keys() - shared:
        a, u_a = torch.linalg.eigh(inputs[name] / rows[name])
        g, u_g = torch.linalg.eigh(outputs[name])
        found_bases[name] = _Basis(u_a, u_g, g.clamp_min(0)[:, None] * a.clamp_min(0))
    return {name: found_bases[name] for name in sorted(found_bases, key=str)}


def _backward(outputs: Tensor, uses: list[Use], z: Tensor) -> list[Tensor]:
    """The derivative of ``z^T outputs`` in the output of each use, ``[rows, out]``."""
    given = torch.autograd.grad(
        (outputs * z).sum(), [use.output for use in uses], retain_graph=True, materialize_grads=True
    )
    return [use.output_rows(g) for use, g in zip(uses, given, strict=True)]


def _second_moments(
    objective: Objective,
    layers: dict[Name, _Basis],
    others: list[str],
    samples: int | None,
    generator: torch.Generator,
    progress: bool,
) -> dict[str | Name, Tensor]:
    """Mean squared gradients of ``z^T outputs_i``: of layers in their eigenbasis, of other parameters as they are."""
    needed = {*others, *(name for pair in layers for name in pair if name is not None)}
    params = {name: p for name, p in objective.params.items() if name in needed}
    flat, columns = Flat(params), Columns()
    theta = flat.vector(params)
    found: dict[str | Name, Tensor] = {}

    def gradient(position: Tensor, z: Tensor) -> Tensor:
        def along(at: Tensor) -> Tensor:
            return (objective.outputs({**objective.params, **flat.params(at)}, position[None])[0] * z).sum()

        return slope(along)(theta)

    def add(key: str | Name, moments: Tensor) -> None:
        found[key] = found.get(key, 0) + moments.double() / objective.size

    chunk = max(1, MEMORY // (8 * flat.size))
    for batch in in_sight(list(objective.batches()), desc="second moments", progress=progress):
        with torch.no_grad():
            outputs = objective.outputs(objective.params, batch)
        for z in directions(objective, outputs, batch, samples, generator):
            for at, along in zip(batch.split(chunk), z.split(chunk), strict=True):
                with twice_differentiable():
                    rows = columns(gradient, at, along).detach()
                pieces = dict(zip(params, rows.split(flat.sizes, 1), strict=True))
                for other in others:
                    add(other, pieces[other].double().square().sum(0))
                for name, basis in layers.items():
                    shaped = {k: pieces[k].view(-1, *objective.params[k].shape) for k in name if k is not None}
                    add(name, (basis.outputs.T @ _matrices(shaped, name) @ basis.inputs).square().sum(0))
    return found


def _matrices(params: Parameters, name: Name) -> Tensor:
    """`matrix` of each example, ``[m, out, in (+ 1)]``, float64."""
    return torch.func.vmap(lambda one: matrix(one, name))({k: v.double() for k, v in params.items()})


def _applied(
    A: Curvature,
    layers: dict[Name, _Basis],
    values: dict[str | Name, Tensor],
    columns: Tensor,
) -> Tensor:
    """The inverse times ``columns [p, k]``; ``values`` are the eigenvalues by layer, and the diagonal of the rest.

    Raises:
        Indefinite: an eigenvalue is not above zero.
    """
    like, flat = A.objective.params, Flat(A.objective.params)
    damping = A.objective.weight_decay + A.damping
    everything = torch.cat([v.reshape(-1) for v in values.values()]) + damping
    if not everything.min() > 1e-12 * everything.max():
        raise Indefinite(A, Spectrum(float(everything.min()), float(everything.max()), 0.0, "kfac"))
    pieces = dict(zip(like, columns.split(flat.sizes), strict=True))
    for name, square in values.items():
        if isinstance(name, str):
            pieces[name] = pieces[name] / (square + damping)[:, None]
            continue
        weight, bias = name
        basis = layers[name]
        shaped = {k: pieces[k].T.reshape(-1, *like[k].shape) for k in name if k is not None}
        inside = basis.outputs.T @ _matrices(shaped, name) @ basis.inputs / (square + damping)
        solved = basis.outputs @ inside @ basis.inputs.T
        if bias is not None:
            pieces[bias] = solved[:, :, -1].T
            solved = solved[:, :, :-1]
        pieces[weight] = solved.reshape(len(solved), -1).T
    return torch.cat([pieces[name] for name in like])
