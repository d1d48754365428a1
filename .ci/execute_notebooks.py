#!/usr/bin/env python
"""Execute notebooks in a real kernel and save their outputs, as readers see them on GitHub.

    python .ci/execute_notebooks.py nbs/02_forward.ipynb ...     (all of them when none is named)

Cells flagged slow, gpu, hub or notest, or `eval: false`, are not run and keep the outputs they have; name them in
--flags to run them too. Widgets become the static figure they show; a second run changes nothing."""
import argparse, re, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient

WIDGET_VIEW, WIDGET_STATE = 'application/vnd.jupyter.widget-view+json', 'application/vnd.jupyter.widget-state+json'
FLAGS = {'slow', 'gpu', 'hub', 'notest'}


def widget_outputs(model_id, state):
    "Outputs of all Output widgets below a widget, in order."
    model = state[model_id]['state']
    found = list(model.get('outputs', ()))
    for child in model.get('children', ()): found += widget_outputs(child.removeprefix('IPY_MODEL_'), state)
    return found


def static_outputs(outputs, state):
    "Outputs with every widget replaced by what it shows, and without what progress bars leave behind (styles, empty displays)."
    flat = []
    for output in outputs:
        view = output.get('data', {}).get(WIDGET_VIEW)
        flat += [nbformat.from_dict(o) for o in widget_outputs(view['model_id'], state)] if view else [output]
    html = lambda o: ''.join(o.get('data', {}).get('text/html', 'kept')).strip()
    empty = lambda o: o.output_type == 'display_data' and not re.sub(r'<style>.*?</style>|</?div>', '', html(o), flags=re.S).strip()
    return [o for o in flat if not empty(o)]


def execute(path, flags=frozenset(), timeout=1200):
    "Run one notebook in its own folder and write its outputs into it."
    nb = nbformat.read(path, 4)
    skip = re.compile(r'^#\|\s*(eval:\s*false|' + '|'.join(sorted(FLAGS - set(flags))) + r')\b', re.M | re.I)
    old = {cell.id: cell.get('outputs') for cell in nb.cells}
    for cell in nb.cells:
        if cell.cell_type == 'code' and skip.search(cell.source): cell.metadata['tags'] = ['skip-execution']
    NotebookClient(nb, timeout=timeout, kernel_name='python3', coalesce_streams=True, resources={'metadata': {'path': str(path.parent)}},
                   skip_cells_with_tag='skip-execution').execute()
    state = nb.metadata.pop('widgets', {}).get(WIDGET_STATE, {}).get('state', {})
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        skipped = 'skip-execution' in cell.metadata.pop('tags', ())
        cell.outputs = old[cell.id] if skipped else static_outputs(cell.outputs, state)
        cell.metadata = {}
    nbformat.write(nb, path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path, help='notebooks to run; all below nbs/ when none is named')
    parser.add_argument('--flags', nargs='*', default=[], choices=sorted(FLAGS), help='flagged cells to run as well')
    args = parser.parse_args()
    for path in args.notebooks or sorted(Path('nbs').rglob('*.ipynb')):
        start = time.time()
        execute(path, args.flags)
        print(f'{path}: {time.time() - start:.1f} s', flush=True)
