"What readers of lesson 05 hand in."
import math
import torch
from ddpm_course.exercises import check_min_snr, check_simple_loss, check_spread_steps, check_x0_weight


def loss_rows(schedule, model, x0, t, noise, signal=math.sqrt, rate=math.sqrt, entry=lambda t: t, shown=lambda xt, x0: xt, wanted=lambda x0, noise: noise, reduce=torch.mean):
    "Row by row, with numbers in place of broadcasting."
    rows = []
    for i, step in enumerate(t.tolist()):
        a = math.prod(1 - b for b in schedule.beta.tolist()[1:entry(step) + 1])
        xt = signal(a)*x0[i:i+1] + rate(1 - a)*noise[i:i+1]
        rows.append(reduce((model(shown(xt, x0[i:i+1]), t[i:i+1]) - wanted(x0, noise)[i:i+1])**2))
    return torch.stack(rows)


def not_reshaped(schedule, model, x0, t, noise):
    signal, rate = schedule.alpha_bar[t]**0.5, (1 - schedule.alpha_bar[t])**0.5
    error = noise - model(torch.mul(x0, signal) + torch.mul(noise, rate), t)
    return error.pow(2).sum((1, 2, 3))/error[0].numel()


def mean_weight(schedule, t, reverse_variance=None, told_as_x0=True):
    "From (5.1): 1/(2σ²) times the square of the weight of x_0 in the posterior mean; or told as ε, (5.3)."
    b, a, now, before = (v[i] for v, i in ((schedule.beta, t), (schedule.alpha, t), (schedule.alpha_bar, t), (schedule.alpha_bar, t - 1)))
    variance = b*(1 - before)/(1 - now) if reverse_variance is None else b
    weight_0 = before.sqrt()*b/(1 - now)
    return (weight_0 if told_as_x0 else b/(a*(1 - now)).sqrt())**2/(2*variance)


def lost_signal(schedule, t, of=lambda a: a/(1 - a), half=0.5):
    later, before = (of(torch.stack([torch.prod(1 - schedule.beta[1:s + 1]) for s in steps.tolist()])) for steps in (t, t - 1))
    return half*(before - later)


def min_snr(snr, predict, gamma, pick=min, κ=None, together=lambda w, k: w/k):
    κ = κ or {'x0': lambda s: 1., 'eps': lambda s: s, 'v': lambda s: s + 1}
    return torch.tensor([together(pick(s, gamma), κ[predict](s)) for s in snr.tolist()])


def spread(u, n, T, place=lambda u, i, n: math.fmod(u + i/n, 1), step=lambda x: math.floor(x) + 1):
    return torch.tensor([step(T*place(u, i, n)) for i in range(n)])


RIGHT = [(check_simple_loss, loss_rows), (check_x0_weight, mean_weight), (check_x0_weight, lost_signal), (check_min_snr, min_snr), (check_spread_steps, spread)]

SUBMISSIONS = [
    (check_simple_loss, lambda *a: loss_rows(*a, signal=lambda v: v), 'The signal rate is √ᾱ_t'),
    (check_simple_loss, lambda *a: loss_rows(*a, rate=lambda v: v), 'noise is multiplied by the standard deviation'),
    (check_simple_loss, lambda *a: loss_rows(*a, entry=lambda t: t - 1), 'off by one'),
    (check_simple_loss, lambda *a: loss_rows(*a, shown=lambda xt, x0: x0), 'show the network the clean picture'),
    (check_simple_loss, lambda *a: loss_rows(*a, wanted=lambda x0, noise: x0), 'compare it with ε'),
    (check_simple_loss, lambda *a: loss_rows(*a, reduce=torch.sum), 'take the mean'),
    (check_simple_loss, lambda *a: loss_rows(*a).sum()/len(a[2]), 'average over the batch, too'),
    (check_simple_loss, lambda *a: loss_rows(*a, reduce=lambda v: torch.linalg.vector_norm(v**0.5)/v.numel()**0.5), 'root at the end'),
    (check_simple_loss, not_reshaped, 'fails for two'),
    (check_x0_weight, lambda schedule, t: mean_weight(schedule, t, told_as_x0=False), 'multiply by SNR_t'),
    (check_x0_weight, lambda schedule, t: mean_weight(schedule, t, 'beta'), 'about the reverse variance'),
    (check_x0_weight, lambda schedule, t: lost_signal(schedule, t + 1), 'off by one'),
    (check_x0_weight, lambda schedule, t: lost_signal(schedule, t, of=lambda a: a), 'signal for each unit of noise'),
    (check_x0_weight, lambda schedule, t: lost_signal(schedule, t, half=1), 'factor ½'),
    (check_min_snr, lambda *a: min_snr(*a, together=lambda w, k: w), 'divide by this κ_t'),
    (check_min_snr, lambda *a: min_snr(*a, κ={'x0': lambda s: 1., 'eps': lambda s: s, 'v': lambda s: s}), 'treat v like ε'),
    (check_min_snr, lambda *a: min_snr(*a, pick=max), 'max where min is meant'),
    (check_min_snr, lambda *a: min_snr(*a, together=lambda w, k: w*k), 'has to go: divide'),
    (check_min_snr, lambda *a: min_snr(*a, pick=lambda s, gamma: s), 'The cap is missing'),
    (check_spread_steps, lambda *a: spread(*a, step=math.floor), 'from 0 to T-1'),
    (check_spread_steps, lambda *a: spread(*a, place=lambda u, i, n: u + i/n), 'beyond T'),
    (check_spread_steps, lambda u, n, T: 1 + (T*torch.remainder(u + torch.linspace(0, 1, n), 1)).floor().long(), 'divide by n-1'),
    (check_spread_steps, lambda *a: spread(*a, place=lambda u, i, n: (u + i) % 1), 'the same step'),
    (check_spread_steps, lambda *a: spread(*a, step=lambda x: 1 + int(x + 0.5)), 'round to the nearest')]
