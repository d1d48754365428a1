"Things to touch: what they draw is compared with numbers worked out here, and every control of every widget is moved."
import base64
import gc
import importlib.util
import io
import math
import weakref
import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from ddpm_course.checkpoints import load_run
from ddpm_course.data import hold_out, load_digits, to_uint8
from ddpm_course.ddim import ddim_sample
from ddpm_course.elbo import vlb_term
from ddpm_course.forward import q_sample
from ddpm_course.guidance import Guided
from ddpm_course.reverse import GaussianOracle, Reverse
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.unet import UNet
from ddpm_course.widgets import (SCHEDULE_KINDS, Drawing, Explorer, canvas, choice, draw_ddim, draw_guidance, draw_interpolation, draw_ledger, draw_noise, draw_schedule, evenly, explore_ddim,
                                 explore_guidance, explore_interpolation, explore_ledger, explore_noise, explore_schedule, latent_between, named_schedule, shipped_ledger, show_row, slider)
from notebooks import ROOT

SHAPE = (1, 4, 4)
DIGIT = load_digits().floats(slice(1))[0]


@pytest.fixture
def oracle():
    "A reverse process of 50 steps and the exact denoiser of pictures whose pixels are N(0, 1/4)."
    schedule = linear_schedule(50)
    return Reverse(schedule), GaussianOracle(schedule, 0., 0.25)


def labelled(classes=3):
    "A network that takes labels, and answers differently for each."
    torch.manual_seed(0)
    model = UNet(1, widths=(8, 8), layers=1, attention_at=(), groups=4, classes=classes).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    return model


@pytest.fixture
def runs(monkeypatch):
    "load_run, with a network with labels in the place of the shipped one."
    from ddpm_course import widgets
    real = lambda run: load_run(run)
    fake = labelled(10), Reverse(cosine_schedule(100)), {'data': {'shape': [1, 8, 8]}}
    monkeypatch.setattr(widgets, 'load_run', lambda run: fake if run == 'digits-labels' else real(run))


# the widgets

MOVES = {
    explore_schedule: [({}, 'kind', 'sigmoid'), ({}, 'T', 50), ({}, 's', 0.1), ({'kind': 'linear'}, 'beta_T', 0.01), ({'kind': 'linear', 'T': 200}, 'rescale', False)],
    explore_noise: [({}, 't', 1), ({}, 't', 1000), ({}, 'digit', 8), ({}, 'kind', 'linear')],
    explore_ledger: [({}, 'span', (2, 1000))],
    explore_ddim: [({}, 'steps', 1), ({}, 'steps', 20), ({}, 'eta', 1.), ({}, 'spacing', 'quadratic'), ({}, 'seed', 7)],
    explore_interpolation: [({}, 'weight', 0.), ({}, 'seed_a', 3), ({}, 'seed_b', 4), ({}, 'way', 'straight line')],
    explore_guidance: [({}, 'label', 0), ({}, 'scale', 8.), ({}, 'seed', 5)]}


@pytest.mark.parametrize(('explore', 'before', 'name', 'value'), [(f, *move) for f, moves in MOVES.items() for move in moves])
def test_every_control_changes_the_picture(explore, before, name, value, runs):
    widget = explore()
    for setting, to in before.items(): widget.controls[setting].value = to
    picture, caption, shown = widget.picture, widget.caption.value, widget.picture.value
    widget.controls[name].value = value
    assert widget.picture is picture and widget.picture.value != shown and widget.caption.value != caption and 'cannot' not in widget.caption.value
    assert Image.open(io.BytesIO(widget.picture.value)).size == Image.open(io.BytesIO(shown)).size  # or the page would jump


def test_all_controls_are_moved(runs):
    for explore, moves in MOVES.items(): assert explore().controls.keys() == {name for _, name, _ in moves}


@pytest.mark.parametrize('explore', MOVES)
def test_the_picture_is_below_its_controls_and_there_is_a_copy_for_github(explore, runs):
    widget = explore()
    controls, picture, caption, static = widget.children
    assert set(controls.children) == set(widget.controls.values()) and picture is widget.picture and caption is widget.caption
    assert all(c.description for c in controls.children) and len(caption.value) > 60
    output, = static.outputs
    assert static.layout.display == 'none' and base64.b64decode(output['data']['image/png']) == picture.value and output['metadata']['image/png']['alt'] == output['data']['text/plain']
    assert explore().picture.value == picture.value  # the same again in another session


@pytest.mark.parametrize('kind, greyed', [('cosine', {'beta_T', 'rescale'}), ('linear', {'s'}), ('sigmoid', {'s', 'beta_T', 'rescale'})])
def test_what_changes_nothing_is_greyed_out(kind, greyed):
    widget = explore_schedule()
    widget.controls['kind'].value = kind
    assert {name for name, control in widget.controls.items() if control.disabled} == greyed


def test_what_cannot_be_drawn_is_said():
    widget = explore_schedule()
    widget.controls['kind'].value = 'linear'
    shown = widget.picture.value
    widget.controls['T'].value, widget.controls['beta_T'].value = 50, 0.06
    assert widget.picture.value != shown and 'cannot be drawn' in widget.caption.value and 'below 1' in widget.caption.value
    widget.controls['beta_T'].value = 0.02
    assert 'cannot' not in widget.caption.value


def test_words_are_no_markup():
    draw = lambda k: Drawing(canvas(1, [['a']], [1])[0], f'<b>{k} & more</b>')
    widget = Explorer(draw, {'k': slider('k', 0, 3, 1)})
    assert widget.caption.value == '&lt;b&gt;1 &amp; more&lt;/b&gt;'


def test_first_settings_that_cannot_be_drawn_are_refused_at_the_door():
    with pytest.raises(ValueError, match='below 1'): Explorer(lambda T: draw_schedule(DIGIT, 'linear', T), {'T': slider('T', 1, 100, 10)})


def test_sliders():
    whole, real = slider('n', 0, 5, 2), slider('x', 0., 1., 0.5, 0.1)
    assert isinstance(whole, ipywidgets.IntSlider) and isinstance(real, ipywidgets.FloatSlider) and (whole.min, whole.max, whole.value, real.step) == (0, 5, 2, 0.1)
    assert choice('c', (1, 2), 2).value == 2


def test_nothing_is_kept():
    "No figure in pyplot, and none in memory once its picture has been taken."
    open_before = plt.get_fignums()
    drawing = draw_noise(cosine_schedule(20), DIGIT, 5)
    same = drawing.png() == drawing.png()
    assert same and plt.get_fignums() == open_before
    figure = weakref.ref(drawing.figure)
    del drawing
    gc.collect()
    assert figure() is None


def test_runs_without_labels_are_refused():
    with pytest.raises(ValueError, match='without labels'): explore_guidance('digits')
    with pytest.raises(ValueError, match='no run folder'): explore_ddim('nowhere')


def test_github_gets_a_figure(tmp_path):
    "The notebook that .ci/execute_notebooks.py saves holds the picture and its words, and no widget."
    spec = importlib.util.spec_from_file_location('execute_notebooks', ROOT/'.ci'/'execute_notebooks.py')
    execute_notebooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(execute_notebooks)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in ('from ddpm_course.widgets import *', 'explore_noise()')])
    nbformat.write(nb, tmp_path/'a.ipynb')
    execute_notebooks.execute(tmp_path/'a.ipynb')
    nb = nbformat.read(tmp_path/'a.ipynb', 4)
    output, = nb.cells[1].outputs
    assert set(output.data) == {'image/png', 'text/plain'} and 'widgets' not in nb.metadata and output.data['text/plain'].startswith('A 3 under') and output.metadata['image/png']['alt'].startswith('A 3 under')
    assert base64.b64decode(output.data['image/png']) == explore_noise().picture.value


# what is drawn

def test_pictures_in_a_row_pixel_by_pixel():
    x = torch.rand(3, 1, 2, 3)*2 - 1
    ax = canvas(2, [['a']], [1])[1]['a']
    show_row(ax, x, ['a', 'b', 'c'], 'row')
    array = np.asarray(ax.images[0].get_array())
    assert array.shape == (16 + 8, 3*(24 + 4) + 4) and [t.get_text() for t in ax.get_xticklabels()] == ['a', 'b', 'c'] and ax.get_ylabel() == 'row'
    for i, y, z in np.ndindex(3, 16, 24): assert array[4 + y, 4 + i*28 + z] == to_uint8(x)[i, 0, y//8, z//8]
    show_row(ax, x, [], columns=2)
    assert np.asarray(ax.images[1].get_array()).shape == (2*20 + 4, 2*28 + 4)


@pytest.mark.parametrize(('kind', 'T', 'signal'), [
    ('cosine', 1000, lambda u: math.cos((u + 0.008)/1.008*math.pi/2)/math.cos(0.008/1.008*math.pi/2)),
    ('sigmoid', 500, lambda u: math.sqrt((1/(1 + math.exp(-3)) - 1/(1 + math.exp(3 - 6*u)))/(1/(1 + math.exp(-3)) - 1/(1 + math.exp(3)))))])
def test_the_schedule_that_is_drawn(kind, T, signal):
    drawing = draw_schedule(DIGIT, kind, T)
    curve = drawing.figure.axes[0].lines[0]
    for t in (1, T//3, T//2, T - 2): assert abs(curve.get_ydata()[t] - signal(t/T)) < 1e-6 and curve.get_xdata()[t] == t
    noise = torch.randn(SHAPE[:1] + (8, 8), generator=torch.Generator().manual_seed(0))
    for picture, t in zip(drawing.shown['pictures'], drawing.shown['times'].tolist()):
        a = drawing.shown['alpha_bar'][t].item()
        assert torch.allclose(picture, math.sqrt(a)*DIGIT + math.sqrt(1 - a)*noise, atol=1e-6)
    assert torch.equal(drawing.shown['pictures'][0], DIGIT) and drawing.shown['times'][-1] == T


def test_a_schedule_that_stops_short_says_so():
    short, full = draw_schedule(DIGIT, 'linear', 300, rescale=False).words, draw_schedule(DIGIT, 'linear', 300).words
    assert 'NOT noise' in short and '0.2192' in short and 'NOT' not in full
    assert 'never outweighs' in draw_schedule(DIGIT, 'linear', 50, rescale=False).words and 'from t = 497 on' in draw_schedule(DIGIT).words


def test_schedules_by_name():
    assert torch.equal(named_schedule('linear', 100, beta_T=0.01).beta, linear_schedule(100, beta_T=0.01).beta) and torch.equal(named_schedule('cosine', 100, s=0.1).beta, cosine_schedule(100, 0.1).beta)
    assert abs(named_schedule('offset cosine', 100).alpha_bar[-1].sqrt() - 0.02) < 1e-9 and all(named_schedule(kind, 100).T == 100 for kind in SCHEDULE_KINDS)


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(kind='quadratic'), "one of 'linear'|must be|linear"), (dict(T=0), 'at least 1'), (dict(s=-0.1), 's must be at least 0'), (dict(kind='linear', beta_T=0.), 'above 0'), (dict(kind='linear', T=10), 'below 1'), (dict(kind='offset cosine', T=1), 'T >= 2')])
def test_settings_that_give_no_schedule_are_refused(settings, words):
    with pytest.raises(ValueError, match=words): draw_schedule(DIGIT, **settings)


@pytest.mark.parametrize('t', [2, 7, 50])
def test_the_posterior_that_is_drawn(t):
    "Against Bayes' rule by precisions: those of q(x_t | x_{t-1}), seen as a function of x_{t-1}, and of q(x_{t-1} | x_0) add up."
    schedule = linear_schedule(50)
    drawing = draw_noise(schedule, DIGIT, t, seed=4)
    x0, xt, mean, draw, difference = drawing.shown['pictures'].double()
    noise = torch.randn(DIGIT.shape, generator=torch.Generator().manual_seed(4))
    a, before, alpha = (v.item() for v in (schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.alpha[t]))
    assert torch.equal(x0, DIGIT.double()) and (xt - (math.sqrt(a)*DIGIT + math.sqrt(1 - a)*noise)).abs().max() < 1e-6
    precision = alpha/(1 - alpha) + 1/(1 - before)
    expected = (math.sqrt(alpha)/(1 - alpha)*xt + math.sqrt(before)/(1 - before)*x0)/precision
    assert abs(drawing.shown['variance'].item()*precision - 1) < 1e-6 and (mean - expected).abs().max() < 1e-5 and torch.equal(difference.float(), (mean - xt).float())
    second = torch.randn(DIGIT.shape, generator=torch.Generator().manual_seed(5))
    assert ((draw - mean)*math.sqrt(precision) - second).abs().max() < 1e-4
    assert f'{1/precision:.3g}' in drawing.words and all(ax.lines[-1].get_xdata()[0] == t for ax in drawing.figure.axes[1:])


def test_the_first_step_leaves_nothing_to_chance():
    drawing = draw_noise(cosine_schedule(50), DIGIT, 1)
    assert torch.allclose(drawing.shown['pictures'][2], DIGIT, atol=1e-6) and drawing.shown['variance'] == 0 and 'nothing is left to chance' in drawing.words


@pytest.mark.parametrize('t', [0, 51, -1, 2.5])
def test_steps_that_do_not_exist_are_refused(t):
    with pytest.raises(ValueError, match='t must'): draw_noise(cosine_schedule(50), DIGIT, t)


def ledger(T=50): return {'costs': torch.arange(T, 0, -1.), 'errors': torch.ones(T), 'L_T': torch.tensor(0.5), 'pictures': 3}


@pytest.mark.parametrize('span', [(1, 50), (1, 1), (7, 20), (50, 50)])
def test_bits_add_up(oracle, span):
    reverse, model = oracle
    drawing = draw_ledger(reverse, model, DIGIT[:, :4, :4], ledger(), span)
    paid = sum(51 - t for t in range(span[0], span[1] + 1))
    assert drawing.shown['paid'] == paid and drawing.shown['total'] == 50*51/2 + 0.5 and f'cost {paid:.4f} of 1275.500' in drawing.words
    curve = drawing.figure.axes[1].lines[0].get_ydata()
    assert curve[0] == 1275.5 and abs(curve[-1] - 1.5) < 1e-6
    for (xt, guess), t in zip(drawing.shown['pictures'].reshape(2, 2, *SHAPE), span):
        a = reverse.schedule.alpha_bar[t].item()
        assert torch.allclose(guess, (math.sqrt(a)*0.25*xt/(a*0.25 + 1 - a)).clamp(-1, 1), atol=1e-3)  # the posterior mean of N(0, 1/4)


@pytest.mark.parametrize('span', [(0, 5), (5, 51), (6, 5)])
def test_spans_that_do_not_exist_are_refused(oracle, span):
    with pytest.raises(ValueError, match='first <= last'): draw_ledger(*oracle, DIGIT[:, :4, :4], ledger(), span)


def test_a_ledger_of_another_schedule_is_refused(oracle):
    with pytest.raises(ValueError, match='60 steps, the schedule 50'): draw_ledger(*oracle, DIGIT[:, :4, :4], ledger(60), (1, 5))


def test_the_shipped_ledger_is_that_of_the_shipped_run():
    "A few of its entries against fresh draws on the same digits, within five standard errors."
    model, reverse, config = load_run('digits')
    x0 = hold_out(load_digits(), config['train']['holdout'])[1].floats()
    found = shipped_ledger()
    assert found['costs'].shape == found['errors'].shape == (reverse.schedule.T,) and found['pictures'] == len(x0) and 0 < found['L_T'] < 0.01
    for t in (1, 3, 10, 50, 300):
        xt, steps = q_sample(reverse.schedule, x0, t), torch.full((len(x0),), t)
        with torch.no_grad(): fresh = vlb_term(reverse, model(xt, steps), x0, xt, steps, levels=17)
        assert abs(fresh.mean() - found['costs'][t - 1]) < 5*math.hypot(fresh.std()/len(x0)**0.5, found['errors'][t - 1]), t


@pytest.mark.parametrize(('steps', 'eta', 'spacing', 'seed'), [(1, 0., 'uniform', 0), (7, 0., 'quadratic', 3), (20, 1., 'trailing', 0), (9, 0.5, 'leading', 11)])
def test_samples_are_those_of_ddim(steps, eta, spacing, seed):
    model, reverse, _ = load_run('digits')
    drawing = draw_ddim(reverse, model, (1, 8, 8), steps, eta, spacing, seed)
    expected = ddim_sample(reverse, model, (4, 1, 8, 8), steps, eta, spacing, seeds=[seed, seed + 1, seed + 2, seed + 3])
    assert torch.equal(drawing.shown['samples'], expected) and len(drawing.shown['way']) == steps + 1 and torch.equal(drawing.shown['way'][-1], expected[0])
    assert np.array_equal(np.asarray(drawing.figure.axes[0].images[0].get_array())[4:68:8, 4:68:8], to_uint8(expected)[0, 0])
    assert f'η = {eta:g}, {spacing}' in drawing.words


@pytest.mark.parametrize('settings', [dict(steps=0), dict(steps=51), dict(eta=1.5), dict(eta=-0.1), dict(spacing='even')])
def test_samplers_that_do_not_exist_are_refused(oracle, settings):
    with pytest.raises(ValueError): draw_ddim(*oracle, SHAPE, **settings)


@pytest.mark.parametrize(('n', 'most'), [(3, 8), (8, 8), (9, 8), (21, 8), (1000, 2)])
def test_a_few_of_many(n, most):
    some = evenly(list(range(n)), most)
    assert len(some) == min(n, most) and some[0] == 0 and some[-1] == n - 1 and some == sorted(set(some))


@pytest.mark.parametrize('way', ['arc', 'straight line'])
def test_between_two_latents(way):
    model, reverse, _ = load_run('digits')
    drawing = draw_interpolation(reverse, model, (1, 8, 8), 0.3, 5, 9, way, 6)
    a, b = (torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (5, 9))
    alone = torch.cat([ddim_sample(reverse, model, (1, 1, 8, 8), 6, seeds=[s]) for s in (5, 9)])
    assert torch.allclose(drawing.shown['samples'][[0, 8]], alone, atol=1e-4)
    angle = math.acos((a*b).sum()/(a.norm()*b.norm()))
    shares = (math.sin(0.7*angle)/math.sin(angle), math.sin(0.3*angle)/math.sin(angle)) if way == 'arc' else (0.7, 0.3)
    assert torch.allclose(drawing.shown['latents'][-1], shares[0]*a + shares[1]*b, atol=1e-5) and f'{drawing.shown["latents"][-1].norm():.2f}' in drawing.words


@pytest.mark.parametrize(('settings', 'words'), [(dict(weight=-0.1), r'\[0, 1\]'), (dict(weight=1.1), r'\[0, 1\]'), (dict(way='bridge'), 'way'), (dict(steps=99), 'steps')])
def test_ways_that_do_not_exist_are_refused(oracle, settings, words):
    with pytest.raises(ValueError, match=words): draw_interpolation(*oracle, SHAPE, **settings)


def test_the_same_latent_twice():
    a = torch.randn(SHAPE)
    for way in ('arc', 'straight line'): assert torch.allclose(latent_between(a, a, torch.tensor([0., 0.5, 1.]), way), a.expand(3, *SHAPE), atol=1e-6)


@pytest.mark.parametrize(('label', 'scale', 'seed'), [(0, 3., 0), (2, 0.5, 4)])
def test_guided_samples(label, scale, seed):
    model, reverse = labelled(), Reverse(cosine_schedule(60))
    drawing = draw_guidance(reverse, model, SHAPE, label, scale, seed, steps=5, n=3)
    seeds = [seed, seed + 1, seed + 2]
    draw = lambda f: ddim_sample(reverse, f, (3, *SHAPE), 5, seeds=seeds)
    none = lambda x, t: model(x, t, y=torch.full((len(x),), 3))
    told = lambda x, t: model(x, t, y=torch.full((len(x),), label))
    by_hand = lambda x, t: none(x, t) + scale*(told(x, t) - none(x, t))
    for name, f in (('untold', none), ('told', told), ('guided', by_hand)): assert torch.allclose(drawing.shown[name], draw(f), atol=1e-3), name
    assert torch.equal(drawing.shown['guided'], draw(Guided(model, label, scale))) and f'strength {scale:g}' in drawing.words


@pytest.mark.parametrize(('settings', 'words'), [(dict(label=3), 'label'), (dict(label=-1), 'label'), (dict(scale=-1.), 'at least 0'), (dict(steps=0), 'steps')])
def test_guidance_that_does_not_exist_is_refused(settings, words):
    with pytest.raises(ValueError, match=words): draw_guidance(Reverse(cosine_schedule(60)), labelled(), SHAPE, **{'label': 0} | settings)
