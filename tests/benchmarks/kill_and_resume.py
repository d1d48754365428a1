"""Exact resume, tried hard: runs that are killed (SIGKILL) at random moments and resumed until they end, against one that nobody disturbed.

    python tests/benchmarks/kill_and_resume.py                      50 trials, each killed about twice
    python tests/benchmarks/kill_and_resume.py --trials 5 --kills 4

Weights, averaged weights and losses must be equal to the last bit, on the CPU in fp32. Dropout, flips, importance sampling and accumulation are on."""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = ('--device cpu --precision fp32 --T 40 --widths 16 32 --batch 16 --steps 120 --warmup 10 --save-every 7 --dropout 0.2 --flips --accumulate 2 '
       '--variance learned_range --draw-t importance --objective vlb').split()


def train(*args): return subprocess.Popen([sys.executable, '-m', 'ddpm_course.cli', 'train', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(folder): return [(folder/name).read_bytes() for name in ('model.safetensors', 'ema.safetensors', 'losses.csv')]


def command(folder):
    "Go on where there is a checkpoint; else begin again."
    if any((folder/'checkpoints').glob('step_*.safetensors')): return '--resume', folder
    shutil.rmtree(folder, ignore_errors=True)
    return *RUN, '--out', folder


def trial(folder, kills, seconds, rng):
    "Start, kill at a random moment, and so on; then let it end. Returns how often it was really killed while running."
    killed = 0
    for _ in range(kills):
        process = train(*command(folder))
        time.sleep(rng.uniform(0, seconds))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    out, err = (process := train(*command(folder))).communicate()
    assert process.returncode == 0, err
    return killed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--trials', type=int, default=50)
    parser.add_argument('--kills', type=int, default=2, help='in each trial')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    rng, equal, killed = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        whole = train(*RUN, '--out', Path(place)/'whole')
        assert whole.wait() == 0, whole.stderr.read()
        seconds, wanted = time.perf_counter() - start, result(Path(place)/'whole')
        for i in range(args.trials):
            folder = Path(place)/f'trial-{i}'
            killed += trial(folder, args.kills, seconds, rng)
            equal += result(folder) == wanted
            print(f'{equal} of {i + 1} trials equal to the last bit, after {killed} kills', flush=True)
            shutil.rmtree(folder)
    sys.exit(equal != args.trials)


if __name__ == '__main__': main()
