#!/usr/bin/env python
"""Execute notebooks in a real kernel and save their outputs, as readers see them on GitHub.

    python .ci/execute_notebooks.py nbs/02_forward.ipynb ...     (all of them when none is named)

Cells flagged slow, gpu, hub or notest, or `eval: false`, are not run and keep the outputs they have; name them in
--flags to run them too. Widgets become the static figure they show; a second run changes nothing. Each figure gets an
alternative text for those who cannot see it: the cell's `#| fig-alt:`, or what is in it (axes, titles, legend) and the
caption below it, or else what is said above it. With --alt-only nothing is run, and only these texts are renewed."""
import argparse, re, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient

DESCRIBE = r"""
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
plt.close(plt.figure())  # the first figure sets up the notebook's own formatters, and takes away ours if they are there
def words_of_figure(figure, most=12):
    "Panels, axes and legend of a figure in words."
    plain = lambda text: ' '.join(text.split())
    listed = lambda names: ', '.join(names[:most]) + (' …' if len(names) > most else '')
    pictures, plots = [], []
    for ax in figure.axes:
        title, x, y = plain(ax.get_title()), plain(ax.get_xlabel()), plain(ax.get_ylabel())
        legend = [plain(t.get_text()) for t in ax.get_legend().get_texts()] if ax.get_legend() else []
        if ax.images and not ax.axison: pictures.append(title)
        elif ax.axison and (title or x or y): plots.append((title or 'A plot') + (f': {y} against {x}' if x and y else f', along {x or y}' if x or y else '') + (f' ({listed(legend)})' if legend else ''))
    parts = [f'{len(pictures)} picture{"s"*(len(pictures) > 1)}' + (f': {listed([t for t in pictures if t])}' if any(pictures) else '')] if pictures else []
    above = plain(figure._suptitle.get_text()) + '. ' if figure._suptitle else ''
    return above + '. '.join(parts + plots[:most]) + '.'
get_ipython().display_formatter.formatters['text/plain'].for_type(Figure, lambda figure, p, cycle: p.text(words_of_figure(figure)))
"""
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


SPOKEN = {r'\bar\alpha': 'ᾱ', r'\hat\sigma': 'σ̂', r'\tilde\beta': 'β̃', r'\tilde\mu': 'μ̃', r'\nabla': '∇', r'\varphi': 'φ', r'\alpha': 'α', r'\beta': 'β', r'\epsilon': 'ε', r'\sigma': 'σ', r'\mu': 'μ', r'\eta': 'η', r'\lambda': 'λ', r'\rho': 'ρ', r'\theta': 'θ', r'\sqrt': '√', r'\cdot': '·', r'\mid': '|',
          r'\times': '×', r'\approx': '≈', r'\le': '≤', r'\ge': '≥', r'\pm': '±', r'\to': '→', r'\dots': '…', r'\infty': '∞', r'\log': 'log ', r'\,': ' ', r'\ ': ' '}


def plain(markdown):
    "Text without markup, as a voice would read it."
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', markdown)
    for sign, spoken in SPOKEN.items(): text = re.sub(re.escape(sign) + r'(?![a-zA-Z])', spoken, text)
    return ' '.join(re.sub(r'[*`>${}]|\\(mathrm|mathcal|mathbb|hat|tilde|bar|left|right|lVert|rVert|text)\b ?|\\(?=[a-zA-Z|])', '', text).split())


def alternative_text(cells, i, words):
    "What a figure of cell i shows: its fig-alt, or its own words and the caption (in italics) below it."
    if given := re.search(r'^#\|\s*fig-alt:\s*(.+)', cells[i].source, re.M): return given[1].strip()
    below = next((c.source.strip() for c in cells[i + 1:i + 3] if c.cell_type == 'markdown'), '')
    caption = re.match(r'\*(?!\*)(.+?)(?<!\*)\*(?!\*)', below, re.S)
    found = ' '.join(filter(None, ['' if words.startswith('<') else words, plain(caption[1]) if caption else '']))
    return found if len(found) >= 15 else f'{found} {said_above(cells, i)}'.strip('. ') + '.'


def said_above(cells, i):
    "The last sentences before cell i."
    above = [p.strip() for c in cells[:i] if c.cell_type == 'markdown' for p in re.split(r'\n\s*\n', c.source)]
    return plain(next((p for p in reversed(above) if re.match(r'[\w*>(`$“"]', p) and len(p) >= 15), ''))


def describe_figures(cells):
    "Put the alternative texts into the outputs of cells; one that a widget has brought along stays."
    for i, cell in enumerate(cells):
        for output in (o for o in cell.get('outputs', ()) if 'image/png' in o.get('data', {})):
            words, alt = ''.join(output['data'].get('text/plain', '<')), output['metadata'].get('image/png', {}).get('alt')
            if alt == words and len(words) >= 15: continue
            if not words.startswith('<'): words = output['data']['text/plain'] = plain(words)
            output['metadata'] = {'image/png': {'alt': alternative_text(cells, i, words)}}


def execute(path, flags=frozenset(), timeout=1200):
    "Run one notebook in its own folder and write its outputs into it."
    nb = nbformat.read(path, 4)
    skip = re.compile(r'^#\|\s*(eval:\s*false|' + '|'.join(sorted(FLAGS - set(flags))) + r')\b', re.M | re.I)
    old = {cell.id: cell.get('outputs') for cell in nb.cells}
    for cell in nb.cells:
        if cell.cell_type == 'code' and skip.search(cell.source): cell.metadata['tags'] = ['skip-execution']
    nb.cells.insert(0, nbformat.v4.new_code_cell(DESCRIBE))
    NotebookClient(nb, timeout=timeout, kernel_name='python3', coalesce_streams=True, resources={'metadata': {'path': str(path.parent)}},
                   skip_cells_with_tag='skip-execution').execute()
    del nb.cells[0]
    state = nb.metadata.pop('widgets', {}).get(WIDGET_STATE, {}).get('state', {})
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        skipped = 'skip-execution' in cell.metadata.pop('tags', ())
        cell.outputs = old[cell.id] if skipped else static_outputs(cell.outputs, state)
        cell.metadata = {}
    describe_figures(nb.cells)
    nbformat.write(nb, path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path, help='notebooks to run; all below nbs/ when none is named')
    parser.add_argument('--flags', nargs='*', default=[], choices=sorted(FLAGS), help='flagged cells to run as well')
    parser.add_argument('--alt-only', action='store_true', help='run nothing, renew the alternative texts of figures')
    args = parser.parse_args()
    for path in args.notebooks or sorted(Path('nbs').rglob('*.ipynb')):
        if args.alt_only:
            nb = nbformat.read(path, 4)
            describe_figures(nb.cells)
            nbformat.write(nb, path)
            continue
        start = time.time()
        execute(path, args.flags)
        print(f'{path}: {time.time() - start:.1f} s', flush=True)
