"""Lessons and recipes in a real JupyterLab, in headless Chromium: each is opened, run to its end, looked over for formulas that do not render and pictures that do not show, and every slider in it is moved.

    python tests/browser.py                        all of them, from a folder that holds nothing else; a line and screenshots for each
    python tests/browser.py tour 01_schedules      some of them

Needs jupyterlab and selenium (the development extra), and Debian's chromium and chromium-driver. Cells flagged slow, gpu, hub or notest are left out."""
import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
import nbformat
from notebooks import TAUGHT

CHROMIUM, DRIVER = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
FLAGGED = re.compile(r'^#\|\s*(eval:\s*false|slow|gpu|hub|notest)\b', re.M)
NOTEBOOK = 'window.jupyterapp.shell.currentWidget'
READY = f"return !!(window.jupyterapp && {NOTEBOOK} && {NOTEBOOK}.context && {NOTEBOOK}.context.sessionContext.isReady && {NOTEBOOK}.context.sessionContext.session?.kernel?.status == 'idle')"
CELLS = f"""return Array.from({NOTEBOOK}.content.model.cells).filter(c => c.type == 'code').map(c => ({{id: c.id, count: c.executionCount, state: c.executionState,
    outputs: Array.from({{length: c.outputs.length}}, (_, i) => c.outputs.get(i).toJSON())}}))"""

FLAWS = """const seen = [], text = n => n.parentElement.closest('pre, code, mjx-container, .MathJax') ? '' : n.textContent;
    document.querySelectorAll('.jp-Notebook mjx-merror, .jp-Notebook mjx-container [style*="color: red"]').forEach(n => seen.push('formula: ' + n.textContent.slice(0, 80)));
    document.querySelectorAll('.jp-Notebook .jp-RenderedMarkdown').forEach(m => {
        const walk = document.createTreeWalker(m, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) if (/\\$\\$|\\\\(frac|tag|sqrt|bar|begin)\\b/.test(text(walk.currentNode))) seen.push('raw LaTeX: ' + walk.currentNode.textContent.slice(0, 80)); });
    document.querySelectorAll('.jp-Notebook img').forEach(i => { if (i.complete && !i.naturalWidth && /^(data|blob|http:..127)/.test(i.src)) seen.push('picture: ' + i.src.slice(0, 80)); });
    return seen;"""


@contextmanager
def jupyterlab(folder: Path, scratch: Path):
    "A JupyterLab that serves a folder; gives its address. Nothing of the user's own settings is read or written."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | {f'JUPYTER_{kind}_DIR': str(scratch/kind.lower()) for kind in ('CONFIG', 'DATA', 'RUNTIME')} | dict(IPYTHONDIR=str(scratch/'ipython'), JUPYTERLAB_SETTINGS_DIR=str(scratch/'settings'))
    (settings := scratch/'settings'/'@jupyterlab'/'notebook-extension').mkdir(parents=True)
    (settings/'tracker.jupyterlab-settings').write_text('{"windowingMode": "none"}')  # all cells are drawn, not only those in sight
    options = ['--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=', f'--ServerApp.root_dir={folder}', '--LabApp.expose_app_in_browser=True',
               '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    with open(scratch/'log', 'w') as log: server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *options], env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: answers(f'http://127.0.0.1:{port}/api'), 90, 'JupyterLab does not start')
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def chromium(scratch: Path):
    "A browser without a screen."
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--window-size=1200,1400', '--disable-background-networking', '--no-first-run', f'--user-data-dir={scratch/"profile"}'):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try: yield driver
    finally: driver.quit()


def answers(address: str) -> bool:
    try: return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError: return False


def wait_for(condition, seconds: float, complaint: str):
    "Ask until the answer is not falsy. TimeoutError otherwise."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition(): return found
        time.sleep(0.2)
    raise TimeoutError(complaint)


def run_lesson(driver, address: str, name: str, seconds: float = 600) -> list[dict]:
    "Open a lesson, run all cells, wait for the end. Its code cells as JupyterLab has them. AssertionError for a cell that raised or did not run."
    driver.get(f'{address}/doc/tree/{name}.ipynb')
    wait_for(lambda: driver.execute_script(READY), 120, f'{name} does not open')
    before = [c['id'] for c in driver.execute_script(CELLS)]
    driver.execute_script(f"{NOTEBOOK}.context.model.cells; window.jupyterapp.commands.execute('notebook:run-all-cells')")
    done = lambda cells: cells if all(c['count'] for c in cells) or any(o['output_type'] == 'error' for c in cells for o in c['outputs']) else None
    cells = wait_for(lambda: driver.execute_script(READY) and done(driver.execute_script(CELLS)), seconds, f'{name} does not come to its end')
    errors = [f'{o["ename"]}: {o["evalue"]}' for c in cells for o in c['outputs'] if o['output_type'] == 'error']
    assert not errors, f'{name}: {errors[0]}'
    assert [c['id'] for c in cells] == before and cells
    return cells


def settled(picture) -> bool:
    "Whether a picture stays as it is for a second."
    before = picture()
    time.sleep(1)
    return picture() == before


def flaws(driver) -> list[str]:
    "Formulas that could not be set, LaTeX that shows as it was typed, pictures that do not show."
    end = time.monotonic() + 20  # formulas are set a little later than the text
    while (found := driver.execute_script(FLAWS)) and time.monotonic() < end: time.sleep(1)
    return found


def move_sliders(driver, cells: list[dict], name: str, shots: Path | None = None) -> int:
    "Move every slider below the code cells, and see the picture beside it change. Returns how many there were."
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    order, moved = driver.execute_script(f'return Array.from({NOTEBOOK}.content.model.cells).map(c => c.id)'), 0
    for cell in (c for c in cells if any('application/vnd.jupyter.widget-view+json' in o.get('data', {}) for o in c['outputs'])):
        position = order.index(cell['id'])
        driver.execute_script(f"{NOTEBOOK}.content.activeCellIndex = {position}; {NOTEBOOK}.content.scrollToItem({position}, 'start')")
        node = wait_for(lambda: driver.execute_script(f'return {NOTEBOOK}.content.widgets[{position}].node'), 20, 'the cell does not show')
        handles = lambda: node.find_elements(By.CSS_SELECTOR, '.widget-slider .noUi-target:not([disabled]) .noUi-handle')
        picture = lambda: ''.join(i.get_attribute('src') for i in node.find_elements(By.CSS_SELECTOR, '.jupyter-widgets img, .widget-output img'))
        wait_for(lambda: picture() and handles(), 30, f'{name}: a widget without a picture or a slider')
        for handle in handles():
            wait_for(lambda: settled(picture), 20, f'{name}: the picture does not come to rest')
            before, low, high, at = picture(), *(float(handle.get_attribute(a)) for a in ('aria-valuemin', 'aria-valuemax', 'aria-valuenow'))
            driver.execute_script('arguments[0].scrollIntoView({block: "center"}); arguments[0].focus()', handle)
            for _ in range(3): handle.send_keys(Keys.PAGE_DOWN if at > (low + high)/2 else Keys.PAGE_UP)
            wait_for(lambda: picture() not in ('', before), 20, f'{name}: the picture does not follow the slider {handle.get_attribute("aria-label") or moved}')
            moved += 1
        if shots: driver.save_screenshot(str(shots/f'{name}_widget_{position}.png'))
    return moved


def copy_without_flagged(lesson: Path, folder: Path) -> None:
    "The lesson as a learner gets it, without cells that take very long or need what is not here."
    nb = nbformat.read(lesson, 4)
    nb.cells = [c for c in nb.cells if c.cell_type != 'code' or not FLAGGED.search(c.source)]
    nbformat.write(nb, folder/lesson.name)


def main(names: list[str], shots: Path) -> None:
    shots.mkdir(parents=True, exist_ok=True)
    chosen = [p for p in TAUGHT if not names or p.stem in names]
    with tempfile.TemporaryDirectory() as scratch:
        (folder := Path(scratch)/'course').mkdir()
        for lesson in chosen: copy_without_flagged(lesson, folder)
        with jupyterlab(folder, Path(scratch)) as address, chromium(Path(scratch)) as driver:
            for lesson in chosen:
                start = time.perf_counter()
                cells = run_lesson(driver, address, lesson.stem)
                seconds = time.perf_counter() - start
                assert not (found := flaws(driver)), f'{lesson.stem}: {found}'
                moved = move_sliders(driver, cells, lesson.stem, shots)
                driver.save_screenshot(str(shots/f'{lesson.stem}.png'))
                driver.execute_script(f'{NOTEBOOK}.context.sessionContext.shutdown()')
                print(f'{lesson.stem:24}{len(cells):4} code cells in {seconds:6.1f} s, {moved} sliders moved, no error', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('lessons', nargs='*', help='names such as 01_schedules (default: all)')
    parser.add_argument('--shots', type=Path, default=Path('screenshots'), help='folder for screenshots (default: screenshots)')
    options = parser.parse_args()
    main(options.lessons, options.shots)
