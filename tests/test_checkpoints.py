"What is on disk: read back bit for bit, or refused with a word about what is wrong."
import json
import shutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import leftovers, no_file_longer_than, start
from ddpm_course.checkpoints import FORMAT, describe_reverse, load_config, load_run, load_state, load_weights, restore_model, restore_reverse, run_folder, save_json, save_state, save_weights
from ddpm_course.reverse import Reverse
from ddpm_course.schedules import cosine_schedule, linear_schedule, sigmoid_schedule
from ddpm_course.unet import UNet

tiny_unet = lambda width=16: UNet(1, widths=(width,), layers=1, attention_at=())
state = lambda model: {k: v.clone() for k, v in model.state_dict().items()}
equal = lambda a, b: a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_weights_come_back(tmp_path):
    a, b = tiny_unet(), tiny_unet()
    save_weights(a, tmp_path/'w.safetensors')
    assert not equal(state(a), state(b)) and load_weights(b, tmp_path/'w.safetensors') is b and equal(state(a), state(b))
    assert [p.name for p in tmp_path.iterdir()] == ['w.safetensors']


def test_weights_in_another_memory_layout_come_back(tmp_path):
    a, b = tiny_unet().to(memory_format=torch.channels_last), tiny_unet()
    save_weights(a, tmp_path/'w.safetensors')
    assert equal(state(a), state(load_weights(b, tmp_path/'w.safetensors')))


def refused(path, *words):
    model = tiny_unet()
    before = state(model)
    with pytest.raises(ValueError) as error: load_weights(model, path)
    assert str(path) in str(error.value) and all(w in str(error.value) for w in words) and '\n' not in str(error.value)
    assert equal(before, state(model))


@pytest.mark.parametrize('keep', [0, 5, 100, 0.5, -1])
def test_truncated_weights(tmp_path, keep):
    save_weights(tiny_unet(), path := tmp_path/'w.safetensors')
    path.write_bytes(path.read_bytes()[:int(keep*path.stat().st_size) if keep == 0.5 else keep])
    refused(path)


@pytest.mark.parametrize('content', [b'hello, I am no weights file at all', b'\0'*1000, b'\xff'*1000])
def test_foreign_weights(tmp_path, content):
    (tmp_path/'w.safetensors').write_bytes(content)
    refused(tmp_path/'w.safetensors')


def test_missing_weights(tmp_path):
    refused(tmp_path/'none.safetensors')
    (tmp_path/'folder.safetensors').mkdir()
    refused(tmp_path/'folder.safetensors')


def test_weights_of_another_network_name_a_tensor(tmp_path):
    path, mine = tmp_path/'w.safetensors', state(tiny_unet())
    save_weights(tiny_unet(24), path)
    refused(path, 'time_embedding.linear_1.weight', '(96, 24)', '(64, 16)')
    save_file({k: v for k, v in mine.items() if k != 'conv_in.bias'}, path)
    refused(path, 'conv_in.bias', 'lacks')
    save_file(mine | {'class_emb.weight': torch.zeros(3)}, path)
    refused(path, 'class_emb.weight')


def test_a_full_disk_while_weights_are_saved(tmp_path):
    "Python's own kind of error, so that the shell can tell it in one line; the old file stays."
    old = tiny_unet()
    save_weights(old, path := tmp_path/'w.safetensors')
    with pytest.raises(OSError), no_file_longer_than(20_000): save_weights(tiny_unet(), path)
    assert equal(load_file(path), state(old)) and [p.name for p in tmp_path.iterdir()] == ['w.safetensors']


def test_others_may_read_weights(tmp_path):
    "The same rights as any other new file."
    save_weights(tiny_unet(), tmp_path/'w.safetensors')
    (tmp_path/'plain').write_text('')
    assert oct((tmp_path/'w.safetensors').stat().st_mode) == oct((tmp_path/'plain').stat().st_mode)


@pytest.mark.parametrize('schedule', [cosine_schedule(1000), linear_schedule(100), sigmoid_schedule(37), cosine_schedule(1)], ids=repr)
@pytest.mark.parametrize('choices', [{}, dict(predict='v', variance='learned_range', clip=False, sigma_1='beta')])
def test_a_reverse_process_comes_back_bit_for_bit(tmp_path, schedule, choices):
    before = Reverse(schedule, **choices)
    save_json(describe_reverse(before), tmp_path/'r.json')
    after = restore_reverse(json.loads((tmp_path/'r.json').read_text()))
    for table in ('beta', 'alpha', 'alpha_bar', 'snr'): assert torch.equal(getattr(before.schedule, table), getattr(after.schedule, table))
    assert repr(before) == repr(after)


def test_json_keeps_letters(tmp_path):
    save_json({'β': [1, None]}, tmp_path/'x.json')
    assert json.loads((tmp_path/'x.json').read_text('utf-8')) == {'β': [1, None]} and 'β' in (tmp_path/'x.json').read_text('utf-8')
    with pytest.raises(TypeError): save_json({'x': object()}, tmp_path/'x.json')
    assert json.loads((tmp_path/'x.json').read_text('utf-8')) == {'β': [1, None]} and not leftovers(tmp_path)


@pytest.mark.parametrize('content', ['', 'hello', '[]', '3', '{}', '{"format": 1', '{"format": "1"}', '{"format": null}', f'{{"format": {FORMAT + 1}}}', '{"format": 1}',
                                     '{"format": 1, "model": {"widths": [8], "colour": 3}, "reverse": {}}', '{"format": 1, "model": {"widths": [8]}}', '\udcff'])
def test_a_broken_config(tiny_copy, content):
    (tiny_copy/'config.json').write_text(content, encoding='utf-8', errors='surrogateescape')
    with pytest.raises(ValueError) as error: load_run(tiny_copy)
    assert '\n' not in str(error.value) and 'config' in str(error.value)


@pytest.mark.parametrize('part', ['model', 'reverse'])
def test_a_config_with_a_setting_that_does_not_exist(tiny_copy, part):
    config = load_config(tiny_copy)
    save_json(config | {part: config[part] | {'colour': 3}}, tiny_copy/'config.json')
    with pytest.raises(ValueError, match='colour'): load_run(tiny_copy)


def test_a_newer_config_says_update(tiny_copy):
    config = load_config(tiny_copy)
    save_json(config | {'format': FORMAT + 1}, tiny_copy/'config.json')
    with pytest.raises(ValueError, match='update'): load_config(tiny_copy)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match='not a run folder'): load_run(tmp_path)
    with pytest.raises(ValueError, match='no run folder at'): load_run(tmp_path/'none')
    with pytest.raises(ValueError, match='no run folder at'): run_folder(__file__)


@pytest.mark.parametrize('weights', ['ema', 'model'])
def test_a_run_comes_back(tiny_run, weights):
    model, reverse, config = load_run(tiny_run, weights)
    assert equal(state(model), load_file(tiny_run/f'{weights}.safetensors')) and not model.training
    assert (reverse.predict, reverse.variance, config['data']['name']) == ('eps', 'beta_tilde', 'digits')
    assert torch.equal(reverse.schedule.beta, cosine_schedule(20).beta) and model.settings['widths'] == (16,)


def test_a_run_with_a_learned_variance_comes_back(tmp_path):
    model, reverse, _ = load_run(start(tmp_path/'run', variance='learned_range', predict='v', steps=1))
    assert model(torch.zeros(2, 1, 8, 8), torch.tensor([1, 20])).shape == (2, 2, 8, 8) and (reverse.variance, reverse.predict) == ('learned_range', 'v')


def test_a_network_of_its_own_kind_is_refused(): pytest.raises(ValueError, restore_model, {'model': None}).match('own kind')


def test_a_folder_named_digits_comes_first(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, 'digits')
    assert load_run('digits')[2]['train']['T'] == 20


def test_a_state_comes_back(tmp_path):
    "Every type of tensor, nested, with numbers that JSON must not round."
    state = dict(step=7, pi=0.1 + 0.2, big=2**70, none=None, yes=True, text='ε', empty={}, nothing=[],
                 deep=dict(list=[torch.tensor(5), [torch.zeros(0, 3)]], bf16=torch.randn(3).bfloat16(), doubles=torch.randn(2, 2).double(), turned=torch.arange(6).reshape(2, 3).T))
    save_state(state, tmp_path/'s.safetensors')
    again = load_state(tmp_path/'s.safetensors')
    assert {k: v for k, v in again.items() if k != 'deep'} == {k: v for k, v in state.items() if k != 'deep'}
    for ours, theirs in ((again['deep']['list'][0], torch.tensor(5)), (again['deep']['list'][1][0], torch.zeros(0, 3)), *((again['deep'][k], state['deep'][k]) for k in ('bf16', 'doubles', 'turned'))):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert [p.name for p in tmp_path.iterdir()] == ['s.safetensors']
    assert load_file(tmp_path/'s.safetensors').keys() == {'deep/list/0', 'deep/list/1/0', 'deep/bf16', 'deep/doubles', 'deep/turned'}, 'any reader of safetensors finds the tensors'


def test_a_state_that_is_none(tmp_path):
    with pytest.raises(ValueError, match='no file at'): load_state(tmp_path/'s.safetensors')
    (tmp_path/'folder').mkdir()
    with pytest.raises(ValueError, match='not whole'): load_state(tmp_path/'folder')
    save_file({'a': torch.zeros(2)}, tmp_path/'s.safetensors', {'format': 'pt'})
    with pytest.raises(ValueError, match='not a file of ddpm-course'): load_state(tmp_path/'s.safetensors')
