"What readers of lesson 15 hand in."
import math
import torch
from ddpm_course.exercises import check_draws, check_mended_step, check_neighbours, check_unseen_noise


def stepped(s, eps, x, t, z, power=0.5, below=None, sigma=lambda b: b**0.5, first=2):
    "Through the cumulative table, number by number."
    bar = [s.alpha_bar[k].item() for k in range(s.T + 1)]
    alpha = bar[t]/bar[t - 1]
    mean = (x - (1 - alpha)/(1 - bar[t])**power*eps)*(alpha if below is None else below(bar[t]))**-0.5
    return mean + sigma(1 - alpha)*z if t >= first else mean


def as_it_was(s, eps, x, t, z):
    mean = (x - s.beta[t]/(1 - s.alpha_bar[t])*eps)/s.alpha_bar[t].sqrt()
    return mean + s.beta[t]*z


def draws(right, wrong, scatters=5, difference=lambda r, w: (w - r)/r, per=2, start=2):
    "Counts up until it is enough."
    n = start
    while scatters*math.sqrt(per/(n - 1)) > abs(difference(right, wrong)): n += 1
    return n


def batch(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=g), torch.tensor([20, 400, 777][:n])


def by_taking_away(f, x=None, t=None, rows=None, equal=lambda a, b: (a - b).abs().max() < 1e-5):
    "Each picture alone must be what it is among others."
    pictures, steps = batch()
    x, t = pictures if x is None else x, steps if t is None else t
    together = f(x, t)
    for i in rows or range(3):
        if not equal(f(x[[i]], t[[i]]), together[[i]]): return False
    return True


def twice_the_same(f):
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    out = f(x, torch.tensor([50, 50]))
    return (out[0] - out[1]).abs().max() < 1e-6


def swapped(f):
    (x, t), order = batch(2), [1, 0]
    return (f(x[order], t[order])[order] - f(x, t)).abs().max() < 1e-5


def noise_properties(add_noise, T, want=('variance', 'falling', 'end', 'fresh')):
    "Which of the properties hold, with data of ±1."
    n = 40_000
    data = torch.randint(0, 2, (n, 1))*2. - 1
    at = lambda t: add_noise(data, torch.full((n,), t))
    shares = [(at(t)*data).mean().item() for t in (0, T//5, T//2, 4*T//5, T - 1)]
    holds = {'variance': all(abs(at(t).square().mean() - 1) < 0.03 for t in (T//8, T//4, T//2)), 'falling': all(a > b - 0.03 for a, b in zip(shares, shares[1:])) and shares[0] > 0.9,
             'end': abs(shares[-1]) < 0.03, 'fresh': not torch.equal(at(T//3), at(T//3))}
    return all(holds[name] for name in want)


def like_mine(add_noise, T):
    beta = torch.linspace(0.1/T, 20/T, T)
    kept = (1 - beta).cumprod(0).sqrt()
    x = torch.randn(20_000, 1)
    return all(abs((add_noise(x, torch.full((20_000,), t))*x).mean() - kept[t]) < 0.04 for t in range(0, T, T//6)) and noise_properties(add_noise, T)


def to_the_last_digit(add_noise, T):
    x = torch.randn(5000, 1)
    return add_noise(x, torch.full((5000,), T//2)).var() == 1


RIGHT = [(check_mended_step, stepped), (check_draws, draws), (check_neighbours, by_taking_away), (check_unseen_noise, noise_properties)]

SUBMISSIONS = [
    (check_mended_step, as_it_was, 'Nothing is mended yet'),
    (check_mended_step, lambda *a: stepped(*a, power=1), 'divided by 1 - ᾱ_t'),
    (check_mended_step, lambda *a: stepped(*a, below=lambda bar: bar), 'One step back undoes one of them'),
    (check_mended_step, lambda *a: stepped(*a, sigma=lambda b: b), 'multiplied by β_t, a variance'),
    (check_mended_step, lambda *a: stepped(*a, first=1), 'noise is added at t = 1'),
    (check_mended_step, lambda *a: stepped(*a, first=9), 'taken the noise out altogether'),
    (check_draws, lambda *a: draws(*a, scatters=1), 'one scatter'),
    (check_draws, lambda *a: draws(*a, difference=lambda r, w: w - r), 'difference itself'),
    (check_draws, lambda *a: draws(*a, difference=lambda r, w: (w - r)/w), 'divide by the wrong variance'),
    (check_draws, lambda *a: draws(*a, per=1), 'That is for means'),
    (check_draws, lambda *a: draws(*a) - 1, 'One draw is missing'),
    (check_draws, lambda right, wrong: int(50/(1 - wrong/right)**2) + 1, 'You round down'),
    (check_draws, lambda *a: draws(*a, difference=lambda r, w: math.sqrt(w)/math.sqrt(r) - 1), 'You compare standard deviations'),
    (check_draws, lambda right, wrong: 1 - (-10*right//abs(wrong - right)), 'forgot to square'),
    (check_neighbours, twice_the_same, 'Equal rows are not enough'),
    (check_neighbours, lambda f: by_taking_away(f, rows=[0]), 'first row only'),
    (check_neighbours, lambda f: by_taking_away(f, equal=lambda a, b: (a == b).all()), 'equality in every bit'),
    (check_neighbours, lambda f: by_taking_away(f, t=torch.tensor([60, 60, 60])), 'All your steps are the same'),
    (check_neighbours, swapped, 'turn the batch round'),
    (check_neighbours, lambda f: f(*batch()).shape == (3, 1, 8, 8), 'lets everything pass'),
    (check_neighbours, lambda f: bool((f(*batch()) < -5).any()), 'refuses everything'),
    (check_unseen_noise, lambda *a: noise_properties(*a, want=['variance']), 'variance only'),
    (check_unseen_noise, lambda *a: noise_properties(*a, want=['variance', 'fresh']), 'how much of x_0 is left'),
    (check_unseen_noise, lambda *a: noise_properties(*a, want=['variance', 'falling', 'fresh']), 'but does it arrive'),
    (check_unseen_noise, lambda *a: noise_properties(*a, want=['variance', 'falling', 'end']), 'two calls must differ'),
    (check_unseen_noise, like_mine, 'a schedule of your own'),
    (check_unseen_noise, to_the_last_digit, 'refuse right versions'),
    (check_unseen_noise, lambda *a: noise_properties(*a, want=['falling', 'end', 'fresh']), 'never measure a variance'),
    (check_unseen_noise, lambda add_noise, T: add_noise(torch.zeros(4, 1), torch.tensor([0, 1, 2, 3])).shape == (4, 1), 'lets everything pass')]
