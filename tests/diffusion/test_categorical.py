"""Categorical noise: closed forms against products of the matrices that define it, of tokens, nodes and edges alike."""

import pytest
import torch

from explain.diffusion.categorical import Categorical, drawn

BETAS = torch.tensor([0.1, 0.3, 0.25, 0.6, 0.9], dtype=torch.float64)
KINDS = {
    "uniform": Categorical.uniform(BETAS, 4),
    "absorbing": Categorical.absorbing(BETAS, 4, mask=2),
    "marginal": Categorical.marginal(BETAS, torch.tensor([7, 1, 2, 10])),
}
EYE = torch.eye(4, dtype=torch.float64)


@pytest.fixture(params=KINDS, ids=list(KINDS))
def process(request):
    return KINDS[request.param]


def matrices(process):
    """``Q_1 ... Q_T`` by their definition, and their running products from the identity on."""
    single = [(1 - b) * EYE + b * process.limit.expand(4, 4) for b in BETAS]
    running = [EYE]
    for one in single:
        running.append(running[-1] @ one)
    return single, running


def bayes(process, t, s):
    """``q(x_s | x_t, x_0)`` as ``[x_t, x_0, x_s]``, and ``q(x_t | x_0)`` as ``[x_t, x_0]``, by matrix products."""
    single, running = matrices(process)
    between = EYE
    for one in single[s:t]:
        between = between @ one
    joint = running[s][None] * between.T[:, None, :]  # q(x_s | x_0) q(x_t | x_s)
    total = joint.sum(-1)
    return torch.where(total[..., None] > 0, joint / total[..., None].clamp_min(1e-300), 0.0), total


def test_a_step_and_all_steps_are_products_of_matrices(process):
    single, running = matrices(process)
    for t in range(1, 6):
        torch.testing.assert_close(process.transition(t), single[t - 1])
        torch.testing.assert_close(process.transition(t, 0), running[t])
        torch.testing.assert_close(process.at(EYE, t), running[t])
    torch.testing.assert_close(
        process.at(EYE, torch.tensor([1, 3, 0, 5])), torch.stack([running[t][i] for i, t in enumerate([1, 3, 0, 5])])
    )


@pytest.mark.parametrize(("t", "s"), [(1, 0), (2, 1), (5, 4), (4, 1)])
def test_the_posterior_is_bayes_rule(process, t, s):
    expected, total = bayes(process, t, s)
    x_t, x_0 = EYE[:, None].expand(4, 4, 4), EYE[None].expand(4, 4, 4)
    torch.testing.assert_close(process.posterior(x_t, x_0, t, s), expected)
    p = torch.rand(4, 4, generator=torch.Generator().manual_seed(t), dtype=torch.float64).softmax(-1)
    possible = torch.where(total > 0, p, 0.0)
    mixture = torch.einsum("ij,ijk->ik", possible / possible.sum(1, keepdim=True), expected)
    torch.testing.assert_close(process.reverse(EYE, p, t, s), mixture)
    joint = torch.einsum("ij,ij,ijk->ik", p, total, expected)  # D3PM: p(x_0) q(x_s, x_t | x_0)
    torch.testing.assert_close(process.posterior(EYE, p, t, s), joint / joint.sum(1, keepdim=True))


@pytest.mark.parametrize("rule", ["mixture", "joint"])
def test_the_bound_of_the_true_reverse_is_the_entropy(process, rule):
    """With ``p(x_0 | x_t)`` itself the chain is undone: ``sum_t E L_t = H(x_0) + KL(q(x_T) || m)``, term by term."""
    data = torch.tensor([0.5, 0.2, 0.0 if process.limit[2] == 1 else 0.1, 0.2], dtype=torch.float64)
    data = data / data.sum()
    bound = float(data @ process.prior_divergence(EYE))
    for t in range(1, 6):
        forward = process.at(EYE, t)  # [x_0, x_t]
        joint = data[:, None] * forward
        p = (joint / joint.sum(0).clamp_min(1e-300)).T  # p(x_0 | x_t), [x_t, x_0]
        if rule == "joint":  # which asks for the likelihood that p(x_0 | x_t) already holds to be taken out again
            p = data.expand(4, 4)
        for x_0 in range(4):
            for x_t in range(4):
                if joint[x_0, x_t] > 0:
                    term = process.divergence(EYE[x_t : x_t + 1], EYE[x_0 : x_0 + 1], p[x_t : x_t + 1], t, rule)
                    bound += float(joint[x_0, x_t] * term)
    last = data @ process.at(EYE, 5)
    gap = float((torch.xlogy(last, last) - torch.xlogy(last, process.limit)).sum())
    assert bound == pytest.approx(float(-torch.xlogy(data, data).sum()) + gap, rel=1e-10)


def test_draws_follow_their_distribution_and_stay_with_their_noise(process):
    noise = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = EYE[torch.arange(20_000) % 4]
    x_t = process.noised(tokens, noise, 3)
    assert bool((x_t.sum(-1) == 1).all())
    for k in range(4):
        own = x_t[k::4].mean(0)
        torch.testing.assert_close(own, process.at(EYE[k : k + 1], 3)[0], atol=0.02, rtol=0)
    torch.testing.assert_close(process.absent(noise).mean(0), process.limit, atol=0.02, rtol=0)
    kept = drawn(tokens.softmax(-1), noise)
    assert torch.equal(kept[5:], drawn(tokens[5:].softmax(-1), noise[5:]))


def test_sequences_of_tokens_with_a_step_each(process):
    tokens = EYE[torch.tensor([[0, 1, 3], [2, 2, 0]])].float()  # [batch, length, K]
    t = torch.tensor([2, 5])
    found = process.posterior(tokens.roll(1, 1), tokens, t)
    for row in range(2):
        torch.testing.assert_close(found[row], process.posterior(tokens[row].roll(1, 0), tokens[row], int(t[row])))
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical(torch.tensor([0.5, 0.6]), torch.ones(2) / 2), "kept must fall"),
        (lambda: Categorical(torch.tensor([0.5]), torch.ones(2)), "a distribution over the classes"),
        (lambda: Categorical.marginal(BETAS, torch.zeros(3)), "counts or shares"),
        (lambda: Categorical.uniform(BETAS + 1, 3), "betas must be from 0 to 1"),
        (lambda: KINDS["uniform"].checked_step(0), "from 1 to 5, got 0"),
        (lambda: KINDS["uniform"].divergence(EYE, EYE, EYE, 1, rule="digress"), "rule must be one of mixture, joint"),
    ],
)
def test_what_is_no_process_is_told_so(make, message):
    with pytest.raises(ValueError, match=message):
        make()
