"""Backends: what turns a model and events into a posterior."""

from pyrogen.inference.mcmc.adam_mcmc import AdamMCMC
from pyrogen.inference.mcmc.chains import SamplingError, SamplingWarning
from pyrogen.inference.mcmc.hmc import HMC
from pyrogen.inference.mcmc.nuts import NUTS
from pyrogen.inference.mcmc.sgmcmc import SGHMC, SGLD
from pyrogen.inference.modes.ensemble import Ensemble
from pyrogen.inference.modes.laplace import Laplace
from pyrogen.inference.run.checkpoint import CheckpointMismatchError
from pyrogen.inference.vi.svi import SVI
from pyrogen.inference.vi.training import TrainingDivergedError

__all__ = [
    "AdamMCMC",
    "HMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVI",
    "CheckpointMismatchError",
    "Ensemble",
    "Laplace",
    "SamplingError",
    "SamplingWarning",
    "TrainingDivergedError",
]
