"What the project's tests look at in the notebooks."
import re
from pathlib import Path
import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
LESSONS = [p for p in NOTEBOOKS if p.parent == ROOT/'nbs' and (p.name[:2].isdigit() or p.stem == 'tour')]
TAUGHT = [p for p in NOTEBOOKS if p.parent in (ROOT/'nbs', ROOT/'nbs'/'recipes')]  # lessons, clinic, index and recipes
SOLUTION = re.compile(r'<details>.*?</details>', re.S)
BLOCK = re.compile(r'```python\n(.*?)```', re.S)


def name(path): return path.relative_to(ROOT/'nbs').with_suffix('').as_posix()


def read(path): return nbformat.read(path, 4)


def cells(path, kind): return [c for c in read(path).cells if c.cell_type == kind]


def solutions(path):
    "The Python code of every folded solution of a lesson."
    return [code for c in cells(path, 'markdown') for fold in SOLUTION.findall(c.source) for code in BLOCK.findall(fold)]
