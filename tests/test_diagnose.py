"Each thing that goes wrong is named, and a healthy run is left in peace."
import json
import math
import shutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import start
from ddpm_course.cli import ddpm_train
from ddpm_course.data import ImageSet, load_digits
from ddpm_course.diagnose import (check_average, check_learning, check_length, check_memory, check_pictures, check_schedule, diagnose, losses_of,
                                  read_losses)
from ddpm_course.reverse import DatasetOracle, Reverse
from ddpm_course.schedules import cosine_schedule, linear_schedule

NAMES = ['x_T', 'pictures lie', 'last weights', 'averaged weights', 'steps', 'kept aside']


@pytest.fixture(scope='module')
def healthy(tmp_path_factory):
    return start(tmp_path_factory.mktemp('run')/'run', steps=300, batch=32, widths=(16, 32), ema=0.98, holdout=297, lr=2e-3, device='cpu', precision='fp32')


def test_a_healthy_run(healthy):
    found = diagnose(healthy)
    assert all(f.good for f in found) and all(str(f).startswith('ok') for f in found)
    assert len(found) == 6 and all(name in f.text for name, f in zip(NAMES, found))


def test_pictures_of_training_only(tiny_run): assert len(diagnose(tiny_run, n=64)) == 5


def test_an_average_that_has_not_caught_up(healthy, tmp_path):
    run = shutil.copytree(healthy, tmp_path/'run')
    late = {k: v*(0.3 if 'conv' in k else 1) for k, v in load_file(run/'model.safetensors').items()}
    save_file(late, run/'ema.safetensors')
    bad = [f for f in diagnose(run) if not f.good]
    assert 'the average looks back over some 50 steps, and the run has 300' in bad[0].text and str(bad[0]).startswith('PROBLEM')


def test_a_network_that_answers_nothing(healthy, tmp_path):
    run = shutil.copytree(healthy, tmp_path/'run')
    for name in ('model', 'ema'): save_file({k: torch.zeros_like(v) for k, v in load_file(run/f'{name}.safetensors').items()}, run/f'{name}.safetensors')
    assert [f.good for f in diagnose(run)][:4] == [True, True, False, True]


@pytest.mark.parametrize('schedule, good', [(cosine_schedule(1000), True), (linear_schedule(1000), True), (linear_schedule(100, rescale=False), False), (linear_schedule(40), True)])
def test_schedules(schedule, good):
    finding = check_schedule(Reverse(schedule))
    assert finding.good is good and ('--schedule cosine' in finding.text) is not good


@pytest.mark.parametrize('low, high, levels, word', [(0, 16, 17, None), (0, 1, 256, 'small part'), (100, 100, 256, 'small part'), (0, 255, 17, 'grey levels'), (0, 200, 256, None)])
def test_pictures(low, high, levels, word):
    images = torch.full((4, 1, 2, 2), low, dtype=torch.uint8)
    images[0, 0, 0, 0] = high
    finding = check_pictures(ImageSet(images, levels=levels))
    assert finding.good is (word is None) and (word is None or word in finding.text)


@pytest.mark.parametrize('predict', ['eps', 'x0', 'v', 'mu'])
def test_losses_are_measured_on_the_same_draws(predict):
    digits = load_digits()
    reverse = Reverse(cosine_schedule(100), predict)
    exact, again, silent = losses_of(reverse, [DatasetOracle(reverse.schedule, digits.floats(), predict)]*2 + [lambda x, t: torch.zeros_like(x)], digits, 256)
    assert exact == again < silent
    if predict == 'eps': assert abs(silent - 1) < 0.03


def test_plateaus():
    assert not check_learning(1., 1.).good and not check_learning(0.95, 1.).good and check_learning(0.5, 1.).good
    assert not check_average(0.2, 0.1, 0.999, 50).good and check_average(0.1, 0.11, 0.999, 50).good
    assert '1,000 steps, and the run has 50' in check_average(0.2, 0.1, 0.999, 50).text
    assert not check_memory(0.2, 0.1).good and check_memory(0.12, 0.1).good


def curve(f, n=1000, noise=0.02):
    wobble = torch.randn(n, generator=torch.Generator().manual_seed(0)).tolist()
    return [f(i/n)*(1 + noise*w) for i, w in enumerate(wobble)]


@pytest.mark.parametrize('losses, word', [(curve(lambda u: 0.1 + math.exp(-20*u)), None), (curve(lambda u: 1 - 0.9*u), 'still falling'), (curve(lambda u: 0.1 if u < 0.5 else 0.9), 'went wrong'),
                                          ([1., 0.5], 'too few'), ([], 'too few'), (curve(lambda u: 0.1, noise=0.), None), (curve(lambda u: 0.1, 60), None)])
def test_lengths(losses, word):
    finding = check_length(losses)
    assert finding.good is (word is None) and (word is None or word in finding.text)


def test_the_shell_says_it_in_words(healthy, tmp_path, capsys):
    ddpm_train(['--diagnose', str(healthy)])
    assert 'nothing is wrong' in capsys.readouterr().out
    (tmp_path/'run').mkdir()
    run = shutil.copytree(healthy, tmp_path/'run', dirs_exist_ok=True)
    (run/'losses.csv').write_text('step,loss,lr\n1,1.0,0.1\n')
    ddpm_train(['--diagnose', str(run)])
    out = capsys.readouterr().out
    assert 'PROBLEM' in out and 'train longer' in out and out.strip().endswith('the others')


@pytest.mark.parametrize('spoil, word', [(lambda run: (run/'losses.csv').unlink(), 'has no losses.csv'), (lambda run: (run/'losses.csv').write_text('step,loss\n1,x\n'), 'cannot be read'),
                                         (lambda run: (run/'losses.csv').write_text('what\n1\n'), 'cannot be read'), (lambda run: (run/'model.safetensors').unlink(), 'no weights'),
                                         (lambda run: (run/'config.json').write_text(json.dumps([])), 'object')])
def test_what_cannot_be_diagnosed(healthy, tmp_path, capsys, spoil, word):
    run = shutil.copytree(healthy, tmp_path/'run')
    spoil(run)
    with pytest.raises(ValueError, match=word): diagnose(run)
    with pytest.raises(SystemExit): ddpm_train(['--diagnose', str(run)])
    assert word in capsys.readouterr().err


def test_losses_are_read_as_they_were_written(healthy):
    found = read_losses(healthy/'losses.csv')
    assert len(found) == 300 and found[0] == pytest.approx(1, abs=0.2) and found[-1] < 0.4
