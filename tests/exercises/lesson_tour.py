"What learners hand in for the tour: mistakes with the words that must name them, and right answers found in another way."
import math
import torch
from ddpm_course.exercises import check_tour_back, check_tour_jump, check_tour_perfect, check_tour_step


def step(x, beta, noise, keep=0.5, add=0.5):
    b = beta.item()
    return torch.tensor([[(1 - b)**keep*p + b**add*e for p, e in zip(*rows)] for rows in zip(x.tolist(), noise.tolist())])


def swapped(x, beta, noise):
    keep, add = math.sqrt(beta), math.sqrt(1 - beta)
    return keep*x + add*noise


def shrinks_all(x, beta, noise):
    x = x + torch.sqrt(beta)*noise
    return x*torch.sqrt(1 - beta)


def jump(x0, t, noise, beta, signal=math.sqrt, width=lambda a: math.sqrt(1 - a), first=1, extra=1):
    rows = []
    for x, k, e in zip(x0, t.tolist(), noise):
        left = 1.
        for s in range(first if first > 0 else k, k + extra): left *= 1 - beta[s].item()
        rows.append(signal(left)*x + width(left)*e)
    return torch.stack(rows)


def walked(x0, t, noise, beta):
    "The variance followed step by step, without any product."
    rows = []
    for x, k, e in zip(x0, t.tolist(), noise):
        mean, variance = x, 0.
        for b in beta[1:k + 1].tolist(): mean, variance = mean*math.sqrt(1 - b), variance*(1 - b) + b
        rows.append(mean + math.sqrt(variance)*e)
    return torch.stack(rows)


def to_the_end(x0, t, noise, beta):
    left = math.prod(1 - b for b in beta.tolist())
    return math.sqrt(left)*x0 + math.sqrt(1 - left)*noise


def adds_up(x0, t, noise, beta):
    used = torch.stack([beta[:k + 1].sum() for k in t]).reshape(-1, 1)
    return torch.relu(1 - used)**0.5*x0 + used.clamp(max=1)**0.5*noise


def no_column(x0, t, noise, beta):
    left = torch.cumprod(1 - beta, 0)
    return torch.sqrt(left[t])*x0 + torch.sqrt(1 - left[t])*noise


def back(x, t, eps, z, beta, alpha_bar, share=lambda b, a: b/math.sqrt(1 - a), undo=lambda b, a: math.sqrt(1 - b), spread=0.5, last=1):
    b, a = beta[t].item(), alpha_bar[t].item()
    x = (x - share(b, a)*eps)/undo(b, a)
    if t == last: return x
    return x + b**spread*z


def through_x0(x, t, eps, z, beta, alpha_bar):
    "By a guess of x_0 and the weights of x_0 and x_t, as lesson 02 will find them."
    a, before, b = alpha_bar[t], alpha_bar[t - 1], beta[t]
    x0 = (x - (1 - a)**0.5*eps)/a**0.5
    mean = before**0.5*b/(1 - a)*x0 + (1 - b)**0.5*(1 - before)/(1 - a)*x
    return mean if t == 1 else torch.addcmul(mean, b**0.5, z)


def only_x(x, t, eps, z, beta, alpha_bar):
    b = beta[t]
    new = x/torch.sqrt(1 - b) - eps*b/torch.sqrt(1 - alpha_bar[t])
    if t != 1: new = new + z*torch.sqrt(b)
    return new


def perfect(points, x, t, alpha_bar, far=lambda d: d*d, under=lambda a: 2*(1 - a), sign=-1, place=math.sqrt, end=None):
    a, rows = alpha_bar[t].item(), []
    for q in x:
        w = [math.exp(sign*far((q - place(a)*p).norm().item())/under(a)) for p in points]
        mean = sum(v*p for v, p in zip(w, points))/sum(w)
        rows.append(end(q, mean, a) if end else (q - math.sqrt(a)*mean)/math.sqrt(1 - a))
    return torch.stack(rows)


def by_slope(points, x, t, alpha_bar):
    "The noise is minus its size times the slope of the log density of x_t, a mixture of bells."
    a = alpha_bar[t]
    x = x.clone().requires_grad_()
    log_density = torch.distributions.MultivariateNormal(a.sqrt()*points, (1 - a)*torch.eye(2)).log_prob(x[:, None]).logsumexp(1)
    return -(1 - a).sqrt()*torch.autograd.grad(log_density.sum(), x)[0]


def wrong_axis(points, x, t, alpha_bar):
    a = alpha_bar[t]
    e = torch.exp(-((x[:, None] - a.sqrt()*points[None])**2).sum(-1)/(2 - 2*a))
    w = e/e.sum(0, keepdim=True)
    return (x - a.sqrt()*torch.einsum('mn,nd->md', w, points))/(1 - a).sqrt()


def nearest(points, x, t, alpha_bar):
    a = alpha_bar[t].item()
    best = torch.stack([min(points, key=lambda p: (q - math.sqrt(a)*p).square().sum().item()) for q in x])
    return (x - math.sqrt(a)*best)/math.sqrt(1 - a)


SUBMISSIONS = [
    (check_tour_step, lambda x, beta, noise: step(x, beta, noise, add=1), 'multiplied by β. That is a variance'),
    (check_tour_step, lambda x, beta, noise: x + math.sqrt(beta)*noise, 'shrink nothing'),
    (check_tour_step, lambda x, beta, noise: step(x, beta, noise, keep=1), 'shrink x by 1-β'),
    (check_tour_step, swapped, 'roots are swapped'),
    (check_tour_step, shrinks_all, 'the fresh noise as well'),
    (check_tour_step, lambda x, beta, noise: torch.lerp(x, noise, beta), 'Both roots are missing'),
    (check_tour_jump, lambda *given: jump(*given, width=lambda a: 1 - a), 'multiplied by 1-ᾱ_t'),
    (check_tour_jump, lambda *given: jump(*given, signal=lambda a: a), 'multiplied by ᾱ_t. That is a share'),
    (check_tour_jump, lambda *given: jump(*given, signal=lambda a: a, width=lambda a: 1 - a), 'Both roots are missing'),
    (check_tour_jump, lambda *given: jump(*given, first=0), 'one small step with β_t'),
    (check_tour_jump, lambda *given: jump(*given, extra=0), 'off by one'),
    (check_tour_jump, to_the_end, 'up to T, whatever t is'),
    (check_tour_jump, adds_up, 'You add up the β'),
    (check_tour_jump, no_column, 'do not line up'),
    (check_tour_back, lambda *given: back(*given, last=0), 'adds noise as well'),
    (check_tour_back, lambda x, t, eps, z, beta, alpha_bar: through_x0(x, t, eps, 0*z, beta, alpha_bar), 'no fresh noise'),
    (check_tour_back, lambda *given: back(*given, spread=1), 'fresh noise is multiplied by β_t'),
    (check_tour_back, lambda *given: back(*given, share=lambda b, a: math.sqrt(1 - a)), 'all of the noise'),
    (check_tour_back, lambda *given: back(*given, undo=lambda b, a: math.sqrt(a)), 'all t steps at once'),
    (check_tour_back, lambda *given: back(*given, share=lambda b, a: b/(1 - a)), 'A root is missing'),
    (check_tour_back, lambda *given: back(*given, undo=lambda b, a: (1 - b)**-0.5), 'shrink once more'),
    (check_tour_back, only_x, 'Only x is divided'),
    (check_tour_back, lambda *given: back(*given, share=lambda b, a: math.sqrt(b/(1 - a))), 'too much'),
    (check_tour_perfect, wrong_axis, 'runs over the noisy points'),
    (check_tour_perfect, lambda *given: perfect(*given, place=lambda a: 1), 'expected at √ᾱ_t·p_i'),
    (check_tour_perfect, lambda *given: perfect(*given, under=lambda a: 2*math.sqrt(1 - a)), 'twice the variance'),
    (check_tour_perfect, lambda *given: perfect(*given, under=lambda a: 1 - a), 'The 2 is missing'),
    (check_tour_perfect, lambda *given: perfect(*given, far=lambda d: d), 'not squared'),
    (check_tour_perfect, lambda *given: perfect(*given, sign=1), 'A sign is missing'),
    (check_tour_perfect, nearest, 'for certain'),
    (check_tour_perfect, lambda *given: perfect(*given, end=lambda q, mean, a: mean), 'the best guess of x_0'),
    (check_tour_perfect, lambda *given: perfect(*given, end=lambda q, mean, a: (q - mean)/math.sqrt(1 - a)), 'before you subtract it'),
]

RIGHT = [(check_tour_step, step), (check_tour_jump, jump), (check_tour_jump, walked), (check_tour_back, back), (check_tour_back, through_x0), (check_tour_perfect, perfect), (check_tour_perfect, by_slope)]
