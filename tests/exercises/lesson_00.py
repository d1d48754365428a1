"What learners hand in for lesson 00: mistakes with the words that must name them, and right answers found in another way."
import math
import numpy as np
import torch
import torch.distributions as td
from ddpm_course.exercises import check_bubble_walk, check_full_kl, check_grey_levels, check_repeated_noise, check_thermometers


def std_times_root(mean, variance, beta, steps):
    for _ in range(steps):
        mean = mean*math.sqrt(1 - beta)
        variance = math.sqrt(1 - beta)*variance + beta
    return mean, variance


def adds_root(mean, variance, beta, steps):
    a = 1 - beta
    for _ in range(steps): mean, variance = mean*a**.5, a*variance + math.sqrt(beta)
    return mean, variance


def adds_square(mean, variance, beta, steps):
    for k in range(steps):
        mean *= (1 - beta)**.5
        variance -= beta*variance
        variance += beta*beta
    return mean, variance


def tracks_std(mean, variance, beta, steps):
    std = math.sqrt(variance)
    for _ in range(steps): mean, std = math.sqrt(1 - beta)*mean, math.sqrt(1 - beta)*std + math.sqrt(beta)
    return mean, std*std


def closed_form(mean, variance, beta, steps):
    keep = (1 - beta)**steps
    return mean*keep**.5, 1 - keep*(1 - variance)


def mean_too_small(mean, variance, beta, steps): return mean*(1 - beta)**steps, closed_form(mean, variance, beta, steps)[1]


def mean_stays(mean, variance, beta, steps): return mean, closed_form(mean, variance, beta, steps)[1]


def by_pairs(readings, variances):
    m, v = readings[0], variances[0]
    for r, w in zip(readings[1:], variances[1:]): m, v = (m*w + r*v)/(v + w), v*w/(v + w)
    return m, v


def weighted(readings, weights): return sum(float(r*w) for r, w in zip(readings, weights))/float(sum(weights))


def straight(z, other, share): return torch.lerp(z, other, share)


def slerp(z, other, share): return torch.stack([z, other], -1) @ torch.tensor([math.sin((1 - share)*math.pi/2), math.sin(share*math.pi/2)])


def kl(m1, S1, m2, S2): return td.kl_divergence(td.MultivariateNormal(m1, S1), td.MultivariateNormal(m2, S2))


def by_hand(m1, S1, m2, S2, product=None, log_sign=1):
    product = torch.inverse(S2) @ S1 if product is None else product
    d = (m2 - m1)[:, None]
    return (product.diagonal().sum() - m1.shape[0] + log_sign*(torch.logdet(S2) - torch.logdet(S1)) + (d.T @ torch.linalg.solve(S2, d)).squeeze())/2


def by_entry(m1, S1, m2, S2): return by_hand(m1, S1, m2, S2, torch.inverse(S2)*S1)


def no_dimension(m1, S1, m2, S2):
    white = torch.linalg.solve(torch.linalg.cholesky(S2), m1 - m2)
    return 0.5*(torch.trace(torch.linalg.solve(S2, S1)) + torch.log(torch.det(S2)/torch.det(S1)) + white @ white)


def squared(m1, S1, m2, S2):
    d, i = m1 - m2, torch.inverse(S2)
    return 0.5*((i @ i @ S1 @ S1).trace() - len(d) + 2*torch.logdet(S2) - 2*torch.logdet(S1) + d @ i @ i @ d)


def phi(u): return 0.5*(1 + math.erf(u/math.sqrt(2)))


def grey(mean, std, levels, half=None, closed=False):
    half, masses = half or 1/(levels - 1), []
    for k in range(levels):
        x = 2*k/(levels - 1) - 1
        right = 1. if k == levels - 1 and not closed else phi((x + half - mean)/std)
        left = 0. if k == 0 and not closed else phi((x - half - mean)/std)
        masses.append(right - left)
    return torch.tensor(masses)


def density(mean, std, levels):
    x = np.linspace(-1, 1, levels)
    return torch.tensor(np.exp(-0.5*((x - mean)/std)**2)/np.sqrt(2*np.pi)/std*(x[1] - x[0]))


SUBMISSIONS = [
    (check_repeated_noise, std_times_root, 'multiply the variance by √(1-β)'),
    (check_repeated_noise, adds_root, 'add √β to the variance'),
    (check_repeated_noise, adds_square, 'add β² to the variance'),
    (check_repeated_noise, tracks_std, 'add standard deviations'),
    (check_repeated_noise, mean_too_small, 'shrink the mean by 1-β'),
    (check_repeated_noise, mean_stays, 'mean stays where it was'),
    (check_thermometers, lambda r, v: (sum(r)/len(r), by_pairs(r, v)[1]), 'as if all were equally sure'),
    (check_thermometers, lambda r, v: (np.mean(r.numpy()).item(), np.mean(v.numpy()).item()), 'average both readings and variances'),
    (check_thermometers, lambda r, v: (by_pairs(r, v)[0], by_pairs(r, v)[1]*len(r)), 'average the precisions'),
    (check_thermometers, lambda r, v: (by_pairs(r, v)[0], 1/by_pairs(r, v)[1]), 'the precision'),
    (check_thermometers, lambda r, v: (by_pairs(r, v)[0], math.sqrt(by_pairs(r, v)[1])), 'is the standard deviation'),
    (check_thermometers, lambda r, v: (weighted(r, 1/v.sqrt()), by_pairs(r, v)[1]), 'weigh with 1/σ'),
    (check_thermometers, lambda r, v: (weighted(r, v), by_pairs(r, v)[1]), 'the least sure thermometer counts most'),
    (check_thermometers, lambda r, v: (by_pairs(r, v)[0], sum(v)), 'the variance of a sum'),
    (check_bubble_walk, straight, 'in a straight line'),
    (check_bubble_walk, lambda z, other, share: math.sqrt(1 - share)*z + math.sqrt(share)*other, 'steady speed'),
    (check_bubble_walk, lambda z, other, share: np.cos(share)*z + np.sin(share)*other, 'the share for the angle'),
    (check_bubble_walk, lambda z, other, share: z*torch.cos(torch.tensor(share*90)) + other*torch.sin(torch.tensor(share*90)), 'in degrees'),
    (check_bubble_walk, lambda z, other, share: z*math.cos(math.radians(180*share)) + other*math.sin(math.radians(180*share)), 'twice as far'),
    (check_bubble_walk, lambda z, other, share: slerp(other, z, share), 'the other way'),
    (check_full_kl, lambda m1, S1, m2, S2: kl(m2, S2, m1, S1), 'in the other direction'),
    (check_full_kl, no_dimension, 'The term -D is missing'),
    (check_full_kl, lambda m1, S1, m2, S2: kl(m1, S1, m2, S2) + by_hand(m1, S1, m2, S2), 'Twice too much'),
    (check_full_kl, lambda m1, S1, m2, S2: by_hand(m1, S1, m2, S2, log_sign=-1), 'determinants have the wrong sign'),
    (check_full_kl, by_entry, 'entry by entry'),
    (check_full_kl, squared, 'square the covariances'),
    (check_grey_levels, lambda mean, std, levels: grey(mean, std, levels, closed=True), 'end bins are closed'),
    (check_grey_levels, density, 'the density at each level'),
    (check_grey_levels, lambda mean, std, levels: td.Normal(mean, std).log_prob(torch.linspace(-1, 1, levels)).exp(), 'You return densities'),
    (check_grey_levels, lambda mean, std, levels: grey(mean, std, levels, half=2/(levels - 1)), 'a whole step to either side'),
    (check_grey_levels, lambda mean, std, levels: grey(mean, std, levels, half=1/levels), 'half step is 1/levels'),
    (check_grey_levels, lambda mean, std, levels: grey(mean, std*std, levels), 'divide by the variance'),
    (check_grey_levels, lambda mean, std, levels: grey(mean, math.sqrt(std), levels), 'the root of std'),
]

RIGHT = [(check_repeated_noise, closed_form), (check_thermometers, by_pairs), (check_bubble_walk, slerp), (check_full_kl, kl), (check_full_kl, by_hand), (check_grey_levels, grey)]
