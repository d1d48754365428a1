"What is generated is in sync with what it is generated from; what is written by hand is valid."
import ast
import shutil
import subprocess
import sys
import pytest
from notebooks import NOTEBOOKS, ROOT, name

READING_ORDER = ['gaussians', 'schedules', 'forward', 'reverse', 'elbo', 'losses', 'unet', 'training', 'sampling', 'ddim', 'score', 'metrics', 'improved', 'guidance', 'pretrained']
LIB = ['devices', 'ranks', 'data', 'plots', 'checkpoints', 'networks', 'diagnose']
ON_TOP = ['cli', 'presets', 'figures', 'exercises', 'widgets']


@pytest.fixture
def copy(tmp_path):
    ignore = shutil.ignore_patterns('.git', '_proc', '_docs', '*.egg-info', '__pycache__', 'runs', '.*_cache', '.venv', 'build', 'dist')
    return shutil.copytree(ROOT, tmp_path/'copy', ignore=ignore)


def differing(copy, pattern, folder):
    "Files below folder that the copy lacks, has more of, or has with other bytes."
    both = {p.relative_to(root) for root in (copy, ROOT) for p in (root/folder).glob(pattern) if '__pycache__' not in p.parts and '.ipynb_checkpoints' not in p.parts}
    same = lambda p: (copy/p).exists() and (ROOT/p).exists() and (copy/p).read_bytes() == (ROOT/p).read_bytes()
    return sorted(str(p) for p in both if not same(p))


def test_exports_are_in_sync(copy):
    for module in (copy/'ddpm_course').glob('*.py'):  # export never deletes the module of a removed notebook
        if module.name != '__init__.py': module.unlink()
    subprocess.run(['nbdev_export'], cwd=copy, check=True)
    assert not differing(copy, '*.py', 'ddpm_course'), 'run nbdev_export and commit what it writes'


def test_notebooks_are_clean(copy):
    subprocess.run(['nbdev_clean'], cwd=copy, check=True)
    assert not differing(copy, '**/*.ipynb', 'nbs'), 'run nbdev_clean'


def test_readme_is_fresh(copy):
    subprocess.run([sys.executable, '.ci/make_readme.py'], cwd=copy, check=True)
    assert (copy/'README.md').read_bytes() == (ROOT/'README.md').read_bytes(), 'run .ci/make_readme.py'
    assert not differing(copy, '*', 'readme_files'), 'run .ci/make_readme.py'


def test_workflows_are_valid():
    workflows = sorted((ROOT/'.github'/'workflows').glob('*.yml'))
    assert {'test.yml', 'docs.yml', 'release.yml'} <= {w.name for w in workflows}
    for check in (['check-jsonschema', '--builtin-schema', 'vendor.github-workflows'], ['actionlint']):
        done = subprocess.run([*check, *map(str, workflows)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def imports_of(module):
    "Names of the modules of this package that a module imports, wherever in it."
    tree = ast.parse((ROOT/'ddpm_course'/f'{module}.py').read_text(encoding='utf-8'))
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module]
    return {m.split('.')[0] for m in froms}


def test_modules_import_only_what_was_taught_before():
    for i, module in enumerate(READING_ORDER):
        allowed = set(READING_ORDER[:i]) | set(LIB)
        assert imports_of(module) <= allowed, f'{module} imports {sorted(imports_of(module) - allowed)}'
    for module in LIB: assert not imports_of(module) & {'training', 'sampling', 'ddim', *ON_TOP}
    assert {p.stem for p in (ROOT/'ddpm_course').glob('*.py')} == {*READING_ORDER, *LIB, *ON_TOP, '__init__', '_modidx'}


def test_there_is_no_import_cycle():
    done, order = set(), READING_ORDER + LIB + ON_TOP
    while ready := [m for m in order if m not in done and imports_of(m) <= done]: done |= set(ready)
    assert done == set(order), f'in a cycle: {sorted(set(order) - done)}'


def test_importing_the_package_is_light():
    code = "import sys, ddpm_course; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'fastprogress')))"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_notebooks_are_light(path): assert path.stat().st_size < 1_500_000
