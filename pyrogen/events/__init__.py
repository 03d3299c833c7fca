"""Events: samples with names, weights and provenance, their files, preprocessing, Drell-Yan from Pythia 8."""

from .checks import check_events, check_weights
from .coordinates import (
    PERIODIC,
    BeamLimit,
    LeptonPair,
    RecoilingPair,
    lepton_pair_coordinates,
)
from .elementwise import Columns, Probit, Squash
from .formats import EventWriter, append, read, stream, write
from .kinematics import Observable, lepton_pair_observables, momenta, pair_momenta
from .leptons import LEPTONS, collision_energy, four_vectors, lepton_balance, lepton_pair
from .particles import JETS
from .preprocessing import Bijection, Chain, Identity, Standardise, UnitBox
from .pythia import drell_yan
from .resonance import Resonance
from .sample import EventSample

__all__ = [
    "JETS",
    "EventWriter",
    "append",
    "stream",
    "LEPTONS",
    "PERIODIC",
    "Columns",
    "LeptonPair",
    "Observable",
    "Probit",
    "BeamLimit",
    "RecoilingPair",
    "Resonance",
    "Squash",
    "collision_energy",
    "four_vectors",
    "lepton_balance",
    "lepton_pair",
    "lepton_pair_coordinates",
    "lepton_pair_observables",
    "momenta",
    "pair_momenta",
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
