"Losses against numbers worked out by hand, against the bound and against one another; the drawing of t against its definition."
import math
import pytest
import torch
from exact import MAKERS, as_prediction, model_variance, pixels, seed, tables, term
from torch import nn
from ddpm_course.elbo import gaussian_terms, vlb_term
from ddpm_course.losses import (WEIGHTINGS, LossSecondMomentSteps, UniformSteps, error_scale, hybrid_loss, loss_weight, prediction_error, remember_losses,
                                second_moment_probabilities, simple_loss, target, vlb_loss, vlb_weight)
from ddpm_course.reverse import PREDICTIONS, DatasetOracle, GaussianOracle, Reverse, WithVariance
from ddpm_course.schedules import linear_schedule

S = linear_schedule(100)
ALL = torch.arange(1, 101)


def zero(x, t): return torch.zeros_like(x)


def batch(n=100, *shape):
    "x_0, ε and the x_t that they make, for t = 1 … n."
    x0, noise = torch.rand(n, *shape, dtype=torch.float64)*2 - 1, torch.randn(n, *shape, dtype=torch.float64)
    _, _, a = tables(S, torch.arange(1, n + 1), x0)
    return x0, noise, a.sqrt()*x0 + (1 - a).sqrt()*noise


def saying(guess, predict='eps'):
    "A model that means `guess` by x_0."
    return lambda x, t: as_prediction(S, guess, x, t, predict)


# L_simple

@pytest.mark.parametrize('kind, value', [('mse', 1.0), ('l1', math.sqrt(2/math.pi)), ('huber', 0.5*0.198748 + 2*(0.241971 - 0.5*0.158655))])
def test_loss_of_a_network_that_says_zero(kind, value):
    "E ε², E|ε|, and for Huber E[ε²/2 within 1, |ε| - 1/2 beyond], all for ε ~ N(0, 1)."
    x0, t = torch.randn(200, 1, 16, 16), torch.randint(1, 101, (200,))
    assert abs(simple_loss(Reverse(S), zero, x0, t, kind=kind).mean() - value) < 0.02


@pytest.mark.parametrize('kind, expected', [('mse', [(0.25 + 4)/2, 0.]), ('l1', [1.25, 0.]), ('huber', [(0.125 + 1.5)/2, 0.])])
def test_each_kind_of_error_by_hand(kind, expected):
    found = prediction_error(torch.tensor([[1.5, -1.], [3., 3.]]), torch.tensor([[1., 1.], [3., 3.]]), kind)
    assert torch.allclose(found, torch.tensor(expected)) and (kind != 'mse' or torch.equal(found, prediction_error(torch.tensor([[1.5, -1.], [3., 3.]]), torch.tensor([[1., 1.], [3., 3.]]))))
    x0, noise = torch.zeros(2, 2), torch.tensor([[1., 1.], [3., 3.]])
    assert torch.allclose(simple_loss(Reverse(S), lambda x, t: torch.tensor([[1.5, -1.], [3., 3.]]), x0, torch.tensor([3, 100]), noise, kind), torch.tensor(expected))


@pytest.mark.parametrize('predict', PREDICTIONS)
def test_the_target_by_definition(predict):
    x0, noise, xt = batch(100, 2, 3)
    assert torch.allclose(target(Reverse(S, predict), x0, xt, ALL, noise), as_prediction(S, x0, xt, ALL, predict), atol=1e-10)
    seen = []
    simple_loss(Reverse(S, predict), lambda x, t: seen.append((x, t)) or x, x0, ALL, noise)
    assert torch.allclose(seen[0][0], xt, atol=1e-12) and torch.equal(seen[0][1], ALL)


@pytest.mark.parametrize('predict', PREDICTIONS)
def test_an_oracle_loses_nothing(predict):
    x0 = torch.full((100, 3), 0.4, dtype=torch.float64)
    assert simple_loss(Reverse(S, predict), DatasetOracle(S, x0[:1], predict), x0, ALL).max() < 1e-20


def test_the_noise_is_drawn_when_none_is_given():
    x0, t, model = pixels(3, 2), torch.tensor([1, 50, 100]), lambda x, t: torch.cat([x, x], 1)
    for loss in (lambda n: simple_loss(Reverse(S), zero, x0, t, n), lambda n: vlb_loss(Reverse(S), zero, x0, t, n), lambda n: hybrid_loss(Reverse(S, variance='learned_range'), model, x0, t, n)):
        torch.manual_seed(3); a = loss(None)
        torch.manual_seed(3); b = loss(torch.randn_like(x0))
        assert torch.equal(a, b) and not torch.equal(a, loss(None)) and a.shape == (3,)
        with pytest.raises(ValueError, match='noise must have the shape'): loss(torch.zeros(3, 3))


def test_unknown_choices_list_the_known():
    x, t = torch.zeros(1, 1, 2, 2), torch.tensor([1])
    with pytest.raises(ValueError, match='kind must be one of mse, l1, huber'): simple_loss(Reverse(S), zero, x, t, kind='l2')
    with pytest.raises(ValueError, match='decoder'): vlb_loss(Reverse(S), zero, x, t, decoder='gauss')
    with pytest.raises(ValueError, match='predict must be one of eps, x0, v, mu'): error_scale(S, t, 'score')
    with pytest.raises(ValueError, match='predict must'): loss_weight(S, t, 'score', 'snr')
    with pytest.raises(ValueError, match='weighting must be one of none, snr, min_snr, truncated_snr'): loss_weight(S, t, 'eps', 'p2')
    for loss in (simple_loss, vlb_loss):
        with pytest.raises(ValueError, match=r'1\.\.100'): loss(Reverse(S), zero, x, torch.tensor([0]))


# Weights

def test_error_scale_by_definition():
    "One guess, four ways to say it: how much more each way is wrong than x̂_0 is."
    x0, noise, _ = batch(100, 5)
    guess = x0 + torch.randn(100, 5, dtype=torch.float64)
    wrong = ((guess - x0)**2).mean(1)
    for predict in PREDICTIONS:
        ratio = simple_loss(Reverse(S, predict), saying(guess, predict), x0, ALL, noise)/wrong
        assert torch.allclose(error_scale(S, ALL, predict), ratio, rtol=1e-7) and error_scale(S, ALL, predict).dtype == torch.float64


@pytest.mark.parametrize('weighting', WEIGHTINGS[1:])
def test_weighted_losses_agree_in_every_parameterisation(weighting):
    x0, noise, _ = batch(100, 5)
    guess = x0 + torch.randn(100, 5, dtype=torch.float64)
    a = (1 - S.beta).cumprod(0)[1:]
    snr = a/(1 - a)
    wanted = {'snr': snr, 'min_snr': torch.minimum(snr, torch.tensor(5.)), 'truncated_snr': torch.maximum(snr, torch.tensor(1.))}[weighting]*((guess - x0)**2).mean(1)
    assert (snr > 5).any() and (snr < 1).any()
    for predict in PREDICTIONS:
        loss = simple_loss(Reverse(S, predict), saying(guess, predict), x0, ALL, noise)
        assert torch.allclose(loss*loss_weight(S, ALL, predict, weighting), wanted, rtol=1e-6)
        assert torch.equal(loss_weight(S, ALL, predict), torch.ones(100).double())


def test_published_weights():
    "Hang et al.: min(SNR, γ)/SNR for ε, /(SNR + 1) for v. Salimans and Ho: max(SNR, 1) for x_0; SNR + 1 is v's own; SNR is that of L_simple on ε."
    t = torch.tensor([1, 20, 60, 100])
    a = (1 - S.beta).cumprod(0)[t]
    snr = a/(1 - a)
    for gamma in (5., 1.):
        capped = torch.tensor([min(v, gamma) for v in snr.tolist()]).double()
        assert torch.allclose(loss_weight(S, t, 'eps', 'min_snr', gamma), capped/snr) and torch.allclose(loss_weight(S, t, 'v', 'min_snr', gamma), capped/(snr + 1))
    assert torch.allclose(loss_weight(S, t, 'eps', 'min_snr'), loss_weight(S, t, 'eps', 'min_snr', 5.))
    assert torch.allclose(loss_weight(S, t, 'x0', 'truncated_snr'), torch.tensor([max(v, 1.) for v in snr.tolist()]).double())
    assert torch.allclose(loss_weight(S, t, 'eps', 'snr'), torch.ones(4).double()) and torch.allclose(error_scale(S, t, 'v'), snr + 1)


@pytest.mark.parametrize('variance', ['beta', 'beta_tilde'])
def test_weighted_error_is_the_bound(variance):
    "L_{t-1} of an ε-network = weight·‖ε - ε_θ‖² + KL between the two variances (zero for β̃)."
    t = torch.arange(2, 101)
    x0, noise, guess = torch.randn(3, 99, 8, dtype=torch.float64)
    beta, before, now = tables(S, t, x0)
    r = ((1 - before)/(1 - now)).flatten() if variance == 'beta' else torch.ones(99).double()
    found = vlb_loss(Reverse(S, variance=variance), lambda x, t: guess, x0, t, noise)*math.log(2)
    assert torch.allclose(found, vlb_weight(S, t, variance)*((noise - guess)**2).mean(1) + 0.5*(r - 1 - r.log()), rtol=1e-8)


# L_vlb

@pytest.mark.parametrize('predict', PREDICTIONS)
@pytest.mark.parametrize('decoder, levels', [('discrete', 17), ('density', None)])
def test_one_term_of_the_bound_for_each_row(predict, decoder, levels):
    "Every t at once, and whether the reverse process clips does not matter."
    x0 = pixels(100, 4)
    noise = torch.randn(100, 4, dtype=torch.float64)
    _, _, a = tables(S, ALL, x0)
    xt = a.sqrt()*x0 + (1 - a).sqrt()*noise
    guess = x0 + 0.3*(1 - a).sqrt()*torch.randn(100, 4, dtype=torch.float64)
    expected = term(S, x0, xt, ALL, guess, model_variance(S, xt, ALL, 'beta_tilde'), levels)
    for clip in (True, False):
        found = vlb_loss(Reverse(S, predict, clip=clip), saying(guess, predict), x0, ALL, noise, levels or 256, decoder)
        assert ((found - expected).abs()/expected.clamp(min=1)).max() < 1e-6


def test_the_weight_of_eq_12():
    "β²/(2σ²α(1-ᾱ)); σ² = β unless told otherwise."
    t = torch.arange(2, 101)
    beta, _, now = (v.flatten() for v in tables(S, t, torch.zeros(99, 1).double()))
    assert torch.allclose(vlb_weight(S, t), beta/(2*(1 - beta)*(1 - now)), rtol=1e-10) and torch.equal(vlb_weight(S, t), vlb_weight(S, t, 'beta'))


def test_default_levels_are_those_of_eight_bits():
    x0, t, noise = pixels(1, 4, levels=256), torch.tensor([1]), torch.zeros(1, 4).double()
    close = lambda x, t: as_prediction(S, x0, x, t, 'eps')
    assert torch.equal(vlb_loss(Reverse(S), close, x0, t, noise), vlb_loss(Reverse(S), close, x0, t, noise, 256, 'discrete'))
    learned, model = Reverse(S, variance='learned'), lambda x, t: torch.cat([close(x, t), x - 4], 1)
    assert torch.equal(hybrid_loss(learned, model, x0, t, noise), hybrid_loss(learned, model, x0, t, noise, 256, 0.001, 'mse', 'discrete'))


@pytest.mark.parametrize('variance', ['beta', 'learned'])
def test_uniform_t_estimates_the_bound(variance):
    "T times the mean over random t and ε, against the closed form for Gaussian data."
    s, lam, n = MAKERS['cosine'](15), torch.tensor([0.3, 1.5]).double(), 200_000
    reverse, oracle = Reverse(s, variance=variance, clip=True), GaussianOracle(s, 0., lam.diag())
    x0 = lam.sqrt()*torch.randn(n, 2, generator=seed(), dtype=torch.float64)
    t, weight = UniformSteps(15).sample(n, seed(1))
    found = 15*weight*vlb_loss(reverse, WithVariance(oracle, reverse) if variance == 'learned' else oracle, x0, t, torch.randn(n, 2, generator=seed(2), dtype=torch.float64), decoder='density')
    exact = gaussian_terms(reverse.unclipped(), lam)
    assert abs(found.mean() - (exact['total'] - exact['L_T'])) < 4*found.std()/n**0.5 < 0.1


class TwoHeads(nn.Module):
    def __init__(self, a=0.1, b=0.2): super().__init__(); self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))
    def forward(self, x, t): return torch.cat([self.a*x, self.b*x], 1)


@pytest.mark.parametrize('variance', ['beta_tilde', 'learned_range'])
@pytest.mark.parametrize('predict', PREDICTIONS)
def test_no_gradient_is_lost_where_the_picture_would_be_clipped(variance, predict):
    x0, t = torch.full((3, 1), 0.9), torch.tensor([1, 30, 100])
    for clip in (True, False):
        reverse = Reverse(S, predict, variance, clip)
        out = lambda p: lambda x, t: torch.cat([as_prediction(S, p.expand_as(x), x, t, predict), 0*x], 1)[:, :reverse.parts]
        p = torch.full((3, 1), 3., requires_grad=True)
        gradient, = torch.autograd.grad(vlb_loss(reverse, out(p), x0, t, torch.zeros(3, 1)).sum(), p)
        assert (gradient > 0).all()
    xt = torch.zeros(3, 1)
    assert (torch.autograd.grad(vlb_term(Reverse(S, 'x0'), q := torch.full((3, 1), 3., requires_grad=True), x0, xt, t).sum(), q)[0] == 0).all(), 'as clipping would'


@pytest.mark.parametrize('variance', ['beta', 'beta_tilde', 'learned', 'learned_range'])
@pytest.mark.parametrize('x', [-1., 1.])
def test_gradients_of_the_losses_are_finite_at_both_ends(variance, x):
    x0, t, noise = torch.full((100, 1, 2, 2), x), ALL, torch.randn(100, 1, 2, 2)
    for a in (-30., 0., 1., 30.):
        for b in (-4., 0., 4.):
            reverse, model = Reverse(S, variance=variance), TwoHeads(a, b)
            net = model if reverse.parts == 2 else lambda x, t: model(x, t)[:, :1]
            losses = [vlb_loss(reverse, net, x0, t, noise)] + ([hybrid_loss(reverse, net, x0, t, noise)] if reverse.parts == 2 else [])
            for loss in losses:
                loss.sum().backward()
                assert loss.isfinite().all() and all(p.grad is None or p.grad.isfinite() for p in model.parameters())


# L_hybrid

@pytest.mark.parametrize('variance', ['learned', 'learned_range'])
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('kind', ['mse', 'l1'])
def test_hybrid_trains_the_mean_by_the_simple_loss_alone(variance, clip, kind):
    model, reverse = TwoHeads(), Reverse(S, variance=variance, clip=clip)
    x0, noise, t = torch.randn(4, 1, 4, 4), torch.randn(4, 1, 4, 4), torch.tensor([1, 2, 50, 100])
    simple = torch.autograd.grad(simple_loss(reverse, model, x0, t, noise, kind).mean(), model.a)[0]
    bound = torch.autograd.grad(vlb_loss(reverse, model, x0, t, noise).mean(), model.b)[0]
    a, b = torch.autograd.grad(hybrid_loss(reverse, model, x0, t, noise, kind=kind).mean(), [model.a, model.b])
    assert torch.allclose(a, simple) and torch.allclose(b, 0.001*100*bound) and b.abs() > 0


def test_the_value_of_hybrid():
    model, reverse, x0, noise = TwoHeads(), Reverse(S, 'v', 'learned_range'), pixels(4, 1, 4, 4), torch.randn(4, 1, 4, 4).double()
    t = torch.tensor([1, 2, 50, 100])
    for how in ({}, dict(levels=17), dict(decoder='density')):
        simple, bound = simple_loss(reverse, model, x0, t, noise), vlb_loss(reverse, model, x0, t, noise, **how)
        for weight in (0.001, 0.5): assert torch.allclose(hybrid_loss(reverse, model, x0, t, noise, weight=weight, **how), simple + weight*100*bound)
    assert torch.allclose(hybrid_loss(reverse, model, x0, t, noise), hybrid_loss(reverse, model, x0, t, noise, weight=0.001))


def test_hybrid_needs_a_learned_variance():
    with pytest.raises(ValueError, match="learned.*'beta'"): hybrid_loss(Reverse(S, variance='beta'), TwoHeads(), torch.zeros(1, 1, 2, 2), torch.tensor([1]))


def test_each_loss_asks_the_network_once():
    calls, model = [], TwoHeads()
    spy = lambda x, t: calls.append(1) or model(x, t)
    for loss in (simple_loss, vlb_loss, hybrid_loss): loss(Reverse(S, variance='learned_range'), spy, torch.zeros(2, 1, 2, 2), torch.tensor([1, 2]))
    assert len(calls) == 3


@pytest.mark.parametrize('loss', [simple_loss, vlb_loss, hybrid_loss])
def test_autocast_does_not_touch_losses(loss):
    model, x0, noise, t = TwoHeads(), pixels(4, 1, 4, 4).float(), torch.randn(4, 1, 4, 4), torch.tensor([1, 2, 50, 100])
    plain = loss(Reverse(S, variance='learned_range'), model, x0, t, noise)
    with torch.autocast('cpu', torch.bfloat16): assert torch.equal(loss(Reverse(S, variance='learned_range'), model, x0, t, noise), plain)
    rounded, wide = (loss(Reverse(S, variance='learned_range'), f, x0, t, noise) for f in (lambda x, t: model(x, t).bfloat16(), lambda x, t: model(x, t).bfloat16().float()))
    assert torch.equal(rounded, wide) and rounded.dtype == torch.float32


# Which t to draw

def filled(T=20, history=3, f=lambda t: (0.1 + t/4)**2):
    sampler = LossSecondMomentSteps(T, history)
    for _ in range(history): sampler.update(torch.arange(1, T + 1), f(torch.arange(1., T + 1)))
    return sampler


def test_uniform_steps():
    t, w = UniformSteps(7).sample(70_000, seed())
    assert ((t.bincount()[1:]/10_000 - 1).abs() < 0.05).all() and t.min() == 1 and t.max() == 7 and t.dtype == torch.int64
    assert (w == 1).all() and w.dtype == torch.float32 and w.shape == t.shape
    assert UniformSteps(7).update(t, w) is None and UniformSteps(7).state_dict() == {}
    assert torch.equal(*(UniformSteps(7).sample(5, seed(3))[0] for _ in '12'))


@pytest.mark.parametrize('losses', [[[1., 1.], [3., 4.], [0., 0.]], [[1e-3, 2e-3], [5e6, 0.], [1., 1.]]])
@pytest.mark.parametrize('share', [0.001, 0.3, 0.])
def test_probabilities_follow_the_second_moment(losses, share):
    "Eq. 18, and a share for all."
    root = [math.sqrt((a*a + b*b)/2) for a, b in losses]
    expected = torch.tensor([(1 - share)*r/sum(root) + share/3 for r in root]).double()
    found = second_moment_probabilities(torch.tensor(losses), share)
    assert torch.allclose(found, expected, rtol=1e-6) and found.dtype == torch.float64 and abs(found.sum() - 1) < 1e-12 and found.min() >= share/3*(1 - 1e-12)
    sampler = LossSecondMomentSteps(3, 2, share)
    for column in torch.tensor(losses).T: sampler.update(torch.tensor([1, 2, 3]), column)
    assert torch.allclose(sampler.probabilities(), expected, rtol=1e-6)


def test_the_papers_settings():
    sampler = LossSecondMomentSteps(50)
    assert sampler.losses.shape == (50, 10) and torch.allclose(second_moment_probabilities(torch.tensor([[0.], [1.]])), torch.tensor([0.0005, 0.9995]).double())
    for i in range(10):
        assert torch.equal(sampler.probabilities(), torch.full((50,), 0.02, dtype=torch.float64))
        sampler.update(torch.arange(1, 51), torch.arange(50.))
    assert sampler.probabilities()[0] == pytest.approx(0.001/50) and sampler.probabilities().argmax() == 49


def test_uniform_until_the_last_history_is_full():
    sampler = LossSecondMomentSteps(4, 2)
    for t in [1, 1, 1, 2, 2, 3, 3, 4]:
        sampler.update(torch.tensor([t]), torch.tensor([float(t)]))
        assert torch.equal(sampler.probabilities(), torch.full((4,), 0.25).double()) and (sampler.sample(8)[1] == 1).all()
    sampler.update(torch.tensor([4]), torch.tensor([4.]))
    assert torch.allclose(sampler.probabilities(), 0.999*torch.arange(1., 5).double()/10 + 0.00025)


def test_the_oldest_loss_is_forgotten_first():
    sampler, seen = LossSecondMomentSteps(2, 3), {1: [], 2: []}
    for i, t in enumerate(torch.randint(1, 3, (40,), generator=seed()).tolist()):
        sampler.update(torch.tensor([t]), torch.tensor([float(i)]))
        seen[t].append(float(i))
        for step, kept in seen.items(): assert sorted(sampler.losses[step - 1].tolist()) == sorted(([0., 0., 0.] + kept)[-3:])
    sampler.update(torch.tensor([1, 1, 1, 1]), torch.tensor([100., 101., 102., 103.]))
    assert sorted(sampler.losses[0].tolist()) == [101, 102, 103]


def test_a_loss_that_is_no_number_is_left_out():
    sampler, other = filled(), filled()
    for bad in (math.nan, math.inf, -math.inf): sampler.update(torch.tensor([3, 5]), torch.tensor([bad, 2.]))
    for _ in range(3): other.update(torch.tensor([5]), torch.tensor([2.]))
    assert torch.equal(sampler.losses, other.losses) and torch.equal(sampler.counts, other.counts) and sampler.sample(100)[0].max() <= 20


def test_memory_keeps_no_graph():
    sampler, loss = LossSecondMomentSteps(3, 1), torch.ones(3, requires_grad=True, dtype=torch.float64)
    remember_losses(sampler, torch.tensor([1, 2, 3]), loss*2)
    assert not sampler.losses.requires_grad and sampler.losses.flatten().tolist() == [2, 2, 2]


def test_steps_are_drawn_with_their_probability():
    sampler, n = filled(), 400_000
    p = sampler.probabilities()
    t, w = sampler.sample(n, seed())
    share = t.bincount(minlength=21)[1:]/n
    assert ((share - p).abs() < 5*(p/n).sqrt()).all() and t.min() == 1 and t.dtype == torch.int64 and w.dtype == torch.float32
    assert torch.allclose(w, (1/(20*p[t - 1])).float()) and p.min() >= 0.001/20 and abs(p.sum() - 1) < 1e-12


def test_importance_sampling_is_unbiased():
    "Weighted and uniform estimates of a mean agree; the weighted one is the quieter the better the memory."
    sampler, true = filled(), (0.1 + torch.arange(1., 21)/4)**2
    g, n = seed(), 200_000
    noisy = lambda t: true[t - 1]*(1 + 0.3*torch.randn(n, generator=g))
    (t, w), (u, one) = sampler.sample(n, g), UniformSteps(20).sample(n, g)
    weighted, uniform = w*noisy(t), one*noisy(u)
    assert abs(weighted.mean() - uniform.mean()) < 4*((weighted.var() + uniform.var())/n).sqrt()
    assert abs(weighted.mean() - true.mean()) < 4*weighted.std()/n**0.5 and weighted.std() < 0.5*uniform.std()


def test_the_gradient_is_unbiased_too():
    model, reverse, n = TwoHeads(), Reverse(S, variance='learned_range'), 40_000
    sampler = LossSecondMomentSteps(100, 2)
    x0 = pixels(n, 1, g=seed(4)).float()
    with torch.no_grad():
        for _ in range(2): sampler.update(ALL, vlb_loss(reverse, model, x0[:100], ALL))
    estimates = []
    for s in (sampler, UniformSteps(100)):
        t, w = s.sample(n, seed(5))
        b = torch.full((n, 1), 0.2, requires_grad=True)
        loss = vlb_loss(reverse, lambda x, t: torch.cat([0.1*x, b*x], 1), x0, t, torch.randn(n, 1, generator=seed(6)))
        estimates.append(torch.autograd.grad((w*loss).sum(), b)[0])
    a, b = estimates
    assert abs(a.mean() - b.mean()) < 4*((a.var() + b.var())/n).sqrt() and a.mean().abs() > 4*a.std()/n**0.5


def test_the_memory_is_saved_and_restored():
    sampler, other = filled(), LossSecondMomentSteps(20, 3)
    for t in (3, 3, 7): sampler.update(torch.tensor([t]), torch.tensor([9.]))
    state = sampler.state_dict()
    before = {k: v.clone() for k, v in state.items()}
    other.load_state_dict(state)
    for s in (sampler, other): s.update(torch.tensor([7, 3]), torch.tensor([1., 50.]))
    assert all(torch.equal(state[k], before[k]) for k in state), 'a copy, not the memory itself'
    assert torch.equal(sampler.losses, other.losses) and torch.equal(sampler.counts, other.counts)
    assert all(torch.equal(a, b) for a, b in zip(sampler.sample(50, seed(1)), other.sample(50, seed(1))))
    assert not torch.equal(sampler.sample(50, seed(1))[0], filled().sample(50, seed(1))[0])


def test_a_generator_is_all_the_randomness_there_is():
    before = torch.get_rng_state()
    for s in (filled(), UniformSteps(20)): assert torch.equal(s.sample(30, seed(2))[0], s.sample(30, seed(2))[0])
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(UniformSteps(20).sample(30)[0], UniformSteps(20).sample(30)[0])


def test_steps_are_handed_over_where_they_are_needed():
    "Drawn on the CPU, whatever the device, so that a run draws the same everywhere."
    for sampler in (filled(), UniformSteps(20)):
        assert {v.device.type for v in sampler.sample(3, seed(), 'meta')} == {'meta'} and {v.device.type for v in sampler.sample(3, seed())} == {'cpu'}
