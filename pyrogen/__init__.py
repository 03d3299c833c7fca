"""pyrogen: generative networks for collider events, with an uncertainty that can be checked.

Events in, a posterior over generators out, and every number it predicts carries an uncertainty::

    import pyrogen as pg

    events = pg.targets.Wedge().sample((300_000,))
    model = pg.BayesianFlow(pg.CouplingFlow(features=2))
    posterior = pg.SVI(epochs=30, seed=0).fit(model, events)
    posterior.density(events[:10]).relative
"""

import importlib
from typing import TYPE_CHECKING, Any

from pyrogen import events, targets
from pyrogen.adversarial import GAN, GANSampler
from pyrogen.bayes import ELBO, AutoNormal, BayesianFlow, LastLayers
from pyrogen.events import EventSample
from pyrogen.executors import PartsError
from pyrogen.files import FileFormatError
from pyrogen.flows import ChainFlow, CouplingFlow, MultiplicityFlow, ShowerFlow
from pyrogen.inference import (
    HMC,
    NUTS,
    SGHMC,
    SGLD,
    SVI,
    AdamMCMC,
    Bootstrap,
    CheckpointMismatchError,
    DiscFlow,
    Ensemble,
    Laplace,
    SamplingError,
    SamplingWarning,
    TrainingDivergedError,
    calibrate,
    fit_distributed,
    fit_shards,
    merge,
    shard,
)
from pyrogen.locks import PathInUseError
from pyrogen.log import set_verbosity
from pyrogen.posterior import DensityEstimate, HistogramBand, Posterior, Worth, load, sample_histograms
from pyrogen.progress import set_progress
from pyrogen.signals import uninterrupted
from pyrogen.threads import set_threads

if TYPE_CHECKING:  # what is imported when it is first used, see __getattr__
    from pyrogen import diagnostics, search
    from pyrogen import plot as plot
    from pyrogen import plotting as plotting
    from pyrogen import recipes as recipes
    from pyrogen.diagnostics import to_inference_data

__version__ = "0.1.0"

__all__ = [
    "AdamMCMC",
    "ELBO",
    "GAN",
    "GANSampler",
    "HMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVI",
    "AutoNormal",
    "BayesianFlow",
    "Bootstrap",
    "CheckpointMismatchError",
    "CouplingFlow",
    "DensityEstimate",
    "DiscFlow",
    "Ensemble",
    "EventSample",
    "FileFormatError",
    "HistogramBand",
    "Laplace",
    "LastLayers",
    "ChainFlow",
    "MultiplicityFlow",
    "ShowerFlow",
    "PartsError",
    "PathInUseError",
    "Posterior",
    "SamplingError",
    "SamplingWarning",
    "TrainingDivergedError",
    "Worth",
    "calibrate",
    "diagnostics",
    "events",
    "fit_distributed",
    "fit_shards",
    "load",
    "merge",
    "sample_histograms",
    "search",
    "set_progress",
    "set_threads",
    "set_verbosity",
    "shard",
    "targets",
    "to_inference_data",
]

#: What is imported when it is first used, as no fit needs it, and the room that has it.
_LATE = {
    "diagnostics": "diagnostics",
    "plot": "plot",
    "plotting": "plotting",
    "recipes": "recipes",
    "search": "search",
    "to_inference_data": "diagnostics",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with uninterrupted():
        room = importlib.import_module(f"{__name__}.{_LATE[name]}")
    globals()[name] = room if _LATE[name] == name else getattr(room, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
