"What readers of lesson 12 hand in."
import math
import statistics
import torch
from ddpm_course.exercises import check_hybrid_gradients, check_importance_steps, check_learned_range, check_paired_error, check_respaced_beta


def respaced(schedule, times, first=0., β=lambda βs: 1 - math.prod(1 - b for b in βs)):
    "Old step by old step."
    old, kept = schedule.beta.tolist(), times.tolist()
    return torch.tensor([first] + [β(old[s + 1:t + 1]) for s, t in zip(kept, kept[1:])])


def from_clean(schedule, times):
    old = schedule.beta.tolist()
    return torch.tensor([0.] + [1 - math.prod(1 - b for b in old[1:t + 1]) for t in times.tolist()[1:]])


def late_table(schedule, times): return torch.roll(respaced(schedule, times), -1)


def paired(a, b, d=lambda x, y: y - x, scatter=statistics.stdev, over=lambda n: n**0.5):
    values = [d(x, y) for x, y in zip(a.tolist(), b.tolist())]
    return torch.tensor(statistics.fmean(values)), torch.tensor(scatter(values)/over(len(values)))


def unpaired(a, b):
    n = len(a)
    return paired(a, b)[0], math.sqrt(statistics.variance(a.tolist())/n + statistics.variance(b.tolist())/n)


def learned_range(schedule, v, t, share=lambda v: 0.5*v + 0.5, entry=lambda t: t, mix=lambda f, low, high: f*math.log(high) + (1 - f)*math.log(low)):
    "Number by number."
    out = torch.empty_like(v)
    for i, step in enumerate(t.tolist()):
        β, before, now = schedule.beta[step].item(), schedule.alpha_bar[step - 1].item(), schedule.alpha_bar[step].item()
        low, high = β*(1 - before)/(1 - now), schedule.beta[entry(step)].item()
        out[i] = torch.tensor([mix(share(x), low, high) for x in v[i].flatten().tolist()]).reshape(v[i].shape)
    return out


def hybrid(simple, bound, prediction, v, T, weight, factor=lambda T, weight: T*weight, stop=True):
    "The two parts by themselves, added at the end."
    p, u = prediction.clone().requires_grad_(), v.clone().requires_grad_()
    simple(p).mean().backward()
    from_simple = p.grad.clone()
    p.grad = None
    bound(p, u).mean().backward()
    k = factor(T, weight)
    return (from_simple if stop else from_simple + k*p.grad), k*u.grad


def bound_only(simple, bound, prediction, v, T, weight):
    u = v.clone().requires_grad_()
    (T*weight*bound(prediction, u).mean()).backward()
    return torch.zeros_like(prediction), u.grad


def summed(simple, bound, prediction, v, T, weight): return tuple(len(v)*g for g in hybrid(simple, bound, prediction, v, T, weight))


def importance(losses, size=lambda row: math.sqrt(sum(x*x for x in row)/len(row)), weight=lambda p, T: 1/(T*p)):
    sizes = [size(row) for row in losses.tolist()]
    p = [s/sum(sizes) for s in sizes]
    return torch.tensor(p), torch.tensor([weight(q, len(p)) for q in p])


def mean_one(losses):
    p, w = importance(losses)
    return p, w/w.mean()


def spread_sizes(losses): return importance(losses, size=lambda row: statistics.pstdev(row) + 1e-15)


RIGHT = [(check_respaced_beta, respaced), (check_paired_error, paired), (check_learned_range, learned_range), (check_hybrid_gradients, hybrid), (check_importance_steps, importance)]

SUBMISSIONS = [
    (check_respaced_beta, lambda schedule, times: respaced(schedule, times, β=lambda βs: βs[-1]), 'the old β of the steps you stop at'),
    (check_respaced_beta, from_clean, 'with the clean picture'),
    (check_respaced_beta, lambda schedule, times: respaced(schedule, times, β=sum), 'add up the β'),
    (check_respaced_beta, lambda schedule, times: respaced(schedule, times, β=lambda βs: 1 - math.prod(math.sqrt(1 - b) for b in βs)), 'root of the ratio'),
    (check_respaced_beta, late_table, 'entry 0 for clean data'),
    (check_paired_error, unpaired, 'picture by picture first'),
    (check_paired_error, lambda a, b: paired(a, b, over=lambda n: 1), 'divide.'),
    (check_paired_error, lambda a, b: paired(a, b, over=lambda n: n), 'You divide by N. It is the variance'),
    (check_paired_error, lambda a, b: paired(a, b, scatter=statistics.pstdev), 'divide by N-1'),
    (check_paired_error, lambda a, b: paired(a, b, d=lambda x, y: x - y), 'b - a'),
    (check_paired_error, lambda a, b: paired(a, b, d=lambda x, y: math.fabs(x - y)), 'absolute values'),
    (check_learned_range, lambda *a: learned_range(*a, share=lambda v: v), '(v + 1)/2'),
    (check_learned_range, lambda *a: learned_range(*a, share=lambda v: (1 - v)/2), 'ends are swapped'),
    (check_learned_range, lambda *a: learned_range(*a, mix=lambda f, low, high: math.log(low + f*(high - low))), 'geometric mean'),
    (check_learned_range, lambda *a: learned_range(*a).exp(), 'the variance itself'),
    (check_learned_range, lambda *a: learned_range(*a, mix=lambda f, low, high: f*math.log(math.sqrt(high)) + (1 - f)*math.log(math.sqrt(low))), 'standard deviation'),
    (check_learned_range, lambda *a: learned_range(*a, entry=lambda t: t - 1), 'that of t - 1'),
    (check_hybrid_gradients, lambda *a: hybrid(*a, stop=False), 'pulls at the prediction'),
    (check_hybrid_gradients, lambda *a: hybrid(*a, factor=lambda T, weight: weight), 'one drawn term stands for T'),
    (check_hybrid_gradients, lambda *a: hybrid(*a, factor=lambda T, weight: T), 'λ is missing'),
    (check_hybrid_gradients, summed, 'sum over the batch'),
    (check_hybrid_gradients, bound_only, 'Add L_simple'),
    (check_importance_steps, lambda losses: importance(losses, size=statistics.fmean), 'follows the mean loss'),
    (check_importance_steps, lambda losses: importance(losses, size=lambda row: sum(x**2 for x in row)), 'root is missing'),
    (check_importance_steps, spread_sizes, 'do not subtract the mean'),
    (check_importance_steps, lambda losses: importance(losses, weight=lambda p, T: 1.), 'All your weights are 1'),
    (check_importance_steps, lambda losses: importance(losses, weight=lambda p, T: T*p), 'upside down'),
    (check_importance_steps, lambda losses: importance(losses, weight=lambda p, T: p**-1), 'T times too large'),
    (check_importance_steps, mean_one, 'plain mean is 1')]
