"What learners hand in for lesson 01: mistakes with the words that must name them, and right answers found in another way."
import math
import numpy as np
import torch
from ddpm_course.exercises import check_constant_beta, check_even_log_snr, check_half_way, check_strided_schedule, check_terminal_rescale


def bisect(schedule, target=None):
    low, high = 0., 1.
    target = schedule.alpha_bar[-1].item() if target is None else target
    for _ in range(60):
        mid = (low + high)/2
        low, high = (mid, high) if (1 - mid)**schedule.T > target else (low, mid)
    return low


def one_too_many(schedule):
    n = len(schedule.beta)
    return 1 - math.exp(math.log(schedule.alpha_bar[-1])/n)


def rates(schedule): return [math.sqrt(v) for v in schedule.alpha_bar.tolist()]


def rescale(schedule, last):
    r = rates(schedule)
    a = (r[1] - last)/(r[1] - r[-1])
    b = r[1] - a*r[1]
    return torch.tensor([1.] + [(a*v + b)**2 for v in r[1:]])


def rescale_shares(schedule, last):
    ab = schedule.alpha_bar.clone()
    factor = (ab[1] - last**2)/(ab[1] - ab[-1])
    ab[1:] = last**2 + (ab[1:] - ab[-1])*factor
    return ab


def rescale_shares_to_rate(schedule, last):
    ab = schedule.alpha_bar.numpy()
    new = np.interp(ab, [ab[-1], ab[1]], [last, ab[1]])
    new[0] = 1
    return torch.from_numpy(new)


def rescale_from_0(schedule, last):
    r = schedule.alpha_bar.sqrt()
    r = r - r[-1]                       # last one to zero
    r = r/r[0]*(1 - last) + last        # first one to 1
    return r*r


def rescale_all(schedule, last):
    r = schedule.alpha_bar**0.5
    slope = (r[1] - last)/(r[1] - r[-1])
    return (r[1] + slope*(r - r[1]))**2


def half_way(schedule):
    for t in range(1, schedule.T + 1):
        if schedule.alpha_bar[t] < 1 - schedule.alpha_bar[t]: return t


def from_zero(schedule):
    left = 1.
    for t, b in enumerate(schedule.beta[1:].tolist()):
        left *= 1 - b
        if left < 0.5: return t


def by_rate(schedule): return next(t for t, r in enumerate(rates(schedule)) if r < 0.5)


def nearest(schedule):
    gaps = [abs(math.log(s)) if 0 < s < math.inf else math.inf for s in schedule.snr.tolist()]
    return int(np.argmin([abs(a - 0.5) for a in schedule.alpha_bar.tolist()])) if gaps else None


def long_steps(schedule, stride):
    beta = []
    for k in range(0, schedule.T, stride): beta.append(1 - math.prod(schedule.alpha[k + 1:k + stride + 1].tolist()))
    return torch.tensor(beta)


def long_sums(schedule, stride): return torch.stack([chunk.sum() for chunk in schedule.beta[1:].split(stride)])


def leading(schedule, stride):
    steps, before, beta = range(1, schedule.T + 1, stride), 1., []
    for t in steps: beta, before = beta + [1 - schedule.alpha_bar[t].item()/before], schedule.alpha_bar[t].item()
    return torch.tensor(beta)


def rate_ratio(schedule, stride):
    r = torch.tensor(rates(schedule))[torch.arange(0, schedule.T + 1, stride)]
    return (r[:-1] - r[1:])/r[:-1]


def even(T, first, last):
    table = [1.]
    for t in range(1, T + 1):
        snr = math.exp(first + (t - 1)/(T - 1)*(last - first))
        table.append(snr/(1 + snr))
    return torch.tensor(table)


def even_over_all(T, first, last):
    lam = torch.arange(T + 1)/T*(last - first) + first
    return 1/(1 + torch.exp(-lam))


def even_over_all_then_1(T, first, last):
    table = even_over_all(T, first, last)
    table[0] = 1
    return table


def even_of_snr(T, first, last):
    snr = np.linspace(first, last, T)
    return torch.tensor([1., *(snr/(snr + 1))])


def even_of_rates(T, first, last):
    ratio = torch.linspace(first, last, T).exp()                 # signal rate / noise rate
    return torch.cat([torch.ones(1), ratio**2/(1 + ratio**2)])


SUBMISSIONS = [
    (check_constant_beta, lambda schedule: sum(schedule.beta.tolist())/schedule.T, 'the mean of the β'),
    (check_constant_beta, lambda schedule: np.mean(schedule.beta.numpy()).item(), 'entry 0 included'),
    (check_constant_beta, lambda schedule: bisect(schedule, target=math.sqrt(schedule.alpha_bar[-1])), 'the signal rate √ᾱ_T for the product'),
    (check_constant_beta, one_too_many, 'one step too many'),
    (check_constant_beta, lambda schedule: 1 - bisect(schedule), 'the constant α'),
    (check_constant_beta, lambda schedule: -math.log(schedule.alpha_bar[-1])/schedule.T, 'the limit of very many'),
    (check_terminal_rescale, rescale_shares, 'You stretch ᾱ. Stretch the signal rate'),
    (check_terminal_rescale, rescale_shares_to_rate, 'to `last` itself'),
    (check_terminal_rescale, lambda schedule, last: rescale(schedule, last).sqrt(), 'return the signal rates'),
    (check_terminal_rescale, rescale_from_0, 'keep entry 0'),
    (check_terminal_rescale, rescale_all, 'ᾱ_0 is no longer 1'),
    (check_terminal_rescale, lambda schedule, last: rescale(schedule, last)[1:], 'entry 0 is missing'),
    (check_half_way, from_zero, 'count steps from 0'),
    (check_half_way, by_rate, 'signal rate √ᾱ is below ½'),
    (check_half_way, nearest, 'nearest to ½'),
    (check_half_way, lambda schedule: half_way(schedule)/schedule.T, 'the fraction t/T'),
    (check_half_way, lambda schedule: int(schedule.T/2), 'not half of the noise'),
    (check_strided_schedule, lambda schedule, stride: schedule.beta[torch.arange(stride, schedule.T + 1, stride)], 'every stride-th β'),
    (check_strided_schedule, long_sums, 'add up the β'),
    (check_strided_schedule, leading, 'never reaches T'),
    (check_strided_schedule, lambda schedule, stride: 1 - long_steps(schedule, stride), 'That is α'),
    (check_strided_schedule, lambda schedule, stride: torch.tensor([0.] + long_steps(schedule, stride).tolist()), 'β_0 = 0 stands before them'),
    (check_strided_schedule, rate_ratio, 'ratio of signal rates'),
    (check_even_log_snr, even_over_all, 'over all T+1 entries, so that entry 0 is noisy'),
    (check_even_log_snr, even_over_all_then_1, 'Entry 0 is 1, as it should be'),
    (check_even_log_snr, lambda T, first, last: even(T, first, last)[1:], 'entry 0 is missing'),
    (check_even_log_snr, lambda T, first, last: torch.tensor([1., *(1 - even(T, first, last)[1:])]), 'the share of the noise'),
    (check_even_log_snr, even_of_snr, 'as the SNR'),
    (check_even_log_snr, even_of_rates, 'signal rate over noise rate'),
    (check_even_log_snr, lambda T, first, last: even(T, first, last).sqrt(), 'These are the signal rates'),
]

RIGHT = [(check_constant_beta, bisect), (check_terminal_rescale, rescale), (check_half_way, half_way), (check_strided_schedule, long_steps), (check_even_log_snr, even)]
