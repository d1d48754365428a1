"Every lesson keeps the course's promises: equations run, figures are there, solutions work, cells stay short."
import re
from html import escape
import statistics
import subprocess
import sys
import pytest
from nbconvert import HTMLExporter
from notebooks import LESSONS, NOTEBOOKS, ROOT, cells, name, read, solutions

lessons = pytest.mark.parametrize('path', LESSONS, ids=name)
notebooks = pytest.mark.parametrize('path', NOTEBOOKS, ids=name)


def test_the_main_line_is_there():
    stems = [p.stem for p in LESSONS]
    wanted = ['00_gaussians', '01_schedules', '02_forward', '03_reverse', '04_elbo', '05_simple_loss', '06_unet', '07_training', '08_sampling', '09_ddim', '10_score', '11_metrics', '12_improved', '13_guidance', '14_published_weights', '15_bug_museum', 'tour']
    assert set(wanted) <= set(stems)


@lessons
def test_every_numbered_equation_is_checked_by_a_later_cell(path):
    all_cells = read(path).cells
    tags = [(i, tag) for i, c in enumerate(all_cells) if c.cell_type == 'markdown' for tag in re.findall(r'\\tag\{([\w.]+)\}', c.source)]
    names = [tag for _, tag in tags]
    assert names, 'a lesson without a numbered equation'
    assert len(names) == len(set(names)), f'numbered twice: {sorted(t for t in names if names.count(t) > 1)}'
    checks = [(i, c.source) for i, c in enumerate(all_cells) if c.cell_type == 'code' and re.search(r'#\s*checks\b', c.source)]
    missing = [tag for i, tag in tags if not any(j > i and re.search(r'#\s*checks\b[^\n]*\(' + re.escape(tag) + r'\)', s) for j, s in checks)]
    assert not missing, f'equations without a checking cell after them: {missing}'
    silent = [s for _, s in checks if 'assert' not in s and 'test_' not in s]
    assert not silent, f'a checking cell that asserts nothing:\n{silent[0]}'


@lessons
def test_checks_name_equations_that_exist(path):
    text = '\n'.join(c.source for c in cells(path, 'markdown'))
    tags = set(re.findall(r'\\tag\{([\w.]+)\}', text))
    named = {tag for c in cells(path, 'code') for line in re.findall(r'#\s*checks\b([^\n]*)', c.source) for tag in re.findall(r'\(([T\d]+\.\d+)\)', line)}
    assert named <= tags, f'checks of equations that are not in the lesson: {sorted(named - tags)}'


@lessons
def test_lesson_has_figures(path):
    figures = [o for c in cells(path, 'code') for o in c.outputs if 'image/png' in o.get('data', {})]
    assert len(figures) >= 3


@notebooks
def test_figures_have_alternative_texts(path):
    for c in cells(path, 'code'):
        for o in c.outputs:
            if 'image/png' not in o.get('data', {}): continue
            alt = o.metadata.get('image/png', {}).get('alt', '')
            assert len(alt) >= 15 and not alt.startswith('<') and not re.search(r'\\[a-zA-Z]|\$', alt), f'a figure that is not described ({alt!r}); run .ci/execute_notebooks.py on:\n{c.source}'


@notebooks
def test_a_printed_notebook_is_whole(path):
    "As HTML: every figure is there with its text, and formulas have come through as they were written."
    html, _ = HTMLExporter(template_name='classic').from_notebook_node(read(path))
    pictures = [o for c in cells(path, 'code') for o in c.outputs if 'image/png' in o.get('data', {})]
    shown = re.findall(r'<img\b[^>]*>', html)
    undescribed = [tag[-120:] for tag in shown if 'alt=' not in tag or 'No description' in tag]
    assert sum('data:image/png' in tag for tag in shown) >= len(pictures) and not undescribed
    text = ' '.join(html.split())
    for c in cells(path, 'markdown'):
        prose = re.sub(r'```.*?```|`[^`]*`', '', c.source, flags=re.S)
        assert prose.count('$$') % 2 == 0, f'a formula is not closed:\n{c.source}'
        for formula in re.findall(r'\$\$(.+?)\$\$', prose, re.S): assert escape(' '.join(formula.split()), quote=False) in text, f'a formula was mangled: {formula}'


@notebooks
def test_saved_outputs_are_whole(path):
    for c in cells(path, 'code'):
        for o in c.outputs:
            assert o.output_type != 'error', f'an error is saved in the outputs of:\n{c.source}'
            assert 'application/vnd.jupyter.widget-view+json' not in o.get('data', {}), 'a widget without its figure'
            text = ''.join(o.get('text', '')) + ''.join(o.get('data', {}).get('text/plain', ''))
            assert not re.search(r' at 0x[0-9a-f]{6,}', text), f'a memory address is saved in the outputs of:\n{c.source}'
            assert str(ROOT) not in text, f'a path of one machine is saved in the outputs of:\n{c.source}'


@lessons
def test_cells_are_short(path):
    sizes = [sum(bool(line.strip()) for line in c.source.splitlines()) for c in cells(path, 'code')]
    assert statistics.median(sizes) <= 6 and max(sizes) <= 25, f'median {statistics.median(sizes)}, longest {max(sizes)} lines'


@lessons
def test_opening(path):
    opening = cells(path, 'markdown')[0].source
    assert re.match(r'# .+\n\n> .+', opening), 'a lesson opens with a title and one sentence'
    assert f'/blob/main/nbs/{path.name})' in opening and 'colab-badge.svg' in opening, 'no Colab badge, or that of another lesson'
    assert "find_spec('ddpm_course')" in cells(path, 'code')[0].source, 'the first code cell installs the package where it is missing'


@notebooks
def test_links_between_notebooks_lead_somewhere(path):
    for c in cells(path, 'markdown'):
        for target in re.findall(r'\]\(([^)#:\s]+\.(?:ipynb|md|png|py))(?:#[^)]*)?\)', c.source):
            assert (path.parent/target).exists(), f'{target} is linked but does not exist'


@lessons
def test_exercises_come_with_solutions(path):
    text = '\n'.join(c.source for c in cells(path, 'markdown'))
    exercises = re.findall(r'\*\*Exercise [\w.]+', text)
    assert 3 <= len(exercises) <= 6 and len(solutions(path)) >= len(exercises)


@lessons
def test_folded_solutions_run(path):
    codes = solutions(path)
    assert all('assert' in code for code in codes), 'a solution that checks nothing'
    script = "import matplotlib; matplotlib.use('agg')\n" + '\n'.join(f"exec(compile({code!r}, 'solution {i} of {path.name}', 'exec'), {{'__name__': 'solution'}})" for i, code in enumerate(codes, 1))
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
