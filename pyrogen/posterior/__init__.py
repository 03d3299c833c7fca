"""The posterior over networks, and what it predicts: densities, events and histograms, each with its uncertainty."""

from pyrogen.posterior.bands import DensityEstimate, HistogramBand
from pyrogen.posterior.calibrated import CalibrationRecord, CalibrationRound
from pyrogen.posterior.histograms import sample_histograms
from pyrogen.posterior.info import Finding, RunInfo
from pyrogen.posterior.loading import load
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.predictor import Predictor
from pyrogen.posterior.summary import PosteriorSummary
from pyrogen.posterior.variations import Variations
from pyrogen.posterior.weights import (
    LowRank,
    LowRankPrecision,
    MeanField,
    Multivariate,
    PartlyRandom,
    Point,
    StoredDraws,
    WeightPosterior,
)
from pyrogen.posterior.worth import Worth

__all__ = [
    "CalibrationRecord",
    "CalibrationRound",
    "DensityEstimate",
    "Finding",
    "HistogramBand",
    "LowRank",
    "LowRankPrecision",
    "MeanField",
    "Multivariate",
    "PartlyRandom",
    "Point",
    "Posterior",
    "PosteriorSummary",
    "Predictor",
    "RunInfo",
    "StoredDraws",
    "Variations",
    "WeightPosterior",
    "Worth",
    "load",
    "sample_histograms",
]
