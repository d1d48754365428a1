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


def map_of_the_course():
    scope = {}
    for cell in cells(page('before'), 'code'):
        if cell.source.startswith(('minutes = ', 'def before(', 'quick = ')): exec(cell.source, scope)
    return scope


def test_the_map_agrees_with_the_lessons():
    scope = map_of_the_course()
    keys = {lesson.stem if lesson.stem == 'tour' else lesson.stem[:2]: lesson for lesson in LESSONS}
    assert set(scope['minutes']) == set(keys) and scope['everything'] == list(scope['minutes'])
    for key, lesson in keys.items():
        opening = prose(lesson)[0]
        time = re.search(r'\*\*Time:\*\* (\d+) minutes', opening)
        assert scope['minutes'][key] == (int(time.group(1)) if time else 60), f'{key}: the map has another time than the lesson'
        needed = {t if t == 'tour' else t[:2] for t in re.findall(r'\]\((\d\d_\w+|tour)\.ipynb\)', opening.split('**Builds on:**')[1].split('**Gives:**')[0])}
        assert needed <= scope['before'](key), f'{key}: the map forgets {needed - scope["before"](key)}'
    assert sum(scope['minutes'][k] for k in scope['quick']) <= 150, 'more than an afternoon'


def test_errata_has_both_tables():
    text = '\n'.join(prose(page('errata')))
    assert text.count('| Date | Place | What was wrong | Mended in |') == 2 and '/issues' in text


def test_closing_page_is_sourced():
    text = '\n'.join(prose(page('impact')))
    assert len(set(re.findall(r'https://arxiv.org/abs/(\d{4}\.\d{5})', text))) >= 12
    for year, label, target in re.findall(r'(\d{4}), \[arXiv:([\d.]+)\]\(https://arxiv.org/abs/([\d.]+)\)', text):
        assert label == target and label[:2] in (year[2:], f'{int(year) - 1:04}'[2:]), f'{label}: year or address does not fit'
