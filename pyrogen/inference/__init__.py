"""Backends, checkpoints, and the posterior that every backend returns."""

from pyrogen.inference.checkpoint import CheckpointMismatchError
from pyrogen.inference.posterior import Posterior, load
from pyrogen.inference.predictions import DensityEstimate, HistogramBand
from pyrogen.inference.svi import SVI
from pyrogen.inference.training import TrainingDivergedError
from pyrogen.inference.weights import WeightPosterior

__all__ = [
    "SVI",
    "CheckpointMismatchError",
    "DensityEstimate",
    "HistogramBand",
    "Posterior",
    "TrainingDivergedError",
    "WeightPosterior",
    "load",
]
