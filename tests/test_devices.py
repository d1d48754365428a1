"What suits a machine, and the rewritten parts against PyTorch's own."
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ddpm_course import devices
from ddpm_course.devices import AtPrecision, GroupNorm, attend, doubled, fastest_settings, pick_device
from ddpm_course.unet import UNet

LAST, FIRST = torch.channels_last, torch.contiguous_format
CPU, CUDA, MPS = map(torch.device, ('cpu', 'cuda', 'mps'))


def relative(a, b): return ((a - b).abs().max()/b.abs().max()).item()


# What suits a machine

def test_devices():
    assert pick_device('cpu').type == 'cpu' and pick_device('auto').type in ('cpu', 'cuda', 'mps')
    with pytest.raises(ValueError, match='no device'): pick_device('abacus')


def test_a_network_at_a_precision():
    "float32 outside; inside what was asked for, which shows in the last digits."
    torch.manual_seed(0)
    model, x, t = UNet(1, widths=(16,), layers=1, attention_at=()).eval(), torch.randn(2, 1, 8, 8), torch.tensor([3, 900])
    nn.init.normal_(model.conv_out.weight)
    with torch.no_grad(): exact, full, half = model(x, t), AtPrecision(model, CPU, 'fp32')(x, t), AtPrecision(model, CPU, 'bf16')(x, t)
    assert torch.equal(full, exact) and half.dtype == torch.float32 and 1e-4 < relative(half, exact) < 0.1
    assert next(AtPrecision(model, CPU).parameters()) is next(model.parameters())


@pytest.mark.parametrize('features, precision, wanted', [
    ({'amx_tile', 'avx512_bf16'}, 'auto', (torch.bfloat16, LAST)), ({'amx_tile'}, 'bf16', (torch.bfloat16, LAST)), ({'amx_tile'}, 'fp32', (torch.float32, FIRST)),
    ({'avx512_bf16'}, 'auto', (torch.bfloat16, FIRST)), ({'avx512_bf16'}, 'fp32', (torch.float32, FIRST)), (set(), 'auto', (torch.float32, FIRST)),
    (set(), 'bf16', (torch.bfloat16, FIRST)), (set(), 'fp16', (torch.float16, FIRST))])
def test_settings_of_cpus(monkeypatch, features, precision, wanted):
    monkeypatch.setattr(devices, 'cpu_has', lambda feature: feature in features)
    assert fastest_settings(CPU, precision) == wanted


@pytest.mark.parametrize('capability, precision, wanted', [((7, 5), 'auto', torch.float16), ((8, 0), 'auto', torch.bfloat16), ((9, 0), 'auto', torch.bfloat16), ((7, 5), 'fp32', torch.float32)])
def test_settings_of_gpus(monkeypatch, capability, precision, wanted):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert fastest_settings(CUDA, precision) == (wanted, LAST)


def test_settings_of_apple_do_not_ask_the_cpu(monkeypatch):
    monkeypatch.setattr(devices, 'cpu_has', lambda feature: True)
    assert fastest_settings(MPS) == (torch.float32, FIRST)


# Copy, then convolve

@pytest.mark.parametrize('shape', [(2, 3, 1, 1), (1, 3, 5, 7), (3, 3, 8, 4)])
@pytest.mark.parametrize('layout', [FIRST, LAST])
def test_one_transposed_convolution_copies_and_convolves(shape, layout):
    torch.manual_seed(0)
    x, w, b = torch.randn(shape, dtype=torch.float64).to(memory_format=layout), torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    inputs = [v.requires_grad_() for v in (x, w, b)]
    wanted = F.conv2d(F.interpolate(x, scale_factor=2, mode='nearest'), w, b, padding=1)
    found = F.conv_transpose2d(x, doubled(w), b, stride=2, padding=1)
    assert relative(found, wanted) < 1e-12
    g = torch.randn_like(wanted)
    for a, c in zip(torch.autograd.grad(found, inputs, g), torch.autograd.grad(wanted, inputs, g)): assert relative(a, c) < 1e-12


# Attention

@pytest.mark.parametrize('heads, n, d', [(1, 64, 128), (2, 256, 32), (2, 257, 32), (8, 64, 8), (1, 4, 16), (1, 1, 32)])
def test_attention_in_half_precision_stays_near_float32(heads, n, d):
    torch.manual_seed(0)
    inputs = [torch.randn(2, heads, n, d).requires_grad_() for _ in range(3)]
    halves = [v.detach().bfloat16().requires_grad_() for v in inputs]
    wanted, found = F.scaled_dot_product_attention(*inputs), attend(*halves)
    assert found.dtype == torch.bfloat16 and relative(found.float(), wanted) < 0.03
    g = torch.randn_like(wanted)
    for a, b in zip(torch.autograd.grad(found, halves, g.bfloat16()), torch.autograd.grad(wanted, inputs, g)):
        assert relative(a.float(), b) < 0.05 or n == 1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_other_types_are_left_to_pytorch(dtype):
    q, k, v = torch.randn(3, 2, 1, 9, 32).to(dtype)
    assert torch.equal(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize('n, d', [(300, 32), (64, 8)])
def test_large_tables_and_narrow_heads_are_not_written_out(monkeypatch, n, d):
    monkeypatch.setattr(torch, 'softmax', None)
    q = torch.randn(1, 1, n, d).bfloat16()
    assert attend(q, q, q).shape == q.shape


# Group norm

def norms(channels, groups, dtype=torch.float64):
    "PyTorch's and ours with the same random weights."
    torch.manual_seed(0)
    theirs, ours = nn.GroupNorm(groups, channels, 1e-6).to(dtype), GroupNorm(groups, channels, 1e-6).to(dtype)
    nn.init.normal_(theirs.weight); nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def used(y):
    "Whether ChannelsLastNorm made y."
    names, ahead = set(), [y.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None: names.add(type(node).__name__); ahead += [n for n, _ in node.next_functions]
    return 'ChannelsLastNormBackward' in names


@pytest.mark.parametrize('shape, groups', [((2, 8, 5, 4), 2), ((1, 6, 3, 3), 3), ((3, 12, 1, 7), 12), ((2, 16, 33, 2), 1)])
@pytest.mark.parametrize('mean', [0, 1000])
def test_group_norm_channels_last(shape, groups, mean):
    theirs, ours = norms(shape[1], groups)
    x = (torch.randn(shape, dtype=torch.float64) + mean).to(memory_format=LAST).requires_grad_()
    a, b = theirs(x), ours(x)
    assert used(b) and not used(a) and b.is_contiguous(memory_format=LAST)
    assert relative(b, a) < 1e-9
    g = torch.randn_like(a)
    for p, q in zip(torch.autograd.grad(b, [x, *ours.parameters()], g), torch.autograd.grad(a, [x, *theirs.parameters()], g)): assert relative(p, q) < 1e-8


def test_group_norm_gradient_by_differences():
    _, norm = norms(6, 2)
    x = torch.randn(2, 6, 3, 2, dtype=torch.float64).to(memory_format=LAST).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: devices.ChannelsLastNorm.apply(x, w, b, 2, 1e-6), (x, norm.weight, norm.bias))


@pytest.mark.parametrize('mean', [0., 3., 100.])
def test_group_norm_in_bfloat16_is_as_good_as_pytorchs(mean):
    theirs, ours = norms(16, 4, torch.float32)
    x = (torch.randn(4, 16, 16, 16) + mean*torch.randn(16)[:, None, None]).bfloat16().to(memory_format=LAST)
    exact = theirs.double()(x.double())
    g = torch.randn_like(exact)
    x, theirs = x.requires_grad_(), theirs.float()
    y, z = ours(x), theirs(x)
    assert y.dtype == torch.bfloat16 and used(y)
    error = lambda v: (v.double() - exact).abs().mean().item()
    assert error(y) < 2.5*error(z)  # the factors are rounded as well
    wide = x.detach().double().requires_grad_()
    wanted, = torch.autograd.grad(theirs.double()(wide), wide, g)
    found, = torch.autograd.grad(y, x, g.bfloat16())
    assert (found.double() - wanted).abs().mean() < 0.01*wanted.abs().mean()


def test_group_norm_of_a_constant_picture_is_its_bias():
    _, norm = norms(8, 2, torch.float32)
    for value in (0., 1e4):
        y = norm(torch.full((1, 8, 5, 5), value).to(memory_format=LAST))
        assert (y - norm.bias[:, None, None]).abs().max() < 0.01


@pytest.mark.parametrize('shape', [(2, 8, 4, 4), (2, 8, 1, 1)])
def test_other_layouts_are_left_to_pytorch(shape):
    theirs, ours = norms(8, 2)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert not used(ours(x)) and torch.equal(ours(x), theirs(x))
    assert not used(ours(x[..., ::2]))


# The whole network

@pytest.mark.parametrize('side', [(16, 16), (9, 14)])
def test_the_layout_does_not_change_the_network(side):
    torch.manual_seed(0)
    model = UNet(3, widths=(16, 32), layers=1, groups=4).double()
    for p in model.parameters(): nn.init.normal_(p, std=0.1)
    x, t, g = torch.randn(2, 3, *side, dtype=torch.float64), torch.tensor([1, 700]), torch.randn(2, 3, *side, dtype=torch.float64)
    wanted = model(x, t)
    gradients = torch.autograd.grad(wanted, model.parameters(), g)
    model.to(memory_format=LAST)
    found = model(x.to(memory_format=LAST), t)
    assert used(found) and relative(found, wanted) < 1e-9
    for a, b in zip(torch.autograd.grad(found, model.parameters(), g), gradients): assert (a - b).abs().max() < 1e-9*max(1, b.abs().max())
