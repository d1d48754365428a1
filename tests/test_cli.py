"The course as a tool: what the two commands write, and one plain line for every mistake."
import dataclasses
import shutil
import sys
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from tiny import OPTIONS, no_file_longer_than, numbers, shell, start
from ddpm_course.checkpoints import load_run
from ddpm_course.cli import ddpm_sample, ddpm_train, sample_batches
from ddpm_course.data import DATA_NAMES
from ddpm_course.ddim import ddim_sample
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
                                   '--layers 0', '--seed 99999999999999999999', '--nonsense', 'stray', '--resume nowhere', '--resume'])
def test_training_options_that_cannot_be(capsys, tmp_path, words):
    complaint(capsys, ddpm_train, *words.split())
    assert not files(tmp_path/'cwd'), 'a mistake leaves nothing behind'


@pytest.mark.parametrize('words, expected', [('--steps abc', '--steps'), ('--size 0', 'size'), ('--device abacus', 'abacus'), ('--schedule even', 'cosine'), ('--data imagenet', ', '.join(DATA_NAMES)),
                                             ('--resume nowhere', 'nowhere'), ('--T 3 --schedule linear', 'cosine'), ('--widths 12', '12'), ('--size 1000000000', 'memory')])
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
    wanted = TrainConfig(T=7, schedule='linear', predict='v', variance='beta', widths=[8, 16], attention_at=[0, 1], layers=2, dropout=0.1, data='x', size=9, out='o', seed=3, steps=4, batch=5, lr=0.5, warmup=6,
                         decay='constant', weight_decay=0.2, clip_norm=2., ema=0.3, flips=True, loss='l1', precision='fp16', device='cpu', save_every=8)
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
    options = type('', (), dict(n=7, seed=2, steps=4, eta=0.5))
    a, b = (sample_batches(model, reverse, (1, 8, 8), options, batch=n) for n in (3, 7))
    assert a.shape == b.shape == (7, 1, 8, 8) and (a - b).abs().max() < 1e-3


def test_the_folders_of_the_output_are_made(tiny_run):
    ddpm_sample([str(tiny_run), '--n', '2', '--steps', '2', '--out', 'a/b/grid.jpg', '--pngs', 'c/d'])
    with Image.open('a/b/grid.jpg') as picture: assert picture.format == 'JPEG'


@pytest.mark.parametrize('words', ['--steps 0', '--steps 21', '--steps x', '--n 0', '--n -2', '--n x', '--eta 2', '--eta -1', '--eta nan', '--seed x', '--seed 99999999999999999999', '--device abacus',
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


# Both

@pytest.mark.parametrize('command, options', [(ddpm_train, [f.name.replace('_', '-') for f in dataclasses.fields(TrainConfig)] + ['resume']),
                                              (ddpm_sample, ['n', 'steps', 'eta', 'seed', 'out', 'pngs', 'device'])])
def test_help_tells_all(capsys, command, options):
    with pytest.raises(SystemExit) as stop: command(['--help'])
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and not err and all(f'--{o}' in out for o in options)
    words = ' '.join(out.split())
    if command is ddpm_train: assert all(n in words for n in (*DATA_NAMES, 'config.json', 'losses.csv', f'(default: {TrainConfig().steps})', '(default: cosine)'))
    else: assert 'RUN' in words and '(default: 50)' in words


def test_the_installed_commands(tiny_run, tmp_path):
    "As a user starts them: one line for a mistake, no traceback, pictures otherwise."
    processes = [shell(*c) for c in (['ddpm_train', '--data', 'imagenet'], ['ddpm_sample', 'nowhere'], ['ddpm_train', '--steps', 'abc'], ['ddpm_sample', tiny_run, '--n', '1', '--steps', '1'])]
    results = [(*p.communicate(timeout=120), p.returncode) for p in processes]
    for out, err, code in results[:3]: assert code == 2 and not out and err.count('\n') == 1 and err.startswith('ddpm_') and 'Traceback' not in err
    assert results[3][1:] == ('', 0) and (tmp_path/'cwd'/'samples.png').exists()


def test_arguments_come_from_the_shell(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['ddpm_sample', 'nowhere'])
    with pytest.raises(SystemExit): ddpm_sample()
    assert 'nowhere' in capsys.readouterr().err
