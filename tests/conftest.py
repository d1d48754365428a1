"Shared set-up: deterministic randomness, no display, and one tiny run for all."
import matplotlib
import pytest
import torch

matplotlib.use('agg')


@pytest.fixture(autouse=True)
def seeded(): torch.manual_seed(0)


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
    "A finished run of ddpm_train; not to be changed."
    from ddpm_course.cli import ddpm_train
    from tiny import OPTIONS
    folder = tmp_path_factory.mktemp('tiny')/'run'
    ddpm_train([*OPTIONS, '--out', str(folder)])
    return folder


@pytest.fixture
def tiny_copy(tiny_run, tmp_path):
    "A copy of the tiny run, to be broken at will."
    from shutil import copytree
    return copytree(tiny_run, tmp_path/'run')
