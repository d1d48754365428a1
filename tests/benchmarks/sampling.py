"""Seconds for 256 images of 1×32×32 by 50 steps of DDIM: this course, diffusers' DDIMPipeline with the same weights, denoising-diffusion-pytorch.

    pip install denoising-diffusion-pytorch             beside the development extra
    python tests/benchmarks/sampling.py                 this machine
    python tests/benchmarks/sampling.py --device cuda   another
    python tests/benchmarks/sampling.py --compile       our network through torch.compile as well (on CUDA with CUDA graphs)

The samplers take turns, one batch each, in one process; seconds are medians over the rounds, ratios are to the faster of the two other libraries as
shipped. Before anything is timed, ours and diffusers' must have drawn the same pictures from the same noise. The third library's network has as many
parameters within 2 %. 'in our default' is the arithmetic and the memory order that Trainer picks for this device (fastest_settings). 'outside' is the share of the time
that is not spent in the network, by clocks before and after each of its calls in the last round (on CUDA, where that waits for the device at each call, in a round of its own).
A few images warm each sampler up."""
import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from ddpm_course.ddim import ddim_sample
from ddpm_course.devices import AtPrecision, fastest_settings
from ddpm_course.pretrained import save_diffusers
from ddpm_course.reverse import Reverse
from ddpm_course.schedules import linear_schedule
from ddpm_course.unet import UNet, count_parameters

WIDTHS, SIZE, GROUPS = (32, 64, 128), 32, 8
REVERSE = Reverse(linear_schedule())


def our_network():
    torch.manual_seed(0)
    model = UNet(1, 1, WIDTHS, 2, (2,), groups=GROUPS)
    for p in model.parameters():  # no layer silent
        if not p.any(): torch.nn.init.normal_(p, std=0.02)
    return model.eval()


class Sampler:
    "Something that draws n images in some steps, and the network in it whose time is told apart."
    def __init__(self, network, draw, device): self.network, self.draw, self.device = network, draw, device

    def wait(self):
        if self.device.type == 'cuda': torch.cuda.synchronize()

    def seconds(self, n, steps):
        self.wait()
        start = time.perf_counter()
        x = self.draw(n, steps)
        self.wait()
        assert x.shape == (n, 1, SIZE, SIZE) and x.isfinite().all()
        return time.perf_counter() - start

    def seconds_outside(self, n, steps):
        "Seconds, and the share of them that is not spent in the network."
        inside, started = [], []
        def before(*_): self.wait(); started.append(time.perf_counter())
        def after(*_): self.wait(); inside.append(time.perf_counter() - started[-1])
        hooks = [self.network.register_forward_pre_hook(before), self.network.register_forward_hook(after)]
        total = self.seconds(n, steps)
        for hook in hooks: hook.remove()
        assert len(inside) == steps, f'{len(inside)} calls of the network in {steps} steps'
        return total, 1 - sum(inside)/total


def ours(device, default=False, compiled=False):
    model = our_network()
    network = torch.compile(model, mode='reduce-overhead' if device.type == 'cuda' else 'default') if compiled else model
    at_precision = AtPrecision(network, device, 'auto' if default else 'fp32')
    def draw(n, steps, x_T=None): return ddim_sample(REVERSE, at_precision, (n, 1, SIZE, SIZE), steps, spacing='leading', x_T=x_T)
    return Sampler(network, draw, device)


def diffusers_pipeline(device, default=False):
    "From the folder that save_diffusers writes: the library reads our weights."
    with tempfile.TemporaryDirectory() as folder:
        save_diffusers(our_network(), REVERSE, Path(folder)/'model', size=SIZE)
        pipe = DDIMPipeline(UNet2DModel.from_pretrained(Path(folder)/'model').eval(), DDIMScheduler.from_pretrained(Path(folder)/'model', subfolder=None)).to(device)
    pipe.set_progress_bar_config(disable=True)
    dtype, layout = fastest_settings(device) if default else (torch.float32, torch.contiguous_format)
    pipe.unet.to(memory_format=layout)
    def draw(n, steps, generator=None):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return pipe(batch_size=n, num_inference_steps=steps, generator=generator, use_clipped_model_output=True, output_type='pt').images
    return Sampler(pipe.unet, draw, device)


def lucidrains(device, steps):
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(Unet(dim=40, dim_mults=(1, 2, 4), channels=1, flash_attn=False), image_size=SIZE, timesteps=1000, sampling_timesteps=steps).to(device).eval()
    def draw(n, steps):
        with contextlib.redirect_stderr(io.StringIO()): return diffusion.sample(batch_size=n)
    return Sampler(diffusion.model, draw, device)


def same_pictures(mine, theirs, steps=10):
    "AssertionError unless the two draw the same four pictures from the same noise."
    a = mine.draw(4, steps, torch.randn(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).to(mine.device))
    b = theirs.draw(4, steps, torch.Generator().manual_seed(1))
    inside = (b > 0) & (b < 1)
    error = ((a/2 + 0.5).clamp(0, 1) - b).abs().max().item()
    assert inside.float().mean() > 0.05 and error < 1e-3, (inside.float().mean(), error)
    return error


def flops(device):
    "Floating-point operations of one call of our network for one image."
    from torch.utils.flop_counter import FlopCounterMode
    model = our_network().to(device)
    with FlopCounterMode(display=False) as counter, torch.no_grad(): model(torch.zeros(1, 1, SIZE, SIZE, device=device), torch.ones(1, dtype=torch.int64, device=device))
    return counter.get_total_flops()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--n', type=int, default=256)
    parser.add_argument('--steps', type=int, default=50)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--peak', type=float, help='TFLOP/s that the device can do in our default arithmetic; prints the fraction reached')
    args = parser.parse_args()
    device = torch.device(args.device)
    samplers = {'ours, fp32': ours(device), 'ours, in our default': ours(device, True), 'diffusers DDIMPipeline, as shipped': diffusers_pipeline(device),
                'diffusers DDIMPipeline, in our default': diffusers_pipeline(device, True), 'denoising-diffusion-pytorch, as shipped': lucidrains(device, args.steps)}
    error = same_pictures(samplers['ours, fp32'], samplers['diffusers DDIMPipeline, as shipped'])
    if args.compile: samplers |= {'ours, in our default, compiled': ours(device, True, True)}
    for sampler in samplers.values(): sampler.seconds(min(args.n, 8) if device.type == 'cpu' else args.n, args.steps)
    seconds, outside = {name: [] for name in samplers}, {}
    rounds = args.rounds if device.type == 'cpu' else args.rounds + 1
    for r in range(rounds):
        for name, sampler in samplers.items():
            if r == rounds - 1: s, outside[name] = sampler.seconds_outside(args.n, args.steps)
            else: s = sampler.seconds(args.n, args.steps)
            if r < args.rounds: seconds[name].append(s)
            print(f'round {r + 1}: {name}: {s:.2f} s', file=sys.stderr, flush=True)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    best = min(s for name, s in median.items() if name.endswith('as shipped'))
    dtype, layout = fastest_settings(device)
    print(f'{args.n} images of 1×{SIZE}×{SIZE}, {args.steps} steps of DDIM on {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}; our default: {dtype}, {layout}; medians of {args.rounds} rounds')
    print(f'ours and diffusers from the same noise differ by {error:.0e} at most\n{"":42}{"parameters":>12}{"seconds":>10}{"ratio":>8}{"outside":>10}')
    for name, sampler in samplers.items():
        print(f'{name:42}{count_parameters(sampler.network):12,}{median[name]:10.2f}{median[name]/best:8.2f}{outside[name]:10.1%}')
    rate = flops(device)*args.n*args.steps/min(s for name, s in median.items() if name.startswith('ours'))/1e12
    print(f'our fastest: {rate:.3g} TFLOP/s in the network' + (f', {rate/args.peak:.1%} of the peak' if args.peak else ''))


if __name__ == '__main__': main()
