"""Backends, checkpoints, and the posterior that every backend returns."""

from pyrogen.inference.chains import SamplingError, SamplingWarning
from pyrogen.inference.checkpoint import CheckpointMismatchError
from pyrogen.inference.hmc import HMC
from pyrogen.inference.posterior import Posterior, load
from pyrogen.inference.predictions import DensityEstimate, HistogramBand
from pyrogen.inference.svi import SVI
from pyrogen.inference.training import TrainingDivergedError
from pyrogen.inference.weights import WeightPosterior

__all__ = [
    "HMC",
    "SVI",
    "CheckpointMismatchError",
    "DensityEstimate",
    "HistogramBand",
    "Posterior",
    "SamplingError",
    "SamplingWarning",
    "TrainingDivergedError",
    "WeightPosterior",
    "load",
]
