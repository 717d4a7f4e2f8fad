"""Influence in paper form, slowly: dense Hessians by autograd, gradients in a loop, retraining to machine precision."""

from __future__ import annotations

import torch
from torch import Tensor


def flat_function(objective):
    """``theta [p] -> params`` and the flat ``theta``."""
    shapes = {name: p.shape for name, p in objective.params.items()}
    theta = torch.cat([p.reshape(-1) for p in objective.params.values()])

    def params(vector: Tensor):
        found, start = {}, 0
        for name, shape in shapes.items():
            found[name] = vector[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        return found

    return params, theta


def trained_loss(objective, theta: Tensor) -> Tensor:
    """``J(theta) = (1/n) sum_i loss_i + weight_decay/2 |theta|^2``."""
    params, _ = flat_function(objective)
    losses = objective.train_loss(params(theta), torch.arange(objective.size))
    return losses.sum() / objective.size + objective.weight_decay / 2 * theta @ theta


def hessian(objective) -> Tensor:
    _, theta = flat_function(objective)
    return torch.autograd.functional.hessian(lambda t: trained_loss(objective, t), theta)


def gauss_newton(objective) -> Tensor:
    """``(1/n) sum_i J_i^T H_out,i J_i + weight_decay I``, one example at a time."""
    params, theta = flat_function(objective)
    total = objective.weight_decay * torch.eye(len(theta), dtype=theta.dtype)
    for i in range(objective.size):
        at = torch.tensor([i])
        outputs = objective.outputs(params(theta), at)[0]
        jacobian = torch.autograd.functional.jacobian(lambda t, at=at: objective.outputs(params(t), at)[0], theta)
        curve = torch.autograd.functional.hessian(lambda o, at=at: objective.loss(o[None], at).sum(), outputs)
        jacobian, curve = jacobian.reshape(outputs.numel(), -1), curve.reshape(outputs.numel(), -1)
        total = total + jacobian.T @ curve @ jacobian / objective.size
    return total


def loss_gradients(objective) -> Tensor:
    """``grad loss_i``, ``[n, p]``, one at a time; without the penalty."""
    params, theta = flat_function(objective)
    rows = []
    for i in range(objective.size):
        t = theta.clone().requires_grad_()
        rows.append(torch.autograd.grad(objective.train_loss(params(t), torch.tensor([i])).sum(), t)[0])
    return torch.stack(rows)


def influence(objective, matrix: Tensor) -> Tensor:
    """``-(1/n) grad f^T A^-1 grad loss_i``, ``[n]``."""
    params, theta = flat_function(objective)
    t = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective.measurement(params(t)), t)
    return -loss_gradients(objective) @ torch.linalg.solve(matrix, gradient) / objective.size


def d_trak(predict, images: int, asked, noised, lam: float, P: Tensor | None, net) -> Tensor:
    """Zheng et al. 2024: ``phi(x)^T (Phi^T Phi + lambda I)^-1 phi(x_i)`` for each image, one gradient at a time.

    ``phi(x) = P^T grad mean_k |predict(x_k, t_k)|^2 / d`` in the parameters of ``net``; ``noised(i) -> [(x_k, t_k,
    label)]`` are the draws of training image i, ``asked`` such draws of what is explained.
    """

    def phi(draws) -> Tensor:
        total = 0.0
        for x, t, label in draws:
            total = total + predict(x[None], t[None], label[None]).square().sum() / x.numel() / len(draws)
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, list(net.parameters()))])
        return gradient if P is None else P.T @ gradient

    Phi = torch.stack([phi(noised(i)) for i in range(images)])
    kernel = Phi.T @ Phi + lam * torch.eye(Phi.size(1), dtype=Phi.dtype)
    return Phi @ torch.linalg.solve(kernel, phi(asked))


def trained(objective, steps: int = 50) -> Tensor:
    """The minimiser of a convex objective by Newton's method, to machine precision in float64."""
    _, theta = flat_function(objective)
    for _ in range(steps):
        t = theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(trained_loss(objective, t), t)
        if gradient.norm() < 1e-13:
            return theta
        curve = torch.autograd.functional.hessian(lambda t: trained_loss(objective, t), theta, vectorize=True)
        theta = theta - torch.linalg.solve(curve, gradient)
    assert gradient.norm() < 1e-10
    return theta


def leave_one_out(objective, player: int) -> tuple[float, Tensor]:
    """Retrained without this example: ``f(theta) - f(theta_-i)`` and ``theta_-i - theta``."""
    params, theta = flat_function(objective)
    theta = theta.clone()
    without = trained(objective.edited(player))
    return float(objective.measurement(params(theta)) - objective.measurement(params(without))), without - theta


def ridge(x: Tensor, y: Tensor, weight_decay: float, weights: Tensor | None = None, count: int | None = None) -> Tensor:
    """``argmin (1/n) sum_i w_i (x_i theta - y_i)^2 + weight_decay/2 |theta|^2`` by the normal equations, ``[p, 1]``."""
    w = torch.ones(len(x), 1, dtype=x.dtype) if weights is None else weights[:, None]
    n = count or len(x)
    return torch.linalg.solve(
        2 * x.T @ (w * x) / n + weight_decay * torch.eye(x.size(1), dtype=x.dtype), 2 * x.T @ (w * y) / n
    )


def without_group(objective, group) -> float:
    """Retrained without these examples: ``f(theta) - f(theta_without)``."""
    params, theta = flat_function(objective)
    reduced = objective
    for player in group:
        reduced = reduced.edited(int(player))
    without = trained(reduced)
    return float(objective.measurement(params(theta)) - objective.measurement(params(without)))


def kronecker(objective, inputs, bias: str) -> tuple[Tensor, Tensor]:
    """Martens and Grosse 2015 for a linear layer, one example at a time: ``A_l [in + 1, in + 1]``, ``G_l [out, out]``.

    ``inputs(i)`` is what the layer sees of example ``i``; a change of its output is a change of its bias.
    """
    params, theta = flat_function(objective)
    named = params(theta)
    a_l, g_l = 0.0, 0.0
    for i in range(objective.size):
        at = torch.tensor([i])
        a = torch.cat([inputs(i), torch.ones(1, dtype=theta.dtype)])
        jacobian = torch.autograd.functional.jacobian(
            lambda b, at=at: objective.outputs({**named, bias: b}, at)[0], named[bias]
        )
        a_l = a_l + torch.outer(a, a) / objective.size
        g_l = g_l + jacobian.T @ _output_hessian(objective, at) @ jacobian / objective.size
    return a_l, g_l


def corrected_eigenvalues(objective, a_l: Tensor, g_l: Tensor, weight: str, bias: str) -> Tensor:
    """George et al. 2018: ``(1/n) sum_i sum_k ((U_G^T D_ik U_A)_jl)^2``, ``D_ik`` that of root ``k`` of ``H_out,i``."""
    params, theta = flat_function(objective)
    named = params(theta)
    u_a, u_g = torch.linalg.eigh(a_l)[1], torch.linalg.eigh(g_l)[1]
    total = 0.0
    for i in range(objective.size):
        at = torch.tensor([i])
        by_weight, by_bias = torch.autograd.functional.jacobian(
            lambda w, b, at=at: objective.outputs({**named, weight: w, bias: b}, at)[0], (named[weight], named[bias])
        )
        values, vectors = torch.linalg.eigh(_output_hessian(objective, at))
        for value, z in zip(values, vectors.T, strict=True):
            gradient = torch.cat([torch.einsum("k,kol->ol", z, by_weight), (z @ by_bias)[:, None]], 1)
            total = total + value * (u_g.T @ gradient @ u_a).square() / objective.size
    return total


def _output_hessian(objective, at: Tensor) -> Tensor:
    params, theta = flat_function(objective)
    outputs = objective.outputs(params(theta), at)[0]
    return torch.autograd.functional.hessian(lambda o: objective.loss(o[None], at).sum(), outputs)
