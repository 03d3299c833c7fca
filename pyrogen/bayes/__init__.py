"""The Bayesian lifting: flow + prior + likelihood as a Pyro model, guides, and the ELBO."""

from pyrogen.bayes.guide import ELBO, AutoNormal
from pyrogen.bayes.last_layers import LastLayers
from pyrogen.bayes.local import LocalReparameterizationError
from pyrogen.bayes.model import BayesianFlow, normalise_weights

__all__ = ["ELBO", "AutoNormal", "BayesianFlow", "LastLayers", "LocalReparameterizationError", "normalise_weights"]
