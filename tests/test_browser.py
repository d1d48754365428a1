"Two lessons in a real JupyterLab: they run to their end, and their sliders move the pictures. `python tests/browser.py` does it for all."
from pathlib import Path
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from browser import CHROMIUM, DRIVER, chromium, copy_without_flagged, flaws, jupyterlab, move_sliders, run_lesson
from notebooks import ROOT

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "A browser, the address of a JupyterLab, and the folder that it serves."
    scratch = Path(tmp_path_factory.mktemp('lab'))
    (scratch/'course').mkdir()
    with jupyterlab(scratch/'course', scratch) as address, chromium(scratch) as driver: yield driver, address, scratch/'course'


@pytest.mark.parametrize('lesson, sliders', [('01_schedules', 1), ('02_forward', 1)])
def test_a_lesson_runs_and_its_sliders_move(lab, lesson, sliders):
    driver, address, folder = lab
    copy_without_flagged(ROOT/'nbs'/f'{lesson}.ipynb', folder)
    cells = run_lesson(driver, address, lesson)
    assert not flaws(driver)
    assert len(cells) > 20 and move_sliders(driver, cells, lesson) >= sliders


def test_what_goes_wrong_is_seen(lab):
    "An error in a cell, a slider that nothing follows, formulas and pictures that do not come out."
    driver, address, folder = lab
    python = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
    nbformat.write(new_notebook(cells=[new_code_cell('1/0')], metadata=python), folder/'error.ipynb')
    with pytest.raises(AssertionError, match='ZeroDivisionError'): run_lesson(driver, address, 'error')
    dead = 'import ipywidgets, io\nfrom PIL import Image\nb = io.BytesIO(); Image.new("L", (9, 9)).save(b, "png")\nipywidgets.VBox([ipywidgets.IntSlider(), ipywidgets.Image(value=b.getvalue())])'
    nbformat.write(new_notebook(cells=[new_code_cell(dead)], metadata=python), folder/'dead.ipynb')
    cells = run_lesson(driver, address, 'dead')
    with pytest.raises(TimeoutError, match='does not follow'): move_sliders(driver, cells, 'dead')
    bad = 'A picture ![](data:image/png;base64,AAAA), $$\\frac{1}{2}$$, $\\nonsense{1}$ and an unclosed $$ \\tag{1.1}.'
    nbformat.write(new_notebook(cells=[new_markdown_cell(bad), new_code_cell('1')], metadata=python), folder/'bad.ipynb')
    run_lesson(driver, address, 'bad')
    assert {f.split(':')[0] for f in flaws(driver)} == {'formula', 'raw LaTeX', 'picture'}
