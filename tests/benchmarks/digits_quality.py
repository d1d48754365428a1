"""Train on the digits with ddpm_train's defaults and measure the samples.

    python tests/benchmarks/digits_quality.py                 trains into a temporary folder first (two to three minutes)
    python tests/benchmarks/digits_quality.py runs/digits-1   measures a run that is there
    python tests/benchmarks/digits_quality.py digits          measures the run that ships with the package"""
import subprocess
import sys
import tempfile
import time
from pathlib import Path
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from quality import classifier, confidence, judge  # noqa: E402
from ddpm_course.checkpoints import load_run  # noqa: E402
from ddpm_course.data import load_digits  # noqa: E402
from ddpm_course.ddim import ddim_sample  # noqa: E402


def references():
    "Confidence of the classifier on real digits: those it was trained on, and half of them held out."
    digits = load_digits()
    x, y = digits.floats(), digits.labels
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    half, rest = order[:len(x)//2], order[len(x)//2:]
    return confidence(classifier(x, y), x)[0], confidence(classifier(x[half], y[half]), x[rest])[0]


def measure(run, n=2048, steps=50):
    "Sample n digits by DDIM and print the figures."
    model, reverse, _ = load_run(run)
    start = time.time()
    samples = torch.cat([ddim_sample(reverse, model, (256, 1, 8, 8), steps, seeds=range(i, i + 256)) for i in range(0, n, 256)])
    seconds, found = time.time() - start, judge(samples)
    seen, held_out = references()
    print(f'{n} samples by DDIM-{steps} in {seconds:.0f} s')
    print(f'recognised with more than 0.9: {found["recognised"]:.1%}   (goal 75%; real digits {seen:.1%}, held-out ones {held_out:.1%})')
    print(f'digits 0 … 9 occur             {found["counts"]}')
    print(f'Fréchet distance in pixels:    {found["distance"]:.3f}   ({found["distance"]/found["floor"]:.2f} × the {found["floor"]:.3f} of real against real; goal at most 1.3 ×)')


def main(run=None):
    if run is not None: return measure(run)
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        subprocess.run(['ddpm_train', '--out', f'{folder}/run'], check=True)
        print(f'ddpm_train with its defaults: {time.time() - start:.0f} s on {torch.get_num_threads()} threads')
        measure(f'{folder}/run')


if __name__ == '__main__': main(*sys.argv[1:2])
