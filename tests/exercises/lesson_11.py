"What learners of lesson 11 hand in."
import math
import numpy as np
from ddpm_course.exercises import check_diagonal_frechet, check_fid_limit, check_inception_score, check_precision, check_unbiased_mmd


def frechet(shape=lambda a, b: (a**0.5 - b**0.5)**2, centre=lambda a, b: (a - b)**2, end=lambda d: sum(d)):
    "Coordinate by coordinate."
    return lambda *args: end([centre(m, n) + shape(v, w) for m, v, n, w in zip(*(a.double().tolist() for a in args))])


def line(power=-1, at=0.):
    "A line through two points, by numpy, read at a place."
    return lambda n, fid_n, m, fid_m: float(np.polyval(np.polyfit([float(n)**power, float(m)**power], [fid_n, fid_m], 1), at))


def slope(n, fid_n, m, fid_m): return float(np.polyfit([1/n, 1/m], [fid_n, fid_m], 1)[0])


def mmd(wrong=None):
    "Pair by pair."
    def f(x, y):
        k = lambda a, b: (float(a @ b)/(1 if wrong == 'D' else len(a)) + 1)**3
        def within(v):
            n, diagonal = len(v), wrong in ('all', 'sum')
            pairs = [k(v[i], v[j]) for i in range(n) for j in range(n) if i != j or diagonal]
            return sum(pairs)/(n*n if wrong in ('all', 'n²') else n*(n - 1))
        across = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(y) if i != j or wrong != 'across']
        found = within(x) + within(y) - (1 if wrong == 'once' else 2)*sum(across)/len(across)
        return max(found, 0.) if wrong == 'positive' else found
    return f


def score(wrong=None, careful=True):
    "Picture by picture."
    def f(p):
        p = p.numpy()
        log = np.log2 if wrong == 'bits' else np.log
        kls = []
        for row in p:
            q = np.full(len(row), row.mean()) if wrong == 'axis' else p.mean(axis=0)
            with np.errstate(all='ignore'): terms = [a*log(a/b) for a, b in zip(row, q) if a > 0 or not careful]
            kls.append(sum(terms)/(len(row) if wrong == 'mean' else 1))
        if wrong == 'inside': return float(np.mean(np.exp(kls)))
        return float(np.mean(kls) if wrong == 'kl' else np.exp(np.mean(kls)))
    return f


def precision(wrong=None):
    "Point by point."
    def f(real, fake, k):
        if wrong == 'recall': real, fake = fake, real
        real, fake = real.tolist(), fake.tolist()
        near = lambda i: sorted(math.dist(real[i], r) for j, r in enumerate(real) if j != i or wrong == 'itself')[k - 1]
        radii = [near(i) for i in range(len(real))]
        if wrong == 'largest': radii = [max(radii)]*len(radii)
        if wrong == 'mean': radii = [sum(radii)/len(radii)]*len(radii)
        hits = 0
        for p in fake:
            d = [math.dist(p, r) for r in real]
            if wrong == 'nearest': hits += min(d) <= radii[d.index(min(d))]
            elif wrong == 'squared distance': hits += any(a**2 <= r for a, r in zip(d, radii))
            elif wrong == 'squared radius': hits += any(a <= r**2 for a, r in zip(d, radii))
            else: hits += any(a <= r for a, r in zip(d, radii))
        return hits/len(fake)
    return f


RIGHT = [(check_diagonal_frechet, frechet()), (check_fid_limit, line()), (check_unbiased_mmd, mmd()), (check_inception_score, score()), (check_precision, precision())]

SUBMISSIONS = [
    (check_diagonal_frechet, frechet(shape=lambda a, b: (a - b)**2), 'You subtract the variances'),
    (check_diagonal_frechet, frechet(shape=lambda a, b: abs(a - b)), 'as it is'),
    (check_diagonal_frechet, frechet(end=lambda d: math.sqrt(sum(d))), 'its square'),
    (check_diagonal_frechet, frechet(end=np.mean), 'mean over the coordinates'),
    (check_diagonal_frechet, frechet(shape=lambda a, b: a + b - 2*a*b), 'root is missing'),
    (check_diagonal_frechet, frechet(shape=lambda a, b: 0), 'means only'),
    (check_diagonal_frechet, frechet(centre=lambda a, b: abs(a - b)), 'not squared'),
    (check_fid_limit, lambda n, fid_n, m, fid_m: fid_m + (fid_m - fid_n), 'm = 2n only'),
    (check_fid_limit, line(power=1), 'line over n'),
    (check_fid_limit, line(power=-0.5), 'c/√n'),
    (check_fid_limit, slope, 'That is c'),
    (check_fid_limit, lambda n, fid_n, m, fid_m: float(np.average([fid_n, fid_m], weights=[n, m])), 'both too large is too large'),
    (check_fid_limit, lambda n, fid_n, m, fid_m: float(np.mean([fid_n, fid_m])), 'both too large is still'),
    (check_unbiased_mmd, mmd('all'), 'with itself'),
    (check_unbiased_mmd, mmd('n²'), 'still divide by n²'),
    (check_unbiased_mmd, mmd('sum'), 'still in the sum'),
    (check_unbiased_mmd, mmd('D'), 'divide by D'),
    (check_unbiased_mmd, mmd('once'), 'counts twice'),
    (check_unbiased_mmd, mmd('across'), 'diagonal of k(x, y), too'),
    (check_unbiased_mmd, mmd('positive'), 'below 0'),
    (check_inception_score, score(careful=False), '0·log 0'),
    *[(check_inception_score, score(wrong, careful), words) for careful in (True, False) for wrong, words in
      (('bits', 'bits'), ('kl', 'mean KL'), ('inside', 'exp of the mean'), ('mean', 'average over the classes'), ('axis', 'wrong axis'))],
    (check_precision, precision('itself'), 'its own nearest neighbour'),
    (check_precision, precision('recall'), 'That is recall'),
    (check_precision, precision('nearest'), 'nearest real point only'),
    (check_precision, precision('largest'), 'largest radius'),
    (check_precision, precision('mean'), 'mean radius'),
    (check_precision, precision('squared distance'), 'compare squared distances'),
    (check_precision, precision('squared radius'), 'with squared radii'),
]
