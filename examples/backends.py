"""The backends by name, from :mod:`pyrogen.recipes.backends`, for the other examples."""

from pyrogen.recipes.backends import (
    AFFINE,
    EVENTS,
    NAMES,
    RING_BOX,
    SETTINGS,
    WIDE_RING_BOX,
    make_backend,
    make_small_model,
)

__all__ = [
    "AFFINE",
    "EVENTS",
    "NAMES",
    "RING_BOX",
    "SETTINGS",
    "WIDE_RING_BOX",
    "make_backend",
    "make_small_model",
]
