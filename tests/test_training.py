"Training: each part against a few lines of arithmetic; a run that was broken off equals one that was not, bit for bit."
import dataclasses
import errno
import json
import math
import os
import shutil
import signal
import threading
import time
import pytest
import torch
from PIL import Image
from tiny import OPTIONS, leftovers, no_file_longer_than, numbers, press_ctrl_c, settings, shell, start
from ddpm_course import checkpoints, training
from ddpm_course.checkpoints import load_config, load_state, save_json, save_state
from ddpm_course.cli import ddpm_train
from ddpm_course.data import ImageSet, hold_out, load_digits, to_uint8
from ddpm_course.losses import LossSecondMomentSteps, hybrid_loss, loss_weight, simple_loss, vlb_loss
from ddpm_course.plots import LossBar
from ddpm_course.training import (EMA, Trainer, batch_indices, build, check_config, check_objective, draw_batch, learning_rate, new_run_folder,
                                  make_numbered, resume, saved_checkpoints, step_generator, train, train_step, training_loss)

bits = lambda model: {k: v.clone() for k, v in model.state_dict().items()}
equal = lambda a, b: a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def trainer(**changes):
    data, config = load_digits(), settings(**changes)
    return Trainer(*build(config, data.shape), data, config)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    "What 30 steps without any accident give."
    return numbers(start(tmp_path_factory.mktemp('unbroken')/'run', steps=30))


# Settings

@pytest.mark.parametrize('name, value', [('steps', 0), ('batch', 0), ('batch', -3), ('save_every', 0), ('T', 0), ('layers', 0), ('lr', 0), ('lr', -1.), ('lr', math.nan), ('clip_norm', 0),
                                         ('weight_decay', -1.), ('ema', 1), ('ema', -0.1), ('ema', math.nan), ('dropout', 1), ('dropout', -0.1), ('schedule', 'even'), ('decay', 'slow'),
                                         ('loss', 'cosine'), ('precision', 'fp8'), ('accumulate', 0), ('accumulate', 9), ('sample_every', -1), ('objective', 'elbo'), ('weighting', 'p2'), ('draw_t', 'often')])
def test_each_setting_is_checked(name, value):
    with pytest.raises(ValueError, match=name): check_config(settings(**{name: value}))


@pytest.mark.parametrize('changes, words', [(dict(objective='simple', variance='learned_range'), ['simple', "'learned_range'", 'hybrid or vlb']), (dict(objective='simple', variance='learned'), ["'learned'"]),
                                            (dict(objective='hybrid', variance='beta'), ['hybrid', "'beta'", 'simple or vlb']), (dict(objective='hybrid'), ["'beta_tilde'"]),
                                            (dict(objective='vlb', weighting='snr'), ["weighting='snr'", 'vlb']), (dict(variance='learned', weighting='min_snr'), ['min_snr', 'hybrid'])], ids=str)
def test_objectives_that_do_not_fit(changes, words):
    for f in (check_config, check_objective):
        with pytest.raises(ValueError) as error: f(settings(**changes))
        assert all(w in str(error.value) for w in words)


@pytest.mark.parametrize('variance, objective, meant', [('beta', 'auto', 'simple'), ('beta_tilde', 'auto', 'simple'), ('learned_range', 'auto', 'hybrid'), ('learned', 'auto', 'hybrid'), ('beta', 'simple', 'simple'),
                                                        ('beta', 'vlb', 'vlb'), ('learned', 'vlb', 'vlb'), ('learned', 'hybrid', 'hybrid')])
def test_objectives_that_fit(variance, objective, meant):
    config = settings(variance=variance, objective=objective)
    check_config(config)
    assert check_objective(config) == meant == trainer(variance=variance, objective=objective).objective
    if meant == 'simple': check_config(dataclasses.replace(config, weighting='snr'))


def test_the_reverse_process_decides_not_the_config():
    "train(model, reverse, …) with a variance other than the config's."
    data, config = load_digits(), settings()
    assert Trainer(*build(settings(variance='learned'), data.shape), data, config).objective == 'hybrid'
    with pytest.raises(ValueError, match='does not train'): Trainer(*build(settings(variance='learned'), data.shape), data, settings(objective='simple'))


@pytest.mark.parametrize('name, value', [('predict', 'noise'), ('variance', 'none'), ('widths', (12,)), ('widths', (0,)), ('T', 3), ('widths', (8,)*5)])
def test_what_cannot_be_built(name, value):
    with pytest.raises(ValueError): build(settings(**{'schedule': 'linear', 'T': 1000, name: value}), (1, 8, 8))


def test_the_defaults_are_fine(): check_config(training.TrainConfig())


@pytest.mark.parametrize('side, C, variance', [(2, 1, 'beta'), (8, 1, 'learned_range'), (8, 3, 'beta'), (28, 1, 'beta'), (32, 3, 'learned_range'), (64, 3, 'beta')])
def test_the_network_suits_the_pictures(side, C, variance):
    model, reverse = build(settings(widths=None, variance=variance), (C, side, side))
    parts = 2 if variance == 'learned_range' else 1
    assert (reverse.parts, model.settings['in_channels'], model.settings['out_channels']) == (parts, C, parts*C)
    smallest = side//2**(model.levels - 1)
    assert smallest >= (4 if side >= 8 else 1) and smallest <= 8
    assert all(4 <= side//2**i <= 16 or side < 8 for i in model.settings['attention_at'])
    assert model(torch.zeros(2, C, side, side), torch.ones(2)).shape == (2, parts*C, side, side)


def test_the_seed_fixes_the_network():
    a, b, c = (bits(build(settings(seed=s), (1, 8, 8))[0]) for s in (1, 1, 2))
    assert equal(a, b) and not equal(a, c)


# Order and randomness

@pytest.mark.parametrize('n, batch', [(10, 3), (10, 10), (3, 10), (1, 4), (7, 1), (5, 15)])
def test_every_picture_once_before_any_comes_again(n, batch):
    stream = torch.cat([batch_indices(n, batch, step, seed=1) for step in range(1, 3*n + 1)])
    assert len(stream) == 3*n*batch
    passes = stream[:len(stream)//n*n].reshape(-1, n)
    assert all(sorted(p.tolist()) == list(range(n)) for p in passes)
    if n > 3: assert len({tuple(p.tolist()) for p in passes}) > 1
    assert torch.equal(batch_indices(n, batch, 2, seed=1), stream[batch:2*batch])


def test_another_seed_is_another_order():
    assert not torch.equal(batch_indices(100, 100, 1, seed=0), batch_indices(100, 100, 1, seed=1))


def test_each_step_has_a_stream_of_its_own():
    draws = {torch.randn(2, generator=step_generator(seed, step)).numpy().tobytes() for seed in (0, 1, 12345) for step in range(-50, 200)}
    assert len(draws) == 3*250
    assert torch.equal(torch.randn(3, generator=step_generator(7, 8)), torch.randn(3, generator=step_generator(7, 8)))


@pytest.mark.parametrize('warmup', [0, 1, 10])
def test_learning_rate(warmup):
    config = settings(steps=100, warmup=warmup, lr=0.5)
    rates = [learning_rate(s, config) for s in range(1, 101)]
    assert all(a < b for a, b in zip(rates[:warmup//2], rates[1:warmup//2])) and all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1:]))
    assert max(rates) <= 0.5 and 0 < rates[-1] < 1e-3 and abs(learning_rate(51, config) - 0.25) < 1e-12
    constant = dataclasses.replace(config, decay='constant')
    assert [learning_rate(s, constant) for s in (max(warmup, 1), 60, 100)] == [0.5]*3
    if warmup == 10: assert abs(learning_rate(3, constant) - 0.15) < 1e-12


def test_ema_by_brute_force():
    model = torch.nn.BatchNorm1d(3)
    ema, average = EMA(model, 0.9), model.weight.detach().double().clone()
    for step in range(1, 151):
        with torch.no_grad(): model.weight.copy_(torch.randn(3))
        model.running_mean += 1
        ema.update(model, step)
        keep = min(0.9, (1 + step)/(10 + step))
        average = keep*average + (1 - keep)*model.weight.detach().double()
    assert torch.allclose(ema.model.weight.double(), average, atol=1e-5) and torch.equal(ema.model.running_mean, model.running_mean)
    assert not ema.model.weight.requires_grad and not ema.model.training and model.training


@pytest.mark.parametrize('flips', [True, False])
def test_flips_mirror_about_half(flips):
    images = torch.arange(200*6, dtype=torch.int64).remainder(251).reshape(200, 1, 2, 3).to(torch.uint8)
    data, config = ImageSet(images), settings(flips=flips, batch=200)
    t = Trainer(*build(config, (1, 2, 3)), data, config)
    x0, steps, weight, noise = draw_batch(t, step_generator(0, 1))
    plain = data.floats(batch_indices(200, 200, 1, 0))
    same, mirrored = (x0 == plain).flatten(1).all(1), (x0 == plain.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all() and (70 < mirrored.sum() < 130 if flips else same.all())
    assert (weight == 1).all() and 1 <= steps.min() and steps.max() <= 20 and noise.shape == x0.shape and abs(noise.std() - 1) < 0.1


def test_a_step_by_hand():
    "One AdamW step on L_simple, written out."
    t = trainer(clip_norm=1e9, lr=0.01, decay='constant', warmup=1, precision='fp32')
    x0, steps, _, noise = draw_batch(t, step_generator(0, 1))
    start_weights, beta = bits(t.model), t.reverse.schedule.beta
    alpha_bar = torch.cumprod(1 - beta, 0)[steps].reshape(-1, 1, 1, 1)
    loss = ((t.model((alpha_bar.sqrt()*x0 + (1 - alpha_bar).sqrt()*noise).float(), steps) - noise)**2).mean()
    gradients = dict(zip(start_weights, torch.autograd.grad(loss, list(t.model.parameters()))))
    assert abs(train_step(t) - loss) < 1e-5 and t.step == 1
    for k, p in t.model.named_parameters():  # Adam's first step has length lr along the sign of the gradient
        expected = start_weights[k]*(1 - 0.01*0.01) - 0.01*gradients[k]/(gradients[k].abs() + 1e-8)
        clear = gradients[k].abs() > 1e-5
        assert torch.allclose(p[clear], expected[clear], atol=2e-4)


@pytest.mark.parametrize('changes', [dict(precision='bf16'), dict(loss='l1'), dict(loss='huber'), dict(variance='learned_range'), dict(predict='v'), dict(predict='x0'), dict(dropout=0.5),
                                     dict(objective='vlb', variance='learned', precision='bf16'), dict(precision='bf16', weighting='min_snr'), dict(T=1), dict(T=1, variance='learned_range', draw_t='importance')], ids=str)
def test_every_kind_of_training_takes_steps(changes):
    t = trainer(**changes, device='cpu')
    before = bits(t.model)
    losses = [train_step(t) for _ in range(3)]
    assert all(l.isfinite() for l in losses) and not equal(before, bits(t.model)) and not equal(bits(t.model), bits(t.ema.model))
    assert {p.dtype for p in t.model.parameters()} == {torch.float32}


@pytest.mark.parametrize('changes', [{}, dict(objective='vlb', variance='learned', draw_t='importance'), dict(predict='v', weighting='min_snr')], ids=str)
@pytest.mark.parametrize('parts', [2, 3, 8])
def test_a_batch_in_parts_is_the_same_step(parts, changes):
    one, two = (trainer(**changes, accumulate=n, device='cpu', precision='fp32') for n in (1, parts))
    for _ in range(3): assert abs(train_step(one) - train_step(two)) < 1e-5
    for (k, a), b in zip(one.model.named_parameters(), two.model.parameters()): assert torch.allclose(a.grad, b.grad, atol=1e-5*max(1, a.grad.abs().max())), k
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one.sampler.state_dict().values(), two.sampler.state_dict().values()))


def test_parts_see_fewer_pictures_at_a_time():
    t, seen = trainer(accumulate=3), []
    t.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    train_step(t)
    assert seen == [3, 3, 2]


def test_compile_changes_what_is_called_and_not_what_is_saved(monkeypatch, tmp_path, tiny_run):
    asked = []
    def compiled(model): asked.append(model); return lambda x, t: model(x, t)
    monkeypatch.setattr(torch, 'compile', compiled)
    run = start(tmp_path/'run', compile=True)
    assert len(asked) == 1 and numbers(run) == numbers(tiny_run)


def test_checkpointing_trains_the_same_network():
    one, two = (trainer(dropout=0.3, checkpointing=value, device='cpu', precision='fp32') for value in (False, True))
    for t in (one, two): train_step(t), train_step(t)
    assert two.model.checkpointing and equal(bits(one.model), bits(two.model))


OBJECTIVES = [(objective, variance) for objective, variances in (('simple', ('beta', 'beta_tilde')), ('hybrid', ('learned', 'learned_range')), ('vlb', ('beta', 'beta_tilde', 'learned', 'learned_range'))) for variance in variances]


@pytest.mark.parametrize('objective, variance', OBJECTIVES)
@pytest.mark.parametrize('draw_t', ['uniform', 'importance'])
@pytest.mark.parametrize('predict', ['eps', 'v'])
def test_the_first_loss_is_that_of_the_objective(objective, variance, draw_t, predict):
    "On a network that has not been trained, in the words of lesson 05; the pictures have 17 grey levels."
    t = trainer(objective=objective, variance=variance, draw_t=draw_t, predict=predict, batch=16, device='cpu', precision='fp32')
    x0, steps, weight, noise = draw_batch(t, step_generator(0, 1))
    with torch.no_grad(): expected = {'simple': lambda *a, levels: simple_loss(*a), 'hybrid': hybrid_loss, 'vlb': vlb_loss}[objective](t.reverse, t.model, x0, steps, noise, levels=17).mean()
    before = bits(t.model)
    losses = [train_step(t) for _ in range(3)]
    assert (weight == 1).all() and torch.allclose(losses[0], expected, rtol=1e-5) and all(l.isfinite() for l in losses)
    assert not equal(before, bits(t.model)) and t.sampler.state_dict().keys() == ({'losses', 'counts'} if draw_t == 'importance' else set())


@pytest.mark.parametrize('weighting', ['snr', 'min_snr', 'truncated_snr'])
@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
@pytest.mark.parametrize('loss', ['mse', 'l1'])
def test_the_first_loss_with_a_weighting(weighting, predict, loss):
    t = trainer(weighting=weighting, predict=predict, loss=loss, precision='fp32', device='cpu')
    x0, steps, _, noise = draw_batch(t, step_generator(0, 1))
    with torch.no_grad(): rows = simple_loss(t.reverse, t.model, x0, steps, noise, loss)
    assert torch.allclose(train_step(t).double(), (rows.double()*loss_weight(t.reverse.schedule, steps, predict, weighting)).mean(), rtol=1e-5)


def test_a_step_with_importance():
    "Once the memory is full: t from its probabilities, the loss weighted, the memory fed with what is not weighted."
    t = trainer(objective='vlb', draw_t='importance', batch=500, precision='fp32', device='cpu')
    t.sampler.losses += torch.arange(1., 21)[:, None]; t.sampler.counts += 10
    x0, steps, weight, noise = draw_batch(t, step_generator(0, 1))
    assert torch.allclose(weight, 1/(20*(0.999*steps/210 + 0.001/20)).float(), rtol=1e-4) and steps.float().mean() > 12
    with torch.no_grad(): rows = vlb_loss(t.reverse, t.model, x0, steps, noise, levels=17)
    assert torch.allclose(train_step(t), (rows*weight).mean(), rtol=1e-5)
    for step in (5, 20): assert torch.allclose(t.sampler.losses[step - 1].sort().values, rows[steps == step][-10:].sort().values, rtol=1e-4)
    assert torch.equal(t.sampler.counts, 10 + steps.bincount(minlength=21)[1:])


def test_bf16_stays_near_fp32():
    a, b = (torch.stack([train_step(t) for _ in range(5)]) for t in (trainer(precision=p, device='cpu') for p in ('bf16', 'fp32')))
    assert not torch.equal(a, b) and torch.allclose(a, b, rtol=0.02)


# Runs

def test_what_a_run_holds(tiny_run):
    assert sorted(p.name for p in tiny_run.iterdir()) == ['checkpoints', 'config.json', 'denoising.gif', 'ema.safetensors', 'losses.csv', 'losses.png', 'model.safetensors', 'samples.png']
    lines = (tiny_run/'losses.csv').read_text().splitlines()
    assert lines[0] == 'step,loss,lr' and [l.split(',')[0] for l in lines[1:]] == list('123456')
    assert 0.8 < float(lines[1].split(',')[1]) < 1.2 and float(lines[6].split(',')[2]) == learning_rate(6, settings())
    config = json.loads((tiny_run/'config.json').read_text())
    assert training.TrainConfig(**config['train']) == dataclasses.replace(settings(out=str(tiny_run)), widths=[16])
    assert config['data'] == dict(name='digits', shape=[1, 8, 8], levels=17, count=1797)
    for name in ('losses.png', 'samples.png', 'denoising.gif'):
        with Image.open(tiny_run/name) as picture: picture.load()


def test_the_loss_falls(tmp_path):
    losses = [float(l.split(',')[1]) for l in (start(tmp_path/'run', steps=80, batch=32, lr=1e-2, T=1000)/'losses.csv').read_text().splitlines()[1:]]
    assert sum(losses[-30:])/30 < 0.7*sum(losses[:5])/5


def test_the_same_seed_gives_the_same_run(tmp_path, tiny_run):
    assert numbers(start(tmp_path/'a')) == numbers(tiny_run) != numbers(start(tmp_path/'b', seed=1))


def test_saving_often_changes_nothing_and_keeps_two(tmp_path, tiny_run):
    run = start(tmp_path/'run', save_every=1)
    assert numbers(run) == numbers(tiny_run)
    assert sorted(p.name for p in (run/'checkpoints').iterdir()) == ['step_0000005.safetensors', 'step_0000006.safetensors']


def test_paths_are_welcome_as_settings(tmp_path, tiny_run):
    data, config = load_digits(), settings(out=tmp_path/'run')
    assert numbers(train(*build(config, data.shape), data, config)) == numbers(tiny_run)


def test_a_network_of_ones_own(tmp_path):
    config, data = settings(out=str(tmp_path/'run')), load_digits()
    class Own(torch.nn.Module):
        def __init__(self): super().__init__(); self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        def forward(self, x, t): return self.conv(x)
    run = train(Own(), build(config, data.shape)[1], data, config)
    assert load_config(run)['model'] is None and len(numbers(run)) == 5
    with pytest.raises(ValueError, match='own kind'): resume(run)


@pytest.mark.parametrize('last, changes', [(1, {}), (20, {}), (23, {}), (7, dict(dropout=0.3, variance='learned_range', flips=True)), (7, dict(precision='bf16', device='cpu')), (13, dict(accumulate=3, dropout=0.3)),
                                           (17, dict(T=4, draw_t='importance', objective='vlb', variance='learned')), (9, dict(holdout=1000, objective='vlb'))], ids=str)
def test_ctrl_c_then_resume(tmp_path, monkeypatch, unbroken, changes, last):
    if changes: unbroken = numbers(start(tmp_path/'unbroken', steps=30, **changes))
    def step(t):
        loss = train_step(t)
        if t.step == last: press_ctrl_c()
        return loss
    with monkeypatch.context() as patch:
        patch.setattr(training, 'train_step', step)
        with pytest.raises(KeyboardInterrupt, match=f'step {last} of 30') as stop: start(tmp_path/'run', steps=30, **changes)
    assert f'--resume {tmp_path}/run' in str(stop.value) and numbers(tmp_path/'run') != unbroken
    assert resume(tmp_path/'run') == tmp_path/'run' and numbers(tmp_path/'run') == unbroken


def test_the_memory_of_importance_sampling_is_in_the_checkpoint(tmp_path):
    "By step 17 it is full and steers; without it the run goes another way."
    how = dict(T=4, draw_t='importance', objective='vlb', variance='learned', steps=30)
    run = start(tmp_path/'run', save_every=17, **how)
    path = run/'checkpoints'/'step_0000017.safetensors'
    (run/'checkpoints'/'step_0000030.safetensors').unlink()
    state, whole = load_state(path), numbers(run)
    assert state['sampler']['counts'].min() >= 10 and state['sampler']['losses'].shape == (4, 10) and state['sampler']['losses'].min() != 0
    shutil.copytree(run, tmp_path/'other')
    assert numbers(resume(run)) == whole
    save_state(state | {'sampler': LossSecondMomentSteps(4).state_dict()}, tmp_path/'other'/'checkpoints'/'step_0000017.safetensors')
    assert numbers(resume(tmp_path/'other')) != whole


def test_a_run_from_before_there_was_a_choice_of_t(tmp_path, unbroken):
    "Its config knows nothing of it."
    run = start(tmp_path/'run', steps=30, save_every=15)
    (run/'checkpoints'/'step_0000030.safetensors').unlink()
    config = load_config(run)
    save_json(config | {'train': {k: v for k, v in config['train'].items() if k not in ('holdout', 'objective', 'weighting', 'draw_t')}}, run/'config.json')
    assert numbers(resume(run)) == unbroken


# Pictures kept aside

def numbered(n):
    "Pictures that can be told apart."
    return ImageSet(torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).repeat(1, 1, 2, 2))


def seen_in(config, data, steps):
    t, seen = Trainer(*build(config, data.shape), data, config), set()
    for t.step in range(steps): seen |= set(to_uint8(draw_batch(t, step_generator(config.seed, t.step + 1))[0])[:, 0, 0, 0].tolist())
    return seen


@pytest.mark.parametrize('holdout, n_seed', [(0, 0), (1, 0), (30, 0), (30, 5), (99, 1)])
def test_pictures_kept_aside_are_never_seen(holdout, n_seed):
    data, config = numbered(100), settings(holdout=holdout, seed=n_seed, batch=10)
    kept = hold_out(data, holdout)[1]
    kept = set() if kept is None else set(kept.images[:, 0, 0, 0].tolist())
    assert len(kept) == holdout and seen_in(config, data, 30) == set(range(100)) - kept


@pytest.mark.parametrize('holdout', [-1, 1797, 5000])
def test_something_must_be_left_to_train_on(tmp_path, holdout):
    with pytest.raises(ValueError, match=r'holdout must lie in 0\.\.1796'): start(tmp_path/'run', holdout=holdout)
    assert not (tmp_path/'run').exists()


def test_a_run_remembers_what_it_kept_aside(tmp_path, tiny_run):
    how = dict(holdout=200, objective='vlb', draw_t='importance', weighting='none')
    run = start(tmp_path/'run', **how)
    config = load_config(run)
    assert config['data']['count'] == 1797 and {k: config['train'][k] for k in how} == how and load_config(tiny_run)['train']['holdout'] == 0
    data = load_digits()
    with pytest.raises(ValueError, match='was trained on 1797'): resume(run, hold_out(data, 200)[0])
    assert numbers(resume(run, data)) == numbers(run) != numbers(tiny_run)


def test_ctrl_c_while_the_bar_is_drawn(tmp_path, monkeypatch, unbroken):
    "What the message says is saved, is."
    def report(bar, losses):
        if len(losses) == 20: press_ctrl_c()
    with monkeypatch.context() as patch:
        patch.setattr(LossBar, 'report', report)
        with pytest.raises(KeyboardInterrupt) as stop: start(tmp_path/'run', steps=30)
    saved = saved_checkpoints(tmp_path/'run')
    assert saved and f'step {int(saved[-1].stem[5:])} of' in str(stop.value)
    assert numbers(resume(tmp_path/'run')) == unbroken


def test_ctrl_c_from_another_thread(tmp_path, monkeypatch, unbroken):
    began = threading.Event()
    def step(t):
        began.set()
        time.sleep(0.02)
        return train_step(t)
    threading.Thread(target=lambda: (began.wait(60), press_ctrl_c())).start()
    with monkeypatch.context() as patch:
        patch.setattr(training, 'train_step', step)
        with pytest.raises(KeyboardInterrupt): start(tmp_path/'run', steps=30)
    assert numbers(resume(tmp_path/'run')) == unbroken


def test_afterwards_ctrl_c_is_as_it_was(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    start(tmp_path/'run', steps=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_off_the_main_thread(tmp_path, tiny_run):
    thread = threading.Thread(target=start, args=(tmp_path/'run',))
    thread.start(); thread.join()
    assert numbers(tmp_path/'run') == numbers(tiny_run)


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL], ids=['ctrl_c', 'kill'])
def test_a_process_that_is_stopped(tmp_path, how):
    "The real command; after the signal --resume makes the run whole."
    options = [*OPTIONS, '--steps', '24', '--save-every', '2']
    process = shell('ddpm_train', *options, '--out', tmp_path/'run')
    while not saved_checkpoints(tmp_path/'run') and process.poll() is None: time.sleep(0.01)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    if how == signal.SIGINT: assert process.returncode == 130 and f'--resume {tmp_path}/run' in err and 'Traceback' not in err and len(err.split('\n')) <= 3
    else: assert process.returncode == -signal.SIGKILL
    assert not (tmp_path/'run'/'samples.png').exists()
    ddpm_train(['--resume', str(tmp_path/'run')])
    assert (tmp_path/'run'/'samples.png').exists() and numbers(tmp_path/'run') == numbers(start(tmp_path/'unbroken', steps=24))


def test_a_finished_run_may_be_resumed(tiny_copy, tiny_run):
    drawn = []
    resume(tiny_copy, draw=lambda *args: drawn.append(args))
    assert numbers(tiny_copy) == numbers(tiny_run) and drawn[0][2:] == ((1, 8, 8), tiny_copy)


# What goes wrong

def test_resume_needs_the_same_pictures(tiny_copy):
    for data in (ImageSet(load_digits().images[:100], levels=17), ImageSet(load_digits().images.repeat(1, 3, 1, 1), levels=17)):
        with pytest.raises(ValueError, match='was trained on 1797 pictures'): resume(tiny_copy, data)


def test_resume_without_a_checkpoint(tiny_copy):
    shutil.rmtree(tiny_copy/'checkpoints')
    with pytest.raises(ValueError, match='no checkpoint'): resume(tiny_copy)


@pytest.mark.parametrize('keep', [0, 10, 1000, 100_000, -10])
def test_half_a_checkpoint_names_the_one_before_which_serves(tmp_path, unbroken, keep):
    run = start(tmp_path/'run', steps=30, save_every=15)
    (before, path), whole = saved_checkpoints(run), numbers(run)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match='not whole') as error: resume(run)
    assert str(path) in str(error.value) and f'--resume {before}' in str(error.value) and '\n' not in str(error.value)
    assert saved_checkpoints(run) == [before, path] and numbers(run) == whole, 'nothing is touched'
    assert resume(before) == run and numbers(run) == unbroken and saved_checkpoints(run) == [before, path]


def test_the_only_checkpoint_is_broken(tiny_copy):
    saved_checkpoints(tiny_copy)[0].write_bytes(b'')
    with pytest.raises(ValueError, match='not whole.*there is none before it'): resume(tiny_copy)


def test_going_back_leaves_no_later_checkpoints(tmp_path):
    "They belong to steps that are taken anew; a broken one must not push out a good one."
    run = start(tmp_path/'run', steps=30, save_every=10)
    first = saved_checkpoints(run)[0]
    trainer = Trainer(*build(settings(steps=30), (1, 8, 8)), load_digits(), settings(steps=30))
    training.load_checkpoint(trainer, first)
    trainer.step = 24
    training.save_checkpoint(trainer, run)
    assert [p.stem for p in saved_checkpoints(run)] == ['step_0000020', 'step_0000024']


def test_without_the_newest_checkpoint_the_one_before_serves(tmp_path, unbroken):
    run = start(tmp_path/'run', steps=30, save_every=15)
    (run/'checkpoints'/'step_0000030.safetensors').unlink()
    assert numbers(resume(run)) == unbroken


def test_the_optimisers_means_come_back_in_the_weights_own_layout(tmp_path):
    "Kernels that walk through memory in order would otherwise pair the wrong numbers."
    t = trainer(device='cpu', precision='fp32')
    t.model.to(memory_format=torch.channels_last)
    for _ in range(3): train_step(t)
    save_state(training.state_of(t), tmp_path/'state.safetensors')
    again = trainer(device='cpu', precision='fp32')
    again.model.to(memory_format=torch.channels_last)
    training.set_state(again, load_state(tmp_path/'state.safetensors'))
    for p, q in zip(t.model.parameters(), again.model.parameters()):
        mine, theirs = t.optimizer.state[p], again.optimizer.state[q]
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
        assert theirs['exp_avg'].stride() == theirs['exp_avg_sq'].stride() == q.stride()
    assert torch.equal(train_step(t), train_step(again)) and equal(bits(t.model), bits(again.model))


def test_what_drawing_says_becomes_a_table(tmp_path):
    seen = []
    def draw(reverse, model, shape, folder):
        seen.append(folder)
        return dict(fid=float(len(seen)), n=7)
    data, config = load_digits(), settings(out=str(tmp_path/'run'), steps=9, sample_every=3, save_every=3)
    run = train(*build(config, data.shape), data, config, draw)
    assert (run/'scores.csv').read_text().split() == ['step,fid,n', '3,1.0,7', '6,2.0,7', '9,3.0,7']
    assert seen == [run/'samples'/'step_0000003', run/'samples'/'step_0000006', run]
    resume(saved_checkpoints(run)[0], draw=draw)  # goes back to step 6
    assert (run/'scores.csv').read_text().split() == ['step,fid,n', '3,1.0,7', '6,2.0,7', '9,4.0,7']


def test_tensorboard(tmp_path):
    "What TensorBoard itself reads from the files: every step once, also after a resume, and the pictures."
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    def draw(reverse, model, shape, folder):
        Image.new('RGB', (5, 4), (255, 0, 0)).save(folder/'samples.png')
        return dict(fid=2.5)
    data, config = load_digits(), settings(out=str(tmp_path/'run'), steps=9, sample_every=4, save_every=3, tensorboard=True)
    run = train(*build(config, data.shape), data, config, draw)
    resume(saved_checkpoints(run)[0], draw=draw)
    seen = EventAccumulator(str(run/'tensorboard'))
    seen.Reload()
    points = {name: [(e.step, e.value) for e in seen.Scalars(name)] for name in ('loss', 'lr', 'gradient_norm', 'fid')}
    losses = [float(line.split(',')[1]) for line in (run/'losses.csv').read_text().split()[1:]]
    assert [s for s, _ in points['loss']] == [s for s, _ in points['gradient_norm']] == list(range(1, 10))
    assert [v for _, v in points['loss']] == pytest.approx(losses) and [v for _, v in points['lr']] == pytest.approx([learning_rate(k, config) for k in range(1, 10)])
    assert [s for s, _ in points['fid']] == [4, 8, 9] and [e.step for e in seen.Images('samples')] == [4, 8, 9] and seen.Images('samples')[0].width == 5


def test_without_tensorboard_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(training, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r'pip install ddpm-course\[tensorboard\]'): start(tmp_path/'run', tensorboard=True)
    assert not (tmp_path/'run').exists()


def test_resume_from_a_foreign_checkpoint(tiny_copy):
    path = saved_checkpoints(tiny_copy)[0].with_name('step_0000009.safetensors')
    def refused(words):
        with pytest.raises(ValueError, match=words) as error: resume(tiny_copy)
        assert str(path) in str(error.value) and '--resume' in str(error.value)
    torch.save([1, 2], path)
    refused('not whole')
    shutil.copy(tiny_copy/'model.safetensors', path)
    refused('not a file of ddpm-course')
    save_state({'step': 3, 'model': {}}, path)
    refused('not a checkpoint of a training run: it lacks ema')


def test_resume_from_a_newer_format(tiny_copy, monkeypatch):
    path = saved_checkpoints(tiny_copy)[0]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, 'FORMAT', 99)
        save_state(load_state(path), path)
    with pytest.raises(ValueError, match='format 99.*update the package'): resume(tiny_copy)


def test_resume_with_another_networks_checkpoint(tmp_path, tiny_copy):
    other = start(tmp_path/'other', widths=(24,))
    shutil.copy(saved_checkpoints(other)[0], saved_checkpoints(tiny_copy)[0])
    before = numbers(tiny_copy)
    with pytest.raises(ValueError, match='weights of another network'): resume(tiny_copy)
    assert numbers(tiny_copy) == before


def test_resume_with_a_setting_that_does_not_exist(tiny_copy):
    config = load_config(tiny_copy)
    save_json(config | {'train': config['train'] | {'colour': 3}}, tiny_copy/'config.json')
    with pytest.raises(ValueError, match='colour'): resume(tiny_copy)


def test_a_folder_that_holds_another_run(tiny_copy, tiny_run):
    with pytest.raises(ValueError, match='another run.*--resume'): start(tiny_copy)
    assert numbers(tiny_copy) == numbers(tiny_run)


def test_a_folder_that_holds_other_files(tmp_path):
    (tmp_path/'notes.txt').write_text('mine')
    for out in (tmp_path, tmp_path/'notes.txt'):
        with pytest.raises(ValueError, match='other files'): start(out)
    assert [p.name for p in tmp_path.iterdir()] == ['notes.txt'] and (tmp_path/'notes.txt').read_text() == 'mine'


def test_no_right_to_write(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises((ValueError, OSError)): start(tmp_path/'file'/'run')


def test_new_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'runs'/'digits-old').mkdir(parents=True)
    (tmp_path/'runs'/'digits-7').mkdir()
    assert [str(new_run_folder(None, 'digits')) for _ in range(2)] == ['runs/digits-8', 'runs/digits-9']
    for name in ('cats [2020]', 'a*b'):
        for i in (1, 2):
            folder = new_run_folder(None, f'/pictures/{name}')
            (folder/'config.json').write_text('{}')
            assert str(folder) == f'runs/{name}-{i}'


@pytest.mark.parametrize('name', ['step_0000020.safetensors', 'model.safetensors', 'ema.safetensors', 'losses.csv', 'losses.png'])
def test_a_disk_that_fills_up(tmp_path, monkeypatch, unbroken, name):
    "The error passes through, what was saved before is whole, and the run can go on."
    checkpoint = tmp_path/'run'/'checkpoints'/'step_0000010.safetensors'
    saved, replace = [], os.replace
    def full(part, path):
        if os.path.basename(path) == name and (saved or name.startswith('step')): raise OSError(errno.ENOSPC, 'No space left on device')
        if os.path.basename(path) == name: saved.append(path)
        replace(part, path)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', full)
        with pytest.raises(OSError, match='No space left'): start(tmp_path/'run', steps=30, save_every=10)
    assert load_state(checkpoint)['step'] == 10 and not leftovers(tmp_path/'run')
    assert numbers(resume(tmp_path/'run')) == unbroken


def test_a_disk_that_is_full(tmp_path):
    "Really full, and for all files: the system's own error comes out, and no half-written file stays."
    with pytest.raises(OSError), no_file_longer_than(20_000): start(tmp_path/'run')
    assert not [p for p in (tmp_path/'run').rglob('*') if p.is_file() and p.name != 'config.json']


def at_step(step, **changes):
    t = trainer(**changes, device='cpu', precision='fp32')
    t.step = step
    return t


def test_float16_that_overflows_now_and_then_is_counted(tmp_path, capsys):
    "It begins with a scale that is far too large, and halves it until the gradients fit."
    t = trainer(device='cpu', precision='fp16', steps=40)
    t.scaler = torch.amp.GradScaler('cpu', init_scale=2.**28)
    training.finish(t, tmp_path, None)
    assert 3 < t.skipped < 40 and t.in_a_row == 0 and f'{t.skipped} of 40 steps were skipped because float16 overflowed' in capsys.readouterr().out
    again = trainer(device='cpu', precision='fp16', steps=40)
    training.load_checkpoint(again, saved_checkpoints(tmp_path)[-1])
    assert again.skipped == t.skipped


def test_float16_that_only_overflows_stops(tmp_path, monkeypatch):
    spoil(monkeypatch, 5, lambda rows, t: BadGradient.apply(rows))
    with pytest.raises(RuntimeError, match=r'overflowed at each of the 20 steps up to 24 \(20 in all\)'): start(tmp_path/'run', steps=60, device='cpu', precision='fp16')


def test_looks_on_the_way(tmp_path):
    seen = []
    def draw(reverse, model, shape, folder): seen.append((folder.relative_to(tmp_path).as_posix(), torch.rand(1)))
    data, config = load_digits(), settings(out=str(tmp_path/'run'), sample_every=2)
    run = train(*build(config, data.shape), data, config, draw)
    assert [s for s, _ in seen] == ['run/samples/step_0000002', 'run/samples/step_0000004', 'run']
    assert numbers(run) == numbers(start(tmp_path/'plain')), 'drawing must not disturb training'


def test_two_runs_that_start_together_get_a_folder_each(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool: made = list(pool.map(lambda _: make_numbered(tmp_path/'runs', 'digits', 1), range(24)))
    assert sorted(p.name for p in made) == sorted(f'digits-{i}' for i in range(1, 25))


def spoil(monkeypatch, step, change):
    "From this step on, change(rows, t) is what training_loss answers."
    def loss(trainer, x0, t, noise, y):
        rows = training_loss(trainer, x0, t, noise, y)
        return change(rows, t) if trainer.step + 1 >= step else rows
    monkeypatch.setattr(training, 'training_loss', loss)


class BadGradient(torch.autograd.Function):
    "The number itself, with an infinite gradient."
    @staticmethod
    def forward(ctx, x): return x.clone()

    @staticmethod
    def backward(ctx, g): return g*math.inf


@pytest.mark.parametrize('change, words', [(lambda rows, t: torch.where(t == t.max(), math.nan, rows), 'loss became nan at step 14, for t = {t}; '),
                                           (lambda rows, t: torch.where(t == t.max(), math.inf, rows), 'loss became inf at step 14, for t = {t}; '),
                                           (lambda rows, t: BadGradient.apply(rows), 'gradient became nan at step 14, though the loss was a number')])
def test_a_run_that_diverges(tmp_path, monkeypatch, change, words):
    expected = words.format(t=draw_batch(at_step(13), step_generator(0, 14))[1].max().item())
    with monkeypatch.context() as patch:
        spoil(patch, 14, change)
        with pytest.raises(RuntimeError, match=expected) as error: start(tmp_path/'run', steps=30, save_every=6, device='cpu', precision='fp32')
    assert f'{tmp_path}/run/checkpoints/step_0000012.safetensors' in str(error.value) and '\n' not in str(error.value)
    assert sorted(p.name for p in (tmp_path/'run'/'checkpoints').iterdir()) == ['step_0000006.safetensors', 'step_0000012.safetensors']
