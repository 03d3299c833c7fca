"""What should not be there: a resonance over a background that was learned from the data beside it."""

from .regions import Regions
from .scores import Scores, anomaly_scores

__all__ = ["Regions", "Scores", "anomaly_scores"]
