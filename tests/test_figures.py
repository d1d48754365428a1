"Every figure of the papers shows what its title says, from any run; the command writes them whole, or says in one line why not."
import gc
import json
import shutil
import subprocess
import sys
import weakref
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from tiny import leftovers, no_file_longer_than, shell, start
from ddpm_course import figures
from ddpm_course.data import ImageSet, Normaliser, load_digits, to_uint8
from ddpm_course.ddim import ddim_sample, ddim_steps
from ddpm_course.elbo import rate_distortion
from ddpm_course.figures import FIGURES, ddpm_figures, figure_of, gather, moments, nearest_pictures, short_chain, walk
from ddpm_course.forward import q_sample
from ddpm_course.guidance import Guided
from ddpm_course.reverse import DatasetOracle, Reverse
from ddpm_course.sampling import ddpm_steps, last
from ddpm_course.schedules import cosine_schedule, linear_schedule

T, SHAPE = 30, (1, 8, 8)
DIGITS = load_digits()
FEW = DIGITS.floats(slice(0, 5))
REVERSE = Reverse(cosine_schedule(T))
ORACLE = DatasetOracle(REVERSE.schedule, FEW)  # draws the first five digits


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close('all')


def cells(fig, shape=SHAPE):
    "The pictures of a table as grey levels, (rows, columns, H, W) or (rows, columns, H, W, 3)."
    canvas = torch.from_numpy(fig.axes[0].images[0].get_array().data.copy())
    C, H, W = shape
    rows, columns = (canvas.shape[0] - 1)//(H + 1), (canvas.shape[1] - 1)//(W + 1)
    cut = lambda r, c: canvas[1 + r*(H + 1):1 + r*(H + 1) + H, 1 + c*(W + 1):1 + c*(W + 1) + W]
    return torch.stack([torch.stack([cut(r, c) for c in range(columns)]) for r in range(rows)])


def grey(x): return to_uint8(x)[:, 0]


def labels(fig): return [t.get_text() for t in fig.axes[0].get_xticklabels()], [t.get_text() for t in fig.axes[0].get_yticklabels()]


def close(a, b, levels=0): return (a.int() - b.int()).abs().max() <= levels


# Moments

@pytest.mark.parametrize('steps', [1, 2, 7, 16, 100, 999])
def test_moments_against_a_list(steps):
    whole = [(t, torch.tensor(float(t)), torch.tensor(-float(t))) for t in range(steps, -1, -1)]
    for count in {2, min(3, steps + 1), min(16, steps + 1), steps + 1}:
        kept = moments(iter(whole), count, steps)
        ideal = [steps*(1 - i/(count - 1)) for i in range(count)]
        times = [t for t, _, _ in kept]
        assert len(kept) == count and times[0] == steps and times[-1] == 0
        assert all(abs(t - u) <= 0.5 + 1e-9 for t, u in zip(times, ideal)) and all(a > b for a, b in zip(times, times[1:]))
        assert all(x.item() == t and y.item() == -t for t, x, y in kept)


def test_moments_keep_nothing_else():
    alive = []
    def chain():
        for t in range(200, -1, -1):
            x = torch.zeros(3)
            alive.append(weakref.ref(x))
            gc.collect(0)
            assert sum(ref() is not None for ref in alive) <= 6 + 3
            yield t, x, x
    assert len(moments(chain(), 6, 200)) == 6


@pytest.mark.parametrize('count, steps, word', [(1, 10, '2..11'), (12, 10, '2..11'), (0, 10, 'got 0')])
def test_moments_that_cannot_be(count, steps, word):
    with pytest.raises(ValueError, match=word): moments(iter([]), count, steps)


@pytest.mark.parametrize('length', [0, 1, 9, 12])
def test_moments_of_another_length(length):
    with pytest.raises(ValueError, match='announced'): moments(((t, t, t) for t in range(length)), 4, 10)


# Chains

def test_the_long_chain_is_algorithm_2():
    mine, papers = list(walk(ORACLE, REVERSE, SHAPE, [3, 4])), list(ddpm_steps(REVERSE, ORACLE, (2, *SHAPE), seeds=[3, 4]))
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2]) for a, b in zip(mine, papers)) and len(mine) == T + 1


@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
def test_a_shorter_chain_still_draws_the_data(predict):
    "An exact denoiser of five digits ends at one of them, however few steps it takes."
    reverse, oracle = Reverse(REVERSE.schedule, predict), DatasetOracle(REVERSE.schedule, FEW, predict)
    chain = list(walk(oracle, reverse, SHAPE, list(range(8)), 10))
    assert [t for t, _, _ in chain] == list(range(30, -1, -3))
    assert torch.cdist(chain[-1][1].flatten(1), FEW.flatten(1)).min(1).values.max() < 1e-3


def test_a_normaliser_survives_the_shortening():
    reverse = Reverse(REVERSE.schedule, normaliser=Normaliser([0.5], [2.]))
    assert short_chain(ORACLE, reverse, 5)[1].normaliser is reverse.normaliser and short_chain(ORACLE, reverse, None)[1].schedule.T == T


@pytest.mark.parametrize('steps, sampler', [(31, 'ddpm'), (0, 'ddpm'), (31, 'ddim'), (5, 'euler')])
def test_chains_that_cannot_be(steps, sampler):
    with pytest.raises(ValueError): list(walk(ORACLE, REVERSE, SHAPE, [0], steps, sampler))


# What each figure shows

def test_noised():
    fig = figures.noised(REVERSE, FEW[0], [0, 1, 15, 30])
    shown = cells(fig)
    assert torch.equal(shown[0, 0], grey(FEW[:1])[0]) and labels(fig)[0] == ['0', '1', '15', '30']
    g = torch.Generator().manual_seed(0)
    for i, t in enumerate((1, 15, 30), 1):
        noise = torch.randn(1, *SHAPE, generator=g)
        a = REVERSE.schedule.alpha_bar[t].item()
        assert close(shown[0, i], grey(a**0.5*FEW[:1] + (1 - a)**0.5*noise)[0], 1), 'straight from x_0, not from the column before'
    assert labels(figures.noised(Reverse(cosine_schedule(500)), FEW[0]))[0] == ['0', '50', '100', '200', '500']
    with pytest.raises(ValueError): figures.noised(REVERSE, FEW[0], [31])


def test_pictures_are_shown_as_data():
    "With a normaliser the table shows pictures, not what the network sees; t = 0 is the picture itself."
    reverse = Reverse(REVERSE.schedule, normaliser=Normaliser([-0.4], [0.25]))
    shown = cells(figures.noised(reverse, FEW[0], [0, 30]))
    assert close(shown[0, 0], grey(FEW[:1])[0], 1)
    noise = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert close(shown[0, 1], grey(reverse.to_data(q_sample(reverse.schedule, reverse.from_data(FEW[:1]), 30, noise)))[0], 1)
    oracle = DatasetOracle(reverse.schedule, reverse.from_data(FEW))
    drawn = cells(figures.samples(oracle, reverse, SHAPE, 4, 10)).flatten(0, 1)
    assert all(any(close(x, y, 1) for y in grey(FEW)) for x in drawn)


@pytest.mark.parametrize('sampler', ['ddpm', 'ddim'])
def test_samples(sampler):
    fig = figures.samples(ORACLE, REVERSE, SHAPE, 9, 10, sampler, seed=5)
    expected = last(walk(ORACLE, REVERSE, SHAPE, list(range(5, 14)), 10, sampler))
    assert cells(fig).shape[:2] == (3, 3) and torch.equal(cells(fig).flatten(0, 1), grey(expected))
    assert f'9 samples, {sampler.upper()} in 10 of 30 steps' == fig.axes[0].get_title()


@pytest.mark.parametrize('n', [1, 2, 3, 5, 7, 64])
def test_any_number_of_samples(n): assert cells(figures.samples(ORACLE, REVERSE, SHAPE, n, 2)).shape[:2].numel() >= n


def test_denoising_and_progressive():
    whole = list(ddpm_steps(REVERSE, ORACLE, (3, *SHAPE), seeds=[7, 8, 9]))
    for draw, which in ((figures.denoising, 1), (figures.progressive, 2)):
        fig = draw(ORACLE, REVERSE, SHAPE, 3, 6, seed=7)
        assert labels(fig) == (['30', '24', '18', '12', '6', '0'], ['7', '8', '9'])
        for column, i in enumerate(range(0, 31, 6)): assert torch.equal(cells(fig)[:, column], grey(whole[i][which]))
    assert close(cells(fig)[:, -1], cells(figures.denoising(ORACLE, REVERSE, SHAPE, 3, 6, seed=7))[:, -1]), 'both end at the sample'


def test_a_chain_shorter_than_the_table():
    fig = figures.denoising(ORACLE, REVERSE, SHAPE, 2, 16, 4, 'ddim')
    assert labels(fig)[0] == [str(t) for t, _, _ in ddim_steps(REVERSE, ORACLE, (2, *SHAPE), 4)]


def test_shared():
    fig = figures.shared(ORACLE, REVERSE, SHAPE, [30, 15, 1], n=5, seed=3)
    shown = cells(fig)
    chain = {t: x for t, x, _ in ddpm_steps(REVERSE, ORACLE, (1, *SHAPE), generator=torch.Generator().manual_seed(3))}
    for row, t in enumerate((30, 15, 1)): assert torch.equal(shown[row, 0], grey(chain[t])[0]), 'one chain above all rows'
    assert (shown[2, 1:] == shown[2, 1]).all(), 'the last step adds no noise'
    assert not (shown[0, 1:] == shown[0, 1]).all() and labels(fig)[1] == ['t = 30', 't = 15', 't = 1']


def test_shared_on_a_short_chain():
    fig = figures.shared(ORACLE, REVERSE, SHAPE, n=2, steps=10)
    assert labels(fig)[1] == ['t = 30', 't = 21', 't = 15', 't = 9'], 'the nearest steps that are left'
    for t in (0, 31):
        with pytest.raises(ValueError, match='1..30'): figures.shared(ORACLE, REVERSE, SHAPE, [t])


def test_interpolation():
    fig = figures.interpolation(ORACLE, REVERSE, FEW[0], FEW[1], [0, 10, 30], count=5)
    shown, ends = cells(fig), grey(FEW)
    for row in shown: assert torch.equal(row[0], ends[0]) and torch.equal(row[-1], ends[1])
    for i, w in enumerate((0, 0.25, 0.5, 0.75, 1)): assert close(shown[0, i + 1], grey((1 - w)*FEW[:1] + w*FEW[1:2])[0], 1)
    assert close(shown[1, 1], ends[0], 1) and close(shown[1, -2], ends[1], 1), 'a little noise leaves the picture what it was'
    assert labels(fig) == (['a', '0', '0.25', '0.5', '0.75', '1', 'b'], ['t = 0', 't = 10', 't = 30'])
    with pytest.raises(ValueError, match='1..30'): figures.interpolation(ORACLE, REVERSE, FEW[0], FEW[1], [40])


def test_lossy_and_ledger():
    fig = figures.lossy(ORACLE, REVERSE, FEW, 17)
    rate, wrong = rate_distortion(figures.bits(ORACLE, REVERSE, FEW, 17))
    lines = [ax.lines[0].get_xydata() for ax in fig.axes]
    assert lines[0][:, 0].tolist() == list(range(T, -1, -1)), 'entry t has walked T - t steps'
    assert torch.allclose(torch.tensor(lines[0][:, 1]), wrong) and torch.allclose(torch.tensor(lines[1][:, 1]), rate)
    assert torch.allclose(torch.tensor(lines[2]), torch.stack([rate, wrong], 1)) and wrong[0] == 0
    ax = figures.ledger(ORACLE, REVERSE, FEW, 17).axes[0]
    costs = torch.tensor(ax.lines[0].get_ydata())
    assert len(costs) == T and abs(costs.sum() - rate[0]) < 0.01 and f'{rate[0]:.2f}' in ax.get_title()


def test_bits_need_plain_pictures():
    with pytest.raises(ValueError, match='normalises'): figures.bits(ORACLE, Reverse(REVERSE.schedule, normaliser=Normaliser([0.], [2.])), FEW, 17)


@pytest.mark.parametrize('steps', [1, 2, 29, 30, 31, None])
def test_any_number_of_calls_for_the_bits(steps): assert figures.bits(ORACLE, REVERSE, FEW, 17, steps)['L_t'].shape == (5, T - 1)


def test_steps_use_one_noise():
    seen = []
    def watching(x, t):
        if t[0] == T: seen.append(x)
        return ORACLE(x, t)
    fig = figures.steps(watching, REVERSE, SHAPE, 3, [2, 5, 30], (0.5,), 4, seed=2)
    assert len(seen) == 4 and all(torch.equal(x, seen[0]) for x in seen)
    for row, (k, eta) in enumerate([(2, 0), (5, 0), (30, 0), (4, 0.5)]):
        assert torch.equal(cells(fig)[row], grey(ddim_sample(REVERSE, ORACLE, (3, *SHAPE), k, eta, seeds=[2, 3, 4])))
    assert labels(fig) == (['2', '3', '4'], ['2', '5', '30', '4, η = 0.5'])


@pytest.mark.parametrize('most, counts', [(1000, [5, 10, 20, 50, 100, 1000]), (100, [5, 10, 20, 50, 100]), (30, [5, 10, 20, 30]), (5, [5]), (3, [3])])
def test_step_counts(most, counts): assert figures.step_counts(most) == counts


def test_spherical():
    fig = figures.spherical(ORACLE, REVERSE, SHAPE, 2, 5, 10, seed=4)
    ends = grey(ddim_sample(REVERSE, ORACLE, (4, *SHAPE), 10, seeds=[4, 5, 6, 7]))
    assert cells(fig).shape[:2] == (2, 5) and labels(fig)[1] == ['4 to 5', '6 to 7']
    for row in (0, 1): assert close(cells(fig)[row, 0], ends[2*row], 1) and close(cells(fig)[row, -1], ends[2*row + 1], 1)


@pytest.mark.parametrize('rows', [1, 3, 50, 10**6])
def test_nearest_pictures_against_brute_force(rows):
    data = DIGITS.subset(torch.arange(200))
    x = DIGITS.floats(slice(198, 204))
    apart = ((x[:, None] - data.floats()[None])**2).double().mean((2, 3, 4)).sqrt()*127.5
    best, order = apart.sort(1)
    distance, where = nearest_pictures(x, data, 4, rows)
    assert torch.allclose(distance.double(), best[:, :4], atol=1e-3)
    assert torch.allclose(apart.gather(1, where), best[:, :4], atol=1e-3) and where[:2, 0].tolist() == [198, 199]
    for count in (0, 201):
        with pytest.raises(ValueError, match='1..200'): nearest_pictures(x, data, count)


def test_nearest():
    fig = figures.nearest(ORACLE, REVERSE, DIGITS, 4, 3, 10)
    shown = cells(fig)
    assert shown.shape[:2] == (4, 4) and close(shown[:, 0], shown[:, 1], 1), 'this one has learned five digits by heart'
    assert set(labels(fig)[1]) == {'0'} and labels(fig)[0] == ['sample', '1', '2', '3']
    assert cells(figures.nearest(ORACLE, REVERSE, DIGITS.subset(torch.arange(2)), 2, 6, 10)).shape[1] == 3


def test_pictures_of_any_shape_and_colour():
    x = torch.rand(4, 3, 6, 10)*2 - 1
    fig = figures.picture_table(x, [1, 2], ['a', 'b'])
    shown = cells(fig, (3, 6, 10))
    assert torch.equal(shown.flatten(0, 1), to_uint8(x).permute(0, 2, 3, 1))
    reverse = Reverse(linear_schedule(40))
    oracle = DatasetOracle(reverse.schedule, x)
    for fig in (figures.samples(oracle, reverse, (3, 6, 10), 2, 5), figures.shared(oracle, reverse, (3, 6, 10), n=2, steps=5), figures.interpolation(oracle, reverse, x[0], x[1], steps=5)):
        assert cells(fig, (3, 6, 10)).shape[-3:] == (6, 10, 3)


# The list, and the command

@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path/'cwd').mkdir()
    monkeypatch.chdir(tmp_path/'cwd')


def complaint(capsys, *args):
    "One line to stderr, exit code 2."
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop: ddpm_figures([str(a) for a in args])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith('ddpm_figures: ') and err.count('\n') == 1
    return err


@pytest.mark.parametrize('name', FIGURES)
def test_each_figure_of_a_tiny_run(tiny_run, name):
    fig = figure_of(tiny_run, name, n=2)
    assert isinstance(fig, Figure) and all(ax.get_xlabel() or ax.get_title() for ax in fig.axes)


@pytest.mark.parametrize('changes', [dict(network='plain'), dict(network='flowers', widths=(16, 16), normalise=True, draw_t='continuous', loss='l1'), dict(network='cars', widths=(8, 16)), dict(variance='learned_range'), dict(predict='v', variance='learned')])
def test_runs_of_every_kind(tmp_path, changes):
    "Other networks, other outputs: all figures, but for those that count bits where there are none."
    of, missing = gather(start(tmp_path/'run', device='cpu', **changes), n=2, steps=4), []
    for name, figure in FIGURES.items():
        try: assert isinstance(figure.draw(of), Figure)
        except ValueError as error: missing.append(name); assert 'normalises' in str(error)
    assert missing == (['lossy', 'ledger'] if 'normalise' in changes else [])


def test_the_list_and_the_functions_agree():
    assert list(FIGURES) == 'noised samples denoising progressive shared interpolation lossy ledger steps spherical nearest'.split()
    assert all(callable(getattr(figures, name)) and figure.about for name, figure in FIGURES.items())
    with pytest.raises(ValueError, match='noised, samples'): figure_of('digits', 'smile')


def test_all_of_them(tiny_run, tmp_path, capsys):
    ddpm_figures([str(tiny_run), '--n', '2', '--out', str(tmp_path/'a'/'b')])
    out, err = capsys.readouterr()
    assert sorted(p.name for p in (tmp_path/'a'/'b').iterdir()) == sorted(f'{name}.png' for name in FIGURES)
    for line, name in zip(out.splitlines(), FIGURES, strict=True): assert line.startswith(f'{tmp_path}/a/b/{name}.png: ')
    for path in (tmp_path/'a'/'b').iterdir(): Image.open(path).verify()
    assert not err and not plt.get_fignums(), 'figures are forgotten once they are written'


def test_the_default_folder_and_the_seed(tiny_run, tmp_path):
    pictures = []
    for seed in (0, 0, 1):
        ddpm_figures([str(tiny_run), '--only', 'samples', 'samples', '--n', '4', '--seed', str(seed)])
        pictures.append((tmp_path/'cwd'/'figures'/'samples.png').read_bytes())
    assert pictures[0] == pictures[1] != pictures[2] and len(list((tmp_path/'cwd').rglob('*.png'))) == 1


def test_labels_are_drawn_in_turn(monkeypatch):
    of, told = gather('digits-labels', steps=2), []
    monkeypatch.setattr('ddpm_course.guidance.Guided', lambda model, y, scale=1.: told.append(y.tolist()) or Guided(model, y, scale))
    for name in ('samples', 'denoising', 'shared'): FIGURES[name].draw(of)
    assert told == [[i % 10 for i in range(64)], [i % 10 for i in range(16)], [0]]
    for name in ('progressive', 'interpolation', 'lossy', 'ledger', 'steps', 'spherical', 'nearest'): assert isinstance(FIGURES[name].draw(of), Figure)


def test_figures_of_the_data_take_what_was_kept_aside(tmp_path):
    of = gather(start(tmp_path/'run', holdout=7, device='cpu'))
    learned, aside = of.split
    assert (len(learned), len(aside)) == (1790, 7)
    shown = cells(FIGURES['noised'].draw(of))[0, 0]
    assert any(torch.equal(shown, y) for y in grey(aside.floats()))
    assert figures.ledger_pictures(of)[2].shape[0] == 7


def normalised(run):
    "The run, as if it had normalised its pictures."
    config = json.loads((run/'config.json').read_text())
    config['reverse']['normaliser'] = {'mean': [-0.4], 'std': [0.8]}
    (run/'config.json').write_text(json.dumps(config))
    return run


def test_what_a_run_cannot_have_is_left_out_with_a_reason(tiny_copy, capsys):
    normalised(tiny_copy)
    ddpm_figures([str(tiny_copy), '--n', '2'])
    lines = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())
    assert 'left out' in lines['ledger'] and 'normalises' in lines['lossy'] and 'figures/samples.png' in lines and len(lines) == len(FIGURES)
    assert 'normalises' in complaint(capsys, tiny_copy, '--only', 'ledger') and not plt.get_fignums()


def test_data_with_one_picture_or_none(tiny_copy, tmp_path, capsys):
    (tmp_path/'one').mkdir()
    Image.new('L', (8, 8), 99).save(tmp_path/'one'/'a.png')
    config = json.loads((tiny_copy/'config.json').read_text())
    config['train'] |= dict(data=str(tmp_path/'one'), holdout=0)
    (tiny_copy/'config.json').write_text(json.dumps(config))
    assert 'takes 2 pictures' in complaint(capsys, tiny_copy, '--only', 'interpolation')
    ddpm_figures([str(tiny_copy), '--n', '1', '--steps', '3'])
    assert 'interpolation: left out' in capsys.readouterr().out and len(list((tmp_path/'cwd'/'figures').iterdir())) == len(FIGURES) - 1
    shutil.rmtree(tmp_path/'one')
    ddpm_figures([str(tiny_copy), '--n', '1', '--steps', '3'])
    out = capsys.readouterr().out
    assert out.count('left out') == 5 and 'figures/samples.png' in out, 'without data there are still samples'


@pytest.mark.parametrize('words, expected', [('nowhere', 'nowhere'), ('', 'RUN'), ('digits --only smile', 'smile'), ('digits --only', '--only'), ('digits --n 0', 'n must'), ('digits --n x', '--n'),
                                             ('digits --steps 0', 'steps must'), ('digits --device abacus', 'abacus'), ('digits --seed 99999999999999999999999 --only samples', ''), ('digits stray', 'stray')])
def test_one_line_for_a_mistake(capsys, tmp_path, words, expected):
    assert expected in complaint(capsys, *words.split())
    assert not list((tmp_path/'cwd').rglob('*.png'))


def test_folders_that_cannot_be_written(tiny_run, tmp_path, capsys):
    (tmp_path/'file').write_text('mine')
    assert 'file' in complaint(capsys, tiny_run, '--out', tmp_path/'file')
    complaint(capsys, tiny_run, '--out', '/proc/figures')
    assert (tmp_path/'file').read_text() == 'mine'


def test_a_full_disk_leaves_nothing_half_written(tiny_run, tmp_path, capsys):
    ddpm_figures([str(tiny_run), '--n', '4', '--only', 'samples'])
    before = (tmp_path/'cwd'/'figures'/'samples.png').read_bytes()
    with no_file_longer_than(1000): complaint(capsys, tiny_run, '--n', '9', '--only', 'samples', 'noised')
    assert (tmp_path/'cwd'/'figures'/'samples.png').read_bytes() == before and not leftovers(tmp_path)
    assert len(list((tmp_path/'cwd'/'figures').iterdir())) == 1


def test_a_network_that_answers_nan_is_no_traceback(tiny_copy, capsys):
    weights = load_file(tiny_copy/'ema.safetensors')
    save_file({k: v*float('nan') for k, v in weights.items()}, tiny_copy/'ema.safetensors')
    ddpm_figures([str(tiny_copy), '--n', '2', '--steps', '3'])
    assert capsys.readouterr().out.count('\n') == len(FIGURES)


def test_a_set_of_pictures_of_another_shape(tiny_copy, capsys):
    config = json.loads((tiny_copy/'config.json').read_text())
    config['train']['size'] = 16
    (tiny_copy/'config.json').write_text(json.dumps(config))
    assert '(1, 16, 16)' in complaint(capsys, tiny_copy, '--only', 'nearest')


def test_help_lists_the_figures(capsys):
    with pytest.raises(SystemExit) as stop: ddpm_figures(['--help'])
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and not err
    assert all(f'  {name} ' in out and figure.about in out for name, figure in FIGURES.items())
    assert all(f'--{name}' in out for name in ('only', 'out', 'n', 'steps', 'seed', 'device'))


def test_help_is_quick():
    code = "import sys\nfrom ddpm_course.figures import figures_parser\nfigures_parser().format_help()\nsys.exit(any(m in sys.modules for m in ('matplotlib', 'torchvision', 'ddpm_course.training')))"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_the_installed_command(tiny_run, tmp_path):
    good, bad = shell('ddpm_figures', tiny_run, '--n', '1', '--only', 'samples', 'noised'), shell('ddpm_figures', 'nowhere')
    out, err = good.communicate(timeout=120)
    assert (good.returncode, err) == (0, '') and out.count('\n') == 2 and len(list((tmp_path/'cwd'/'figures').iterdir())) == 2
    out, err = bad.communicate(timeout=120)
    assert bad.returncode == 2 and not out and err.count('\n') == 1 and 'Traceback' not in err


def test_an_image_set_is_enough():
    "Figures take pictures from memory as well, in colour, with 256 levels."
    data = ImageSet(torch.randint(256, (9, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    oracle = DatasetOracle(REVERSE.schedule, data.floats())
    assert cells(figures.nearest(oracle, REVERSE, data, 2, 3, 5), (3, 8, 8)).shape == (2, 4, 8, 8, 3)
