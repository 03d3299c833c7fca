"""Small runs of every backend, for the tests of devices."""

import numpy as np
import torch

import pyrogen as pg
from pyrogen import seeds

CHAINS = {"chains": 2, "warmup": 1, "draws": 4, "start": "prior", "checkpoint_seconds": 1e-9}
STEPS = {"steps": 4, "checkpoint_seconds": 1e-9}
FEW = {
    # One weight draw a step, whose noise is the same on both devices.
    pg.SVI: {"epochs": 2, "batch_size": 20, "validation": 0.2, "patience": 1, "local_reparameterization": False},
    pg.HMC: CHAINS | {"max_steps": 3},
    pg.NUTS: CHAINS | {"max_tree_depth": 2},
    pg.SGLD: CHAINS | {"thinning": 1, "batch_size": 20},
    pg.SGHMC: CHAINS | {"thinning": 1, "batch_size": 20},
    pg.AdamMCMC: CHAINS | {"thinning": 1, "batch_size": 20},
    pg.Ensemble: STEPS | {"members": 2},
    pg.Bootstrap: STEPS | {"replicas": 3},
    pg.Laplace: STEPS | {"polish": 3},
}
with seeds.seeded(1):
    EVENTS = pg.targets.Wedge().sample((50,))


def model(context=0):
    return pg.BayesianFlow(pg.CouplingFlow(2, 1, (3,), context=context, activation="tanh"), prior_scale=0.3)


def settings(backend, **changes):
    return backend(**FEW[backend] | {"seed": 1, "progress": False} | changes)


def same(one, other):
    """Whether two tensors are the same but for rounding, wherever they are: devices may take sums in another order."""
    one, other = one.cpu(), other.cpu()
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def same_numbers(one, other):
    """Likewise, of arrays of numpy."""
    return np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)


def same_weights(one, other):
    return all(same(array, other.weights.arrays[name]) for name, array in one.weights.arrays.items())


def same_bits(one, other):
    return all(torch.equal(array.cpu(), other.weights.arrays[name].cpu()) for name, array in one.weights.arrays.items())
