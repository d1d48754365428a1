#!/usr/bin/env python
"""Every lesson as on Colab: the wheel alone in a fresh environment, notebooks copied by its own ddpm_lab into an empty folder, and run there.

    python .ci/like_colab.py                          all lessons and recipes, with the newest versions of what the package requires
    python .ci/like_colab.py --pins torch==2.11 torchvision==0.26 numpy==2.1 ipywidgets==7.7.1 fastprogress==1.1.6
    python .ci/like_colab.py --lessons tour 02_forward

Cells flagged slow, gpu, hub or notest are left out. Prints a line for each lesson; exit code 1 if one fails. Downloads 5 GB and takes some ten minutes on two cores."""
import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXECUTE = ROOT/'.ci'/'execute_notebooks.py'  # leaves flagged cells out


def main(lessons: list[str], pins: list[str]) -> int:
    "Number of lessons that failed."
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        place, env = Path(folder), {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'DDPM_'))} | dict(MPLBACKEND='agg')
        venv.create(place/'venv', with_pip=True)
        python = place/'venv'/'bin'/'python'
        call = lambda *words: subprocess.run([python, *words], cwd=place, env=env, check=True)
        call('-m', 'pip', 'wheel', '-q', '--disable-pip-version-check', '--no-deps', '-w', place, ROOT)
        call('-m', 'pip', 'install', '-q', '--disable-pip-version-check', next(place.glob('*.whl')), 'nbclient', 'ipykernel', *pins)
        call('-c', 'from ddpm_course.cli import ddpm_lab; ddpm_lab(["course", "--copy-only"])')
        for lesson in lessons or sorted(p.relative_to(place/'course').with_suffix('').as_posix() for p in (place/'course').rglob('*.ipynb') if p.parent.name in ('course', 'recipes')):
            start = time.perf_counter()
            done = subprocess.run([python, EXECUTE, place/'course'/f'{lesson}.ipynb'], cwd=place, env=env, capture_output=True, text=True)
            failed += done.returncode != 0
            print(f'{lesson:24}{time.perf_counter() - start:7.1f} s  ' + ('fine' if done.returncode == 0 else 'FAILED\n' + done.stderr[-1500:]), flush=True)
    return failed


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lessons', nargs='+', default=[])
    parser.add_argument('--pins', nargs='+', default=[])
    options = parser.parse_args()
    sys.exit(1 if main(options.lessons, options.pins) else 0)
