"The pages around the lessons: what they cite exists, nothing is missing, the self-test's answers are right."
import re
import pytest
from notebooks import LESSONS, ROOT, cells, name, read

PAGES = sorted((ROOT/'nbs'/'pages').glob('*.ipynb'))
LINK = re.compile(r'\]\((\.\./(?:\d\d_\w+|tour)\.ipynb)\)')
NUMBER = re.compile(r'\((T|\d+)\.(\d+)\)')
pages = pytest.mark.parametrize('path', PAGES, ids=name)
summaries = pytest.mark.parametrize('language', ['zh', 'ko'])


def page(stem): return ROOT/'nbs'/'pages'/f'{stem}.ipynb'


def prose(path): return [c.source for c in cells(path, 'markdown')]


def number_of(lesson): return 'T' if lesson.stem == 'tour' else str(int(lesson.stem[:2]))


def without_math(text): return re.sub(r'\$[^$]*\$', ' ', text)


def tags(lesson): return set(re.findall(r'\\tag\{([\w.]+)\}', '\n'.join(prose(lesson))))


TAGS = {number_of(lesson): tags(lesson) for lesson in LESSONS}


def test_all_pages_are_there(): assert {p.stem for p in PAGES} >= {'before', 'errata', 'glossary', 'impact', 'summary_ko', 'summary_zh'}


@pages
def test_opening(path):
    opening = prose(path)[0]
    assert re.match(r'# .+\n\n> .+', opening), 'a page opens with a title and one sentence'
    assert f'/blob/main/nbs/pages/{path.name})' in opening and 'colab-badge.svg' in opening, 'no Colab badge, or that of another page'
    code = cells(path, 'code')
    assert not code or "find_spec('ddpm_course')" in code[0].source, 'the first code cell installs the package where it is missing'


@pages
def test_cited_equations_exist(path):
    for text in prose(path):
        missing = [f'({n}.{k})' for n, k in NUMBER.findall(without_math(text)) if f'{n}.{k}' not in TAGS.get(n, ())]
        assert not missing, f'{missing} cited but not to be found in the lesson:\n{text[:300]}'


@pages
def test_links_lead_somewhere(path):
    for text in prose(path):
        for target in re.findall(r'\]\(([^)\s]+)\)', text):
            assert target.startswith('https://') or (path.parent/target.split('#')[0]).exists(), f'{target} is linked but does not exist'


@summaries
def test_every_lesson_has_its_summary(language):
    sections = [text for text in prose(page(f'summary_{language}')) if text.startswith('## ')]
    linked = [LINK.search(text.splitlines()[0]).group(1) for text in sections]
    assert linked == [f'../{name(lesson)}.ipynb' for lesson in sorted(LESSONS, key=lambda p: (p.stem != 'tour', p.stem))]


@summaries
def test_summaries_cite_three_equations_of_their_own_lesson(language):
    for text in prose(page(f'summary_{language}')):
        if not text.startswith('## '): continue
        target = LINK.search(text).group(1)
        own = number_of(page('glossary').parent/target)
        cited = NUMBER.findall(without_math(text))
        assert {n for n, _ in cited} == {own}, f'{target}: equations of other lessons are cited'
        assert len(set(cited)) >= min(3, len(TAGS[own])), f'{target}: too few equations'


@summaries
def test_summaries_name_functions_that_exist(language):
    for text in prose(page(f'summary_{language}')):
        if not text.startswith('## '): continue
        lesson = page('glossary').parent/LINK.search(text).group(1)
        exported = re.search(r'^#\|\s*default_exp\s+(\w+)', '\n'.join(c.source for c in cells(lesson, 'code')), re.M)
        names = re.findall(r'`(\w+)`', text.rsplit('\n\n', 1)[1])
        module = __import__(f'ddpm_course.{exported.group(1)}', fromlist=['x']) if exported else None
        unknown = [n for n in names if n != 'ddpm_train' and not hasattr(module, n)]
        assert not unknown, f'{lesson.name}: {unknown} are not exported there'


@summaries
def test_bold_words_render_as_bold(language):
    "Between Chinese or Korean letters and a closing ** Markdown wants a space."
    for text in prose(page(f'summary_{language}')): assert not re.search(r'\*\*[^*\n]+[^\w*\n]\*\*\S', text)


def glossary_rows():
    lines = [line for text in prose(page('glossary')) for line in text.splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line.strip().strip('|').split('|')] for line in lines if not line.startswith('| Term')]


def test_glossary_rows_are_whole():
    rows = glossary_rows()
    assert 70 <= len(rows) <= 110
    for row in rows:
        assert len(row) == 5 and all(row), f'a cell is missing or too many: {row}'
        term, chinese, korean, definition, lesson = row
        assert re.search(r'[一-鿿]', chinese) and not re.search(r'[가-힣]', chinese), f'{term}: {chinese} is not Chinese'
        assert re.search(r'[가-힣]', korean) and not re.search(r'[一-鿿]', korean), f'{term}: {korean} is not Korean'
        assert definition.endswith('.') and definition.count('$') % 2 == 0, f'{term}: not a sentence, or a formula is left open'
        target, (n, k) = LINK.search(lesson).group(1), NUMBER.search(lesson).groups()
        assert (page('glossary').parent/target).exists() and n == number_of(page('glossary').parent/target) and f'{n}.{k}' in TAGS[n]


def test_no_term_occurs_twice():
    for column in range(3):
        terms = [without_math(row[column]).strip(' ,').lower() for row in glossary_rows()]
        twice = {t for t in terms if terms.count(t) > 1}
        assert not twice, f'twice in the glossary: {twice}'


def test_every_lesson_but_the_museum_is_in_the_glossary():
    linked = {LINK.search(row[4]).group(1)[3:-6] for row in glossary_rows()}
    assert linked == {lesson.stem for lesson in LESSONS} - {'15_bug_museum'}


def questions():
    "Number -> (code to predict or '', folded answer), in the order of the page."
    found, current = {}, None
    for cell in read(page('before')).cells:
        if cell.source.startswith('## What to read'): break
        asked = re.search(r'^\*\*Question (\d+)\.\*\*', cell.source, re.M)
        if asked: current = found.setdefault(int(asked.group(1)), ['', ''])
        if current is None: continue
        if cell.cell_type == 'code': current[0] = cell.source
        fold = re.search(r'<details><summary>Answer</summary>\n\n(.+?)\n</details>', cell.source, re.S)
        if fold: current[1] = fold.group(1)
    return found


def test_every_question_has_a_folded_answer():
    found = questions()
    assert list(found) == list(range(1, 16)) and all(answer for _, answer in found.values())
    assert sum(bool(code) for code, _ in found.values()) >= 12
    table = next(text for text in prose(page('before')) if text.startswith('## What to read'))
    rows = [line.split('|')[1] for line in table.splitlines() if line.startswith('| ') and not line.startswith('| Question')]
    assert sorted(int(n) for row in rows for n in re.findall(r'\d+', row)) == list(found), 'what to read is missing for a question'


def test_folded_answers_are_right_and_others_are_not(capsys):
    scope = {}
    for cell in cells(page('before'), 'code')[1:3]: exec(cell.source, scope)
    for number, (code, answer) in questions().items():
        if not code: continue
        right = re.match(r'\*\*`(.+?)`\*\*', answer).group(1)
        wrong = {'True': 'False', 'False': 'True'}.get(right, '(99,)' if right.startswith('(') else '99.')
        for guess, word in ((right, 'Right.'), (wrong, 'Not so.'), ('None', 'No guess yet')):
            assert code.startswith('guess = None\n')
            exec(code.replace('guess = None', f'guess = {guess}', 1), scope)
            assert capsys.readouterr().out.startswith(word), f'question {number}, answered {guess}'


SAT_DOWN = [*LESSONS, ROOT/'nbs'/'clinic.ipynb']
COUNT = ['', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight']
ORDINALS = ['Second', 'Third', 'Fourth', 'Fifth', 'Sixth', 'Seventh']
sat_down = pytest.mark.parametrize('lesson', SAT_DOWN, ids=name)


def promise(lesson):
    "The line of a lesson's first cell that says how long it takes, and the minutes of each sitting."
    line = re.search(r'^\*\*Time:\*\* (\d+(?: \+ \d+)*) minutes\b.*$', prose(lesson)[0], re.M)
    assert line, 'the first cell must promise its sittings: **Time:** 20 + 25 minutes'
    return line.group(0), [int(n) for n in line.group(1).split(' + ')]


def recaps(lesson):
    "(position, words) of each cell that opens a further sitting."
    return [(i, c.source) for i, c in enumerate(read(lesson).cells) if c.cell_type == 'markdown' and 'sitting.**' in c.source]


def reading_minutes(part):
    "Of some cells: 200 words a minute, 30 s an equation, 20 s a figure, 15 s a code cell; folded text is not counted. And how many things there are to do."
    text = re.sub(r'<details>.*?</details>', '', '\n\n'.join(c.source for c in part if c.cell_type == 'markdown'), flags=re.S)
    displayed = len(re.findall(r'\$\$.+?\$\$', text, re.S))
    words = re.sub(r'\]\([^)]*\)', ']', without_math(re.sub(r'\$\$.+?\$\$', ' ', text, flags=re.S))).split()
    code = [c for c in part if c.cell_type == 'code']
    figures = sum('image/png' in o.get('data', {}) for c in code for o in c.outputs)
    to_do = len(re.findall(r'^\*\*Exercise ', text, re.M)) + sum('check_diagnosis(' in c.source for c in code)
    return len(words)/200 + displayed/2 + figures/3 + len(code)/4, to_do


@sat_down
def test_every_sitting_is_promised_15_to_30_minutes(lesson):
    _, minutes = promise(lesson)
    assert all(15 <= m <= 30 for m in minutes)
    assert lesson.stem != 'tour' or minutes == [15]


@sat_down
def test_every_further_sitting_opens_with_a_recap(lesson):
    "Enough to go on the next day: what we have, then what comes; directly before a heading, the one that the first cell announces if it names any."
    line, minutes = promise(lesson)
    found, all_cells = recaps(lesson), read(lesson).cells
    assert [re.match(r'> \*\*(\w+) sitting\.\*\* So far: ', words).group(1) for _, words in found] == ORDINALS[:len(minutes) - 1]
    headings = []
    for i, words in found:
        assert all(row.startswith('>') for row in words.splitlines()), 'a recap stands in a cell of its own'
        before, now = words.split(' Now: ')
        assert 12 <= len(before.split()) <= 150 and len(now.split()) >= 8, 'what we may rely on, in a few sentences, and then what comes'
        after = all_cells[i + 1]
        assert after.cell_type == 'markdown' and after.source.startswith('#'), 'a sitting begins at a heading'
        headings.append(after.source.splitlines()[0].lstrip('# '))
    assert not headings or f'in {COUNT[len(minutes)]} sittings' in line
    announced = re.findall(r'(?<!\*)\*([^*]+)\*(?!\*)', line.split('**Builds on:**')[0])
    right = len(announced) == len(headings) and all(h.replace('`', '').startswith(a.replace('`', '')) for h, a in zip(headings, announced))
    assert right or not announced, f'announced: {announced}, found: {headings}'


@sat_down
def test_no_sitting_is_much_longer_than_promised(lesson):
    "By a rough estimate of the reading; nor much shorter, if each exercise takes five minutes. The tour's exercises are extra."
    _, minutes = promise(lesson)
    all_cells = read(lesson).cells
    if lesson.stem == 'tour': all_cells = all_cells[:next(i for i, c in enumerate(all_cells) if '## Exercises' in c.source)]
    ends = [0, *(i for i, _ in recaps(lesson)), len(all_cells)]
    for m, start, end in zip(minutes, ends, ends[1:]):
        reading, to_do = reading_minutes(all_cells[start:end])
        assert reading <= m + (10 if lesson.stem == 'tour' else 4) and m <= reading + 5*to_do + 4, f'promised {m} minutes; reading takes {reading:.0f}, and there are {to_do} exercises'


def map_of_the_course():
    scope = {}
    for cell in cells(page('before'), 'code'):
        if cell.source.startswith(('sittings = ', 'def before(', 'quick = ')): exec(cell.source, scope)
    return scope


def test_the_map_agrees_with_the_lessons():
    scope = map_of_the_course()
    keys = {lesson.stem if lesson.stem == 'tour' else lesson.stem[:2]: lesson for lesson in LESSONS}
    assert set(scope['sittings']) == set(keys)
    for key, lesson in keys.items():
        assert scope['sittings'][key] == promise(lesson)[1], f'{key}: the map has other times than the lesson'
        opening = prose(lesson)[0]
        needed = {t if t == 'tour' else t[:2] for t in re.findall(r'\]\((\d\d_\w+|tour)\.ipynb\)', opening.split('**Builds on:**')[1].split('**Gives:**')[0])}
        assert needed <= scope['before'](key), f'{key}: the map forgets {needed - scope["before"](key)}'


def test_the_routes_of_the_map_are_as_long_as_they_say():
    scope = map_of_the_course()
    time = {route: sum(m for key, n in scope[route].items() for m in scope['sittings'][key][:n]) for route in ('quick', 'weekend', 'everything')}
    assert time['quick'] <= 150 and time['weekend'] <= 720, 'more than an afternoon, or a weekend'
    assert list(scope['everything']) == list(scope['sittings']) and time['everything'] == sum(sum(m) for m in scope['sittings'].values())


def test_the_index_agrees_with_the_lessons():
    rows = {row[2]: row[4] for text in prose(ROOT/'nbs'/'index.ipynb') for line in text.splitlines() if line.startswith('| [![') for row in [[cell.strip() for cell in line.split('|')]]}
    assert len(rows) == len(LESSONS)
    for lesson in LESSONS:
        shown = [minutes for link, minutes in rows.items() if f']({lesson.name})' in link]
        assert shown == [' + '.join(map(str, promise(lesson)[1]))], f'{lesson.name}: the index has other times than the lesson'


def test_errata_has_both_tables():
    text = '\n'.join(prose(page('errata')))
    assert text.count('| Date | Place | What was wrong | Mended in |') == 2 and '/issues' in text


def test_closing_page_is_sourced():
    text = '\n'.join(prose(page('impact')))
    assert len(set(re.findall(r'https://arxiv.org/abs/(\d{4}\.\d{5})', text))) >= 12
    for year, label, target in re.findall(r'(\d{4}), \[arXiv:([\d.]+)\]\(https://arxiv.org/abs/([\d.]+)\)', text):
        assert label == target and label[:2] in (year[2:], f'{int(year) - 1:04}'[2:]), f'{label}: year or address does not fit'
