"Pictures in, grey levels out: every kind of file, every named set, and a clear word where something is missing."
import gzip
import io
import pickle
import struct
from pathlib import Path
from urllib.error import URLError
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits as their_digits
from tiny import numbers, settings
from ddpm_course import data as module
from ddpm_course.checkpoints import load_config
from ddpm_course.data import (DATA_NAMES, DEBIAN_FASHION, DINOSAUR, EYE, POINT_SETS, ImageSet, StreamedSet, from_dataset, hold_out, load_data, load_digits, load_folder, sample_points, to_float,
                              to_uint8, unpack_debian_fashion)
from ddpm_course.training import build, resume, train

rng = np.random.default_rng(0)
noise = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)


def triangle(array, size):
    "Shorter side to size, middle cropped, by the antialiased triangle filter, as a dense matrix for each axis."
    scale = min(array.shape[:2])/size
    for axis in (0, 1):
        n = array.shape[axis]
        centres = (n - size*scale)/2 + (np.arange(size) + 0.5)*scale
        weights = np.clip(1 - abs(np.arange(n) + 0.5 - centres[:, None])/max(scale, 1), 0, None)
        array = np.moveaxis(np.tensordot(weights/weights.sum(1, keepdims=True), array, (1, axis)), 0, axis)
    return array


def close(ours, theirs, within): return np.abs(np.asarray(ours, dtype=float) - theirs).max() <= within


def one(picture, path, size=None, **save):
    "Save one picture, load its folder, return the picture as an array, (H, W, C)."
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **save)
    return load_folder(path.parent, size).images[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize('levels', [2, 3, 17, 255, 256])
def test_grey_levels_round_trip(levels):
    k = torch.arange(levels, dtype=torch.uint8)
    x = to_float(k, levels)
    assert x.dtype == torch.float32 and x.min() == -1 and x.max() == 1
    assert torch.allclose(x.double(), 2*k.double()/(levels - 1) - 1, atol=1e-6)
    assert torch.equal(to_uint8(x, levels), k) and torch.equal(to_uint8(x + 0.9/(levels - 1), levels), k)


def test_what_lies_outside_is_clipped():
    assert to_uint8(torch.tensor([-7., -1.001, 1.001, 9., float('inf')])).tolist() == [0, 0, 255, 255, 255]


def test_digits_are_those_of_uci():
    ours, theirs = load_digits(), their_digits()
    assert np.array_equal(ours.images[:, 0], theirs.images) and np.array_equal(ours.labels, theirs.target)
    assert (len(ours), ours.shape, ours.levels, ours.images.dtype, ours.labels.dtype) == (1797, (1, 8, 8), 17, torch.uint8, torch.int64)
    assert torch.equal(ours.floats([3]), ours.images[[3]]/8. - 1) and ours.floats().shape == (1797, 1, 8, 8)


def test_digits_at_another_size():
    ours = load_data('digits', 12)
    assert ours.shape == (1, 12, 12) and ours.levels == 256 and torch.equal(ours.labels, load_digits().labels)
    for i in range(0, 1797, 300): assert close(ours.images[i, 0], triangle(load_digits().images[i, 0].numpy()*(255/16), 12), 1.5)
    assert load_data('digits', 8).levels == 17


def test_a_folder_is_searched_to_its_depths(tmp_path):
    a, b, c = noise(5, 5), noise(5, 5), noise(5, 5)
    for name, array in (('b/deep/er/1.png', b), ('a.PNG', a), ('c/2.bmp', c)):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(tmp_path/name)
    (tmp_path/'notes.txt').write_text('not a picture')
    (tmp_path/'folder.png').mkdir()
    ours = load_folder(tmp_path)
    assert np.array_equal(ours.images[:, 0], np.stack([a, b, c])) and ours.name == str(tmp_path) and ours.levels == 256


def test_one_coloured_picture_colours_all(tmp_path):
    grey, colour = noise(4, 4), noise(4, 4, 3)
    Image.fromarray(grey).save(tmp_path/'1.png')
    Image.fromarray(colour).save(tmp_path/'2.png')
    ours = load_folder(tmp_path).images
    assert np.array_equal(ours[0], np.stack([grey]*3)) and np.array_equal(ours[1], colour.transpose(2, 0, 1))


def test_transparency_is_flattened_onto_white(tmp_path):
    rgba = noise(6, 6, 4)
    alpha = rgba[..., 3:]/255
    assert close(one(Image.fromarray(rgba), tmp_path/'rgba'/'x.png'), alpha*rgba[..., :3] + (1 - alpha)*255, 1)
    la = noise(6, 6, 2)
    assert close(one(Image.fromarray(la, 'LA'), tmp_path/'la'/'x.png')[..., 0], la[..., 0]*(la[..., 1]/255) + 255 - la[..., 1], 1)


def test_a_palette_with_a_transparent_entry(tmp_path):
    index = noise(6, 6) % 3
    picture = Image.fromarray(index, 'P')
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 200])
    shown = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 200]])
    for ext in ('png', 'gif'): assert np.array_equal(one(picture, tmp_path/ext/f'x.{ext}', transparency=1), shown[index])


@pytest.mark.parametrize('ext', ['png', 'tif'])
def test_sixteen_bits_become_eight(tmp_path, ext):
    k = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(one(Image.fromarray(k*257), tmp_path/f'x.{ext}')[..., 0], k)


def test_a_photo_is_turned_upright(tmp_path):
    array = np.zeros((16, 32), np.uint8)
    array[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # what is stored as the left is to be shown on top
    ours = one(Image.fromarray(array), tmp_path/'x.jpg', exif=exif, quality=95)[..., 0]
    assert ours.shape == (32, 16) and ours[:14].max() < 40 and ours[18:].min() > 215


def test_cropping_takes_the_middle(tmp_path):
    wide, tall = noise(6, 12), noise(14, 6)
    assert np.array_equal(one(Image.fromarray(wide), tmp_path/'wide'/'x.png', 6)[..., 0], wide[:, 3:9])
    assert np.array_equal(one(Image.fromarray(tall), tmp_path/'tall'/'x.png', 6)[..., 0], tall[4:10])


@pytest.mark.parametrize('shape, size', [((12, 12), 6), ((9, 21), 3), ((40, 30), 7), ((5, 5), 13), ((31, 17), 16)])
def test_resizing_by_hand(tmp_path, shape, size):
    array = noise(*shape, 3)
    assert close(one(Image.fromarray(array), tmp_path/'x.png', size), triangle(array.astype(float), size), 1.01)


def test_pictures_need_not_be_square(tmp_path):
    array = noise(5, 9)
    assert np.array_equal(one(Image.fromarray(array), tmp_path/'x.png')[..., 0], array)


def test_a_folder_without_pictures(tmp_path):
    (tmp_path/'notes.txt').write_text('x')
    with pytest.raises(ValueError, match='no pictures') as error: load_data(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_different_shapes_need_a_size(tmp_path):
    for i, shape in enumerate([(4, 4), (4, 5), (9, 9)]): Image.fromarray(noise(*shape)).save(tmp_path/f'{i}.png')
    with pytest.raises(ValueError, match='3 different shapes.*size'): load_data(tmp_path)
    assert load_data(tmp_path, 4).shape == (1, 4, 4)


def damaged(kind):
    stream = io.BytesIO()
    Image.fromarray(noise(40, 30, 3)).save(stream, kind)
    return stream.getvalue()[:len(stream.getvalue())//2]


@pytest.mark.parametrize('name, content', [('x.png', damaged('PNG')), ('x.jpg', damaged('JPEG')), ('x.tif', damaged('TIFF')), ('x.gif', b''), ('x.png', b'hello'),
                                           ('x.bmp', damaged('BMP')), ('x.webp', damaged('WEBP')), ('x.dds', damaged('DDS')), ('x.ppm', b'P6\n30Z40\n255\n')])
def test_a_damaged_picture_is_named(tmp_path, name, content):
    (tmp_path/'fine').mkdir()
    Image.fromarray(noise(40, 30, 3)).save(tmp_path/'fine'/'1.png')
    (tmp_path/name).write_bytes(content)
    with pytest.raises(ValueError) as error: load_data(tmp_path, 8)
    assert str(tmp_path/name) in str(error.value)


# More than fits into memory, and what cannot be read

@pytest.fixture
def album(tmp_path):
    "Eleven pictures of many kinds."
    folder = tmp_path/'album'
    folder.mkdir()
    for i in range(8): Image.fromarray(noise(12 + i, 20)).save(folder/f'{i}.png')
    Image.fromarray(noise(16, 16)).convert('P').save(folder/'8.gif')
    Image.fromarray(noise(9, 30)).save(folder/'9.jpg')
    Image.fromarray(rng.integers(0, 65536, (16, 16)).astype(np.uint16)).save(folder/'a.png')
    return folder


def streamed(monkeypatch, folder, size=8, **how):
    with monkeypatch.context() as patch:
        patch.setattr(module, 'STREAM_ABOVE', 0)
        return load_data(folder, size, **how)


@pytest.mark.parametrize('colour', [None, Image.fromarray(noise(9, 9, 3)), Image.fromarray(noise(9, 9, 2), 'LA'), Image.fromarray(noise(9, 9, 4))])
def test_streamed_pictures_are_those_in_memory(monkeypatch, album, colour):
    if colour is not None: colour.save(album/'colour.png')
    (album/'8.gif').unlink()  # a palette is colour
    whole, found = load_data(album, 8), streamed(monkeypatch, album)
    assert isinstance(found, StreamedSet) and isinstance(whole, ImageSet) and found.shape == whole.shape == (1 if colour is None else 3, 8, 8)
    assert (len(found), found.name, found.levels) == (len(whole), whole.name, whole.levels)
    for index in (slice(None), slice(2, 5), torch.tensor([3, 0, 3]), torch.arange(len(whole)) % 2 == 0, torch.tensor([], dtype=torch.long)):
        assert torch.equal(found.floats(index), whole.floats(index))
        if len(found.floats(index)): assert torch.equal(found.subset(index).floats(), whole.subset(index).floats())
    for ours, theirs in zip(hold_out(found, 3), hold_out(whole, 3)): assert torch.equal(ours.floats(), theirs.floats())


def test_a_palette_is_colour(monkeypatch, album): assert streamed(monkeypatch, album).shape == load_data(album, 8).shape == (3, 8, 8)


def test_only_what_needs_too_much_memory_is_streamed(monkeypatch, album):
    monkeypatch.setattr(module, 'STREAM_ABOVE', 11*3*8*8)
    assert isinstance(load_data(album, 8), ImageSet) and isinstance(load_data(album, 9), StreamedSet)


def test_what_was_prepared_is_read_once(monkeypatch, album):
    data, opened = streamed(monkeypatch, album), []
    read = module.open_picture
    monkeypatch.setattr(module, 'open_picture', lambda path, size: opened.append(path.name) or read(path, size))
    data.prepare(torch.tensor([2, 0]))
    data.floats(torch.tensor([2, 0, 1]))
    assert sorted(opened) == ['0.png', '1.png', '2.png']
    data.prepare(torch.tensor([5]))
    data.floats(torch.tensor([2]))
    assert opened.count('2.png') == 2, 'announced and never asked for: forgotten'


def test_training_on_a_stream_is_training_in_memory(monkeypatch, album, tmp_path):
    runs = {}
    for name, data in (('memory', load_data(album, 8)), ('stream', streamed(monkeypatch, album))):
        config = settings(out=str(tmp_path/name), data=str(album), size=8, flips=True, save_every=3, holdout=2, device='cpu', precision='fp32')
        runs[name] = train(*build(config, data.shape), data, config)
    assert numbers(runs['memory']) == (whole := numbers(runs['stream']))
    (runs['stream']/'checkpoints'/'step_0000006.safetensors').unlink()
    monkeypatch.setattr(module, 'STREAM_ABOVE', 0)
    assert numbers(resume(runs['stream'])) == whole


BAD = [('x.png', b'hello'), ('0.jpg', damaged('JPEG')), ('zz.gif', b'')]


@pytest.mark.parametrize('how', ['memory', 'stream'])
def test_bad_files_are_skipped_and_counted(monkeypatch, album, how):
    good = load_data(album, 8)
    for name, content in BAD: (album/name).write_bytes(content)
    with pytest.raises(ValueError, match='--skip-bad'): load_data(album, 8)
    if how == 'memory':
        with pytest.warns(UserWarning, match=r'skipped 3 of 14 files; the first: .*0\.jpg'): found = load_data(album, 8, skip_bad=True)
        assert torch.equal(found.images, good.images)
        return
    with pytest.warns(UserWarning, match='skipped 2 of 14 files'): found = streamed(monkeypatch, album, skip_bad=True)  # of the third one the head is whole
    assert len(found) == 12 and found.paths[0].name == '0.jpg'
    with pytest.warns(UserWarning, match=r'skipped: .*0\.jpg'): pictures = found.floats(torch.tensor([0, 1, 2]))
    assert torch.equal(pictures, good.floats(torch.tensor([0, 0, 1]))), 'the next one takes its place'
    found.skip_bad = False
    with pytest.raises(ValueError, match=r'0\.jpg'): found.floats(torch.tensor([0]))


@pytest.mark.parametrize('how', ['memory', 'stream'])
def test_nothing_but_bad_files(monkeypatch, tmp_path, how):
    for name, content in BAD[:1]: (tmp_path/name).write_bytes(content)
    with pytest.raises(ValueError, match='cannot read'): (load_data if how == 'memory' else lambda *a, **k: streamed(monkeypatch, *a, **k))(tmp_path, 8, skip_bad=True)
    (tmp_path/'x.png').unlink()
    (tmp_path/'0.jpg').write_bytes(damaged('JPEG'))
    if how == 'stream':
        with pytest.raises(ValueError, match='none of the 1 pictures'), pytest.warns(UserWarning): streamed(monkeypatch, tmp_path, skip_bad=True).floats()


@pytest.mark.filterwarnings('ignore:skipped')
def test_a_run_remembers_that_it_skips(album, tmp_path):
    (album/'x.png').write_bytes(b'hello')
    config = settings(out=str(tmp_path/'run'), data=str(album), size=8, skip_bad=True, save_every=3)
    data = load_data(album, 8, skip_bad=True)
    run = train(*build(config, data.shape), data, config)
    (run/'checkpoints'/'step_0000006.safetensors').unlink()
    resume(run)
    assert load_config(run)['data']['count'] == 11


@pytest.mark.parametrize('size', [0, -1, '8', 2.5])
def test_a_size_is_a_positive_whole_number(size):
    with pytest.raises(ValueError, match='size'): load_data('digits', size)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError) as error: load_data('imagenet')
    assert 'imagenet' in str(error.value) and all(name in str(error.value) for name in DATA_NAMES)


@pytest.mark.parametrize('images', [torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)])
def test_an_image_set_is_what_it_says(images):
    with pytest.raises(ValueError, match='uint8'): ImageSet(images)


# Parts of a set

def numbered(n, labels=True):
    k = torch.arange(n)
    return ImageSet(k.to(torch.uint8).reshape(n, 1, 1, 1), k*10 if labels else None, 200, 'numbers')


@pytest.mark.parametrize('n, kept', [(100, 1), (100, 30), (100, 99), (2, 1)])
@pytest.mark.parametrize('labels', [True, False])
def test_what_is_held_out(n, kept, labels):
    "Fixed, disjoint, complete, shuffled; labels, levels and name go along."
    before = torch.get_rng_state()
    rest, aside = hold_out(numbered(n, labels), kept)
    assert torch.equal(before, torch.get_rng_state()) and (len(rest), len(aside)) == (n - kept, kept)
    numbers = [part.images.flatten().tolist() for part in (rest, aside)]
    assert sorted(numbers[0] + numbers[1]) == list(range(n))
    for part, k in zip((rest, aside), numbers):
        assert (part.levels, part.name, part.shape) == (200, 'numbers', (1, 1, 1)) and (part.labels.tolist() == [10*i for i in k] if labels else part.labels is None)
    torch.manual_seed(99)
    again = [part.images.flatten().tolist() for part in hold_out(numbered(n, labels), kept)]
    assert again == numbers and (n == 2 or numbers[0] + numbers[1] != list(range(n)))


def test_more_held_out_holds_what_was_held_out():
    few, many = (set(hold_out(numbered(100), k)[1].images.flatten().tolist()) for k in (10, 40))
    assert few < many


def test_nothing_held_out():
    data = numbered(7)
    assert hold_out(data, 0) == (data, None)


@pytest.mark.parametrize('n', [-1, 7, 8])
def test_too_much_held_out(n):
    with pytest.raises(ValueError, match=rf'holdout must lie in 0\.\.6 for 7 pictures, got {n}'): hold_out(numbered(7), n)


def test_a_subset():
    for index in ([3, 0], torch.tensor([3, 0])):
        part = numbered(5).subset(index)
        assert part.images.flatten().tolist() == [3, 0] and part.labels.tolist() == [30, 0] and (part.levels, part.name) == (200, 'numbers')
    assert numbered(5, labels=False).subset([1]).labels is None and torch.equal(numbered(5).subset(slice(2)).floats(), numbered(5).floats([0, 1]))


@pytest.mark.parametrize('part', ['valid', 'TEST', None])
def test_unknown_parts(part):
    with pytest.raises(ValueError, match="part must be 'train' or 'test'"): load_data('digits', part=part)


def test_no_test_part(tmp_path):
    Image.fromarray(noise(4, 4)).save(tmp_path/'1.png')
    for name in ('digits', tmp_path, str(tmp_path), 'imagenet'):
        with pytest.raises(ValueError, match='has no test part of its own; keep pictures aside with holdout'): load_data(name, part='test')


def no_network(*args, **kwargs): raise URLError('no route to host')


def write_idx(folder, images, labels):
    "MNIST's own format, train and test alike."
    folder.mkdir(parents=True)
    for part in ('train', 't10k'):
        (folder/f'{part}-images-idx3-ubyte').write_bytes(struct.pack('>4i', 2051, *images.shape) + images.tobytes())
        (folder/f'{part}-labels-idx1-ubyte').write_bytes(struct.pack('>2i', 2049, len(labels)) + labels.tobytes())


@pytest.mark.parametrize('name, folder', [('mnist', 'MNIST'), ('fashion-mnist', 'FashionMNIST')])
def test_mnist(tmp_path, name, folder):
    images, labels = noise(5, 28, 28), np.array([3, 1, 4, 1, 5], np.uint8)
    write_idx(tmp_path/folder/'raw', images, labels)
    ours = load_data(name, root=tmp_path)
    assert np.array_equal(ours.images[:, 0], images) and np.array_equal(ours.labels, labels) and ours.labels.dtype == torch.int64
    small = load_data(name, 32, tmp_path)
    assert close(small.images[2, 0], triangle(images[2].astype(float), 32), 1) and torch.equal(small.labels, ours.labels)


def test_cifar10(tmp_path, monkeypatch):
    folder, rows = tmp_path/'cifar-10-batches-py', noise(5, 4, 3*32*32)
    folder.mkdir()
    for i in range(5): (folder/f'data_batch_{i + 1}').write_bytes(pickle.dumps({'data': rows[i], 'labels': [i, 1, 2, 9]}))
    (folder/'batches.meta').write_bytes(pickle.dumps({'label_names': list('abcdefghij')}))
    monkeypatch.setattr(torchvision.datasets.cifar, 'check_integrity', lambda *args: True)
    ours = load_data('cifar10', root=tmp_path)
    assert np.array_equal(ours.images, rows.reshape(20, 3, 32, 32)) and ours.labels[::4].tolist() == [0, 1, 2, 3, 4] and ours.images.is_contiguous()
    small = load_data('cifar10', 16, tmp_path)
    assert close(small.images[7].permute(1, 2, 0), triangle(ours.images[7].permute(1, 2, 0).double().numpy(), 16), 1.01)


def test_the_test_part_of_cifar10(tmp_path, monkeypatch):
    folder, rows = tmp_path/'cifar-10-batches-py', noise(3, 3*32*32)
    folder.mkdir()
    (folder/'test_batch').write_bytes(pickle.dumps({'data': rows, 'labels': [7, 8, 9]}))
    (folder/'batches.meta').write_bytes(pickle.dumps({'label_names': list('abcdefghij')}))
    monkeypatch.setattr(torchvision.datasets.cifar, 'check_integrity', lambda *args: True)
    ours = load_data('cifar10', root=tmp_path, part='test')
    assert np.array_equal(ours.images, rows.reshape(3, 3, 32, 32)) and ours.labels.tolist() == [7, 8, 9] and ours.name == 'cifar10'


def write_flowers(root):
    "Three pictures; the second and third are for training. Labels count from 1."
    savemat = pytest.importorskip('scipy.io').savemat
    (root/'flowers-102'/'jpg').mkdir(parents=True)
    for i in (1, 2, 3): Image.new('RGB', (20 + i, 30), (80*i, 0, 0)).save(root/'flowers-102'/'jpg'/f'image_{i:05d}.jpg', quality=95)
    savemat(root/'flowers-102'/'imagelabels.mat', {'labels': np.array([[7, 8, 9]], np.uint8)})
    savemat(root/'flowers-102'/'setid.mat', {'trnid': np.array([[2, 3]], np.uint16), 'valid': np.array([[1]]), 'tstid': np.array([[1, 1]])})


def write_celeba(root):
    "Five faces: two for training, one for validation, two for the test; and the tables that torchvision reads."
    folder = root/'celeba'
    (folder/'img_align_celeba').mkdir(parents=True)
    names = [f'{i:06d}.jpg' for i in range(1, 6)]
    for i, name in enumerate(names): Image.new('RGB', (178, 218), (50*i, 0, 0)).save(folder/'img_align_celeba'/name, quality=95)
    table = lambda columns: '5\n' + ' '.join(f'c{i}' for i in range(columns)) + '\n' + ''.join(f'{n} ' + ' '.join(['1']*columns) + '\n' for n in names)
    for file, text in (('list_eval_partition', ''.join(f'{n} {p}\n' for n, p in zip(names, (0, 2, 1, 0, 2)))), ('identity_CelebA', ''.join(f'{n} 7\n' for n in names)),
                       ('list_bbox_celeba', table(4)), ('list_landmarks_align_celeba', table(10)), ('list_attr_celeba', table(40))): (folder/f'{file}.txt').write_text(text)


@pytest.mark.parametrize(('above', 'kind'), [(2**31, 'ImageSet'), (100, 'StreamedSet')])
def test_celeba_in_memory_or_streamed(tmp_path, monkeypatch, above, kind):
    write_celeba(tmp_path)
    monkeypatch.setattr(torchvision.datasets.celeba, 'check_integrity', lambda *args: True)
    monkeypatch.setattr(module, 'STREAM_ABOVE', above)
    train, test = (load_data('celeba', 16, tmp_path, part) for part in ('train', 'test'))
    assert type(train).__name__ == kind and (train.shape, len(train), len(test)) == ((3, 16, 16), 2, 2)
    red = [((d.floats(torch.arange(len(d)))[:, 0].mean((1, 2)) + 1)*127.5).numpy() for d in (train, test)]
    assert close(red[0], [0, 150], 3) and close(red[1], [50, 200], 3)
    with pytest.raises(ValueError, match='size=64'): load_data('celeba', root=tmp_path)


def test_a_spoilt_face_is_named_or_skipped(tmp_path, monkeypatch):
    write_celeba(tmp_path)
    monkeypatch.setattr(torchvision.datasets.celeba, 'check_integrity', lambda *args: True)
    (tmp_path/'celeba'/'img_align_celeba'/'000004.jpg').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='000004.jpg'): load_data('celeba', 16, tmp_path)
    with pytest.warns(UserWarning, match='skipped 1 of 2'): assert len(load_data('celeba', 16, tmp_path, skip_bad=True)) == 1


def write_cars(root):
    "Two pictures for training. Labels count from 1."
    savemat = pytest.importorskip('scipy.io').savemat
    folder = root/'stanford_cars'
    for name in ('devkit', 'cars_train'): (folder/name).mkdir(parents=True)
    for i in (2, 3): Image.new('RGB', (20 + i, 30), (80*i, 0, 0)).save(folder/'cars_train'/f'{i}.jpg', quality=95)
    rows = np.array([('2.jpg', np.uint8(8)), ('3.jpg', np.uint8(9))], dtype=[('fname', object), ('class', object)])
    savemat(folder/'devkit'/'cars_train_annos.mat', {'annotations': rows})
    savemat(folder/'devkit'/'cars_meta.mat', {'class_names': np.array(['a', 'b'], dtype=object)})


@pytest.mark.parametrize('name, write', [('flowers102', write_flowers), ('stanford-cars', write_cars)])
def test_pictures_of_many_shapes(tmp_path, monkeypatch, name, write):
    write(tmp_path)
    monkeypatch.setattr(torchvision.datasets.flowers102, 'check_integrity', lambda *args: True)
    ours = load_data(name, 10, tmp_path)
    assert ours.shape == (3, 10, 10) and ours.labels.tolist() == [7, 8] and ours.labels.dtype == torch.int64
    assert close(ours.images[:, 0].double().mean((1, 2)), [160, 240], 3)
    with pytest.raises(ValueError, match='size'): load_data(name, root=tmp_path)


def test_the_test_part_of_flowers(tmp_path, monkeypatch):
    write_flowers(tmp_path)
    monkeypatch.setattr(torchvision.datasets.flowers102, 'check_integrity', lambda *args: True)
    ours = load_data('flowers102', 10, tmp_path, 'test')
    assert ours.labels.tolist() == [6, 6] and close(ours.images[:, 0].double().mean(), 80, 3)


@pytest.mark.parametrize('name', DATA_NAMES[1:])
def test_offline_is_said_plainly(tmp_path, monkeypatch, name):
    for file in ('mnist', 'cifar', 'flowers102'): monkeypatch.setattr(getattr(torchvision.datasets, file), 'download_and_extract_archive', no_network)
    monkeypatch.setattr(torchvision.datasets.celeba, 'download_file_from_google_drive', no_network)
    monkeypatch.setattr(module, 'unpack_debian_fashion', lambda root: None)
    with pytest.raises(ValueError, match=f'{name} is not under') as error: load_data(name, 8, tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize('name', ['flowers102', 'stanford-cars'])
def test_without_scipy(tmp_path, monkeypatch, name):
    (write_flowers if name == 'flowers102' else write_cars)(tmp_path)
    monkeypatch.setattr(torchvision.datasets.flowers102, 'check_integrity', lambda *args: True)
    for hidden in ('scipy', 'scipy.io'): monkeypatch.setitem(__import__('sys').modules, hidden, None)
    with pytest.raises(ValueError, match='(?i)scipy'): load_data(name, 8, tmp_path)


@pytest.fixture(scope='module')
def fashion_root(tmp_path_factory):
    if not DEBIAN_FASHION.is_dir(): pytest.skip(f'{DEBIAN_FASHION} is not on this machine (Debian: apt install dataset-fashion-mnist)')
    return tmp_path_factory.mktemp('fashion')


def test_fashion_mnist_of_debian(fashion_root, monkeypatch):
    monkeypatch.setenv('DDPM_DATA', str(fashion_root))
    monkeypatch.setattr(torchvision.datasets.mnist, 'download_and_extract_archive', no_network)
    unzip = lambda name: gzip.decompress((DEBIAN_FASHION/f'train-{name}-ubyte.gz').read_bytes())
    ours = load_data('fashion-mnist')
    assert ours.images.numpy().tobytes() == unzip('images-idx3')[16:] and ours.shape == (1, 28, 28)
    assert bytes(ours.labels.tolist()) == unzip('labels-idx1')[8:] and len(list(fashion_root.rglob('*ubyte'))) == 4
    bigger = load_data('fashion-mnist', 32)
    assert bigger.images.shape == (60_000, 1, 32, 32) and torch.equal(bigger.labels, ours.labels)
    for i in (0, 777, 59_999): assert close(bigger.images[i, 0], triangle(ours.images[i, 0].double().numpy(), 32), 1)


def test_the_test_part_of_fashion_mnist(fashion_root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.mnist, 'download_and_extract_archive', no_network)
    unzip = lambda name: gzip.decompress((DEBIAN_FASHION/f't10k-{name}-ubyte.gz').read_bytes())
    ours = load_data('fashion-mnist', root=fashion_root, part='test')
    assert len(ours) == 10_000 and ours.images.numpy().tobytes() == unzip('images-idx3')[16:] and bytes(ours.labels.tolist()) == unzip('labels-idx1')[8:]


def test_half_a_package_unpacks_nothing(tmp_path):
    source = tmp_path/'source'
    source.mkdir()
    (source/'train-images-idx3-ubyte.gz').write_bytes(gzip.compress(noise(100_000).tobytes())[:5000])
    with pytest.raises((ValueError, OSError, EOFError)): unpack_debian_fashion(tmp_path/'root', source)
    assert not [p for p in (tmp_path/'root').rglob('*') if p.is_file()]


def test_where_downloads_go(monkeypatch):
    for name in ('DDPM_DATA', 'XDG_CACHE_HOME'): monkeypatch.delenv(name, raising=False)
    assert module.default_root() == Path.home()/'.cache'/'ddpm_course'
    monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
    assert module.default_root() == Path('/cache/ddpm_course')
    monkeypatch.setenv('DDPM_DATA', '/data')
    assert module.default_root() == Path('/data')


# Points in the plane

@pytest.mark.parametrize('name', POINT_SETS)
def test_points(name):
    before = torch.get_rng_state()
    a, b, c = (sample_points(name, 2000, generator=torch.Generator().manual_seed(i)) for i in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (2000, 2) and a.dtype == torch.float32 and 0.8 < a.abs().max() < 1.12 and a.mean(0).abs().max() < 0.25
    assert (a.amax(0) - a.amin(0)).min() > 0.9 and not torch.equal(sample_points(name, 5), sample_points(name, 5)) and sample_points(name, 1).shape == (1, 2)


@pytest.mark.parametrize('name', POINT_SETS)
def test_jitter_is_a_standard_deviation(name):
    g = lambda: torch.Generator().manual_seed(3)
    still, moved = (sample_points(name, 20_000, jitter, g()) for jitter in (0., 0.1))
    assert torch.allclose((moved - still).std(0), torch.tensor([0.1, 0.1]), rtol=0.03) and (moved - still).mean(0).abs().max() < 0.004
    assert torch.allclose(sample_points(name, 2000, generator=g()), sample_points(name, 2000, 0.02, g()))


def test_moons_are_half_circles():
    x, y = (1.5*sample_points('moons', 10_000, 0., torch.Generator().manual_seed(0)).double()).T
    upper, lower = (x + 0.5, y + 0.25), (x - 0.5, y - 0.25)
    on_upper = (upper[0]**2 + upper[1]**2 - 1).abs() + (-upper[1]).clamp(min=0) < 1e-5
    on_lower = (lower[0]**2 + lower[1]**2 - 1).abs() + lower[1].clamp(min=0) < 1e-5
    assert (on_upper ^ on_lower).all() and 4800 < on_upper.sum() < 5200
    angle = torch.atan2(upper[1], upper[0])[on_upper]
    assert (torch.histc(angle, 10, 0, np.pi)/on_upper.sum()*10 - 1).abs().max() < 0.15


def test_the_roll_grows_with_its_angle():
    x, y = sample_points('swiss_roll', 10_000, 0., torch.Generator().manual_seed(0)).double().T
    r = (x**2 + y**2).sqrt()
    angle = 4.5*np.pi*r
    assert (torch.stack([angle.cos()*r - x, angle.sin()*r - y]).abs().max() < 1e-5) and abs(r.min() - 1/3) < 1e-3 and abs(r.max() - 1) < 1e-3


def test_the_dinosaur_is_its_outline_and_an_eye():
    points = 47*sample_points('dinosaur', 30_000, 0., torch.Generator().manual_seed(0)).double() + torch.tensor([49., 52.])
    corners, eye = torch.tensor(DINOSAUR).double(), torch.tensor(EYE).double()
    sides = corners.roll(-1, 0) - corners
    length = sides.norm(dim=1)
    share = (((points[:, None] - corners)*sides).sum(2)/length**2).clamp(0, 1)
    distance, side = (points[:, None] - corners - share[..., None]*sides).norm(dim=2).min(1)
    in_eye = ((points - eye).norm(dim=1) - 1.2).abs() < 1e-4
    assert (in_eye | (distance < 1e-4)).all() and abs(in_eye.double().mean() - 1/30) < 0.005
    found = side[~in_eye].bincount(minlength=len(sides))/(~in_eye).sum()
    expected = length/length.sum()
    assert ((found - expected).abs() < 5*(expected/30_000).sqrt()).all(), 'evenly along the outline'


def test_an_unknown_curve_lists_the_known():
    with pytest.raises(ValueError, match="moons, swiss_roll, dinosaur, got 'cat'"): sample_points('cat', 3)


# Any Dataset

class Items(torch.utils.data.Dataset):
    def __init__(self, items): self.items = items

    def __len__(self): return len(self.items)

    def __getitem__(self, i): return self.items[i]


@pytest.mark.parametrize('channels', [1, 3])
def test_tensors_of_a_dataset_come_back(channels):
    images = torch.from_numpy(noise(5, channels, 6, 7))
    for items in (images, images/255, [(x, 3) for x in images]):
        found = from_dataset(Items(items), name='mine')
        assert torch.equal(found.images, images) and found.name == 'mine' and (found.labels is None) == isinstance(items, torch.Tensor)
    assert found.labels.tolist() == [3]*5


def test_pictures_of_a_dataset():
    pictures = [Image.fromarray(noise(9, 9)), Image.fromarray(noise(8, 12, 3))]
    with pytest.raises(ValueError, match='2 different shapes.*size'): from_dataset(Items(pictures))
    assert from_dataset(Items(pictures), 5).shape == (3, 5, 5)


@pytest.mark.parametrize('item, word', [(torch.rand(2, 4, 4), r'\(2, 4, 4\)'), (torch.rand(4, 4), 'tensors of shape'), ('cat', 'got str'), (torch.randn(1, 40, 40), 'leave out Normalize'), (np.zeros((1, 4, 4)), 'ndarray')])
def test_what_is_no_picture(item, word):
    with pytest.raises(ValueError, match=word): from_dataset(Items([item]))


def test_an_empty_dataset():
    with pytest.raises(ValueError, match='0 different shapes'): from_dataset(Items([]))
