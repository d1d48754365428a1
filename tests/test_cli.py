"The course as a tool: what the three commands write, and one plain line for every mistake."
import dataclasses
import re
import shutil
import sys
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import OPTIONS, no_file_longer_than, numbers, shell, start
from ddpm_course.checkpoints import load_config, load_run, save_json
from ddpm_course.cli import ddpm_eval, ddpm_sample, ddpm_train, drawn_from, sampler_called
from ddpm_course.data import DATA_NAMES, DEBIAN_FASHION, ImageSet, hold_out, load_digits
from ddpm_course.ddim import ddim_sample, dpm_sample, heun_sample
from ddpm_course import metrics
from ddpm_course.metrics import fid, load_features, real_floor
from ddpm_course.elbo import vlb_terms
from ddpm_course.plots import image_grid
from ddpm_course.training import TrainConfig


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path/'cwd').mkdir()
    monkeypatch.chdir(tmp_path/'cwd')


def files(folder): return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob('*')}


def complaint(capsys, command, *args):
    "What a command that cannot do its work says: exit code 2, one line to stderr that begins with its name."
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop: command([str(a) for a in args])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith(f'{command.__name__}: ') and err.endswith('\n') and err.count('\n') == 1
    return err


# ddpm_train

@pytest.mark.parametrize('words', ['--data imagenet', '--size 0', '--size -1', '--size x', '--size 1', '--size 1000000000', '--steps 0', '--steps -5', '--steps abc', '--steps 1.5', '--batch 0', '--T 0',
                                   '--T 3 --schedule linear', '--lr 0', '--lr nan', '--lr x', '--ema 1', '--dropout 1', '--weight-decay -1', '--save-every 0', '--clip-norm 0', '--schedule even',
                                   '--decay slow', '--loss cosine', '--precision fp8', '--device abacus', '--predict noise', '--variance none', '--widths 12', '--widths 0', '--widths 8 x', '--widths',
                                   '--layers 0', '--holdout 1797', '--holdout -1', '--holdout x', '--objective elbo', '--objective hybrid', '--objective simple --variance learned', '--weighting p2',
                                   '--weighting snr --objective vlb', '--draw-t never', '--hide-labels 1.5', '--seed 99999999999999999999', '--nonsense', 'stray', '--resume nowhere', '--resume'])
def test_training_options_that_cannot_be(capsys, tmp_path, words):
    complaint(capsys, ddpm_train, *words.split())
    assert not files(tmp_path/'cwd'), 'a mistake leaves nothing behind'


@pytest.mark.parametrize('words, expected', [('--steps abc', '--steps'), ('--size 0', 'size'), ('--device abacus', 'abacus'), ('--schedule even', 'cosine'), ('--data imagenet', ', '.join(DATA_NAMES)),
                                             ('--resume nowhere', 'nowhere'), ('--T 3 --schedule linear', 'cosine'), ('--widths 12', '12'), ('--size 1000000000', 'memory'),
                                             ('--holdout 1797', '0..1796'), ('--objective simple --variance learned', 'hybrid or vlb'), ('--draw-t never', 'uniform, importance'), ('--weighting p2', 'min_snr')])
def test_the_line_says_what_to_mend(capsys, words, expected): assert expected in complaint(capsys, ddpm_train, *words.split())


def test_pictures_that_cannot_be(capsys, tmp_path):
    folder = tmp_path/'pictures'
    folder.mkdir()
    assert str(folder) in complaint(capsys, ddpm_train, '--data', folder)
    for i in (4, 5): Image.new('L', (i, i)).save(folder/f'{i}.png')
    assert 'size' in complaint(capsys, ddpm_train, '--data', folder)
    (folder/'6.png').write_bytes((folder/'5.png').read_bytes()[:40])
    assert str(folder/'6.png') in complaint(capsys, ddpm_train, '--data', folder, '--size', 4)
    assert not files(tmp_path/'cwd')


def test_places_that_cannot_be(capsys, tmp_path, tiny_copy):
    before = files(tiny_copy)
    assert '--resume' in complaint(capsys, ddpm_train, *OPTIONS, '--out', tiny_copy)
    (tmp_path/'cwd'/'notes.txt').write_text('mine')
    for out in (tmp_path/'cwd', tmp_path/'cwd'/'notes.txt', tmp_path/'cwd'/'notes.txt'/'run'): assert str(out) in complaint(capsys, ddpm_train, *OPTIONS, '--out', out)
    assert files(tiny_copy) == before and list(files(tmp_path/'cwd').values()) == [b'mine']


def test_resuming_takes_no_other_options(capsys, tiny_copy):
    assert 'leave out --steps' in complaint(capsys, ddpm_train, '--resume', tiny_copy, '--steps', '70')
    assert 'leave out --draw-t' in complaint(capsys, ddpm_train, '--resume', tiny_copy, '--draw-t', 'importance')


def test_runs_that_cannot_be_resumed(capsys, tiny_copy, tmp_path):
    for path in tiny_copy.glob('checkpoints/*'): path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in complaint(capsys, ddpm_train, '--resume', tiny_copy)
    path.unlink()
    assert 'no checkpoint' in complaint(capsys, ddpm_train, '--resume', tiny_copy)
    for content in ('{', '{}', '{"format": 1}', '{"format": 99}', '{"format": "new"}'):
        (tiny_copy/'config.json').write_text(content)
        complaint(capsys, ddpm_train, '--resume', tiny_copy)
    complaint(capsys, ddpm_train, '--resume', tiny_copy/'config.json')


def test_no_room(capsys, tmp_path):
    with no_file_longer_than(20_000): line = complaint(capsys, ddpm_train, *OPTIONS, '--out', tmp_path/'run')
    assert 'too large' in line or 'space' in line


def test_training_into_numbered_folders(capsys, tmp_path, tiny_run):
    for i in (1, 2):
        ddpm_train(OPTIONS)
        out, err = capsys.readouterr()
        assert f'runs/digits-{i}' in out and not err and numbers(tmp_path/'cwd'/'runs'/f'digits-{i}') == numbers(tiny_run)
    assert sorted(files(tmp_path/'cwd'/'runs'/'digits-1')) == sorted(files(tiny_run))
    assert ddpm_sample.__name__ in out and 'writing to runs/digits-2' in out


def test_training_on_a_folder_of_pictures(capsys, tmp_path):
    folder = tmp_path/'my [best] pictures'
    folder.mkdir()
    for i in range(3): Image.new('RGB', (9 + i, 12), (80*i, 0, 0)).save(folder/f'{i}.png')
    ddpm_train([*OPTIONS, '--data', str(folder), '--size', '8', '--flips', '--widths', '16', '32'])
    model, _, config = load_run(tmp_path/'cwd'/'runs'/f'{folder.name}-1')
    assert config['data']['shape'] == [3, 8, 8] and config['train']['flips'] is True and model.settings['widths'] == (16, 32)


def test_every_option_arrives(tmp_path, tiny_run, monkeypatch):
    "Each field of TrainConfig is an option of the same name."
    seen = []
    monkeypatch.setattr('ddpm_course.cli.start_training', lambda config: seen.append(config) or tiny_run)
    wanted = TrainConfig(T=7, schedule='linear', predict='v', variance='beta', widths=[8, 16], attention_at=[0, 1], layers=2, dropout=0.1, checkpointing=True, data='x', size=9, out='o', seed=3, steps=4, batch=5, lr=0.5, warmup=6,
                         decay='constant', weight_decay=0.2, clip_norm=2., ema=0.3, flips=True, loss='l1', precision='fp16', device='cpu', save_every=8, sample_every=4, fid_samples=6, tensorboard=True, accumulate=2, compile=True, skip_bad=True, holdout=9,
                         objective='vlb', weighting='snr', draw_t='importance', labels=True, hide_labels=0.3,
                         unclipped=True, normalise=True, network='flowers', heads=2, groups=4, activation='leaky_relu', details='diffusers', beta_2=0.9)
    words = []
    for field in dataclasses.fields(TrainConfig):
        value = getattr(wanted, field.name)
        assert value != field.default, f'{field.name} is not tried'
        words += ['--' + field.name.replace('_', '-')] + ([] if value is True else list(map(str, value if isinstance(value, list) else [value])))
    ddpm_train(words)
    ddpm_train([])
    assert seen == [wanted, TrainConfig()]


# ddpm_sample

def sample(run, *args):
    ddpm_sample([str(run), *map(str, args)])
    with Image.open('samples.png') as picture: return np.asarray(picture)


def test_a_grid_of_samples(tiny_run, capsys, tmp_path):
    grid = sample(tiny_run, '--n', 5, '--steps', 7, '--seed', 3, '--pngs', 'singles')
    model, reverse, _ = load_run(tiny_run)
    x = ddim_sample(reverse, model, (5, 1, 8, 8), 7, seeds=[3, 4, 5, 6, 7])
    assert np.array_equal(grid, image_grid(x, 2, 6)) and grid.shape == ((3*9 + 1)*6, (2*9 + 1)*6)
    assert sorted(files(tmp_path/'cwd'/'singles')) == sorted(Path(f'{i:05d}.png') for i in range(5))
    for i in range(5):
        with Image.open(f'singles/{i:05d}.png') as one: assert (one.mode, one.size) == ('L', (8, 8)) and np.array_equal(one, image_grid(x[[i]], gap=0))
    out, err = capsys.readouterr()
    assert 'samples.png' in out and 'singles' in out and not err


def test_samples_of_the_default(tiny_run):
    model, reverse, _ = load_run(tiny_run)
    assert np.array_equal(sample(tiny_run, '--steps', 20), image_grid(ddim_sample(reverse, model, (64, 1, 8, 8), 20, seeds=list(range(64))), 8, 6))


def test_what_changes_the_samples(tiny_run):
    pictures = [sample(tiny_run, *f'--n 4 --steps {steps} --eta {eta} --seed {seed}'.split()).tobytes() for steps, eta, seed in [(5, 0, 0), (6, 0, 0), (5, 1, 0), (5, 0, 9), (5, 0, 0)]]
    assert len(set(pictures)) == 4 and pictures[0] == pictures[4]


@pytest.mark.parametrize('eta', [0, 1])
def test_sample_i_does_not_depend_on_n(tiny_run, eta):
    for n, seed in ((6, 0), (2, 4)): sample(tiny_run, '--n', n, '--seed', seed, '--steps', 5, '--eta', eta, '--pngs', f'{n}')
    many, few = (np.stack([np.asarray(Image.open(p), dtype=int) for p in sorted(Path(n).iterdir())]) for n in '62')
    assert abs(many[4:] - few).max() <= 1 and abs(many[:2] - few).max() > 50


def test_batches_do_not_matter(tiny_run):
    model, reverse, _ = load_run(tiny_run)
    a, b = (torch.cat(list(drawn_from(range(2, 9), reverse, model, (1, 8, 8), 4, sampler_called('ddim', 0.5), n))) for n in (3, 7))
    assert a.shape == b.shape == (7, 1, 8, 8) and (a - b).abs().max() < 1e-3


def test_samples_in_16_bits_are_nearly_the_same(tiny_run):
    for precision in ('fp32', 'bf16'): sample(tiny_run, '--n', 4, '--steps', 5, '--precision', precision, '--pngs', precision)
    full, half = (np.stack([np.asarray(Image.open(p), dtype=int) for p in sorted(Path(name).iterdir())]) for name in ('fp32', 'bf16'))
    assert 0 < abs(full - half).max() and abs(full - half).mean() < 3


@pytest.mark.parametrize(('name', 'sampler'), [('dpm', dpm_sample), ('heun', heun_sample)])
def test_other_samplers(tiny_run, name, sampler):
    sample(tiny_run, '--n', 4, '--steps', 5, '--sampler', name, '--pngs', 'out')
    model, reverse, _ = load_run(tiny_run)
    x = sampler(reverse, model, (4, 1, 8, 8), 5, seeds=range(4))
    drawn = torch.stack([torch.from_numpy(np.asarray(Image.open(p), dtype=float)) for p in sorted(Path('out').iterdir())])
    assert (drawn - (x[:, 0].double() + 1)*127.5).abs().max() <= 1


def test_the_folders_of_the_output_are_made(tiny_run):
    ddpm_sample([str(tiny_run), '--n', '2', '--steps', '2', '--out', 'a/b/grid.jpg', '--pngs', 'c/d'])
    with Image.open('a/b/grid.jpg') as picture: assert picture.format == 'JPEG'


@pytest.mark.parametrize('words', ['--steps 0', '--steps 21', '--steps x', '--n 0', '--n -2', '--n x', '--eta 2', '--eta -1', '--eta nan', '--sampler x', '--sampler dpm --eta 1', '--precision x', '--seed x', '--seed 99999999999999999999', '--device abacus',
                                   '--nonsense', '--out .', '--out grid.nonsense', '--out grid', '--out notes.txt/grid.png', '--pngs notes.txt', '--pngs full'])
def test_sampling_options_that_cannot_be(capsys, tmp_path, tiny_run, words):
    (tmp_path/'cwd'/'notes.txt').write_text('mine')
    (tmp_path/'cwd'/'full').mkdir()
    (tmp_path/'cwd'/'full'/'1.png').write_text('mine')
    before = files(tmp_path/'cwd')
    complaint(capsys, ddpm_sample, tiny_run, '--n', 1, '--steps', 2, *words.split())
    after = files(tmp_path/'cwd')
    after.pop(Path('samples.png') if '--pngs' in words else None, None)  # the grid itself may have been written
    assert after == before


def test_runs_that_cannot_be_sampled(capsys, tiny_copy, tmp_path):
    assert 'RUN' in complaint(capsys, ddpm_sample)
    assert 'nowhere' in complaint(capsys, ddpm_sample, 'nowhere')
    assert str(tmp_path) in complaint(capsys, ddpm_sample, tmp_path)
    (tiny_copy/'ema.safetensors').write_bytes((tiny_copy/'ema.safetensors').read_bytes()[:5000])
    assert f'{tiny_copy}/ema.safetensors' in complaint(capsys, ddpm_sample, tiny_copy)
    shutil.copy(start(tmp_path/'wider', widths=(24,), steps=1)/'ema.safetensors', tiny_copy)
    assert 'another network' in complaint(capsys, ddpm_sample, tiny_copy)
    (tiny_copy/'ema.safetensors').unlink()
    assert f'{tiny_copy}/ema.safetensors' in complaint(capsys, ddpm_sample, tiny_copy)
    for content in ('', '{}', '{"format": 1, "model": {}}', '{"format": 99}'):
        (tiny_copy/'config.json').write_text(content)
        assert 'config' in complaint(capsys, ddpm_sample, tiny_copy)
    assert not files(tmp_path/'cwd')


# ddpm_eval

def evaluate(capsys, run, *args):
    "What ddpm_eval prints, and the four means and errors in it."
    capsys.readouterr()
    ddpm_eval([str(run), '--bits', *map(str, args)])
    out, err = capsys.readouterr()
    assert not err
    return out, {name.strip(): (float(mean), float(error)) for name, mean, error in re.findall(r'^(\S.*?) +(-?[\d.]+) +± ([\d.]+|nan)$', out, re.M)}


def shuffled(data, n=None): return data.floats(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n])


def by_hand(run, x0, weights='ema', variance=None, levels=17, **how):
    model, reverse, _ = load_run(run, weights)
    reverse.variance = variance or reverse.variance
    terms = vlb_terms(reverse, model, x0, levels=levels, generator=torch.Generator().manual_seed(how.pop('seed', 0)), **how)
    rows = {'L_T': terms['L_T'], 'L_1 … L_19': terms['L_t'].sum(1), 'L_0': terms['L_0'], 'total': terms['total']}
    return {k: (v.mean().item(), v.std().item()/len(v)**0.5) for k, v in rows.items()}


def tells(found, expected): return found.keys() == expected.keys() and all(abs(a - b) < 6e-5*max(1, abs(b)) or a != a and b != b for k in found for a, b in zip(found[k], expected[k]))


def test_the_ledger_is_that_of_the_library(capsys, tiny_run):
    out, found = evaluate(capsys, tiny_run, '--n', 30)
    assert tells(found, by_hand(tiny_run, shuffled(load_digits(), 30))), out
    assert '30 pictures of 1×8×8 with 17 grey levels' in out and 'T = 20' in out and 'every step' in out and '4.0875' in out and 'bits.png' in out
    with Image.open('bits.png') as picture: assert picture.format == 'PNG' and picture.width > 300
    assert [p.name for p in Path('.').iterdir()] == ['bits.png']


@pytest.mark.parametrize('args, how', [('--steps 5', dict(steps=4)), ('--steps 20', {}), ('--draws 3', dict(draws=3)), ('--steps 2 --draws 2', dict(steps=1, draws=2)), ('--variance beta', dict(variance='beta')),
                                       ('--variance beta_tilde', {}), ('--weights model', dict(weights='model')), ('--seed 7', dict(seed=7)), ('--batch 3', dict(rows=3)), ('--device cpu', {})])
def test_each_option_of_the_ledger(capsys, tiny_run, args, how):
    x0 = shuffled(load_digits(), 10)
    out, found = evaluate(capsys, tiny_run, '--n', 10, *args.split())
    assert tells(found, by_hand(tiny_run, x0, **how)), out
    if not args.startswith(('--steps 20', '--variance beta_tilde', '--batch', '--device')): assert not tells(found, by_hand(tiny_run, x0))
    words = {'--steps 5': '5 of 20 steps', '--steps 20': 'every step', '--draws 3': '3 noise draws', '--variance beta': 'variance beta,', '--weights model': 'last weights', '--seed 7': 'seed 7'}
    assert words.get(args, 'averaged weights' if '--weights' not in args else '') in out


def test_all_pictures_unless_told_otherwise(capsys, tiny_run):
    out, found = evaluate(capsys, tiny_run, '--steps', 2)
    assert out.startswith('1,797 pictures') and tells(found, by_hand(tiny_run, shuffled(load_digits()), steps=1))
    assert evaluate(capsys, tiny_run, '--steps', 2, '--n', 5000) == (out, found)


def test_one_picture_has_no_error(capsys, tiny_run):
    out, found = evaluate(capsys, tiny_run, '--n', 1)
    assert out.startswith('1 picture') and all(error != error for _, error in found.values()) and len(found) == 4


def test_pictures_kept_aside_are_measured_first(capsys, tmp_path, tiny_run):
    assert 'TRAINED on' in evaluate(capsys, tiny_run, '--n', 2)[0]
    run = start(tmp_path/'run', holdout=25)
    out, found = evaluate(capsys, run)
    aside = hold_out(load_digits(), 25)[1]
    assert out.startswith('25 pictures') and 'kept aside from training' in out and 'TRAINED' not in out and tells(found, by_hand(run, shuffled(aside)))
    out, found = evaluate(capsys, run, '--n', 10)
    assert out.startswith('10 pictures') and tells(found, by_hand(run, shuffled(aside, 10)))
    out, found = evaluate(capsys, run, '--n', 10, '--data', 'digits')
    assert 'of digits' in out and 'aside' not in out and tells(found, by_hand(run, shuffled(load_digits(), 10)))


def test_other_pictures(capsys, tmp_path, tiny_run):
    (tmp_path/'set').mkdir()
    array = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    for i in range(4): Image.fromarray(array[i]).save(tmp_path/'set'/f'{i}.png')
    out, found = evaluate(capsys, tiny_run, '--data', tmp_path/'set')
    assert '4 pictures' in out and '256 grey levels' in out and str(tmp_path/'set') in out and '8.0000' in out
    assert tells(found, by_hand(tiny_run, shuffled(ImageSet(torch.from_numpy(array)[:, None])), levels=256))


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason='Debian: apt install dataset-fashion-mnist')
def test_the_official_test_part_is_used(capsys, tmp_path, monkeypatch, tiny_copy):
    "As if the tiny run had been trained on Fashion-MNIST."
    monkeypatch.setenv('DDPM_DATA', str(tmp_path/'sets'))
    config = load_config(tiny_copy)
    save_json(config | {'data': config['data'] | {'shape': [1, 28, 28]}, 'train': config['train'] | {'data': 'fashion-mnist'}}, tiny_copy/'config.json')
    out, _ = evaluate(capsys, tiny_copy, '--n', 2, '--steps', 3)
    assert 'of the test part of fashion-mnist' in out and '2 pictures of 1×28×28' in out


def test_a_run_from_before_there_was_a_holdout(capsys, tiny_copy):
    config = load_config(tiny_copy)
    save_json(config | {'train': {k: v for k, v in config['train'].items() if k != 'holdout'}}, tiny_copy/'config.json')
    assert 'TRAINED on' in evaluate(capsys, tiny_copy, '--n', 2)[0]


def test_the_shipped_run_is_measured(capsys):
    "Between nothing and what knows nothing; half of the steps costs little precision."
    out, found = evaluate(capsys, 'digits', '--n', 40, '--steps', 60)
    assert 1 < found['total'][0] < 4.0875 and found['L_T'][0] < 0.01 and 0 < found['total'][1] < 0.5


def test_a_learned_variance_is_measured(capsys, tmp_path):
    run = start(tmp_path/'run', variance='learned_range', predict='v', steps=1)
    out, found = evaluate(capsys, run, '--n', 5)
    assert tells(found, by_hand(run, shuffled(load_digits(), 5))) and 'variance learned_range' in out and 'predicts v' in out
    for kind in ('beta', 'learned'): assert 'learned_range' in complaint(capsys, ddpm_eval, run, '--bits', '--variance', kind)


def test_the_folder_of_the_plot_is_made(capsys, tiny_run):
    out, _ = evaluate(capsys, tiny_run, '--n', 1, '--steps', 2, '--out', 'a/b/plot.pdf')
    assert 'a/b/plot.pdf' in out and Path('a/b/plot.pdf').read_bytes().startswith(b'%PDF')


@pytest.mark.parametrize('words', ['', '--bits --n 0', '--bits --n -1', '--bits --n x', '--bits --steps 0', '--bits --steps 1', '--bits --steps 21', '--bits --steps x', '--bits --draws 0', '--bits --draws x', '--bits --batch 0',
                                   '--bits --variance learned', '--bits --variance learned_range', '--bits --variance x', '--bits --weights best', '--bits --data nowhere', '--bits --data wide', '--bits --seed x',
                                   '--bits --seed 99999999999999999999', '--bits --device abacus', '--bits --nonsense', '--bits stray', '--bits --out .', '--bits --out plot.nonsense', '--bits --out notes.txt/plot.png', '--bits --fid', '--bits --kid', '--fid --steps 0', '--fid --steps 21', '--fid --n 0', '--fid --eta 2', '--kid --sampler heun --eta 1', '--fid --sampler x', '--bits --precision auto', '--fid --precision x', '--fid --features x', '--kid --features fashion-mnist', '--fid --data wide'])
def test_evaluation_options_that_cannot_be(capsys, tmp_path, tiny_run, words):
    (tmp_path/'cwd'/'notes.txt').write_text('mine')
    (tmp_path/'cwd'/'wide').mkdir()
    Image.new('L', (9, 8)).save(tmp_path/'cwd'/'wide'/'1.png')
    before = files(tmp_path/'cwd')
    complaint(capsys, ddpm_eval, tiny_run, *(['--n', '2'] if '--n' not in words else []), *words.split())
    assert files(tmp_path/'cwd') == before


@pytest.mark.parametrize('words, expected', [('', '--bits'), ('--bits --steps 21', '1..20'), ('--bits --steps 1', 'at least 2'), ('--bits --data wide', '(1, 8, 9)'), ('--bits --weights best', 'best.safetensors'),
                                             ('--bits --variance learned', 'beta or beta_tilde'), ('--bits --draws 0', '--draws'), ('--bits --data nowhere', 'digits')])
def test_the_line_says_what_to_measure(capsys, tmp_path, tiny_run, words, expected):
    (tmp_path/'cwd'/'wide').mkdir()
    Image.new('L', (9, 8)).save(tmp_path/'cwd'/'wide'/'1.png')
    assert expected in complaint(capsys, ddpm_eval, tiny_run, *words.split())


def test_runs_that_cannot_be_measured(capsys, tiny_copy, tmp_path):
    assert 'RUN' in complaint(capsys, ddpm_eval)
    assert 'nowhere' in complaint(capsys, ddpm_eval, 'nowhere', '--bits')
    (tiny_copy/'ema.safetensors').unlink()
    assert f'{tiny_copy}/ema.safetensors' in complaint(capsys, ddpm_eval, tiny_copy, '--bits')
    (tiny_copy/'config.json').write_text('{}')
    assert 'config' in complaint(capsys, ddpm_eval, tiny_copy, '--bits')
    assert not files(tmp_path/'cwd')


def test_a_run_of_one_step(capsys, tmp_path):
    run = start(tmp_path/'run', T=1, steps=1)
    for args in ((), ('--steps', 1)):
        out, found = evaluate(capsys, run, '--n', 3, *args)
        assert found['total'][0] == pytest.approx(found['L_T'][0] + found['L_0'][0], abs=2e-4)


# All three

@pytest.mark.parametrize('command, options', [(ddpm_train, [f.name.replace('_', '-') for f in dataclasses.fields(TrainConfig)] + ['resume', 'diagnose', 'preset']),
                                              (ddpm_sample, ['n', 'steps', 'sampler', 'spacing', 'eta', 'seed', 'out', 'pngs', 'device']),
                                              (ddpm_eval, ['bits', 'n', 'steps', 'draws', 'variance', 'weights', 'data', 'batch', 'seed', 'out', 'device'])])
def test_help_tells_all(capsys, command, options):
    with pytest.raises(SystemExit) as stop: command(['--help'])
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and not err and all(f'--{o}' in out for o in options)
    words = ' '.join(out.split())
    if command is ddpm_train: assert all(n in words for n in (*DATA_NAMES, 'config.json', 'losses.csv', f'(default: {TrainConfig().steps})', '(default: cosine)'))
    else: assert 'RUN' in words and ('(default: 50; all T for --sampler ddpm)' if command is ddpm_sample else '(default: bits.png)') in words


def test_the_installed_commands(tiny_run, tmp_path):
    "As a user starts them: one line for a mistake, no traceback, pictures otherwise."
    processes = [shell(*c) for c in (['ddpm_train', '--data', 'imagenet'], ['ddpm_sample', 'nowhere'], ['ddpm_eval', tiny_run], ['ddpm_sample', tiny_run, '--n', '1', '--steps', '1'], ['ddpm_eval', tiny_run, '--bits', '--n', '2'])]
    results = [(*p.communicate(timeout=120), p.returncode) for p in processes]
    for out, err, code in results[:3]: assert code == 2 and not out and err.count('\n') == 1 and err.startswith('ddpm_') and 'Traceback' not in err
    for (_, err, code), file in zip(results[3:], ('samples.png', 'bits.png')): assert (err, code) == ('', 0) and (tmp_path/'cwd'/file).exists()
    assert 'total' in results[4][0] and '\r' not in results[4][0], 'no bar without a terminal'


def test_arguments_come_from_the_shell(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['ddpm_sample', 'nowhere'])
    with pytest.raises(SystemExit): ddpm_sample()
    assert 'nowhere' in capsys.readouterr().err


def scores_of(capsys, run, *args):
    "What ddpm_eval says, and its columns: {metric: [samples, real pictures]}."
    ddpm_eval([str(a) for a in (run, *args)])
    out = capsys.readouterr().out
    return out, {line[:16].strip(): [float(v) for v in re.findall(r'-?\d+\.\d+', line)] for line in out.splitlines() if re.match(r'(FID|KID|precision|recall|inception score) ', line)}


def test_the_quality_of_samples_is_that_of_the_library(capsys, tiny_run):
    out, found = scores_of(capsys, tiny_run, '--fid', '--kid', '--n', 50, '--steps', 5, '--seed', 3, '--eta', 0.5, '--batch', 20)
    model, reverse, _ = load_run(tiny_run)
    data, features = load_digits(), load_features('digits')
    real = data.subset(torch.randperm(1797, generator=torch.Generator().manual_seed(0))[50:])
    x = ddim_sample(reverse, model, (50, 1, 8, 8), 5, 0.5, seeds=range(3, 53))
    expected = metrics.evaluate(real, x, features)
    assert [found[name][0] for name in ('FID', 'precision', 'recall', 'inception score')] == pytest.approx([expected[k] for k in ('fid', 'precision', 'recall', 'inception_score')], rel=1e-3, abs=1e-3)
    assert found['KID'][:2] == pytest.approx([expected['kid'], expected['kid_error']], rel=1e-3, abs=1e-3)
    assert found['FID'][1] == pytest.approx(real_floor(data, features, 50)['fid'], abs=1e-3) and found['FID'][1] < found['FID'][0]
    assert '50 samples by DDIM in 5 steps (η = 0.5, seeds 3 to 52, averaged weights), against 1,747 pictures of digits' in out


def test_more_samples_than_half_of_the_pictures_have_no_real_ones_beside_them(capsys, tiny_run):
    out, found = scores_of(capsys, tiny_run, '--kid', '--n', 900, '--steps', 1)
    assert 'against 1,797 pictures' in out and 'real' not in out.split('digits', 1)[1] and found.keys() == {'KID', 'precision', 'recall', 'inception score'} and len(found['precision']) == 1


def test_the_distance_on_the_way(tmp_path):
    run = tmp_path/'run'
    ddpm_train([*OPTIONS, '--out', str(run), '--sample-every', '3', '--fid-samples', '40', '--save-every', '3'])
    rows = [line.split(',') for line in (run/'scores.csv').read_text().split()]
    assert rows[0] == ['step', 'fid'] and [r[0] for r in rows[1:]] == ['3', '6']
    model, reverse, _ = load_run(run)
    features = load_features('digits')
    assert float(rows[2][1]) == pytest.approx(fid(features(load_digits()), features(ddim_sample(reverse, model, (40, 1, 8, 8), 20, seeds=range(40)))), rel=1e-4)
    (run/'scores.csv').write_text('step,fid\n3,1.5\n6,7.5\n')
    ddpm_train(['--resume', str(run/'checkpoints'/'step_0000003.safetensors')])
    again = [line.split(',') for line in (run/'scores.csv').read_text().split()]
    assert again[1] == ['3', '1.5'] and float(again[2][1]) == pytest.approx(float(rows[2][1]), rel=1e-6)


def test_no_distance_for_pictures_without_features(capsys, tmp_path, monkeypatch):
    "Inception's would do; the line says what to install, and nothing has been begun."
    monkeypatch.setitem(sys.modules, 'torch_fidelity', None)
    monkeypatch.setitem(sys.modules, 'torch_fidelity.feature_extractor_inceptionv3', None)
    (tmp_path/'pictures').mkdir()
    for i in range(3): Image.new('L', (8, 8), 90*i).save(tmp_path/'pictures'/f'{i}.png')
    assert 'pip install ddpm-course[fid]' in complaint(capsys, ddpm_train, *OPTIONS, '--data', tmp_path/'pictures', '--fid-samples', '4', '--out', tmp_path/'run')
    assert not (tmp_path/'run').exists()
