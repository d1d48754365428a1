"Lesson 13: what learners write, right and wrong."
import torch
from ddpm_course.exercises import check_climb, check_guide, check_hidden_labels, check_put_in


def hide(y, u, share, classes):
    out = y.clone()
    for i, draw in enumerate(u.tolist()):
        if draw < share: out[i] = classes
    return out


def hides_as_zero(y, u, share, classes): return y*(u >= share).long()


def hides_as_last(y, u, share, classes):
    out = y.clone()
    out[u < share] = classes - 1
    return out


def keeps_instead(y, u, share, classes):
    out = torch.full_like(y, classes)
    out[u < share] = y[u < share]
    return out


def hides_as_minus_one(y, u, share, classes): return y.masked_fill(u < share, -1)


def guided(told, untold, s):
    rows = [float(w)*a + (1 - float(w))*b for a, b, w in zip(told, untold, s)]
    return torch.stack(rows)


def as_in_the_paper(told, untold, s):
    w = s[:, None, None, None]
    return (1 + w)*told - w*untold


def the_other_way(told, untold, s):
    s = s[:, None, None, None]
    return (1 - s)*told + s*untold


def minus(told, untold, s): return torch.stack([(1 + w)*b - w*a for a, b, w in zip(told, untold, s)])


def forgets_the_difference(told, untold, s): return untold + torch.einsum('b,bchw->bchw', s, told)


def only_the_pull(told, untold, s): return s[:, None, None, None]*told - s[:, None, None, None]*untold


def up_step_by_step(a, x, s, t, noise):
    "Signal by a product of steps; the variance by adding what each step adds and shrinking what was there."
    signal, variance = 1., 0.
    for k in range(s + 1, t + 1):
        alpha = (a[k]/a[k - 1]).item()
        signal, variance = signal*alpha**0.5, variance*alpha + 1 - alpha
    return signal*x + variance**0.5*noise


def from_clean(a, x, s, t, noise): return x*a[t]**0.5 + noise*(1 - a[t])**0.5


def difference(a, x, s, t, noise): return x*(a[t]/a[s])**0.5 + noise*(a[s] - a[t])**0.5


def variance_up(a, x, s, t, noise): return x*(a[t]/a[s])**0.5 + noise*(a[s] - a[t])/a[s]


def no_root(a, x, s, t, noise): return x*a[t]/a[s] + noise*((a[s] - a[t])/a[s])**0.5


def noise_of_a_jump(a, x, s, t, noise): return x*a[t]**0.5/a[s]**0.5 + noise*(1 - a[t])**0.5


def put_in(a, drawn, x0, known, t, noise):
    mask = known.to(drawn.dtype)
    return mask*(x0*a[t - 1]**0.5 + noise*(1 - a[t - 1])**0.5) + (1 - mask)*drawn


def clean_in(a, drawn, x0, known, t, noise): return known*x0 + ~known*drawn


def level_t(a, drawn, x0, known, t, noise): return known*(x0*a[t]**0.5 + noise*(1 - a[t])**0.5) + ~known*drawn


def mask_round(a, drawn, x0, known, t, noise): return ~known*(x0*a[t - 1]**0.5 + noise*(1 - a[t - 1])**0.5) + known*drawn


def variance_in(a, drawn, x0, known, t, noise): return known*(x0*a[t - 1]**0.5 + noise*(1 - a[t - 1])) + ~known*drawn


SUBMISSIONS = [
    (check_hidden_labels, hides_as_zero, 'every tenth picture is a zero'), (check_hidden_labels, hides_as_last, 'comes after them'), (check_hidden_labels, keeps_instead, 'You hide the wrong ones'),
    (check_hidden_labels, hides_as_minus_one, 'no such row'),
    (check_guide, as_in_the_paper, 'convention of the paper'), (check_guide, the_other_way, 'have changed places'), (check_guide, minus, 'away from what the label changes'),
    (check_guide, forgets_the_difference, 'do not sum to 1'), (check_guide, only_the_pull, 'only the pull'),
    (check_climb, from_clean, 'as if x_s were clean'), (check_climb, difference, 'shrinks on the way up'), (check_climb, variance_up, 'by its variance'), (check_climb, no_root, 'instead of its square root'),
    (check_climb, noise_of_a_jump, 'the noise is that of a jump from clean data'),
    (check_put_in, clean_in, 'without noise'), (check_put_in, level_t, 'the noise of level t. '), (check_put_in, mask_round, 'wrong way round'), (check_put_in, variance_in, 'by its variance'),
]
RIGHT = [(check_hidden_labels, hide), (check_guide, guided), (check_climb, up_step_by_step), (check_put_in, put_in)]
