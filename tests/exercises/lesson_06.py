"What readers of lesson 06 hand in."
import math
import numpy as np
import torch
import torch.nn.functional as F
from ddpm_course.exercises import check_attention, check_group_norm, check_receptive_field, check_unet_skips, check_variance_embedding


def reach(kernels, strides, size=lambda k: k - 1, start=1, until=lambda i: i):
    return start + sum(size(k)*math.prod(strides[:until(i)]) for i, k in enumerate(kernels))


def from_the_end(kernels, strides):
    seen = 1
    for k, s in list(zip(kernels, strides))[::-1]: seen = (seen - 1)*s + k
    return seen


def from_the_end_but_forwards(kernels, strides):
    seen = 1
    for k, s in zip(kernels, strides): seen = (seen - 1)*s + k
    return seen


FREQUENCIES = [10**(3*k/15) for k in range(16)]


def waves(v, speeds=FREQUENCIES, turn=2*math.pi, order=lambda s, c: s + c):
    rows = [order([math.sin(turn*f*x) for f in speeds], [math.cos(turn*f*x) for f in speeds]) for x in v.double().tolist()]
    return torch.tensor(rows)


def by_groups(x, groups, members=lambda c, C, groups: c*groups//C, center=np.mean, spread=np.std, batch=False):
    "Collect the numbers of each group in numpy."
    x, y = x.double().numpy(), np.zeros(x.shape)
    B, C = x.shape[:2]
    for b in range(B):
        for c in range(C):
            mates = [m for m in range(C) if members(m, C, groups) == members(c, C, groups)]
            with_it = x[:, mates] if batch else x[b, mates]
            y[b, c] = (x[b, c] - center(with_it))/spread(with_it)
    return torch.from_numpy(y)


def asked(q, k, v, scale=lambda q: 1/math.sqrt(q.shape[-1]), normal=lambda table: table.exp()/table.exp().sum(-1, keepdim=True)):
    table = torch.einsum('bid,bjd->bij', q, k)*scale(q)
    return torch.einsum('bij,bjd->bid', normal(table), v)


def put_aside(side, widths, layers):
    "Push a real picture down, and see what is there."
    picture = torch.zeros(1, widths[0], side, side)
    seen, last = [picture], len(widths) - 1
    for level, w in enumerate(widths):
        for _ in range(layers): seen.append(picture := torch.zeros(1, w, *picture.shape[2:]))
        if level < last: seen.append(picture := F.conv2d(F.pad(picture, (0, 1, 0, 1)), torch.zeros(w, w, 3, 3), stride=2))
    return [(s.shape[1], s.shape[3]) for s in seen]


def written_down(side, widths, layers, halve=lambda s: s//2, halvings=lambda L: L - 1, keeps=True):
    skips = [[widths[0], side]]
    for level in range(len(widths)):
        for _ in range(layers): skips.append([widths[level], side])
        if level >= halvings(len(widths)): continue
        side = halve(side)
        skips.append([widths[level] if keeps else (list(widths) + [widths[-1]])[level + 1], side])
    return skips


def only_blocks(side, widths, layers): return [(widths[0], side), *((w, side >> i) for i, w in enumerate(widths) for _ in range(layers))]


RIGHT = [
    (check_receptive_field, reach), (check_receptive_field, from_the_end),
    (check_variance_embedding, waves),
    (check_group_norm, by_groups), (check_group_norm, lambda x, groups: F.group_norm(x, groups, eps=1e-6)),
    (check_attention, asked), (check_attention, F.scaled_dot_product_attention),
    (check_unet_skips, put_aside), (check_unet_skips, written_down)]

SUBMISSIONS = [
    (check_receptive_field, lambda kernels, strides: 1 + sum(k - 1 for k in kernels), 'leave the strides out'),
    (check_receptive_field, lambda *a: reach(*a, until=lambda i: i + 1), 'own stride'),
    (check_receptive_field, lambda *a: reach(*a, size=lambda k: k), 'A kernel of size 1 adds nothing'),
    (check_receptive_field, from_the_end_but_forwards, 'the layers that come after'),
    (check_receptive_field, lambda *a: reach(*a, start=0), 'forgot the pixel itself'),
    (check_variance_embedding, lambda v: waves(v, turn=1), 'The 2π is missing'),
    (check_variance_embedding, lambda v: waves(v, [1 + k*999/15 for k in range(16)]), 'evenly spaced'),
    (check_variance_embedding, lambda v: waves(v, order=lambda s, c: c + s), 'the cosines first'),
    (check_variance_embedding, lambda v: waves(v, order=lambda s, c: [number for pair in zip(s, c) for number in pair]), 'interleave'),
    (check_variance_embedding, lambda v: waves(v, [math.exp(-math.log(10000)*k/15) for k in range(16)], 1), 'the speeds for steps'),
    (check_group_norm, lambda *a: by_groups(*a, spread=lambda v: np.std(v, ddof=1)), 'divide by n - 1'),
    (check_group_norm, lambda *a: by_groups(*a, spread=np.var), 'divide by the variance'),
    (check_group_norm, lambda x, groups: F.instance_norm(x, eps=1e-6), 'each channel by itself'),
    (check_group_norm, lambda *a: by_groups(*a, batch=True), 'as batch norm does'),
    (check_group_norm, lambda x, groups: F.layer_norm(x, x.shape[1:], eps=1e-6), 'a single group'),
    (check_group_norm, lambda *a: by_groups(*a, members=lambda c, C, groups: c % groups), 'like cards'),
    (check_attention, lambda *a: asked(*a, scale=lambda q: 1), 'division by √d is missing'),
    (check_attention, lambda *a: asked(*a, scale=lambda q: 1/q.shape[2]), 'divide by d'),
    (check_attention, lambda *a: asked(*a, scale=lambda q: q.shape[1]**-0.5), 'the number of pixels'),
    (check_attention, lambda *a: asked(*a, normal=lambda table: table.exp()/table.exp().sum(1, keepdim=True)), 'over the pixels that ask'),
    (check_attention, lambda q, k, v: asked(k, q, v), 'changed places'),
    (check_attention, lambda *a: asked(*a, normal=lambda table: table), 'The softmax is missing'),
    (check_unet_skips, lambda *a: written_down(*a)[1:], 'conv_in, is missing'),
    (check_unet_skips, only_blocks, 'The halved pictures are missing'),
    (check_unet_skips, lambda *a: written_down(*a, halvings=lambda L: L), 'halve after the lowest level'),
    (check_unet_skips, lambda *a: written_down(*a, keeps=False), 'width of the next level'),
    (check_unet_skips, lambda *a: written_down(*a, halve=lambda s: math.ceil(s/2)), 'round odd sides up')]
