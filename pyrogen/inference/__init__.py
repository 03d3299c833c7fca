"""Backends, checkpoints, and the posterior that every backend returns."""

from pyrogen.inference.checkpoint import CheckpointMismatchError
from pyrogen.inference.posterior import DensityEstimate, HistogramBand, Posterior, load
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
