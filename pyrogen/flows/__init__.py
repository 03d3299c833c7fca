"""Normalizing flows in plain torch: no Pyro, no Bayes."""

from pyrogen.flows.coupling import Conditioner, CouplingBlock, CouplingFlow
from pyrogen.flows.transforms import Affine, RationalQuadraticSpline

__all__ = ["Affine", "Conditioner", "CouplingBlock", "CouplingFlow", "RationalQuadraticSpline"]
