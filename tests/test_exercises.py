"Checkers: right solutions pass, every usual mistake is named, and whatever else is wrong is described."
import importlib.util
import re
from pathlib import Path
import pytest
import torch
from ddpm_course import exercises
from ddpm_course.schedules import NoiseSchedule
from ddpm_course.exercises import EXERCISES, Exercise, Hint, Mistake, alike, call, case, check_exercise
from notebooks import LESSONS, cells

PARTS = {}
for path in sorted((Path(__file__).parent/'exercises').glob('lesson_*.py')):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    PARTS[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(PARTS[path.stem])

RIGHT = [(f'{name}-{check.number}-{i}', check, f) for name, part in PARTS.items() for i, (check, f) in enumerate(part.RIGHT)]
WRONG = [(f'{name}-{check.number}-{i}', check, f, words) for name, part in PARTS.items() for i, (check, f, words) in enumerate(part.SUBMISSIONS)]


@pytest.mark.parametrize('number', EXERCISES)
def test_every_exercise_tells_its_mistakes_apart(number):
    exercise = EXERCISES[number]
    check_exercise(exercise)
    assert len(exercise.mistakes) >= 2 and len(exercise.hints) >= 2 and all(m.says.endswith(('.', '?')) for m in exercise.mistakes)


@pytest.mark.parametrize(('check', 'f'), [r[1:] for r in RIGHT], ids=[r[0] for r in RIGHT])
def test_an_independent_right_answer_passes(check, f):
    assert (found := check(f)), found.message


@pytest.mark.parametrize(('check', 'f', 'words'), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_mistake_is_named(check, f, words):
    found = check(f)
    assert not found and words in found.message, found.message
    assert any(m.says in found.message for m in check.mistakes), f'described, but not diagnosed: {found.message}'


@pytest.mark.parametrize('number', EXERCISES)
def test_every_diagnosis_is_reached_and_every_exercise_solved(number):
    exercise = EXERCISES[number]
    said = [check(f).message for _, check, f, _ in WRONG if check is exercise]
    unreached = [m.says for m in exercise.mistakes if not any(m.says in message for message in said)]
    assert not unreached and any(check is exercise for _, check, _ in RIGHT)


def test_no_name_is_taken_twice():
    "All parts share one module: a second definition would silently replace the first."
    source = Path(exercises.__file__).read_text(encoding='utf-8')
    names = re.findall(r'^(?:def |class )?(\w+)(?: = |\(|:)', source, re.M)
    assert len(names) > 100 and not sorted({n for n in names if names.count(n) > 1})


def test_there_are_many():
    assert len(EXERCISES) >= 40 and sum(len(e.mistakes) for e in EXERCISES.values()) >= 80


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_lessons_and_checkers_belong_together(path):
    "Each lesson's checkers are used in a cell of its own and in its solutions, under the number of the exercise."
    head = 'T' if path.stem == 'tour' else path.stem.split('_')[0].lstrip('0') or '0'
    mine = {n for n in EXERCISES if n.split('.')[0] == head}
    assert len(mine) >= 3
    text = '\n'.join(c.source for c in cells(path, 'markdown'))
    code = '\n'.join(c.source for c in cells(path, 'code'))
    for number in mine:
        name = next(k for k, v in vars(exercises).items() if v is EXERCISES[number])
        assert f'**Exercise {number}.**' in text and f'assert {name}(' in text and f'{name}(my_' in code


SQUARE = Exercise('test', lambda x, k: k*x**2, [case('one', torch.tensor([2.]), 1.), case('several', torch.tensor([1., -2., 3.]), 2.)],
                  [Mistake(lambda x, k: k*2*x, 'You doubled.'), Mistake(lambda x, k: x**2, 'You forgot k.')], ['Multiply x with itself.', 'Then with k.'])
del EXERCISES['test']
COUNTER = []


def changes(x, k):
    x *= x
    return k*x


def keeps_count(x, k):
    COUNTER.append(1)
    return k*x**2 + len(COUNTER)*0.01


@pytest.mark.parametrize(('f', 'words'), [
    (lambda x, k: k*2*x, 'You doubled'), (lambda x, k: x*x, 'For several it gives'), (lambda x, k: -k*x**2, 'sign'), (lambda x, k: 3*k*x**2, '3 times'),
    (lambda x, k: k*x**2 + 1, 'off by the same 1'), (lambda x, k: (k*x**2)[:, None], 'shape must be (1,), it is (1, 1)'), (lambda x, k: k*x[:, None]*x, 'broadcast'), (changes, 'input x in place'),
    (lambda x, k: k*x**2 + 0*torch.randn(1), 'random numbers of its own'), (keeps_count, 'called again'), (lambda x: x, 'arguments: x, k'), (lambda x, k: x.nothing, 'AttributeError'),
    (lambda x, k: k*x**2/0*0, 'NaN'), (lambda x, k: None if k == 2 else k*x**2, 'return missing'), (lambda x, k: (k*x**2).tolist(), 'must return a Tensor, it returns a list'), (lambda x, k: 4, 'it returns an int'), (7, 'the function itself')])
def test_what_is_said_about_any_function(f, words):
    found = SQUARE(f)
    assert not found and words in found.message, found.message


@pytest.mark.parametrize('f', [lambda x, k: None, lambda x, k: ...])
def test_an_empty_answer_is_no_mistake_yet(f):
    found = SQUARE(f)
    assert isinstance(found, Hint) and not found and 'nothing yet' in found.message and '❌' not in found._repr_markdown_()


def test_right_and_hints():
    assert SQUARE(lambda a, b: a*a*b) and 'Hint 1' in repr(SQUARE.hint()) and 'Hint 2' not in repr(SQUARE.hint()) and 'Then with k' in repr(SQUARE.hint(2))
    with pytest.raises(ValueError, match='hints 1 to 2'): SQUARE.hint(3)


@pytest.mark.parametrize(('mistakes', 'words'), [
    ([Mistake(lambda x, k: k*x*x, 'Nothing.')], 'passes'), ([Mistake(lambda x, k: x, 'A.'), Mistake(lambda x, k: x + 0, 'B.')], 'cannot be told apart')])
def test_an_exercise_that_cannot_tell_is_refused(mistakes, words):
    exercise = Exercise('bad', SQUARE.right, SQUARE.cases, mistakes, ['a', 'b'])
    del EXERCISES['bad']
    with pytest.raises(ValueError, match=words): check_exercise(exercise)


def test_checking_leaves_the_random_state_and_the_cases_alone():
    torch.manual_seed(3)
    before, x = torch.get_rng_state(), SQUARE.cases[0].args[0].clone()
    SQUARE(changes), SQUARE(lambda x, k: torch.randn(1))
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(x, SQUARE.cases[0].args[0])


@pytest.mark.parametrize(('a', 'b', 'same'), [
    (torch.tensor([1., torch.nan]), torch.tensor([1., torch.nan]), True), (torch.tensor([1., torch.inf]), torch.tensor([1., -torch.inf]), False), (1, 1.0, True), (True, 1, False), ([1, 2], (1, 2), True),
    (torch.ones(2), torch.ones(1, 2), False), ({'a': 1.}, {'a': 1.0000001}, True), ('a', 'a', True), (torch.tensor(2.), 2., True), (None, 0., False), (torch.zeros(2), torch.full((2,), 1e-9), False)])
def test_when_results_are_alike(a, b, same):
    assert alike(a, b, 1e-5) == same


def test_a_long_result_is_shown_from_its_first_difference():
    exercise = Exercise('long', lambda n: torch.arange(float(n)), [case('twenty', 20)], [], ['a', 'b'])
    del EXERCISES['long']
    def wrong(n):
        x = torch.arange(float(n))
        x[13] = -1
        return x
    assert 'it gives […, -1, 14, 15, 16, 17, 18, …] in shape (20,); right is […, 13, 14' in exercise(wrong).message


def test_a_schedule_that_is_written_to_is_noticed_and_mended():
    def spoils(schedule):
        schedule.alpha_bar[1] = 0.
        return schedule.beta[1]
    exercise = Exercise('spoilt', lambda schedule: schedule.beta[1], [case('a schedule', NoiseSchedule(torch.tensor([0.5, 0.6])))], [], ['a', 'b'])
    del EXERCISES['spoilt']
    assert 'changes its input schedule' in exercise(spoils).message and exercise(lambda s: s.beta[1]*1)


def test_a_call_sees_what_happened():
    def f(x):
        x += 1
        return x + torch.randn(1)
    done = call(f, (torch.zeros(2),))
    assert done.changed == [0] and done.drew and done.error is None and isinstance(call(lambda x: 1/0, (torch.zeros(1),)).error, ZeroDivisionError)
