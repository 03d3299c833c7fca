"""Elementwise, invertible transforms with conditioned parameters: what a coupling block does to half of the features.

A transform maps latent values ``z`` to event values ``x``, one feature at a time, with parameters that the conditioner
network predicts for every event. Adding one means a file with a class ``class Mine(Transform, name="mine")`` and a
line here: ``CouplingFlow(transform="mine")`` then knows it.
"""

from pyrogen.flows.transforms.affine import Affine
from pyrogen.flows.transforms.base import Transform, TransformOptions
from pyrogen.flows.transforms.bernstein import Bernstein
from pyrogen.flows.transforms.bins import BinnedSpline
from pyrogen.flows.transforms.cubic import CubicSpline
from pyrogen.flows.transforms.spline import RationalQuadraticSpline

__all__ = [
    "Affine",
    "Bernstein",
    "BinnedSpline",
    "CubicSpline",
    "RationalQuadraticSpline",
    "Transform",
    "TransformOptions",
]
