"How good are sampled digits? A classifier's confidence, the digits that occur, and the Fréchet distance in pixel space."
import warnings
import numpy as np
import torch
from sklearn.svm import SVC
from ddpm_course.data import load_digits
from ddpm_course.gaussians import frechet_distance


def moments(x):
    "Mean and covariance of pictures, as float64 vectors of pixels."
    flat = x.flatten(1).double()
    return flat.mean(0), torch.cov(flat.mT)


def pixel_distance(x, y): return frechet_distance(*moments(x), *moments(y))


def classifier(x, y):
    "An RBF support-vector machine with probabilities."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        return SVC(kernel='rbf', gamma='scale', probability=True, random_state=0).fit(x.flatten(1).numpy(), y.numpy())


def confidence(svm, x):
    "Share of pictures that get more than 0.9, and how many fall to each class."
    p = svm.predict_proba(x.flatten(1).numpy())
    return float((p.max(1) > 0.9).mean()), np.bincount(p.argmax(1), minlength=10)


def real_floor(x, n=512, splits=12):
    "Mean pixel distance of n real pictures from the rest, over random splits: no model can be asked to do better."
    orders = [torch.randperm(len(x), generator=torch.Generator().manual_seed(s)) for s in range(splits)]
    return float(np.mean([pixel_distance(x[o[:n]], x[o[n:]]) for o in orders]))


def judge(samples, n=512):
    "Everything at once, for samples of the digits: a dictionary of figures. The distance is the mean over groups of n."
    digits = load_digits()
    real = digits.floats()
    share, counts = confidence(classifier(real, digits.labels), samples)
    groups = [g for g in samples.split(n) if len(g) == n]
    return dict(recognised=share, counts=counts.tolist(), distance=float(np.mean([pixel_distance(g, real) for g in groups])), floor=real_floor(real, n))
