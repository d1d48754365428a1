"The samplers against diffusers and golden numbers."
import pytest
import torch
from diffusers import DDIMScheduler
from ddpm_course.ddim import SPACINGS, ddim_encode, ddim_sample, ddim_steps, ddim_timesteps, slerp
from ddpm_course.forward import q_sample
from ddpm_course.reverse import GaussianOracle, MixtureOracle, Reverse
from ddpm_course.sampling import ddpm_sample, ddpm_steps, interpolate
from ddpm_course.schedules import cosine_schedule, linear_schedule

S = linear_schedule()
X = (torch.arange(768)/768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2).contiguous()
GOLDEN_MODEL = lambda x, t: x*((t - 1)/t).reshape(-1, 1, 1, 1).float()


@pytest.mark.parametrize('predict, full, ten', [('eps', 258.9606, 172.0067), ('v', 202.0296, 52.5302)])
def test_goldens(predict, full, ten):
    reverse = Reverse(S, predict)
    assert abs(ddpm_sample(reverse, GOLDEN_MODEL, X.shape, x_T=X, generator=torch.Generator().manual_seed(0)).abs().sum() - full) < 0.005
    assert abs(ddim_sample(reverse, GOLDEN_MODEL, X.shape, 10, spacing='leading', x_T=X).abs().sum() - ten) < 0.005


@pytest.mark.parametrize('eta', [0., 0.5, 1.])
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('spacing', ['leading', 'trailing'])
@pytest.mark.parametrize('predict, theirs', [('eps', 'epsilon'), ('x0', 'sample'), ('v', 'v_prediction')])
def test_ddim_agrees_with_diffusers(eta, clip, spacing, predict, theirs):
    scheduler = DDIMScheduler(1000, prediction_type=theirs, clip_sample=clip, timestep_spacing=spacing)
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = S.alpha_bar[1:], torch.tensor(1.).double()
    scheduler.set_timesteps(20)
    x, g = X.double() - 0.5, torch.Generator().manual_seed(0)
    for t in scheduler.timesteps:
        out = GOLDEN_MODEL(x, torch.full((4,), int(t) + 1)).double()
        noise = torch.randn(x.shape, generator=g) if t != scheduler.timesteps[-1] else torch.zeros_like(x)
        x = scheduler.step(out, t, x, eta=eta, use_clipped_model_output=clip, variance_noise=noise.double()).prev_sample
    ours = ddim_sample(Reverse(S, predict, clip=clip), lambda x, t: GOLDEN_MODEL(x, t).double(), X.shape, 20, eta, spacing, X.double() - 0.5, torch.Generator().manual_seed(0))
    assert (ours - x).abs().max() < 1e-5*max(1, x.abs().max().item())


def test_ddim_with_all_noise_on_all_steps_is_ddpm():
    reverse = Reverse(linear_schedule(100))
    a, b = (f(reverse, GOLDEN_MODEL, X.shape, x_T=X, generator=torch.Generator().manual_seed(0), **k) for f, k in ((ddpm_sample, {}), (ddim_sample, dict(steps=100, eta=1.))))
    assert (a - b).abs().max() < 1e-5


def test_exact_ddim_for_gaussian_data():
    "With the exact ε for N(0, s²), one pass of deterministic DDIM maps N(0, 1) to about N(0, s²)."
    s = cosine_schedule(1000)
    x = ddim_sample(Reverse(s, clip=False), GaussianOracle(s, 0., 0.25), (20_000, 1), 200)
    assert abs(x.std() - 0.5) < 0.02


def test_encode_then_decode():
    s = cosine_schedule(1000)
    oracle, reverse = MixtureOracle(s, torch.tensor([[-0.6], [0.6]]), 0.02), Reverse(s, clip=False)
    x0 = torch.tensor([[-0.75], [-0.5], [0.55], [0.7]])
    errors = [(ddim_sample(reverse, oracle, x0.shape, n, x_T=ddim_encode(reverse, oracle, x0, n)) - x0).abs().max().item() for n in (20, 100, 500)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02


@pytest.mark.parametrize('spacing', SPACINGS)
@pytest.mark.parametrize('T, steps', [(1000, 1), (1000, 10), (1000, 999), (1000, 1000), (7, 5), (1, 1), (500, 333)])
def test_spacings(spacing, T, steps):
    times = ddim_timesteps(T, steps, spacing)
    assert len(times) == steps and times == sorted(set(times), reverse=True) and 1 <= times[-1] and times[0] <= T
    if spacing in ('uniform', 'trailing'): assert times[0] == T
    if spacing == 'uniform' and steps > 1: assert times[-1] == 1


def test_spacings_of_the_papers():
    assert ddim_timesteps(1000, 10, 'leading') == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    assert ddim_timesteps(1000, 4, 'trailing') == [1000, 750, 500, 250]


@pytest.mark.parametrize('bad', [dict(steps=0), dict(steps=1001), dict(steps=2.5), dict(eta=-0.1), dict(eta=1.5), dict(spacing='even'), dict(x_T=torch.zeros(1)), dict(seeds=[1]), dict(seeds=[1]*4, generator=torch.Generator())])
def test_ddim_at_the_door(bad):
    with pytest.raises(ValueError): ddim_sample(Reverse(S), GOLDEN_MODEL, X.shape, **bad)


@pytest.mark.parametrize('sample', [lambda *a, **k: ddpm_sample(*a, **k), lambda *a, **k: ddim_sample(*a, steps=7, eta=0.5, **k)])
def test_image_i_does_not_depend_on_the_batch(sample):
    reverse = Reverse(linear_schedule(50))
    all_four = sample(reverse, GOLDEN_MODEL, X.shape, seeds=[3, 4, 5, 6])
    assert torch.equal(all_four[2:3], sample(reverse, GOLDEN_MODEL, (1, 3, 8, 8), seeds=[5]))
    assert not torch.equal(all_four[0], all_four[1])


def test_steps_tell_the_whole_story():
    reverse = Reverse(linear_schedule(50))
    story = list(ddpm_steps(reverse, GOLDEN_MODEL, X.shape, seeds=[1, 2, 3, 4]))
    assert [t for t, _, _ in story] == list(range(50, -1, -1))
    assert torch.equal(story[-1][1], ddpm_sample(reverse, GOLDEN_MODEL, X.shape, seeds=[1, 2, 3, 4]))
    for t, x, x0_hat in story[:-1]: assert torch.equal(x0_hat, reverse.predict_x0(GOLDEN_MODEL, x, t))
    assert [t for t, _, _ in ddim_steps(reverse, GOLDEN_MODEL, X.shape, 5)] == [50, 38, 26, 13, 1, 0]


def test_interpolation_ends_are_reconstructions():
    s = linear_schedule(100)
    a, b = torch.full((1, 2, 2), -0.5), torch.full((1, 2, 2), 0.5)
    oracle = MixtureOracle(s, torch.stack([a, b]), 1e-4)
    x = interpolate(Reverse(s), oracle, a, b, 20, torch.tensor([0., 1.]), torch.Generator().manual_seed(0))
    assert (x - torch.stack([a, b])).abs().max() < 0.1
    with pytest.raises(ValueError, match=r'1\.\.100'): interpolate(Reverse(s), oracle, a, b, 0, torch.tensor([0.5]))
    with pytest.raises(ValueError, match='one shape'): interpolate(Reverse(s), oracle, a, b[:, :1], 5, torch.tensor([0.5]))


def test_slerp_keeps_the_length():
    a, b = torch.randn(2, 1000)
    arc = slerp(a, b, torch.linspace(0, 1, 5))
    assert torch.allclose(arc[0], a, atol=1e-4) and torch.allclose(arc[-1], b, atol=1e-4)
    assert (arc.norm(dim=1)/31.6 - 1).abs().max() < 0.1 and ((a + b)/2).norm() < 25
    assert torch.allclose(slerp(a, a, torch.tensor([0.3]))[0], a)


def test_stepping_does_not_change_its_input():
    x = X.clone()
    ddpm_sample(Reverse(linear_schedule(50)), GOLDEN_MODEL, X.shape, x_T=x)
    q_sample(S, x, 5)
    assert torch.equal(x, X)
