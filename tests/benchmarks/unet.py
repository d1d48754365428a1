"""The U-Net against diffusers' UNet2DModel: the same plan, the same weights, equal outputs; then speed and memory side by side.

    python tests/benchmarks/unet.py                  both plans, training step and forward pass, in every setting but compiled
    python tests/benchmarks/unet.py --rounds 3       fewer rounds (each round times ours and theirs once, one after the other)
    python tests/benchmarks/unet.py --compile        torch.compile as well (on a CPU some minutes of warming up)
    python tests/benchmarks/unet.py --device cuda

Ratios are ours / theirs, medians over the rounds. 'as shipped' is fp32 without further settings; 'our default' is what Trainer picks
for this device. Both use the same optimiser. Memory is the peak of a process of its own that takes two training steps (on CUDA, the allocator's)."""
import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
import torch
from diffusers import UNet2DModel
from ddpm_course.devices import fastest_settings
from ddpm_course.unet import UNet, count_parameters

PLANS = {
    '1×32×32, widths 32-64-128': dict(channels=1, widths=(32, 64, 128), attention=2, groups=16, batch=64),
    '3×32×32, cifar10-32 at width 64': dict(channels=3, widths=(64, 128, 128, 128), attention=1, groups=32, batch=16),
}
SETTINGS = {'fp32': (torch.float32, False), 'fp32 channels_last': (torch.float32, True), 'bf16': (torch.bfloat16, False), 'bf16 channels_last': (torch.bfloat16, True)}


def ours(channels, widths, attention, groups, batch):
    torch.manual_seed(0)
    model = UNet(channels, channels, widths, 2, (attention,), groups=groups)
    for p in model.parameters():  # no layer silent
        if not p.any(): torch.nn.init.normal_(p, std=0.02)
    return model


def theirs(channels, widths, attention, groups, batch):
    blocks = ['AttnDownBlock2D' if i == attention else 'DownBlock2D' for i in range(len(widths))]
    return UNet2DModel(sample_size=32, in_channels=channels, out_channels=channels, layers_per_block=2, block_out_channels=widths, down_block_types=blocks,
                       up_block_types=[b.replace('Down', 'Up') for b in reversed(blocks)], attention_head_dim=None, norm_num_groups=groups, norm_eps=1e-6,
                       downsample_padding=0, flip_sin_to_cos=False, freq_shift=1)


def pair(plan):
    "Both networks with the same weights. AssertionError unless their outputs agree to 1e-5."
    mine, other = ours(**plan).eval(), theirs(**plan).eval()
    other.load_state_dict(mine.state_dict())
    x, t = torch.randn(2, plan['channels'], 32, 32), torch.tensor([1, 700])
    with torch.no_grad(): a, b = mine(x, t), other(x, t - 1).sample
    assert (a - b).abs().max() < 1e-5*b.abs().max(), 'the two networks differ'
    return mine.train(), other.train()


class Runner:
    "One network in one setting: a training step or a forward pass at a time."
    def __init__(self, model, call, plan, dtype, channels_last, device, compiled=False):
        self.model = model.to(device)
        if channels_last: self.model.to(memory_format=torch.channels_last)
        self.forward = torch.compile(lambda x, t: call(self.model, x, t)) if compiled else lambda x, t: call(self.model, x, t)
        self.device, self.dtype = torch.device(device), dtype
        self.x = torch.randn(plan['batch'], plan['channels'], 32, 32, device=device)
        if channels_last: self.x = self.x.to(memory_format=torch.channels_last)
        self.noise, self.t = torch.randn_like(self.x), torch.randint(1, 1001, (plan['batch'],), device=device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def autocast(self): return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def train(self):
        with self.autocast(): loss = torch.nn.functional.mse_loss(self.forward(self.x, self.t).float(), self.noise)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def sample(self):
        with torch.no_grad(), self.autocast(): self.forward(self.x, self.t)

    def timed(self, kind):
        start = time.perf_counter()
        getattr(self, kind)()
        if self.device.type == 'cuda': torch.cuda.synchronize()
        return time.perf_counter() - start


def my_call(model, x, t): return model(x, t)


def their_call(model, x, t): return model(x, t - 1).sample


def chosen_name(device):
    "The setting that Trainer would pick."
    dtype, layout = fastest_settings(torch.device(device))
    return next(n for n, s in SETTINGS.items() if s == (dtype, layout == torch.channels_last))


def compare(plan, kind, rounds, device, compiled):
    "Median seconds of both networks in every setting; rounds alternate, so that a busy moment hits both."
    names = list(SETTINGS.items()) + ([(f'{n} compiled', s) for n, s in SETTINGS.items()] if compiled else [])
    runners = {}
    for name, setting in names:
        mine, other = pair(plan)
        runners[name] = [Runner(m, call, plan, *setting, device, 'compiled' in name) for m, call in ((mine, my_call), (other, their_call))]
    seconds = {(name, i): [] for name in runners for i in (0, 1)}
    for r in range(rounds + 1):  # the first one warms up
        for name, two in runners.items():
            for i, runner in enumerate(two):
                s = runner.timed(kind)
                if r: seconds[name, i].append(s)
    return {k: statistics.median(v) for k, v in seconds.items()}


def report(plan, kind, seconds, device):
    shipped = seconds['fp32', 1]
    best_name, best = min(((n, s) for (n, i), s in seconds.items() if i), key=lambda v: v[1])
    chosen = chosen_name(device)
    print(f'\n{kind}, ms      {"ours":>10}{"diffusers":>12}{"ratio":>8}{"/ shipped":>11}')
    for name in dict.fromkeys(n for n, _ in seconds):
        a, b = seconds[name, 0], seconds[name, 1]
        print(f'{name:18}{1000*a:10.0f}{1000*b:12.0f}{a/b:8.2f}{a/shipped:11.2f}' + ('   our default' if name == chosen else ''))
    print(f'our default ({chosen}) / diffusers as shipped {seconds[chosen, 0]/shipped:.2f}; / diffusers at its best ({best_name}) {seconds[chosen, 0]/best:.2f}')


def resident(field):
    "Memory of this process in MiB, now (VmRSS) or at its highest so far (VmHWM). Linux only."
    return int(Path('/proc/self/status').read_text().split(f'{field}:')[1].split()[0])/1024


def peak(which, plan_name, device, setting):
    "Peak memory in MiB of two training steps, in this process, beyond what it held with the network built."
    plan = PLANS[plan_name]
    model, call = (ours(**plan), my_call) if which == 'ours' else (theirs(**plan), their_call)
    before = resident('VmRSS')
    runner = Runner(model, call, plan, *SETTINGS[setting], device)
    for _ in range(2): runner.train()
    return torch.cuda.max_memory_allocated()/2**20 if device.startswith('cuda') else resident('VmHWM') - before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--plan', choices=PLANS)
    parser.add_argument('--peak', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak: print(peak(args.peak[0], args.peak[1], args.device, args.peak[2])); return
    for name, plan in PLANS.items():
        if args.plan not in (None, name): continue
        mine, other = pair(plan)
        print(f'\n== batch {plan["batch"]} of {name}: {count_parameters(mine):,} parameters here, {count_parameters(other):,} in diffusers; {torch.get_num_threads()} threads, torch {torch.__version__}')
        for kind in ('train', 'sample'): report(plan, kind, compare(plan, kind, args.rounds, args.device, args.compile), args.device)
        for setting in dict.fromkeys(('fp32', chosen_name(args.device))):
            command = [sys.executable, __file__, '--device', args.device, '--peak']
            found = [float(subprocess.run([*command, which, name, setting], capture_output=True, text=True, check=True).stdout) for which in ('ours', 'theirs')]
            print(f'peak memory of training, {setting}, MiB: ours {found[0]:.0f}, diffusers {found[1]:.0f}, ratio {found[0]/found[1]:.2f}')


if __name__ == '__main__': main()
