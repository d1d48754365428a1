"The clinic: every patient is ill in a way of its own, the treatment helps, and each diagnosis gets its answer."
import contextlib
import io
import re
import matplotlib.pyplot as plt
import pytest
import torch
from ddpm_course.data import load_digits
from ddpm_course.ddim import ddim_sample
from ddpm_course.exercises import CLINIC, Hint, check_diagnosis, clinic_steps, patient
from ddpm_course.checkpoints import load_run
from ddpm_course.reverse import DatasetOracle, Reverse
from ddpm_course.losses import simple_loss
from ddpm_course.forward import q_sample
from notebooks import ROOT, read

CLINIC_NOTEBOOK = ROOT/'nbs'/'clinic.ipynb'
KS = range(1, 9)
RIGHT = {1: 'c', 2: 'b', 3: 'c', 4: 'd', 5: 'c', 6: 'b', 7: 'b', 8: 'b'}
every_patient = pytest.mark.parametrize('k', KS)


@pytest.fixture(scope='module')
def visit():
    "What a reader has after running every cell of the notebook: its names."
    names = {'__name__': 'clinic'}
    code = [c.source for c in read(CLINIC_NOTEBOOK).cells if c.cell_type == 'code' and '%pip' not in c.source]
    with contextlib.redirect_stdout(io.StringIO()):
        for source in code:
            exec(compile(source, 'clinic.ipynb', 'exec'), names)
            plt.close('all')
    return names


@pytest.fixture(scope='module')
def shipped(): return load_run('digits')


def sections():
    "Code and prose of each patient's part of the notebook."
    text = '\n'.join(c.source for c in read(CLINIC_NOTEBOOK).cells)
    return {int(k): part for k, part in re.findall(r'^## Patient (\d+)\n(.*?)(?=^## )', text, re.M | re.S)}


@every_patient
def test_ill_at_first_and_better_after_treatment(visit, k):
    before, after = visit['RECORD'][k]
    healthy = visit['distance'](visit['fit'])
    assert before > 1.15*healthy and after < 0.8*before
    assert after < (2.5 if k == 1 else 1.3)*healthy


@every_patient
def test_the_right_diagnosis_is_accepted(k):
    found = check_diagnosis(k, RIGHT[k])
    assert found and 'Yes.' in found.message and repr(found).startswith('✓')


@every_patient
def test_each_wrong_diagnosis_is_refused_in_its_own_words(k):
    said = [check_diagnosis(k, c) for c in 'abcde' if c != RIGHT[k]]
    assert not any(said) and len({v.message for v in said}) == 4
    assert all('speaks against it' in v.message or 'speak against it' in v.message for v in said)


@every_patient
def test_a_question_mark_gives_a_hint_that_does_not_tell(k):
    found = check_diagnosis(k, '?')
    assert isinstance(found, Hint) and not found and 'Hint' in found.message
    assert CLINIC[k][1][RIGHT[k] + '*'] not in found.message


@pytest.mark.parametrize('choice', ['', 'f', 'A', 'ab', 'c*', 'b*', None, 2])
def test_unknown_choices(choice):
    for k in (1, 2):
        with pytest.raises(ValueError, match='a, b, c, d, e'): check_diagnosis(k, choice)


@pytest.mark.parametrize('k', [0, 9, -1, '1', None])
def test_unknown_patients(k):
    with pytest.raises(ValueError, match='patients 1 to 8'): check_diagnosis(k, 'a')
    with pytest.raises(ValueError, match='patients 1 to 8'): patient(k)


def test_eight_patients_with_eight_causes():
    assert list(CLINIC) == list(KS) and len({CLINIC[k][1][RIGHT[k] + '*'] for k in KS}) == 8
    assert len({CLINIC[k][0] for k in KS}) == 8


@every_patient
def test_the_notebook_presents_the_case(k):
    part = sections()[k]
    complaint = re.search(r'> \*"(.+?)"\*', part)[1]
    assert complaint == patient(k).complaint
    assert re.findall(r'^- \*\*(\w)\*\*', part, re.M) == list('abcde')
    assert f'admit({k})' in part and f"check_diagnosis({k}, '?')" in part and f'discharge({k}, ' in part and f'assert RECORD[{k}]' in part
    assert part.index('check_diagnosis') < part.index('### Treatment')


def test_the_cause_is_not_given_away_before_the_end():
    text = '\n'.join(c.source for c in read(CLINIC_NOTEBOOK).cells)
    assert text.index('How the patients were made\n') > text.index('## Eight discharged')
    assert not re.search(r'clinic_\w+', '\n'.join(c.source for c in read(CLINIC_NOTEBOOK).cells if c.cell_type == 'code'))


def test_the_notebook_opens_like_a_lesson():
    cells = read(CLINIC_NOTEBOOK).cells
    assert cells[0].source.startswith('# The clinic\n\n> ') and 'blob/main/nbs/clinic.ipynb' in cells[0].source
    assert "find_spec('ddpm_course')" in next(c.source for c in cells if c.cell_type == 'code')


def test_the_healthy_sampler_of_the_clinic_is_ddim_with_all_noise(shipped):
    model, reverse, _ = shipped
    g = torch.Generator().manual_seed(3)
    *_, (_, ours, _) = clinic_steps(reverse, model, 4, 3, steps=10)
    assert (ours - ddim_sample(reverse, model, (4, 1, 8, 8), steps=10, eta=1., generator=g)).abs().max() < 1e-4


@pytest.mark.parametrize('k', [2, 4, 8])
def test_patients_are_the_same_every_time(k): assert torch.equal(patient(k).sample(3), patient(k).sample(3))


def test_patient_2_answers_like_a_network_for_zero_to_one():
    "An independent judge: the exact denoiser of those pictures."
    p, x0 = patient(2), (load_digits().floats(slice(200)) + 1)/2
    noise = torch.randn(x0.shape)
    for t in (100, 300, 600):
        steps = torch.full((200,), t)
        xt = q_sample(p.reverse.schedule, x0, t, noise)
        exact = DatasetOracle(p.reverse.schedule, (load_digits().floats() + 1)/2)(xt, steps)
        own, best = (p.model(xt, steps) - noise).square().mean(), (exact - noise).square().mean()
        assert own < 0.25 and own > 0.9*best


def test_patient_8_predicts_x0():
    p, x0 = patient(8), load_digits().floats(slice(200))
    t = torch.randint(1, 1001, (200,))
    assert simple_loss(Reverse(p.reverse.schedule, 'x0'), p.model, x0, t).mean() < 0.2 < 1 < simple_loss(p.reverse, p.model, x0, t).mean()


def test_another_network_can_take_the_place_of_the_patients():
    asked = []
    def silent(x, t):
        asked.append(t[0].item())
        return torch.zeros_like(x)
    patient(5).sample(2, model=silent)
    assert asked == list(range(40, 0, -1))


def test_patient_7_has_copies_only_where_it_should():
    x = patient(7).sample(8)
    assert all(torch.equal(x[i], x[i % 2]) for i in range(8)) and not torch.equal(x[0], x[1])
