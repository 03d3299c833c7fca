"""What should not be there: a resonance over a background that was learned from the data beside it."""

from .bump_hunt import bump_hunt
from .bump_result import BumpHuntResult, Trials
from .counting import SidebandCounting, excess_p_value, excess_significance
from .given import GeneratedMasses, GivenBackground
from .regions import Regions
from .spectrum import SidebandFit, SpectrumFit
from .windows import mass_windows

__all__ = [
    "BumpHuntResult",
    "GeneratedMasses",
    "GivenBackground",
    "Regions",
    "SidebandCounting",
    "SidebandFit",
    "SpectrumFit",
    "Trials",
    "bump_hunt",
    "excess_p_value",
    "excess_significance",
    "mass_windows",
]
