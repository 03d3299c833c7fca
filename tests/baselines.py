"""What the tests of ensembles and of Laplace share."""

from dataclasses import replace

import numpy as np
import torch
from known import Location

import pyrogen as pg
from pyrogen.inference.modes import descent


class Fragile(Location):
    """A location whose density is NaN beyond 5."""

    def log_prob(self, x):
        return super().log_prob(x) + torch.where(self.location[0] > 5, torch.nan, 0.0)


PRIOR = 0.3
EVENTS = torch.randn(60, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + torch.arange(3.0)
WEIGHTS = {
    "none": None,
    "signed": 1.5 * torch.rand(60, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.2,
}


def location(d=3, **kwargs):
    return pg.BayesianFlow(Location(d), **{"prior_scale": PRIOR, "preprocessing": None} | kwargs)


def wedge_model():
    flow = pg.CouplingFlow(2, 2, (8,), transform="bernstein", base="uniform", bins=4, activation="tanh", seed=1)
    return pg.BayesianFlow(flow, prior_scale="fan-in")


def kill_at_save(monkeypatch, moment, module=descent):
    """Interrupt the run of a module after so many checkpoints; returns a list with an entry for each of them."""
    saves, save = [], module.save_checkpoint

    def killed(*arguments):
        saves.append(1)
        save(*arguments)
        if len(saves) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_checkpoint", killed)
    return saves


def same_bits(a, b):
    """Weights and curve the same; times aside."""
    arrays = (torch.equal(a.weights.arrays[name], b.weights.arrays[name]) for name in a.weights.arrays)
    curves = (np.array_equal(a.history[name], b.history[name], equal_nan=True) for name in a.history)
    return all(arrays) and all(curves) and replace(a.info, seconds=0.0) == replace(b.info, seconds=0.0)
