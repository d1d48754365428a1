"What learners of lesson 10 hand in."
import math
import torch
from torch.distributions import Normal
from ddpm_course.exercises import check_annealed_step, check_ddim_rotation, check_denoising_loss, check_langevin_acceptance, check_product_score
from ddpm_course.forward import q_sample


def product(wrong=None):
    "Picture by picture."
    def f(schedule, first, second, xt, t):
        out = torch.zeros_like(xt)
        for i, k in enumerate(t.tolist()):
            signal, variance = math.sqrt(float(schedule.alpha_bar[k])), 1 - float(schedule.alpha_bar[k])
            if wrong == 'bar': signal = signal**2
            if wrong == 'full': signal = 1
            if wrong == 'std': variance = math.sqrt(variance)
            one, two = (signal*x0[i] - xt[i] for x0 in (first, second))
            both = signal*(first[i] + second[i]) - xt[i] if wrong == 'once' else one + two
            out[i] = {'sign': -1, 'mean': 0.5}.get(wrong, 1)*both/variance
        return out
    return f


def flat(schedule, first, second, xt, t):
    ab = schedule.alpha_bar[t]
    scores = [(x0*ab**0.5 - xt)/(1 - ab) for x0 in (first, second)]
    return scores[0] + scores[1]


def loss(wrong=None):
    "By the ε that the score stands for."
    def f(schedule, score, x0, t, noise):
        xt, n = q_sample(schedule, x0, t, noise), (1 - schedule.alpha_bar[t]).sqrt()[:, None, None, None].reshape(-1, *[1]*(x0.ndim - 1))
        s = score(x0 if wrong == 'clean' else xt, t)
        target = {'sign': noise/n, 'variance': -noise/n**2, 'eps': -noise}.get(wrong, -noise/n)
        error = {'unweighted': 1, 'root': n.sqrt()}.get(wrong, n)*(s - target)
        rows = [(e.norm()**2/(1 if wrong == 'sum' else e.numel())) for e in error]
        return sum(rows)/len(rows) if wrong == 'batch' else torch.stack(rows)
    return f


def acceptance(wrong=None):
    "With torch's own normal."
    def f(log_p, score, x, new, h):
        drift = h/2 if wrong == 'alpha' else h
        wide = math.sqrt(h) if wrong == 'narrow' else math.sqrt(2*h)
        g = lambda to, here: Normal(here + drift*score(here), wide).log_prob(to)
        back, there = g(x, new), g(new, x)
        if wrong == 'symmetric': back = there = 0
        if wrong == 'proposals': back, there = there, back
        ratio = log_p(new) - log_p(x) + back - there
        if wrong == 'upside down': ratio = -ratio
        if wrong == 'open': return ratio
        if wrong == 'probability': return torch.minimum(ratio.exp(), torch.ones_like(ratio))
        return torch.minimum(ratio, torch.zeros_like(ratio))
    return f


def annealed(wrong=None):
    "In y = x/√ᾱ, at full size."
    def f(schedule, score, x, t, s, share, z):
        a_t, a_s = math.sqrt(float(schedule.alpha_bar[t])), math.sqrt(float(schedule.alpha_bar[s]))
        n = math.sqrt(1 - a_t**2)
        h = {'std': share*n, 'share': share}.get(wrong, share*n*n)
        jostle = {'h': math.sqrt(h), 'variance': 2*h}.get(wrong, math.sqrt(2*h))
        y = (x + h*score + jostle*z)/a_t
        return y*{'stay': a_t, 'bar': a_s**2/a_t, 'down': a_t**2/a_s}.get(wrong, a_s)
    return f


def rotation(wrong=None):
    def f(schedule, x, v, t, s):
        angle = lambda k: math.acos(float(schedule.alpha_bar[k])**(1 if wrong == 'bar' else 0.5))
        d = angle(t) - angle(s) if wrong == 'backwards' else angle(s) if wrong == 'whole' else angle(s) - angle(t)
        if wrong == 'degrees': d = math.degrees(d)
        if wrong == 'straight': return torch.add(x, v, alpha=d)
        p, q = (math.sin(d), math.cos(d)) if wrong == 'swapped' else (math.cos(d), math.sin(d))
        return p*x + q*v
    return f


RIGHT = [(check_product_score, product()), (check_denoising_loss, loss()), (check_langevin_acceptance, acceptance()), (check_annealed_step, annealed()), (check_ddim_rotation, rotation())]

SUBMISSIONS = [
    (check_product_score, product('sign'), 'away from the data'),
    (check_product_score, product('std'), 'divide by √(1-ᾱ_t)'),
    (check_product_score, product('bar'), 'by ᾱ_t'),
    (check_product_score, product('full'), 'full size'),
    (check_product_score, product('mean'), 'mean of the two scores'),
    (check_product_score, product('once'), 'subtracted only once'),
    (check_product_score, flat, 'shaped (B, 1, …, 1)'),
    (check_denoising_loss, loss('sign'), 'wrong sign'),
    (check_denoising_loss, loss('variance'), 'divide ε by 1 - ᾱ_t'),
    (check_denoising_loss, loss('eps'), 'not yet a score'),
    (check_denoising_loss, loss('unweighted'), 'weight is missing'),
    (check_denoising_loss, loss('root'), 'Your weight is √'),
    (check_denoising_loss, loss('clean'), 'at the clean picture'),
    (check_denoising_loss, loss('sum'), 'add up over the pixels'),
    (check_denoising_loss, loss('batch'), 'over the batch as well'),
    (check_langevin_acceptance, acceptance('symmetric'), 'densities only'),
    (check_langevin_acceptance, acceptance('proposals'), 'proposals are upside down'),
    (check_langevin_acceptance, acceptance('upside down'), 'whole ratio'),
    (check_langevin_acceptance, acceptance('narrow'), 'variance is 2h'),
    (check_langevin_acceptance, acceptance('open'), 'at most 1'),
    (check_langevin_acceptance, acceptance('probability'), 'probability itself'),
    (check_langevin_acceptance, acceptance('alpha'), 'other way of writing'),
    (check_annealed_step, annealed('h'), '√h·z'),
    (check_annealed_step, annealed('variance'), 'multiply z by 2h'),
    (check_annealed_step, annealed('std'), 'squared units'),
    (check_annealed_step, annealed('share'), 'κ at every level'),
    (check_annealed_step, annealed('stay'), 'hand over x as it is'),
    (check_annealed_step, annealed('bar'), 'multiply by ᾱ_s/ᾱ_t'),
    (check_annealed_step, annealed('down'), 'last factor is upside down'),
    (check_ddim_rotation, rotation('straight'), "Euler's step"),
    (check_ddim_rotation, rotation('backwards'), 'wrong way'),
    (check_ddim_rotation, rotation('bar'), 'acos ᾱ'),
    (check_ddim_rotation, rotation('degrees'), 'degrees'),
    (check_ddim_rotation, rotation('swapped'), 'exchanged'),
    (check_ddim_rotation, rotation('whole'), 'turn by φ_s'),
]
