"""What should not be there: a resonance over a background that was learned from the data beside it."""

from .regions import Regions

__all__ = ["Regions"]
