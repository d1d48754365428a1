"The papers' formulas once more, from Bayes' rule and torch.distributions, for tests to compare with; nothing here comes from the package's own formulas."
import math
import torch
from torch.distributions import Normal, kl_divergence
from ddpm_course.schedules import cosine_schedule, linear_schedule, offset_cosine_schedule, sigmoid_schedule

MAKERS = {'linear': linear_schedule, 'cosine': cosine_schedule, 'sigmoid': sigmoid_schedule, 'offset cosine': offset_cosine_schedule,
          'unscaled linear': lambda T: linear_schedule(T, rescale=False)}


def fits(name, T): return not (name == 'linear' and T < 21 or name == 'offset cosine' and T < 2)


def schedules(*Ts): return [(name, T) for T in Ts for name in MAKERS if fits(name, T)]


def seed(n=0): return torch.Generator().manual_seed(n)


def column(values, x): return values.to(x.dtype).reshape(-1, *[1]*(x.ndim - 1))


def tables(schedule, t, x):
    "β_t, ᾱ_{t-1} and ᾱ_t from β alone, shaped to go with x."
    alpha_bar = (1 - schedule.beta).cumprod(0)
    return [column(v, x) for v in (schedule.beta[t], alpha_bar[t - 1], alpha_bar[t])]


def posterior(schedule, x0, xt, t):
    "Mean and variance of q(x_{t-1} | x_t, x_0): what is known of x_{t-1} from either side, weighted by precision. At t = 1: x_0 itself."
    beta, before, _ = tables(schedule, t, xt)
    width = torch.where(before == 1, 1., 1 - before)
    precision = 1/width + (1 - beta)/beta
    mean = (before.sqrt()*x0/width + (1 - beta).sqrt()*xt/beta)/precision
    return torch.where(before == 1, x0, mean), torch.where(before == 1, 0., 1/precision)


def as_prediction(schedule, x0, xt, t, predict):
    "What a network of this kind says when it means x0."
    _, _, alpha_bar = tables(schedule, t, xt)
    eps = (xt - alpha_bar.sqrt()*x0)/(1 - alpha_bar).sqrt()
    return {'eps': eps, 'x0': x0, 'v': alpha_bar.sqrt()*eps - (1 - alpha_bar).sqrt()*x0, 'mu': posterior(schedule, x0, xt, t)[0]}[predict]


def model_variance(schedule, xt, t, kind, output=None, sigma_1='beta_tilde'):
    "σ²_t of p_θ; `output` is the network's, where it is learned."
    if kind == 'learned': return output.exp()
    two = torch.full_like(t, min(2, schedule.T))
    first = tables(schedule, torch.ones_like(t), xt)[0] if sigma_1 == 'beta' or schedule.T == 1 else posterior(schedule, xt, xt, two)[1]
    at_1, (beta, _, _) = column(t == 1, xt).bool(), tables(schedule, t, xt)
    low = torch.where(at_1, first, posterior(schedule, xt, xt, t)[1])
    if kind == 'learned_range': return beta**((output + 1)/2) * low**((1 - output)/2)
    return low if kind == 'beta_tilde' else torch.where(at_1, first, beta)


def term(schedule, x0, xt, t, x0_hat, variance, levels=None):
    "L_{t-1} of each row in bits/dim; at t = 1 the mass between the edges of the grey level, or the density where levels is None."
    (true, v), (mean, _) = posterior(schedule, x0, xt, t), posterior(schedule, x0_hat, xt, t)
    p = Normal(mean, variance.sqrt().expand_as(mean), validate_args=False)
    if levels is None: log_p = p.log_prob(x0)
    else:
        high, low = x0 + 1/(levels - 1), x0 - 1/(levels - 1)
        log_p = (torch.where(high > 1, 1., p.cdf(high)) - torch.where(low < -1, 0., p.cdf(low))).log()
    kl = kl_divergence(Normal(true, v.sqrt().expand_as(mean), validate_args=False), p)
    return torch.where(column(t == 1, xt).bool(), -log_p, kl).flatten(1).mean(1)/math.log(2)


def pixels(*shape, levels=17, g=None): return 2*torch.randint(levels, shape, generator=g or seed()).double()/(levels - 1) - 1
