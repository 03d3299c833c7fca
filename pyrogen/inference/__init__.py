"""Backends: what turns a model and events into a posterior."""

from pyrogen.inference.backend import Backend
from pyrogen.inference.calibrated import calibrate
from pyrogen.inference.mcmc.adam_mcmc import AdamMCMC
from pyrogen.inference.mcmc.hmc import HMC
from pyrogen.inference.mcmc.nuts import NUTS
from pyrogen.inference.mcmc.sampler import Sampler
from pyrogen.inference.mcmc.sgmcmc import SGHMC, SGLD
from pyrogen.inference.merging import merge
from pyrogen.inference.modes.bootstrap import Bootstrap
from pyrogen.inference.modes.ensemble import Ensemble
from pyrogen.inference.modes.laplace import Laplace
from pyrogen.inference.problems import SamplingError, SamplingWarning, TrainingDivergedError
from pyrogen.inference.run.checkpoint import CheckpointMismatchError
from pyrogen.inference.run.repeats import RepeatedStreamError
from pyrogen.inference.run.stream import StreamError
from pyrogen.inference.shards import fit_distributed, fit_shards, shard
from pyrogen.inference.vi.discflow import DiscFlow
from pyrogen.inference.vi.svi import SVI

__all__ = [
    "Backend",
    "AdamMCMC",
    "HMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVI",
    "Sampler",
    "Bootstrap",
    "DiscFlow",
    "CheckpointMismatchError",
    "Ensemble",
    "Laplace",
    "RepeatedStreamError",
    "SamplingError",
    "SamplingWarning",
    "StreamError",
    "TrainingDivergedError",
    "calibrate",
    "fit_distributed",
    "fit_shards",
    "merge",
    "shard",
]
