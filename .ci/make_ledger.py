#!/usr/bin/env python
"""Compute the ledger of the run that ships, on the digits that it has not seen, and put it into ddpm_course/assets/digits_ledger.safetensors for explore_ledger().

    python .ci/make_ledger.py

Every step of every picture, one draw of noise each; about five minutes on one core."""
from pathlib import Path
import torch
from ddpm_course.checkpoints import load_run, save_state
from ddpm_course.data import hold_out, load_digits
from ddpm_course.elbo import mean_and_error, summary, vlb_terms

ASSETS = Path(__file__).parents[1]/'ddpm_course'/'assets'

if __name__ == '__main__':
    model, reverse, config = load_run('digits')
    aside = hold_out(load_digits(), config['train']['holdout'])[1]
    terms = vlb_terms(reverse, model, aside.floats(), levels=aside.levels, generator=torch.Generator().manual_seed(0))
    for name, (mean, error) in summary(terms).items(): print(f'{name:14}{mean:10.4f}  ± {error:.4f}')
    costs, errors = mean_and_error(torch.cat([terms['L_0'][:, None], terms['L_t']], 1).double())
    save_state({'costs': costs.float(), 'errors': errors.float(), 'L_T': terms['L_T'].mean(), 'pictures': len(aside)}, ASSETS/'digits_ledger.safetensors')
