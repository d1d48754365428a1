"The ledger, term by term, against closed forms, torch.distributions, brute force and simulation."
import math
import sys
import pytest
import torch
from exact import MAKERS, as_prediction, column, model_variance, pixels, schedules, seed, tables, term
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from ddpm_course.elbo import (RunningMean, bits_per_dim, gaussian_terms, mean_and_error, prior_bits, rate_distortion, strata_widths, stratified_steps,
                              summary, vlb_rows, vlb_term, vlb_terms)
from ddpm_course.forward import q_sample
from ddpm_course.reverse import PREDICTIONS, VARIANCES, DatasetOracle, GaussianOracle, Reverse, WithVariance
from ddpm_course.schedules import NoiseSchedule, cosine_schedule, linear_schedule

S = cosine_schedule(20)
ERRORS = ['L_t_error', 'L_0_error', 'total_error']


def zero(x, t): return torch.zeros_like(x)


def x0_hat(x, t): return 0.9*torch.tanh(1.5*x) + column(0.05*torch.sin(t/7), x)  # a network that nobody has trained


def network(schedule, predict='eps', variance=None, guess=x0_hat):
    "What x0_hat (or guess) looks like in this parameterisation; `variance`, where it is learned, is a function of x and t too."
    def model(x, t):
        prediction = as_prediction(schedule, guess(x, t), x, t, predict)
        return prediction if variance is None else torch.cat([prediction, variance(x, t)], 1)
    return model


class Spy:
    "A model that remembers what it was asked."
    def __init__(self, model): self.model, self.x, self.t, self.grad = model, [], [], False
    def __call__(self, x, t):
        self.x.append(x.clone()); self.t.append(t.clone()); self.grad |= torch.is_grad_enabled()
        return self.model(x, t)


def close(a, b, within): return (a - b).abs().max() <= within if a.numel() else a.shape == b.shape


def same(a, b, within): return a.keys() == b.keys() and all(a[k].isnan().all() and b[k].isnan().all() or close(a[k], b[k], within) for k in a)


# The ledger

@pytest.mark.parametrize('shape', [(1, 1, 8, 8), (3, 3, 4, 6), (5, 2), (1, 7), (30, 1)])
@pytest.mark.parametrize('how', [{}, dict(steps=4), dict(steps=19, draws=2), dict(rows=1, steps=1)], ids=str)
def test_shapes(shape, how):
    terms, B = vlb_terms(Reverse(S), zero, torch.rand(shape)*2 - 1, **how), shape[0]
    assert {k: tuple(v.shape) for k, v in terms.items()} == {'L_T': (B,), 'L_t': (B, 19), 'L_0': (B,), 'total': (B,), 'L_t_error': (B, 19), 'L_0_error': (B,), 'total_error': (B,), 'x0_mse': (B, 20)}
    assert {v.dtype for v in terms.values()} == {torch.float32} and all(v.isfinite().all() for k, v in terms.items() if k not in ERRORS)


@pytest.mark.parametrize('shape', [(3, 1, 4, 4), (2, 3, 2, 3), (4, 2)])
@pytest.mark.parametrize('decoder, levels', [('discrete', 17), ('discrete', 256), ('density', None)])
@pytest.mark.parametrize('clip', [True, False])
def test_the_whole_ledger_by_brute_force(shape, decoder, levels, clip):
    "Every number from what the model was shown."
    x0, model = pixels(*shape, levels=levels or 17), Spy(network(S))
    terms = vlb_terms(Reverse(S, clip=clip), model, x0, levels=levels or 256, decoder=decoder, rows=7)
    x, t, i = torch.cat(model.x), torch.cat(model.t), torch.arange(20*len(x0)) % len(x0)
    guess = x0_hat(x, t).clamp(-1, 1) if clip else x0_hat(x, t)
    costs = term(S, x0[i], x, t, guess, model_variance(S, x, t, 'beta_tilde'), levels)
    for b in range(len(x0)):
        assert t[i == b].tolist() == list(range(1, 21))
        assert close(terms['L_0'][b], costs[i == b][0], 1e-9) and close(terms['L_t'][b], costs[i == b][1:], 1e-9)
        a = tables(S, torch.tensor([20]), x0)[2].item()
        prior = kl_divergence(Normal(a**0.5*x0[b], (1 - a)**0.5), Normal(torch.zeros_like(x0[b]), 1.)).mean()/math.log(2)
        assert close(terms['L_T'][b], prior, 1e-12) and close(terms['total'][b], prior + costs[i == b].sum(), 1e-9)
        assert close(terms['x0_mse'][b], ((guess - x0[i])**2)[i == b].flatten(1).mean(1), 1e-12)


def test_x_t_is_drawn_from_q():
    "Fresh unit noise for every picture, step and draw."
    model, x0 = Spy(zero), pixels(400, 8)
    vlb_terms(Reverse(S), model, x0, draws=2)
    x, t = torch.cat(model.x).reshape(2, 20, 400, 8), torch.cat(model.t).reshape(2, 20, 400)
    _, _, a = tables(S, t[:, :, 0].flatten(), x.flatten(0, 1))
    a = a.reshape(2, 20, 1, 1)
    noise = (x - a.sqrt()*x0)/(1 - a).sqrt()
    assert (noise.flatten(2).std(2) - 1).abs().max() < 0.06 and noise.flatten(2).mean(2).abs().max() < 0.08
    assert len(noise[:, :, :, 0].unique()) == 2*20*400


@pytest.mark.parametrize('how', [{}, dict(steps=5, draws=3)], ids=str)
def test_total_is_the_sum(how):
    terms = vlb_terms(Reverse(S), network(S), pixels(4, 1, 4, 4), **how)
    assert close(terms['total'], terms['L_T'] + terms['L_t'].sum(1) + terms['L_0'], 1e-9)


@pytest.mark.parametrize('how', [{}, dict(steps=5), dict(draws=3, steps=6)], ids=str)
def test_rows_decide_the_size_of_calls_and_nothing_else(how):
    x0, visits = pixels(5, 1, 2, 2), how.get('draws', 1)*(1 + how.get('steps', 19))*5
    ledgers = []
    for rows in (1, 3, 5, 12, 10_000):
        model = Spy(network(S))
        ledgers.append(vlb_terms(Reverse(S), model, x0, rows=rows, generator=seed(), **how))
        sizes = [len(x) for x in model.x]
        assert max(sizes) <= rows and sum(sizes) == visits
        if rows == 12: assert max(sizes) > 5, 'several steps share a call'
    for other in ledgers[1:]: assert same(ledgers[0], other, 1e-12)


class Largest(TorchDispatchMode):
    "Remembers the largest tensor that is made."
    size = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for v in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(v, torch.Tensor): self.size = max(self.size, v.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize('steps', [None, 15])
@pytest.mark.parametrize('B, rows', [(2, 8), (4, 2)])
def test_memory_does_not_grow_with_T(steps, B, rows):
    x0, sizes = pixels(B, 500).float(), []
    for T in (20, 100):
        s = cosine_schedule(T)
        with Largest() as largest: vlb_terms(Reverse(s), zero, x0, rows=rows, steps=steps)
        sizes.append(largest.size)
    assert sizes[0] == sizes[1] == max(rows*8, B*4)*500  # a chunk in float64, inside the decoder, or all pictures once


def test_a_generator_is_all_the_randomness_there_is():
    x0, before = pixels(3, 4), torch.get_rng_state()
    a, b, c = (vlb_terms(Reverse(S), network(S), x0, steps=4, generator=seed(i)) for i in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state()) and same(a, b, 0) and not close(a['total'], c['total'], 1e-6)
    d, e = (vlb_terms(Reverse(S), network(S), x0, steps=4, generator=g) for g in [seed(1)]*2)
    torch.manual_seed(1)
    f = vlb_terms(Reverse(S), network(S), x0, steps=4)
    assert not close(d['total'], e['total'], 1e-6) and not torch.equal(before, torch.get_rng_state()) and same(f, a, 0)


@pytest.mark.parametrize('name', ['cosine', 'unscaled linear'])
@pytest.mark.parametrize('steps', [None, 1, 5])
@pytest.mark.parametrize('draws', [1, 2])
def test_one_step_chain_has_no_middle(name, steps, draws):
    terms = vlb_terms(Reverse(MAKERS[name](1)), zero, pixels(3, 1, 4, 4), steps=steps, draws=draws)
    assert terms['L_t'].shape == (3, 0) and terms['x0_mse'].shape == (3, 1) and close(terms['total'], terms['L_T'] + terms['L_0'], 1e-12)
    assert terms['total'].isfinite().all() and terms['total_error'].isnan().all() == (draws == 1)


@pytest.mark.parametrize('how, word', [(dict(draws=0), 'draws must'), (dict(rows=0), 'rows must'), (dict(draws=-1), 'draws must'), (dict(decoder='gauss'), 'decoder'), (dict(steps=0), r'1\.\.19'),
                                       (dict(steps=20), r'1\.\.19'), (dict(steps=-3), r'1\.\.19'), (dict(x0=torch.zeros(0, 1, 2, 2)), 'the number of pictures must be at least 1, got 0'),
                                       (dict(x0=torch.zeros(2, 1, 2, 2, dtype=torch.uint8)), 'uint8'), (dict(x0=torch.zeros(2, 1, 2, 2).long()), 'int64')], ids=str)
def test_mistakes_are_told_before_any_work(how, word):
    model, x0 = Spy(zero), how.pop('x0', torch.zeros(2, 1, 2, 2))
    with pytest.raises(ValueError, match=word): vlb_terms(Reverse(S), model, x0, **how)
    assert not model.x


def test_a_model_of_the_wrong_shape_is_told_so():
    with pytest.raises(ValueError, match='twice the channels'): vlb_terms(Reverse(S, variance='learned'), zero, torch.zeros(1, 1, 2, 2))


class Small(nn.Module):
    "A network with something for autocast to round."
    def __init__(self, parts=1): super().__init__(); self.conv = nn.Conv2d(1, parts, 3, padding=1)
    def forward(self, x, t): return self.conv(x)


def test_no_gradients_are_kept():
    model = Spy(Small())
    terms = vlb_terms(Reverse(S), model, torch.zeros(2, 1, 4, 4))
    assert not model.grad and not any(v.requires_grad for v in terms.values())


bf16 = lambda: torch.autocast('cpu', torch.bfloat16)


@pytest.mark.parametrize('variance', VARIANCES)
def test_bf16_stays_inside_the_network(variance):
    "All else is as if the network had been asked apart."
    net, x0 = Small(2 if variance.startswith('learned') else 1), pixels(3, 1, 5, 5).float()
    def apart(x, t):
        with bf16(): return net(x, t)
    a = vlb_terms(Reverse(S, variance=variance), lambda x, t: apart(x, t).float(), x0, generator=seed(), draws=2)
    b = vlb_terms(Reverse(S, variance=variance), apart, x0, generator=seed(), draws=2)
    with bf16(): c = vlb_terms(Reverse(S, variance=variance), net, x0, generator=seed(), draws=2)
    d = vlb_terms(Reverse(S, variance=variance), net, x0, generator=seed(), draws=2)
    assert apart(x0, None).dtype == torch.bfloat16 and same(a, b, 0) and same(b, c, 0) and not same(c, d, 0)


def test_autocast_does_not_touch_oracles():
    x0, oracle = pixels(4, 1, 3, 3).float(), DatasetOracle(S, pixels(4, 1, 3, 3))
    a = vlb_terms(Reverse(S), oracle, x0, generator=seed())
    with bf16(): b = vlb_terms(Reverse(S), oracle, x0, generator=seed())
    assert same(a, b, 0)


def test_the_bar_is_for_those_who_look(capsys, monkeypatch):
    for progress in (True, False): vlb_terms(Reverse(S), zero, torch.zeros(1, 2), progress=progress)
    assert capsys.readouterr() == ('', '')
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    vlb_terms(Reverse(S), zero, torch.zeros(1, 2))
    for progress in (False, True):
        assert not capsys.readouterr().out
        terms = vlb_terms(Reverse(S), zero, torch.zeros(1, 2), progress=progress, draws=3, rows=4, generator=seed())
    assert '100.00%' in capsys.readouterr().out and same(terms, vlb_terms(Reverse(S), zero, torch.zeros(1, 2), draws=3, generator=seed()), 1e-6)


# What chance does

def test_running_mean_against_torch():
    values, running = torch.randn(9, 4, dtype=torch.float64)*1e-3 + 1e3, RunningMean()
    for i, v in enumerate(values):
        running.add(v)
        assert close(running.mean, values[:i + 1].mean(0), 1e-10) and (i == 0 or close(running.error(), values[:i + 1].std(0)/(i + 1)**0.5, 1e-12))
        assert running.error().isnan().all() == (i == 0)


@pytest.mark.parametrize('steps', [None, 3])
def test_errors_over_draws_are_the_spread_of_repeated_ledgers(steps):
    "4,000 copies of a picture are 4,000 ledgers of it."
    x0 = pixels(1, 4).expand(4000, -1)
    terms = vlb_terms(Reverse(S, clip=False), network(S), x0, steps=steps, draws=4, rows=8000)
    for name in ('total', 'L_0'): assert 0.9 < (terms[f'{name}_error']**2).mean()/terms[name].var() < 1.1
    ratio = (terms['L_t_error']**2).mean(0)/terms['L_t'].var(0)
    assert 0.8 < ratio.min() and ratio.max() < 1.2


def test_one_draw_has_no_error_of_its_own():
    terms = vlb_terms(Reverse(S), network(S), pixels(3, 4), steps=5)
    assert all(terms[name].isnan().all() for name in ERRORS)


@pytest.mark.parametrize('steps', [None, 2])
def test_the_error_between_pictures_covers_all_chance(steps):
    "500 ledgers of 40 pictures each, drawn anew: their means spread as each of them says."
    x0, terms = torch.randn(20_000, 2, generator=seed(), dtype=torch.float64), None
    terms = vlb_terms(Reverse(S, clip=False), network(S), x0, steps=steps, decoder='density', rows=20_000)
    groups = terms['total'].reshape(500, 40)
    claimed = torch.stack([mean_and_error(g)[1] for g in groups]).square().mean()
    assert 0.75 < claimed/groups.mean(1).var() < 1.33


def test_mean_and_error_of_numbers(recwarn):
    mean, error = mean_and_error(torch.tensor([[1., 0.], [2., 0.], [6., 0.]]))
    assert mean.tolist() == [3, 0] and torch.allclose(error, torch.tensor([7**0.5/3**0.5, 0.]))
    assert [v.item() for v in mean_and_error(torch.tensor([1., 3.]))] == [2, 1]
    mean, error = mean_and_error(torch.tensor([[1., 5.]]))
    assert mean.tolist() == [1, 5] and error.isnan().all() and not recwarn


@pytest.mark.parametrize('steps', [1, 3, 10])
def test_fewer_steps_are_unbiased(steps):
    x0, model = pixels(1, 4).expand(20_000, -1), network(S)
    few = vlb_terms(Reverse(S, clip=False), model, x0, steps=steps, rows=20_000)['total']
    full = vlb_terms(Reverse(S, clip=False), model, x0[:4000], rows=20_000)['total']
    assert abs(few.mean() - full.mean()) < 4*(few.var()/20_000 + full.var()/4000).sqrt()
    if steps < 10: assert few.std() > 1.2*full.std()


@pytest.mark.parametrize('T, steps', [(2, 1), (3, 1), (3, 2), (100, 7), (100, 98), (100, 99), (4000, 50)])
def test_strata_cover_all_steps_evenly(T, steps):
    t, width = stratified_steps(T, steps, 40_000, seed())
    assert t.shape == (steps, 40_000) and width.shape == (steps,) and t.dtype == width.dtype == torch.int64
    assert width.sum() == T - 1 and width.min() >= 1
    first = 2 + torch.cat([torch.zeros(1).long(), width.cumsum(0)])
    assert (t >= first[:-1, None]).all() and (t < first[1:, None]).all()
    if T <= 100:
        for row, w in zip(t, width):
            share = torch.bincount(row)[-w:]/40_000*w
            assert len(share) == w and (share - 1).abs().max() < 5*(w/40_000)**0.5
    if steps > 1: assert len(t[-1].unique()) == min(width[-1], len(t[-1].unique())) and (width[-1] == 1 or len(t[-1].unique()) > 1)


def test_strata_of_every_size():
    for T in range(2, 40):
        for steps in range(1, T):
            width = strata_widths(T, steps)
            assert len(width) == steps and width.sum() == T - 1 and width.min() >= 1


def test_pieces_grow_with_t():
    width = strata_widths(1000, 50)
    end = 1 + width.cumsum(0)
    ratio = (end[1:]/end[:-1])[width[1:] >= 10]
    assert width[:5].tolist() == [1]*5 and ratio.max()/ratio.min() < 1.03 and width[-1] == width.max() > 50


def test_each_picture_has_its_own_steps():
    model = Spy(zero)
    vlb_terms(Reverse(cosine_schedule(1000)), model, torch.zeros(50, 2), steps=10, draws=2, rows=50)
    t = torch.stack(model.t).reshape(2, 11, 50)
    assert (t[:, 0] == 1).all() and (t[:, -1].unique(dim=1).shape[1] > 40) and not torch.equal(t[0], t[1])
    assert len({tuple(row) for row in t[0].T.tolist()}) == 50


def test_all_steps_unless_told_otherwise():
    t, width = stratified_steps(6, None, 3)
    assert t.tolist() == [[i]*3 for i in range(2, 7)] and width.tolist() == [1]*5
    t, width = stratified_steps(6, 5, 3)
    assert t.tolist() == [[i]*3 for i in range(2, 7)] and width.tolist() == [1]*5
    for steps in (None, 4): assert stratified_steps(1, steps, 3)[0].shape == (0, 3)
    assert stratified_steps(6, 3)[0].shape == (3, 1)
    for steps in (0, 6, -1):
        with pytest.raises(ValueError, match=r'1\.\.5.*got'): stratified_steps(6, steps)


# In closed form

LAMBDA = torch.tensor([1e-4, 0.03, 0.4, 1., 5.], dtype=torch.float64)


@pytest.mark.parametrize('square, bits', [(1., 2.911e-5), (1/3, 9.705e-6)])
def test_L_T_goldens(square, bits):
    x0 = torch.full((1, 10), square**0.5, dtype=torch.float64)
    assert abs(prior_bits(Reverse(linear_schedule()), x0).item() - bits) < 5e-9
    assert abs(prior_bits(Reverse(linear_schedule()), x0.float()).item() - bits) < 2e-8


@pytest.mark.parametrize('T', [2, 5, 9])
@pytest.mark.parametrize('variance, sigma_1', [('beta', 'beta'), ('beta', 'beta_tilde'), ('beta_tilde', 'beta_tilde'), ('beta_tilde', 'beta'), ('learned', 'beta_tilde')])
def test_the_gap_is_the_divergence_of_two_chains(T, variance, sigma_1):
    "KL between q(x_0 … x_T) and p_θ(x_0 … x_T), each one Gaussian over all T + 1 values."
    s = NoiseSchedule(0.05 + 0.7*torch.rand(T, generator=seed(T), dtype=torch.float64))
    t, one = torch.arange(1, T + 1), torch.zeros(T, 1, dtype=torch.float64)
    for lam, m in ((0.3, 0.), (1., 0.), (2.5, -0.8)):
        keep = torch.cat([torch.ones(1), 1 - s.beta[1:]]).double().cumprod(0).sqrt()  # √ᾱ
        marginal = keep**2*lam + 1 - keep**2
        later, earlier = torch.meshgrid(torch.arange(T + 1), torch.arange(T + 1), indexing='ij')
        low, high = torch.minimum(later, earlier), torch.maximum(later, earlier)
        q_cov, q_mean = marginal[low]*keep[high]/keep[low], keep*m
        if variance == 'learned': sigma_2 = marginal[:-1] - q_cov.diagonal(1)**2/marginal[1:]
        else: sigma_2 = model_variance(s, one, t, variance, None, sigma_1).flatten()
        p_mean, p_cov = torch.zeros(T + 1).double(), torch.zeros(T + 1, T + 1).double()
        p_cov[T, T] = 1.
        for i in range(T - 1, -1, -1):
            slope = q_cov[i, i + 1]/q_cov[i + 1, i + 1]
            p_mean[i] = q_mean[i] + slope*(p_mean[i + 1] - q_mean[i + 1])
            p_cov[i, i + 1:] = slope*p_cov[i + 1, i + 1:]
            p_cov[i + 1:, i] = p_cov[i, i + 1:]
            p_cov[i, i] = slope**2*p_cov[i + 1, i + 1] + sigma_2[i]
        expected = kl_divergence(MultivariateNormal(q_mean, q_cov), MultivariateNormal(p_mean, p_cov))/math.log(2)
        assert abs(gaussian_terms(Reverse(s, variance=variance, sigma_1=sigma_1, clip=False), lam, m)['gap'] - expected) < 1e-9


@pytest.mark.parametrize('variance', ['beta', 'beta_tilde', 'learned'])
def test_a_bound_is_never_below_the_truth(variance):
    chains = [MAKERS[name](T) for name, T in schedules(1, 2, 10, 100)] + [NoiseSchedule(torch.rand(T, generator=seed(T)).double()*0.98 + 0.01) for T in range(1, 40)]
    for i, s in enumerate(chains):
        lam, m = (torch.randn(2, 6, generator=seed(i), dtype=torch.float64)*3)
        for sigma_1 in ('beta', 'beta_tilde'):
            terms = gaussian_terms(Reverse(s, variance=variance, sigma_1=sigma_1, clip=False), lam.exp(), m)
            assert terms['gap'] >= -1e-12*max(1, terms['total'].abs()) and abs(terms['L_T'] + terms['L_t'].sum() + terms['L_0'] - terms['total']) < 1e-9*max(1, terms['total'].abs())


@pytest.mark.parametrize('name, T', schedules(1, 2, 10, 30, 100, 1000, 4000))
def test_the_true_variance_leaves_the_end_of_the_chain_alone(name, T):
    s, m = MAKERS[name](T), torch.linspace(-1, 1, 5).double()
    a = (1 - s.beta).prod()
    expected = kl_divergence(Normal(a.sqrt()*m, (a*LAMBDA + 1 - a).sqrt()), Normal(torch.zeros(5).double(), 1.)).mean()/math.log(2)
    assert abs(gaussian_terms(Reverse(s, variance='learned', clip=False), LAMBDA, m)['gap'] - expected) < 1e-9


@pytest.mark.parametrize('variance, sigma_1, gaps', [('beta_tilde', 'beta_tilde', (1.3690, 0.5786, 0.4895)), ('beta', 'beta_tilde', (0.0226, 0.1137, 0.1417)), ('beta', 'beta', (0., 0., 0.))])
def test_golden_gaps(variance, sigma_1, gaps):
    for T, gap in zip((100, 1000, 4000), gaps):
        terms = gaussian_terms(Reverse(linear_schedule(T), variance=variance, sigma_1=sigma_1, clip=False), 1.)
        assert abs(terms['gap']*math.log(2) - gap) < 6e-5 and abs(terms['entropy']*math.log(2) - 1.4189385) < 1e-6


def test_beta_is_exact_for_unit_variance():
    for name, T in schedules(1, 2, 10, 100, 1000, 4000):
        assert abs(gaussian_terms(Reverse(MAKERS[name](T), variance='beta', sigma_1='beta', clip=False), 1.)['gap']) < 1e-11


def test_closed_form_at_the_door():
    with pytest.raises(ValueError, match='clip=False'): gaussian_terms(Reverse(S, variance='beta'), 1.)
    with pytest.raises(ValueError, match='variance must be one of beta, beta_tilde, learned,'): gaussian_terms(Reverse(S, variance='learned_range', clip=False), 1.)


@pytest.mark.parametrize('variance', ['beta', 'beta_tilde', 'learned'])
@pytest.mark.parametrize('sigma_1', ['beta_tilde', 'beta'])
@pytest.mark.parametrize('name', ['cosine', 'offset cosine'])
def test_simulation_agrees_with_the_closed_form_term_by_term(variance, sigma_1, name):
    s, mean, lam = MAKERS[name](12), torch.tensor([0.5, -1., 0.]).double(), torch.tensor([0.2, 1., 3.]).double()
    reverse, oracle = Reverse(s, variance=variance, sigma_1=sigma_1, clip=False), GaussianOracle(s, mean, lam.diag())
    x0 = mean + lam.sqrt()*torch.randn(20_000, 3, generator=seed(5), dtype=torch.float64)
    found = vlb_terms(reverse, WithVariance(oracle, reverse) if variance == 'learned' else oracle, x0, decoder='density', rows=60_000, generator=seed(6))
    exact = gaussian_terms(reverse, lam, mean)
    for key in ('L_T', 'L_t', 'L_0', 'total'):
        m, error = mean_and_error(found[key])
        assert ((m - exact[key]).abs() <= 4*error + 1e-12).all() and (error < 0.05*exact['total'].abs() + 0.05).all(), key


@pytest.mark.parametrize('T, gap, within', [(100, 1.3690, 0.25), (1000, 0.5786, 0.2)])
def test_the_gap_by_simulation(T, gap, within):
    s, x0 = linear_schedule(T), torch.randn(200, 10, generator=seed(), dtype=torch.float64)
    terms = vlb_terms(Reverse(s, clip=False), GaussianOracle(s, 0., 1.), x0, decoder='density', rows=4000)
    gaps = terms['total']*math.log(2) + Normal(0., 1.).log_prob(x0).mean(1)
    assert abs(gaps.mean() - gap) < 4*gaps.std()/200**0.5 < within


# Each term

@pytest.mark.parametrize('predict', PREDICTIONS)
@pytest.mark.parametrize('variance, sigma_1', [('beta', 'beta_tilde'), ('beta', 'beta'), ('beta_tilde', 'beta_tilde'), ('beta_tilde', 'beta'), ('learned_range', 'beta_tilde'), ('learned_range', 'beta'), ('learned', 'beta_tilde')])
@pytest.mark.parametrize('name', ['linear', 'cosine', 'sigmoid', 'offset cosine'])
def test_each_divergence_against_torch(predict, variance, sigma_1, name):
    "At a given x_t, for every t, clipped or not; at t = 1 the density."
    s, t = MAKERS[name](1000), torch.arange(1, 1001)
    x0, noise, other = torch.rand(1000, 2, 2, 2, dtype=torch.float64)*2 - 1, *torch.randn(2, 1000, 2, 2, 2, dtype=torch.float64)
    _, _, a = tables(s, t, x0)
    xt, guess = a.sqrt()*x0 + (1 - a).sqrt()*noise, x0 + (1 - a).sqrt()*other
    free = torch.randn(1000, 2, 2, 2, dtype=torch.float64)
    if variance == 'learned': free = model_variance(s, xt, t, 'beta').log() + 0.5*free
    output = as_prediction(s, guess, xt, t, predict)
    if variance.startswith('learned'): output = torch.cat([output, free], 1)
    for clip in (False, True):
        expected = term(s, x0, xt, t, guess.clamp(-1, 1) if clip else guess, model_variance(s, xt, t, variance, free, sigma_1))
        found = vlb_term(Reverse(s, predict, variance, clip, sigma_1), output, x0, xt, t, decoder='density')
        assert ((found - expected).abs()/expected.abs().clamp(min=1)).max() < 1e-6


@pytest.mark.parametrize('dtype, within', [(torch.float64, 1e-15), (torch.float32, 1e-6)])
@pytest.mark.parametrize('name, T', schedules(2, 30, 1000))
def test_one_point_costs_nothing_on_the_way(name, T, dtype, within):
    s, point = MAKERS[name](T), (torch.rand(1, 1, 4, 4, dtype=torch.float64)*2 - 1).to(dtype)
    for predict in PREDICTIONS:
        terms = vlb_terms(Reverse(s, predict), DatasetOracle(s, point, predict), point.expand(3, -1, -1, -1), rows=3000)
        assert terms['L_t'].abs().max() < within and terms['L_t'].shape == (3, T - 1)


@pytest.mark.parametrize('levels', [2, 17, 256])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('predict', PREDICTIONS)
@pytest.mark.parametrize('variance', VARIANCES)
def test_grey_levels_share_all_probability(levels, dtype, predict, variance):
    "L_0 of each level that the pixel may have had, at one x_1 and one output of the network."
    k = (2*torch.arange(levels, dtype=torch.float64)/(levels - 1) - 1).to(dtype).reshape(-1, 1, 1, 1)
    for xt, out, spread in ((0.3, 0.2, 0.5), (-1.1, 5., -1.), (1., -40., 1.), (0.999, 0.1, -9. if variance == 'learned' else 0.)):
        xt, output = torch.full_like(k, xt), torch.tensor([out, spread]).to(dtype).reshape(1, 2, 1, 1).expand(levels, -1, -1, -1)
        reverse = Reverse(S, predict, variance, clip=xt[0] != 1)
        bits = vlb_term(reverse, output[:, :reverse.parts], k, xt, 1, levels).double()
        assert abs((2**-bits).sum() - 1) < 1e-6 and bits.min() > -1e-6


@pytest.mark.parametrize('variance', VARIANCES)
@pytest.mark.parametrize('decoder, levels', [('discrete', 2), ('discrete', 256), ('density', 256)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('wild, tiny', [(1., -26.), (1e3, -12.)])
def test_gradients_are_finite_at_both_ends(variance, decoder, levels, dtype, wild, tiny):
    "Black and white pixels, wild predictions, tiny and huge variances; t from 1 to T."
    s = cosine_schedule(1000)
    spreads = {'learned': [tiny, -9., 0., 20., 40.], 'learned_range': [-3., -1., 0., 1., 3.]}.get(variance, [0.])
    x0, out, spread = (v.flatten().to(dtype) for v in torch.meshgrid(torch.tensor([-1., 1.]), wild*torch.tensor([0., 1., -1., 0.03, -0.03]), torch.tensor(spreads), indexing='ij'))
    for predict in PREDICTIONS:
        for t in (1, 2, 500, 1000):
            reverse = Reverse(s, predict, variance, clip=False)
            output = torch.stack([out, spread][:reverse.parts], 1)[:, :, None, None].requires_grad_()
            cost = vlb_term(reverse, output, x0.reshape(-1, 1, 1, 1), 0.9*x0.reshape(-1, 1, 1, 1), t, levels, decoder)
            gradient, = torch.autograd.grad(cost.sum(), output)
            assert cost.isfinite().all() and gradient.isfinite().all(), (predict, t)


@pytest.mark.parametrize('variance', VARIANCES)
@pytest.mark.parametrize('predict', PREDICTIONS)
def test_gradients_against_differences(variance, predict):
    reverse, x0 = Reverse(S, predict, variance, clip=False), torch.tensor([-1., 1., 0., -0.25]).double().repeat(3).reshape(-1, 1, 1, 1)
    t, output = torch.tensor([1, 2, 20]).repeat_interleave(4), torch.randn(12, reverse.parts, 1, 1, dtype=torch.float64)*0.5
    assert torch.autograd.gradcheck(lambda v: vlb_term(reverse, v, x0, 0.8*x0 + 0.1, t, 17), output.requires_grad_(), rtol=1e-5)


def test_terms_at_the_door():
    x = torch.zeros(2, 1, 2, 2)
    for t in (0, 21):
        with pytest.raises(ValueError, match=r'1\.\.20'): vlb_term(Reverse(S), x, x, x, t)
    with pytest.raises(ValueError, match='levels'): vlb_term(Reverse(S), x, x, x, 1, levels=1)
    with pytest.raises(ValueError, match='decoder must be one of discrete, density'): vlb_term(Reverse(S), x, x, x, 5, decoder='gauss')
    with pytest.raises(ValueError, match='must return shape'): vlb_rows(Reverse(S), lambda x, t: x[:1], x, x, torch.tensor([1, 2]), 256, 'discrete')


def test_bits_per_dim(): assert torch.allclose(bits_per_dim(torch.tensor([[[1., 3.]], [[0., math.log(2)]]])), torch.tensor([2/math.log(2), 0.5]))


# One interface

CLOSE_BY = lambda s: lambda x, t: model_variance(s, x, t, 'beta_tilde').log() + 0.2 + 0.3*torch.tanh(x)


@pytest.mark.parametrize('clip, decoder', [(True, 'discrete'), (False, 'density')])
@pytest.mark.parametrize('name, T', [('linear', 100), ('cosine', 40), ('sigmoid', 10), ('offset cosine', 10)])
@pytest.mark.parametrize('sigma_1', ['beta_tilde', 'beta'])
def test_the_same_function_gives_the_same_ledger(clip, decoder, name, T, sigma_1):
    s, x0 = MAKERS[name](T), pixels(3, 2, 2, 1)
    def ledger(predict, variance, output=None):
        return vlb_terms(Reverse(s, predict, variance, clip, sigma_1), network(s, predict, output), x0, levels=17, decoder=decoder, generator=seed())
    def bound(kind): return lambda x, t: model_variance(s, x, t, kind, sigma_1=sigma_1).log().expand_as(x)
    def place(wanted):
        def output(x, t):
            low, high = bound('beta_tilde')(x, t), column(s.beta[t], x).log().expand_as(x)
            return torch.where(high == low, 0., 2*(wanted(x, t) - low)/torch.where(high == low, 1., high - low) - 1)
        return output
    def at_1_fixed(x, t): return torch.where(column(t == 1, x).bool(), bound('beta_tilde')(x, t), CLOSE_BY(s)(x, t))  # with sigma_1 = 'beta' the range is a point there
    for fixed in ('beta', 'beta_tilde'):
        first = ledger('eps', fixed)
        for predict in PREDICTIONS:
            for other in (ledger(predict, fixed), ledger(predict, 'learned', bound(fixed)), ledger(predict, 'learned_range', place(bound(fixed)))): assert same(first, other, 1e-9)
    first = ledger('x0', 'learned', at_1_fixed)
    assert not same(first, ledger('x0', 'beta'), 1e-3)
    for predict in PREDICTIONS:
        for other in (ledger(predict, 'learned', at_1_fixed), ledger(predict, 'learned_range', place(at_1_fixed))): assert same(first, other, 1e-9)


# Summaries

def test_summary_is_the_ledger_in_four_lines():
    terms = vlb_terms(Reverse(S), network(S), pixels(6, 1, 3, 3))
    found = summary(terms)
    assert list(found) == ['L_T', 'L_1 … L_19', 'L_0', 'total']
    for (mean, error), rows in zip(found.values(), (terms['L_T'], terms['L_t'].sum(1), terms['L_0'], terms['total'])):
        assert abs(mean - sum(rows.tolist())/6) < 1e-12 and abs(error**2 - sum((r - mean)**2 for r in rows.tolist())/5/6) < 1e-12


def test_rate_and_distortion_by_hand():
    terms = {'L_T': torch.tensor([1., 3.]), 'L_t': torch.tensor([[4., 2.], [2., 0.]]), 'L_0': torch.tensor([5., 7.]), 'x0_mse': torch.tensor([[0., 0.02], [0.02, 0.], [0.04, 0.14]]).T[:, :3]}
    rate, distortion = rate_distortion(terms)
    assert rate.tolist() == [2 + 1 + 3 + 6, 2 + 1 + 3, 2 + 1, 2]
    assert torch.allclose(distortion, torch.tensor([0., 0.01**0.5, 0.01**0.5, 0.09**0.5]).double()*127.5, atol=1e-5)


def test_the_rate_reaches_the_total():
    terms = vlb_terms(Reverse(S), network(S), pixels(6, 1, 3, 3), steps=4)
    rate, distortion = rate_distortion(terms)
    assert len(rate) == len(distortion) == 21 and distortion[0] == 0 and (rate.diff() <= 0).all()
    assert abs(rate[0] - terms['total'].mean()) < 1e-9 and abs(rate[-1] - terms['L_T'].mean()) < 1e-12


# Numbers of limited length

def wave(parts):
    "A network that is far from any answer, at every scale of x."
    return lambda x, t: torch.cat([0.8*torch.tanh(x*(1 + column(t/1000, x))) + 0.1*torch.cos(3*x), 0.5*torch.tanh(x)], 1)[:, :parts*x.shape[1]]


@pytest.mark.parametrize('name, T', schedules(1, 2, 4, 1000, 4000))
@pytest.mark.parametrize('clip', [True, False])
def test_no_term_is_infinite(name, T, clip):
    s, x0 = MAKERS[name](T), torch.tensor([[-1., 1.]])
    for predict in PREDICTIONS:
        for variance in ('beta_tilde', 'learned_range'):
            reverse = Reverse(s, predict, variance, clip)
            for model in (lambda x, t: torch.zeros(len(x), 2*reverse.parts), lambda x, t: torch.randn(len(x), 2*reverse.parts)):
                terms = vlb_terms(reverse, model, x0, rows=4096)
                assert all(v.isfinite().all() for k, v in terms.items() if k not in ERRORS)


@pytest.mark.parametrize('name, T', schedules(1, 2, 4, 1000, 4000))
@pytest.mark.parametrize('variance', VARIANCES)
def test_float32_is_enough(name, T, variance):
    "Bits/dim of the same pictures with the same noise and the same network, in single and in double precision: within 1e-4, or a millionth of a bound beyond 100 bits."
    s, side = MAKERS[name](T), 2 if T > 1000 else 4
    x0, noise = pixels(2, 1, side, side), torch.randn(T, 2, 1, side, side, dtype=torch.float64)
    t, data = torch.arange(1, T + 1).repeat_interleave(2), torch.cat([x0, pixels(30, 1, side, side, g=seed(1))])
    for predict in PREDICTIONS:
        reverse, oracle = Reverse(s, predict, variance), DatasetOracle(s, data, predict)
        for model in (WithVariance(oracle, reverse) if reverse.parts == 2 else oracle, wave(reverse.parts)):
            totals = []
            for dtype in (torch.float32, torch.float64):
                clean = x0.to(dtype).repeat(T, 1, 1, 1)
                xt = q_sample(s, clean, t, noise.flatten(0, 1).to(dtype))
                totals.append(vlb_rows(reverse, model, clean, xt, t, 17, 'discrete')[0].double().reshape(T, 2).sum(0) + prior_bits(reverse, x0.to(dtype)))
            assert close(*totals, 1e-4*max(1, totals[1].max()/100))


def test_a_thousand_terms_add_up_in_float32(monkeypatch):
    s, x0, randn = linear_schedule(1000), pixels(2, 1, 4, 4), torch.randn
    oracle = DatasetOracle(s, torch.cat([x0, pixels(30, 1, 4, 4, g=seed(1))]))
    monkeypatch.setattr(torch, 'randn', lambda *shape, dtype=None, **k: randn(*shape, dtype=torch.float64, **k).to(dtype))
    a, b = (vlb_terms(Reverse(s), oracle, x0.to(dtype), levels=17, generator=seed(), draws=2, rows=1000) for dtype in (torch.float32, torch.float64))
    assert a['total'].dtype == torch.float32 and all(close(a[k], b[k], 1e-5) for k in a) and close(a['total'], b['total'], 2e-6*b['total'].max())
