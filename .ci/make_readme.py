#!/usr/bin/env python
"""Make README.md from nbs/index.ipynb (what nbdev_readme does, without needing Quarto).

    python .ci/make_readme.py [folder of the project]

Markdown and the output of code cells go in as they are. Cells that start with `#| hide` stay out, `#| echo: false` leaves
out the code, `#| fig-alt: …` describes the picture. Pictures become files beside the README, in readme_files/."""
import re, shutil, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor

WARNING = '<!-- Made from nbs/index.ipynb by .ci/make_readme.py: edit there, not here. -->'


class Prepare(Preprocessor):
    "Drop hidden cells and directives, point links between lessons at nbs/."
    def preprocess(self, nb, resources):
        nb.cells = [c for c in nb.cells if not c.source.startswith(('#| hide', '#|hide'))]
        resources['alts'] = []
        for cell in nb.cells:
            resources['alts'] += re.findall(r'^#\|\s*fig-alt:\s*(.+)$', cell.source, re.M)
            silent = re.search(r'^#\|\s*echo:\s*false', cell.source, re.M)
            cell.source = '' if silent else re.sub(r'^#\|.*\n', '', cell.source, flags=re.M)
            if cell.cell_type == 'markdown': cell.source = re.sub(r'\]\((?!https?:|#)([\w/]+\.ipynb)\)', r'](nbs/\1)', cell.source)
        return nb, resources


def make(root: Path) -> None:
    "Write README.md and readme_files/ below root."
    nb = nbformat.read(root/'nbs'/'index.ipynb', 4)
    nb.metadata['language_info'] = {'name': 'python'}
    exporter = MarkdownExporter()
    exporter.register_preprocessor(Prepare, enabled=True)
    body, resources = exporter.from_notebook_node(nb, resources={'unique_key': 'readme', 'output_files_dir': 'readme_files'})
    body = re.sub(r'```python\s*```', '', body)
    alts = iter(resources['alts'])
    body = re.sub(r'!\[png\]', lambda m: f'![{next(alts, "figure")}]', body)
    body = re.sub(r'\n\s*\n\s*\n', '\n\n', body).strip()
    shutil.rmtree(root/'readme_files', ignore_errors=True)
    for name, data in resources['outputs'].items():
        (root/name).parent.mkdir(exist_ok=True)
        (root/name).write_bytes(data)
    (root/'README.md').write_text(f'{WARNING}\n\n{body}\n', encoding='utf-8')


if __name__ == '__main__': make(Path(sys.argv[1] if len(sys.argv) > 1 else '.').resolve())
