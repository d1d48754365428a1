"The samplers against other libraries step by step, against exact solutions, and against each other; what they keep and what they leave behind."
import copy
import weakref
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm
from ddpm_course.ddim import REACH_T, SPACINGS, ddim_sample, ddim_steps, ddim_timesteps, dpm_sample, dpm_steps, heun_sample, heun_steps
from ddpm_course.forward import q_sample
from ddpm_course.improved import fewer_steps
from ddpm_course.reverse import GaussianOracle, MixtureOracle, Reverse, WithVariance, convert
from ddpm_course.sampling import ddpm_branches, ddpm_sample, ddpm_steps, interpolate, last
from ddpm_course.schedules import cosine_schedule, linear_schedule

S = linear_schedule()
X = ((torch.arange(768)/768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2) - 0.5).double()
PREDICTIONS = [('eps', 'epsilon'), ('x0', 'sample'), ('v', 'v_prediction')]


def smooth_model(x, t):
    "Not linear in x, and different at each t; float64 for float64."
    t = t.reshape(-1, 1, 1, 1).to(x.dtype)/1000
    return torch.sin(2*x + t)*(0.5 + t) + 0.1*x


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def float64(scheduler):
    "A diffusers scheduler with float64 tables equal to ours."
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = S.beta[1:], S.alpha[1:], S.alpha_bar[1:]
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def their_ddpm(monkeypatch, predict, variance, clip, steps, spacing):
    "diffusers' DDPMScheduler run from X on float32 draws of a generator seeded 0, as NoiseSource makes them."
    scheduler = float64(DDPMScheduler(1000, prediction_type=predict, variance_type=variance, clip_sample=clip, timestep_spacing=spacing))
    scheduler.set_timesteps(steps)
    g, x = seeded(), X
    monkeypatch.setattr(scheduling_ddpm, 'randn_tensor', lambda shape, **_: torch.randn(shape, generator=g).double())
    for t in scheduler.timesteps: x = scheduler.step(smooth_model(x, torch.full((4,), int(t) + 1)), t, x).prev_sample
    return x


def close(a, b, tolerance=1e-5): return (a - b).abs().max() < tolerance*max(1, b.abs().max().item())


@pytest.mark.parametrize('predict, theirs', PREDICTIONS)
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('variance, their_variance', [('beta_tilde', 'fixed_small'), ('beta', 'fixed_large')])
def test_all_ancestral_steps_agree_with_diffusers(monkeypatch, predict, theirs, clip, variance, their_variance):
    wanted = their_ddpm(monkeypatch, theirs, their_variance, clip, 1000, 'leading')
    assert close(ddpm_sample(Reverse(S, predict, variance, clip), smooth_model, X.shape, X, seeded()), wanted)


@pytest.mark.parametrize('predict, theirs', PREDICTIONS)
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('spacing, sigma_hat', [('leading', False), ('trailing', False), ('leading', True)])  # at the end of trailing steps they add β's noise
def test_few_ancestral_steps_agree_with_diffusers(monkeypatch, predict, theirs, clip, spacing, sigma_hat):
    wanted = their_ddpm(monkeypatch, theirs, 'fixed_large' if sigma_hat else 'fixed_small', clip, 20, spacing)
    assert close(ddim_sample(Reverse(S, predict, clip=clip), smooth_model, X.shape, 20, 1., spacing, X, seeded(), sigma_hat=sigma_hat), wanted)


@pytest.mark.parametrize('variance, sigma_hat', [('beta_tilde', False), ('beta', True)])
def test_ddim_with_eta_1_is_the_ancestral_sampler_of_the_shortened_chain(variance, sigma_hat):
    "Uniform steps of lesson 12's chain are T, T - T/S, …: trailing."
    reverse = Reverse(S, variance=variance)
    wanted = ddpm_sample(*fewer_steps(reverse, smooth_model, 25), X.shape, X, seeded())
    assert close(ddim_sample(reverse, smooth_model, X.shape, 25, 1., 'trailing', X, seeded(), sigma_hat=sigma_hat), wanted)


@pytest.mark.parametrize('sigma_hat, variance', [(False, 'beta_tilde'), (True, 'beta')])
@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
def test_ddim_with_eta_1_on_all_steps_is_ddpm(predict, sigma_hat, variance):
    reverse, model = Reverse(linear_schedule(100), predict, variance), lambda x, t: 0.3*torch.sin(x)
    wanted = ddpm_sample(reverse, model, X.shape, X, seeded())
    assert close(ddim_sample(reverse, model, X.shape, 100, 1., x_T=X, generator=seeded(), sigma_hat=sigma_hat), wanted)


def test_sigma_hat_belongs_to_eta_1():
    for eta in (0., 0.5):
        with pytest.raises(ValueError, match='eta = 1'): ddim_sample(Reverse(S), smooth_model, X.shape, 5, eta, sigma_hat=True)


def their_dpm(predict, clip, times):
    "diffusers' DPM-Solver++ 2M on our levels (theirs count from 0)."
    scheduler = DPMSolverMultistepScheduler(1000, algorithm_type='dpmsolver++', solver_order=2, prediction_type=predict, final_sigmas_type='zero', lower_order_final=False,
                                                    thresholding=clip, sample_max_value=1.0, dynamic_thresholding_ratio=1.0)
    scheduler.set_timesteps(timesteps=[t - 1 for t in times])
    ab = S.alpha_bar[times + [0]]
    scheduler.sigmas = ((1 - ab)/ab).sqrt()
    x = X
    for t in scheduler.timesteps: x = scheduler.step(smooth_model(x, torch.full((4,), int(t) + 1)), t, x).prev_sample
    return x


@pytest.mark.parametrize('predict, theirs', PREDICTIONS)
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('steps, spacing', [(20, 'trailing'), (12, 'leading'), (7, 'quadratic'), (20, 'uniform')])
def test_dpm_solver_agrees_with_diffusers(predict, theirs, clip, steps, spacing):
    wanted = their_dpm(theirs, clip, ddim_timesteps(1000, steps, spacing))
    assert close(dpm_sample(Reverse(S, predict, clip=clip), smooth_model, X.shape, steps, spacing, X), wanted)


@pytest.mark.parametrize('steps', [5, 20])
def test_heun_agrees_with_diffusers(steps):
    "Their state is x/√ᾱ, and they ask at each level twice: at the end of a step and at the start of the next."
    scheduler = HeunDiscreteScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule='linear', timestep_spacing='trailing')
    times = ddim_timesteps(1000, steps, 'trailing')
    scheduler.set_timesteps(steps)
    ab = S.alpha_bar[times + [0]]
    sigma = ((1 - ab)/ab).sqrt()
    scheduler.sigmas = torch.cat([sigma[:1], sigma[1:-1].repeat_interleave(2), sigma[-1:]])
    assert scheduler.timesteps.tolist()[::2] == [t - 1 for t in times]
    y = X/ab[0].sqrt()
    for t in scheduler.timesteps: y = scheduler.step(smooth_model(scheduler.scale_model_input(y, t), torch.full((4,), int(t) + 1)), t, y).prev_sample
    assert close(heun_sample(Reverse(S, clip=False), smooth_model, X.shape, steps, 'trailing', X, sigma_max=float('inf')), y)


def counted(model):
    "A model that counts its calls."
    def call(x, t): call.n += 1; return model(x, t)
    call.n = 0
    return call


def test_calls_of_the_model():
    for run, expected in ((lambda m: ddim_sample(Reverse(S), m, X.shape, 9), 9), (lambda m: dpm_sample(Reverse(S), m, X.shape, 9), 9),
                          (lambda m: heun_sample(Reverse(S), m, X.shape, 9, sigma_max=1e9), 17), (lambda m: heun_sample(Reverse(S), m, X.shape, 9), 16)):  # σ_T = 157 > 80
        run(model := counted(smooth_model))
        assert model.n == expected


# every sampler, as (reverse, model, shape, x_T, generator, seeds) -> iterator; all in about 40 calls or on all 40 steps of a schedule
SAMPLERS = {
    'ancestral': lambda r, m, shape, **k: ddpm_steps(r, m, shape, **k),
    'η = 0': lambda r, m, shape, **k: ddim_steps(r, m, shape, 40, **k),
    'η = 0.5': lambda r, m, shape, **k: ddim_steps(r, m, shape, 40, 0.5, **k),
    'η = 1': lambda r, m, shape, **k: ddim_steps(r, m, shape, 40, 1., **k),
    'σ̂': lambda r, m, shape, **k: ddim_steps(r, m, shape, 40, 1., sigma_hat=True, **k),
    'DPM-Solver++ 2M': lambda r, m, shape, **k: dpm_steps(r, m, shape, 40, **k),
    'Heun': lambda r, m, shape, **k: heun_steps(r, m, shape, 20, **k),
}
every_sampler = pytest.mark.parametrize('sampler', SAMPLERS.values(), ids=SAMPLERS)


@every_sampler
def test_image_i_is_the_same_at_any_batch_size(sampler):
    reverse = Reverse(linear_schedule(40))
    run = lambda seeds: last(sampler(reverse, smooth_model, (len(seeds), 3, 8, 8), seeds=seeds))
    all_four = run([3, 4, 5, 6])
    assert torch.equal(all_four[2:3], run([5])) and torch.equal(all_four[1:3], run([4, 5])) and not torch.equal(all_four[0], all_four[1])


@every_sampler
def test_nothing_is_left_behind(sampler):
    "The same call gives the same result, and neither x_T, nor the settings, nor the global generator have changed."
    reverse, x = Reverse(linear_schedule(40)), X.float()
    before, state, start = copy.deepcopy(vars(reverse.schedule)), torch.get_rng_state(), x.clone()
    settings = {k: v for k, v in vars(reverse).items() if k != 'schedule'}
    first, second = (last(sampler(reverse, smooth_model, x.shape, x_T=x, generator=seeded())) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(x, start) and torch.equal(torch.get_rng_state(), state)
    assert settings == {k: v for k, v in vars(reverse).items() if k != 'schedule'}
    assert all(torch.equal(torch.as_tensor(before[k]), torch.as_tensor(v)) for k, v in vars(reverse.schedule).items())
    assert not first.requires_grad


@every_sampler
def test_memory_is_flat_in_the_number_of_steps(sampler):
    "At no time are more than a few of the states that were handed out alive."
    seen, most = [], 0
    for _, x, x0_hat in sampler(Reverse(linear_schedule(40)), smooth_model, X.shape, seeds=[1, 2, 3, 4]):
        seen += [weakref.ref(x), weakref.ref(x0_hat)]
        most = max(most, len({id(r()) for r in seen if r() is not None}))
    assert len(seen) >= 42 and most <= 5


@every_sampler
def test_no_gradient_is_kept(sampler):
    layer = torch.nn.Conv2d(3, 3, 1)
    for _, x, x0_hat in sampler(Reverse(linear_schedule(40)), lambda x, t: layer(x), X.shape, seeds=[1, 2, 3, 4]): assert not x.requires_grad and not x0_hat.requires_grad


@every_sampler
def test_the_last_state_is_the_sample_and_the_steps_fall(sampler):
    story = list(sampler(Reverse(linear_schedule(40)), smooth_model, X.shape, seeds=[1, 2, 3, 4]))
    times = [t for t, _, _ in story]
    assert times == sorted(set(times), reverse=True) and times[0] == 40 and times[-1] == 0
    assert torch.equal(story[-1][1], story[-1][2]) and torch.equal(story[-1][1], story[-2][2])  # at the end the guess is the picture
    assert all(x.shape == x0_hat.shape == X.shape and x.dtype == x0_hat.dtype == torch.float32 for _, x, x0_hat in story)


# exact targets: (name, sampler on T = 1000 or a chain of its own) with enough steps, and an oracle in the place of the network
CONVERGED = {
    'ancestral, β̃': lambda s, o, x, g: ddpm_sample(Reverse(s, 'x0', 'beta_tilde', clip=False), o, x.shape, x, g),
    'ancestral, β': lambda s, o, x, g: ddpm_sample(Reverse(s, 'x0', 'beta', clip=False), o, x.shape, x, g),
    'ancestral, learned': lambda s, o, x, g: ddpm_sample(r := Reverse(s, 'x0', 'learned', clip=False), WithVariance(o, r), x.shape, x, g),
    'η = 0': lambda s, o, x, g: ddim_sample(Reverse(s, 'x0', clip=False), o, x.shape, 200, 0., 'uniform', x, g),
    'η = 0.5': lambda s, o, x, g: ddim_sample(Reverse(s, 'x0', clip=False), o, x.shape, 200, 0.5, 'uniform', x, g),
    'η = 1': lambda s, o, x, g: ddim_sample(Reverse(s, 'x0', clip=False), o, x.shape, 200, 1., 'uniform', x, g),
    'σ̂': lambda s, o, x, g: ddim_sample(Reverse(s, 'x0', clip=False), o, x.shape, 200, 1., 'uniform', x, g, sigma_hat=True),
    'DPM-Solver++ 2M': lambda s, o, x, g: dpm_sample(Reverse(s, 'x0', clip=False), o, x.shape, 60, 'trailing', x),
    'Heun': lambda s, o, x, g: heun_sample(Reverse(s, 'x0', clip=False), o, x.shape, 40, 'trailing', x),
}
converged = pytest.mark.parametrize('sample', CONVERGED.values(), ids=CONVERGED)
N = 20_000


@converged
def test_mean_and_covariance_of_a_gaussian(sample):
    s, mean, cov = cosine_schedule(200), torch.tensor([0.5, -0.3]), torch.tensor([[0.30, 0.12], [0.12, 0.20]])
    x = sample(s, GaussianOracle(s, mean, cov, 'x0'), torch.randn(N, 2, generator=seeded(1)).double(), seeded(2))
    assert (x.mean(0) - mean).abs().max() < 5*(0.3/N)**0.5           # five standard errors
    assert (x.T.cov() - cov).abs().max() < 0.02                      # of which 0.01 are five standard errors, the rest is the steps


@converged
def test_modes_and_weights_of_a_mixture(sample):
    s, means, weights = cosine_schedule(200), torch.tensor([[-0.8, 0.], [0.6, 0.5], [0.5, -0.7]]), torch.tensor([0.5, 0.3, 0.2])
    x = sample(s, MixtureOracle(s, means, 0.01, weights, 'x0'), torch.randn(N, 2, generator=seeded(3)).double(), seeded(4))
    distance, mode = torch.cdist(x, means.double()).min(1)
    assert (torch.bincount(mode, minlength=3)/N - weights).abs().max() < 0.02
    for k in range(3): assert (x[mode == k].mean(0) - means[k]).abs().max() < 0.01 and abs(x[mode == k].std(0).mean() - 0.1) < 0.01


def quantile_map(schedule, means, variance, weights, z):
    "Where the probability flow of a one-dimensional mixture takes z: it keeps the order, so it maps quantiles of x_T to quantiles of x_0."
    def cdf(v, ab): return (weights*torch.special.ndtr((v - ab.sqrt()*means)/(ab*variance + 1 - ab).sqrt())).sum(1, keepdim=True)
    goal, low, high = cdf(z, schedule.alpha_bar[-1]), torch.full_like(z, -9), torch.full_like(z, 9)
    for _ in range(60):
        middle = (low + high)/2
        under = cdf(middle, schedule.alpha_bar[0]) < goal
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return low


def test_the_deterministic_samplers_follow_the_flow():
    "Errors fall with the steps, for 2M and Heun much faster than for DDIM; 2M beats DDIM from ten calls on."
    s, means, weights = cosine_schedule(), torch.tensor([-0.6, 0.7]).double(), torch.tensor([0.4, 0.6]).double()
    oracle, reverse, z = MixtureOracle(s, means[:, None], 0.04, weights), Reverse(s, clip=False), torch.linspace(-2.5, 2.5, 201).double()[:, None]
    exact, density = quantile_map(s, means, 0.04, weights, z), torch.softmax(-z[:, 0]**2/2, 0)
    error = lambda x: ((x - exact).abs()[:, 0]*density).sum().item()
    runs = {'DDIM': lambda n: ddim_sample(reverse, oracle, z.shape, n, spacing='trailing', x_T=z), '2M': lambda n: dpm_sample(reverse, oracle, z.shape, n, x_T=z), 'Heun': lambda n: heun_sample(reverse, oracle, z.shape, n//2, x_T=z)}
    e = {name: np.array([error(f(n)) for n in (10, 20, 40, 80)]) for name, f in runs.items()}
    assert all((v[1:] < v[:-1]).all() for v in e.values()) and (e['2M'] < e['DDIM']).all()
    assert 1.7 < e['DDIM'][2]/e['DDIM'][3] < 2.3                     # first order
    assert e['2M'][2]/e['2M'][3] > 3 and e['Heun'][2]/e['Heun'][3] > 2.5 and e['2M'][3] < 0.15*e['DDIM'][3]


@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
@pytest.mark.parametrize('sample', [dpm_sample, heun_sample])
def test_solvers_take_any_prediction(sample, predict):
    "The same network told in other terms gives the same pictures, clipped or not."
    for clip in (True, False):
        told = lambda x, t: convert(S, smooth_model(x, t), x, t, 'x0', predict)
        assert close(sample(Reverse(S, predict, clip=clip), told, X.shape, 15, x_T=X), sample(Reverse(S, 'x0', clip=clip), smooth_model, X.shape, 15, x_T=X))


@pytest.mark.parametrize('sample', [dpm_sample, heun_sample])
@pytest.mark.parametrize('bad', [dict(steps=0), dict(steps=1001), dict(steps=2.5), dict(spacing='even'), dict(x_T=torch.zeros(1)), dict(seeds=[1]), dict(seeds=[1]*4, generator=torch.Generator())])
def test_solvers_at_the_door(sample, bad):
    with pytest.raises(ValueError): sample(Reverse(S), smooth_model, X.shape, **bad)


def test_the_end_of_2m():
    with pytest.raises(ValueError, match='euler_last'): dpm_sample(Reverse(S), smooth_model, X.shape, euler_last=0)
    reverse = Reverse(S, clip=False)
    ddim = ddim_sample(reverse, smooth_model, X.shape, 6, spacing='trailing', x_T=X)
    assert close(dpm_sample(reverse, smooth_model, X.shape, 6, x_T=X, euler_last=6), ddim, 1e-9)   # without memory it is DDIM
    assert not close(dpm_sample(reverse, smooth_model, X.shape, 6, x_T=X), ddim)


@pytest.mark.parametrize('sample', [ddim_sample, dpm_sample, heun_sample])
@pytest.mark.parametrize('spacing', SPACINGS)
@pytest.mark.parametrize('T, steps', [(1, 1), (2, 2), (10, 1), (1000, 1), (1000, 2), (1000, 3)])
def test_very_few_steps(sample, spacing, T, steps):
    x = sample(Reverse(cosine_schedule(T)), smooth_model, (2, 1, 4, 4), steps, spacing=spacing, seeds=[0, 1])
    assert x.isfinite().all() and x.abs().max() <= 1


@pytest.mark.parametrize('spacing', SPACINGS)
def test_spacings_reach_T_or_say_that_they_do_not(spacing):
    pairs = [(T, steps) for T in (1, 2, 7, 50, 1000) for steps in sorted({1, 2, 3, 5, 10, 20, 50, T//2, T - 1, T}) if 1 <= steps <= T]
    for T, steps in pairs:
        times = ddim_timesteps(T, steps, spacing)
        assert len(set(times)) == steps and times == sorted(times, reverse=True) and 1 <= times[-1] <= times[0] <= T
        if spacing in REACH_T: assert times[0] == T
    if spacing not in REACH_T:
        assert ddim_timesteps(1000, 20, spacing)[0] < 1000 and f'{spacing}:' in ddim_timesteps.__doc__ and 'does not reach T' in ddim_timesteps.__doc__.split(f'{spacing}:')[1]


def test_branches_share_their_beginning():
    reverse = Reverse(linear_schedule(40))
    story = {t: (x, x0_hat) for t, x, x0_hat in ddpm_branches(reverse, smooth_model, X.shape, 25, seeded())}
    assert list(story) == list(range(40, -1, -1))
    for t, (x, x0_hat) in story.items():
        assert x.shape == x0_hat.shape == X.shape
        assert all(torch.equal(x[0], row) for row in x[1:]) == (t >= 25)
    alone = {t: x for t, x, _ in ddpm_steps(reverse, smooth_model, (1, 3, 8, 8), generator=seeded())}
    assert torch.equal(story[25][0][2:3], alone[25])
    with pytest.raises(ValueError, match=r'1\.\.40'): next(ddpm_branches(reverse, smooth_model, X.shape, 41))


@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('mixing', ['linear', 'constant'])
def test_interpolation_mixes_as_it_says(shared, mixing):
    "A silent reverse process (one step, x̂_0 = x_t) hands back the mixture at t = 1; its noise has the variance of the table in lesson 08."
    s = cosine_schedule(1)  # √ᾱ_1 = √0.001
    a = b = torch.zeros(200_000)
    x = interpolate(Reverse(s, 'x0', clip=False), lambda x, t: x, a, b, 1, torch.tensor([0., 0.3, 1.]), seeded(), shared, mixing)
    p, q = (0.7, 0.3) if mixing == 'linear' else ((1 - 0.09)**0.5, 0.3)
    expected = torch.tensor([1., (p + q)**2 if shared else p**2 + q**2, 1.])*(1 - s.alpha_bar[1]).float()
    assert (x.var(1)/expected - 1).abs().max() < 0.02
    ones = interpolate(Reverse(s, 'x0', clip=False), lambda x, t: x, a + 1, b + 1, 1, torch.tensor([0.3]), seeded(), shared, mixing)
    assert abs((ones - x[1:2]).mean()/s.alpha_bar[1].sqrt() - (p + q)) < 1e-3
    assert torch.equal(x[0], x[2]) == shared


def test_interpolation_at_the_door():
    with pytest.raises(ValueError, match='linear, constant'): interpolate(Reverse(S), smooth_model, X[0], X[1], 5, torch.tensor([0.5]), mixing='sphere')


def test_progressive_guesses_come_closer():
    "x̂_0 along the chain ends in the sample, and its distance from it falls on the whole."
    s = cosine_schedule(100)
    oracle = MixtureOracle(s, torch.tensor([[-0.8, 0.2], [0.8, -0.2]]), 0.01, predict='x0')
    for sampler in (ddpm_steps, lambda *a, **k: dpm_steps(*a, 100, **k)):
        guesses = torch.stack([x0_hat for _, _, x0_hat in sampler(Reverse(s, 'x0'), oracle, (500, 2), generator=seeded())])
        distance = (guesses - guesses[-1]).norm(dim=2).mean(1)
        assert distance[-1] == 0 and distance[0] > distance[30] > distance[60] > distance[90]


def test_noising_and_sampling_leave_the_batch_alone():
    x = X.clone()
    for run in (lambda: dpm_sample(Reverse(S), smooth_model, x.shape, 5, x_T=x), lambda: heun_sample(Reverse(S), smooth_model, x.shape, 5, x_T=x), lambda: q_sample(S, x, 5)): run()
    assert torch.equal(x, X)
