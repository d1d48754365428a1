"Schedules against diffusers and published figures; bad input at the door."
import math
import pytest
import torch
from diffusers import DDPMScheduler
from ddpm_course.schedules import (NoiseSchedule, at, broadcast, check_steps, cosine_alpha_bar, cosine_schedule, linear_schedule,
                                   offset_cosine_schedule, sigmoid_schedule, steps_like)

MAKERS = [linear_schedule, cosine_schedule, sigmoid_schedule, offset_cosine_schedule]


@pytest.mark.parametrize('make', MAKERS)
@pytest.mark.parametrize('T', [30, 100, 1000, 4000])
def test_tables(make, T):
    s = make(T)
    for table in (s.beta, s.alpha, s.alpha_bar, s.snr): assert table.shape == (T + 1,) and table.dtype == torch.float64
    assert s.beta[0] == 0 and s.alpha_bar[0] == 1 and s.snr[0] == math.inf
    assert (s.alpha_bar.diff() < 0).all() and (s.snr.diff() < 0).all()
    product = 1.0
    for t in range(1, T + 1): product *= 1 - s.beta[t].item()
    assert abs(product - s.alpha_bar[-1].item()) < 1e-12 and s.check().is_noise and not s.check().problems


@pytest.mark.parametrize('make, name', [(linear_schedule, 'linear'), (cosine_schedule, 'squaredcos_cap_v2')])
def test_agrees_with_diffusers(make, name):
    theirs = DDPMScheduler(1000, beta_schedule=name)
    assert (make(1000).alpha_bar[1:] - theirs.alphas_cumprod.double()).abs().max() < 2e-6


def test_published_figures():
    s = linear_schedule()
    assert abs(s.alpha_bar[-1].sqrt() - 0.006353) < 1e-6 and abs(1 - s.alpha_bar[-1] - 0.99996) < 1e-5
    for T, left in ((50, 0.776), (200, 0.364), (300, 0.219)):
        s = linear_schedule(T, rescale=False)
        assert abs(s.check().signal_left - left) < 5e-4 and not s.check().is_noise and 'NOT noise' in str(s.check())


def test_offset_cosine_ends():
    s = offset_cosine_schedule(100, 0.95, 0.02)
    assert abs(s.alpha_bar[1].sqrt() - 0.95) < 1e-12 and abs(s.alpha_bar[-1].sqrt() - 0.02) < 1e-12


def test_cosine_is_cut_from_continuous_time():
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert (cosine_schedule(1000).alpha_bar[:-1] - cosine_alpha_bar(u)[:-1]).abs().max() < 1e-12


def test_rescaling_keeps_the_end():
    assert abs(linear_schedule(100).alpha_bar[-1].log() / linear_schedule(1000).alpha_bar[-1].log() - 1) < 0.15


def test_too_few_linear_steps_name_the_cosine():
    with pytest.raises(ValueError, match='cosine_schedule'): linear_schedule(10)


@pytest.mark.parametrize('T', [0, -1, 2.5, True, None])
def test_bad_T(T):
    for make in MAKERS:
        with pytest.raises(ValueError, match='T must be'): make(T)


@pytest.mark.parametrize('beta, word', [([0.1, math.nan], 'nan'), ([0.1, 0.0], 'adds no noise'), ([0.1, 1.0], 'destroys'), ([[0.1]], 'shape'), ([], 'shape'), ([0.1, -0.1], 'adds no noise')])
def test_broken_tables(beta, word):
    with pytest.raises(ValueError, match=word): NoiseSchedule(torch.tensor(beta))


def test_a_broken_schedule_can_be_let_in_to_be_looked_at():
    report = NoiseSchedule(torch.tensor([0.1, math.nan, 0.1]), validate=False).check()
    assert report.problems and not report.is_noise and 'β_2' in str(report)


@pytest.mark.parametrize('low, high', [(0.02, 0.02), (0.0, 0.9), (0.5, 1.0), (0.9, 0.1)])
def test_bad_offset(low, high):
    with pytest.raises(ValueError): offset_cosine_schedule(10, max_signal=high, min_signal=low)


def test_steps_at_the_door():
    x = torch.zeros(3, 1, 2, 2)
    for t in (0, 11, torch.tensor([1, 2, 0]), torch.tensor([1, 11, 2])):
        with pytest.raises(ValueError, match=r'1\.\.10'): steps_like(t, x, 10)
    with pytest.raises(ValueError, match='int64'): check_steps(torch.tensor([0.5]), 10)
    with pytest.raises(ValueError, match='each of the 3'): steps_like(torch.tensor([1, 2]), x, 10)
    assert steps_like(4, x, 10).tolist() == [4, 4, 4]


def test_broadcast_keeps_float32_for_half_precision():
    x = torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16)
    c = broadcast(at(linear_schedule().alpha_bar, torch.tensor([1, 1000])), x)
    assert c.dtype == torch.float32 and c.shape == (2, 1, 1, 1) and c[0].item() < 1


def test_to_leaves_the_original():
    s = linear_schedule()
    assert s.to('cpu') is not s and torch.equal(s.to('cpu').beta, s.beta)
