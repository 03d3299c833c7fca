"""Normalizing flows in plain torch: no Pyro, no Bayes."""

from pyrogen.flows.coupling import Conditioner, CouplingBlock, CouplingFlow
from pyrogen.flows.transforms import Affine, Bernstein, RationalQuadraticSpline

__all__ = ["Affine", "Bernstein", "Conditioner", "CouplingBlock", "CouplingFlow", "RationalQuadraticSpline"]
