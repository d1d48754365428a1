#!/usr/bin/env python
"""Train the runs that ship with the package and put them into ddpm_course/assets: digits_run, and digits_labels_run, which is told what it sees.

    python .ci/make_digits_run.py digits                  train one and ship it
    python .ci/make_digits_run.py digits-labels FOLDER    ship a run that is already trained

The recipe is ddpm_train's own with more steps, attention at 4×4 and 297 digits kept aside for ddpm_eval; what ships is config.json and the averaged weights, in half precision
(1.4 MB each). About six minutes a run on two cores."""
import argparse
import subprocess
import tempfile
from pathlib import Path
from safetensors.torch import load_file, save
from ddpm_course.checkpoints import SHIPPED_RUNS, load_config, save_json
from ddpm_course.plots import save_whole

ASSETS = Path(__file__).parents[1]/'ddpm_course'/'assets'
RECIPE = ['--steps', '3500', '--attention-at', '1', '--holdout', '297']
RECIPES = {'digits': RECIPE, 'digits-labels': [*RECIPE, '--labels']}


def ship(run: Path, target: Path) -> None:
    "Copy what sampling needs, without what belongs to one machine."
    target.mkdir(parents=True, exist_ok=True)
    config = load_config(run)
    config['train']['out'] = None
    save_json(config, target/'config.json')
    half = {k: v.half() for k, v in load_file(run/'ema.safetensors').items()}
    save_whole(target/'ema.safetensors', lambda part: part.write_bytes(save(half)))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', choices=RECIPES)
    parser.add_argument('folder', type=Path, nargs='?')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = options.folder or Path(scratch)/'run'
        if options.folder is None: subprocess.run(['ddpm_train', *RECIPES[options.name], '--out', str(run)], check=True)
        ship(run, ASSETS/SHIPPED_RUNS[options.name])
