"""The likelihood ledger: gaps of the bound in closed form, and what a ledger of real pictures costs.

    python tests/benchmarks/ledger.py           gaps, agreement, and ledgers from a tenth of the steps
    python tests/benchmarks/ledger.py --full    the full ledger of 1,000 digits at T = 1000 as well (several minutes)"""
import math
import sys
import time
import torch
from ddpm_course.checkpoints import load_run
from ddpm_course.data import load_digits
from ddpm_course.elbo import gaussian_terms, summary, vlb_terms
from ddpm_course.reverse import GaussianOracle, Reverse, WithVariance
from ddpm_course.schedules import cosine_schedule, linear_schedule

KINDS = (('beta', 'beta'), ('beta', 'beta_tilde'), ('beta_tilde', 'beta_tilde'), ('learned', 'beta_tilde'))


def gap(schedule, kind, sigma_1, variance):
    "E[-ELBO] - entropy in nats per dimension."
    return gaussian_terms(Reverse(schedule, variance=kind, clip=False, sigma_1=sigma_1), variance)['gap'].item()*math.log(2)


def prior(schedule, variance):
    "KL(q(x_T) ‖ N(0, 1)) in nats."
    v = schedule.alpha_bar[-1]*variance + 1 - schedule.alpha_bar[-1]
    return 0.5*(v - 1 - v.log()).item()


def gaps():
    print('gap of the bound on Gaussian data, nats per dimension (linear schedule, cosine below T = 30)')
    print(f'{"variance of data":>17}{"T":>6}{"β, β_1 at t=1":>16}{"β, β̃_2 at t=1":>17}{"β̃":>11}{"exact":>12}{"exact - prior":>15}')
    for variance in (1., 0.25, 0.01):
        for T in (1, 2, 10, 100, 1000, 4000):
            schedule = linear_schedule(T) if T >= 30 else cosine_schedule(T)
            found = [gap(schedule, *kind, variance) for kind in KINDS]
            print(f'{variance:17}{T:6}{found[0]:16.6f}{found[1]:16.6f}{found[2]:12.6f}{found[3]:12.6f}{found[3] - prior(schedule, variance):15.1e}')


def agreement():
    print('\nMonte Carlo ledger against the closed form, N(0, 0.25) in 4 dimensions, 4,000 points, T = 100, bits/dim')
    s, x = linear_schedule(100), torch.randn(4000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))/2
    for kind in ('beta', 'beta_tilde', 'learned'):
        reverse, oracle = Reverse(s, variance=kind, clip=False), GaussianOracle(s, 0., 0.25)
        model = WithVariance(oracle, reverse) if kind == 'learned' else oracle
        total, error = summary(vlb_terms(reverse, model, x, decoder='density', rows=4000, generator=torch.Generator().manual_seed(1)))['total']
        print(f'{kind:12} {total:.4f} ± {error:.4f}, closed form {gaussian_terms(reverse, 0.25)["total"]:.4f}')


def ledgers(full):
    print('\nledgers of the run that ships, 1,000 digits, T = 1000, variance β')
    model, reverse, _ = load_run('digits')
    reverse, x = Reverse(reverse.schedule, variance='beta'), load_digits().floats(slice(0, 1000))
    for steps in (10, 30, 100) + ((None,) if full else ()):
        start = time.time()
        rows = summary(vlb_terms(reverse, model, x, levels=17, steps=steps, generator=torch.Generator().manual_seed(0)))
        seconds = time.time() - start
        print(f'{steps or 999:4} steps each: ' + ', '.join(f'{name} {mean:.4f} ± {error:.4f}' for name, (mean, error) in rows.items()) + f' bits/dim, {seconds:.0f} s on {torch.get_num_threads()} threads')


if __name__ == '__main__':
    gaps()
    agreement()
    ledgers('--full' in sys.argv[1:])
