"""The toys by name, from :mod:`pyrogen.recipes.toy_settings`, for the other examples."""

from pyrogen.recipes.toy_settings import BOX, TARGETS

__all__ = ["BOX", "TARGETS"]
