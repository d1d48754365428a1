"Each recipe says where its system comes from, what its settings are, how to run it at full size, and proves on a small run that it learns."
import re
import statistics
import pytest
from notebooks import NOTEBOOKS, ROOT, cells, name
from ddpm_course.cli import eval_parser, sample_parser, train_parser
from ddpm_course.figures import FIGURES
from ddpm_course.presets import PRESETS

RECIPES = [p for p in NOTEBOOKS if p.parent == ROOT/'nbs'/'recipes']
SYSTEMS = {'s0_digits': ['digits'], 's1_faces': ['faces'], 's2_papers': ['ddpm-cifar10', 'improved-cifar10', 'ddim-cifar10'], 's3_flowers': ['flowers'], 's4_cars': ['cars']}
recipes = pytest.mark.parametrize('path', RECIPES, ids=name)
PARSERS = {'ddpm_train': train_parser, 'ddpm_sample': sample_parser, 'ddpm_eval': eval_parser}


def prose(path): return '\n'.join(c.source for c in cells(path, 'markdown'))


def code(path): return '\n'.join(c.source for c in cells(path, 'code'))


def commands(path):
    "Every command of this package that a recipe tells its reader to type, as lists of words."
    blocks = re.findall(r'```(?:bash|sh|shell)?\n(.*?)```', prose(path), re.S)
    lines = [line.split('#')[0].strip().removeprefix('!') for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    return [line.split() for line in lines if line.startswith('ddpm_')]


def test_all_five_are_there(): assert {p.stem for p in RECIPES} == SYSTEMS.keys()


@recipes
def test_opening(path):
    opening = cells(path, 'markdown')[0].source
    assert re.match(r'# S\d · .+\n\n> .+', opening) and f'/blob/main/nbs/recipes/{path.name})' in opening and '**Time:**' in opening
    assert "find_spec('ddpm_course')" in cells(path, 'code')[0].source


@recipes
def test_its_presets_are_shown_and_used(path):
    for preset in SYSTEMS[path.stem]:
        assert f"'{preset}'" in code(path) or f'--preset {preset}' in code(path), f'{preset} is not run'
        assert ['ddpm_train', '--preset', preset] in [c[:3] for c in commands(path)] or preset == 'ddim-cifar10', f'{preset}: no full-size command'
    assert 'settings_table(' in code(path)


@recipes
def test_commands_can_be_typed(path):
    "Options exist, presets and figures too; the shell's own parsers read them."
    assert commands(path)
    for program, *words in commands(path):
        if program in PARSERS: PARSERS[program]().parse_args(words)
        if '--preset' in words: assert words[words.index('--preset') + 1] in PRESETS
        if program == 'ddpm_figures' and '--only' in words:
            asked = words[words.index('--only') + 1:]
            asked = asked[:next((i for i, w in enumerate(asked) if w.startswith('--')), len(asked))]
            assert asked and set(asked) <= FIGURES.keys(), f'{asked}: there are {", ".join(FIGURES)}'


@recipes
def test_it_learns_and_says_so(path):
    "A cell asserts that the loss falls, and one that samples beat those of an untrained network."
    cells_with_assert = [c.source for c in cells(path, 'code') if 'assert' in c.source]
    assert any('loss' in s for s in cells_with_assert) and 'improvement(' in code(path)
    assert any(re.search(r'assert .*\b(after|before|scores?)\b.*<|assert .*<.*\b(after|before|scores?)\b', s) for s in cells_with_assert)
    assert 'training_flops(' in code(path) and 'hours(' in code(path), 'no estimate of the time at full size'


@recipes
def test_figures_and_length(path):
    pictures = [o for c in cells(path, 'code') for o in c.outputs if 'image/png' in o.get('data', {})]
    sizes = [sum(bool(line.strip()) for line in c.source.splitlines()) for c in cells(path, 'code')]
    assert len(pictures) >= 4 and statistics.median(sizes) <= 8 and max(sizes) <= 25


@recipes
def test_it_ends_with_its_sources(path): assert re.search(r'^## Summary', prose(path), re.M) and re.search(r'^## Sources', prose(path), re.M)
