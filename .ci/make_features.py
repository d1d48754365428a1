#!/usr/bin/env python
"""Train the classifiers whose features ship with the package, and put their weights, in half precision, into ddpm_course/assets/features_NAME.safetensors.

    python .ci/make_features.py [digits] [fashion-mnist]

The code is lesson 11's. About three seconds for the digits and ten minutes for Fashion-MNIST (which is downloaded where it is missing) on one core."""
import sys
from pathlib import Path
import torch
from ddpm_course.checkpoints import save_weights
from ddpm_course.data import hold_out, load_data
from ddpm_course.metrics import SHIPPED, load_features, train_classifier

ASSETS = Path(__file__).parents[1]/'ddpm_course'/'assets'
EPOCHS = {'digits': 10, 'fashion-mnist': 8}


def pictures(name):
    "Those to learn from, and those to test on: the 297 digits that the shipped run has not seen either, or the official test part."
    shape, _, _ = SHIPPED[name]
    if name == 'digits': return hold_out(load_data('digits'), 297)
    return load_data(name, shape[-1]), load_data(name, shape[-1], part='test')


def make(name):
    "Train, save, load again as a user would, and say how good it is."
    seen, unseen = pictures(name)
    save_weights(train_classifier(seen, SHIPPED[name][2], EPOCHS[name]).half(), ASSETS/f'features_{name}.safetensors')
    features = load_features(name)
    found = features.logits(features(unseen)).argmax(1)
    size = (ASSETS/f'features_{name}.safetensors').stat().st_size
    print(f'{name}: {100*(found == unseen.labels).double().mean():.2f}% of {len(unseen)} unseen pictures, {size/1000:.0f} kB')


if __name__ == '__main__':
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SHIPPED: make(name)
