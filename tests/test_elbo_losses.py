"Likelihoods against closed forms; losses against their definitions."
import math
import pytest
import torch
from torch import nn
from ddpm_course.elbo import prior_bits, stratified_steps, vlb_terms
from ddpm_course.forward import q_sample
from ddpm_course.losses import LossSecondMomentSteps, UniformSteps, hybrid_loss, simple_loss, vlb_loss, vlb_weight
from ddpm_course.reverse import DatasetOracle, GaussianOracle, Reverse
from ddpm_course.schedules import cosine_schedule, linear_schedule

S = linear_schedule(100)
ZERO = lambda x, t: torch.zeros_like(x)


@pytest.mark.parametrize('square, bits', [(1., 2.911e-5), (1/3, 9.705e-6)])
def test_L_T_goldens(square, bits):
    x0 = torch.full((1, 10), square**0.5, dtype=torch.float64)
    assert abs(prior_bits(Reverse(linear_schedule()), x0).item() - bits) < 5e-9


@pytest.mark.parametrize('T', [100, 1000])
@pytest.mark.parametrize('variance, sigma_1, gaps', [('beta_tilde', 'beta_tilde', {100: 1.3690, 1000: 0.5786}), ('beta', 'beta_tilde', {100: 0.0226, 1000: 0.1137}), ('beta', 'beta', {100: 0., 1000: 0.})])
def test_gap_of_the_bound_for_gaussian_data(T, variance, sigma_1, gaps):
    s, x0 = linear_schedule(T), torch.randn(4000 if T == 100 else 1000, 10, dtype=torch.float64)
    terms = vlb_terms(Reverse(s, variance=variance, clip=False, sigma_1=sigma_1), GaussianOracle(s, 0., 1.), x0, decoder='density')
    exact = (0.5*math.log(2*math.pi) + 0.5*x0**2).mean(1)
    gap = terms['total']*math.log(2) - exact
    error = 4*gap.std()/len(gap)**0.5
    assert abs(gap.mean() - gaps[T]) < error + 1e-3 and error < 0.08


def test_one_point_costs_nothing_on_the_way():
    point = torch.rand(1, 1, 4, 4)*2 - 1
    terms = vlb_terms(Reverse(S), DatasetOracle(S, point), point.expand(3, -1, -1, -1))
    assert terms['L_t'].abs().max() < 1e-5 and terms['L_t'].shape == (3, 99)


def test_total_is_the_sum():
    terms = vlb_terms(Reverse(S), ZERO, torch.rand(2, 1, 4, 4)*2 - 1)
    assert torch.allclose(terms['total'], terms['L_T'] + terms['L_t'].sum(1) + terms['L_0']) and terms['total'].isfinite().all()


def test_one_step_chain_has_no_middle():
    terms = vlb_terms(Reverse(cosine_schedule(1)), ZERO, torch.rand(2, 1, 4, 4)*2 - 1)
    assert terms['L_t'].shape == (2, 0) and terms['total'].isfinite().all()


def test_strata_cover_all_steps_and_are_unbiased():
    seen = torch.zeros(101)
    for seed in range(2000):
        t, width = stratified_steps(100, 7, torch.Generator().manual_seed(seed))
        assert sum(width) == 99 and min(t) >= 2 and max(t) <= 100
        for step, w in zip(t, width): seen[step] += w
    assert (seen[2:]/2000 - 1).abs().max() < 0.4 and abs(seen.sum()/2000 - 99) < 1e-3
    with pytest.raises(ValueError, match='steps'): stratified_steps(100, 100)


def test_same_function_same_ledger_in_every_parameterisation():
    x0 = torch.randn(5, 6, dtype=torch.float64)
    totals = [vlb_terms(Reverse(S, p, clip=False), GaussianOracle(S, 0.1, 0.5, p), x0, decoder='density', generator=torch.Generator().manual_seed(0))['total'] for p in ('eps', 'x0', 'v', 'mu')]
    for other in totals[1:]: assert torch.allclose(other, totals[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize('kind, value', [('mse', 1.0), ('l1', math.sqrt(2/math.pi))])
def test_loss_of_a_network_that_says_zero(kind, value):
    x0, t = torch.randn(200, 1, 16, 16), torch.randint(1, 101, (200,))
    assert abs(simple_loss(Reverse(S), ZERO, x0, t, kind=kind).mean() - value) < 0.02


def test_weighted_error_is_the_bound():
    "L_{t-1} with an ε-network = weight·‖ε-ε_θ‖² + what depends on the variances only (which vanishes for β̃)."
    x0, noise, guess = torch.randn(3, 50, 8, dtype=torch.float64)
    t = torch.randint(2, 101, (50,))
    found = vlb_loss(Reverse(S, clip=False), lambda x, t: guess, x0, t, noise)*math.log(2)
    assert torch.allclose(found, vlb_weight(S, t, 'beta_tilde')*((noise - guess)**2).mean(1), rtol=1e-8)


class TwoHeads(nn.Module):
    def __init__(self): super().__init__(); self.a, self.b = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.tensor(0.2))
    def forward(self, x, t): return torch.cat([self.a*x, self.b*x], 1)


def test_hybrid_trains_the_mean_by_the_simple_loss_alone():
    model, reverse = TwoHeads(), Reverse(S, variance='learned_range')
    x0, noise, t = torch.randn(4, 1, 4, 4), torch.randn(4, 1, 4, 4), torch.tensor([1, 2, 50, 100])
    simple = torch.autograd.grad(simple_loss(reverse, model, x0, t, noise).mean(), model.a)[0]
    a, b = torch.autograd.grad(hybrid_loss(reverse, model, x0, t, noise).mean(), [model.a, model.b])
    assert torch.allclose(a, simple) and b.abs() > 0
    with pytest.raises(ValueError, match='learned'): hybrid_loss(Reverse(S), model, x0, t)


def test_importance_sampling_is_unbiased():
    sampler, g = LossSecondMomentSteps(20, history=3), torch.Generator().manual_seed(0)
    true = torch.linspace(0.1, 5, 20)**2
    t, w = sampler.sample(1000, g)
    assert (w == 1).all() and torch.allclose(w, UniformSteps(20).sample(1000, g)[1])
    for _ in range(3): sampler.update(torch.arange(1, 21), true)
    t, w = sampler.sample(200_000, g)
    assert abs((w*true[t - 1]).mean()/true.mean() - 1) < 0.01
    assert (w*true[t - 1]).std() < 0.2*true.std()


def test_target_of_every_prediction_is_reached_by_the_oracle():
    x0 = torch.full((10, 3), 0.4, dtype=torch.float64)
    for p in ('eps', 'x0', 'v', 'mu'):
        t = torch.randint(1, 101, (10,))
        assert simple_loss(Reverse(S, p), DatasetOracle(S, x0[:1], p), x0, t).max() < 1e-20


def test_unknown_kind_and_decoder():
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match='kind'): simple_loss(Reverse(S), ZERO, x, torch.tensor([1]), kind='l2')
    with pytest.raises(ValueError, match='decoder'): vlb_terms(Reverse(S), ZERO, x, decoder='gauss')


def test_xt_is_the_papers(): assert torch.allclose(q_sample(S, torch.ones(1, 1), 100, torch.zeros(1, 1)), S.alpha_bar[100].sqrt().float())
