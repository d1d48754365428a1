"What learners of lesson 08 hand in."
import numpy as np
import torch
from ddpm_course.exercises import check_ancestral_loop, check_clipped_mean, check_family_noise, check_mixed_noise, check_seeded_noise


def mean_with(guess=lambda x0: x0.clamp(-1, 1), after=lambda m: m, root=0.5, off=1):
    "The clipped mean, in numpy and plain numbers."
    def f(schedule, eps, xt, t):
        ab, before, b = (float(v) for v in (schedule.alpha_bar[t], schedule.alpha_bar[t - off], schedule.beta[t]))
        x0 = guess((xt - np.sqrt(1 - ab)*eps)/ab**root)
        return after(before**0.5*b/(1 - ab)*x0 + (1 - b)**0.5*(1 - before)/(1 - ab)*xt)
    return f


def line_4(schedule, eps, xt, t):
    b, ab = schedule.beta[t], schedule.alpha_bar[t]
    return (xt - b/torch.sqrt(1 - ab)*eps)/torch.sqrt(1 - b)


def clips_too_late(schedule, eps, xt, t):
    ab = schedule.alpha_bar[t]
    x0 = (xt - (1 - ab)**0.5*eps)/ab**0.5
    mean = mean_with(guess=lambda x: x)(schedule, eps, xt, t)
    x0 = torch.clip(x0, -1, 1)
    return mean


def chain(first=0, stop=0, upwards=False, quiet=lambda t: t == 1, size=np.sqrt, shift=0):
    "Algorithm 2 for v, picture by picture."
    def f(model, schedule, x, noises):
        rows, t = [], schedule.T - first
        for i in range(len(x)):
            row, steps = x[i:i+1], list(range(schedule.T - first, stop, -1))
            for t in reversed(steps) if upwards else steps:
                v, ab, before = model(row, torch.tensor([t + shift])), float(schedule.alpha_bar[t]), float(schedule.alpha_bar[t-1])
                b = 1 - ab/before
                row = (1 - b)**0.5*row - before**0.5*b/(1 - ab)**0.5*v + (0 if quiet(t) else size(b)*noises[t, i:i+1])
            rows.append(row)
        return torch.cat(rows)
    return f


def for_eps(model, schedule, x, noises):
    for t in range(schedule.T, 0, -1):
        e, b, ab = model(x, torch.tensor([t]*len(x))), schedule.beta[t], schedule.alpha_bar[t]
        x = (x - b*e/(1 - ab).sqrt())/(1 - b).sqrt()
        if t > 1: x = x + noises[t]*b.sqrt()
    return x


def family(shared):
    "Member by member, step by step."
    def f(own, split):
        out = own.clone()
        for t in range(own.shape[0]):
            for i in range(own.shape[1]): out[t, i] = shared(own, t, i, split)
        return out
    return f


def mixture(size):
    def f(schedule, noisy_a, noisy_b, w, t, z):
        full, there = 1 - schedule.alpha_bar[t].item(), w**2 + (1 - w)**2
        return torch.lerp(noisy_a, noisy_b, w) + size(full, full*there, there)*z
    return f


def constant_variance(schedule, noisy_a, noisy_b, w, t, z): return np.sqrt(1 - w*w)*noisy_a + w*noisy_b


def seeded(make_once=True, seed=lambda seeds, i: seeds[i], draw=torch.randn):
    def f(seeds, shape, draws):
        new = lambda i: torch.Generator().manual_seed(seed(seeds, i))
        out, streams = torch.empty(draws, len(seeds), *shape), [new(i) for i in range(len(seeds))]
        for k in range(draws):
            for i in range(len(seeds)): out[k, i] = draw(*shape, generator=streams[i] if make_once else new(i))
        return out
    return f


def one_stream(seeds, shape, draws):
    g = torch.Generator()
    g.manual_seed(seeds[0])
    return torch.randn(draws, len(seeds), *shape, generator=g)


def global_seed(seeds, shape, draws):
    columns = []
    for s in seeds:
        torch.manual_seed(s)
        columns.append(torch.randn(draws, *shape))
    return torch.stack(columns, dim=1)


RIGHT = [
    (check_clipped_mean, mean_with()),
    (check_ancestral_loop, chain()),
    (check_family_noise, family(lambda own, t, i, split: own[t, 0] if t > split else own[t, i])),
    (check_mixed_noise, mixture(lambda full, there, k: np.sqrt(full - there))),
    (check_seeded_noise, seeded()),
]

SUBMISSIONS = [
    (check_clipped_mean, line_4, 'unclipped'),
    (check_clipped_mean, clips_too_late, 'does not count'),
    (check_clipped_mean, mean_with(guess=lambda x: x, after=lambda m: torch.clip(m, -1, 1)), 'You clip the mean.'),
    (check_clipped_mean, mean_with(after=lambda m: m.clip(-1, 1)), 'and then the mean as well'),
    (check_clipped_mean, mean_with(guess=lambda x: torch.minimum(x.relu(), torch.ones_like(x))), '[0, 1]'),
    (check_clipped_mean, mean_with(root=1), 'divide by the square root'),
    (check_clipped_mean, mean_with(off=0), 'ᾱ_{t-1} is due'),
    (check_ancestral_loop, chain(stop=1), 'never takes the step t = 1'),
    (check_ancestral_loop, chain(first=1), 'begins at T - 1'),
    (check_ancestral_loop, chain(upwards=True), 'upwards'),
    (check_ancestral_loop, chain(quiet=lambda t: False), 'noise at t = 1'),
    (check_ancestral_loop, chain(size=lambda b: b), 'That is its variance'),
    (check_ancestral_loop, chain(shift=-1), 'about t - 1'),
    (check_ancestral_loop, for_eps, 'predicts v'),
    (check_family_noise, family(lambda own, t, i, split: own[t, 0] if t >= split else own[t, i]), 'Off by one'),
    (check_family_noise, family(lambda own, t, i, split: own[t, i] if t > split else own[t, 0]), 'share the wrong end. The chain'),
    (check_family_noise, family(lambda own, t, i, split: own[t, 0] if t < split else own[t, i]), 'below the split'),
    (check_family_noise, family(lambda own, t, i, split: sum(own[t])/len(own[t]) if t > split else own[t, i]), 'average of the noises'),
    (check_family_noise, family(lambda own, t, i, split: own[0, i] if t > split else own[t, i]), 'wrong axis'),
    (check_mixed_noise, mixture(lambda full, there, k: 0), 'do not repair'),
    (check_mixed_noise, mixture(lambda full, there, k: full - there), 'variance that is missing'),
    (check_mixed_noise, mixture(lambda full, there, k: np.sqrt(full) - np.sqrt(there)), 'subtract standard deviations'),
    (check_mixed_noise, mixture(lambda full, there, k: np.sqrt(1 - k)), 'fill up to variance 1'),
    (check_mixed_noise, mixture(lambda full, there, k: np.sqrt(full)), 'on top of what is there'),
    (check_mixed_noise, constant_variance, 'spoil the picture'),
    (check_seeded_noise, seeded(make_once=False), 'anew for every draw'),
    (check_seeded_noise, one_stream, 'One stream'),
    (check_seeded_noise, global_seed, 'torch.manual_seed'),
    (check_seeded_noise, seeded(draw=torch.rand), 'evenly from 0 to 1'),
    (check_seeded_noise, seeded(seed=lambda seeds, i: i), 'place in the batch'),
]
