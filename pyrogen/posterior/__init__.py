"""The posterior over networks, and what it predicts: densities, events and histograms, each with its uncertainty."""

from pyrogen.posterior.bands import DensityEstimate, HistogramBand
from pyrogen.posterior.files import load
from pyrogen.posterior.histograms import sample_histograms
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior

__all__ = ["DensityEstimate", "HistogramBand", "Posterior", "WeightPosterior", "load", "sample_histograms"]
