import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from explain.analysis import kl_full, kl_gaussians, vae_bound
from explain.analysis.bound import LOG_2PI


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_divergences_are_those_of_torch():
    mean, variance = drawn(2, 3, 4), drawn(2, 3, 4, seed=1).exp()
    ours = kl_gaussians(mean[0], variance[0], mean[1], variance[1])
    theirs = kl_divergence(Normal(mean[0], variance[0].sqrt()), Normal(mean[1], variance[1].sqrt())).sum(-1)
    assert torch.allclose(ours, theirs)
    a, b = (root @ root.T + torch.eye(4) for root in drawn(2, 4, 4, seed=2))
    theirs = kl_divergence(MultivariateNormal(mean[0, 0], a), MultivariateNormal(mean[1, 0], b))
    assert float(kl_full(mean[0, 0], a, mean[1, 0], b)) == pytest.approx(float(theirs))
    assert float(kl_full(mean[0, 0], a, mean[0, 0], a)) == pytest.approx(0, abs=1e-12)


class Linear:
    """``x = W z + m + s e``: ``p(x) = N(m, W W^T + s^2 I)``, and the posterior of ``z`` is known."""

    def __init__(self, latents=2, size=5, noise=0.3):
        self.W, self.m, self.s = drawn(size, latents), drawn(size, seed=1), noise
        self.M = self.W.T @ self.W + noise**2 * torch.eye(latents)
        self.posterior = noise**2 * self.M.inverse()

    def encode(self, x):
        return (x - self.m) @ self.W @ self.M.inverse(), self.posterior.diagonal().log().expand(len(x), -1)

    def log_likelihood(self, x, z):
        error = (x - z @ self.W.T - self.m).square().sum(1) / self.s**2
        return -0.5 * (error + x.size(1) * (LOG_2PI + 2 * math.log(self.s)))

    def exact(self, x):
        covariance = self.W @ self.W.T + self.s**2 * torch.eye(len(self.m))
        return MultivariateNormal(self.m, covariance).log_prob(x)


def test_of_a_linear_vae_the_gap_of_the_bound_is_the_divergence_from_the_posterior():
    vae, x = Linear(), drawn(6, 5, seed=3)
    bound = vae_bound(x, vae.encode, vae.log_likelihood, draws=1000)
    mean, _ = vae.encode(x)
    gap = kl_full(mean[0], vae.posterior.diagonal().diag(), mean[0], vae.posterior)
    assert ((vae.exact(x) - gap - bound.elbo).abs() < 5 * bound.error).all()
    assert float(bound.error.max()) < 0.2
    assert torch.allclose(bound.elbo, bound.reconstruction - bound.kl.sum(1))
    assert float(gap) > 0


def test_of_one_latent_number_the_bound_is_the_likelihood():
    vae, x = Linear(latents=1), drawn(4, 5, seed=3)
    bound = vae_bound(x, vae.encode, vae.log_likelihood, draws=1000)
    assert ((vae.exact(x) - bound.elbo).abs() < 5 * bound.error).all()


def test_a_latent_number_that_says_nothing_has_no_divergence():
    bound = vae_bound(torch.zeros(3, 1), lambda x: (torch.zeros(3, 2), torch.zeros(3, 2)), lambda x, z: z[:, 0])
    assert torch.equal(bound.kl, torch.zeros(3, 2))
    assert float(bound.elbo.abs().max()) < 1e-6  # draws come in pairs


def test_what_is_no_gaussian_is_refused():
    one = torch.ones(2)
    with pytest.raises(ValueError, match="variances must be above 0"):
        kl_gaussians(one, -one, one, one)
    with pytest.raises(ValueError, match="positive definite"):
        kl_full(one, -torch.eye(2), one, torch.eye(2))
    with pytest.raises(ValueError, match=r"two \[n, K\], got \[2, 1\] and \[2, 2\]"):
        vae_bound(one[:, None], lambda x: (x, x.expand(2, 2)), lambda x, z: z)
    with pytest.raises(ValueError, match=r"one number an example, \[n\], got \[2, 1\]"):
        vae_bound(one[:, None], lambda x: (x, x), lambda x, z: z)
