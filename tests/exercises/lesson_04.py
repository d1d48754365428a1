"What readers of lesson 04 hand in."
import math
import numpy as np
import torch
from torch.distributions import Normal, kl_divergence
from ddpm_course.exercises import check_elbo_importance, check_elbo_pixel_code, check_elbo_prior_bits, check_elbo_stratified, check_elbo_water_filling


def rows(log_ratio): return [row.double() for row in log_ratio]


def shifted_mean(row):
    "log of the mean of exp, the largest taken out first."
    top = row.max()
    return top + torch.log(torch.exp(row - top).sum()/len(row))


def importance(log_ratio): return sum(shifted_mean(row) for row in rows(log_ratio))/len(log_ratio)


def plain_elbo(log_ratio): return sum(row.sum()/len(row) for row in rows(log_ratio))/len(log_ratio)


def summed_ratios(log_ratio): return sum(shifted_mean(row) + math.log(len(row)) for row in rows(log_ratio))/len(log_ratio)


def underflows(log_ratio): return torch.log(torch.exp(log_ratio).sum(1)/log_ratio.shape[1]).sum()/log_ratio.shape[0]


def one_big_mean(log_ratio): return shifted_mean(log_ratio.reshape(-1).double())


def one_big_naive_mean(log_ratio): return torch.log(torch.exp(log_ratio).sum()/log_ratio.numel())


def down_the_columns(log_ratio): return importance(log_ratio.T)


def prior(alpha_bar_T, x0, mean=lambda a, x: math.sqrt(a)*x, sd=lambda a: math.sqrt(1 - a), turned=False):
    q, p = Normal(mean(alpha_bar_T, x0), sd(alpha_bar_T)), Normal(torch.zeros(()), torch.ones(()))
    return (kl_divergence(p, q) if turned else kl_divergence(q, p))/math.log(2)


def each(bits): return torch.stack([picture.mean() for picture in bits])


def pixel_bits(train, test, levels, more=1, whole=lambda seen, levels: len(seen) + levels, log=np.log2, one_table=False):
    cost = np.zeros(test.shape)
    for i, picture in enumerate(test.numpy()):
        for d, level in enumerate(picture):
            seen = train.numpy() if one_table else train.numpy()[:, d]
            seen = seen.reshape(-1)
            with np.errstate(divide='ignore'): cost[i, d] = -log((np.sum(seen == level) + more)/whole(seen, levels))
    return torch.from_numpy(cost).mean(1)


def estimate(costs, width, u, stands=lambda w, costs, width: w, inside=lambda u, w: int(u*w), first=2, entry=lambda t: t - 2):
    found = []
    for column in u.T.tolist():
        total, t = 0., first
        for w, chance in zip(width.tolist(), column):
            total += stands(w, costs, width)*costs[entry(t + inside(chance, w))].item()
            t += w
        found.append(total)
    return torch.tensor(found)


def starts_late(costs, width, u):
    ends = torch.cumsum(width, 0)
    return sum(w*costs[ends[j] + (u[j]*w).long()] for j, w in enumerate(width))


def level(variances, error):
    "Sort, and leave out from the faintest up."
    faint_first = sorted(variances.tolist())
    for left_out in range(len(faint_first)):
        θ = (error - sum(faint_first[:left_out]))/(len(faint_first) - left_out)
        if θ <= faint_first[left_out]: return θ


def rate(variances, error, log=math.log2, half=0.5, share=lambda variances, error, v: min(level(variances, error), v)):
    return sum(half*log(v/share(variances, error, v)) for v in variances.tolist())/len(variances)


RIGHT = [
    (check_elbo_importance, importance),
    (check_elbo_prior_bits, lambda a, x: each(prior(a, x))),
    (check_elbo_pixel_code, pixel_bits),
    (check_elbo_stratified, estimate),
    (check_elbo_water_filling, rate)]

SUBMISSIONS = [
    (check_elbo_importance, plain_elbo, 'that is the plain ELBO'),
    (check_elbo_importance, summed_ratios, 'Subtract log K'),
    (check_elbo_importance, underflows, 'torch.logsumexp'),
    (check_elbo_importance, one_big_mean, 'repetitions inside the logarithm'),
    (check_elbo_importance, one_big_naive_mean, 'repetitions inside the logarithm'),
    (check_elbo_importance, down_the_columns, 'down the columns'),
    (check_elbo_prior_bits, lambda a, x: each(prior(a, x, mean=lambda a, x: a*x)), 'itself for the signal rate'),
    (check_elbo_prior_bits, lambda a, x: each(prior(a, x, sd=lambda a: (1 - a)**0.25)), 'That is a standard deviation'),
    (check_elbo_prior_bits, lambda a, x: each(prior(a, x, turned=True)), 'the other way round'),
    (check_elbo_prior_bits, lambda a, x: each(prior(a, x)*math.log(2)), 'divide by log 2'),
    (check_elbo_prior_bits, lambda a, x: torch.stack([p.sum() for p in prior(a, x)]), 'for a whole picture'),
    (check_elbo_prior_bits, lambda a, x: prior(a, x).sum()/x.numel(), 'average over the pictures as well'),
    (check_elbo_pixel_code, lambda *a: pixel_bits(*a, more=0, whole=lambda seen, levels: len(seen)), 'Add 1 to every count first'),
    (check_elbo_pixel_code, lambda *a: pixel_bits(*a, whole=lambda seen, levels: len(seen)), 'sum to more than 1'),
    (check_elbo_pixel_code, lambda *a: pixel_bits(*a, one_table=True), 'in one histogram'),
    (check_elbo_pixel_code, lambda *a: pixel_bits(*a, log=np.log), 'use log2'),
    (check_elbo_pixel_code, lambda *a: pixel_bits(*a).sum()/len(a[1]), 'average over its pixels only'),
    (check_elbo_stratified, lambda *a: estimate(*a, stands=lambda w, costs, width: 1), 'nothing stands for the others'),
    (check_elbo_stratified, lambda *a: estimate(*a, stands=lambda w, costs, width: len(costs)/len(width)), 'the same weight'),
    (check_elbo_stratified, lambda *a: estimate(*a, inside=lambda u, w: round(u*w)), 'cut it off instead'),
    (check_elbo_stratified, starts_late, 'begin where it should end'),
    (check_elbo_stratified, lambda *a: estimate(*a, entry=lambda t: t), 'step t lies at t - 2'),
    (check_elbo_water_filling, lambda *a: rate(*a, share=lambda variances, error, v: error/len(variances)), 'negative number of bits'),
    (check_elbo_water_filling, lambda *a: rate(*a, share=lambda variances, error, v: min(v, error/len(variances))), 'θ is still error/D'),
    (check_elbo_water_filling, lambda *a: rate(*a, share=lambda variances, error, v: v*error/variances.sum().item()), 'the same share of its variance'),
    (check_elbo_water_filling, lambda *a: rate(*a, log=math.log), 'These are nats'),
    (check_elbo_water_filling, lambda *a: rate(*a, half=1), 'factor ½ is missing'),
    (check_elbo_water_filling, lambda *a: rate(*a)*len(a[0]), 'all coordinates together')]
