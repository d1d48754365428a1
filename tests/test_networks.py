"The networks of other people: counted, rebuilt from torch.nn.functional, saved, cast, compiled, and at the door."
import copy
import math
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from ddpm_course.checkpoints import load_weights, save_weights
from ddpm_course.networks import NETWORKS, CarsBlock, CarsUNet, FlowersBlock, FlowersUNet, VarianceEmbedding
from ddpm_course.schedules import cosine_schedule, linear_schedule, offset_cosine_schedule
from ddpm_course.unet import count_parameters

SMALL = {'flowers': lambda channels=3: FlowersUNet(channels, T=50, widths=(8, 12), middle=16), 'cars': lambda channels=3: CarsUNet(channels, (8, 12, 16), 8)}
both = pytest.mark.parametrize('name', SMALL)


def awake(model, std=0.2):
    "Nothing zero, statistics of the norms included."
    g = torch.Generator().manual_seed(1)
    for p in model.parameters(): p.data = torch.randn(p.shape, generator=g)*std
    for name, b in model.named_buffers():
        if name.endswith('running_mean'): b.copy_(torch.randn(b.shape, generator=g)*0.3)
        if name.endswith('running_var'): b.copy_(torch.rand(b.shape, generator=g) + 0.5)
    return model


def relative(a, b): return ((a - b).abs().max()/b.abs().max()).item()


# The number of parameters

def conv(k, i, o): return k*k*i*o + o


def flowers_count(C, widths, middle, blocks, frequencies):
    "Walk through the network, carrying the number of channels and the stack of skips."
    total, now, skips = conv(1, C, widths[0]) + conv(1, widths[0], C), widths[0] + 2*frequencies, []
    def block(i, o): return conv(3, i, o) + conv(3, o, o) + (conv(1, i, o) if i != o else 0)
    for w in widths:
        for _ in range(blocks): total += block(now, w); now = w; skips.append(w)
    for _ in range(blocks): total += block(now, middle); now = middle
    for w in reversed(widths):
        for _ in range(blocks): total += block(now + skips.pop(), w); now = w
    return total


def cars_count(C, widths, d):
    total, n = d*d + d + conv(3, C, widths[0]) + conv(1, widths[0], C), len(widths)
    for k in range(n - 1):
        narrow, wide = widths[k], widths[k + 1]
        total += (d + 1)*wide + conv(3, narrow, wide) + conv(3, wide, wide) + 4*wide + conv(4, wide, wide)
        total += (d + 1)*narrow + conv(3, 2*wide, narrow) + conv(3, narrow, narrow) + 4*narrow + conv(4, narrow, narrow)
    return total


@pytest.mark.parametrize('C, widths, middle, blocks, frequencies', [(3, (32, 64, 96), 128, 2, 16), (1, (32, 64, 96), 128, 2, 16), (3, (8,), 8, 1, 2), (2, (6, 10), 12, 3, 4), (1, (8, 8), 8, 2, 3)])
def test_parameters_of_flowers(C, widths, middle, blocks, frequencies):
    net = FlowersUNet(C, widths=widths, middle=middle, blocks=blocks, frequencies=frequencies)
    assert count_parameters(net) == flowers_count(C, widths, middle, blocks, frequencies)


@pytest.mark.parametrize('C, widths, d', [(3, (8, 16), 32), (1, (6, 10, 14, 18), 4), (2, (5,), 6)])
def test_parameters_of_cars(C, widths, d): assert count_parameters(CarsUNet(C, widths, d)) == cars_count(C, widths, d)


def test_published_size_of_cars():
    with torch.device('meta'): net = CarsUNet()
    assert count_parameters(net) == cars_count(3, (64, 128, 256, 512, 1024), 32) == 62_438_883


def test_statistics_of_flowers():
    "Two numbers for each channel that enters a block: what Keras calls non-trainable."
    entering = [32 + 32, 32, 32, 64, 64, 96, 96, 128, 128 + 96, 96 + 96, 96 + 64, 64 + 64, 64 + 32, 32 + 32]
    assert sum(b.numel() for name, b in FlowersUNet().named_buffers() if 'running' in name) == 2*sum(entering)


# The embedding

@pytest.mark.parametrize('schedule', [linear_schedule(), linear_schedule(300, rescale=False), cosine_schedule(100), offset_cosine_schedule()])
@pytest.mark.parametrize('frequencies', [2, 16])
def test_embedding_against_numpy(schedule, frequencies):
    variance = 1 - np.cumprod(1 - schedule.beta.numpy())
    phase = 2*np.pi*variance[1:, None]*np.geomspace(1, 1000, frequencies)
    found = VarianceEmbedding(schedule, frequencies)(torch.arange(1, schedule.T + 1))
    assert found.dtype == torch.float32 and found.shape == (schedule.T, 2*frequencies)
    assert np.abs(found.numpy() - np.concatenate([np.sin(phase), np.cos(phase)], 1)).max() < 2e-3


def test_embedding_between_steps():
    schedule = linear_schedule(100)
    embedding, t = VarianceEmbedding(schedule), np.array([1, 1.25, 37.5, 99.9, 100])
    phase = 2*np.pi*np.interp(t, np.arange(101), 1 - schedule.alpha_bar.numpy())[:, None]*np.geomspace(1, 1000, 16)
    for dtype in (torch.float32, torch.float64):
        found = embedding(torch.tensor(t, dtype=dtype)).numpy()
        assert np.abs(found - np.concatenate([np.sin(phase), np.cos(phase)], 1)).max() < 1e-2
    assert torch.equal(embedding(torch.tensor([37, 100])), embedding(torch.tensor([37., 100.])))


@pytest.mark.parametrize('t', [torch.tensor([0]), torch.tensor([51]), torch.tensor([0.5]), torch.tensor([50.01]), torch.tensor([float('nan')])])
def test_embedding_at_the_door(t):
    with pytest.raises(ValueError, match=r'1\.\.50'): VarianceEmbedding(linear_schedule(50))(t)
    with pytest.raises(ValueError, match='at least 2'): VarianceEmbedding(linear_schedule(50), 1)


def test_the_table_is_never_rounded():
    net = SMALL['flowers']()
    exact, t = net.embedding.variance.clone(), torch.arange(1, 51)
    wanted = net.embedding(t)
    for cast in (net.bfloat16(), net.half(), net.to(torch.float16), net.double(), net.float()):
        assert torch.equal(cast.embedding.variance, exact) and torch.equal(cast.embedding(t), wanted)
    assert net.conv_in.weight.dtype == torch.float32 and copy.deepcopy(net).embedding.variance.dtype == torch.float32


# The blocks and the networks, once more

@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('i, o', [(5, 5), (5, 7)])
def test_flowers_block_against_functional(i, o, training):
    block = awake(FlowersBlock(i, o)).double().train(training)
    p, x = copy.deepcopy(block.state_dict()), torch.randn(3, i, 6, 5, dtype=torch.float64)
    mean, var = (x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)) if training else (p['norm.running_mean'], p['norm.running_var'])
    h = (x - mean[:, None, None])/(var[:, None, None] + 1e-3).sqrt()
    h = F.conv2d(h, p['conv1.weight'], p['conv1.bias'], padding=1)
    h = F.conv2d(h*torch.sigmoid(h), p['conv2.weight'], p['conv2.bias'], padding=1)
    shortcut = x if i == o else F.conv2d(x, p['shortcut.weight'], p['shortcut.bias'])
    assert relative(block(x), shortcut + h) < 1e-12
    if training: assert torch.allclose(block.norm.running_mean, 0.99*p['norm.running_mean'] + 0.01*mean)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('up', [True, False])
def test_cars_block_against_functional(up, training):
    block = awake(CarsBlock(4, 6, 8, up)).double().train(training)
    p, x, time = copy.deepcopy(block.state_dict()), torch.randn(3, 8 if up else 4, 6, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    def norm(h, k):
        mean, var = (h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)) if training else (p[f'norm{k}.running_mean'], p[f'norm{k}.running_var'])
        return torch.einsum('bchw,c->bchw', h - mean[:, None, None], p[f'norm{k}.weight']/(var + 1e-5).sqrt()) + p[f'norm{k}.bias'][:, None, None]
    h = norm(F.conv2d(x, p['conv1.weight'], p['conv1.bias'], padding=1).clamp(min=0), 1)
    h = h + (time @ p['time.weight'].T + p['time.bias']).clamp(min=0)[:, :, None, None]
    h = norm(F.conv2d(h, p['conv2.weight'], p['conv2.bias'], padding=1).clamp(min=0), 2)
    resize = F.conv_transpose2d if up else F.conv2d
    assert relative(block(x, time), resize(h, p['resize.weight'], p['resize.bias'], stride=2, padding=1)) < 1e-12


def test_flowers_against_its_listing():
    "The order of the published listing, with its own enlargement by a factor, on the network's own blocks."
    net, x, t = awake(SMALL['flowers']()).eval(), torch.randn(2, 3, 16, 24), torch.tensor([3, 50])
    (d1, d2), (d3, d4), m, (u1, u2), (u3, u4) = *net.down, net.mid[0], *net.up
    twice = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False)
    with torch.no_grad():
        e = F.interpolate(net.embedding(t)[:, :, None, None], (16, 24), mode='nearest')
        a = d1(torch.cat([net.conv_in(x), e], 1)); b = d2(a)
        c = d3(nn.AvgPool2d(2)(b)); d = d4(c)
        h = m[1](m[0](nn.AvgPool2d(2)(d)))
        h = u2(torch.cat([u1(torch.cat([twice(h), d], 1)), c], 1))
        h = u4(torch.cat([u3(torch.cat([twice(h), b], 1)), a], 1))
        assert relative(net(x, t), net.conv_out(h)) < 1e-5


def test_cars_against_its_listing():
    "Skips are what leaves the blocks, so that the smallest picture meets itself; steps are counted from 0."
    net, x, t = awake(SMALL['cars']()).eval(), torch.randn(2, 3, 16, 24), torch.tensor([1, 300])
    speeds = torch.exp(-math.log(10000)/3*torch.arange(4))
    with torch.no_grad():
        angles = torch.tensor([[0.], [299.]])*speeds
        time = net.time(torch.cat([angles.sin(), angles.cos()], 1)).relu()
        a = net.down[0](net.conv_in(x), time)
        b = net.down[1](a, time)
        h = net.up[0](torch.cat([b, b], 1), time)
        assert relative(net(x, t), net.conv_out(net.up[1](torch.cat([h, a], 1), time))) < 1e-5


# As models of the course

@both
@pytest.mark.parametrize('channels, side', [(1, (28, 28)), (3, (32, 32)), (1, (17, 30)), (2, (5, 4)), (3, (64, 8))])
def test_shapes(name, channels, side):
    net = awake(SMALL[name](channels))
    x, t = torch.randn(2, channels, *side), torch.tensor([1, 50])
    assert net(x, t).shape == x.shape and net(x, t.float()).shape == x.shape


@pytest.mark.parametrize('network', [FlowersUNet, CarsUNet])
def test_full_size_takes_small_pictures(network):
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad(): assert network(1).eval()(x, torch.tensor([1, 1000])).shape == x.shape


def test_flowers_answer_zero_at_first():
    assert FlowersUNet()(torch.randn(2, 3, 16, 16), torch.tensor([1, 1000])).abs().max() == 0
    net = FlowersUNet(widths=(8, 16), middle=16)
    for block in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        bound = (6/((block.in_channels + block.out_channels)*block.kernel_size[0]**2))**0.5
        assert block.bias.abs().max() == 0 and (block is net.conv_out or 0.8*bound < block.weight.abs().max() <= bound)


@both
def test_gradients_reach_every_parameter(name):
    net = awake(SMALL[name]())
    net(torch.randn(2, 3, 16, 16), torch.tensor([1, 50])).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    silent = [n for n, p in net.named_parameters() if p.grad.abs().max() == 0]
    assert not silent, silent


@both
def test_every_step_gives_another_answer(name):
    net, x = awake(SMALL[name]()).eval(), torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1)
    answers = net(x, torch.tensor([1, 2, 30, 50]))
    assert all(relative(answers[i], answers[j]) > 1e-3 for i in range(4) for j in range(i))


@both
def test_eval_does_not_look_at_the_batch(name):
    net, x, t = awake(SMALL[name]()).double().eval(), torch.randn(5, 3, 16, 16, dtype=torch.float64), torch.tensor([1, 9, 20, 44, 50])
    with torch.no_grad():
        whole = net(x, t)
        assert torch.equal(whole, net(x, t))
        for i in range(5): assert relative(whole[i:i + 1], net(x[i:i + 1], t[i:i + 1])) < 1e-10
        assert relative(net.train()(x[:2], t[:2]), whole[:2]) > 1e-3


@both
def test_there_and_back(name, tmp_path):
    "Settings and weights bring the same network back: statistics, and flowers' table, included."
    net = awake(FlowersUNet(3, cosine_schedule(50), widths=(8, 12), middle=16) if name == 'flowers' else SMALL[name]()).eval()
    save_weights(net, tmp_path/'w.safetensors')
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in net.settings.items()}   # as JSON keeps them
    twin = load_weights(NETWORKS[name](**plain), tmp_path/'w.safetensors').eval()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1, 37])
    with torch.no_grad(): assert twin.settings == net.settings and torch.equal(twin(x, t), net(x, t))
    if name == 'flowers': assert 'embedding.variance' in net.state_dict() and torch.equal(twin.embedding.variance, (1 - cosine_schedule(50).alpha_bar).float())
    with pytest.raises(ValueError, match='another network'): load_weights(SMALL[name](1), tmp_path/'w.safetensors')


def test_weights_of_another_T_do_not_fit(tmp_path):
    save_weights(SMALL['flowers'](), tmp_path/'w.safetensors')
    with pytest.raises(ValueError, match='variance'): load_weights(FlowersUNet(T=51, widths=(8, 12), middle=16), tmp_path/'w.safetensors')


@both
def test_channels_last_and_autocast(name):
    net, x, t = awake(SMALL[name](), 0.1).eval(), torch.randn(2, 3, 16, 16), torch.tensor([1, 50])
    with torch.no_grad():
        wanted = net(x, t)
        net.to(memory_format=torch.channels_last)
        found = net(x.to(memory_format=torch.channels_last), t)
        assert found.is_contiguous(memory_format=torch.channels_last) and relative(found, wanted) < 1e-5
        with torch.autocast('cpu', torch.bfloat16): half = net(x.to(memory_format=torch.channels_last), t)
        assert half.dtype == torch.bfloat16 and relative(half.float(), wanted) < 0.05
        assert relative(net.bfloat16()(x, t).float(), wanted) < 0.1
    net.float().train()
    with torch.autocast('cpu', torch.bfloat16): net(x, t).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@both
def test_no_graph_breaks(name):
    net, x, t = awake(SMALL[name]()).eval(), torch.randn(2, 3, 9, 16), torch.tensor([1, 50])
    with torch.no_grad(): assert relative(torch.compile(net, fullgraph=True, backend='eager')(x, t), net(x, t)) < 1e-5


# At the door

@both
@pytest.mark.parametrize('x, t, words', [
    (torch.zeros(2, 1, 16, 16), torch.tensor([1, 2]), r'shape \(B, 3, H, W\)'), (torch.zeros(3, 16, 16), torch.tensor([1]), r'\(B, 3, H, W\)'),
    (torch.zeros(2, 3, 16, 3), torch.tensor([1, 2]), '16×3 pictures cannot be halved 2 times: .* at least 4'),
    (torch.zeros(2, 3, 16, 16), torch.tensor([1]), r'each of the 2 pictures, shape \(2,\), got \(1,\)'), (torch.zeros(2, 3, 16, 16), torch.tensor(1), r'got \(\)'),
    (torch.zeros(2, 3, 16, 16), 7, 'got 7'), (torch.zeros(2, 3, 16, 16), torch.tensor([[1], [2]]), r'\(2, 1\)')])
def test_inputs_at_the_door(name, x, t, words):
    with pytest.raises(ValueError, match=words): SMALL[name]()(x, t)


@pytest.mark.parametrize('make, words', [
    (lambda: FlowersUNet(widths=()), 'at least one level'), (lambda: FlowersUNet(widths=(8, 0)), 'at least one channel'), (lambda: FlowersUNet(blocks=0), 'blocks must be at least 1'),
    (lambda: FlowersUNet(middle=0), 'middle must be'), (lambda: FlowersUNet(in_channels=0), 'in_channels must'), (lambda: FlowersUNet(T=1), 'T >= 2'), (lambda: FlowersUNet(frequencies=1), 'at least 2'),
    (lambda: CarsUNet(widths=()), 'at least one level'), (lambda: CarsUNet(time_dim=2), 'time_dim'), (lambda: CarsUNet(time_dim=7), 'even')])
def test_settings_at_the_door(make, words):
    with pytest.raises(ValueError, match=words): make()


def test_names():
    assert set(NETWORKS) == {'unet', 'plain', 'flowers', 'cars'}
    for name, network in NETWORKS.items(): assert isinstance(network, type) and issubclass(network, nn.Module), name
