"""Images per second of the whole training loop on Fashion-MNIST at 32×32: data, noise, step, average of the weights, logging.

    pip install denoising-diffusion-pytorch accelerate             beside the development extra
    python tests/benchmarks/training.py                            this machine
    python tests/benchmarks/training.py --device cuda --batch 256  another

Three loops take turns, a few steps each, in one process: Trainer of this course as ddpm_train runs it; the loop of diffusers' example train_unconditional.py
(its data loader, transforms, Accelerator, AdamW, cosine schedule, EMAModel, retold here because it is a script); and the Trainer of
denoising-diffusion-pytorch as it is. The networks of the first two are the same; the third one's has as many parameters within 2 %.
All run with their own defaults (fp32 for the others; ours picks what suits the machine, and runs in fp32 once more)."""
import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
import torch
import torch.nn.functional as F
from ddpm_course.data import load_data
from ddpm_course.training import TrainConfig, Trainer, build, train_step
from ddpm_course.unet import count_parameters

WIDTHS, GROUPS = (32, 64, 128), 8


def ours(data, batch, device, precision='auto'):
    config = TrainConfig(batch=batch, widths=WIDTHS, layers=2, attention_at=(2,), device=device, precision=precision)
    trainer = Trainer(*build(config, data.shape), data, config)
    def advance(steps):
        losses = torch.stack([train_step(trainer) for _ in range(steps)]).tolist()
        assert all(0 < loss < 10 for loss in losses)
    return advance, count_parameters(trainer.model)


def diffusers_example(data, batch, device, precision='no'):
    from accelerate import Accelerator
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel
    from PIL import Image
    from torchvision import transforms
    accelerator = Accelerator(mixed_precision=precision, cpu=device == 'cpu')
    model = UNet2DModel(sample_size=32, in_channels=1, out_channels=1, layers_per_block=2, block_out_channels=WIDTHS, norm_num_groups=GROUPS, attention_head_dim=None,
                        down_block_types=('DownBlock2D', 'DownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'UpBlock2D', 'UpBlock2D'))
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3/4, model_cls=UNet2DModel, model_config=model.config)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule='linear')
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    augment = transforms.Compose([transforms.Resize(32, interpolation=transforms.InterpolationMode.BILINEAR), transforms.CenterCrop(32), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    pictures = [Image.fromarray(picture.numpy()) for picture in data.images[:, 0]]
    loader = torch.utils.data.DataLoader(range(len(pictures)), batch_size=batch, shuffle=True, num_workers=0, drop_last=True,
                                         collate_fn=lambda index: {'input': torch.stack([augment(pictures[i]) for i in index])})
    rate = get_scheduler('cosine', optimizer=optimizer, num_warmup_steps=500, num_training_steps=100_000)
    model, optimizer, loader, rate = accelerator.prepare(model, optimizer, loader, rate)
    ema.to(accelerator.device)
    batches = (b for _ in iter(int, 1) for b in loader)  # for ever
    def advance(steps):
        for _ in range(steps):
            clean = next(batches)['input']
            noise = torch.randn(clean.shape, device=clean.device)
            t = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
            noisy = scheduler.add_noise(clean, noise, t)
            with accelerator.accumulate(model):
                loss = F.mse_loss(model(noisy, t).sample.float(), noise.float())
                accelerator.backward(loss)
                if accelerator.sync_gradients: accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients: ema.step(model.parameters())
            {'loss': loss.detach().item(), 'lr': rate.get_last_lr()[0]}
    return advance, count_parameters(model)


def lucidrains(data, batch, device, folder):
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from denoising_diffusion_pytorch import Trainer as TheirTrainer
    from PIL import Image
    for i, picture in enumerate(data.images[:4096, 0]): Image.fromarray(picture.numpy()).save(folder/f'{i:05d}.png')
    model = Unet(dim=40, dim_mults=(1, 2, 4), channels=1, flash_attn=False)
    diffusion = GaussianDiffusion(model, image_size=32, timesteps=1000)
    trainer = TheirTrainer(diffusion, str(folder), train_batch_size=batch, train_lr=1e-4, train_num_steps=0, gradient_accumulate_every=1, calculate_fid=False,
                           save_and_sample_every=10**9, results_folder=str(folder/'results'), amp=False)
    def advance(steps):
        trainer.train_num_steps = trainer.step + steps
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): trainer.train()
    return advance, count_parameters(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=3, help='of each loop in a round')
    args = parser.parse_args()
    data = load_data('fashion-mnist', 32)
    with tempfile.TemporaryDirectory() as folder:
        loops = {'ours, as ddpm_train runs it': ours(data, args.batch, args.device), 'ours, fp32': ours(data, args.batch, args.device, 'fp32'),
                 'diffusers example, as shipped': diffusers_example(data, args.batch, args.device), 'denoising-diffusion-pytorch, as shipped': lucidrains(data, args.batch, args.device, Path(folder))}
        seconds = {name: [] for name in loops}
        for r in range(args.rounds + 1):  # the first one warms up
            for name, (advance, _) in loops.items():
                start = time.perf_counter()
                advance(args.steps)
                if args.device.startswith('cuda'): torch.cuda.synchronize()
                if r: seconds[name].append(time.perf_counter() - start)
    rate = {name: args.steps*args.batch/statistics.median(s) for name, s in seconds.items()}
    best = max(rate[name] for name in loops if not name.startswith('ours'))
    print(f'batch {args.batch} of 1×32×32 on {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; images per second, medians of {args.rounds} rounds of {args.steps} steps')
    for name, (_, parameters) in loops.items(): print(f'{name:42}{parameters:12,} parameters{rate[name]:10.1f}{rate[name]/best:8.2f} × the faster of the others')


if __name__ == '__main__': main()
