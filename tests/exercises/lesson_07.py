"What readers of lesson 07 hand in."
import math
import torch
from torch import nn
from ddpm_course.exercises import check_accumulation, check_clipping, check_ema_update, check_learning_rate
from ddpm_course.training import EMA, TrainConfig, learning_rate


def by_lerp(average, weights, k, d, decay=lambda k, d: min(d, (k + 1)/(k + 10))): return average + (1 - decay(k, d))*(weights - average)


def by_the_course(average, weights, k, d):
    "The EMA of the lesson, on a network whose weights these are."
    net = nn.utils.skip_init(nn.Linear, len(average), 1, bias=False)
    net.weight.data = average[None].clone()
    ema = EMA(net, d)
    net.weight.data = weights[None].clone()
    ema.update(net, k)
    return ema.model.weight[0]


def autograd_accumulates(gradients, sizes, per_part=lambda n, total: n/total, clear=False):
    "Each part has a loss whose gradient is the one given; backward adds up."
    θ = torch.zeros_like(gradients[0], requires_grad=True)
    for g, n in zip(gradients, sizes):
        if clear: θ.grad = None
        ((θ*g).sum()*per_part(n, sum(sizes))).backward()
    return θ.grad


def torch_clips(gradients, c, S, how=nn.utils.clip_grad_norm_, before=lambda g, S: g/S, after=lambda g, S: g, together=True):
    weights = [torch.zeros_like(g, requires_grad=True) for g in gradients]
    for w, g in zip(weights, gradients): w.grad = before(g, S)
    for group in [weights] if together else [[w] for w in weights]: how(group, c)
    return [after(w.grad, S) for w in weights]


def squares(gradients): return sum((g*g).sum().item() for g in gradients)


def scaled_by(gradients, c, S, factor): return [g/S*factor(squares([g/S for g in gradients]), c) for g in gradients]


def from_config(k, K, w, peak): return learning_rate(k, TrainConfig(steps=K, warmup=w, lr=peak, decay='cosine'))


def rate(k, K, w, peak, line=lambda k, w: k/w if k < w else 1., angle=lambda k, K: math.pi*(k - 1)/K):
    return peak*line(k, w)*math.cos(angle(k, K)/2)**2  # ½(1 + cos a) = cos²(a/2)


def one_after_the_other(k, K, w, peak):
    if k <= w: return peak*k/w
    return peak*math.cos(math.pi/2*(k - w)/(K - w))**2


RIGHT = [
    (check_ema_update, by_lerp), (check_ema_update, by_the_course),
    (check_accumulation, autograd_accumulates),
    (check_clipping, torch_clips), (check_clipping, lambda *a: scaled_by(*a, lambda s, c: min(1, c/math.sqrt(s)))),
    (check_learning_rate, from_config), (check_learning_rate, rate)]

SUBMISSIONS = [
    (check_ema_update, lambda *a: by_lerp(*a, decay=lambda k, d: d), 'd from the first step on'),
    (check_ema_update, lambda average, weights, k, d: by_lerp(weights, average, k, d), 'The shares have changed places'),
    (check_ema_update, lambda *a: by_lerp(*a, decay=lambda k, d: max(d, (k + 1)/(k + 10))), 'the larger of the two'),
    (check_ema_update, lambda average, weights, k, d: by_lerp(average, weights, k - 1, d), 'off by one'),
    (check_ema_update, lambda *a: by_lerp(*a, decay=lambda k, d: 1 - 9/(10 + k)), 'd is missing'),
    (check_accumulation, lambda *a: autograd_accumulates(*a, per_part=lambda n, total: 1), 'add the parts up'),
    (check_accumulation, lambda gradients, sizes: torch.stack(gradients).mean(0), 'as if they were of equal size'),
    (check_accumulation, lambda *a: autograd_accumulates(*a, per_part=lambda n, total: 1/total), 'Multiply each part by its own size first'),
    (check_accumulation, lambda *a: autograd_accumulates(*a, per_part=lambda n, total: n), 'gradient of the summed loss'),
    (check_accumulation, lambda *a: autograd_accumulates(*a, per_part=lambda n, total: 1, clear=True), 'zero_grad stands inside the loop'),
    (check_clipping, lambda *a: torch_clips(*a, before=lambda g, S: g.clone(), after=lambda g, S: g/S), 'clip before you unscale'),
    (check_clipping, lambda *a: torch_clips(*a, before=lambda g, S: g.clone()), 'never divide by S'),
    (check_clipping, lambda *a: torch_clips(*a, together=False), 'each tensor by itself'),
    (check_clipping, lambda *a: torch_clips(*a, how=nn.utils.clip_grad_value_), 'clamp each number'),
    (check_clipping, lambda *a: scaled_by(*a, lambda s, c: c/math.sqrt(s)), 'Clipping only shortens'),
    (check_clipping, lambda *a: scaled_by(*a, lambda s, c: min(1, c/s)), 'The length is its root'),
    (check_learning_rate, lambda *a: rate(*a, line=lambda k, w: min(1., (k - 1)/w)), 'warm-up starts at 0'),
    (check_learning_rate, lambda *a: rate(*a, angle=lambda k, K: math.pi*k/K), 'one step ahead'),
    (check_learning_rate, lambda *a: rate(*a, angle=lambda k, K: 2*math.pi*(k - 1)/K), 'a whole cosine'),
    (check_learning_rate, lambda *a: 2*rate(*a), 'factor ½ is missing'),
    (check_learning_rate, one_after_the_other, 'begin after the warm-up'),
    (check_learning_rate, lambda *a: rate(*a, angle=lambda k, K: 0), 'the warm-up alone'),
    (check_learning_rate, lambda *a: rate(*a, line=lambda k, w: 1), 'The warm-up is missing'),
    (check_learning_rate, lambda *a: rate(*a, line=lambda k, w: k/w), 'goes on rising')]
