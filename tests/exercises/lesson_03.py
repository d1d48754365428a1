"What learners hand in for lesson 03: mistakes with the words that must name them, and right answers found in another way."
import math
import numpy as np
import torch
from ddpm_course.exercises import check_clipped_x0, check_eps_to_v, check_ideal_denoiser, check_reverse_draw, check_tweedie
from ddpm_course.forward import posterior_coefficients
from ddpm_course.reverse import Reverse


def rotation(schedule, eps, xt, t):
    "Solve (x_t, ε) = R (x_0, …) by angles: cos φ = √ᾱ."
    φ = math.acos(math.sqrt(schedule.alpha_bar[t]))
    x0 = (xt - math.sin(φ)*eps)/math.cos(φ)
    return math.cos(φ)*eps - math.sin(φ)*x0


def v_with(schedule, eps, xt, t, a=None, b=None, sign=-1, of=None):
    ab = schedule.alpha_bar[t].item()
    x0 = (xt - (1 - ab)**.5*eps)/ab**.5
    return (a or ab**.5)*eps + sign*(b or (1 - ab)**.5)*(x0 if of is None else of)


def v_swapped(schedule, eps, xt, t):
    ab = schedule.alpha_bar[t].item()
    x0 = (xt - (1 - ab)**.5*eps)/ab**.5
    return ab**.5*x0 - (1 - ab)**.5*eps


def v_undivided(schedule, eps, xt, t): return eps - torch.sqrt(1 - schedule.alpha_bar[t])*xt


def v_without_roots(schedule, eps, xt, t):
    ab = schedule.alpha_bar[t].item()
    return eps/ab + (1 - 1/ab)*xt


def denoise(schedule, data, xt, t, shrink=True, divide=lambda v: 2*v, power=2, sign=-1):
    ab, out = schedule.alpha_bar[t].item(), []
    for x in xt.tolist():
        weights = []
        for d in data.tolist():
            distance = math.dist(x, [(ab**.5 if shrink else 1.)*v for v in d])
            weights.append(math.exp(sign*distance**power/divide(1 - ab)))
        out.append(np.average(data.numpy(), axis=0, weights=weights))
    return torch.tensor(np.stack(out))


def denoise_along_batch(schedule, data, xt, t):
    ab = schedule.alpha_bar[t].float()
    square = ((xt[:, None] - ab.sqrt()*data)**2).sum(-1)
    weights = torch.exp(-square/(2*(1 - ab)))
    return (weights/weights.sum(0)) @ data


def denoise_nearest(schedule, data, xt, t):
    shrunk = math.sqrt(schedule.alpha_bar[t])*data
    return torch.stack([data[min(range(len(data)), key=lambda i: math.dist(x, shrunk[i]))] for x in xt])


def posterior_mean(schedule, x0, xt, t):
    "From the definition, by precisions."
    a, b, before = schedule.alpha[t].item(), schedule.beta[t].item(), schedule.alpha_bar[t - 1].item()
    return (a**.5*xt/b + before**.5*x0/(1 - before))/(a/b + 1/(1 - before))


def x0_of(schedule, eps, xt, t):
    ab = schedule.alpha_bar[t].item()
    return xt/ab**.5 - math.sqrt(1/ab - 1)*eps


def mean_of(schedule, eps, xt, t): return posterior_mean(schedule, x0_of(schedule, eps, xt, t).clip(-1, 1), xt, t)


def unclipped(schedule, eps, xt, t):
    a, b, ab = schedule.alpha[t], schedule.beta[t], schedule.alpha_bar[t]
    return (xt - b/(1 - ab).sqrt()*eps)/a.sqrt()


def swapped(schedule, eps, xt, t):
    A, B = posterior_coefficients(schedule, torch.tensor(t))
    return B*x0_of(schedule, eps, xt, t).clamp(-1, 1) + A*xt


def by_reverse(schedule, eps, xt, t): return Reverse(schedule).from_output(eps[:, None], xt[:, None], t)[0][:, 0]


def tweedie(schedule, slope, xt, t, width=lambda v: v, sign=1, rate=lambda a: math.sqrt(a)):
    eps = -sign*width(1 - schedule.alpha_bar[t].item())*slope    # √(1-ᾱ)·ε
    return (xt - eps)/rate(schedule.alpha_bar[t].item())


def one_step(schedule, slope, xt, t):
    b = schedule.beta[t].item()
    return xt/math.sqrt(1 - b) + b/math.sqrt(1 - b)*slope


def brackets(schedule, slope, xt, t): return xt/schedule.alpha_bar[t].sqrt() + (1 - schedule.alpha_bar[t])*slope


def draw(schedule, mean, t, noise, width=math.sqrt, quiet=lambda t: t == 1, back=0):
    out = []
    for m, s, e in zip(mean, t.tolist(), noise): out.append(m if quiet(s) else m + width(schedule.beta[s - back].item())*e)
    return torch.stack(out)


def draw_if_all(schedule, mean, t, noise):
    if 1 in t.tolist(): return mean
    return mean + schedule.beta[t].sqrt()[:, None, None, None]*noise


def draw_if_any(schedule, mean, t, noise):
    σ = schedule.beta[t].sqrt()[:, None, None, None]
    return mean + σ*noise if t.max() > 1 else mean


def draw_without_shapes(schedule, mean, t, noise):
    σ = torch.where(t == 1, 0., schedule.beta[t].sqrt())
    return mean + σ*noise


SUBMISSIONS = [
    (check_eps_to_v, lambda S, e, x, t: v_with(S, e, x, t, of=x), 'x_t in the place of x_0'),
    (check_eps_to_v, v_swapped, 'at the wrong places'),
    (check_eps_to_v, lambda S, e, x, t: v_with(S, e, x, t, sign=1), 'sign before x_0'),
    (check_eps_to_v, v_undivided, 'forget to divide'),
    (check_eps_to_v, v_without_roots, 'where the rates'),
    (check_ideal_denoiser, lambda *given: denoise(*given, shrink=False), 'the data as they are'),
    (check_ideal_denoiser, denoise_along_batch, 'along the batch'),
    (check_ideal_denoiser, lambda *given: denoise(*given, divide=lambda v: v), 'the 2 is missing'),
    (check_ideal_denoiser, lambda *given: denoise(*given, divide=lambda v: 2*math.sqrt(v)), 'by the standard deviation'),
    (check_ideal_denoiser, lambda *given: denoise(*given, power=1), 'forget to square'),
    (check_ideal_denoiser, lambda *given: denoise(*given, sign=1), 'farthest away'),
    (check_ideal_denoiser, denoise_nearest, 'the nearest of the data'),
    (check_clipped_x0, unclipped, 'You do not clip'),
    (check_clipped_x0, lambda *given: unclipped(*given).clip(-1, 1), 'You clip the mean'),
    (check_clipped_x0, lambda S, e, x, t: posterior_mean(S, x0_of(S, e, x, t).clip(0, 1), x, t), 'You clip to [0, 1]'),
    (check_clipped_x0, lambda S, e, x, t: unclipped(S, e.clip(-1, 1), x, t), 'You clip ε'),
    (check_clipped_x0, lambda *given: mean_of(*given).clip(-1, 1), 'then the mean as well'),
    (check_clipped_x0, swapped, 'weights of the posterior mean are swapped'),
    (check_tweedie, lambda *given: tweedie(*given, width=math.sqrt), 'You took its root'),
    (check_tweedie, lambda *given: tweedie(*given, sign=-1), 'downhill'),
    (check_tweedie, lambda *given: tweedie(*given, rate=lambda a: 1.), 'as it has shrunk'),
    (check_tweedie, brackets, 'brackets'),
    (check_tweedie, one_step, 'by one step only'),
    (check_tweedie, lambda *given: tweedie(*given, rate=lambda a: a), 'divide by ᾱ_t'),
    (check_reverse_draw, lambda *given: draw(*given, quiet=lambda t: False), 'at the last step'),
    (check_reverse_draw, lambda *given: draw(*given, width=lambda b: b), 'multiplied by β_t'),
    (check_reverse_draw, lambda *given: draw(*given, quiet=lambda t: True), 'the mean at every step'),
    (check_reverse_draw, draw_if_all, 'switches off'),
    (check_reverse_draw, draw_if_any, 'switches on'),
    (check_reverse_draw, lambda *given: draw(*given, back=1), 'off by one'),
    (check_reverse_draw, draw_without_shapes, 'do not line up'),
]

RIGHT = [(check_eps_to_v, rotation), (check_eps_to_v, v_with), (check_ideal_denoiser, denoise), (check_clipped_x0, mean_of), (check_clipped_x0, by_reverse), (check_tweedie, tweedie), (check_reverse_draw, draw)]
