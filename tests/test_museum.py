"The bug museum keeps its own promises: every exhibit runs a check that can fail, and is in the catalogue."
import re
import pytest
import torch
from notebooks import ROOT, read, solutions

MUSEUM = ROOT/'nbs'/'15_bug_museum.ipynb'
HEADING = re.compile(r'^(##|###) (.+)$', re.M)


def sections():
    "(level, title, cells) of each section, in order."
    found = []
    for cell in read(MUSEUM).cells:
        heading = HEADING.match(cell.source) if cell.cell_type == 'markdown' else None
        if heading: found.append((len(heading[1]), heading[2], []))
        if found: found[-1][2].append(cell)
    return found


def exhibits(): return [(title, cells) for _, title, cells in sections() if title.startswith('Exhibit')]


def code(cells): return '\n'.join(c.source for c in cells if c.cell_type == 'code')


def figures(cells): return [o for c in cells if c.cell_type == 'code' for o in c.outputs if 'image/png' in o.get('data', {})]


def helper():
    "The museum's caught, as a reader gets it."
    source = next(c.source for c in read(MUSEUM).cells if c.cell_type == 'code' and c.source.startswith('def caught'))
    namespace = {'torch': torch}
    exec(source, namespace)
    return namespace['caught']


def test_exhibits_are_numbered_without_gaps():
    numbers = [int(re.match(r'Exhibit (\d+): \S', title)[1]) for title, _ in exhibits()]
    assert len(numbers) >= 25 and numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize('title, cells', exhibits(), ids=[title.split(':')[0] for title, _ in exhibits()])
def test_an_exhibit_has_its_plate_and_a_check_that_was_run(title, cells):
    source, ran = code(cells), [''.join(o.get('text', '')) for c in cells if c.cell_type == 'code' for o in c.outputs]
    assert '*Found in*' in cells[0].source
    assert re.search(r'\bwrong\b.*=|def wrong', source), 'no wrong version that runs'
    assert re.search(r'^caught\(check, wrong, right\)$', source, re.M) and any('caught' in text for text in ran)


@pytest.mark.parametrize('title, cells', exhibits(), ids=[title.split(':')[0] for title, _ in exhibits()])
def test_an_exhibit_says_what_its_check_asks(title, cells):
    prose = '\n'.join(c.source for c in cells if c.cell_type == 'markdown')
    assert re.search(r'\b[Tt]he check\b', prose) or re.search(r'check of exhibit \d', prose)


def test_each_exhibit_is_in_the_catalogue():
    catalogue = next(cells for _, title, cells in sections() if title == 'The catalogue')[0].source
    rows = [[column.strip() for column in row.split('|')[1:-1]] for row in re.findall(r'^\| \d+ \|.*$', catalogue, re.M)]
    assert [int(row[0]) for row in rows] == list(range(1, len(exhibits()) + 1))
    assert all(len(row) == 4 and all(row) for row in rows)


def test_each_room_has_a_figure_and_several_exhibits():
    rooms = []
    for level, title, cells in sections():
        if level == 2: rooms.append([title, 0, 0])
        if not rooms: continue
        rooms[-1][1] += title.startswith('Exhibit')
        rooms[-1][2] += len(figures(cells))
    rooms = [room for room in rooms if room[0].startswith('Room')]
    assert len(rooms) >= 6 and all(n >= 3 and shown >= 1 for _, n, shown in rooms), rooms
    assert sum(shown for *_, shown in rooms) >= 8


def test_the_helper_refuses_a_check_that_finds_nothing():
    with pytest.raises(AssertionError, match='never have found'): helper()(lambda version: True, 'wrong', 'right')


def test_the_helper_refuses_a_check_that_cries_wolf():
    with pytest.raises(AssertionError, match='cries wolf'): helper()(lambda version: False, 'wrong', 'right')


def test_the_helper_passes_a_check_that_tells_them_apart(capsys):
    helper()(lambda version: version == 'right', 'wrong', 'right')
    assert capsys.readouterr().out == 'caught\n'


def test_the_helper_gives_both_versions_the_same_draws():
    drawn = []
    helper()(lambda version: drawn.append(torch.rand(1).item()) or version == 'right', 'wrong', 'right')
    assert drawn[0] == drawn[1]


def test_nothing_is_exported():
    assert not any(re.search(r'#\|\s*(export|default_exp)', c.source) for c in read(MUSEUM).cells)


def test_solutions_point_at_real_exhibits():
    text = '\n'.join(c.source for c in read(MUSEUM).cells if c.cell_type == 'markdown')
    named = {int(n) for group in re.findall(r'[Ee]xhibits? ((?:\d+(?:, | and )?)+)', text) for n in re.findall(r'\d+', group)}
    assert named <= set(range(1, len(exhibits()) + 1)) and solutions(MUSEUM)
