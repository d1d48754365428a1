"A quick form, with slack, of tests/benchmarks/digits_quality.py: what ships is good, and the recipe still learns."
import torch
from quality import judge, pixel_distance, real_floor
from ddpm_course.checkpoints import load_run
from ddpm_course.data import load_data
from ddpm_course.ddim import ddim_sample
from ddpm_course.training import TrainConfig, Trainer, build, train_step


def test_shipped_run_draws_digits():
    model, reverse, _ = load_run('digits')
    found = judge(ddim_sample(reverse, model, (512, 1, 8, 8), 25, seeds=range(512)))
    assert found['recognised'] > 0.7 and min(found['counts']) > 15 and found['distance'] < 1.5*found['floor'], found


def test_default_recipe_learns():
    data, config = load_data('digits'), TrainConfig(steps=150, device='cpu')
    trainer = Trainer(*build(config, data.shape), data, config)
    losses = torch.stack([train_step(trainer) for _ in range(config.steps)])
    draw = lambda model: ddim_sample(trainer.reverse, model, (256, 1, 8, 8), 20, seeds=range(256))
    untrained, _ = build(config, data.shape)
    before, after = (pixel_distance(draw(m), data.floats()) for m in (untrained, trainer.ema.model))
    assert losses[0] > 0.9 and losses[-25:].mean() < 0.3
    assert after < 0.15*before and after > real_floor(data.floats(), 256)*0.5
