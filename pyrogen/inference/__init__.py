"""Backends, checkpoints, and the posterior that every backend returns."""

from pyrogen.inference.adam_mcmc import AdamMCMC
from pyrogen.inference.chains import SamplingError, SamplingWarning
from pyrogen.inference.checkpoint import CheckpointMismatchError
from pyrogen.inference.ensemble import Ensemble
from pyrogen.inference.histograms import sample_histograms
from pyrogen.inference.hmc import HMC
from pyrogen.inference.laplace import Laplace
from pyrogen.inference.nuts import NUTS
from pyrogen.inference.posterior import Posterior
from pyrogen.inference.predictions import DensityEstimate, HistogramBand
from pyrogen.inference.saved import load
from pyrogen.inference.sgmcmc import SGHMC, SGLD
from pyrogen.inference.svi import SVI
from pyrogen.inference.training import TrainingDivergedError
from pyrogen.inference.weights import WeightPosterior

__all__ = [
    "AdamMCMC",
    "HMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVI",
    "CheckpointMismatchError",
    "DensityEstimate",
    "Ensemble",
    "HistogramBand",
    "Laplace",
    "Posterior",
    "SamplingError",
    "SamplingWarning",
    "TrainingDivergedError",
    "WeightPosterior",
    "load",
    "sample_histograms",
]
