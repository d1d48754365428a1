"Several processes do what one does, and none of them waits for the dead."
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file
from ddpm_course import ranks
from ddpm_course.ranks import any_process, first_then_all, from_first, share, union

OPTIONS = '--device cpu --precision fp32 --T 50 --widths 16 --batch 9 --warmup 5 --seed 3'.split()


def start(processes, *args, **kwargs):
    "python -m ddpm_course.cli in one process, or in several by torchrun. One thread each: the machine may have two cores."
    how = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)] if processes > 1 else []
    return subprocess.Popen([sys.executable, *how, '-m', 'ddpm_course.cli', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {'OMP_NUM_THREADS': '1'}, **kwargs)


def run(processes, *args):
    out, err = (process := start(processes, *args)).communicate(timeout=240)
    assert process.returncode == 0, out + err
    return out


def rows_of(path):
    with open(path) as f: return list(csv.reader(f))[1:]


def losses(folder):
    with open(folder/'losses.csv') as f: return torch.tensor([float(row['loss']) for row in csv.DictReader(f)])


@pytest.mark.parametrize('how', ['--sample-every 25 --fid-samples 31', '--objective vlb --variance learned --draw-t importance --accumulate 2 --T 4 --labels'], ids=['simple', 'importance, in parts, with labels'])
def test_two_processes_train_as_one(tmp_path, how):
    one, two = (tmp_path/name for name in ('one', 'two'))
    for n, folder in ((1, one), (2, two)): out = run(n, 'train', *OPTIONS, '--steps', 50, *how.split(), '--out', folder)
    assert out.count('done:') == out.count('writing to') == 1, 'one process speaks for all'
    a, b = losses(one), losses(two)
    assert len(a) == len(b) == 50 and (a - b).abs().max() < 1e-5*max(1, a.abs().max())
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    weights, theirs = (load_file(folder/'ema.safetensors') for folder in (one, two))
    assert all((weights[k] - theirs[k]).abs().max() < 1e-3 for k in weights)
    with Image.open(one/'samples.png') as p, Image.open(two/'samples.png') as q:
        worst = max(high for _, high in ImageChops.difference(p.convert('RGB'), q.convert('RGB')).getextrema())
    assert worst <= 3, 'samples belong to their seeds, not to the processes'
    if 'fid' in how: assert [list(map(float, r)) for r in rows_of(two/'scores.csv')] == [pytest.approx(list(map(float, r)), rel=1e-3) for r in rows_of(one/'scores.csv')]


def test_one_process_goes_on_where_two_stopped(tmp_path):
    whole, part = tmp_path/'whole', tmp_path/'part'
    run(1, 'train', *OPTIONS, '--steps', 30, '--out', whole)
    run(2, 'train', *OPTIONS, '--steps', 30, '--save-every', 10, '--out', part)
    (part/'checkpoints'/'step_0000030.safetensors').unlink()
    run(1, 'train', '--resume', part)
    assert (losses(whole) - losses(part)).abs().max() < 1e-5


@pytest.mark.parametrize(('world', 'rest'), [(1, 'goes on\ncleared up\n'), (2, '')])
def test_one_of_several_leaves_without_clearing_up(world, rest):
    "Python's end may meet gloo's threads, which outlive DistributedDataParallel, and abort: a whole run would count as failed."
    program = "import atexit; from ddpm_course.ranks import leave; atexit.register(print, 'cleared up'); print('done'); leave(); print('goes on')"
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, env=os.environ | {'WORLD_SIZE': str(world)}, timeout=120)
    assert (result.returncode, result.stdout) == (0, 'done\n' + rest), result.stderr


def wait_for(path, process, seconds=120):
    end = time.time() + seconds
    while not path.exists() and process.poll() is None and time.time() < end: time.sleep(0.05)
    assert path.exists(), process.communicate()[1] if process.poll() is not None else 'nothing happened'


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='finds child processes as Linux lists them')
def test_a_killed_process_ends_the_run(tmp_path):
    process = start(2, 'train', *OPTIONS, '--steps', 1_000_000, '--save-every', 5, '--out', tmp_path/'run', start_new_session=True)
    try:
        wait_for(tmp_path/'run'/'checkpoints'/'step_0000005.safetensors', process)
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
        workers = [int(c) for c in children if b'RANK=1' in Path(f'/proc/{c}/environ').read_bytes().split(b'\0')]
        assert len(workers) == 1
        os.kill(workers[0], signal.SIGKILL)
        process.communicate(timeout=120)
        assert process.returncode not in (0, None)
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize('options, word', [(['--batch', '1'], 'larger batch'), (['--data', 'imagenet'], 'imagenet'), (['--out', '.'], 'already holds')])
def test_a_mistake_ends_all_processes_with_the_reason(tmp_path, options, word):
    (tmp_path/'something').touch()
    process = start(2, 'train', *OPTIONS, '--out', tmp_path/'run', *options, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode and word in err


@pytest.mark.parametrize('args', [[], ['paint'], ['--steps', '3']])
def test_the_module_asks_for_a_command(args):
    process = start(1, *args)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and 'train, sample or eval' in err and err.count('\n') == 1


@pytest.mark.parametrize('world', [1, 2, 3, 7])
def test_shares_are_the_whole(monkeypatch, world):
    for n in (0, 1, 5, 7, 8, 64):
        parts = []
        for rank in range(world):
            monkeypatch.setattr(ranks, 'rank_and_world', lambda rank=rank: (rank, world))
            parts.append(share(torch.arange(n)).tolist())
            assert share(list(range(n))) == parts[-1]
        assert sum(parts, []) == list(range(n)) and max(map(len, parts)) - min(map(len, parts)) <= 1
        assert [len(p) for p in parts] == [len(p) for p in torch.empty(n).tensor_split(world)]


def test_alone_nothing_happens():
    rows = torch.arange(3)
    assert union(rows, 3) is rows and any_process(True) and not any_process(False)
    with pytest.raises(ValueError, match='mine'): from_first(lambda: int('mine'))
    calls = []
    assert first_then_all(lambda: calls.append(1) or 5) == 5 and len(calls) == 1
