"""Normalizing flows in plain torch: no Pyro, no Bayes."""

from pyrogen.flows.chain import ChainFlow
from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.coupling import CouplingBlock, CouplingFlow
from pyrogen.flows.mixings import Alternate, Mixing, Permutation, Rotation, upgrade_buffers
from pyrogen.flows.multiplicity import MultiplicityFlow
from pyrogen.flows.own import is_own, rebuilt
from pyrogen.flows.shower import ShowerFlow
from pyrogen.flows.transforms import (
    Affine,
    Bernstein,
    BinnedSpline,
    CubicSpline,
    RationalQuadraticSpline,
    Transform,
    TransformOptions,
)

__all__ = [
    "Affine",
    "Alternate",
    "Bernstein",
    "BinnedSpline",
    "ChainFlow",
    "Conditioner",
    "CouplingBlock",
    "CouplingFlow",
    "CubicSpline",
    "Mixing",
    "MultiplicityFlow",
    "Permutation",
    "RationalQuadraticSpline",
    "Rotation",
    "ShowerFlow",
    "Transform",
    "TransformOptions",
    "is_own",
    "rebuilt",
    "upgrade_buffers",
]
