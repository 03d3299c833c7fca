"""Events: samples with names, weights and provenance, their files, preprocessing, Drell-Yan from Pythia 8."""

from .formats import read, write
from .preprocessing import Bijection, Chain, Identity, Standardise, UnitBox
from .pythia import drell_yan
from .sample import EventSample, check_events, check_weights

__all__ = [
    "Bijection",
    "Chain",
    "EventSample",
    "Identity",
    "Standardise",
    "UnitBox",
    "check_events",
    "check_weights",
    "drell_yan",
    "read",
    "write",
]
