"The two processes against simulation, brute force and diffusers."
import itertools
import pytest
import torch
from diffusers import DDPMScheduler
from exact import MAKERS, as_prediction, posterior, schedules, seed, tables
from torch.autograd.functional import hessian, jacobian
from torch.distributions import MultivariateNormal, Normal
from ddpm_course.forward import posterior_variance, q_posterior, q_sample, q_step
from ddpm_course.reverse import PREDICTIONS, DatasetOracle, GaussianOracle, MixtureOracle, Oracle, Reverse, WithVariance, convert, prediction_to_x0, x0_to_prediction
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
@pytest.mark.parametrize('name, T', [(name, T) for name, T in schedules(1, 2, 4, 1000, 4000) if name != 'unscaled linear'])
def test_conversions_go_round(a, b, name, T):
    "There and back, at every t, to 1e-10."
    s, t = MAKERS[name](T), torch.arange(1, T + 1)
    xt, value = torch.randn(2, T, 2, 2, 1, dtype=torch.float64)
    again = convert(s, convert(s, value, xt, t, a, b), xt, t, b, a)
    assert ((again - value).abs()/value.abs().clamp(min=1)).max() < 1e-10


@pytest.mark.parametrize('predict', PREDICTIONS)
@pytest.mark.parametrize('name', ['linear', 'cosine', 'sigmoid', 'offset cosine'])
def test_each_prediction_by_its_definition(predict, name):
    s, t = MAKERS[name](1000), torch.arange(1, 1001)
    xt, x0 = torch.randn(2, 1000, 2, 2, 1, dtype=torch.float64)
    said = as_prediction(s, x0, xt, t, predict)
    assert ((x0_to_prediction(s, x0, xt, t, predict) - said).abs()/said.abs().clamp(min=1)).max() < 1e-9
    assert ((prediction_to_x0(s, said, xt, t, predict) - x0).abs()).max() < 1e-7
    if predict == 'eps': assert (q_sample(s, x0, t, said) - xt).abs().max() < 1e-9


THEIR_VARIANCE = {'beta_tilde': 'fixed_small', 'beta': 'fixed_large', 'learned_range': 'learned_range'}
THEIR_PREDICTION = {'eps': 'epsilon', 'x0': 'sample', 'v': 'v_prediction'}


def both_chains(predict, variance, clip, shape, double):
    "x_{t-1} from random inputs for all t by diffusers, one step at a time, and by us, all at once; `double` gives them float64 tables."
    theirs = DDPMScheduler(1000, variance_type=THEIR_VARIANCE[variance], prediction_type=THEIR_PREDICTION[predict], clip_sample=clip)
    if double: theirs.betas, theirs.alphas, theirs.alphas_cumprod, theirs.one = S.beta[1:], S.alpha[1:], S.alpha_bar[1:], torch.tensor(1.0).double()
    x, out = torch.randn(1000, *shape, dtype=torch.float64), torch.randn(1000, shape[0]*(2 if variance == 'learned_range' else 1), *shape[1:], dtype=torch.float64)
    noise, g = torch.zeros_like(x), seed(1)  # drawn for t = T … 2, as they do
    for i in range(999, 0, -1): noise[[i]] = torch.randn(1, *shape, generator=g, dtype=torch.float64)
    g, expected = seed(1), torch.zeros_like(x)
    for i in range(999, -1, -1): expected[[i]] = theirs.step(out[[i]], i, x[[i]], generator=g).prev_sample
    return expected, Reverse(S, predict, variance, clip).step(lambda *_: out, x, torch.arange(1, 1001), noise)


@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('variance', THEIR_VARIANCE)
@pytest.mark.parametrize('predict', THEIR_PREDICTION)
def test_step_agrees_with_diffusers(predict, variance, clip):
    "At every t; measured: 3e-13."
    theirs, ours = both_chains(predict, variance, clip, (2, 1, 2), double=True)
    assert (ours - theirs).abs().max() < 1e-10


def test_the_tables_of_diffusers_are_rounded():
    "With its own float32 tables a few hundred steps of 1,000 differ by more than 1e-6 somewhere in a picture: about 215 at 3×8×8, 310 at 3×32×32."
    theirs, ours = both_chains('eps', 'beta_tilde', True, (3, 8, 8), double=False)
    differ = (ours - theirs).abs().flatten(1).amax(1)
    assert 120 < (differ > 1e-6).sum() < 350 and differ.max() < 1e-3


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


# Var[x_0 | x_t]

def column_of(x): return x.reshape(-1, 1)


def tweedie(log_q, alpha_bar, xt):
    "Mean and variance of each coordinate of x_0 given one x_t, from the first and second derivative of log q(x_t)."
    I, slope, bend = torch.eye(len(xt)).double(), jacobian(log_q, xt), hessian(log_q, xt)
    return (xt + (1 - alpha_bar)*slope)/alpha_bar.sqrt(), ((1 - alpha_bar)/alpha_bar*(I + (1 - alpha_bar)*bend)).diagonal()


def agrees_with_tweedie(oracle, log_q_of, t, D, within=1e-7):
    "log_q_of: ᾱ -> log q(x_t)."
    alpha_bar = (1 - oracle.schedule.beta).cumprod(0)[t]
    for xt in (0.7*torch.randn(D, dtype=torch.float64), torch.zeros(D).double(), torch.linspace(-2, 2, D).double()):
        mean, variance = tweedie(log_q_of(alpha_bar), alpha_bar, xt)
        assert (oracle.x0(xt[None], t)[0] - mean).abs().max() < within and (oracle.x0_variance(xt[None], t)[0] - variance).abs().max() < within


COV = torch.tensor([[1., 0.6, 0.1], [0.6, 0.5, -0.2], [0.1, -0.2, 2.]]).double()
MEAN = torch.tensor([0.3, -0.2, 1.]).double()


@pytest.mark.parametrize('t', [2, 10, 50, 100])
def test_gaussian_x0_variance(t):
    s, I = linear_schedule(100), torch.eye(3).double()
    agrees_with_tweedie(GaussianOracle(s, MEAN, COV), lambda a: MultivariateNormal(a.sqrt()*MEAN, a*COV + (1 - a)*I).log_prob, t, 3)
    agrees_with_tweedie(GaussianOracle(s, 0.2, 0.3), lambda a: lambda x: Normal(0.2*a.sqrt(), (0.3*a + 1 - a).sqrt()).log_prob(x).sum(), t, 4)
    a = s.alpha_bar[t]  # and by conditioning
    expected = (COV - a*COV @ torch.linalg.solve(a*COV + (1 - a)*I, COV)).diagonal()
    assert (GaussianOracle(s, MEAN, COV).x0_variance(torch.randn(5, 3), t) - expected).abs().max() < 1e-12


@pytest.mark.parametrize('t', [2, 10, 50, 100])
def test_mixture_x0_variance(t):
    s, means, variances, weights = linear_schedule(100), torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.01, 0.2, 0.5, 1.]).double(), torch.tensor([1., 2., 3., 0.5]).double()
    def log_q_of(a):
        parts = lambda x: Normal(a.sqrt()*means, (a*variances + 1 - a).sqrt()[:, None]).log_prob(x).sum(1)
        return lambda x: ((weights/weights.sum()).log() + parts(x)).logsumexp(0)
    agrees_with_tweedie(MixtureOracle(s, means, variances, weights), log_q_of, t, 3)
    equal, one = lambda a: lambda x: Normal(a.sqrt()*means, (a*0.09 + 1 - a).sqrt()).log_prob(x).sum(1).logsumexp(0), MixtureOracle(s, means, 0.09)
    agrees_with_tweedie(one, equal, t, 3)


@pytest.mark.parametrize('t', [1, 10, 50, 100])
def test_dataset_x0_variance(t):
    "The points, weighted by how well they explain x_t."
    s, data, xt = linear_schedule(100), torch.randn(7, 2, 2, 1, dtype=torch.float64), torch.randn(5, 2, 2, 1, dtype=torch.float64)
    a = s.alpha_bar[t]
    log_w = Normal(a.sqrt()*data, (1 - a).sqrt()).log_prob(xt[:, None]).flatten(2).sum(2)
    w = (log_w - log_w.logsumexp(1, keepdim=True)).exp()[:, :, None, None, None]
    mean = (w*data).sum(1)
    oracle = DatasetOracle(s, data)
    assert (oracle.x0(xt, t) - mean).abs().max() < 1e-10 and (oracle.x0_variance(xt, t) - (w*(data - mean[:, None])**2).sum(1)).abs().max() < 1e-10
    assert oracle.x0_variance(xt, t).min() >= 0 and oracle.x0_variance(xt.float(), t).dtype == torch.float64


def test_each_row_has_its_own_t():
    xt, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor([1, 500, 1000])
    for oracle in (GaussianOracle(S, 0.1, COV[:2, :2]), MixtureOracle(S, torch.randn(3, 2), 0.1), DatasetOracle(S, torch.randn(6, 2))):
        for f in (oracle, oracle.x0, oracle.x0_variance): assert torch.allclose(f(xt, t), torch.cat([f(xt[[i]], t[i].item()) for i in range(3)]), atol=1e-12)
        with pytest.raises(ValueError, match=r'1\.\.1000'): oracle.x0_variance(xt, 1001)


def test_an_oracle_must_know_something():
    for f in (Oracle(S).x0, Oracle(S).x0_variance):
        with pytest.raises(NotImplementedError): f(torch.zeros(1, 1), 1)


# The exact step

def step_on_a_grid(s, t, log_prior, xt):
    "Mean and variance of x_{t-1} given x_t by summing over x_{t-1}; log_prior: of x_{t-1}."
    x, beta = torch.linspace(-9, 9, 60_001, dtype=torch.float64), s.beta[t].item()
    p = torch.softmax(log_prior(x)[None] - 0.5*(xt - (1 - beta)**0.5*x)**2/beta, 1)
    mean = (p*x).sum(1, keepdim=True)
    return mean, (p*(x - mean)**2).sum(1, keepdim=True)


@pytest.mark.parametrize('t', [1, 2, 7, 20])
@pytest.mark.parametrize('variance', ['learned', 'learned_range'])
@pytest.mark.parametrize('sigma_1', ['beta', 'beta_tilde'])
@pytest.mark.parametrize('predict', PREDICTIONS)
def test_with_variance_is_the_exact_step(t, variance, sigma_1, predict):
    s, means, variances = cosine_schedule(20), torch.tensor([-0.7, 0.2, 0.6]).double(), torch.tensor([0.02, 0.1, 0.03]).double()
    reverse, a = Reverse(s, predict, variance, False, sigma_1), s.alpha_bar[t - 1].item()
    prior = lambda x: Normal(a**0.5*means, (a*variances + 1 - a).sqrt()).log_prob(column_of(x)).logsumexp(1)
    xt = torch.tensor([[-1.5], [0.1], [0.8]]).double()
    expected = step_on_a_grid(s, t, prior, xt)
    mean, found, _ = reverse.mean_variance(WithVariance(MixtureOracle(s, column_of(means), variances, predict=predict), reverse), xt, t)
    assert (mean - expected[0]).abs().max() < 1e-7
    if t == 1 and variance == 'learned_range' and sigma_1 == 'beta': assert (found - s.beta[1]).abs().max() < 1e-12  # there the range is one point
    else: assert (found - expected[1]).abs().max() < 1e-7


@pytest.mark.parametrize('variance', ['learned', 'learned_range'])
def test_with_variance_at_the_ends(variance):
    "One step only; a single point, whose variance at t = 1 is zero; and the shape of pictures in single precision."
    s = cosine_schedule(1)
    reverse = Reverse(s, variance=variance, clip=False)
    out = WithVariance(GaussianOracle(s, 0., 0.5), reverse)(torch.randn(3, 2, 4, 4), 1)
    assert out.shape == (3, 4, 4, 4) and out.dtype == torch.float32 and out.isfinite().all()
    exact = 0.5*s.beta[1]/(0.5*(1 - s.beta[1]) + s.beta[1])
    assert torch.allclose(out[:, 2:].double(), torch.zeros(1).double() if variance == 'learned_range' else exact.log(), atol=1e-6)
    s = linear_schedule(100)
    model, point = WithVariance(DatasetOracle(s, torch.full((1, 3), 0.5)), reverse := Reverse(s, variance=variance, clip=False)), torch.full((4, 3), 0.5).double()
    for t in (2, 50, 100): assert torch.allclose(reverse.mean_variance(model, q_sample(s, point, t), t)[1], posterior(s, point, point, torch.full((4,), t))[1], rtol=1e-9)
    assert model(point, 1).isfinite().all() and model(point, 1)[:, 3:].max() < (-30 if variance == 'learned' else -1)


def test_with_variance_needs_a_learned_one():
    for variance in ('beta', 'beta_tilde'):
        with pytest.raises(ValueError, match=f"learned.*'{variance}'"): WithVariance(GaussianOracle(S, 0., 1.), Reverse(S, variance=variance))
    with pytest.raises(ValueError, match=r'1\.\.1000'): WithVariance(GaussianOracle(S, 0., 1.), Reverse(S, variance='learned'))(torch.zeros(1, 1), 0)


def test_learned_range_is_geometric():
    "-1 is β̃, 1 is β, 0 the geometric mean; what lies outside goes on."
    t, x = torch.arange(2, 1001), torch.zeros(999, 1, dtype=torch.float64)
    beta, before, now = tables(S, t, x)
    small = beta*(1 - before)/(1 - now)
    for o, expected in ((-1., small), (1., beta), (0., (beta*small).sqrt()), (3., beta**2/small)):
        _, variance, log = Reverse(S, variance='learned_range').mean_variance(lambda x, t: torch.cat([x, torch.full_like(x, o)], 1), x, t)
        assert torch.allclose(variance, expected, rtol=1e-8) and torch.allclose(log, expected.log(), rtol=1e-8)
    _, variance, _ = Reverse(S, variance='learned').mean_variance(lambda x, t: torch.cat([x, x + 0.5], 1), x, t)
    assert torch.allclose(variance, torch.full_like(x, 0.5).exp())


def test_unclipped_copies_all_but_the_clip():
    a = Reverse(S, 'v', 'learned', True, 'beta')
    b = a.unclipped()
    assert a.clip and not b.clip and type(b) is Reverse and (b.schedule, b.predict, b.variance, b.sigma_1) == (S, 'v', 'learned', 'beta')
