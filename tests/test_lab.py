"The lessons as somebody gets them who installs the wheel: copied by ddpm_lab, never overwritten, and they run from any folder."
import os
import shutil
import subprocess
import sys
import zipfile
import pytest
from notebooks import NOTEBOOKS, ROOT
from ddpm_course import cli
from ddpm_course.cli import copy_lessons, ddpm_lab, lessons_folder

NAMES = sorted(p.relative_to(ROOT/'nbs') for p in NOTEBOOKS)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "Built from a copy of the tree."
    folder = tmp_path_factory.mktemp('wheel')
    tree = folder/'tree'
    for part in ('ddpm_course', 'nbs'): shutil.copytree(ROOT/part, tree/part, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'runs'))
    for file in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/file, tree/file)
    done = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--disable-pip-version-check', '--no-deps', '-w', folder, tree], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob('*.whl'))


def test_lessons_are_found_in_the_checkout(): assert lessons_folder() == ROOT/'nbs'


def test_copying_leaves_what_is_there(tmp_path):
    "A learner's answers survive a second ddpm_lab; what they deleted comes back."
    new, old = copy_lessons(ROOT/'nbs', tmp_path/'course')
    assert (new, old) == (len(NAMES), 0) and sorted(p.relative_to(tmp_path/'course') for p in (tmp_path/'course').rglob('*.*')) == NAMES
    for name in NAMES: assert (tmp_path/'course'/name).read_bytes() == (ROOT/'nbs'/name).read_bytes()
    (tmp_path/'course'/'tour.ipynb').write_text('my answers')
    (tmp_path/'course'/'lib'/'data.ipynb').unlink()
    assert copy_lessons(ROOT/'nbs', tmp_path/'course') == (1, len(NAMES) - 1)
    assert (tmp_path/'course'/'tour.ipynb').read_text() == 'my answers' and (tmp_path/'course'/'lib'/'data.ipynb').is_file()


def test_ddpm_lab_opens_the_index(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name == 'jupyterlab')
    monkeypatch.setattr('subprocess.run', lambda command: started.append(command) or subprocess.CompletedProcess(command, 0))
    ddpm_lab([])
    assert started == [[sys.executable, '-m', 'jupyterlab', os.path.join('ddpm-course', 'index.ipynb')]] and f'{len(NAMES)} notebooks copied' in capsys.readouterr().out
    ddpm_lab(['elsewhere', '--copy-only'])
    assert len(started) == 1 and (tmp_path/'elsewhere'/'index.ipynb').is_file()


@pytest.mark.parametrize('words', ['no_lab', 'no_lessons', 'a_file', 'nonsense'])
def test_what_cannot_be_is_said_in_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'file').write_text('')
    args = ['file'] if words == 'a_file' else ['--nonsense'] if words == 'nonsense' else []
    if words == 'no_lab': monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    if words == 'no_lessons': monkeypatch.setattr(cli, '__file__', str(tmp_path/'nowhere'/'cli.py'))
    with pytest.raises(SystemExit) as stop: ddpm_lab(args)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith('ddpm_lab: ') and err.count('\n') == 1 and (words != 'no_lab' or 'pip install' in err)


def test_the_wheel_carries_lessons_and_assets(wheel):
    inside = zipfile.ZipFile(wheel).namelist()
    assert {f'ddpm_course/notebooks/{name.as_posix()}' for name in NAMES} <= set(inside)
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT/'ddpm_course'/'assets').rglob('*') if p.is_file()} <= set(inside)
    assert not [p for p in inside if '__pycache__' in p or p.endswith('.part')]


@pytest.mark.parametrize('lesson', ['tour', '02_forward'])
def test_lessons_run_from_the_wheel_alone(wheel, tmp_path, lesson):
    "Installed without the checkout, copied by its own ddpm_lab, run in an empty folder: nothing but the wheel is at hand."
    site, course = tmp_path/'site', tmp_path/'empty'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps', '--target', site, wheel], check=True)
    env = os.environ | dict(PYTHONPATH=str(site), MPLBACKEND='agg')
    script = ('import sys, nbformat, ddpm_course; from nbclient import NotebookClient; from ddpm_course.cli import ddpm_lab\n'
              f'assert ddpm_course.__file__.startswith({str(site)!r}); ddpm_lab([{str(course)!r}, "--copy-only"])\n'
              f'NotebookClient(nbformat.read({str(course/lesson)!r} + ".ipynb", 4), timeout=300, kernel_name="python3", resources=dict(metadata=dict(path={str(course)!r}))).execute()')
    done = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
