"""What should not be there: a resonance over a background that was learned from the data beside it."""

from .baselines import DensityRatio, cwola, density_ratio, idealised, signal_region_posterior, supervised
from .histogram import ScoreHistogram, score_histogram
from .regions import Regions
from .scores import Scores, anomaly_scores
from .sic import SicCurve, SicCurves, sic_curve

__all__ = [
    "DensityRatio",
    "Regions",
    "ScoreHistogram",
    "Scores",
    "SicCurve",
    "SicCurves",
    "anomaly_scores",
    "cwola",
    "density_ratio",
    "idealised",
    "score_histogram",
    "sic_curve",
    "signal_region_posterior",
    "supervised",
]
