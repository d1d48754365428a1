"What is drawn, pixel by pixel, and files that are written whole or not at all."
import sys
import fastprogress.fastprogress as fastprogress
import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from ddpm_course.plots import (COLORS, LossBar, colored_axes, good_scale, image_grid, plot_ledger, plot_losses, save_figure, save_gif, save_grid, save_whole, show_image, show_images,
                               with_bar)

levels = lambda *shape: torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
floats = lambda k: 2*k.float()/255 - 1


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close('all')


@pytest.mark.parametrize('C', [1, 3])
@pytest.mark.parametrize('N, columns, scale, gap', [(5, 3, 1, 1), (5, 3, 2, 2), (4, 8, 3, 0), (1, 1, 1, 1), (7, 1, 2, 3)])
def test_every_pixel_of_a_grid(C, N, columns, scale, gap):
    k, (H, W) = levels(N, C, 3, 5), (3, 5)
    grid = np.asarray(image_grid(floats(k), columns, scale, gap)).reshape(-1, (min(N, columns)*(W + gap) + gap)*scale, C)
    rows = -(-N//min(N, columns))
    expected = np.full(((rows*(H + gap) + gap)*scale, grid.shape[1], C), 64)
    for i in range(N):
        r, c = divmod(i, min(N, columns))
        for y, x in np.ndindex(H*scale, W*scale):
            expected[(gap + r*(H + gap))*scale + y, (gap + c*(W + gap))*scale + x] = k[i, :, y//scale, x//scale]
    assert np.array_equal(grid, expected)


def test_a_grid_clips_and_leaves_its_input_alone():
    x = torch.tensor([-3., 3.]).reshape(1, 1, 1, 2).requires_grad_()
    assert np.asarray(image_grid(x, gap=0)).tolist() == [[0, 255]] and x.tolist() == [[[[-3, 3]]]]


@pytest.mark.parametrize('W, scale', [(8, 6), (28, 1), (16, 3), (64, 1), (1, 48)])
def test_small_pictures_are_enlarged(W, scale): assert good_scale(torch.zeros(1, 1, 2, W)) == scale


@pytest.mark.parametrize('C, mode', [(1, 'L'), (3, 'RGB')])
def test_a_saved_grid_reads_back(tmp_path, C, mode):
    x = floats(levels(6, C, 8, 8))
    save_grid(x, tmp_path/'grid.png', 3)
    with Image.open(tmp_path/'grid.png') as picture: assert picture.mode == mode and np.array_equal(picture, image_grid(x, 3, 6))
    assert [p.name for p in tmp_path.iterdir()] == ['grid.png']


@pytest.mark.parametrize('C', [1, 3])
def test_a_film_has_all_frames(tmp_path, C):
    frames = [floats(levels(4, C, 8, 8).roll(i, -1)) for i in range(7)]
    save_gif(frames, tmp_path/'film.gif', 2, milliseconds=80, hold=1500)
    with Image.open(tmp_path/'film.gif') as film:
        shown = [(f.info['duration'], np.asarray(f.convert('L'), dtype=int)) for f in ImageSequence.Iterator(film)]
        assert film.n_frames == 7 and film.info['loop'] == 0 and [d for d, _ in shown] == [80]*6 + [1500]
    if C == 1: assert all(np.array_equal(a, image_grid(x, 2, 6)) for (_, a), x in zip(shown, frames))


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_a_failing_writer_changes_nothing(tmp_path, error):
    (tmp_path/'a.txt').write_text('old')
    def write(part):
        part.write_text('half of the n')
        raise error
    for name in ('a.txt', 'b.txt'):
        with pytest.raises(type(error)): save_whole(tmp_path/name, write)
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt'] and (tmp_path/'a.txt').read_text() == 'old'


def test_a_writer_that_succeeds_replaces(tmp_path):
    for text in ('old', 'new'): save_whole(str(tmp_path/'a.txt'), lambda part: part.write_text(text))
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt'] and (tmp_path/'a.txt').read_text() == 'new'


def test_axes_are_labelled():
    ax = colored_axes('how far', 'how much', 'why')
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ('how far', 'how much', 'why') and colored_axes('x', ax=ax) is ax
    assert len(set(COLORS.values())) == len(COLORS)


@pytest.mark.parametrize('n', [1, 10, 49, 50, 200])
def test_losses_with_their_running_mean(n):
    losses = [1/(i + 1) for i in range(n)]
    ax = plot_losses(list(range(1, n + 1)), losses, window=25)
    assert ax.get_xlabel() and ax.get_ylabel() == 'loss' and ax.get_yscale() == 'log' and ax.get_legend()
    faint, bold = ax.lines
    assert list(faint.get_ydata()) == losses
    expected = [sum(losses[i:i + 25])/25 for i in range(n - 24)] if n >= 50 else losses
    assert np.allclose(bold.get_ydata(), expected) and bold.get_xdata()[-1] == n
    plt.close(ax.figure)


def test_a_figure_is_written_and_forgotten(tmp_path):
    ax = colored_axes('x', 'y')
    save_figure(ax.figure, tmp_path/'a.png')
    assert Image.open(tmp_path/'a.png').size[0] > 300 and not plt.get_fignums()
    with pytest.raises(OSError): save_figure(colored_axes('x').figure, tmp_path/'nowhere'/'a.png')
    plt.close('all')
    assert [p.name for p in tmp_path.iterdir()] == ['a.png']


def test_the_ledger_is_drawn():
    "On logarithmic axes, t from 1, with a band of two errors; what is zero lies on the ground, and no error is no band."
    costs, errors = torch.tensor([2., 0.5, 0.], requires_grad=True), torch.tensor([0.1, 0.3, torch.nan])
    ax = plot_ledger(costs, errors, label='mine', color=COLORS['data'])
    line, band = ax.lines[0], ax.collections[0].get_paths()[0].vertices
    assert (ax.get_xscale(), ax.get_yscale()) == ('log', 'log') and 't' in ax.get_xlabel() and 'bits/dim' in ax.get_ylabel() and ax.get_legend() and line.get_color() == COLORS['data']
    assert line.get_xdata().tolist() == [1, 2, 3] and np.allclose(line.get_ydata(), [2, 0.5, 1e-9])
    for t, low, high in ((1, 1.8, 2.2), (2, 1e-9, 1.1), (3, 1e-9, 1e-9)): assert np.allclose([band[band[:, 0] == t, 1].min(), band[band[:, 0] == t, 1].max()], [low, high])
    assert plot_ledger(torch.ones(3), ax=ax) is ax and len(ax.lines) == 2 and len(ax.collections) == 1
    assert not plot_ledger(torch.ones(1)).get_legend()


def test_a_bar_for_those_who_look(capsys, monkeypatch):
    assert with_bar([1, 2]) == [1, 2]
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    assert with_bar([1, 2], show=False) == [1, 2] and not capsys.readouterr().out
    assert list(with_bar([1, 2])) == [1, 2] and '[2/2' in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: False, raising=False)
    monkeypatch.setattr(fastprogress, 'IN_NOTEBOOK', True)
    assert with_bar([1, 2]) != [1, 2]


def test_pictures_with_titles():
    figure = show_images(floats(levels(5, 3, 4, 4)), list('abcde'), columns=3, suptitle='five')
    assert [ax.get_title() for ax in figure.axes] == [*'abcde', ''] and len(figure.axes[0].images) == 1
    k = levels(1, 4, 6)
    assert np.array_equal(np.asarray(show_image(floats(k), 't = 3').images[0].get_array()), k[0])


def test_without_a_terminal_the_bar_is_silent(capsys):
    bar, losses = LossBar(range(3, 60)), []
    for step in bar:
        losses.append(1.)
        bar.report(losses)
    assert len(losses) == 57 and step == 59 and capsys.readouterr() == ('', '')


def test_in_a_terminal_the_bar_tells_the_loss_and_ends_its_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    bar, losses = LossBar(range(50)), []
    for _ in bar:
        losses.append(0.1234)
        bar.report(losses)
    out = capsys.readouterr().out
    assert 'loss 0.1234' in out and '[50/50' in out and out.endswith('\n')


@pytest.fixture
def notebook(monkeypatch):
    "A front end that counts what it is shown."
    class Handle:
        shown = []
        def update(self, what): self.shown.append(type(what).__name__)
    monkeypatch.setattr(IPython.display, 'display', lambda *a, **k: Handle())
    monkeypatch.setattr(fastprogress, 'IN_NOTEBOOK', True)
    monkeypatch.setattr(fastprogress, 'master_bar', fastprogress.NBMasterBar)
    return Handle.shown


@pytest.mark.parametrize('steps', [range(3), range(300), range(100, 300)])
def test_in_a_notebook_the_curve_grows(notebook, steps):
    bar, losses = LossBar(steps), [1.]*steps.start
    for _ in bar:
        losses.append(0.5)
        bar.report(losses)
    assert len(losses) == steps.stop and min(len(steps), 25) <= notebook.count('Figure') <= 35
    assert bar.bar.main_bar.comment == 'loss 0.5000' or len(steps) < 25
