"""pyrogen: generative networks for collider events, with an uncertainty that can be checked.

Events in, a posterior over generators out, and every number it predicts carries an uncertainty::

    import pyrogen as pg

    events = pg.targets.Wedge().sample((300_000,))
    model = pg.BayesianFlow(pg.CouplingFlow(features=2))
    posterior = pg.SVI(epochs=30, seed=0).fit(model, events)
    posterior.density(events[:10]).relative
"""

from pyrogen import diagnostics, events, targets
from pyrogen.bayes import ELBO, AutoNormal, BayesianFlow
from pyrogen.diagnostics import to_inference_data
from pyrogen.events import EventSample
from pyrogen.files import FileFormatError
from pyrogen.flows import CouplingFlow
from pyrogen.inference import (
    HMC,
    NUTS,
    SGHMC,
    SGLD,
    SVI,
    AdamMCMC,
    CheckpointMismatchError,
    Ensemble,
    Laplace,
    SamplingError,
    SamplingWarning,
    TrainingDivergedError,
)
from pyrogen.locks import PathInUseError
from pyrogen.posterior import DensityEstimate, HistogramBand, Posterior, load, sample_histograms

__version__ = "0.1.0"

__all__ = [
    "AdamMCMC",
    "ELBO",
    "HMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVI",
    "AutoNormal",
    "BayesianFlow",
    "CheckpointMismatchError",
    "CouplingFlow",
    "DensityEstimate",
    "Ensemble",
    "EventSample",
    "FileFormatError",
    "HistogramBand",
    "Laplace",
    "PathInUseError",
    "Posterior",
    "SamplingError",
    "SamplingWarning",
    "TrainingDivergedError",
    "diagnostics",
    "events",
    "load",
    "sample_histograms",
    "targets",
    "to_inference_data",
]
