"The two processes against simulation, brute force and diffusers."
import itertools
import pytest
import torch
from diffusers import DDPMScheduler
from ddpm_course.forward import posterior_variance, q_posterior, q_sample, q_step
from ddpm_course.reverse import PREDICTIONS, DatasetOracle, GaussianOracle, MixtureOracle, Reverse, convert
from ddpm_course.schedules import cosine_schedule, linear_schedule

S = linear_schedule()


def test_walking_equals_jumping():
    s, x0 = linear_schedule(100), torch.full((200_000, 1), 0.7)
    x = x0
    for t in range(1, 41): x = q_step(s, x, t)
    a = s.alpha_bar[40].item()
    for cloud in (x, q_sample(s, x0, 40)):
        assert abs(cloud.mean() - 0.7*a**0.5) < 0.01 and abs(cloud.var() - (1 - a)) < 0.01


def test_variance_is_preserved():
    x = torch.randn(200_000, 1)
    for t in (1, 500, 1000): assert abs(q_sample(S, x, t).var() - 1) < 0.02


@pytest.mark.parametrize('t', [1, 2, 50, 100])
def test_posterior_against_bayes_on_a_grid(t):
    s, x0, xt = linear_schedule(100), 0.6, -0.4
    grid = torch.linspace(-6, 6, 1_200_001, dtype=torch.float64)
    a_prev, beta = s.alpha_bar[t - 1].item(), s.beta[t].item()
    if t == 1: expected = x0, 0.
    else:
        p = torch.softmax(-0.5*(grid - a_prev**0.5*x0)**2/(1 - a_prev) - 0.5*(xt - (1 - beta)**0.5*grid)**2/beta, 0)
        mean = (p*grid).sum()
        expected = mean.item(), (p*(grid - mean)**2).sum().item()
    mean, variance, _ = q_posterior(s, torch.tensor([[x0]]).double(), torch.tensor([[xt]]).double(), t)
    assert abs(mean.item() - expected[0]) < 1e-6 and abs(variance.item() - expected[1]) < 1e-6


def test_posterior_variance_goldens():
    assert torch.allclose(posterior_variance(S, torch.tensor([488, 1000])), torch.tensor([0.00979157, 0.01999998]).double(), atol=1e-8, rtol=0)


def test_noise_under_bf16_is_not_lost():
    x0 = torch.zeros(10_000, 1, dtype=torch.bfloat16)
    x = q_sample(S, x0, 1)
    assert x.dtype == torch.bfloat16 and abs(x.float().std() - 0.01) < 5e-4


def test_shapes_at_the_door():
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match='noise'): q_sample(S, x, 5, torch.zeros(2, 1, 4, 5))
    with pytest.raises(ValueError, match='one shape'): q_posterior(S, x, x[:1], 5)
    for t in (0, 1001):
        for f in (lambda: q_sample(S, x, t), lambda: q_step(S, x, t), lambda: q_posterior(S, x, x, t), lambda: Reverse(S).step(lambda x, t: x, x, t)):
            with pytest.raises(ValueError, match=r'1\.\.1000'): f()


@pytest.mark.parametrize('a, b', list(itertools.permutations(PREDICTIONS, 2)))
@pytest.mark.parametrize('schedule', [linear_schedule(1000), cosine_schedule(1000)], ids=['linear', 'cosine'])
def test_conversions_go_round(a, b, schedule):
    t = torch.arange(1, 1001 if schedule.beta[-1] < 0.1 else 990)
    xt, value = torch.randn(2, len(t), 2, 3, 3, dtype=torch.float64)
    again = convert(schedule, convert(schedule, value, xt, t, a, b), xt, t, b, a)
    assert (again - value).abs().max() < 1e-9


THEIR_VARIANCE = {'beta_tilde': 'fixed_small', 'beta': 'fixed_large', 'learned_range': 'learned_range'}
THEIR_PREDICTION = {'eps': 'epsilon', 'x0': 'sample', 'v': 'v_prediction'}


@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('variance', THEIR_VARIANCE)
@pytest.mark.parametrize('predict', THEIR_PREDICTION)
def test_step_agrees_with_diffusers(predict, variance, clip):
    theirs = DDPMScheduler(1000, variance_type=THEIR_VARIANCE[variance], prediction_type=THEIR_PREDICTION[predict], clip_sample=clip)
    theirs.betas, theirs.alphas, theirs.alphas_cumprod, theirs.one = S.beta[1:], S.alpha[1:], S.alpha_bar[1:], torch.tensor(1.0).double()
    reverse, worst = Reverse(S, predict, variance, clip), 0.
    for t in [1, 2, 3, *range(10, 1000, 90), 999, 1000]:
        x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        out = torch.randn(2, 6 if variance == 'learned_range' else 3, 4, 4, dtype=torch.float64)
        noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        expected = theirs.step(out, t - 1, x, generator=torch.Generator().manual_seed(t)).prev_sample
        worst = max(worst, (reverse.step(lambda *_: out, x, t, noise) - expected).abs().max().item())
    assert worst < 1e-6


def test_no_noise_at_the_last_step():
    x, out = torch.randn(2, 4, 1, 3, 3)
    assert torch.equal(*(Reverse(S).step(lambda *_: out, x, 1, n) for n in torch.randn(2, 4, 1, 3, 3)))
    assert not torch.equal(*(Reverse(S).step(lambda *_: out, x, 2, n) for n in torch.randn(2, 4, 1, 3, 3)))


def test_variance_at_t_1():
    x = torch.zeros(1, 1, 2, 2)
    variance = lambda s, **k: Reverse(s, **k).mean_variance(lambda x, t: x, x, 1)[1].item()
    b2 = posterior_variance(S, torch.tensor([2])).item()
    for kind in ('beta', 'beta_tilde'):
        assert variance(S, variance=kind) == pytest.approx(b2, rel=1e-5)
        assert variance(S, variance=kind, sigma_1='beta') == pytest.approx(1e-4, rel=1e-5)
    assert variance(cosine_schedule(1)) == pytest.approx(cosine_schedule(1).beta[1].item(), rel=1e-5)


@pytest.mark.parametrize('argument', [dict(predict='epsilon'), dict(variance='fixed'), dict(sigma_1='zero')])
def test_unknown_choices_list_the_known(argument):
    with pytest.raises(ValueError, match='must be one of'): Reverse(S, **argument)


def test_a_model_of_the_wrong_shape_is_told_so():
    with pytest.raises(ValueError, match='twice the channels'): Reverse(S, variance='learned').step(lambda x, t: x, torch.zeros(1, 1, 2, 2), 5)


@pytest.mark.parametrize('t', [1, 40, 100])
def test_mixture_oracle_against_brute_force(t):
    s = linear_schedule(100)
    means, stds, weights = torch.tensor([[-0.8], [0.1], [0.9]]).double(), torch.tensor([0.1, 0.3, 0.05]).double(), torch.tensor([1., 2., 3.]).double()
    x0 = torch.linspace(-3, 3, 60_001, dtype=torch.float64)[:, None]
    prior = (weights*torch.exp(-0.5*((x0 - means.T)/stds)**2)/stds).sum(1)
    xt = torch.tensor([[-1.], [0.2], [1.5]]).double()
    a = s.alpha_bar[t]
    p = prior*torch.exp(-0.5*(xt - a.sqrt()*x0.T)**2/(1 - a))
    expected = (p @ x0)/p.sum(1, keepdim=True)
    assert (MixtureOracle(s, means, stds**2, weights, 'x0')(xt, t) - expected).abs().max() < 1e-5


@pytest.mark.parametrize('predict', PREDICTIONS)
def test_gaussian_oracle_is_a_mixture_of_one(predict):
    m = torch.randn(1, 4)
    xt, t = torch.randn(6, 4), torch.tensor([1, 5, 100, 500, 999, 1000])
    mixture = MixtureOracle(S, m, 0.3, predict=predict)(xt, t)
    for cov in (0.3, 0.3*torch.eye(4)): assert torch.allclose(GaussianOracle(S, m[0], cov, predict)(xt, t), mixture, atol=1e-4)


def test_gaussian_oracle_with_correlation_against_conditioning():
    from ddpm_course.gaussians import condition
    cov, mean, a = torch.tensor([[1., 0.6], [0.6, 0.5]]).double(), torch.tensor([0.3, -0.2]).double(), S.alpha_bar[400]
    joint = torch.cat([torch.cat([cov, a.sqrt()*cov], 1), torch.cat([a.sqrt()*cov, a*cov + (1 - a)*torch.eye(2)], 1)])
    xt = torch.tensor([[0.5, 0.9]]).double()
    expected, _ = condition(torch.cat([mean, a.sqrt()*mean]), joint, torch.tensor([2, 3]), xt[0])
    assert torch.allclose(GaussianOracle(S, mean, cov, 'x0')(xt, 400)[0], expected, atol=1e-10)


def test_dataset_oracle_remembers():
    data = torch.randn(20, 1, 3, 3)
    found = DatasetOracle(S, data, 'x0')(q_sample(S, data, 5), 5)
    assert torch.allclose(found, data, atol=1e-4)
    assert torch.allclose(DatasetOracle(S, data, 'x0')(torch.zeros(1, 1, 3, 3), 1000), data.mean(0, keepdim=True), atol=0.05)


def test_oracle_chain_reaches_the_mixture():
    s = linear_schedule(200)
    oracle = MixtureOracle(s, torch.tensor([[-0.7], [0.7]]), 0.01, torch.tensor([1., 3.]))
    reverse, x = Reverse(s, variance='beta', clip=False), torch.randn(20_000, 1)
    for t in range(200, 0, -1): x = reverse.step(oracle, x, t)
    right = x > 0
    assert abs(right.float().mean() - 0.75) < 4*(0.75*0.25/20_000)**0.5 + 0.005
    assert abs(x[right].mean() - 0.7) < 0.01 and abs(x[right].std() - 0.1) < 0.01
