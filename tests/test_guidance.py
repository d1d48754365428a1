"Guidance and inpainting against autograd, closed forms and the papers' formulas; training, sampling and judging with labels, from end to end."
import dataclasses
import warnings
from functools import partial
import pytest
import torch
from PIL import Image
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from exact import as_prediction
from tiny import OPTIONS, numbers, settings, start
from ddpm_course import data, training
from ddpm_course.checkpoints import load_config, load_run
from ddpm_course.cli import ddpm_eval, ddpm_sample, ddpm_train
from ddpm_course.data import ImageSet, StreamedSet, class_count, load_digits, load_folder
from ddpm_course.ddim import ddim_sample, ddim_timesteps, dpm_sample, heun_sample
from ddpm_course.devices import AtPrecision
from ddpm_course.guidance import Guided, LabelledOracle, climb, guide, inpaint, inpaint_steps, label_count, repaint_levels, repaint_times
from ddpm_course.reverse import GaussianOracle, MixtureOracle, Reverse
from ddpm_course.sampling import ddpm_sample as ancestral_sample
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.training import Trainer, build, draw_batch, draw_labels, resume, step_generator, train, train_step
from ddpm_course.unet import UNet

SCHEDULE = cosine_schedule(200)
CENTRES, SPREAD, LABELS = torch.tensor([[-1., 0.3], [0.4, 0.9], [0.8, -0.2], [1.4, 0.1]]).double(), 0.3, torch.tensor([0, 0, 1, 2])
SHAPE = (1, 8, 8)


def bundle(predict='eps'):
    of = lambda chosen: MixtureOracle(SCHEDULE, CENTRES[chosen], SPREAD**2, predict=predict)
    return LabelledOracle([of(LABELS == y) for y in range(3)], of(LABELS >= 0))


def log_noisy(x, t, chosen):
    "log of q(x_t), or of q(x_t | y), for the clumps that are chosen; by torch.distributions, from β alone."
    kept = (1 - SCHEDULE.beta).cumprod(0)[t]
    scale = (kept*SPREAD**2 + 1 - kept).sqrt().expand(int(chosen.sum()), 2)
    return MixtureSameFamily(Categorical(torch.ones(int(chosen.sum())).double()), Independent(Normal(kept.sqrt()*CENTRES[chosen], scale), 1)).log_prob(x)


def guided_score(x, t, y, s):
    "∇ log of q(x_t) q(y | x_t)^s."
    x = x.detach().requires_grad_()
    untold, told = log_noisy(x, t, LABELS >= 0), log_noisy(x, t, LABELS == y)
    return torch.autograd.grad((untold + s*(told - untold)).sum(), x)[0]


def network(classes=3, out=1, seed=0, **settings):
    "A small network with labels, without the zeros that a fresh one begins with."
    torch.manual_seed(seed)
    return stirred(UNet(1, out, widths=(16,), layers=1, attention_at=(), classes=classes, **settings)).eval()


def stirred(model):
    "Random weights where a fresh network has zeros, which hide what comes before them."
    for p in model.parameters():
        if not p.any(): torch.nn.init.normal_(p, std=0.05)
    return model


class Counting:
    "A network that counts its calls and the rows that it sees."
    def __init__(self, model): self.model, self.rows = model, []

    def __call__(self, xt, t, **labels):
        self.rows.append(len(xt))
        return self.model(xt, t, **labels)

    def parameters(self): return self.model.parameters()


# The guided prediction

@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
@pytest.mark.parametrize('s', [-1., 0., 0.5, 1., 3., 7.5])
@pytest.mark.parametrize('t', [2, 90, 199])
def test_a_guided_network_follows_the_score_of_the_product(predict, s, t):
    x, kept = 1.5*torch.randn(60, 2).double(), (1 - SCHEDULE.beta).cumprod(0)[t]
    for y in range(3):
        score = guided_score(x, t, y, s)
        wanted = as_prediction(SCHEDULE, (x + (1 - kept)*score)/kept.sqrt(), x, torch.full((60,), t), predict)  # Tweedie's formula
        found = Guided(bundle(predict), y, s, no_label=3)(x, torch.full((60,), t))
        assert found.dtype == torch.float64 and (found - wanted).abs().max() < 1e-10*max(1, wanted.abs().max())


def test_a_scale_for_each_row():
    x, t, y, s = torch.randn(6, 2).double(), torch.tensor([5, 50, 100, 150, 199, 20]), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0., 1., 2., -1., 4., 0.5])
    together = Guided(bundle(), y, s, no_label=3)(x, t)
    for i in range(6): assert torch.allclose(together[i:i + 1], Guided(bundle(), int(y[i]), float(s[i]), no_label=3)(x[i:i + 1], t[i:i + 1]), atol=1e-6)


def test_scales_zero_one_and_two():
    model, x, t, y = network(), torch.randn(4, *SHAPE), torch.full((4,), 70), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        told, untold = model(x, t, y=y), model(x, t)
        assert (told - untold).abs().max() > 1e-3
        assert torch.equal(Guided(model, y, 1)(x, t), told) and torch.equal(Guided(model, y, 0)(x, t), untold)
        assert torch.allclose(Guided(model, y, 2.)(x, t), 2*told - untold, atol=1e-5)
        assert torch.equal(model(x, t, y=torch.full((4,), 3)), untold)


def test_the_paper_s_w_is_one_less():
    told, untold = torch.randn(2, 3, 1, 4, 4).double()
    for w in (0., 0.3, 2.): assert torch.allclose(guide(told, untold, torch.tensor(1 + w, dtype=torch.float64), 1), (1 + w)*told - w*untold)


def test_a_learned_variance_stays_as_it_is_with_the_label():
    model, x, t, y = network(out=2), torch.randn(3, *SHAPE), torch.full((3,), 70), torch.tensor([0, 1, 2])
    with torch.no_grad(): told, untold, found = model(x, t, y=y), model(x, t), Guided(model, y, 3.)(x, t)
    assert torch.allclose(found[:, 1:], told[:, 1:], atol=1e-6) and (told[:, 1:] - untold[:, 1:]).abs().max() > 1e-4
    assert torch.allclose(found[:, :1], 3*told[:, :1] - 2*untold[:, :1], atol=1e-5)


@pytest.mark.parametrize('s', [0., 0.5, 1., 4.])
def test_between_guides_there_and_is_told_elsewhere(s):
    oracle, x = bundle(), torch.randn(5, 2).double()
    t = torch.tensor([9, 10, 50, 90, 91])
    found = Guided(oracle, 1, s, no_label=3, between=(10, 90))(x, t)
    inside = torch.tensor([False, True, True, True, False])
    assert torch.allclose(found[inside], Guided(oracle, 1, s, no_label=3)(x, t)[inside]) and torch.allclose(found[~inside], oracle(x, t, torch.ones(5).long())[~inside])


@pytest.mark.parametrize('s, rows', [(0., 4), (1., 4), (2., 8), (torch.ones(4), 8)])
@pytest.mark.parametrize('sample, calls', [(ddim_sample, 5), (dpm_sample, 5), (partial(heun_sample, sigma_max=1e9), 9)])
def test_one_call_a_step(sample, calls, s, rows):
    counting = Counting(network())
    sample(Reverse(SCHEDULE), Guided(counting, 1, s), (4, *SHAPE), steps=5)
    assert counting.rows == [rows]*calls


# Samplers

@pytest.mark.parametrize('sample', [ddim_sample, dpm_sample, heun_sample, lambda *args, **kw: ancestral_sample(*args[:3], **{k: v for k, v in kw.items() if k != 'steps'})], ids=['ddim', 'dpm', 'heun', 'ddpm'])
def test_every_sampler_takes_a_guided_network_and_rows_do_not_see_each_other(sample):
    model, reverse, y, s = network(), Reverse(cosine_schedule(12)), torch.tensor([2, 0, 1, 0]), torch.tensor([1., 3., 2., 0.])
    whole = sample(reverse, Guided(model, y, s), (4, *SHAPE), steps=6, seeds=[3, 1, 4, 1])
    assert whole.shape == (4, *SHAPE) and whole.isfinite().all()
    for i in range(4): assert torch.allclose(sample(reverse, Guided(model, y[i:i + 1], s[i:i + 1]), (1, *SHAPE), steps=6, seeds=[[3, 1, 4, 1][i]]), whole[i:i + 1], atol=1e-4)
    assert not torch.allclose(whole[1], whole[3], atol=1e-2), 'the same seed and label, another scale'


def test_a_learned_variance_is_sampled_with():
    reverse = Reverse(cosine_schedule(8), variance='learned_range')
    assert ancestral_sample(reverse, Guided(network(out=2), 1, 3.), (2, *SHAPE), seeds=[0, 1]).isfinite().all()


def test_at_other_precisions():
    model, y = network(), torch.tensor([0, 2])
    x, t = torch.randn(2, *SHAPE), torch.full((2,), 60)
    exact = Guided(AtPrecision(model, torch.device('cpu'), 'fp32'), y, 2.)
    with torch.no_grad():
        assert label_count(exact) == 3 and torch.allclose(exact(x, t), Guided(model, y, 2.)(x, t), atol=1e-5)
        rough = Guided(AtPrecision(model, torch.device('cpu'), 'bf16'), y, 2.)(x, t)
    assert rough.dtype == torch.float32 and 0 < (rough - exact(x, t)).abs().max() < 0.1
    assert next(exact.parameters()) is next(model.parameters())


def test_told_samples_follow_their_label():
    "DDPM with exact labels, scale 1: the mean and the spread of each class."
    reverse, y = Reverse(SCHEDULE, 'x0', clip=False), torch.tensor([1, 2]).repeat(4000)
    x = ddim_sample(reverse, Guided(bundle('x0'), y, 1., no_label=3), (8000, 2), steps=100, generator=torch.Generator().manual_seed(0)).double()
    for label in (1, 2):
        mine = x[y == label]
        assert (mine.mean(0) - CENTRES[LABELS == label][0]).abs().max() < 0.03 and (mine.std(0) - SPREAD).abs().max() < 0.03


@pytest.mark.parametrize('make, words', [
    (lambda: Guided(network(), 4), 'labels must lie in 0..2'), (lambda: Guided(network(), -1), 'labels must lie in 0..2'), (lambda: Guided(network(), torch.tensor([0., 1.])), 'int64'),
    (lambda: Guided(network(classes=None), 0), 'takes no labels'), (lambda: Guided(bundle(), 0), 'takes no labels'), (lambda: Guided(lambda x, t, y: x, 0), 'no_label'),
    (lambda: Guided(network(), torch.tensor([0, 1]))(torch.randn(3, *SHAPE), torch.full((3,), 5)), '2 labels do not fit a batch of 3')])
def test_labels_at_the_door(make, words):
    with pytest.raises(ValueError, match=words): make()


def test_a_bundle_of_oracles():
    x, t, y = torch.randn(4, 2).double(), torch.tensor([1, 50, 100, 199]), torch.tensor([2, 0, 3, 1])
    found = bundle()(x, t, y)
    for i, label in enumerate(y.tolist()):
        alone = MixtureOracle(SCHEDULE, CENTRES[(LABELS == label) | torch.tensor(label == 3)], SPREAD**2)(x[i:i + 1], t[i:i + 1])
        assert torch.allclose(found[i:i + 1], alone)
    assert torch.equal(bundle()(x, t), bundle()(x, t, torch.full((4,), 3))) and bundle()(x.float(), t, y).dtype == torch.float32


# Inpainting

def published_timetable(t_T, jump_length, jump_n_sample):
    "get_schedule_jump of the RePaint paper, appendix B: indices from t_T - 1 down to -1, which is clean."
    jumps = {j: jump_n_sample - 1 for j in range(0, t_T - jump_length, jump_length)}
    t, ts = t_T, []
    while t >= 1:
        t -= 1
        ts.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump_length):
                t += 1
                ts.append(t)
    return [*ts, -1]


@pytest.mark.parametrize('steps', [1, 2, 7, 50, 250])
@pytest.mark.parametrize('jump', [1, 3, 10])
@pytest.mark.parametrize('resamples', [1, 2, 10])
def test_the_published_timetable(steps, jump, resamples):
    levels = repaint_levels(steps, jump, resamples)
    assert levels == [t + 1 for t in published_timetable(steps, jump, resamples)]
    if resamples == 1: assert levels == list(range(steps, -1, -1))


def test_the_timetable_in_steps_of_the_schedule():
    times = repaint_times(200, 10, 'trailing', 2, 3)
    assert times[0] == 200 and times[-1] == 0 and set(times) == {0, *ddim_timesteps(200, 10, 'trailing')}


@pytest.mark.parametrize('s, t', [(0, 5), (5, 6), (20, 150)])
def test_climbing_is_the_forward_process(s, t):
    "As many single steps as there are between, by the recursion for mean and variance."
    schedule, mean, variance = linear_schedule(200), 0.7, 0.
    for k in range(s + 1, t + 1): mean, variance = mean*(1 - schedule.beta[k])**0.5, variance*(1 - schedule.beta[k]) + schedule.beta[k]
    x = torch.full((2,), 0.7, dtype=torch.float64)
    found = climb(schedule, x, s, t, torch.tensor([0., 1.]).double())
    assert abs(found[0] - mean) < 1e-12 and abs(found[1] - mean - variance**0.5) < 1e-12 and climb(schedule, x.float(), s, t, torch.zeros(2)).dtype == torch.float32


def test_known_pixels_are_kept_to_the_bit():
    model, reverse = network(), Reverse(cosine_schedule(20))
    x0, known = torch.rand(3, *SHAPE)*2 - 1, torch.rand(3, *SHAPE) < 0.5
    for mask in (known, known[0], known[0, 0], known[0, 0, :, :1]):
        x = inpaint(reverse, model, x0, mask, steps=5, resamples=2, jump=2)
        where = mask.expand(x0.shape)
        assert torch.equal(x[where], x0[where]) and (x[~where] != x0[~where]).all() and x.isfinite().all()
    assert torch.equal(inpaint(reverse, model, x0, torch.ones(8, 8).bool(), steps=3), x0)


@pytest.mark.parametrize('resamples', [1, 3])
def test_calls_of_the_network(resamples):
    counting, reverse = Counting(lambda xt, t: xt), Reverse(cosine_schedule(20), 'x0')
    counting.parameters = lambda: iter(())
    walk = repaint_levels(6, 2, resamples)
    seen = [t for t, _, _ in inpaint_steps(reverse, counting, torch.zeros(2, *SHAPE), torch.zeros(8, 8).bool(), steps=6, resamples=resamples, jump=2)]
    down = [a for a, b in zip(walk, walk[1:]) if b < a]
    times = [0, *ddim_timesteps(20, 6)[::-1]]
    assert seen == [times[level] for level in down] + [0] and len(counting.rows) == len(down) and (resamples > 1 or len(down) == 6)


def test_known_pixels_are_as_noisy_as_their_level():
    reverse, x0 = Reverse(SCHEDULE, 'x0', clip=False), torch.full((4000, 2), 0.8)
    oracle = GaussianOracle(SCHEDULE, torch.zeros(2), torch.eye(2).double(), 'x0')
    for t, x, _ in inpaint_steps(reverse, oracle, x0, torch.tensor([True, False]), steps=10, resamples=2, jump=3, generator=torch.Generator().manual_seed(0)):
        if t in (0, 200): continue
        kept = (1 - SCHEDULE.beta).cumprod(0)[t]
        assert abs(x[:, 0].mean() - 0.8*kept**0.5) < 0.06 and abs(x[:, 0].var()/(1 - kept) - 1) < 0.12


@pytest.mark.parametrize('given', [-1., 1.5])
def test_resampling_reaches_the_conditional_and_replacing_alone_does_not(given):
    "Two Gaussian numbers of correlation 0.9: b given a is N(0.9·a, 0.19)."
    schedule = cosine_schedule(1000)
    oracle, reverse = GaussianOracle(schedule, torch.zeros(2), torch.tensor([[1., 0.9], [0.9, 1.]]).double(), 'x0'), Reverse(schedule, 'x0', clip=False)
    def filled(**how): return inpaint(reverse, oracle, torch.tensor([[given, 0.]]).expand(4000, 2), torch.tensor([True, False]), generator=torch.Generator().manual_seed(1), **how)[:, 1].double()
    alone, again = filled(steps=100, resamples=1), filled(steps=200, resamples=15, jump=20)
    assert abs(alone.mean() - 0.9*given) > 0.25*abs(given) and alone.var() > 0.25
    assert abs(again.mean() - 0.9*given) < 0.06 and abs(again.var() - 0.19) < 0.02


def test_noise_of_inpainting():
    model, reverse, x0, known = network(), Reverse(cosine_schedule(20)), torch.rand(3, *SHAPE), torch.arange(8) < 3
    how = dict(steps=4, resamples=2, jump=1)
    fill = lambda **noise: inpaint(reverse, model, x0, known, **how, **noise)
    one, two, other = (fill(generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(one, two) and not torch.equal(one, other)
    whole = fill(seeds=[7, 8, 9])
    assert torch.allclose(inpaint(reverse, model, x0[1:2], known, **how, seeds=[8]), whole[1:2], atol=1e-5)
    with pytest.raises(ValueError, match='not both'): fill(seeds=[1, 2, 3], generator=torch.Generator())
    with pytest.raises(ValueError, match='one seed for each'): fill(seeds=[1])


@pytest.mark.parametrize('known, how, words', [
    (torch.ones(8, 8), {}, 'boolean mask'), (torch.ones(7, 8).bool(), {}, r'such as \(8, 8\)'), (torch.ones(2, 3, 1, 8, 8).bool(), {}, 'fits pictures'), (torch.ones(5, 1, 8, 8).bool(), {}, 'fits pictures'),
    (torch.ones(8, 8).bool(), dict(steps=0), 'steps'), (torch.ones(8, 8).bool(), dict(steps=21), '1..20'), (torch.ones(8, 8).bool(), dict(resamples=0), 'resamples must be at least 1'),
    (torch.ones(8, 8).bool(), dict(jump=0), 'jump must be at least 1'), (torch.ones(8, 8).bool(), dict(spacing='even'), 'trailing')])
def test_masks_and_numbers_at_the_door(known, how, words):
    with pytest.raises(ValueError, match=words): inpaint(Reverse(cosine_schedule(20)), network(), torch.zeros(3, *SHAPE), known, **dict(steps=5) | how)


def test_a_guided_network_completes():
    x0, known = torch.rand(2, *SHAPE), torch.arange(8) < 4
    one, two = (inpaint(Reverse(cosine_schedule(20)), Guided(network(), torch.tensor([0, y]), 3.), x0, known, steps=4, resamples=2, jump=1, seeds=[0, 1]) for y in (1, 2))
    assert torch.allclose(one[0], two[0], atol=1e-5) and not torch.allclose(one[1], two[1], atol=1e-3) and torch.equal(one[..., :4], x0[..., :4])


# Training with labels

def labelled_trainer(**changes):
    digits, config = load_digits(), settings(labels=True, **changes)
    return Trainer(*build(config, digits.shape, class_count(digits)), digits, config)


def labelled_run(out, **changes):
    digits, config = load_digits(), settings(labels=True, out=str(out), **changes)
    return train(*build(config, digits.shape, class_count(digits)), digits, config)


@pytest.mark.parametrize('share', [0., 0.1, 0.5, 1.])
def test_labels_are_those_of_the_pictures_and_hidden_in_the_right_share(share):
    t = labelled_trainer(batch=1000, hide_labels=share)
    hidden = []
    for t.step in range(5):
        g = step_generator(0, t.step + 1)
        x0 = draw_batch(t, g)[0]
        y = draw_labels(t, g)
        assert y.dtype == torch.int64 and y.shape == (1000,)
        told = y < 10
        for i in told.nonzero()[:20, 0]:  # look each picture up by its pixels
            same = (t.data.floats() == x0[i]).flatten(1).all(1)
            assert y[i] in t.data.labels[same]
        hidden.append((y == 10).float().mean())
    assert abs(torch.stack(hidden).mean() - share) < 4*(share*(1 - share)/5000)**0.5 + 1e-9


def test_the_batch_does_not_depend_on_labels():
    "The same pictures, steps and noise with and without labels."
    plain, told = Trainer(*build(settings(), SHAPE), load_digits(), settings()), labelled_trainer()
    for a, b in zip(draw_batch(plain, step_generator(0, 1)), draw_batch(told, step_generator(0, 1))): assert torch.equal(a, b)
    assert draw_labels(plain, step_generator(0, 1)) is None


def test_every_row_of_the_table_learns_and_no_label_only_where_some_are_hidden():
    for share, learns in ((0.3, True), (0., False)):
        t = labelled_trainer(batch=128, hide_labels=share, precision='fp32', device='cpu')
        stirred(t.model)
        train_step(t)
        reached = t.model.class_embedding.weight.grad.abs().amax(1) > 0
        assert reached[:10].all() and bool(reached[10]) == learns


@pytest.mark.parametrize('changes', [{}, dict(variance='learned_range'), dict(objective='vlb', draw_t='importance'), dict(predict='v', weighting='min_snr'), dict(dropout=0.3), dict(checkpointing=True), dict(precision='bf16')], ids=str)
def test_every_kind_of_training_takes_labels(changes):
    t = labelled_trainer(device='cpu', **changes)
    assert all(train_step(t).isfinite() for _ in range(3))


@pytest.mark.parametrize('parts', [2, 3])
def test_a_labelled_batch_in_parts_is_the_same_step(parts):
    one, two = (labelled_trainer(accumulate=n, device='cpu', precision='fp32', hide_labels=0.4) for n in (1, parts))
    for _ in range(3): assert abs(train_step(one) - train_step(two)) < 1e-5
    for (k, a), b in zip(one.model.named_parameters(), two.model.parameters()): assert torch.allclose(a.grad, b.grad, atol=1e-5*max(1, a.grad.abs().max())), k


@pytest.mark.parametrize('changes', [{}, dict(dropout=0.3, holdout=100, hide_labels=0.5)], ids=str)
def test_a_resumed_labelled_run_is_the_unbroken_one(tmp_path, monkeypatch, changes):
    whole = labelled_run(tmp_path/'whole', steps=14, **changes)
    def stop(t):
        if t.step == 7: raise KeyboardInterrupt
        return train_step(t)
    with monkeypatch.context() as patch:
        patch.setattr(training, 'train_step', stop)
        with pytest.raises(KeyboardInterrupt): labelled_run(tmp_path/'run', steps=14, save_every=5, **changes)
    assert numbers(resume(tmp_path/'run')) == numbers(whole)
    config = load_config(whole)
    assert config['model']['classes'] == 10 and config['data']['classes'] == list('0123456789') and config['train']['labels'] is True


@pytest.mark.parametrize('share', [-0.1, 1.1, float('nan')])
def test_shares_that_cannot_be(share):
    with pytest.raises(ValueError, match='hide_labels'): build(settings(labels=True, hide_labels=share), SHAPE, 10)


def test_pictures_and_networks_without_labels_are_refused():
    digits, config = load_digits(), settings(labels=True)
    bare, more = ImageSet(digits.images, levels=17), dataclasses.replace(digits, labels=digits.labels + 1)
    model, reverse = build(config, SHAPE, 10)
    with pytest.raises(ValueError, match='these pictures have none'): build(config, SHAPE)
    with pytest.raises(ValueError, match='has none'): Trainer(model, reverse, bare, config)
    with pytest.raises(ValueError, match='takes none'): Trainer(*build(settings(), SHAPE), digits, config)
    with pytest.raises(ValueError, match='labels up to 10, the network takes 0..9'): Trainer(model, reverse, more, config)
    assert class_count(bare) is None and class_count(digits) == 10 and class_count(ImageSet(digits.images, digits.labels)) == 10


# Folders with labels

@pytest.fixture
def animals(tmp_path):
    "Three classes of different size; each picture's grey says which class it is, and which picture of it."
    folder = tmp_path/'animals'
    for i, (name, count) in enumerate((('owl', 3), ('cat', 4), ('dog', 2))):
        (folder/name/'more').mkdir(parents=True)
        for j in range(count): Image.new('L', (8, 8), 60*i + 10*j).save(folder/name/('more' if j == 1 else '.')/f'{j}.png')
    return folder


NAMES, GREYS = ('cat', 'dog', 'owl'), {'owl': 0, 'cat': 60, 'dog': 120}


def check_animals(found):
    assert found.classes == NAMES and class_count(found) == 3 and found.labels.dtype == torch.int64
    greys = ((found.floats()[:, 0, 0, 0] + 1)*127.5).round().long()
    for grey, label in zip(greys.tolist(), found.labels.tolist()): assert 0 <= grey - GREYS[NAMES[label]] < 40


@pytest.mark.parametrize('stream', [False, True])
def test_subfolders_are_labels(animals, monkeypatch, stream):
    if stream: monkeypatch.setattr(data, 'STREAM_ABOVE', 0)
    found = load_folder(animals, 8)
    assert isinstance(found, StreamedSet) == stream and len(found) == 9 and torch.bincount(found.labels).tolist() == [4, 2, 3]
    check_animals(found)
    part = found.subset(torch.tensor([8, 0, 4]))
    assert part.labels.tolist() == found.labels[[8, 0, 4]].tolist()
    check_animals(part)


@pytest.mark.parametrize('stream', [False, True])
def test_bad_pictures_take_their_labels_along(animals, monkeypatch, stream):
    if stream: monkeypatch.setattr(data, 'STREAM_ABOVE', 0)
    (animals/'cat'/'0.png').write_bytes(b'no picture')
    (animals/'owl'/'2.png').write_bytes((animals/'owl'/'2.png').read_bytes()[:40])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = load_folder(animals, 8, skip_bad=True)
        check_animals(found)
    with pytest.raises(ValueError, match='cannot be read|cannot read'): load_folder(animals, 8).floats()


def test_a_class_of_bad_pictures_only(animals, monkeypatch):
    monkeypatch.setattr(data, 'STREAM_ABOVE', 0)
    found = load_folder(animals, 8, skip_bad=True)
    for path in animals.glob('dog/**/*.png'): path.write_bytes(path.read_bytes()[:40])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(ValueError, match='with the label of'): found.floats()


@pytest.mark.parametrize('spoil', ['one class', 'a picture beside them'])
def test_other_folders_have_no_labels(animals, spoil):
    if spoil == 'one class': animals = animals/'owl'
    else: Image.new('L', (8, 8)).save(animals/'stray.png')
    found = load_folder(animals, 8)
    assert found.labels is None and found.classes is None


@pytest.mark.parametrize('stream', [False, True])
def test_training_on_a_labelled_folder(animals, tmp_path, monkeypatch, stream, capsys):
    if stream: monkeypatch.setattr(data, 'STREAM_ABOVE', 0)
    ddpm_train([*OPTIONS, '--labels', '--data', str(animals), '--size', '8', '--out', str(tmp_path/'run')])
    model, _, config = load_run(tmp_path/'run')
    assert config['data']['classes'] == list(NAMES) and label_count(model) == 3
    ddpm_sample([str(tmp_path/'run'), '--n', '4', '--steps', '3', '--label', 'owl', '0', '--out', str(tmp_path/'s.png')])
    assert (tmp_path/'s.png').exists()


# The shell

@pytest.fixture(scope='module')
def told_run(tmp_path_factory):
    "A finished run with labels; not to be changed."
    folder = tmp_path_factory.mktemp('told')/'run'
    ddpm_train([*OPTIONS, '--labels', '--hide-labels', '0.2', '--out', str(folder)])
    return folder


def complaint(capsys, command, *args):
    "One line on stderr and exit code 2."
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop: command([str(a) for a in args])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count('\n') == 1 and err.startswith(command.__name__)
    return err


def test_the_run_says_what_it_was_told(told_run):
    model, _, config = load_run(told_run)
    assert (config['train']['labels'], config['train']['hide_labels'], config['model']['classes']) == (True, 0.2, 10) and label_count(model) == 10
    assert {'samples.png', 'denoising.gif', 'losses.csv'} <= {p.name for p in told_run.iterdir()}
    assert numbers(resume(told_run)) == numbers(told_run)


def test_asking_in_the_shell(told_run, tmp_path):
    def pictures(name, *options):
        ddpm_sample([str(told_run), '--n', '4', '--steps', '4', '--out', str(tmp_path/f'{name}.png'), '--pngs', str(tmp_path/name), *options])
        return [Image.open(p).tobytes() for p in sorted((tmp_path/name).glob('*.png'))]
    model, reverse, _ = load_run(told_run)
    asked = pictures('asked', '--label', '3', '7', '--guidance', '3')
    wanted = ddim_sample(reverse, Guided(model, torch.tensor([3, 7, 3, 7]), 3.), (4, *SHAPE), steps=4, seeds=range(4))
    assert asked == [data.to_uint8(x).numpy().tobytes() for x in wanted]
    in_turn = ddim_sample(reverse, Guided(model, torch.arange(4)), (4, *SHAPE), steps=4, seeds=range(4))
    assert pictures('in turn') == [data.to_uint8(x).numpy().tobytes() for x in in_turn]
    free = ddim_sample(reverse, lambda xt, t: model(xt, t), (4, *SHAPE), steps=4, seeds=range(4))
    assert pictures('free', '--guidance', '0') == [data.to_uint8(x).numpy().tobytes() for x in free]


def test_judging_in_the_shell(told_run, capsys):
    said = []
    for scale in ('1', '4'):
        ddpm_eval([str(told_run), '--fid', '--n', '30', '--steps', '3', '--guidance', scale])
        said.append(capsys.readouterr().out)
        assert f'guidance {scale}' in said[-1] and 'FID' in said[-1]
    assert said[0].split('\n')[1:] != said[1].split('\n')[1:]


def test_what_cannot_be_asked(told_run, tiny_run, capsys, tmp_path):
    line = complaint(capsys, ddpm_sample, told_run, '--label', 'seven', '--out', tmp_path/'s.png')
    assert "'seven'" in line and '0, 1, 2, 3' in line
    assert "'10'" in complaint(capsys, ddpm_sample, told_run, '--label', '3', '10', '--out', tmp_path/'s.png')
    for option in (('--label', '3'), ('--guidance', '2')):
        line = complaint(capsys, ddpm_sample, tiny_run, *option, '--out', tmp_path/'s.png')
        assert 'without labels' in line and option[0] in line and '--labels' in line
    assert 'without labels' in complaint(capsys, ddpm_eval, tiny_run, '--fid', '--n', 30, '--steps', 3, '--guidance', 2)
    assert 'no probability model' in complaint(capsys, ddpm_eval, told_run, '--bits', '--guidance', 2)
    assert not (tmp_path/'s.png').exists()


def test_training_options_that_cannot_be(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'flat').mkdir()
    for i in range(3): Image.new('L', (8, 8), 9*i).save(tmp_path/'flat'/f'{i}.png')
    line = complaint(capsys, ddpm_train, *OPTIONS, '--labels', '--data', 'flat')
    assert 'subfolder' in line and not (tmp_path/'runs').exists()
    assert 'hide_labels' in complaint(capsys, ddpm_train, *OPTIONS, '--labels', '--hide-labels', '1.5') and not (tmp_path/'runs').exists()


def test_labels_off_is_the_run_that_it_was(tmp_path, tiny_run):
    "hide_labels means nothing where there are no labels."
    assert numbers(start(tmp_path/'run', hide_labels=0.7)) == numbers(tiny_run)
