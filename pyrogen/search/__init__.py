"""What should not be there: a resonance over a background that was learned from the data beside it."""

from .background import MassFit, Template
from .baselines import DensityRatio, cwola, density_ratio, idealised, signal_region_posterior, supervised
from .bump_hunt import bump_hunt
from .bump_result import BumpHuntResult, Trials
from .cathode import cathode
from .cathode_result import Cathode
from .counting import SidebandCounting, excess_p_value, excess_significance
from .cuts import CutTable
from .given import GeneratedMasses, GivenBackground
from .histogram import ScoreHistogram, score_histogram
from .regions import Regions
from .scores import Scores, anomaly_scores
from .shares import SearchSample
from .sic import SicCurve, SicCurves, sic_curve
from .spectrum import SidebandFit, SpectrumFit
from .windows import mass_windows

__all__ = [
    "BumpHuntResult",
    "Cathode",
    "CutTable",
    "DensityRatio",
    "GeneratedMasses",
    "GivenBackground",
    "MassFit",
    "Regions",
    "ScoreHistogram",
    "Scores",
    "SearchSample",
    "SicCurve",
    "SicCurves",
    "SidebandCounting",
    "SidebandFit",
    "SpectrumFit",
    "Template",
    "Trials",
    "anomaly_scores",
    "bump_hunt",
    "cathode",
    "cwola",
    "density_ratio",
    "excess_p_value",
    "excess_significance",
    "idealised",
    "mass_windows",
    "score_histogram",
    "sic_curve",
    "signal_region_posterior",
    "supervised",
]
