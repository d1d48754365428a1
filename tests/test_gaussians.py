"Gaussians against torch.distributions, SciPy and brute force."
import math
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from ddpm_course import gaussians as g


def random_cov(d, seed=0):
    a = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT + 0.1*torch.eye(d, dtype=torch.float64)


def test_normal_log_prob():
    x, m, lv = torch.randn(3, 100, dtype=torch.float64)
    assert torch.allclose(g.normal_log_prob(x, m, lv), Normal(m, (0.5*lv).exp()).log_prob(x), atol=1e-12, rtol=0)


def test_normal_kl():
    m1, v1, m2, v2 = torch.randn(4, 1000, dtype=torch.float64)
    expected = kl_divergence(Normal(m1, (0.5*v1).exp()), Normal(m2, (0.5*v2).exp()))
    assert torch.allclose(g.normal_kl(m1, v1, m2, v2), expected, rtol=1e-10, atol=1e-12)


def test_normal_kl_of_nearly_equal_gaussians_keeps_its_digits():
    v = torch.tensor(1e-6)
    found = g.normal_kl(torch.zeros(1), v, torch.zeros(1), torch.zeros(1)).double()
    assert abs(found - 1e-12/4) < 1e-13


def test_multivariate_log_prob():
    cov, mean, x = random_cov(5), torch.randn(5).double(), torch.randn(7, 5).double()
    assert torch.allclose(g.multivariate_log_prob(x, mean, cov), MultivariateNormal(mean, cov).log_prob(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize('cov, word', [(torch.ones(2, 3), 'square'), (torch.tensor([[1., 2.], [0., 1.]]), 'symmetric'), (torch.tensor([[1., 2.], [2., 1.]]), 'positive')])
def test_bad_covariance(cov, word):
    with pytest.raises(ValueError, match=word): g.multivariate_log_prob(torch.zeros(2), torch.zeros(2), cov)


def test_affine_against_simulation():
    cov, A, b = random_cov(3), torch.randn(2, 3).double(), torch.randn(2).double()
    x = MultivariateNormal(torch.ones(3).double(), cov).sample((400_000,))
    mean, c = g.affine(torch.ones(3).double(), cov, A, b)
    y = x @ A.mT + b
    assert (y.mean(0) - mean).abs().max() < 0.03 and (torch.cov(y.mT) - c).abs().max() < 0.15


def test_product_and_bayes_on_a_grid():
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    def moments(log_density):
        p = torch.softmax(log_density, 0)
        mean = (p*x).sum()
        return mean, (p*(x - mean)**2).sum()
    log = lambda v, m, var: g.normal_log_prob(v, torch.tensor(m).double(), torch.tensor(var).double().log())
    for found, density in [(g.product(*torch.tensor([1., 2., -3., 0.5]).double()), log(x, 1., 2.) + log(x, -3., 0.5)),
                           (g.bayes(*torch.tensor([1., 2., 0.7, 0.4, 0.3]).double()), log(x, 1., 2.) - 0.5*(0.7 - 0.4*x)**2/0.3)]:
        mean, variance = moments(density)
        assert abs(found[0] - mean) < 1e-6 and abs(found[1] - variance) < 1e-6


def test_condition_against_the_precision_matrix():
    cov, mean, values = random_cov(5), torch.randn(5).double(), torch.randn(2).double()
    seen, rest = torch.tensor([3, 1]), torch.tensor([0, 2, 4])
    m, c = g.condition(mean, cov, seen, values)
    precision = torch.linalg.inv(cov)
    block = torch.linalg.inv(precision[rest][:, rest])
    expected = mean[rest] - block @ precision[rest][:, seen] @ (values - mean[seen])
    assert torch.allclose(c, block, atol=1e-9) and torch.allclose(m, expected, atol=1e-9)


@pytest.mark.parametrize('levels', [2, 17, 256])
@pytest.mark.parametrize('mean, log_variance', [(0., 0.), (0.3, -6.), (-5., 1.), (1., -14.), (40., -3.)])
def test_grey_levels_share_all_probability(levels, mean, log_variance):
    x = torch.linspace(-1, 1, levels, dtype=torch.float64)
    p = g.discretized_log_prob(x, torch.tensor(mean).double(), torch.tensor(log_variance).double(), levels).exp()
    assert abs(p.sum() - 1) < 1e-9


def test_grey_levels_against_scipy():
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)
    n, half = scipy.stats.norm(0.1, 0.05), 1/255
    expected = n.cdf(x.numpy() + half) - n.cdf(x.numpy() - half)
    found = g.discretized_log_prob(x, torch.tensor(0.1, dtype=torch.float64), torch.tensor(2*math.log(0.05), dtype=torch.float64)).exp()
    assert np.abs(found.numpy()[1:-1] - expected[1:-1]).max() < 1e-12


def test_far_tail_and_gradients_are_finite():
    x = torch.tensor([-1., -0.5, 0., 1.])
    for offset in (0., 3., 1000.):
        mean = torch.full((4,), offset, requires_grad=True)
        log_variance = torch.full((4,), -9., requires_grad=True)
        log_p = g.discretized_log_prob(x, mean, log_variance)
        log_p.sum().backward()
        assert log_p.isfinite().all() and mean.grad.isfinite().all() and log_variance.grad.isfinite().all()


def test_levels_are_checked():
    with pytest.raises(ValueError, match='levels'): g.discretized_log_prob(torch.zeros(1), torch.zeros(1), torch.zeros(1), 1)


def test_frechet_distance_against_scipy():
    m1, m2, c1, c2 = torch.randn(6).double(), torch.randn(6).double(), random_cov(6, 1), random_cov(6, 2)
    expected = float(((m1 - m2)**2).sum()) + np.trace(c1 + c2 - 2*scipy.linalg.sqrtm((c1 @ c2).numpy()).real)
    assert abs(g.frechet_distance(m1, c1, m2, c2) - expected) < 1e-9
    assert abs(g.frechet_distance(m1, c1, m1, c1)) < 1e-9
