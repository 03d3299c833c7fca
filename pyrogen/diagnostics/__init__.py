"""From a posterior to numbers that can be checked: lines through a known density, and what a fit would give there."""

from .fit_shape import ShapeFit, fit_shape
from .lines import LineResult, density_along_lines

__all__ = ["LineResult", "ShapeFit", "density_along_lines", "fit_shape"]
