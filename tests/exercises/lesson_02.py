"What learners hand in for lesson 02: mistakes with the words that must name them, and right answers found in another way."
import math
import torch
import torch.distributions as td
from ddpm_course.exercises import check_bits_left, check_forward_jump, check_forward_walk, check_partial_jump, check_posterior_at
from ddpm_course.forward import q_posterior, q_sample, q_step
from ddpm_course.gaussians import condition, normal_kl


def walk(schedule, x0, noises):
    out = torch.empty(schedule.T + 1, *x0.shape)
    out[0] = x0
    for t, ε in enumerate(noises, start=1): out[t] = q_step(schedule, out[t - 1], t, ε)
    return out


def with_variance(schedule, x0, noises):
    x, states = x0, [x0]
    for b, ε in zip(schedule.beta[1:].tolist(), noises):
        x = math.sqrt(1 - b)*x + b*ε
        states.append(x)
    return torch.stack(states)


def adds_only(schedule, x0, noises):
    steps = schedule.beta[1:].sqrt().float()[:, None]*noises
    return torch.cat([x0[None], x0 + steps.cumsum(0)])


def shrinks_too_much(schedule, x0, noises):
    states = [x0]
    for t in range(schedule.T): states += [schedule.alpha[t + 1]*states[-1] + schedule.beta[t + 1]**0.5*noises[t]]
    return torch.stack(states)


def counts_from_0(schedule, x0, noises):
    states = [x0]
    for t in range(schedule.T):
        b = schedule.beta[t]
        states.append(torch.sqrt(1 - b)*states[t] + torch.sqrt(b)*noises[t])
    return torch.stack(states)


def jumps_again(schedule, x0, noises):
    states = [x0]
    for t in range(1, schedule.T + 1): states.append(q_sample(schedule, states[-1], t, noises[t - 1]))
    return torch.stack(states)


def jump(schedule, x0, t, noise, signal=lambda a: math.sqrt(a), width=lambda a: math.sqrt(1 - a), table='alpha_bar', back=0):
    out = []
    for x, s, ε in zip(x0, t.tolist(), noise):
        a = getattr(schedule, table)[s - back].item()
        out.append(signal(a)*x + width(a)*ε)
    return torch.stack(out)


def jump_to_the_end(schedule, x0, t, noise):
    product = torch.prod(1 - schedule.beta)
    return product.sqrt()*x0 + (1 - product).sqrt()*noise


def jump_without_shapes(schedule, x0, t, noise):
    a, b = torch.sqrt(schedule.alpha_bar[t]), torch.sqrt(1 - schedule.alpha_bar[t])
    return a*x0 + b*noise


def partial(schedule, xs, s, t, noise):
    signal, variance = 1., 0.
    for u in range(s + 1, t + 1):
        signal *= math.sqrt(schedule.alpha[u])
        variance = schedule.alpha[u].item()*variance + schedule.beta[u].item()
    return signal*xs + math.sqrt(variance)*noise


def partial_from(first, last):
    def jump(schedule, xs, s, t, noise):
        share = schedule.alpha[s + first:t + last].prod()
        return share.sqrt()*xs + (1 - share).sqrt()*noise
    return jump


def subtracts(schedule, xs, s, t, noise):
    ab = schedule.alpha_bar
    return (ab[t]/ab[s]).sqrt()*xs + ((1 - ab[t]) - (1 - ab[s])).sqrt()*noise


def all_the_noise(schedule, xs, s, t, noise): return schedule.alpha[s + 1:t + 1].prod().sqrt()*xs + torch.sqrt(1 - schedule.alpha_bar[t])*noise


def partial_variance(schedule, xs, s, t, noise):
    r = schedule.alpha_bar[t]/schedule.alpha_bar[s]
    return r.sqrt()*xs + noise - r*noise


def posterior(schedule, x0, xt, s, t, scale=None, noise=None, start=None):
    "By precisions, pixel by pixel."
    ab = schedule.alpha_bar.tolist()
    scale, noise, start = scale or math.sqrt(ab[t]/ab[s]), noise or 1 - ab[t]/ab[s], start or math.sqrt(ab[s])
    precision = 1/(1 - ab[s]) + scale**2/noise
    return (start*x0/(1 - ab[s]) + scale*xt/noise)/precision, 1/precision


def posterior_by_conditioning(schedule, x0, xt, s, t):
    ab, means = schedule.alpha_bar, []
    shared = (ab[t]/ab[s]).sqrt()*(1 - ab[s])
    cov = torch.tensor([[1 - ab[s], shared], [shared, 1 - ab[t]]]).double()
    for a, b in zip(x0.double(), xt.double()):
        mean, variance = condition(torch.stack([ab[s].sqrt()*a, ab[t].sqrt()*a]), cov, torch.tensor([1]), b[None])
        means.append(mean)
    return torch.cat(means), variance.squeeze()


def one_step_only(schedule, x0, xt, s, t):
    mean, variance, _ = q_posterior(schedule, x0, xt, t)
    return mean, variance[0].squeeze()


def swapped(schedule, x0, xt, s, t):
    late, early = 1 - schedule.alpha_bar[t], 1 - schedule.alpha_bar[s]
    return posterior(schedule, x0, xt, s, t)[0], late/early*(1 - schedule.alpha[s + 1:t + 1].prod())


def bits(schedule, x0):
    a = schedule.alpha_bar[-1].item()
    kl = td.kl_divergence(td.Normal(math.sqrt(a)*x0, math.sqrt(1 - a)*torch.ones_like(x0)), td.Normal(torch.zeros_like(x0), 1.))
    return kl.mean()/math.log(2)


def bits_reversed(schedule, x0):
    a = schedule.alpha_bar[-1].item()
    kl = td.kl_divergence(td.Normal(torch.zeros_like(x0), 1.), td.Normal(math.sqrt(a)*x0, math.sqrt(1 - a)*torch.ones_like(x0)))
    return kl.mean()/math.log(2)


def bits_of_log_std(schedule, x0):
    a, zero = schedule.alpha_bar[-1], torch.zeros_like(x0)
    return normal_kl(a.sqrt()*x0, (1 - a).sqrt().log(), zero, zero).mean()/math.log(2)


def bits_without_root(schedule, x0):
    a = schedule.alpha_bar[-1].item()
    return (0.5*((1 - a) - 1 - math.log(1 - a) + (a*x0)**2)).mean()/math.log(2)


SUBMISSIONS = [
    (check_forward_walk, with_variance, 'scaled by β_t. That is a variance'),
    (check_forward_walk, adds_only, 'shrink nothing'),
    (check_forward_walk, shrinks_too_much, 'shrink x by 1-β_t'),
    (check_forward_walk, counts_from_0, 'off by one'),
    (check_forward_walk, jumps_again, 'already noised picture'),
    (check_forward_walk, lambda *given: walk(*given)[1:], 'The start belongs to the walk'),
    (check_forward_walk, lambda *given: walk(*given)[-1], 'the last state only'),
    (check_forward_jump, lambda *given: jump(*given, width=lambda a: 1 - a), 'multiplied by 1-ᾱ_t'),
    (check_forward_jump, lambda *given: jump(*given, signal=lambda a: a), 'multiplied by ᾱ_t, which is a share'),
    (check_forward_jump, lambda *given: jump(*given, signal=lambda a: a, width=lambda a: 1 - a), 'Both roots are missing'),
    (check_forward_jump, lambda *given: jump(*given, back=1), 'off by one'),
    (check_forward_jump, lambda *given: jump(*given, table='alpha'), 'a single step with α_t'),
    (check_forward_jump, jump_to_the_end, 'does not depend on t'),
    (check_forward_jump, jump_without_shapes, 'do not line up'),
    (check_partial_jump, lambda schedule, xs, s, t, noise: q_sample(schedule, xs, t, noise), 'treat x_s as a clean picture'),
    (check_partial_jump, subtracts, 'that shrinks by ᾱ_t/ᾱ_s as well'),
    (check_partial_jump, all_the_noise, 'all the noise that x_t should hold'),
    (check_partial_jump, partial_from(0, 1), 'step s once more'),
    (check_partial_jump, partial_from(1, 0), 'one step short'),
    (check_partial_jump, partial_variance, 'multiplied by 1-ᾱ_t/ᾱ_s'),
    (check_posterior_at, one_step_only, 'the posterior of x_{t-1}'),
    (check_posterior_at, lambda S, x0, xt, s, t: posterior(S, x0, xt, s, t, noise=1 - S.alpha_bar[t].item()), 'too noisy'),
    (check_posterior_at, lambda S, x0, xt, s, t: posterior(S, x0, xt, s, t, start=1.), 'prior is centred at x_0'),
    (check_posterior_at, lambda S, x0, xt, s, t: posterior(S, x0, xt, s, t, scale=math.prod(S.alpha[s + 1:t + 1].tolist())), 'forget the root'),
    (check_posterior_at, swapped, 'are swapped'),
    (check_posterior_at, lambda S, x0, xt, s, t: (posterior(S, x0, xt, s, t)[0], 1 - math.prod(S.alpha[s + 1:t + 1].tolist())), 'that of the way out'),
    (check_posterior_at, lambda S, x0, xt, s, t: (posterior(S, x0, xt, s, t)[0], math.sqrt(posterior(S, x0, xt, s, t)[1])), 'a standard deviation beside it'),
    (check_bits_left, lambda schedule, x0: bits(schedule, x0)/math.log2(math.e), 'These are nats'),
    (check_bits_left, lambda schedule, x0: bits(schedule, x0)*math.log(2)*math.log(2), 'where you must divide'),
    (check_bits_left, lambda schedule, x0: sum(bits(schedule, x) for x in x0.flatten()), 'add up the pixels'),
    (check_bits_left, bits_reversed, 'in the other direction'),
    (check_bits_left, bits_of_log_std, 'that of the standard deviation'),
    (check_bits_left, bits_without_root, 'forget the root'),
]

RIGHT = [(check_forward_walk, walk), (check_forward_jump, jump), (check_partial_jump, partial), (check_partial_jump, partial_from(1, 1)),
         (check_posterior_at, posterior), (check_posterior_at, posterior_by_conditioning), (check_bits_left, bits)]
