"""Seconds from moving a control to the new picture, for each control of each widget of lib/widgets.

    python tests/benchmarks/widgets.py                the usual threads
    OMP_NUM_THREADS=2 python tests/benchmarks/widgets.py

Each control goes to its slowest setting (most steps, longest schedule) and back, --rounds times; median and slowest of all moves. 'opens' is the whole of explore_…(), with reading the run. 'CPU' is what
this process computed in the median, over all threads: the same on a busy machine."""
import argparse
import statistics
import time
import torch
from ddpm_course.widgets import explore_ddim, explore_guidance, explore_interpolation, explore_ledger, explore_noise, explore_schedule

MOVES = {
    explore_schedule: dict(kind=('sigmoid', 'linear'), T=(4000, 1000), s=(0.1, 0.008), beta_T=(0.01, 0.02), rescale=(False, True)),
    explore_noise: dict(t=(1000, 1), digit=(8, 3), kind=('linear', 'cosine')),
    explore_ledger: dict(span=((2, 1000), (1, 10))),
    explore_ddim: dict(steps=(20, 19), eta=(1., 0.), spacing=('quadratic', 'uniform'), seed=(7, 0)),  # the others at 19 steps
    explore_interpolation: dict(weight=(0.1, 0.9), seed_a=(3, 0), seed_b=(4, 1), way=('straight line', 'arc')),
    explore_guidance: dict(label=(8, 3), scale=(8., 2.), seed=(5, 0))}


def seconds(act):
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    rounds = parser.parse_args().rounds
    explore_noise()  # fonts and kernels
    print(f'{torch.get_num_threads()} thread(s)\n{"widget":24}{"control":10}{"median s":>10}{"slowest s":>11}{"CPU s":>8}')
    for explore, moves in MOVES.items():
        made = []
        print(f'{explore.__name__:24}{"opens":10}{seconds(lambda: made.append(explore()))[0]:10.3f}')
        for name, values in moves.items():
            found = [seconds(lambda: setattr(made[0].controls[name], 'value', value)) for _ in range(rounds) for value in values]
            wall, cpu = zip(*found)
            print(f'{"":24}{name:10}{statistics.median(wall):10.3f}{max(wall):11.3f}{statistics.median(cpu):8.3f}', flush=True)
