"Metrics against independent references: closed forms, numpy, scipy, scikit-learn, double loops, and torch-fidelity with our features plugged in."
import json
import math
import sys
from pathlib import Path
import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
import ddpm_course.metrics as module
from ddpm_course.checkpoints import load_run
from ddpm_course.data import ImageSet, hold_out, load_data, load_digits, to_uint8
from ddpm_course.metrics import (SAMPLERS, SHIPPED, Classifier, Collected, Features, Moments, accuracy, collect, evaluate, features_for, fid, in_units, inception_features, inception_score,
                                 kid, load_features, main, precision_recall, quality_table, real_floor, rounded, split_real, table_text, train_classifier)
from ddpm_course.reverse import GaussianOracle, Reverse
from ddpm_course.sampling import ddpm_sample
from ddpm_course.schedules import cosine_schedule

ASSETS = Path(module.__file__).parent/'assets'


@pytest.fixture(scope='module')
def digits(): return load_digits()


@pytest.fixture(scope='module')
def features(): return load_features('digits')


@pytest.fixture(scope='module')
def z(digits, features): return features(digits)


def gaussians(D=6, n=200_000):
    "Two Gaussians, (mean, cov, samples) each."
    g = torch.Generator().manual_seed(1)
    out = []
    for _ in range(2):
        A, mean = torch.randn(D, D, generator=g).double(), torch.randn(D, generator=g).double()
        out.append((mean, A @ A.T, mean + torch.randn(n, D, generator=g).double() @ A.T))
    return out


# --- moments and FID

@pytest.mark.parametrize('offset', [0, 1e6, -1e6])
@pytest.mark.parametrize('sizes', [[1]*50, [17, 33], [50], [1, 48, 1]])
def test_moments_are_numpys_in_any_batches_and_far_from_the_origin(offset, sizes):
    x = torch.randn(50, 7, dtype=torch.float64) @ torch.randn(7, 7, dtype=torch.float64) + offset
    m = Moments()
    for part in x.split(sizes): m.add(part)
    assert m.n == 50 and np.abs(m.cov.numpy() - np.cov(x.numpy().T)).max() < 1e-10*max(1, np.cov(x.numpy().T).max()) and (m.mean - x.mean(0)).abs().max() < 1e-15*max(1, abs(offset))*10


def test_moments_merge_like_one_and_leave_the_other_alone():
    x = torch.randn(100, 5)
    a, b, empty = Moments().add(x[:30]), Moments().add(x[30:]), Moments()
    before = b.scatter.clone()
    whole = Moments().merge(a).merge(b).merge(empty)
    assert whole.n == 100 and np.abs(whole.cov.numpy() - np.cov(x.double().numpy().T)).max() < 1e-12 and torch.equal(b.scatter, before)
    whole.add(x)
    assert a.n == 30 and torch.equal(b.scatter, before) and b.n == 70


def test_moments_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match='length 5, these have 4'): Moments().add(torch.randn(3, 5)).add(torch.randn(3, 4))
    with pytest.raises(ValueError, match='at least 2 rows, got 1'): Moments().add(torch.randn(1, 5)).cov
    with pytest.raises(ValueError, match='at least 2 rows, got 0'): Moments().cov


def test_fid_of_gaussians_is_scipys_closed_form():
    (m1, C1, x), (m2, C2, y) = gaussians()
    expected = ((m1 - m2)**2).sum().item() + np.trace(C1.numpy() + C2.numpy() - 2*scipy.linalg.sqrtm(C1.numpy() @ C2.numpy()).real)
    assert abs(fid(x, y)/expected - 1) < 0.01
    exact = Moments(), Moments()
    for m, (mean, cov) in zip(exact, ((m1, C1), (m2, C2))): m.n, m.mean, m.scatter = 2, mean, cov
    assert abs(fid(*exact)/expected - 1) < 1e-9


def test_fid_of_rank_deficient_sets():
    x, y = torch.randn(10, 64), 1 + torch.randn(12, 64)  # ten points span nine dimensions
    a, b = (v.double().numpy() for v in (x, y))
    values = np.linalg.svd((a - a.mean(0))/3 @ ((b - b.mean(0))/math.sqrt(11)).T, compute_uv=False)  # tr (Σ1^½ Σ2 Σ1^½)^½ is the nuclear norm of X Yᵀ
    expected = ((a.mean(0) - b.mean(0))**2).sum() + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2*values.sum()
    assert abs(fid(x, y) - expected) < 1e-5 and fid(x, x) < 1e-5


def test_fid_of_a_set_with_itself_is_zero_and_order_does_not_matter(z):
    assert fid(z, z) < 1e-7
    a, b = z[:800], z[800:]
    shuffled = b[torch.randperm(len(b))]
    assert abs(fid(a, b) - fid(a, shuffled)) < 1e-7 and abs(fid(a, b) - fid(b, a)) < 1e-7
    assert fid(Moments().add(a), b) == pytest.approx(fid(a, b), abs=1e-12)


def test_the_floor_is_small_and_positive_and_falls_with_n(digits, features):
    floors = {n: real_floor(digits, features, n, splits=6) for n in (100, 300, 898)}
    values = [f['fid'] for f in floors.values()]
    assert values == sorted(values, reverse=True) and 0.05 < values[-1] < 0.3 and floors[100]['fid_spread'] > 0
    assert abs(floors[898]['kid']) < 0.01 and floors[898]['precision'] > 0.88 and floors[898]['recall'] > 0.88 and floors[300]['n_fake'] == 300 and floors[300]['n_real'] == 1497


# --- KID

def slow_kid(x, y):
    k = lambda a, b: (sum(p*q for p, q in zip(a, b))/len(a) + 1)**3
    x, y = x.double().tolist(), y.double().tolist()
    within = lambda v: sum(k(a, b) for i, a in enumerate(v) for j, b in enumerate(v) if i != j)/(len(v)*(len(v) - 1))
    return within(x) + within(y) - 2*sum(k(a, b) for a in x for b in y)/(len(x)*len(y))


def test_kid_is_the_double_sum_and_its_error_the_jackknife_done_slowly():
    x, y = torch.randn(9, 4), 0.5 + torch.randn(12, 4)
    value, error = kid(x, y)
    assert abs(value - slow_kid(x, y)) < 1e-10
    parts = [np.array([slow_kid(torch.cat([x[:i], x[i+1:]]), y) for i in range(9)]), np.array([slow_kid(x, torch.cat([y[:i], y[i+1:]])) for i in range(12)])]
    assert abs(error - math.sqrt(sum((len(p) - 1)/len(p)*((p - p.mean())**2).sum() for p in parts))) < 1e-9


def test_kid_is_unbiased_and_its_error_honest():
    same = torch.tensor([kid(torch.randn(20, 5), torch.randn(25, 5)) for _ in range(600)], dtype=torch.float64)
    assert abs(same[:, 0].mean()) < 4*same[:, 0].std()/600**0.5
    assert 0.8 < same[:, 1].mean()/same[:, 0].std() < 2.5                        # on the safe side where both are the same
    moved = torch.tensor([kid(torch.randn(60, 5), 1 + torch.randn(60, 5)) for _ in range(200)], dtype=torch.float64)
    assert 0.8 < (moved[:, 1]**2).mean().sqrt()/moved[:, 0].std() < 1.25


def test_kid_in_slices(monkeypatch, z):
    whole = kid(z[:300], z[300:700])
    monkeypatch.setattr(module, 'AT_ONCE', 5000)
    assert kid(z[:300], z[300:700]) == pytest.approx(whole, abs=1e-10)


# --- inception score

def test_inception_score_closed_forms():
    assert inception_score(torch.zeros(7, 10)) == pytest.approx(1)
    assert inception_score(torch.eye(10).repeat(5, 1).log()) == pytest.approx(10)
    assert inception_score(torch.eye(10)[[3]*9].log()) == pytest.approx(1)
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    q = p.mean(0)
    assert inception_score(p.log()) == pytest.approx(math.exp((p*(p/q).log()).sum(1).mean().item()), abs=1e-12)
    assert inception_score(p.log() + torch.tensor([[5.], [-7.]])) == pytest.approx(inception_score(p.log()))


# --- precision and recall

def neighbours_share(points, centres, k):
    "scikit-learn's neighbours."
    radii = NearestNeighbors(n_neighbors=k + 1).fit(centres).kneighbors(centres)[0][:, k]
    return float((np.linalg.norm(points[:, None] - centres[None], axis=2) <= radii).any(1).mean())


@pytest.mark.parametrize('k', [1, 3, 7])
@pytest.mark.parametrize('offset', [0, 1000])
def test_precision_and_recall_are_scikit_learns(k, offset, monkeypatch):
    x, y = torch.randn(150, 3).double() + offset, torch.randn(110, 3).double() + 1.5 + offset
    expected = neighbours_share(y.numpy(), x.numpy(), k), neighbours_share(x.numpy(), y.numpy(), k)
    assert precision_recall(x, y, k) == pytest.approx(expected, abs=1e-12) and 0 < expected[0] < 1 and 0 < expected[1] < 1
    monkeypatch.setattr(module, 'AT_ONCE', 700)
    assert precision_recall(x, y, k) == pytest.approx(expected, abs=1e-12)


def test_precision_and_recall_name_the_fault():
    modes = torch.tensor([[-5., 0.], [5., 0.]])
    real = modes[torch.arange(400) % 2] + 0.5*torch.randn(400, 2)
    half = modes[0] + 0.5*torch.randn(200, 2)
    noisy = torch.cat([modes[torch.arange(200) % 2] + 0.5*torch.randn(200, 2), 30*torch.randn(200, 2) + 100])
    good = precision_recall(real, modes[torch.arange(400) % 2] + 0.5*torch.randn(400, 2))
    dropped, spoiled = precision_recall(real, half), precision_recall(real, noisy)
    assert min(good) > 0.9 and dropped[0] > 0.9 and dropped[1] < 0.55 and spoiled[0] < 0.55 and spoiled[1] > 0.85


def test_precision_and_recall_of_copies():
    x = 1000 + torch.randn(50, 64)
    assert precision_recall(x, x) == (1, 1)
    twins = x[:5].repeat(10, 1)  # every ball of the fakes has radius 0
    assert precision_recall(x, twins) == (1, pytest.approx(0.1))


# --- errors at the door

@pytest.mark.parametrize('metric', [fid, kid, precision_recall])
def test_bad_features_are_refused(metric):
    good, hole = torch.randn(10, 4), torch.randn(10, 4)
    hole[3, 2] = float('nan')
    with pytest.raises(ValueError, match=r'fake must be feature vectors.*\(10, 1, 2, 2\)'): metric(good, good.reshape(10, 1, 2, 2))
    with pytest.raises(ValueError, match='one length, got 4 and 5'): metric(good, torch.randn(10, 5))
    with pytest.raises(ValueError, match='1 of 10 rows of real hold NaN'): metric(hole, good)
    with pytest.raises(ValueError, match=r'fake must have at least \d rows, got 1'): metric(good, good[:1])
    with pytest.raises(ValueError, match='list'): metric(good.tolist(), good)


def test_other_bad_input():
    good = torch.randn(10, 4)
    with pytest.raises(ValueError, match='at least 4 rows, got 3'): precision_recall(good, good[:3], 3)
    for k in (0, 2.5):
        with pytest.raises(ValueError, match='whole number, at least 1'): precision_recall(good, good, k)
    for bad in (torch.zeros(3), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match=r'\(N, classes\)'): inception_score(bad)
    with pytest.raises(ValueError, match='1 of 2 rows of logits'): inception_score(torch.tensor([[0., 1.], [float('nan'), 0.]]))


def test_bad_pictures_are_refused(features):
    with pytest.raises(ValueError, match=r'of shape \(1, 8, 8\), got \(3, 32, 32\)'): features(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match='uint8'): features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r'\(B, C, H, W\)'): features(torch.zeros(2, 8, 8))
    x = torch.zeros(3, 1, 8, 8)
    x[1] = float('nan')
    with pytest.raises(ValueError, match='1 of 3 pictures hold NaN'): features(x)
    with pytest.raises(ValueError, match='without classes'): Features(nn.Flatten()).logits(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no features called 'cats'.*digits.*fashion-mnist.*inception"): load_features('cats')
    with pytest.raises(ValueError, match='no pictures'): collect([], features)
    with pytest.raises(ValueError, match='no labels'): train_classifier(ImageSet(torch.zeros(9, 1, 8, 8, dtype=torch.uint8)))


# --- features

def test_features_do_not_depend_on_batches_order_or_form(digits, z, features):
    small = Features(features.body, features.head, features.shape, features.levels, batch=64)
    assert z.shape == (1797, 64) and z.dtype == torch.float32
    assert (small(digits.floats()) - z).abs().max() < 1e-5
    assert (torch.cat(list(features.stream(iter(digits.floats().split(700))))) - z).abs().max() < 1e-5
    order = torch.randperm(1797)
    assert (features(digits.floats(order)) - z[order]).abs().max() < 1e-5
    assert max(len(part) for part in small.stream([digits.floats()])) == 64


def test_pictures_are_rounded_like_files(features, digits):
    x = digits.floats(slice(0, 20))
    noisy = x + (torch.rand(x.shape) - 0.5)*(2/16)*0.98  # less than half a grey level
    assert torch.equal(rounded(noisy, 17), x) and torch.equal(features(noisy), features(x))
    raw = Features(features.body, levels=None)
    assert (raw(noisy) - raw(x)).abs().max() > 1e-3 and torch.equal(raw(x), features(x))
    assert torch.equal(features(3*x), features((3*x).clamp(-1, 1)))


def test_units_leave_the_classifier_as_it_was(digits):
    net, x = Classifier((1, 8, 8), 10, (8, 16)).eval(), digits.floats(slice(0, 50))
    before = net(x).detach()
    in_units(net, x)
    assert torch.allclose(net(x), before, atol=1e-5) and net.body(x).square().mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('shape,widths,head', [((3, 7, 9), (4,), 5), ((1, 5, 5), (4, 6, 8), 2)])
def test_classifiers_for_other_shapes(shape, widths, head):
    net = Classifier(shape, head, widths, features=11)
    assert net(torch.zeros(2, *shape)).shape == (2, head) and net.body(torch.zeros(2, *shape)).shape == (2, 11)


def test_a_classifier_learns_the_same_again_and_leaves_the_random_state_alone(digits):
    seen, unseen = hold_out(digits, 297)
    state = torch.get_rng_state()
    a = train_classifier(seen, epochs=5)
    assert torch.equal(state, torch.get_rng_state()) and accuracy(a, unseen) > 0.93 and not a.training
    b = train_classifier(seen, epochs=5)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize('name,least', [('digits', 0.97), ('fashion-mnist', 0.91)])
def test_shipped_features_are_small_and_good(name, least):
    assert (ASSETS/f'features_{name}.safetensors').stat().st_size < 500_000
    if name == 'digits': unseen = hold_out(load_digits(), 297)[1]
    else:
        try: unseen = load_data('fashion-mnist', 32, part='test').subset(slice(0, 2000))
        except ValueError as error: pytest.skip(str(error))
    found = load_features(name)
    shape, levels, _ = SHIPPED[name]
    assert found.shape == shape == unseen.shape and found.levels == levels == unseen.levels
    z = found(unseen)
    assert (found.logits(z).argmax(1) == unseen.labels).double().mean() > least and 0.8 < z.square().mean() < 1.2
    assert not any(p.requires_grad for p in found.body.parameters())


def test_features_for_a_data_set(monkeypatch):
    assert features_for('digits').shape == (1, 8, 8) and features_for('fashion-mnist').shape == (1, 32, 32)
    monkeypatch.setattr(module, 'inception_features', lambda: Features(nn.Flatten(), batch=3))
    assert features_for('cifar10').batch == 3


# --- everything at once

def test_evaluate_agrees_with_its_parts_in_any_form(digits, features, z):
    real, fake = digits.subset(slice(0, 900)), digits.floats(slice(900, None))
    found = evaluate(real, iter(fake.split(100)), features)
    assert found['fid'] == pytest.approx(fid(z[:900], z[900:]), abs=1e-4)
    assert (found['kid'], found['kid_error']) == pytest.approx(kid(z[:900], z[900:]), abs=1e-4)
    assert (found['precision'], found['recall']) == pytest.approx(precision_recall(z[:900], z[900:]), abs=2e-3)
    assert found['inception_score'] == pytest.approx(inception_score(features.logits(z[900:])), abs=1e-3)
    assert found['n_real'] == 900 and found['n_fake'] == 897
    again = evaluate(collect(real, features), fake, features)
    assert again == pytest.approx(found, abs=1e-4)


def test_evaluate_takes_any_callable(digits):
    x = digits.floats()
    found = evaluate(x[:500], x[500:1000], lambda v: v.flatten(1))
    assert 'inception_score' not in found and found['fid'] == pytest.approx(fid(*(rounded(v, 256).flatten(1) for v in (x[:500], x[500:1000]))), abs=1e-6)


def test_what_is_kept_is_a_fair_draw_of_bounded_size():
    seen = []

    class Counting(nn.Module):
        def forward(self, x): seen.append(len(x)); return x.flatten(1)

    x = torch.linspace(-1, 1, 5000).reshape(-1, 1, 1, 1).expand(-1, 1, 1, 2)
    found = collect((part for part in x.split(300)), Features(Counting(), levels=None, batch=100), most=400)
    assert max(seen) == 100 and isinstance(found, Collected) and found.moments.n == 5000 and found.rows.shape == (400, 2)
    assert abs(found.rows.mean()) < 4*0.577/20 and abs(found.rows.var() - 1/3) < 0.06 and len(found.rows.unique(dim=0)) == 400
    assert (found.rows[:, 0].diff() > 0).all()
    assert found.moments.cov[0, 0].item() == pytest.approx(x[:, 0, 0, 0].double().var().item(), abs=1e-9)


def test_splits():
    a, b = split_real(100, 30, 1)
    assert sorted([*a.tolist(), *b.tolist()]) == list(range(100)) and len(a) == 30 and not torch.equal(a, split_real(100, 30, 2)[0])
    for n in (1, 51):
        with pytest.raises(ValueError, match=r'2\.\.50 for 100'): split_real(100, n)


# --- torch-fidelity

@pytest.fixture
def fidelity(features):
    "torch-fidelity's calculate_metrics with our digit features plugged in, as extractor 'ours'."
    pytest.importorskip('torch_fidelity')
    from torch_fidelity import feature_extractor_base, registry

    class Ours(feature_extractor_base.FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs): super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list(): return ('features', 'logits')

        @staticmethod
        def get_default_feature_layer_for_metric(metric): return 'logits' if metric == 'isc' else 'features'

        @staticmethod
        def can_be_compiled(): return False

        def forward(self, x):
            z = features(x[:, :1].float()*(2/255) - 1)
            return tuple({'features': z, 'logits': features.logits(z)}[name] for name in self.features_list)

    registry.register_feature_extractor('ours', Ours)
    yield lambda **kwargs: __import__('torch_fidelity').calculate_metrics(feature_extractor='ours', cuda=False, cache=False, verbose=False, **kwargs)
    registry.FEATURE_EXTRACTORS_REGISTRY.pop('ours')


class Pictures(torch.utils.data.Dataset):
    "Colour pictures of 256 levels, as torch-fidelity wants them."
    def __init__(self, x): self.x = to_uint8(x).expand(-1, 3, -1, -1)

    def __len__(self): return len(self.x)

    def __getitem__(self, i): return self.x[i]


@pytest.mark.filterwarnings('ignore:This DataLoader')
def test_torch_fidelity_finds_the_same(fidelity, features, digits):
    model, reverse, _ = load_run('digits')
    fake = SAMPLERS['ancestral, σ̂'](reverse, model, (300, 1, 8, 8), steps=5, generator=torch.Generator().manual_seed(0))
    real, fake = (rounded(rounded(v, 17), 256) for v in (digits.floats(slice(0, 300)), fake))  # 17 levels, as near as 256 levels can say them
    found = evaluate(real, fake, features)
    theirs = fidelity(input1=Pictures(fake), input2=Pictures(real), fid=True, kid=True, isc=True, prc=True, kid_subsets=1, kid_subset_size=300, isc_splits=1)
    pairs = dict(fid='frechet_inception_distance', kid='kernel_inception_distance_mean', precision='precision', recall='recall', inception_score='inception_score_mean')
    for ours, name in pairs.items(): assert found[ours] == pytest.approx(theirs[name], abs=1e-3, rel=1e-4), ours
    assert found['fid'] > 0.5 and found['precision'] < 0.8


@pytest.mark.filterwarnings('ignore:This DataLoader')
def test_torch_fidelitys_subsets_are_ours(fidelity, features, digits):
    real, fake = rounded(digits.floats(slice(0, 200)), 256), rounded(digits.floats(slice(200, 450)), 256)
    a, b, rng = features(real), features(fake), np.random.RandomState(5)
    values = []
    for _ in range(4):
        i = rng.choice(250, 100, replace=False)
        values.append(kid(a[rng.choice(200, 100, replace=False)], b[i])[0])
    theirs = fidelity(input1=Pictures(fake), input2=Pictures(real), kid=True, kid_subsets=4, kid_subset_size=100, rng_seed=5)
    assert np.mean(values) == pytest.approx(theirs['kernel_inception_distance_mean'], abs=1e-3)


def test_inception_is_torch_fidelitys_network(monkeypatch, digits):
    pytest.importorskip('torch_fidelity')
    import torch_fidelity.feature_extractor_inceptionv3 as source
    real = source.FeatureExtractorInceptionV3
    monkeypatch.setattr(source, 'load_state_dict_from_url', lambda *a, **k: {})  # the weights cannot be downloaded here: a stand-in of the same shape
    monkeypatch.setattr(real, 'load_state_dict', lambda self, state: None)
    torch.manual_seed(0)
    found = load_features('inception')
    x = digits.floats(slice(0, 3))
    z = found(x)
    net = found.body.net
    net.features_list = ['2048', 'logits_unbiased']
    expected, logits = net(to_uint8(x).expand(-1, 3, -1, -1))
    assert z.shape == (3, 2048) and torch.allclose(z, expected, atol=1e-5) and found.batch == 50
    assert found.logits(z).shape == (3, 1008) and torch.allclose(found.logits(z), logits, atol=1e-4)


def test_without_torch_fidelity_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch_fidelity.feature_extractor_inceptionv3', None)
    with pytest.raises(ImportError, match=r'pip install ddpm-course\[fid\]'): inception_features()


# --- the table

def test_samplers_on_all_steps_and_on_few():
    s = cosine_schedule(200)
    free, oracle, shape = Reverse(s, variance='beta', sigma_1='beta', clip=False), GaussianOracle(s, 0., 0.04), (20_000, 1)
    draw = lambda name, steps: SAMPLERS[name](free, oracle, shape, steps=steps, generator=torch.Generator().manual_seed(0))
    assert (draw('ancestral, σ̂', 200) - ddpm_sample(free, oracle, shape, generator=torch.Generator().manual_seed(0))).abs().max() < 1e-3
    spread = {name: draw(name, 10).std().item() for name in SAMPLERS}
    assert spread['ancestral, σ̂'] > 1.2*spread['DDIM, η = 1'] and spread['DDIM, η = 1'] < spread['DDIM, η = 0.5'] < spread['DDIM, η = 0'] < 0.2
    assert abs(spread['DPM-Solver++ 2M'] - 0.2) < abs(spread['DDIM, η = 0'] - 0.2)


def test_the_table(tiny_run):
    lines = []
    rows = quality_table(str(tiny_run), n=40, steps=(3, 5, 10**6), features=Features(nn.Flatten(), levels=17), report=lines.append)
    assert [r['sampler'] for r in rows] == ['real pictures', *(name for name in SAMPLERS for _ in range(2))] and lines == rows
    assert [r['steps'] for r in rows] == [0] + [3, 5]*5 and all(r['n_fake'] == 40 and r['n_real'] == 1757 for r in rows)
    assert rows[0]['fid'] < min(r['fid'] for r in rows[1:]) and all(r['seconds'] > 0 for r in rows[1:])
    text = table_text(rows)
    assert len(text.splitlines()) == 12 and 'seconds' not in text and f'{rows[3]["fid"]:.3f}' in text and 'seconds' in table_text(rows, seconds=True)
    assert table_text(quality_table(str(tiny_run), n=40, steps=(3, 5), features=Features(nn.Flatten(), levels=17), batch=40)) == text


def test_the_script(tiny_run, tmp_path, capsys):
    main(['--run', str(tiny_run), '--n', '30', '--steps', '2', '--samplers', 'DDIM, η = 0', '--device', 'cpu', '--batch', '20', '--out', str(tmp_path/'table.json')])
    out = capsys.readouterr().out.splitlines()
    rows = json.loads((tmp_path/'table.json').read_text())['rows']
    assert len(out) == 3 and 'DDIM, η = 0' in out[2] and [r['steps'] for r in rows] == [0, 2] and 'inception_score' in rows[1]


def test_the_scripts_spacing_reaches_every_sampler(tiny_run, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr('ddpm_course.metrics.quality_table', lambda run, n, steps, samplers, **rest: seen.append(samplers))
    for words in ([], ['--spacing', 'quadratic']): main(['--run', str(tiny_run), *words])
    assert [{s.keywords.get('spacing') for s in samplers.values()} for samplers in seen] == [{None}, {'quadratic'}]
    assert all(samplers['DDIM, η = 0.5'].keywords['eta'] == 0.5 for samplers in seen)
