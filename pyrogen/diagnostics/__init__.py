"""From a posterior to numbers that can be checked: lines through a known density, convergence, comparisons."""

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

__all__ = [
    "Comparison",
    "Convergence",
    "LineResult",
    "ShapeFit",
    "compare",
    "coverage",
    "density_along_lines",
    "fit_shape",
    "function_space",
    "held_out_log_likelihood",
    "predictive_distance",
    "probe_points",
    "total_variation",
    "wasserstein",
]
