"""From a posterior to numbers that can be checked: lines through a known density, convergence, comparisons."""

from .calibration import (
    Calibration,
    bootstrap_calibration,
    calibration_along_lines,
    calibration_of,
    effective_parameters,
    simulation_based_calibration,
)
from .comparison import (
    Comparison,
    compare,
    coverage,
    held_out_log_likelihood,
    predictive_distance,
    total_variation,
    wasserstein,
)
from .convergence import Convergence, function_space, probe_points
from .fit_shape import ShapeFit, fit_shape
from .lines import LineResult, density_along_lines
from .quantile_bins import AmplificationFit, QuantileBinResult, fit_amplification, quantile_bins

__all__ = [
    "AmplificationFit",
    "Calibration",
    "Comparison",
    "Convergence",
    "LineResult",
    "QuantileBinResult",
    "ShapeFit",
    "bootstrap_calibration",
    "calibration_along_lines",
    "calibration_of",
    "compare",
    "coverage",
    "density_along_lines",
    "effective_parameters",
    "fit_amplification",
    "fit_shape",
    "function_space",
    "held_out_log_likelihood",
    "predictive_distance",
    "probe_points",
    "quantile_bins",
    "simulation_based_calibration",
    "total_variation",
    "wasserstein",
]
