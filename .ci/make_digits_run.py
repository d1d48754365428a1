#!/usr/bin/env python
"""Train the run that ships with the package and put it into ddpm_course/assets/digits_run.

    python .ci/make_digits_run.py [folder of a run that is already trained]

The recipe is ddpm_train's own with more steps, attention at 4×4 and 297 digits kept aside for ddpm_eval; what ships is config.json and the averaged weights, in half precision
(1.4 MB). About six minutes on two cores."""
import subprocess
import sys
import tempfile
from pathlib import Path
from safetensors.torch import load_file, save
from ddpm_course.checkpoints import load_config, save_json
from ddpm_course.plots import save_whole

TARGET = Path(__file__).parents[1]/'ddpm_course'/'assets'/'digits_run'


def ship(run: Path) -> None:
    "Copy what sampling needs, without what belongs to one machine."
    TARGET.mkdir(parents=True, exist_ok=True)
    config = load_config(run)
    config['train']['out'] = None
    save_json(config, TARGET/'config.json')
    half = {k: v.half() for k, v in load_file(run/'ema.safetensors').items()}
    save_whole(TARGET/'ema.safetensors', lambda part: part.write_bytes(save(half)))


if __name__ == '__main__':
    if len(sys.argv) > 1: ship(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(['ddpm_train', '--steps', '3500', '--attention-at', '1', '--holdout', '297', '--out', f'{folder}/run'], check=True)
            ship(Path(folder)/'run')
