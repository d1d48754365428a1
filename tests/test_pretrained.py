"Published weights: against diffusers, whole chains and block by block; old files, broken files, no network."
import inspect
import json
import shutil
import sys
import huggingface_hub
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from tiny import leftovers, no_file_longer_than
from ddpm_course.ddim import ddim_sample
from ddpm_course.pretrained import (LIBRARY_DEFAULTS, SCHEDULER_DEFAULTS, WEIGHTS, compare_blocks, config_from_reverse, download, first_to_differ, load_diffusers,
                                    modern_name, modern_tensors, reverse_from_config, save_diffusers, unet_arguments)
from ddpm_course.reverse import Reverse
from ddpm_course.sampling import ddpm_sample
from ddpm_course.schedules import cosine_schedule, linear_schedule, offset_cosine_schedule
from ddpm_course.unet import UNet, count_parameters


def kinds(name, attention_at, n): return [('Attn' if i in attention_at else '') + name for i in range(n)]


def paper(widths, attention_at, **changes):
    "A config with the small print of the google/ddpm-* files."
    n = len(widths)
    return dict(act_fn='silu', attention_head_dim=None, block_out_channels=list(widths), center_input_sample=False, down_block_types=kinds('DownBlock2D', attention_at, n),
                downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, in_channels=3, layers_per_block=2, mid_block_scale_factor=1, norm_eps=1e-6, norm_num_groups=32,
                out_channels=3, sample_size=32, time_embedding_type='positional', up_block_types=kinds('UpBlock2D', attention_at, n)[::-1]) | changes


LARGE = paper((128, 128, 256, 256, 512, 512), (4,), sample_size=256)
GOOGLE = {'cifar10-32': (paper((128, 256, 256, 256), (1,)), 35_746_307, 328, 32), 'celebahq-256': (LARGE, 113_673_219, 450, 64),
          'ema-church-256': (LARGE, 113_673_219, 450, 64), 'bedroom-256': (LARGE, 113_673_219, 450, 64)}
TINY = paper((8, 16), (1,), norm_num_groups=4, layers_per_block=1, sample_size=8, in_channels=1, out_channels=1)


def their_unet(config, seed=0):
    "A network of the library with random weights, the norms' and the biases' too."
    torch.manual_seed(seed)
    model = UNet2DModel(**config).eval()
    for name, p in model.named_parameters():
        if p.ndim == 1: p.data = torch.randn_like(p)*0.3 + (1. if 'norm' in name and name.endswith('weight') else 0.)
    return model


def publish(folder, config=TINY, seed=0, **scheduler):
    "A folder as the library's pipeline writes it."
    DDPMPipeline(their_unet(config, seed), DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


def plain(folder, source):
    "The same, with everything side by side, as in google/ddpm-cifar10-32."
    folder.mkdir()
    for path in [*(source/'unet').iterdir(), *(source/'scheduler').iterdir(), source/'model_index.json']: shutil.copy(path, folder)
    return folder


@pytest.fixture(scope='module')
def pipeline(tmp_path_factory): return publish(tmp_path_factory.mktemp('published')/'tiny')


@pytest.fixture
def copy(pipeline, tmp_path): return plain(tmp_path/'copy', pipeline)


def edit(path, **changes): path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def relative(a, b): return ((a - b).abs().max()/b.abs().max()).item()


def batch(config, side=None, n=2):
    side = side or config['sample_size']
    return torch.randn(n, config['in_channels'], side, side), torch.tensor([1, 777, 1000, 2][:n])


# The same numbers as the library

@pytest.mark.parametrize('name', GOOGLE)
def test_published_plans_agree_block_by_block(name):
    config, parameters, tensors, side = GOOGLE[name]
    theirs = their_unet(config, seed=len(name))
    with torch.device('meta'): ours = UNet(**unet_arguments(config)).eval()
    assert (count_parameters(ours), len(ours.state_dict())) == (parameters, tensors)
    ours.load_state_dict(modern_tensors(theirs.state_dict(), name), assign=True)
    x, t = batch(config, side, n=1)
    rows = compare_blocks(ours, theirs, x, t + 500)
    assert first_to_differ(rows) is None, rows
    assert rows[-1].name == 'conv_out' and rows[-1].shape == (3, side, side) and len({r.name for r in rows}) == len(rows) == {328: 38, 450: 52}[tensors]


@pytest.mark.parametrize('changes', [{}, dict(norm_num_groups=8, block_out_channels=(16, 24, 32, 40), sample_size=16), dict(norm_num_groups=4, block_out_channels=(8, 16), down_block_types=kinds('DownBlock2D', (0, 1), 2),
                                     up_block_types=kinds('UpBlock2D', (0, 1), 2), layers_per_block=3, in_channels=2, out_channels=4, time_embedding_dim=32, act_fn='swish', attn_norm_num_groups=4)])
def test_the_librarys_own_defaults_agree(changes):
    "With nothing said, and with small widths: heads 8 wide, [cos, sin], shift 0, zeros on all sides, eps 1e-5."
    with torch.device('meta'): shapes = UNet2DModel(**changes).state_dict()
    with torch.device('meta'): ours = UNet(**unet_arguments(changes)).eval()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in shapes.items()}
    if not changes: return
    theirs = their_unet(changes)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    assert first_to_differ(compare_blocks(ours, theirs, *batch(LIBRARY_DEFAULTS | changes, 16))) is None


def test_defaults_are_those_of_the_installed_library():
    theirs = {k: p.default for k, p in inspect.signature(UNet2DModel.__init__).parameters.items() if p.default is not inspect.Parameter.empty}
    assert {k: theirs[k] for k in LIBRARY_DEFAULTS} == LIBRARY_DEFAULTS and set(theirs) == set(LIBRARY_DEFAULTS)
    ddpm, ddim = ({k: p.default for k, p in inspect.signature(kind.__init__).parameters.items()} for kind in (DDPMScheduler, DDIMScheduler))
    assert all(ddpm.get(k, ddim.get(k)) == v for k, v in SCHEDULER_DEFAULTS.items() if k != '_class_name')


@pytest.mark.parametrize('change, culprit', [(dict(padding='both'), 'down_blocks.0.downsamplers.0'), (dict(cos_first=True), 'time_embedding'), (dict(speed_shift=0.), 'time_embedding'),
                                             (dict(head_dim=8), 'down_blocks.1.attentions.0'), (dict(eps=0.1), 'down_blocks.0.resnets.0')])
def test_the_table_names_the_first_block_to_differ(change, culprit):
    theirs = their_unet(TINY)
    ours = UNet(**unet_arguments(TINY) | change).eval()
    ours.load_state_dict(theirs.state_dict())
    rows = compare_blocks(ours, theirs, *batch(TINY))
    assert first_to_differ(rows) == culprit and first_to_differ(rows, tolerance=100.) is None


def test_the_table_finds_one_changed_weight_and_nan():
    theirs = their_unet(TINY)
    for value in (1.5, float('nan')):
        ours = UNet(**unet_arguments(TINY)).eval()
        ours.load_state_dict(theirs.state_dict())
        with torch.no_grad(): ours.up_blocks[0].resnets[1].conv2.bias[3] += value
        assert first_to_differ(compare_blocks(ours, theirs, *batch(TINY))) == 'up_blocks.0.resnets.1'
    with pytest.raises(ValueError): compare_blocks(ours, theirs, torch.zeros(1, 2, 8, 8), torch.tensor([1]))
    assert not any(m._forward_hooks for net in (ours, theirs) for m in net.modules())


@pytest.mark.parametrize('variance, schedule, exact, within', [('fixed_small', 'squaredcos_cap_v2', True, 2e-5), ('fixed_large', 'linear', False, 2e-4)])
def test_a_full_chain_agrees_with_the_librarys_pipeline(tmp_path, variance, schedule, exact, within):
    "1000 steps with the same noise. The library keeps its tables in float32; with exact ones in their place it agrees more closely."
    folder = publish(tmp_path/'p', seed=3, variance_type=variance, beta_schedule=schedule)
    pipe = DDPMPipeline.from_pretrained(folder)
    if exact: pipe.scheduler.alphas_cumprod = cosine_schedule(1000).alpha_bar[1:]
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(batch_size=2, generator=torch.Generator().manual_seed(7), num_inference_steps=1000, output_type='pt').images
    model, reverse = load_diffusers(folder)
    ours = ddpm_sample(reverse, model, (2, 1, 8, 8), generator=torch.Generator().manual_seed(7))
    inside = (theirs > 0) & (theirs < 1)
    error = ((ours/2 + 0.5).clamp(0, 1) - theirs).abs().max().item()
    assert inside.float().mean() > 0.3 and error < within, error


@pytest.mark.parametrize('prediction, beta_end', [('epsilon', 1e-3), ('v_prediction', 0.02), ('sample', 0.02)])
def test_ten_ddim_steps_agree_with_the_librarys_pipeline(tmp_path, prediction, beta_end):
    "(With random weights and much noise nearly all pixels would end up at the clip, where everything is equal.)"
    DDIMPipeline(their_unet(TINY, 5), DDIMScheduler(prediction_type=prediction, beta_end=beta_end)).save_pretrained(tmp_path/'p')
    pipe = DDIMPipeline.from_pretrained(tmp_path/'p')
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(batch_size=4, generator=torch.Generator().manual_seed(7), num_inference_steps=10, use_clipped_model_output=True, output_type='pt').images
    model, reverse = load_diffusers(tmp_path/'p')
    ours = ddim_sample(reverse, model, (4, 1, 8, 8), 10, spacing='leading', generator=torch.Generator().manual_seed(7))
    inside = (theirs > 0) & (theirs < 1)
    assert inside.float().mean() > 0.3 and ((ours/2 + 0.5).clamp(0, 1) - theirs).abs().max() < 1e-4


@pytest.mark.parametrize('config', [dict(), dict(beta_schedule='squaredcos_cap_v2', num_train_timesteps=100), dict(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012), dict(beta_schedule='sigmoid'),
                                    dict(trained_betas=[0.1, 0.2, 0.35]), dict(beta_start=0.001, beta_end=0.03, num_train_timesteps=50)], ids=str)
def test_schedules_agree_with_the_library(config):
    scheduler = DDPMScheduler(**config)
    schedule = reverse_from_config(dict(scheduler.config)).schedule
    assert schedule.T == len(scheduler.betas) and (schedule.beta[1:] - scheduler.betas).abs().max() < 1e-6
    assert (schedule.alpha_bar[1:] - scheduler.alphas_cumprod).abs().max() < 1e-5


@pytest.mark.parametrize('kind', ['fixed_small', 'fixed_small_log', 'fixed_large', 'learned_range'])
@pytest.mark.parametrize('clip', [True, False])
def test_one_reverse_step_agrees_with_the_library(kind, clip):
    scheduler = DDPMScheduler(variance_type=kind, clip_sample=clip)
    reverse = reverse_from_config(dict(scheduler.config))
    x, out = torch.randn(2, 1, 4, 4), torch.randn(2, reverse.parts, 4, 4)
    for t in (1, 2, 500, 1000):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        theirs = scheduler.step(out, t - 1, x, generator=torch.Generator().manual_seed(1)).prev_sample
        assert relative(reverse.step(lambda *_: out, x, t, noise), theirs) < 2e-4


# Folders, files and names

def test_both_layouts_give_the_same(pipeline, copy):
    (a, ra), (b, rb) = load_diffusers(pipeline), load_diffusers(str(copy))
    x, t = batch(TINY)
    assert not a.training and a.sample_size == 8 and torch.equal(a(x, t), b(x, t)) and repr(ra) == repr(rb)
    assert all(p.requires_grad and p.dtype == torch.float32 and p.device.type == 'cpu' for p in a.parameters())


def rewrite(folder, change, binary=False):
    "Replace a folder's weights by what change makes of them."
    tensors = change(load_file(folder/WEIGHTS[0]))
    if binary:
        (folder/WEIGHTS[0]).unlink()
        torch.save(tensors, folder/WEIGHTS[1])
    else: save_file(tensors, folder/WEIGHTS[0])


def old_names(tensors):
    old = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn', 'mid_block.': 'mid.', 'down_blocks.': 'downsample_blocks.', 'downsamplers.0.conv': 'downsamplers.0.op'}
    def rename(k):
        for new, before in old.items(): k = k.replace(new, before)
        return k
    return {rename(k): v.clone() for k, v in tensors.items()}


def convolutions(tensors): return {k: v[:, :, None, None].contiguous() if '.attentions.' in k and v.ndim == 2 else v for k, v in tensors.items()}


@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize('change', [dict, old_names, convolutions, lambda t: convolutions(old_names(t)), lambda t: {k: v.double() for k, v in t.items()}, lambda t: t | old_names(t)],
                         ids=['as it is', 'old names', '1x1', 'both', 'double', 'twice'])
def test_older_files_give_the_same(pipeline, copy, change, binary):
    rewrite(copy, change, binary)
    x, t = batch(TINY)
    assert torch.equal(load_diffusers(copy)[0](x, t), load_diffusers(pipeline)[0](x, t))


def test_the_library_reads_old_names_the_same_way(pipeline, copy):
    attention_only = lambda t: {(k.replace('to_q', 'query').replace('to_k', 'key').replace('to_v', 'value').replace('to_out.0', 'proj_attn') if '.attentions.' in k else k): v for k, v in t.items()}
    rewrite(copy, attention_only)
    assert 'down_blocks.1.attentions.0.query.weight' in load_file(copy/WEIGHTS[0])
    theirs = UNet2DModel.from_pretrained(copy, low_cpu_mem_usage=False).eval()
    assert first_to_differ(compare_blocks(load_diffusers(copy)[0], theirs, *batch(TINY))) is None


def test_old_field_names(copy, pipeline):
    path = copy/'config.json'
    config = json.loads(path.read_text())
    for old, new in (('image_size', 'sample_size'), ('num_res_blocks', 'layers_per_block'), ('block_channels', 'block_out_channels'), ('resnet_eps', 'norm_eps'), ('num_head_channels', 'attention_head_dim')): config[old] = config.pop(new)
    config['down_block_types'] = ['UNetRes' + k if not k.startswith('Attn') else k for k in config['down_block_types']]
    path.write_text(json.dumps(config))
    assert load_diffusers(copy)[0].settings == load_diffusers(pipeline)[0].settings


@pytest.mark.parametrize('field, value, word', [
    ('_class_name', 'UNet2DConditionModel', 'UNet2DModel'), ('time_embedding_type', 'fourier', "'positional'"), ('resnet_time_scale_shift', 'scale_shift', "'default'"), ('act_fn', 'gelu', "'silu'"),
    ('downsample_padding', 2, '0 or 1'), ('class_embed_type', 'timestep', 'None'), ('center_input_sample', True, 'False'), ('mid_block_scale_factor', 1.4, '1'), ('add_attention', False, 'True'), ('mid_block_type', None, 'UNetMidBlock2D'),
    ('down_block_types', ['ResnetDownsampleBlock2D', 'DownBlock2D'], 'AttnDownBlock2D'), ('up_block_types', ['UpBlock2D', 'UpBlock2D'], 'same levels'), ('down_block_types', ['DownBlock2D'], '2 widths'),
    ('time_embedding_dim', 100, '32'), ('attn_norm_num_groups', 2, 'norm_num_groups, 4'), ('norm_num_groups', None, 'whole number'), ('cross_attention_dim', 768, 'fields of a UNet2DModel')])
def test_a_plan_that_is_not_supported_names_the_field(copy, field, value, word):
    edit(copy/'config.json', **{field: value})
    with pytest.raises(ValueError, match=f'{field} = .* is not supported; supported: .*{word}'): load_diffusers(copy)


@pytest.mark.parametrize('field, value, word', [
    ('_class_name', 'PNDMScheduler', 'DDPMScheduler'), ('beta_schedule', 'laplace', 'squaredcos_cap_v2'), ('variance_type', 'learned', 'learned_range'), ('variance_type', 'fixed_large_log', 'fixed_large'), ('prediction_type', 'flow', 'epsilon'),
    ('thresholding', True, 'False'), ('rescale_betas_zero_snr', True, 'False'), ('clip_sample_range', 2.0, '1.0'), ('set_alpha_to_one', False, 'True')])
def test_a_scheduler_that_is_not_supported_names_the_field(copy, field, value, word):
    edit(copy/'scheduler_config.json', **{field: value})
    with pytest.raises(ValueError, match=f'{field} = .* is not supported; supported: .*{word}'): load_diffusers(copy)


def drop(tensors, name): return {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize('change, word', [(lambda t: drop(t, 'mid_block.resnets.0.conv1.weight'), 'lacks mid_block.resnets.0.conv1.weight'), (lambda t: t | {'conv_extra.weight': torch.zeros(2)}, 'holds conv_extra.weight'),
                                          (lambda t: t | {'conv_out.bias': torch.zeros(3)}, r'conv_out.bias has shape \(3,\)'), (lambda t: t | {'mid_block.attentions.0.query.weight': torch.zeros(16, 16)}, 'two different tensors for mid_block.attentions.0.to_q.weight')])
def test_tensors_that_do_not_fit_are_named(copy, change, word):
    rewrite(copy, change)
    with pytest.raises(ValueError, match=word): load_diffusers(copy)


class Evil:
    def __reduce__(self): return (print, ('this must never run',))


def test_broken_files(copy, capsys):
    weights = (copy/WEIGHTS[0]).read_bytes()
    for broken in (b'', weights[:500], weights[:-10]):
        (copy/WEIGHTS[0]).write_bytes(broken)
        with pytest.raises(ValueError, match='not a whole file of tensors'): load_diffusers(copy)
    (copy/WEIGHTS[0]).unlink()
    for value in (Evil(), {'conv_in.weight': Evil()}):
        torch.save(value, copy/WEIGHTS[1])
        with pytest.raises(ValueError, match='not a whole file of tensors'): load_diffusers(copy)
    torch.save([torch.zeros(2)], copy/WEIGHTS[1])
    with pytest.raises(ValueError, match='something else'): load_diffusers(copy)
    (copy/WEIGHTS[1]).write_bytes(b'abc')
    with pytest.raises(ValueError, match='not a whole file of tensors'): load_diffusers(copy)
    (copy/WEIGHTS[1]).unlink()
    with pytest.raises(ValueError, match='no weights in'): load_diffusers(copy)
    for text, word in (('{', 'cannot be read'), ('[]', 'must hold an object')):
        (copy/'config.json').write_text(text)
        with pytest.raises(ValueError, match=word): load_diffusers(copy)
    (copy/'config.json').unlink()
    with pytest.raises(ValueError, match='has no config.json'): load_diffusers(copy)
    assert 'never run' not in capsys.readouterr().out


def test_a_network_without_a_scheduler_needs_a_reverse(tmp_path):
    their_unet(TINY).save_pretrained(tmp_path/'u')
    with pytest.raises(ValueError, match='give reverse='): load_diffusers(tmp_path/'u')
    reverse = Reverse(cosine_schedule(20))
    assert load_diffusers(tmp_path/'u', reverse)[1] is reverse
    with pytest.raises(ValueError, match="out_channels = 1 is not supported; supported: 2 for variance 'learned_range'"): load_diffusers(tmp_path/'u', Reverse(cosine_schedule(20), variance='learned_range'))


# Labels

LABELLED = TINY | dict(num_class_embeds=4)


def test_labels_of_the_library(tmp_path):
    folder = publish(tmp_path/'p', LABELLED)
    theirs = UNet2DModel.from_pretrained(folder/'unet').eval()
    x, t = batch(TINY, n=4)
    wanted = theirs(x, t - 1, class_labels=torch.arange(4)).sample
    with pytest.warns(UserWarning, match='never trained'): all_labels, _ = load_diffusers(folder)
    assert all_labels.settings['classes'] == 4 and relative(all_labels(x, t, torch.arange(4)), wanted) < 1e-5 and not all_labels.class_embedding.weight[4].any()
    last_is_null, _ = load_diffusers(folder, null_label=True)
    assert last_is_null.settings['classes'] == 3 and relative(last_is_null(x, t, torch.arange(4)), wanted) < 1e-5 and relative(last_is_null(x[3:], t[3:]), wanted[3:]) < 1e-5
    assert first_to_differ(compare_blocks(last_is_null, theirs, x, t, torch.arange(4))) is None


# Publishing

def awake(model):
    g = torch.Generator().manual_seed(1)
    for p in model.parameters(): p.data = torch.randn(p.shape, generator=g)*0.2
    return model.eval()


NETWORKS = [dict(), dict(in_channels=3, out_channels=6, widths=(16, 24, 32), attention_at=(0, 2), groups=8, head_dim=8, eps=1e-3, padding='both', cos_first=True, speed_shift=0., dropout=0.1),
            dict(classes=3), dict(widths=(8, 16), attention_at=(), heads=4)]


@pytest.mark.parametrize('network', NETWORKS, ids=str)
def test_what_we_publish_the_library_opens_and_we_read_back(tmp_path, network):
    model = awake(UNet(**dict(in_channels=1, widths=(8, 16), layers=1, groups=4) | network))
    parts = model.settings['out_channels']//model.settings['in_channels']
    reverse = Reverse(linear_schedule(50), 'v', 'learned_range' if parts == 2 else 'beta', clip=False, sigma_1='beta')
    folder = save_diffusers(model, reverse, tmp_path/'mine', size=16)
    assert sorted(p.name for p in folder.iterdir()) == sorted(['config.json', 'scheduler_config.json', 'model_index.json', WEIGHTS[0]])
    x, t = torch.randn(2, model.settings['in_channels'], 16, 16), torch.tensor([1, 50])
    y = torch.tensor([0, 3]) if 'classes' in network else None
    theirs = UNet2DModel.from_pretrained(folder).eval()
    assert first_to_differ(compare_blocks(model, theirs, x, t, y)) is None
    back, back_reverse = load_diffusers(folder)
    assert torch.equal(back(x, t, y), model(x, t, y)) and back.sample_size == 16 and repr(back_reverse) == repr(reverse) and torch.equal(back_reverse.schedule.beta, reverse.schedule.beta)
    assert {k: v for k, v in back.settings.items() if k not in ('heads', 'head_dim')} == {k: v for k, v in model.settings.items() if k not in ('heads', 'head_dim')}
    again = save_diffusers(back, back_reverse, tmp_path/'again')
    assert all((again/name).read_bytes() == (folder/name).read_bytes() for name in ('config.json', 'scheduler_config.json', WEIGHTS[0]))


def test_the_librarys_pipeline_samples_what_we_publish(tmp_path):
    model, reverse = awake(UNet(1, widths=(8, 16), layers=1, groups=4)), Reverse(offset_cosine_schedule(30), variance='beta')
    pipe = DDPMPipeline.from_pretrained(save_diffusers(model, reverse, tmp_path/'mine', size=(8, 12)))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(batch_size=2, generator=torch.Generator().manual_seed(0), num_inference_steps=30, output_type='pt').images
    ours = ddpm_sample(reverse, model, (2, 1, 8, 12), generator=torch.Generator().manual_seed(0))
    assert theirs.std() > 0.05 and ((ours/2 + 0.5).clamp(0, 1) - theirs).abs().max() < 1e-4


@pytest.mark.parametrize('schedule', [linear_schedule(1000), linear_schedule(77), cosine_schedule(100), offset_cosine_schedule(10)], ids=repr)
def test_schedules_survive_bit_for_bit(schedule):
    config = json.loads(json.dumps(config_from_reverse(Reverse(schedule))))
    assert torch.equal(reverse_from_config(config).schedule.beta, schedule.beta)
    theirs = DDPMScheduler.from_config(config)
    assert (theirs.betas - schedule.beta[1:]).abs().max() < 1e-6 and (config['trained_betas'] is None) == ('linear' in repr(config) and torch.allclose(schedule.beta[1:].diff().diff(), torch.zeros(schedule.T - 2).double(), atol=1e-9))


@pytest.mark.parametrize('network, reverse, word', [(dict(), dict(predict='mu'), "predicts 'mu'"), (dict(out_channels=2), dict(variance='learned'), 'log-variance'), (dict(heads=2), {}, 'different widths')])
def test_what_the_library_cannot_say(tmp_path, network, reverse, word):
    model = UNet(**dict(in_channels=1, widths=(8, 16), attention_at=(0, 1), layers=1, groups=4) | network)
    with pytest.raises(ValueError, match=word): save_diffusers(model, Reverse(linear_schedule(50), **reverse), tmp_path/'x')
    assert not list(tmp_path.iterdir())


def test_published_whole_or_not_at_all(tmp_path):
    model, reverse = UNet(1, widths=(8, 16), layers=1, groups=4), Reverse(linear_schedule(50))
    with pytest.raises(OSError), no_file_longer_than(10_000): save_diffusers(model, reverse, tmp_path/'x')
    assert not list(tmp_path.iterdir())
    (tmp_path/'x').mkdir()
    save_diffusers(model, reverse, tmp_path/'x')
    before = (tmp_path/'x'/WEIGHTS[0]).read_bytes()
    with pytest.raises(ValueError, match='not empty'): save_diffusers(awake(model), reverse, tmp_path/'x')
    assert (tmp_path/'x'/WEIGHTS[0]).read_bytes() == before and not leftovers(tmp_path)


# The hub

def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ImportError, match=r'pip install ddpm-course\[hub\]'): load_diffusers()


def test_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(ValueError, match='cannot be had from the hub') as error: load_diffusers('google/ddpm-no-such-thing')
    assert len(str(error.value)) < 300 and '\n' not in str(error.value)


@pytest.mark.parametrize('source', ['nowhere', './a/b', '/no/such/folder', 'a/b/c', ''])
def test_neither_a_folder_nor_a_name(source):
    with pytest.raises(ValueError, match='no folder at'): load_diffusers(source) if source else load_diffusers('no folder')


@pytest.mark.parametrize('binary', [False, True])
def test_the_hub_is_asked_for_one_version_and_only_what_is_read(monkeypatch, copy, pipeline, binary):
    if binary: rewrite(copy, dict, True)
    asked = []
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda repo, revision, allow_patterns: asked.append((repo, revision, allow_patterns)) or str(copy))
    model, _ = load_diffusers('someone/some-ddpm', revision='abc123')
    x, t = batch(TINY)
    assert torch.equal(model(x, t), load_diffusers(pipeline)[0](x, t))
    assert [a[:2] for a in asked] == [('someone/some-ddpm', 'abc123')]*(1 + binary)
    assert WEIGHTS[1] not in asked[0][2] and (WEIGHTS[1] in asked[-1][2]) is binary and 'scheduler/scheduler_config.json' in asked[0][2]


def test_a_folder_of_that_name_comes_first(monkeypatch, copy, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'google').mkdir()
    copy.rename(tmp_path/'google'/'ddpm-cifar10-32')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    assert load_diffusers()[0].settings['widths'] == (8, 16)
    with pytest.raises(ImportError): download('google/ddpm-cifar10-32')


def test_names_that_are_new_stay_as_they_are():
    assert all(modern_name(name) == name for name in UNet2DModel(**TINY).state_dict())
