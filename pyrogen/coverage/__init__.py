"""How often credible intervals hold the truth, over many trainings: what backends and diagnostics both need to know."""

from .calibration import Calibration, calibration_of
from .recovery import bootstrap_calibration, simulation_based_calibration

__all__ = ["Calibration", "bootstrap_calibration", "calibration_of", "simulation_based_calibration"]
