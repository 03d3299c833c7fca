"""Densities known in closed form, as Pyro distributions.

The toy problems on which a Bayesian flow can be checked against the truth. Everything is dimensionless.
Sources, cited below by letter: [A] arXiv:2104.04543 (Bayesian invertible networks), [D] arXiv:2008.06545
(amplification with generative networks), [F] arXiv:2408.00838 (calibration of Bayesian generative networks).

Each target offers ``log_prob``, ``sample`` and ``support`` as every Pyro distribution does, and besides

* ``to_unit(x)`` and ``from_unit(u)``: the exact map to the unit cube, where the truth is uniform;
* ``quantile_bins(n)``: bins of equal probability, for amplification [D] and coverage [F];
* on the targets of [A] (`LineTarget`): ``line``, ``line_density`` and ``sensitivities``, the density along a
  line and its derivatives with respect to the parameters that a fit would have.
"""

from .base import LineTarget, QuantileBins, Support, Target
from .camel import CamelBack
from .ramps import Kicker, Wedge
from .rings import FullRing, GammaRing, GaussianRing
from .shell import Shell

__all__ = [
    "CamelBack",
    "FullRing",
    "GammaRing",
    "GaussianRing",
    "Kicker",
    "LineTarget",
    "QuantileBins",
    "Shell",
    "Support",
    "Target",
    "Wedge",
]
