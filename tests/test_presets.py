"Settings of known systems, and what the package had to learn for them: continuous time, scaled pictures, other people's networks."
import dataclasses
import math
import numpy as np
import pytest
import torch
from tiny import numbers, settings, start
from ddpm_course.checkpoints import describe_reverse, load_config, load_run, load_weights, network_name, restore_model, restore_reverse, save_json
from ddpm_course.cli import ddpm_eval, ddpm_sample, ddpm_train, sampler_called
from ddpm_course.data import ImageSet, Normaliser, load_digits
from ddpm_course.forward import q_posterior, q_sample, q_step
from ddpm_course.improved import fewer_steps
from ddpm_course.losses import ContinuousSteps, simple_loss
from ddpm_course.networks import NETWORKS
from ddpm_course.presets import PRESETS, garment_features, hours, improvement, preset, preset_called, settings_table, training_flops
from ddpm_course.reverse import GaussianOracle, Reverse, prediction_to_x0, x0_to_prediction
from ddpm_course.sampling import ddpm_sample as sample_ddpm
from ddpm_course.schedules import at, check_steps, linear_schedule, offset_cosine_schedule, steps_like
from ddpm_course.training import DETAILS, TrainConfig, Trainer, build, check_config, draw_batch, resume, train
from ddpm_course.unet import UNet, count_parameters

OTHERS = dict(plain=dict(network='plain', widths=(8,)), flowers=dict(network='flowers', widths=(4, 8, 8), schedule='offset_cosine', draw_t='continuous', normalise=True, loss='l1'), cars=dict(network='cars', widths=(8, 16)))
others = pytest.mark.parametrize('name', OTHERS)


# Presets

@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_is_a_run_that_could_start(name):
    config = preset(name, tensorboard=False)
    check_config(config)
    model, reverse = build(config, (3, 32, 32) if 'cifar' in name else (3, 64, 64))
    assert reverse.schedule.T == config.T and network_name(model) == config.network
    assert dataclasses.asdict(config).items() >= {k: v for k, v in preset_called(name).settings.items() if k != 'tensorboard'}.items()


@pytest.mark.parametrize('name, size, wanted', [('ddpm-cifar10', 32, 35_746_307), ('ddim-cifar10', 32, 35_746_307), ('faces', 64, 113_673_219), ('cars', 64, 62_438_883), ('flowers', 64, 1_950_627)])
def test_networks_have_the_published_number_of_parameters(name, size, wanted): assert count_parameters(build(preset(name, tensorboard=False), (3, size, size))[0]) == wanted


def test_the_network_of_the_faces_is_the_librarys():
    "Same answers as diffusers' own UNet2DModel with the tutorial's arguments and our weights, names unchanged."
    from diffusers import UNet2DModel
    ours = build(preset('faces', widths=(32, 32, 64, 64, 96, 96), tensorboard=False), (3, 64, 64))[0].eval()
    theirs = UNet2DModel(sample_size=64, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(32, 32, 64, 64, 96, 96),
                         down_block_types=['DownBlock2D']*4 + ['AttnDownBlock2D', 'DownBlock2D'], up_block_types=['UpBlock2D', 'AttnUpBlock2D'] + ['UpBlock2D']*4).eval()
    for p in ours.parameters(): torch.nn.init.normal_(p, std=0.05)
    theirs.load_state_dict(ours.state_dict())
    x, t = torch.randn(2, 3, 64, 64), torch.tensor([1, 700])
    with torch.no_grad(): assert torch.allclose(ours(x, t), theirs(x, t - 1).sample, atol=1e-4)


def test_the_unscaled_chain_stops_short_of_noise():
    signal = build(preset('cars', widths=(8, 16)), (3, 16, 16))[1].schedule.alpha_bar[-1].sqrt().item()
    assert signal == pytest.approx(math.prod((1 - b)**0.5 for b in np.linspace(1e-4, 0.02, 300)), rel=1e-9) and 0.218 < signal < 0.220


def test_changes_come_on_top():
    assert preset('cars', steps=3).steps == 3 and preset('cars').steps != 3
    with pytest.raises(ValueError, match='no preset.*ddpm-cifar10'): preset('car')
    with pytest.raises(TypeError): preset('cars', stepz=3)


def test_the_table_names_what_differs():
    lines = settings_table('ddpm-cifar10', 'cars').splitlines()
    rows = {cells[0].strip(' `'): [c.strip() for c in cells[1:]] for cells in (line.strip('|').split('|') for line in lines)}
    assert rows['setting'] == ['ddpm-cifar10', 'cars'] and rows['T'] == ['1,000', '300'] and rows['loss'] == ['mse', 'l1'] and 'seed' not in rows
    for name, values in list(rows.items())[2:]: assert any(str(getattr(TrainConfig(), name)) != v.replace(',', '') for v in values), f'{name} is the default in all'


def test_operations_are_those_of_the_convolutions():
    config = settings(network='plain', widths=(8,), steps=10, batch=4)
    by_hand = 2*9*(1*8 + 4*2*8*8 + 8*1)*6*6  # conv_in, four blocks of two convolutions, conv_out; each product and its addition
    assert training_flops(config, (1, 6, 6)) == 3*by_hand*10*4
    assert hours(3.6e15, 1e12, 0.5) == pytest.approx(2.)


def test_improvement_needs_no_luck(tmp_path):
    "A network that never learned is as far from the data as before; the one that ships is much nearer."
    digits = load_digits()
    features = lambda x: x.flatten(1)[:, ::4]
    real = features(digits.floats())
    before, after = improvement(start(tmp_path/'run', lr=1e-12), features, real, n=64, steps=5)
    assert after == pytest.approx(before, rel=1e-4)
    before, after = improvement('digits', features, real, n=64, steps=10)
    assert after < before/2


def test_features_of_garments_of_any_size():
    "At their own size as they ship; a picture and its enlargement are one; three equal channels are grey."
    from ddpm_course.metrics import features_for
    x, any_size = torch.rand(3, 1, 32, 32)*2 - 1, garment_features()
    assert torch.allclose(any_size(x), features_for('fashion-mnist')(x), atol=1e-5)
    assert torch.allclose(any_size(x.expand(-1, 3, -1, -1)), any_size(x), atol=1e-4)
    assert torch.allclose(any_size(x[..., ::2, ::2].contiguous()), any_size(torch.nn.functional.interpolate(x[..., ::2, ::2], 32, mode='bilinear')), atol=0.2)


# Between the steps

def test_tables_between_the_steps():
    table, t = torch.rand(11, dtype=torch.float64), 10*torch.rand(1000, dtype=torch.float64)
    assert np.allclose(at(table, t), np.interp(t, np.arange(11), table), atol=1e-14)
    assert torch.equal(at(table, torch.arange(11.)), table) and torch.equal(at(table, torch.arange(11)), table)


def test_continuous_time_is_the_cosine_between_its_ends():
    s, t = offset_cosine_schedule(), 1 + 999*torch.rand(500)
    x0, noise = torch.randn(2, 500, 3)
    angle = math.acos(0.95) + (t.double() - 1)/999*(math.acos(0.02) - math.acos(0.95))
    wanted = angle.cos()[:, None]*x0 + angle.sin()[:, None]*noise
    assert (q_sample(s, x0, t, noise) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize('predict', ['eps', 'x0', 'v'])
def test_predictions_convert_between_the_steps(predict):
    s, t = linear_schedule(50), 1 + 49*torch.rand(64, dtype=torch.float64)
    x0, noise = torch.randn(2, 64, 5, dtype=torch.float64)
    xt = q_sample(s, x0, t, noise)
    assert torch.allclose(prediction_to_x0(s, x0_to_prediction(s, x0, xt, t, predict), xt, t, predict), x0, atol=1e-8)


def test_whole_steps_stay_whole_where_they_must():
    s, x, t = linear_schedule(50), torch.zeros(3, 2), torch.tensor([1., 2.5, 3.])
    oracle = GaussianOracle(s, 0., 1.)
    for f in (lambda: q_step(s, x, t), lambda: q_posterior(s, x, x, t), lambda: x0_to_prediction(s, x, x, t, 'mu'), lambda: steps_like(t, x, 50), lambda: Reverse(s).step(oracle, x, t), lambda: check_steps(2.5, 50)):
        with pytest.raises(ValueError, match='step'): f()
    for bad in (torch.tensor([0.5]), torch.tensor([50.5]), torch.tensor([math.nan]), 0.9, torch.tensor([True])):
        with pytest.raises(ValueError, match=r'1\.\.50'): check_steps(bad, 50, whole=False)
    check_steps(torch.tensor([1., 49.9, 50.]), 50, whole=False)


def test_continuous_times_fill_the_interval():
    t, weight = ContinuousSteps(300).sample(20_000, torch.Generator().manual_seed(0))
    assert t.is_floating_point() and t.min() >= 1 and t.max() <= 300 and (t != t.round()).float().mean() > 0.99 and (weight == 1).all()
    assert np.abs(np.sort(t.numpy()) - np.linspace(1, 300, 20_000)).max() < 6  # Kolmogorov's distance is below 0.02 of 299


def test_the_simple_loss_of_an_oracle_between_the_steps():
    "The smallest error of ε for N(0, 1) data is ᾱ(t), also between the steps."
    s, t = offset_cosine_schedule(100), torch.full((100_000,), 40.5)
    alpha_bar = at(s.alpha_bar, t[:1].double()).float()
    oracle = lambda xt, t: (1 - alpha_bar).sqrt()*xt  # E[ε | x_t] where x_0 and ε are standard normal
    torch.manual_seed(0)
    loss = simple_loss(Reverse(s), oracle, torch.randn(100_000, 1), t).mean().item()
    assert loss == pytest.approx(alpha_bar.item(), rel=0.02)


@pytest.mark.parametrize('changes, word', [(dict(draw_t='continuous', variance='learned_range'), 'continuous'), (dict(draw_t='continuous', weighting='snr'), 'continuous'), (dict(draw_t='continuous', predict='mu'), 'continuous'),
                                           (dict(draw_t='continuous', objective='vlb'), 'continuous'), (dict(normalise=True, objective='vlb'), 'normalise'), (dict(network='cars', labels=True), 'labels'),
                                           (dict(network='flowers', variance='learned_range'), 'learned variance'), (dict(network='plain', checkpointing=True), 'checkpointing'), (dict(network='resnet'), 'plain, flowers, cars'),
                                           (dict(activation='relu'), 'leaky_relu'), (dict(details='keras'), 'diffusers'), (dict(beta_2=1.), 'beta_2'), (dict(schedule='straight'), 'linear_unscaled'), (dict(groups=-1), 'groups'), (dict(heads=0), 'heads')])
def test_settings_that_do_not_go_together(changes, word):
    with pytest.raises(ValueError, match=word): build(settings(**changes), (1, 16, 16), 10)


# Scaled pictures

def colours(n=40):
    g = torch.Generator().manual_seed(3)
    return ImageSet((torch.rand(n, 3, 8, 8, generator=g)*torch.tensor([255., 100., 30.]).reshape(3, 1, 1)).to(torch.uint8), name='colours')


def test_scaling_is_by_channel():
    data = colours()
    scale, x = Normaliser.learned_from(data), data.floats()
    wanted = x.double().numpy()
    mean, std = wanted.mean((0, 2, 3), keepdims=True), wanted.std((0, 2, 3), keepdims=True)
    assert np.allclose(scale(x), (wanted - mean)/std, atol=1e-4) and torch.allclose(scale.undo(scale(x)), x, atol=1e-6)
    assert scale(x.bfloat16()).dtype == torch.bfloat16


def test_scaling_of_pictures_without_contrast():
    with pytest.raises(ValueError, match='channel 1 of flat'): Normaliser.learned_from(ImageSet(torch.cat([colours().images[:, :1], torch.full((40, 1, 8, 8), 7, dtype=torch.uint8)], 1), name='flat'))


def test_clipping_means_the_range_of_pictures():
    s, scale = offset_cosine_schedule(10), Normaliser([0.5], [0.25])
    x0 = torch.tensor([[-9.], [0.], [1.], [9.]])  # in scaled units; in pictures' units -1.75, 0.5, 0.75, 2.75
    clipped = Reverse(s, 'x0', normaliser=scale).predict_x0(lambda x, t: x0, x0, 3)
    assert torch.allclose(clipped, torch.tensor([[-6.], [0.], [1.], [2.]])) and torch.equal(Reverse(s, 'x0', clip=False, normaliser=scale).predict_x0(lambda x, t: x0, x0, 3), x0)
    assert torch.equal(Reverse(s).to_data(x0), x0) and torch.allclose(Reverse(s, normaliser=scale).to_data(x0).flatten(), torch.tensor([-1.75, 0.5, 0.75, 2.75]))


def test_a_run_on_scaled_pictures_knows_the_scale(tmp_path):
    data, config = colours(), settings(normalise=True, holdout=10, out=str(tmp_path/'run'))
    folder = train(*build(config, data.shape), data, config)
    _, reverse, _ = load_run(folder)
    rest = data.subset(torch.randperm(40, generator=torch.Generator().manual_seed(0))[:-10])
    assert reverse.normaliser == Normaliser.learned_from(rest), 'learned from what is trained on, and nothing else'
    assert restore_reverse(describe_reverse(reverse)).normaliser == reverse.normaliser and reverse.unclipped().to('cpu').normaliser == reverse.normaliser
    trainer = Trainer(*build(config, data.shape), data, config)
    x0 = torch.cat([draw_batch(trainer, torch.Generator())[0]])
    assert x0.min() < -1.2 or x0.max() > 1.2


def test_samples_of_such_a_run_are_pictures(tmp_path, monkeypatch, capsys):
    "A network that answers ε so that x̂_0 = 0 draws the mean of the data."
    monkeypatch.chdir(tmp_path)
    data, config = colours(), settings(normalise=True, out='run', lr=1e-12)
    train(*build(config, data.shape), data, config)
    from ddpm_course import cli
    monkeypatch.setattr(cli, 'sampler_called', lambda *a: lambda reverse, model, shape, steps, seeds: torch.zeros(shape))
    ddpm_sample(['run', '--n', '2', '--pngs', 'pictures'])
    from PIL import Image
    shown = np.asarray(Image.open('pictures/00000.png')).reshape(-1, 3)
    assert np.abs(shown - data.images.float().mean((0, 2, 3)).numpy()).max() <= 1
    with pytest.raises(SystemExit): ddpm_eval(['run', '--bits'])
    assert 'grey levels' in capsys.readouterr().err


# Other people's networks in runs

@others
def test_runs_of_other_networks_come_back(tmp_path, name):
    folder = start(tmp_path/'run', **OTHERS[name])
    model, reverse, config = load_run(folder)
    assert config['network'] == name and type(model) is NETWORKS[name]
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 9, 20])
    fresh = load_weights(restore_model(load_config(folder)), folder/'ema.safetensors').eval()
    assert torch.equal(model(x, t), fresh(x, t)) and model(x, t).shape == x.shape


@others
def test_runs_of_other_networks_resume_exactly(tmp_path, name):
    wanted = numbers(start(tmp_path/'whole', steps=8, save_every=4, **OTHERS[name]))
    folder = start(tmp_path/'run', steps=8, save_every=4, **OTHERS[name])
    (folder/'checkpoints'/'step_0000008.safetensors').unlink()
    assert numbers(resume(folder)) == wanted


def test_the_network_of_a_run_must_be_known(tmp_path):
    folder = start(tmp_path/'run')
    save_json(load_config(folder) | {'network': 'transformer'}, folder/'config.json')
    with pytest.raises(ValueError, match='of its own kind'): load_run(folder)


def test_old_runs_do_not_name_their_network(tmp_path):
    folder = start(tmp_path/'run')
    config = load_config(folder)
    del config['network']
    save_json(config, folder/'config.json')
    assert type(load_run(folder)[0]) is UNet


def test_a_unet_without_norms():
    "Without norms (and with zero biases) the network is homogeneous in x up to its activation: LeakyReLU of slope 0.2 keeps positive factors."
    model = UNet(1, widths=(8, 16), layers=1, attention_at=(), groups=0, activation='leaky_relu')
    assert not [n for n, _ in model.named_parameters() if 'norm' in n]
    block = model.down_blocks[0].resnets[0]
    for p in block.parameters(): torch.nn.init.normal_(p)
    x, time = torch.randn(2, 8, 5, 5, dtype=torch.float64), torch.randn(2, 32, dtype=torch.float64)
    block.double()
    leaky = lambda v: torch.where(v > 0, v, 0.2*v)
    conv = lambda layer, v: torch.nn.functional.conv2d(v, layer.weight, layer.bias, padding=1)
    h = conv(block.conv1, leaky(x)) + (leaky(time) @ block.time_emb_proj.weight.T + block.time_emb_proj.bias)[:, :, None, None]
    assert torch.allclose(block(x, time), x + conv(block.conv2, leaky(h)))
    assert torch.equal(UNet(**model.settings).eval()(torch.zeros(1, 1, 8, 8), torch.tensor([1])), torch.zeros(1, 1, 8, 8)), 'settings build it again'


def test_the_small_print_of_the_library():
    model, _ = build(settings(details='diffusers', widths=(16, 16), attention_at=(1,)), (1, 8, 8))
    assert {k: model.settings[k] for k in DETAILS['diffusers']} == dict(head_dim=8, eps=1e-5, padding='both', cos_first=True, speed_shift=0.)


def test_beta_2_and_unclipped_reach_their_places():
    model, reverse = build(settings(unclipped=True), (1, 8, 8))
    assert not reverse.clip and Trainer(model, reverse, load_digits(), settings(beta_2=0.5)).optimizer.param_groups[0]['betas'] == (0.9, 0.5)


# On the command line

def test_a_preset_and_changes_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ddpm_train('--preset ddpm-cifar10 --data digits --steps 4 --batch 8 --widths 16 --attention-at --groups 4 --warmup 1 --sample-every 0 --schedule cosine --T 12 --no-flips --out run'.split())
    train_settings = load_config('run')['train']
    assert train_settings['dropout'] == 0.1 and train_settings['lr'] == 2e-4 and train_settings['layers'] == 2 and train_settings['variance'] == 'beta', 'from the preset'
    assert train_settings['flips'] is False and train_settings['T'] == 12 and train_settings['schedule'] == 'cosine' and train_settings['attention_at'] == [], 'from the command line'


@pytest.mark.parametrize('words, said', [('--preset ddpm', 'improved-cifar10'), ('--preset cars --resume run', '--preset'), ('--preset faces', "no data called 'faces'"), ('--preset', 'expected one argument')])
def test_presets_that_cannot_be(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop: ddpm_train(words.split())
    assert stop.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_chain_of_the_paper_on_the_command_line():
    model, reverse, _ = load_run('digits')
    sampler, seeds = sampler_called('ddpm'), [4, 5]
    short, respaced = fewer_steps(reverse, model, 6)
    assert torch.equal(sampler(reverse, model, (2, 1, 8, 8), 6, seeds=seeds), sample_ddpm(short, respaced, (2, 1, 8, 8), seeds=seeds))
    shorter = Reverse(offset_cosine_schedule(7), clip=False)
    assert torch.equal(sampler(shorter, model, (2, 1, 8, 8), 7, seeds=seeds), sample_ddpm(shorter, model, (2, 1, 8, 8), seeds=seeds))
    with pytest.raises(ValueError, match=r'1\.\.7'): sampler(shorter, model, (2, 1, 8, 8), 8, seeds=seeds)


@pytest.mark.parametrize('command', ['sample', 'eval'])
def test_clipping_on_the_command_line(tmp_path, monkeypatch, command):
    "As the run was trained, unless the command says otherwise."
    monkeypatch.chdir(tmp_path)
    from ddpm_course import cli
    seen, run = [], start(tmp_path/'run', unclipped=True)
    monkeypatch.setattr(cli, 'drawn_from', lambda seeds, reverse, *rest, **named: seen.append(reverse.clip) or iter([torch.zeros(len(seeds), 1, 8, 8)]))
    for words in ([], ['--clip'], ['--no-clip']): (ddpm_sample if command == 'sample' else ddpm_eval)([str(run), '--n', '4', *words, *(['--fid'] if command == 'eval' else [])])
    assert seen == [False, True, False]


def test_spacing_on_the_command_line():
    model, reverse, _ = load_run('digits')
    draw = lambda **kw: sampler_called('ddim', **kw)(reverse, model, (1, 1, 8, 8), 5, seeds=[1])
    assert torch.equal(draw(), draw(spacing='uniform')) and not torch.equal(draw(), draw(spacing='quadratic'))
    with pytest.raises(ValueError, match='--spacing'): sampler_called('ddpm', spacing='uniform')


