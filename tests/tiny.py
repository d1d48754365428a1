"A run small enough to train inside a test, and what tests do with runs: compare, interrupt, fill the disk."
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from safetensors.torch import load_file
from ddpm_course.data import load_digits
from ddpm_course.training import TrainConfig, build, train

TINY = dict(T=20, widths=(16,), layers=1, batch=8, steps=6, warmup=2)
OPTIONS = '--T 20 --widths 16 --layers 1 --batch 8 --steps 6 --warmup 2'.split()


def settings(**changes): return TrainConfig(**TINY | changes)


def start(out, **changes):
    "Train on the digits without drawing samples; returns the run folder."
    data, config = load_digits(), settings(out=str(out), **changes)
    return train(*build(config, data.shape), data, config)


def numbers(run):
    "Every weight of a run, byte for byte, and its losses."
    weights = {(file, k): v.numpy().tobytes() for file in ('model', 'ema') for k, v in load_file(run/f'{file}.safetensors').items()}
    return weights | {'losses': (run/'losses.csv').read_text()}


def leftovers(folder): return [p.name for p in folder.rglob('*') if 'part' in p.name]


def shell(*args, **kwargs):
    "A command of this package, started as a user would; Ctrl-C reaches it even if this test run ignores it."
    command = Path(sys.executable).with_name(args[0])
    return subprocess.Popen([command, *map(str, args[1:])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **kwargs)


@contextmanager
def no_file_longer_than(size):
    "As if the disk were full: every write beyond this many bytes fails."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def press_ctrl_c(): os.kill(os.getpid(), signal.SIGINT)
