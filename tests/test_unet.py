"The network: against diffusers, at any shape and type, compiled, with labels, and at the door."
import json
import math
import warnings
import pytest
import torch
from diffusers import UNet2DModel
from torch.nn import functional as F
from ddpm_course.checkpoints import load_run, restore_model
from ddpm_course.ddim import ddim_sample
from ddpm_course.reverse import Reverse
from ddpm_course.schedules import linear_schedule
from ddpm_course.unet import Attention, Details, Downsample, PlainResNet, UNet, attention_levels, count_parameters, sinusoids

LIBRARY = dict(head_dim=8, eps=1e-5, padding='both', cos_first=True, speed_shift=0)  # what UNet2DModel does when it is told nothing


def awake(model, std=0.2):
    "Nothing zero, nothing at its default, everything at a size that matters."
    g = torch.Generator().manual_seed(1)
    for p in model.parameters(): p.data = torch.randn(p.shape, generator=g)*std
    return model


def their_unet(widths, attention_at, channels=3, **changes):
    kinds = lambda name: [('Attn' if i in attention_at else '') + name for i in range(len(widths))]
    paper = dict(flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, norm_eps=1e-6, attention_head_dim=None)
    return UNet2DModel(in_channels=channels, out_channels=channels, block_out_channels=widths, layers_per_block=2, norm_num_groups=8,
                       down_block_types=kinds('DownBlock2D'), up_block_types=kinds('UpBlock2D')[::-1], **paper | changes)


def pair(changes, details, widths=(16, 32, 48)):
    "The same random weights there and here."
    theirs = awake(their_unet(widths, (1, 2), **changes)).eval()
    ours = UNet(3, 3, widths, 2, (1, 2), groups=8, **details).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def relative(a, b): return ((a - b).abs().max()/b.abs().max()).item()


CHOICES = [({}, {}), (dict(attention_head_dim=8), dict(head_dim=8)), (dict(norm_eps=1e-2), dict(eps=1e-2)), (dict(downsample_padding=1), dict(padding='both')),
           (dict(flip_sin_to_cos=True), dict(cos_first=True)), (dict(freq_shift=0), dict(speed_shift=0))]


@pytest.mark.parametrize('changes, details', CHOICES)
def test_every_choice_agrees_with_diffusers_and_matters(changes, details):
    theirs, ours = pair(changes, details)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1, 777])
    with torch.no_grad():
        wanted = theirs(x, t - 1).sample
        assert relative(ours(x, t), wanted) < 1e-5
        if details:
            plain = UNet(3, 3, (16, 32, 48), 2, (1, 2), groups=8).eval()
            plain.load_state_dict(theirs.state_dict())
            assert relative(plain(x, t), wanted) > 1e-4


def test_labels_agree_with_diffusers():
    theirs, ours = awake(their_unet((16, 32), (1,), num_class_embeds=4)).eval(), UNet(3, 3, (16, 32), 2, classes=3).eval()
    ours.load_state_dict(theirs.state_dict())
    x, t, y = torch.randn(4, 3, 8, 8), torch.tensor([1, 2, 500, 1000]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad(): assert relative(ours(x, t, y), theirs(x, t - 1, class_labels=y).sample) < 1e-5


def test_labels_and_the_null_label():
    model, x, t = awake(UNet(1, widths=(16, 32), layers=1, classes=3)).eval(), torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.tensor([5]*4)
    with torch.no_grad():
        answers = model(x, t, torch.tensor([0, 1, 2, 3]))
        assert all(relative(answers[i], answers[j]) > 1e-3 for i in range(4) for j in range(i))
        assert torch.allclose(model(x, t), answers[3:].expand(4, -1, -1, -1), atol=1e-5) and torch.equal(model(x, t, y=None), model(x, t, torch.full((4,), 3)))
    assert model.class_embedding.weight.shape == (4, 64) and not hasattr(UNet(1), 'class_embedding')


@pytest.mark.parametrize('y, word', [(torch.tensor([0, 4]), r'0\.\.2, or be 3 for no label, got 4'), (torch.tensor([-1, 0]), 'got -1'), (torch.tensor([0.5, 1]), 'int64'),
                                     (torch.tensor([1]), r'shape \(2,\)'), (torch.tensor(1), r'shape \(2,\)')])
def test_labels_at_the_door(y, word):
    with pytest.raises(ValueError, match=word): UNet(1, widths=(16,), attention_at=(), classes=3)(torch.zeros(2, 1, 8, 8), torch.tensor([1, 2]), y)


def test_a_network_without_labels_says_so():
    with pytest.raises(ValueError, match='takes no labels'): UNet(1)(torch.zeros(1, 1, 8, 8), torch.tensor([1]), torch.tensor([0]))


def test_published_layouts():
    with torch.device('meta'):
        cifar = UNet(3, 3, (128, 256, 256, 256), 2, (1,), groups=32)
        large = UNet(3, 3, (128, 128, 256, 256, 512, 512), 2, attention_levels((16,), 256, 6), groups=32)
    assert (count_parameters(cifar), len(cifar.state_dict())) == (35_746_307, 328)
    assert (count_parameters(large), len(large.state_dict())) == (113_673_219, 450)


def test_what_was_saved_before_these_choices_existed_still_loads():
    model, _, config = load_run('digits')
    old = {k: config['model'][k] for k in ('in_channels', 'out_channels', 'widths', 'layers', 'attention_at', 'heads', 'groups', 'dropout')}
    again = restore_model({'model': old}).eval()
    again.load_state_dict(model.state_dict())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 700])
    with torch.no_grad(): assert torch.equal(again(x, t), model(x, t))
    assert again.settings['eps'] == 1e-6 and again.settings['padding'] == 'after' and again.settings['classes'] is None


def test_settings_build_the_same_network_again():
    model = awake(UNet(2, 4, (16, 32), 1, (0, 1), groups=4, dropout=0.1, classes=5, checkpointing=True, **LIBRARY)).eval()
    again = restore_model({'model': json.loads(json.dumps(model.settings))}).eval()
    again.load_state_dict(model.state_dict())
    x, t = torch.randn(2, 2, 8, 8), torch.tensor([3, 800])
    assert again.settings == model.settings and again.checkpointing and torch.equal(again(x, t), model(x, t))


@pytest.mark.parametrize('padding', ['after', 'both'])
@pytest.mark.parametrize('shape', [(1, 8, 8), (1, 28, 28), (3, 33, 47), (2, 5, 9), (4, 64, 24), (1, 256, 256), (3, 9, 256)])
def test_any_shape(shape, padding):
    model = awake(UNet(shape[0], widths=(8, 16, 16), layers=1, attention_at=(), groups=4, padding=padding))
    with torch.no_grad(): out = model(torch.randn(2, *shape), torch.tensor([1, 9]))
    assert out.shape == (2, *shape) and out.isfinite().all() and out.std() > 0


def test_no_pixel_is_cropped():
    "Every pixel of an odd, non-square picture is answered for and is looked at."
    model, x = awake(UNet(1, widths=(8, 16, 16), layers=1, groups=4)), torch.randn(1, 1, 11, 7, requires_grad=True)
    out = model(x, torch.tensor([10]))
    out.sum().backward()
    assert (x.grad != 0).all() and out.flatten().unique().numel() == 77


@pytest.mark.parametrize('side', [8, 9, 28, 47])
def test_halving_rounds_as_it_says(side):
    x = torch.randn(1, 4, side, side + 1)
    after, both = Downsample(4), Downsample(4, 'both')
    assert after(x).shape[2:] == (side//2, (side + 1)//2) and both(x).shape[2:] == (math.ceil(side/2), math.ceil((side + 1)/2))
    assert torch.allclose(both(x), F.conv2d(x, both.conv.weight, both.conv.bias, stride=2, padding=1), atol=1e-6)


def test_zeros_on_all_sides_make_every_size_work():
    model = awake(UNet(1, widths=(8, 16, 16), layers=1, groups=4, padding='both'))
    assert model(torch.randn(1, 1, 1, 3), torch.tensor([1])).shape == (1, 1, 1, 3)


def test_zero_start_and_time():
    model, x = UNet(1, widths=(8, 16), layers=1, groups=4), torch.randn(2, 1, 8, 8)
    assert model(x, torch.tensor([1, 5])).abs().max() == 0
    awake(model)
    assert not torch.allclose(model(x, torch.tensor([1, 1])), model(x, torch.tensor([900, 900])))
    plain = PlainResNet(1, 8, 1)
    assert torch.equal(plain(x, torch.tensor([1, 1])), plain(x, torch.tensor([900, 900])))


def test_groups_of_one_channel_are_warned_about_because_they_hide_the_time():
    with pytest.warns(UserWarning, match='cannot see t'): blind = awake(UNet(1, widths=(8,), layers=1, attention_at=(), groups=8)).double()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        seeing = awake(UNet(1, widths=(8,), layers=1, attention_at=(), groups=4)).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64).expand(2, -1, -1, -1)
    for model, sees in ((blind, False), (seeing, True)):
        a, b = model(x, torch.tensor([1, 900]))
        assert (relative(a, b) > 1e-3) is sees and (relative(a, b) < 1e-9) is not sees


@pytest.mark.parametrize('make, word', [(lambda: UNet(1, widths=(12, 20)), 'groups'), (lambda: UNet(1, groups=-1), 'groups must be at least 1, or 0'), (lambda: UNet(1, widths=(16,), attention_at=(1,)), 'levels'),
                                        (lambda: UNet(1, widths=()), 'widths'), (lambda: UNet(1, layers=0), 'layers'), (lambda: UNet(1, widths=(6, 8), groups=2, attention_at=(), speed_shift=3), 'speed_shift'),
                                        (lambda: UNet(1, widths=(16,), attention_at=(), heads=3), 'heads=3'), (lambda: UNet(1, widths=(16, 24), groups=8, head_dim=16), 'head_dim=16'),
                                        (lambda: UNet(1, head_dim=0), 'head_dim must be'), (lambda: UNet(1, padding='before'), "'after' or 'both'"), (lambda: UNet(1, eps=0.), 'eps'),
                                        (lambda: UNet(1)(torch.zeros(1, 3, 8, 8), torch.tensor([1])), 'expected pictures'), (lambda: UNet(1)(torch.zeros(1, 1, 3, 8), torch.tensor([1])), 'at least 4'),
                                        (lambda: UNet(1)(torch.zeros(2, 1, 8, 8), torch.tensor([1])), 'one step for each')])
def test_unet_at_the_door(make, word):
    with pytest.raises(ValueError, match=word): make()


def test_a_width_without_attention_need_not_suit_the_heads():
    model = UNet(1, widths=(12, 16), attention_at=(), groups=4, head_dim=8)
    assert model.mid_block.attentions[0].heads == 2
    with pytest.raises(TypeError): UNet(1, colour=3)


@pytest.mark.parametrize('sides, size, levels, wanted', [((16,), 32, 4, (1,)), ((16,), 256, 6, (4,)), ((8, 32), (32, 40), 3, (0, 2)), ((7,), 28, 3, (2,)), ((), 8, 1, ())])
def test_levels_of_resolutions(sides, size, levels, wanted): assert attention_levels(sides, size, levels) == wanted


@pytest.mark.parametrize('sides, size, levels, word', [((16,), 28, 3, '28, 14, 7'), ((32, 5), 32, 2, '5 pixels a side: 2 levels .* have 32, 16'), ((0,), 2, 4, '0 pixels')])
def test_resolutions_that_do_not_exist(sides, size, levels, word):
    with pytest.raises(ValueError, match=word): attention_levels(sides, size, levels)


def test_sinusoids_by_hand():
    e = sinusoids(torch.tensor([0, 7]), 8)
    assert torch.equal(e[0], torch.tensor([0., 0, 0, 0, 1, 1, 1, 1]))
    for shift in (0, 1):
        angles = torch.tensor([7*10000**(-k/(4 - shift)) for k in range(4)])
        assert torch.allclose(sinusoids(torch.tensor([7]), 8, speed_shift=shift)[0], torch.cat([angles.sin(), angles.cos()]), atol=1e-6)
        assert torch.allclose(sinusoids(torch.tensor([7]), 8, True, shift)[0], torch.cat([angles.cos(), angles.sin()]), atol=1e-6)


@pytest.mark.parametrize('dropout', [0., 0.3])
def test_checkpointing_changes_nothing_but_memory(dropout):
    kept, inside = [], []
    for checkpointing in (False, True):
        model, x, t = awake(UNet(1, widths=(16, 32), layers=1, dropout=dropout, checkpointing=checkpointing, classes=2)), torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 500])
        torch.manual_seed(5)
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(lambda v: stored.append(v.numel()) or v, lambda v: v): out = model(x, t, torch.tensor([0, 1]))
        out.square().mean().backward()
        kept.append([out, *(p.grad for p in model.parameters())]); inside.append(sum(stored))
    assert all(torch.equal(a, b) for a, b in zip(*kept)) and all(g.any() for g in kept[0][1:])
    assert inside[1] < 0.6*inside[0]


def test_checkpointing_runs_blocks_twice_only_with_gradients():
    model, calls = UNet(1, widths=(16, 32), layers=1, checkpointing=True), []
    model.mid_block.resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([1])
    with torch.no_grad(): model(x, t)
    assert len(calls) == 1
    awake(model)(x, t).sum().backward()
    assert len(calls) == 3


@pytest.mark.parametrize('kwargs', [{}, dict(classes=3, **LIBRARY), dict(checkpointing=True, heads=2)], ids=str)
def test_no_graph_breaks(kwargs):
    model = awake(UNet(1, widths=(16, 32), layers=1, **kwargs))
    x, t, y = torch.randn(2, 1, 9, 8), torch.tensor([1, 500]), torch.tensor([0, 3]) if 'classes' in kwargs else None
    torch._dynamo.reset()
    fast = torch.compile(model, fullgraph=True, backend='eager')
    assert torch.allclose(fast(x, t, y), model(x, t, y), atol=1e-5)
    fast(x, t, y).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('dtype, within', [(torch.bfloat16, 0.1), (torch.float16, 0.02), (torch.float64, 1e-5)])
def test_types(dtype, within):
    "Weights of any type; pictures come as they are, and samplers work on top."
    model = UNet(1, widths=(16, 32), layers=1, classes=2).eval()
    for m in model.modules():
        if hasattr(m, 'weight') and not m.weight.any(): m.reset_parameters()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 500])
    with torch.no_grad():
        wanted = model(x, t)
        out = model.to(dtype)(x, t)
    assert out.dtype == dtype and relative(out.double(), wanted.double()) < within
    sample = ddim_sample(Reverse(linear_schedule(50)), model, (2, 1, 8, 8), 3, seeds=[0, 1])
    assert sample.isfinite().all() and sample.dtype == torch.float32


def test_nothing_lives_on_a_fixed_device():
    "On the meta device every tensor made on another one would be an error."
    model = UNet(1, widths=(16, 32), layers=1, classes=2, **LIBRARY).to('meta')
    x, t = torch.empty(2, 1, 8, 8, device='meta'), torch.ones(2, dtype=torch.int64, device='meta')
    places = []
    for part in (model.class_embedding, model.time_embedding.linear_1): part.register_forward_pre_hook(lambda m, given: places.append(given[0].device.type))
    assert model(x, t).device.type == 'meta' and model(x, t, t).shape == (2, 1, 8, 8) and places == ['meta']*4


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_attention_never_makes_the_table_of_all_pairs(dtype):
    "At 64×64 the table would hold 4096² numbers for each picture; queries, keys and values together hold 3·8·4096."
    att, largest = Attention(8, groups=4).to(dtype), []
    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            largest.extend(o.numel() for o in (out if isinstance(out, tuple) else (out,)) if isinstance(o, torch.Tensor))
            return out
    with Watch(): att(torch.randn(1, 8, 64, 64, dtype=dtype)).sum().backward()
    assert max(largest) == 3*8*64*64


def test_details_are_those_that_are_documented():
    assert Details() == Details(None, 1e-6, 'after', False, 1.) and Details(**LIBRARY).heads(32, 1) == 4 and Details().heads(32, 2) == 2
