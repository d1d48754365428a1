"What readers of lesson 14 hand in."
import math
import torch
from ddpm_course.exercises import check_attention_tensors, check_old_tensors, check_one_sided_zeros, check_published_clock, check_up_path


def renamed(tensors, shape=lambda name, x: x[:, :, 0, 0] if 'attentions' in name and x.ndim > 1 else x, pairs=(('query', 'to_q'), ('key', 'to_k'), ('value', 'to_v'), ('proj_attn', 'to_out.0'))):
    out = {}
    for name, x in tensors.items():
        new = name
        for before, after in pairs:
            if f'.{before}.' in name: new = name.replace(f'.{before}.', f'.{after}.')
        out[new] = shape(new, x)
    return out


def attention_weight(name, x): return 'attentions' in name and x.dim() == 4


def clock(t, dim, step=lambda t: t - 1, hands=lambda dim: dim//2, apart=lambda K: K - 1, join=lambda s, c: s + c):
    rows = []
    for value in t.tolist():
        speeds = [math.exp(-math.log(1e4)*k/apart(hands(dim))) for k in range(dim//2)]
        angles = [step(value)*w for w in speeds]
        rows.append(join([math.sin(a) for a in angles], [math.cos(a) for a in angles]))
    return torch.tensor(rows)


def attention_tensors(levels, layers, middle=1, up=lambda n: n + 1, block=('group_norm', 'to_q', 'to_k', 'to_v', 'to_out.0'), parts=('weight', 'bias')):
    blocks = ['mid']*middle + [f'down {i} {j}' for i in levels for j in range(layers)] + [f'up {i} {j}' for i in levels for j in range(up(layers))]
    return len([(b, layer, part) for b in blocks for layer in block for part in parts])


def adds_levels(levels, layers): return 10 + 10*sum(i*(layers + layers + 1) for i in levels)


def halved(x, weight, bias, zeros=(0, 1), stride=2, inside=True):
    "Pixel by pixel; zeros: rows above and below, and columns left and right."
    (before, after), (B, _, H, W) = zeros, x.shape
    canvas = torch.zeros(B, x.shape[1], H + before + after, W + before + after)
    canvas[:, :, before:before + H, before:before + W] = x
    rows = [[(canvas[:, None, :, i:i + 3, j:j + 3]*weight).sum((2, 3, 4)) + bias for j in range(0, canvas.shape[3] - 2, stride)] for i in range(0, canvas.shape[2] - 2, stride)]
    if not rows or not rows[0]: return torch.zeros(B, len(weight), 0, 0)
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def unpadded(x, weight, bias): return torch.conv2d(x, weight, bias, stride=2)


def padded_late(x, weight, bias):
    out = torch.conv2d(x, weight, bias, stride=2)
    return torch.cat([torch.cat([out, 0*out[..., -1:]], 3), torch.zeros(*out.shape[:2], 1, out.shape[3] + 1)], 2)


def up_plan(widths, layers, take=lambda stack: stack.pop(), blocks=1, forget=False):
    "Walks down and up with a list of what was put aside."
    aside, last = [widths[0]], len(widths) - 1
    for level, w in enumerate(widths):
        aside.extend(w for _ in range(layers))
        if level != last: aside.append(w)
    plan, x = [], widths[-1]
    for w in widths[::-1]:
        inputs, below = [], x
        for _ in range(layers + blocks):
            inputs.append(((below if forget else x) + take(aside), w))
            x = w
        plan.append(inputs)
    return plan


def own_width_twice(widths, layers):
    plan = []
    for w in widths[::-1]: plan.append([(w + w, w) for _ in range(layers + 1)])
    return plan


def own_skips(widths, layers):
    plan, below = [], widths[-1]
    for w in widths[::-1]:
        plan.append([(below + w, w)] + [(w + w, w)]*layers)
        below = w
    return plan


RIGHT = [(check_old_tensors, renamed), (check_published_clock, clock), (check_attention_tensors, attention_tensors), (check_one_sided_zeros, halved), (check_up_path, up_plan)]

SUBMISSIONS = [
    (check_old_tensors, lambda tensors: renamed(tensors, lambda name, x: x), 'still 1×1 convolutions'),
    (check_old_tensors, lambda tensors: renamed(tensors, lambda name, x: x[:, :, 0, 0] if x.dim() == 4 and x.shape[-1] == 1 else x), '`conv_shortcut`'),
    (check_old_tensors, lambda tensors: renamed(tensors, lambda name, x: torch.squeeze(x)), 'squeeze whatever has length 1'),
    (check_old_tensors, lambda tensors: renamed(tensors, pairs=(('query', 'to_q'), ('key', 'to_k'), ('value', 'to_v'), ('proj_attn', 'to_out'))), '`to_out.0`'),
    (check_old_tensors, lambda tensors: renamed(tensors, pairs=(('query', 'to_k'), ('key', 'to_q'), ('value', 'to_v'), ('proj_attn', 'to_out.0'))), 'swap query and key'),
    (check_old_tensors, lambda tensors: renamed(tensors, lambda name, x: x[:, :, 0, 0].transpose(0, 1) if attention_weight(name, x) else x), 'transpose'),
    (check_published_clock, lambda t, dim: clock(t, dim, step=lambda t: t), 'count from 0'),
    (check_published_clock, lambda t, dim: clock(t, dim, join=lambda s, c: c + s), 'cosines come first'),
    (check_published_clock, lambda t, dim: clock(t, dim, apart=lambda K: K), 'slowest hand is too fast'),
    (check_published_clock, lambda t, dim: clock(t, dim, join=lambda s, c: [v for pair in zip(s, c) for v in pair]), 'side by side'),
    (check_published_clock, lambda t, dim: clock(t, dim, hands=lambda dim: dim), 'dim/2 hands'),
    (check_published_clock, lambda t, dim: clock(t, dim, step=lambda t: t - 2), 'back by two'),
    (check_attention_tensors, lambda *a: attention_tensors(*a, middle=0), 'The middle is missing'),
    (check_attention_tensors, lambda *a: attention_tensors(*a, up=lambda n: n), 'one more a level'),
    (check_attention_tensors, lambda *a: attention_tensors(*a, block=('to_q', 'to_k', 'to_v', 'to_out.0')), 'group norm as well'),
    (check_attention_tensors, lambda *a: attention_tensors(*a, parts=('layer',)), 'weight and bias'),
    (check_attention_tensors, adds_levels, 'how many there are'),
    (check_one_sided_zeros, lambda *a: halved(*a, zeros=(1, 1)), 'on all four sides'),
    (check_one_sided_zeros, lambda *a: halved(*a, zeros=(1, 0)), 'on the left and above'),
    (check_one_sided_zeros, unpadded, 'add no zeros'),
    (check_one_sided_zeros, padded_late, 'pad the result'),
    (check_one_sided_zeros, lambda *a: halved(*a, stride=1), 'Your stride is 1'),
    (check_up_path, lambda *a: up_plan(*a, take=lambda stack: stack.pop(0)), 'a stack'),
    (check_up_path, lambda *a: up_plan(*a, blocks=0), 'one block more a level'),
    (check_up_path, lambda *a: up_plan(*a, forget=True), 'no longer what came from below'),
    (check_up_path, own_width_twice, 'its own width twice'),
    (check_up_path, own_skips, 'the width of the level above'),
    (check_up_path, lambda *a: list(reversed(up_plan(*a))), 'turn the list round')]
