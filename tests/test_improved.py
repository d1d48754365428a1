"Lesson 12's experiment: shorter chains against oracles that live on them, the noise scale against known gradients, runs that are done once."
import dataclasses
import json
import pytest
import torch
from ddpm_course.elbo import vlb_terms
from ddpm_course.improved import (BASE, IMPROVED, TABLE_2, Respaced, batch_gradients, experiment, fewer_steps, main, noise_scale, picture_moments,
                                  respace, results_table, run_name, run_variant, spread, warmed_up)
from ddpm_course.losses import UniformSteps, vlb_loss
from ddpm_course.reverse import GaussianOracle, MixtureOracle, Reverse, WithVariance
from ddpm_course.schedules import cosine_schedule, linear_schedule
from ddpm_course.training import check_config

SMALL = dataclasses.replace(BASE, T=25, steps=3, batch=8, widths=(16,), warmup=1, save_every=2)
SCORE = dict(n=70, few=5, strata=4)
CLOUDS = torch.tensor([[-1., 0.3], [0.8, -0.5], [0.1, 0.9]])


@pytest.mark.parametrize('schedule', [linear_schedule(200), cosine_schedule(200)], ids=['linear', 'cosine'])
@pytest.mark.parametrize('steps', [1, 7, 20, 200])
def test_a_shorter_chain_keeps_its_noise_levels(schedule, steps):
    short, times = respace(schedule, steps)
    assert short.T == steps and times[0] == 0 and times[-1] == 200 and (times.diff() > 0).all()
    assert torch.allclose(short.alpha_bar, schedule.alpha_bar[times], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize('steps', [0, 201, -1])
def test_chains_that_cannot_be(steps):
    with pytest.raises(ValueError, match=r'1\.\.200'): respace(cosine_schedule(200), steps)


@pytest.mark.parametrize('variance', ['beta', 'beta_tilde', 'learned'])
@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
@pytest.mark.parametrize('make', [lambda s, p: GaussianOracle(s, 0.2, 0.3, p), lambda s, p: MixtureOracle(s, CLOUDS, 0.02, predict=p)], ids=['gaussian', 'mixture'])
def test_what_the_old_network_says_is_what_an_oracle_of_the_short_chain_would_say(make, predict, variance):
    long = cosine_schedule(100)
    old = Reverse(long, predict, variance, clip=False)
    model = WithVariance(make(long, predict), old) if variance == 'learned' else make(long, predict)
    new, seen = fewer_steps(old, model, 9)
    native = WithVariance(make(new.schedule, predict), new) if variance == 'learned' else make(new.schedule, predict)
    x, s = torch.randn(90, 2, dtype=torch.float64), torch.arange(1, 10).repeat(10)
    a, b = (new.mean_variance(m, x, s) for m in (seen, native))
    for found, expected in zip(a, b): assert (found - expected).abs().max() < 1e-8


def test_a_learned_range_keeps_its_place_in_the_range():
    old = Reverse(cosine_schedule(100), variance='learned_range', clip=False)
    new, seen = fewer_steps(old, lambda x, t: torch.cat([x, torch.full_like(x, 1.)], 1), 8)
    x = torch.zeros(8, 2, dtype=torch.float64)
    _, variance, _ = new.mean_variance(seen, x, torch.arange(1, 9))
    assert torch.allclose(variance[:, 0], new.schedule.beta[1:]) and isinstance(seen, Respaced)


def test_all_steps_are_the_chain_itself():
    old = Reverse(linear_schedule(100), 'mu', 'beta', clip=False)
    new, seen = fewer_steps(old, GaussianOracle(old.schedule, 0., 0.5, 'mu'), 100)
    x = torch.randn(5, 3, dtype=torch.float64)
    a, b = (vlb_terms(r, m, x, decoder='density', generator=torch.Generator().manual_seed(0))['total'] for r, m in ((old, GaussianOracle(old.schedule, 0., 0.5, 'mu')), (new, seen)))
    assert torch.allclose(a, b, atol=1e-8)


def test_noise_scale_of_known_gradients():
    mean, sd = torch.tensor([3., 0., -1.]), torch.tensor([0.5, 2., 1.])
    g = mean + sd*torch.randn(50_000, 8, 3).mean(1)*1.0
    assert abs(noise_scale(g, 8)/((sd**2).sum().item()/10) - 1) < 0.05


def test_importance_sampling_leaves_the_mean_gradient_and_takes_its_noise():
    torch.manual_seed(0)
    layer, x0 = torch.nn.Linear(3, 3), (2*torch.randint(0, 17, (64, 3))/16 - 1).float()
    s = linear_schedule(50)
    reverse, model = Reverse(s, clip=False), lambda x, t: layer(x)
    g, call = torch.Generator().manual_seed(0), torch.nn.Module()
    call.layer, call.forward = layer, model
    sampler = warmed_up(reverse, call, x0, 17, g, rows=100)
    assert (sampler.counts == 10).all() and sampler.probabilities().std() > 1e-3
    sets = {name: batch_gradients(reverse, call, by, x0, 17, g, batches=600, batch=32) for name, by in (('uniform', UniformSteps(50)), ('importance', sampler))}
    t = torch.arange(1, 51).repeat(64*6)
    exact = torch.cat([v.flatten() for v in torch.autograd.grad(vlb_loss(reverse, call, x0.repeat_interleave(50*6, 0), t, torch.randn(64*50*6, 3, generator=g), 17).mean(), list(call.parameters()))])
    for grads in sets.values(): assert ((grads.mean(0) - exact).abs() < 5*grads.std(0)/600**0.5 + 0.02*exact.abs().max()).all()
    assert noise_scale(sets['importance'], 32) < 0.7*noise_scale(sets['uniform'], 32)


def test_moments_of_larger_pictures_are_those_of_their_means():
    x = torch.rand(50, 1, 16, 16)
    mean, cov = picture_moments(x)
    blocks = x.reshape(50, 8, 2, 8, 2).mean((2, 4)).flatten(1).double()
    assert torch.allclose(mean, blocks.mean(0), atol=1e-6) and torch.allclose(cov, torch.cov(blocks.T), atol=1e-6)
    assert picture_moments(torch.rand(9, 3, 4, 5))[0].shape == (60,)


@pytest.mark.parametrize('changes', [*IMPROVED.values(), *TABLE_2.values()], ids=[*IMPROVED, *TABLE_2])
def test_every_variant_is_a_configuration(changes): check_config(dataclasses.replace(BASE, **changes))


def test_names_of_folders_differ(): assert len({run_name(n) for n in [*IMPROVED, *TABLE_2]}) == 12 and run_name('μ̃, L, fixed') == 'mu-L-fixed'


def test_a_run_is_done_once_and_an_interrupted_one_goes_on(tmp_path, monkeypatch):
    import ddpm_course.improved as module
    changes = IMPROVED['cosine, hybrid']
    first = run_variant('a', changes, SMALL, 0, tmp_path, **SCORE)
    monkeypatch.setattr(module, 'train', lambda *a, **k: pytest.fail('trained again'))
    assert run_variant('a', changes, SMALL, 0, tmp_path, **SCORE) == first
    (tmp_path/'a'/'seed-0'/'scores.json').unlink()  # trained, not yet scored
    assert run_variant('a', changes, SMALL, 0, tmp_path, **SCORE) == first
    (tmp_path/'b'/'seed-0').mkdir(parents=True)
    (tmp_path/'b'/'seed-0'/'config.json').write_text('{')  # begun, and stopped before its first checkpoint
    monkeypatch.undo()
    assert run_variant('b', changes, SMALL, 0, tmp_path, **SCORE) == first


def test_an_experiment_reads_its_pictures_once(tmp_path, monkeypatch):
    import ddpm_course.improved as module
    module.pictures.cache_clear()
    monkeypatch.setattr(module, 'load_data', lambda *a: pytest.fail('read again'))
    experiment({'a': {}}, SMALL, range(2), tmp_path, quiet=True, **SCORE)
    assert module.pictures.cache_info().misses == 1


def test_seeds_differ_and_the_table_tells_all(tmp_path, capsys):
    variants = {name: IMPROVED[name] for name in ('linear, simple', 'cosine, vlb, importance')}
    results = experiment(variants, SMALL, range(2), tmp_path, **SCORE)
    assert capsys.readouterr().out.count('seed ') == 4
    assert set(results['linear, simple'][0]['bits']) == {'beta', 'beta_tilde'} and set(results['cosine, vlb, importance'][0]['bits']) == {'learned_range'}
    a, b = results['linear, simple']
    assert a['frechet'] != b['frechet']
    better = min(('beta', 'beta_tilde'), key=lambda k: a['bits'][k][0] + b['bits'][k][0])
    table = results_table(results)
    assert spread([a['bits'][better][0], b['bits'][better][0]]) in table and spread([a['frechet'], b['frechet']]) in table and len(table.splitlines()) == 3


def test_spread(): assert spread([1., 3.]) == '2.000 ± 1.414' and spread([2.]) == '2.000'


def test_the_script(tmp_path, capsys, monkeypatch):
    import ddpm_course.improved as module
    monkeypatch.setattr(module, 'TABLE_2', {'ε, L_simple': TABLE_2['ε, L_simple']})
    main(['--table', '2', '--seeds', '1', '--out', str(tmp_path), '--T', '25', '--steps', '2', '--batch', '8', '--n', '70', '--few', '4', '--strata', '4', '--save-every', '1'])
    assert 'ε, L_simple' in capsys.readouterr().out.splitlines()[-1]
    config = json.loads((tmp_path/'eps-L_simple'/'seed-0'/'config.json').read_text())['train']
    assert config['T'] == 25 and config['steps'] == 2 and config['holdout'] == 297
