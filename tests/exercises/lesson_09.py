"What learners of lesson 09 hand in."
import math
import numpy as np
import torch
from ddpm_course.exercises import check_ddim_correlation, check_ddim_step, check_dpm_guess, check_slerp, check_trailing_levels


def right_levels(T, S):
    out, level = [], float(T)
    while len(out) < S:
        out.append(int(level + 0.5))
        level -= T/S
    return out


def whole_strides(T, S): return list(range(T, 0, -(T//S)))[:S]


def cut_off(T, S): return [T*(S - i)//S for i in range(S)]


def leading(T, S): return (np.arange(S)*(T//S) + 1)[::-1].tolist()


def uniform(T, S): return np.linspace(T, 1, S).round().astype(int).tolist()


def from_zero(T, S): return (np.round(np.arange(T, 0, -T/S)) - 1).astype(int).tolist()


def rising(T, S): return right_levels(T, S)[::-1]


def tables(schedule, t): return float(schedule.alpha_bar[t]), float(schedule.alpha_bar[t-1]), float(schedule.beta[t])


def correlation(wrong=None):
    "Given x_0, from the posterior of lesson 02."
    def f(schedule, t, eta):
        ab, before, b = tables(schedule, t)
        v = eta**2*b*(1 - before)/(1 - ab)
        if wrong == 'share': return (1 - before - v)/(1 - before)
        if wrong == 'sigma': v = math.sqrt(v)
        if wrong == 'eta': v = eta*b*(1 - before)/(1 - ab)
        if wrong == 'beta': v = eta**2*b
        if wrong == 'above': return math.sqrt(1 - v/(1 - ab))
        covariance = torch.tensor(1 - before - v, dtype=torch.float64).sqrt()*math.sqrt(1 - ab)
        return covariance if wrong == 'covariance' else covariance/math.sqrt((1 - ab)*(1 - before))
    return f


def step(wrong=None):
    "DDIM in plain numbers."
    def f(schedule, eps, x, t, s, sigma, z):
        ab_t = schedule.alpha_bar[t].item()
        ab_s = schedule.alpha_bar[t-1 if wrong == 'neighbour' else s].item()
        guess = (x - math.sqrt(1 - ab_t)*eps)/math.sqrt(ab_t)
        if wrong not in ('free', 'late'): guess = torch.clip(guess, -1, 1)
        if wrong != 'old eps': eps = (x - math.sqrt(ab_t)*guess)/math.sqrt(1 - ab_t)
        room = 1 - ab_s - {'all': 0, 'std': sigma}.get(wrong, sigma*sigma)
        new = (ab_s if wrong == 'signal' else ab_s**0.5)*guess + max(room, 0)**0.5*eps
        new = new + sigma**(2 if wrong == 'variance' else 1)*z
        return new.clip(-1, 1) if wrong == 'late' else new
    return f


def right_arc(a, b, w):
    "Turn a in the plane of a and b, and let the length go as slerp's does: by the part perpendicular to a."
    e = a/a.norm()
    angle = math.acos(float((e*b).sum()/b.norm()))
    f = b - (e*b).sum()*e
    along, across = math.sin((1 - w)*angle)*a.norm() + math.sin(w*angle)*(e*b).sum(), math.sin(w*angle)*f.norm()
    return (along*e + across*f/f.norm())/math.sin(angle)


def arc(wrong=None):
    def f(a, b, w):
        if wrong == 'rows': angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=0)).unsqueeze(-1)
        else: angle = torch.acos(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        if wrong == 'swapped': w = 1 - w
        if wrong == 'unit': a, b = a/a.flatten().norm(), b/b.flatten().norm()
        return (torch.sin(angle - w*angle)*a + torch.sin(w*angle)*b)/(angle if wrong == 'angle' else torch.sin(angle))
    return f


def kept_variance(a, b, w): return (a*(1 - w) + b*w)/math.hypot(w, 1 - w)


def right_angles(a, b, w): return np.sin((1 - w)*np.pi/2)*a + np.sin(w*np.pi/2)*b


def guess(clock=lambda ab: math.log(ab/(1 - ab)), how=0.5):
    def f(schedule, here, before, u, t, s):
        at = [clock(float(schedule.alpha_bar[k])) for k in (u, t, s)]
        reach = at[1] + how*(at[2] - at[1])
        return torch.lerp(before, here, (reach - at[0])/(at[1] - at[0]))
    return f


def over_steps(schedule, here, before, u, t, s): return here + (here - before)*(t - s)/(2*(u - t))


def no_slope(schedule, here, before, u, t, s):
    l = torch.log(schedule.alpha_bar.sqrt()/(1 - schedule.alpha_bar).sqrt())
    return here + (l[s] - l[t])/2*(here - before)


def exact_integral(schedule, here, before, u, t, s):
    k = [math.sqrt(float(ab/(1 - ab))) for ab in schedule.alpha_bar[[u, t, s]]]
    h_u, h = math.log(k[1]/k[0]), math.log(k[2]/k[1])
    p = np.linspace(0, h, 200_001)
    ahead = np.sum((p*np.exp(p))[1:-1])*h/200_000 + h*np.exp(h)*h/400_000
    return here + ahead/(np.exp(h) - 1)/h_u*(here - before)


RIGHT = [
    (check_trailing_levels, right_levels),
    (check_ddim_correlation, correlation()),
    (check_ddim_step, step()),
    (check_slerp, right_arc),
    (check_slerp, arc()),
    (check_dpm_guess, guess()),
]

SUBMISSIONS = [
    (check_trailing_levels, whole_strides, 'rounded down at once'),
    (check_trailing_levels, cut_off, 'cut off the decimals'),
    (check_trailing_levels, leading, '"leading"'),
    (check_trailing_levels, uniform, '"uniform"'),
    (check_trailing_levels, from_zero, 'count from 0'),
    (check_trailing_levels, rising, 'rising order'),
    (check_ddim_correlation, correlation('share'), 'Take the root'),
    (check_ddim_correlation, correlation('sigma'), 'You subtract σ'),
    (check_ddim_correlation, correlation('covariance'), 'covariance'),
    (check_ddim_correlation, correlation('above'), 'divide σ² by 1 - ᾱ_t'),
    (check_ddim_correlation, correlation('eta'), 'gets η²'),
    (check_ddim_correlation, correlation('beta'), 'η²·β̃_t'),
    (check_ddim_step, step('old eps'), "keep the network's ε"),
    (check_ddim_step, step('free'), 'not clipped'),
    (check_ddim_step, step('late'), 'clip the new state'),
    (check_ddim_step, step('all'), 'too much'),
    (check_ddim_step, step('std'), 'You subtract σ'),
    (check_ddim_step, step('variance'), 'multiplied by σ²'),
    (check_ddim_step, step('signal'), 'signal rate'),
    (check_ddim_step, step('neighbour'), 'land at t - 1'),
    (check_slerp, lambda a, b, w: torch.lerp(a, b, w), 'straight line'),
    (check_slerp, kept_variance, 'divided by √'),
    (check_slerp, right_angles, '90°'),
    (check_slerp, arc('angle'), 'divide by θ'),
    (check_slerp, arc('swapped'), 'exchanged'),
    (check_slerp, arc('rows'), 'each row'),
    (check_slerp, arc('unit'), 'length 1'),
    (check_dpm_guess, guess(how=1), 'far end of the stride'),
    (check_dpm_guess, over_steps, 'line over t'),
    (check_dpm_guess, guess(lambda ab: math.sqrt(1/ab - 1)), 'noise-to-signal'),
    (check_dpm_guess, guess(lambda ab: 1/math.sqrt(1/ab - 1)), 'logarithm is missing'),
    (check_dpm_guess, guess(how=-0.5), 'look back'),
    (check_dpm_guess, no_slope, 'not yet a slope'),
    (check_dpm_guess, exact_integral, 'exact integral'),
]
