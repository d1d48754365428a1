"The score against autograd, torch.distributions and scipy: densities, arrows, Langevin, the flow, its order and its likelihood; bad input at the door."
import math
import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from ddpm_course.checkpoints import load_run
from ddpm_course.ddim import ddim_move
from ddpm_course.losses import simple_loss
from ddpm_course.reverse import DatasetOracle, GaussianOracle, MixtureOracle, Reverse, WithVariance
from ddpm_course.sampling import last
from ddpm_course.schedules import NoiseSchedule, cosine_schedule, linear_schedule
from ddpm_course.score import (ScoreModel, annealed_langevin_sample, annealed_langevin_steps, check_levels, check_times, denoising_score_loss, eps_from_score,
                               flow_angle, flow_divergence, flow_move, flow_steps, flow_velocity, geometric_schedule, langevin_move, langevin_sample, langevin_steps,
                               linear_alpha_bar, log_density, noise_ratio, ode_log_likelihood, schedule_through, score_from_eps, trace_directions, tweedie)

S = cosine_schedule(200)
MEANS = torch.tensor([[-1.2, -0.6], [1.2, -0.6], [0., 1.2]], dtype=torch.float64)
VARIANCES = torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
FREE = Reverse(S, clip=False)
EYE = torch.eye(4, dtype=torch.float64)


def seed(n=0): return torch.Generator().manual_seed(n)


def oracle(schedule=S, **kw): return MixtureOracle(schedule, MEANS, VARIANCES, WEIGHTS, **kw)


def alpha_bar_of(schedule, t): return (1 - schedule.beta[1:t + 1]).prod()


def noisy(schedule, t):
    "q(x_t) of the mixture, by torch.distributions and β alone."
    a = alpha_bar_of(schedule, t)
    return MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(a.sqrt()*MEANS, (a*VARIANCES + 1 - a).sqrt()[:, None].expand(3, 2)), 1))


def gradient(f, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


# Densities

@pytest.mark.parametrize('t', [1, 50, 199, 200])
def test_density_of_a_mixture(t):
    x = 3*torch.randn(100, 2, dtype=torch.float64)
    found = log_density(oracle(), x, t)
    assert found.shape == (100,) and found.dtype == torch.float64
    assert (found - noisy(S, t).log_prob(x)).abs().max() < 1e-9


def test_density_takes_a_step_for_each_row():
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor([1, 40, 100, 200])
    assert torch.allclose(log_density(oracle(), x, t), torch.stack([noisy(S, i.item()).log_prob(row) for row, i in zip(x, t)]), atol=1e-10)


@pytest.mark.parametrize('t', [1, 77, 200])
def test_density_of_a_gaussian(t):
    A = torch.randn(4, 4, dtype=torch.float64)
    cov, mean, a = A @ A.T + 0.1*EYE, torch.randn(1, 2, 2, dtype=torch.float64), alpha_bar_of(S, t)
    x = torch.randn(20, 1, 2, 2, dtype=torch.float64)
    theirs = MultivariateNormal(a.sqrt()*mean.flatten(), a*cov + (1 - a)*EYE).log_prob(x.flatten(1))
    assert (log_density(GaussianOracle(S, mean, cov), x, t) - theirs).abs().max() < 1e-8


def test_density_of_a_round_gaussian():
    a, x = alpha_bar_of(S, 60), torch.randn(9, 3)
    theirs = Normal(0.3*a.sqrt(), (0.25*a + 1 - a).sqrt()).log_prob(x.double()).sum(1)
    assert (log_density(GaussianOracle(S, 0.3, 0.25), x, 60) - theirs).abs().max() < 1e-9


def test_density_of_a_data_set_integrates_to_one():
    d, line = DatasetOracle(S, torch.tensor([[-0.5], [0.1], [0.9]])), torch.linspace(-8, 8, 4001, dtype=torch.float64)
    assert abs(torch.trapezoid(log_density(d, line[:, None], 30).exp(), line) - 1) < 1e-9


def test_density_far_away_is_finite_and_has_a_gradient():
    x = torch.full((1, 2), 1e4, dtype=torch.float64)
    assert log_density(oracle(), x, 1).isfinite().all() and gradient(lambda x: log_density(oracle(), x, 1), x).isfinite().all()


def test_density_needs_to_know_the_data():
    with pytest.raises(ValueError, match='know the data.*function'): log_density(lambda x, t: x, torch.zeros(1, 2), 1)
    with pytest.raises(ValueError, match=r'1\.\.200'): log_density(oracle(), torch.zeros(1, 2), 0)


# Scores

def test_score_of_x_t_given_x_0():
    x0, eps, t = torch.randn(6, 1, 2, 2, dtype=torch.float64), torch.randn(6, 1, 2, 2, dtype=torch.float64), torch.tensor([1, 2, 50, 100, 199, 200])
    a = torch.stack([alpha_bar_of(S, i.item()) for i in t]).reshape(-1, 1, 1, 1)
    given = Normal(a.sqrt()*x0, (1 - a).sqrt())
    score = gradient(given.log_prob, given.mean + given.stddev*eps)
    assert torch.allclose(score_from_eps(S, eps, t), score, rtol=1e-8) and torch.allclose(eps_from_score(S, score, t), eps, rtol=1e-8)


@pytest.mark.parametrize('convert', [score_from_eps, eps_from_score])
def test_conversions_keep_the_type_and_check_the_step(convert):
    assert convert(S, torch.zeros(2, 3), 5).dtype == torch.float32
    for t in (0, 201, 1.5, torch.tensor([1, 2, 3])):
        with pytest.raises(ValueError): convert(S, torch.zeros(2, 3), t)


@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
@pytest.mark.parametrize('t', [1, 30, 120, 199])
def test_score_model_is_the_gradient_of_the_density(predict, t):
    x = noisy(S, t).sample((50,))
    assert torch.allclose(ScoreModel(Reverse(S, predict, clip=False), oracle(predict=predict))(x, t), gradient(noisy(S, t).log_prob, x), rtol=1e-6, atol=1e-7)


def test_score_model_of_a_network_with_a_learned_variance():
    reverse, x = Reverse(S, 'eps', 'learned', clip=False), torch.randn(5, 2)
    found = ScoreModel(reverse, WithVariance(oracle(), reverse))(x, torch.tensor([3, 50, 100, 150, 180]))
    assert found.dtype == torch.float32 and found.shape == x.shape
    assert torch.allclose(found, ScoreModel(FREE, oracle())(x, torch.tensor([3, 50, 100, 150, 180])), rtol=1e-4)


def test_score_model_clips_where_reverse_clips():
    x, a = torch.full((1, 2), 3., dtype=torch.float64), alpha_bar_of(S, 50)
    found = ScoreModel(Reverse(S, 'x0', clip=True), lambda x, t: 9*torch.ones_like(x))(x, 50)
    assert torch.allclose(found, -(x - a.sqrt())/(1 - a), rtol=1e-9)


@pytest.mark.parametrize('t', [5, 60, 150])
def test_tweedie_against_an_integral(t):
    one, a = MixtureOracle(S, torch.tensor([[-1.], [0.5]]), torch.tensor([0.1, 0.3])), alpha_bar_of(S, t).item()
    prior = lambda x0: 0.5*sum(math.exp(-(x0 - m)**2/(2*v))/math.sqrt(2*math.pi*v) for m, v in ((-1, 0.1), (0.5, 0.3)))
    for x in (-1.3, 0., 0.8):
        joint = lambda x0: prior(x0)*math.exp(-(x - math.sqrt(a)*x0)**2/(2*(1 - a)))
        around = [-1., 0.5, x/math.sqrt(a)] if abs(x/math.sqrt(a)) < 8 else [-1., 0.5]
        mass, mean = (quad(f, -8, 8, points=around, limit=500)[0] for f in (joint, lambda x0: x0*joint(x0)))
        xt = torch.tensor([[x]], dtype=torch.float64)
        assert abs(tweedie(S, gradient(lambda x: log_density(one, x, t), xt), xt, t).item() - mean/mass) < 1e-6


def test_tweedie_checks_shapes():
    with pytest.raises(ValueError, match=r'\(2, 3\), got \(2, 1\)'): tweedie(S, torch.zeros(2, 1), torch.zeros(2, 3), 4)


# Score matching

def test_denoising_and_explicit_score_matching_differ_by_a_constant():
    t, points = 80, ((-1., 0.4), (1., 0.6))
    a = alpha_bar_of(S, t).item()
    bell = lambda x, m: math.exp(-(x - math.sqrt(a)*m)**2/(2*(1 - a)))/math.sqrt(2*math.pi*(1 - a))
    arrow = lambda x, m: -(x - math.sqrt(a)*m)/(1 - a)
    q = lambda x: sum(w*bell(x, m) for m, w in points)
    true = lambda x: sum(w*bell(x, m)*arrow(x, m) for m, w in points)/q(x)
    constant = quad(lambda x: sum(w*bell(x, m)*arrow(x, m)**2 for m, w in points) - q(x)*true(x)**2, -7, 7)[0]
    x0 = torch.tensor([m for m, _ in points], dtype=torch.float64)[torch.multinomial(torch.tensor([0.4, 0.6]), 300_000, replacement=True)][:, None]
    for s in (lambda x: -x, lambda x: (2*x).sin(), lambda x: 0.3*x**2):
        explicit = quad(lambda x: q(x)*(s(torch.tensor(x, dtype=torch.float64)).item() - true(x))**2, -7, 7)[0]
        losses = denoising_score_loss(S, lambda x, t: s(x), x0, t)
        assert abs(losses.mean() - explicit - constant) < 5*losses.std()/300_000**0.5


@pytest.mark.parametrize('predict', ['eps', 'x0', 'v'])
def test_simple_loss_is_weighted_score_matching(predict):
    reverse, x0, eps, t = Reverse(S, predict, clip=False), torch.randn(8, 1, 2, 2, dtype=torch.float64), torch.randn(8, 1, 2, 2, dtype=torch.float64), torch.arange(10, 90, 10)
    model = lambda x, t: torch.tanh(x) + 0.1
    a = torch.stack([alpha_bar_of(S, i.item()) for i in t])
    factor = {'eps': 1, 'x0': (1 - a)/a, 'v': 1/a}[predict]   # error of this prediction, in units of the error of ε
    loss = denoising_score_loss(S, ScoreModel(reverse, model), x0, t, eps)
    assert loss.shape == (8,) and torch.allclose((1 - a)*loss*factor, simple_loss(reverse, model, x0, t, eps), rtol=1e-8)


def test_the_loss_is_least_at_the_true_score_and_trains():
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    x0, true = MEANS[torch.multinomial(WEIGHTS, 200_000, replacement=True)] + 0.5*torch.randn(200_000, 2, dtype=torch.float64), MixtureOracle(S, MEANS, 0.25, WEIGHTS)
    loss = denoising_score_loss(S, lambda x, t: scale*ScoreModel(FREE, true)(x, t), x0, 100).mean()
    slope, = torch.autograd.grad(loss, scale)
    assert abs(slope) < 0.05
    assert denoising_score_loss(S, lambda x, t: 1.3*ScoreModel(FREE, true)(x, t), x0, 100).mean() > loss + 0.01


def test_loss_checks_its_noise():
    with pytest.raises(ValueError, match='noise must have the shape'): denoising_score_loss(S, lambda x, t: x, torch.zeros(2, 3), 5, torch.zeros(2, 2))


# Langevin

def test_langevin_by_hand():
    x = torch.tensor([[1., 2.]], dtype=torch.float64)
    assert torch.allclose(langevin_move(lambda x: -3*x, x, 0.08, torch.tensor([[1., -1.]])), x - 0.24*x + 0.4*torch.tensor([[1., -1.]]))
    states = list(langevin_steps(lambda x: -x, x, 0.1, 3, seed(4)))
    g, y = seed(4), x
    for k, state in states:
        assert torch.allclose(state, y) and state.dtype == torch.float64
        y = 0.9*y + math.sqrt(0.2)*torch.randn(1, 2, generator=g)
    assert [k for k, _ in states] == [0, 1, 2, 3] and torch.equal(states[0][1], torch.tensor([[1., 2.]], dtype=torch.float64))


@pytest.mark.parametrize('h, variance', [(0.05, 0.25), (0.2, 0.25), (0.3, 1.)])
def test_langevin_at_rest_has_the_variance_and_memory_of_its_recursion(h, variance):
    start = torch.randn(40_000, 1, generator=seed(1), dtype=torch.float64)
    x = langevin_sample(lambda x: -x/variance, start, h, 100, seed(2))
    assert abs(x.var()*(1 - h/(2*variance))/variance - 1) < 0.04
    later = langevin_sample(lambda x: -x/variance, x, h, 2, seed(3))
    assert abs(torch.corrcoef(torch.cat([x, later], 1).T)[0, 1] - (1 - h/variance)**2) < 0.02


def test_langevin_finds_a_mixture():
    near = MixtureOracle(S, 0.5*MEANS, 0.2, WEIGHTS)   # clumps that overlap, so that walkers mix
    x = langevin_sample(lambda x: ScoreModel(FREE, near)(x, 1), torch.zeros(8000, 2, dtype=torch.float64), 0.02, 400, seed())
    mean = WEIGHTS @ (0.5*MEANS)
    cov = 0.2*torch.eye(2) + (WEIGHTS[:, None]*(0.5*MEANS)).T @ (0.5*MEANS) - torch.outer(mean, mean)
    assert (x.mean(0) - mean).abs().max() < 0.05 and (x.T.cov() - cov).abs().max() < 0.05


def test_langevin_takes_a_seed_for_each_row_and_a_score_by_autograd():
    score = lambda x: torch.enable_grad()(gradient)(lambda y: log_density(oracle(), y, 20), x).to(x.dtype)
    x = torch.randn(4, 2, generator=seed())
    all_four, alone = (langevin_sample(score, v, 0.01, 5, seeds=s) for v, s in ((x, [5, 6, 7, 8]), (x[2:3], [7])))
    assert torch.allclose(all_four[2:3], alone, atol=1e-6) and not alone.requires_grad and alone.dtype == torch.float32


@pytest.mark.parametrize('step_size, steps, said', [(0., 3, 'step_size'), (-1., 3, 'step_size'), (math.inf, 3, 'step_size'), (math.nan, 3, 'step_size'), (0.1, 0, 'steps'), (0.1, 2.5, 'steps')])
def test_langevin_at_the_door(step_size, steps, said):
    with pytest.raises(ValueError, match=said): langevin_sample(lambda x: -x, torch.zeros(1, 1), step_size, steps)


# Levels

@pytest.mark.parametrize('make', [cosine_schedule, linear_schedule])
def test_schedule_through_the_levels_of_another(make):
    s = make(500)
    again = schedule_through(s.alpha_bar[1:])
    assert isinstance(again, NoiseSchedule) and again.T == 500 and torch.allclose(again.beta, s.beta, rtol=1e-9) and torch.allclose(again.alpha_bar, s.alpha_bar, rtol=1e-10)


@pytest.mark.parametrize('levels', [[], [0.5, 0.5], [0.2, 0.7], [1.0, 0.5], [0.5, 0.0], [0.5, -0.1], [[0.5]], 0.5, [0.5, math.nan]])
def test_schedule_through_at_the_door(levels):
    with pytest.raises(ValueError, match='alpha_bar'): schedule_through(torch.tensor(levels))


def test_geometric_levels():
    n = noise_ratio(s := geometric_schedule(10, 0.01, 50.))
    assert s.T == 10 and n[0] == 0 and abs(n[1] - 0.01) < 1e-9 and abs(n[-1] - 50) < 1e-6
    assert ((n[2:]/n[1:-1]) / (n[-1]/n[1])**(1/9) - 1).abs().max() < 1e-6
    assert torch.allclose(1/(1 + n**2), s.alpha_bar, rtol=1e-12)


@pytest.mark.parametrize('args', [(1, 0.1, 1.), (0, 0.1, 1.), (2.5, 0.1, 1.), (5, 0., 1.), (5, 1., 1.), (5, 2., 1.), (5, 0.1, math.inf)])
def test_geometric_levels_at_the_door(args):
    with pytest.raises(ValueError): geometric_schedule(*args)


@pytest.mark.parametrize('u', [0.01, 0.3, 1.])
def test_linear_alpha_bar_is_the_integral_of_beta(u):
    beta = lambda r: 0.2 + r*(15 - 0.2)
    assert abs(linear_alpha_bar(torch.tensor(u, dtype=torch.float64), 0.2, 15.).item() - math.exp(-quad(beta, 0, u)[0])) < 1e-10


def test_linear_alpha_bar_is_the_limit_of_the_linear_schedule():
    gap = [(linear_schedule(T).alpha_bar - linear_alpha_bar(torch.linspace(0, 1, T + 1, dtype=torch.float64))).abs().max().item() for T in (1000, 2000, 4000)]
    assert gap[0] < 5e-3 and 1.8 < gap[0]/gap[1] < 2.2 and 1.8 < gap[1]/gap[2] < 2.2


# Annealed Langevin

def ncsn(schedule, model, x_T, repeats, share, noises):
    "Algorithm 1 of Song and Ermon 2019 in its own terms: y = x_0 + σ·z, step α_i = 2·share·σ_i², y ← y + α/2·score + √α·z; then one denoising."
    a = [alpha_bar_of(schedule, t) for t in range(1, schedule.T + 1)]
    y = x_T/a[-1].sqrt()
    density = lambda y, s2: MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(MEANS, (VARIANCES + s2).sqrt()[:, None].expand(3, 2)), 1)).log_prob(y)
    for a_t in reversed(a):
        s2 = (1 - a_t)/a_t
        for _ in range(repeats):
            alpha = 2*share*s2
            y = y + alpha/2*gradient(lambda y: density(y, s2), y) + alpha.sqrt()*noises.pop(0)
    return y + s2*gradient(lambda y: density(y, s2), y)


@pytest.mark.parametrize('repeats, share', [(1, 0.5), (3, 0.1), (2, 1.)])
def test_annealed_langevin_is_ncsn(repeats, share):
    s, x_T = geometric_schedule(12, 0.05, 10.), torch.randn(20, 2, generator=seed(), dtype=torch.float64)
    g = seed(1)
    ours = annealed_langevin_sample(Reverse(s, clip=False), oracle(s), (20, 2), repeats, share, x_T=x_T, generator=seed(1))
    noises = [torch.randn(20, 2, generator=g) for _ in range(12*repeats)]
    assert torch.allclose(ours, ncsn(s, oracle(s), x_T, repeats, share, noises), rtol=1e-5, atol=1e-6)


def test_annealed_langevin_counts_its_calls_and_yields_each():
    calls, s = [], geometric_schedule(6, 0.1, 5.)
    model = lambda x, t: (calls.append(t[0].item()), oracle(s)(x, t))[1]
    states = list(annealed_langevin_steps(Reverse(s, clip=False), model, (3, 2), 2, 0.3, [6, 4, 1], seeds=[1, 2, 3]))
    assert calls == [6, 6, 4, 4, 1, 1, 1] and [t for t, _, _ in states] == [6, 6, 4, 4, 1, 1, 0]
    for t, x, x0_hat in states[:-1]: assert torch.allclose(x0_hat, Reverse(s, clip=False).predict_x0(oracle(s), x, t), atol=1e-5)
    assert torch.equal(states[-1][1], states[-1][2]) and states[0][1].dtype == torch.float32


def test_annealed_langevin_takes_a_seed_for_each_row_and_the_models_clip():
    s = geometric_schedule(8, 0.05, 5.)
    draw = lambda seeds, clip=False: annealed_langevin_sample(Reverse(s, clip=clip), oracle(s), (len(seeds), 2), seeds=seeds)
    assert torch.allclose(draw([3, 4, 5])[1:2], draw([4]), atol=1e-5)
    assert draw([3, 4, 5, 6, 7, 8], True).abs().max() <= 1


def test_annealed_langevin_has_the_right_shares_and_one_level_does_not():
    s, start = geometric_schedule(400, 0.05, 10.), torch.randn(1500, 1, generator=seed(), dtype=torch.float64)
    far = MixtureOracle(s, torch.tensor([[-2.], [2.]]), 0.09, torch.tensor([0.8, 0.2]))
    right = lambda x: (x > 0).double().mean().item()
    assert abs(right(annealed_langevin_sample(Reverse(s, clip=False), far, (1500, 1), 1, 0.2, x_T=start, generator=seed(1))) - 0.2) < 0.05
    assert right(langevin_sample(lambda x: ScoreModel(Reverse(s, clip=False), far)(x, 1), start, 0.01, 300, seed(2))) > 0.4


def test_annealed_langevin_on_the_shipped_network_draws_digits():
    network, reverse, _ = load_run('digits')
    x = annealed_langevin_sample(reverse, network, (4, 1, 8, 8), 1, 0.5, list(range(900, 0, -30)), seeds=[0, 1, 2, 3])
    assert x.shape == (4, 1, 8, 8) and x.abs().max() <= 1 and (x.abs() > 0.5).float().mean() > 0.5 and x[:, :, :, 0].mean() < -0.8


@pytest.mark.parametrize('change, said', [(dict(repeats=0), 'repeats'), (dict(repeats=1.5), 'repeats'), (dict(share=0.), 'share'), (dict(share=1.5), 'share'), (dict(levels=[]), 'levels'),
                                          (dict(levels=[1, 2]), 'levels'), (dict(levels=[201]), 'levels'), (dict(levels=[5, 0]), 'levels'), (dict(levels=[5., 2.]), 'levels'),
                                          (dict(x_T=torch.zeros(1, 2)), 'x_T'), (dict(seeds=[1]), 'seeds')])
def test_annealed_langevin_at_the_door(change, said):
    with pytest.raises(ValueError, match=said): annealed_langevin_sample(FREE, oracle(), (2, 2), **change)


def test_levels_are_all_by_default(): assert check_levels(None, 3) == [3, 2, 1] and check_levels((3, 1), 3) == [3, 1]


# The flow

@pytest.mark.parametrize('t', [1, 40, 120, 199])
def test_velocity_is_that_of_song_on_another_clock(t):
    x, a = noisy(S, t).sample((30,)), alpha_bar_of(S, t)
    velocity = flow_velocity(FREE, oracle(), x, t)
    tangent = ((1 - a)/a).sqrt()
    assert torch.allclose(velocity, -tangent*(x + gradient(noisy(S, t).log_prob, x)), rtol=1e-5, atol=1e-6)
    assert torch.allclose(velocity, oracle(predict='v')(x, t), rtol=1e-6, atol=1e-8)


def test_angle():
    s = NoiseSchedule(torch.full((50,), 0.2))
    angle = flow_angle(s)
    assert angle[0] == 0 and (angle.diff() > 0).all() and angle[-1] < math.pi/2 and torch.allclose(angle.cos()**2, s.alpha_bar, rtol=1e-9) and torch.allclose(angle.tan(), noise_ratio(s), rtol=1e-9)


@pytest.mark.parametrize('method, calls', [('euler', [9, 6, 2, 1]), ('heun', [9, 6, 6, 2, 2, 1, 1])])
def test_flow_steps_yield_each_level_and_call_no_more_than_they_say(method, calls):
    asked = []
    model = lambda x, t: (asked.append(t[0].item()), oracle()(x, t))[1]
    states = list(flow_steps(FREE, model, x := torch.randn(3, 2), [9, 6, 2, 1], method))
    assert asked == calls and [t for t, _, _ in states] == [9, 6, 2, 1] and torch.equal(states[0][1], x)
    for t, x, x0_hat in states: assert x.dtype == torch.float32 and torch.allclose(x0_hat, FREE.predict_x0(oracle(), x, t).float(), atol=1e-4)


def test_moves_of_both_methods_on_a_known_curve():
    slope, one = lambda x, t: t*x, torch.ones(1, dtype=torch.float64)     # dx/dt = t·x
    for method, left in (('euler', 1.), ('heun', 1.)):
        new, first = flow_move(slope, one, 1, 2, left, method)
        assert first == 1 and new == {'euler': 2., 'heun': 1 + 0.5*(1 + 4)}[method]


def test_up_and_down_again():
    x, times = noisy(S, 1).sample((20,)), list(range(1, 201))
    there = last(flow_steps(FREE, oracle(), x, times))
    back = last(flow_steps(FREE, oracle(), there, times[::-1]))
    assert (back - x).abs().max() < 1e-3 and (there - x).abs().max() > 0.1


CENTRES, WIDTH = np.array([[-1.2, -0.6], [1.2, -0.6], [0., 1.2], [0., -0.1]]), 0.35
SHARES, U_MIN = np.array([0.4, 0.3, 0.2, 0.1]), 0.01


def song(u, flat):
    "dx/du = -β/2·(x + score), eq. 13 of Song et al. 2021, in numpy and from the density of the mixture."
    x, a = flat.reshape(-1, 2), math.exp(-0.1*u - 0.5*19.9*u**2)
    v, off = a*WIDTH**2 + 1 - a, x[:, None] - math.sqrt(a)*CENTRES
    log_r = np.log(SHARES) - (off**2).sum(2)/(2*v)
    r = np.exp(log_r - log_r.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    return (-(0.1 + 19.9*u)/2*(x - (r[:, :, None]*off).sum(1)/v)).ravel()


@pytest.fixture(scope='module')
def reference():
    "Forty noises and where the flow takes them, by scipy."
    x = torch.randn(40, 2, generator=seed(3), dtype=torch.float64)
    done = solve_ivp(song, (1., U_MIN), x.numpy().ravel(), method='DOP853', rtol=1e-10, atol=1e-11)
    return x, torch.from_numpy(done.y[:, -1].reshape(-1, 2))


def solve(x, steps, method):
    s = schedule_through(linear_alpha_bar(torch.linspace(U_MIN, 1, steps + 1, dtype=torch.float64)))
    exact, free, times = MixtureOracle(s, torch.from_numpy(CENTRES), WIDTH**2, torch.from_numpy(SHARES)), Reverse(s, clip=False), list(range(s.T, 0, -1))
    if method != 'ddim': return last(flow_steps(free, exact, x, times, method))
    for t, lower in zip(times, times[1:]): x, _ = ddim_move(free, exact, x, t, lower)
    return x


@pytest.mark.parametrize('method, order', [('ddim', 1), ('euler', 1), ('heun', 2)])
def test_deterministic_samplers_converge_at_their_order(reference, method, order):
    x, end = reference
    counts = (40, 80, 160, 320)
    errors = [(solve(x, S, method) - end).square().mean().sqrt().item() for S in counts]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + order) < 0.06 and errors[-1] < (0.02 if order == 1 else 2e-4)


@pytest.mark.parametrize('times', [[], [5], [5, 5], [1, 3, 2], [3, 0], [201, 1], [3., 1.]])
def test_times_at_the_door(times):
    with pytest.raises(ValueError, match='times must be'): check_times(times, 200)
    with pytest.raises(ValueError, match='times must be'): last(flow_steps(FREE, oracle(), torch.zeros(1, 2), times))


def test_unknown_method():
    with pytest.raises(ValueError, match='euler, heun'): last(flow_steps(FREE, oracle(), torch.zeros(1, 2), [2, 1], 'midpoint'))


def test_chains_keep_no_graph_of_what_was_before():
    scale = torch.ones((), requires_grad=True)
    model, x = lambda x, t: scale*oracle()(x, t), torch.zeros(2, 2)
    for state in langevin_steps(lambda x: scale*x, x, 0.1, 2): assert not state[1].requires_grad
    for steps in (flow_steps(FREE, model, x, [3, 2, 1]), annealed_langevin_steps(FREE, model, (2, 2), levels=[2, 1])):
        for _, x, x0_hat in steps: assert not x.requires_grad and not x0_hat.requires_grad


# Volume and likelihood

def test_divergence_is_the_trace_of_the_jacobian():
    x = torch.randn(3, 2, dtype=torch.float64)
    v, trace = flow_divergence(FREE, oracle(), x, 70)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow_velocity(FREE, oracle(), x, 70), x)   # (3, 2, 3, 2)
    assert torch.allclose(trace, torch.stack([jacobian[i, :, i].trace() for i in range(3)])) and not v.requires_grad
    assert torch.allclose(v, flow_velocity(FREE, oracle(), x, 70))


def test_divergence_works_without_gradients_around_it():
    with torch.no_grad(): assert flow_divergence(FREE, oracle(), torch.zeros(1, 2), 70)[1].isfinite().all()


def test_random_directions_estimate_the_trace_without_bias():
    M, x = torch.randn(6, 6, dtype=torch.float64), torch.zeros(2, 1, 2, 3, dtype=torch.float64)
    z = trace_directions(x, 20_000, seed())
    assert z.shape == (20_000, 2, 1, 2, 3) and ((z*20_000**0.5).abs() - 1).abs().max() < 1e-9
    estimate = torch.einsum('kbi,ij,kbj->b', z.flatten(2), M, z.flatten(2))
    assert (estimate - M.trace()).abs().max() < 0.3
    exact = trace_directions(x).flatten(2)
    assert torch.allclose(torch.einsum('kbi,ij,kbj->b', exact, M, exact), M.trace().expand(2))


@pytest.mark.parametrize('probes', [0, -1, 1.5])
def test_probes_at_the_door(probes):
    with pytest.raises(ValueError, match='probes'): trace_directions(torch.zeros(1, 2), probes)


def test_likelihood_of_a_gaussian():
    cov, mean, a = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64), torch.tensor([0.3, -0.2], dtype=torch.float64), alpha_bar_of(S, 1)
    judge = MultivariateNormal(a.sqrt()*mean, a*cov + (1 - a)*EYE[:2, :2])
    x = judge.sample((50,))
    gaussian = GaussianOracle(S, mean, cov)
    found = ode_log_likelihood(Reverse(S), gaussian, x)      # clip=True is ignored
    assert found.shape == (50,) and (found - judge.log_prob(x)).abs().max() < 2e-3
    errors = [(ode_log_likelihood(FREE, gaussian, x, list(range(1, 200, 8)) + [200], method) - judge.log_prob(x)).abs().max().item() for method in ('heun', 'euler')]
    assert errors[0] < 0.05 and errors[1] > 2*errors[0]


@pytest.mark.parametrize('t', [1, 60])
def test_likelihood_of_a_mixture_of_pictures(t):
    x = noisy(S, t).sample((30,))
    shaped = MixtureOracle(S, MEANS.reshape(3, 1, 1, 2), VARIANCES, WEIGHTS)
    found = ode_log_likelihood(FREE, shaped, x.reshape(30, 1, 1, 2), list(range(t, 201)))
    assert (found - noisy(S, t).log_prob(x)).abs().max() < 0.02


def test_likelihood_by_hutchinson():
    x, times = noisy(S, 1).sample((40,)), [1, 5] + list(range(10, 201, 10))
    assert times[-1] == S.T
    exact = ode_log_likelihood(FREE, oracle(), x, times)
    draw = lambda probes, n=0: ode_log_likelihood(FREE, oracle(), x, times, probes=probes, generator=seed(n))
    assert torch.equal(draw(2), draw(2)) and not torch.equal(draw(2), draw(2, 1))
    assert (draw(50) - exact).abs().mean() < 0.2 and (draw(1) - exact).abs().mean() > 2*(draw(50) - exact).abs().mean()


def test_likelihood_in_float32_and_of_a_network():
    x = noisy(S, 1).sample((10,))
    low = ode_log_likelihood(FREE, oracle(), x.float())
    assert low.dtype == torch.float32 and (low - ode_log_likelihood(FREE, oracle(), x)).abs().max() < 1e-2
    network, reverse, _ = load_run('digits')
    found = ode_log_likelihood(reverse, network, torch.zeros(2, 1, 8, 8), [1, 300, 1000], probes=1, generator=seed())
    assert found.shape == (2,) and found.isfinite().all() and all(p.grad is None for p in network.parameters())


def test_likelihood_goes_up():
    with pytest.raises(ValueError, match='rise'): ode_log_likelihood(FREE, oracle(), torch.zeros(1, 2), [5, 1])
