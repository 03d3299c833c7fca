"""Small runs of every backend, for the tests of devices."""

import torch

import pyrogen as pg
from pyrogen import seeds

CHAINS = {"chains": 2, "warmup": 1, "draws": 4, "start": "prior", "checkpoint_seconds": 1e-9}
STEPS = {"steps": 4, "checkpoint_seconds": 1e-9}
FEW = {
    pg.SVI: {"epochs": 2, "batch_size": 20, "validation": 0.2, "patience": 1, "widths_after": 0.5},
    pg.HMC: CHAINS | {"max_steps": 3},
    pg.NUTS: CHAINS | {"max_tree_depth": 2},
    pg.SGLD: CHAINS | {"thinning": 1, "batch_size": 20},
    pg.SGHMC: CHAINS | {"thinning": 1, "batch_size": 20},
    pg.AdamMCMC: CHAINS | {"thinning": 1, "batch_size": 20},
    pg.Ensemble: STEPS | {"members": 2},
    pg.Laplace: STEPS | {"polish": 3},
}
with seeds.seeded(1):
    EVENTS = pg.targets.Wedge().sample((50,))


def model(context=0):
    return pg.BayesianFlow(pg.CouplingFlow(2, 1, (3,), context=context, activation="tanh"), prior_scale=0.3)


def settings(backend, **changes):
    return backend(**FEW[backend] | {"seed": 1, "progress": False} | changes)


def same(one, other):
    """Whether two tensors have the same bits, wherever they are."""
    return torch.equal(one.cpu(), other.cpu())


def same_weights(one, other):
    return all(same(array, other.weights.arrays[name]) for name, array in one.weights.arrays.items())
