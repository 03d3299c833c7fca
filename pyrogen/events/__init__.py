"""Events: samples with names, weights and provenance, their files, preprocessing, and sources of events."""

# Each of these registers its format.
from . import hdf5 as hdf5
from . import lhe as lhe
from . import manifest as manifest
from . import npy as npy
from . import parquet as parquet
from . import root as root
from .bijection import Bijection, Fixed
from .composites import Chain, Columns, PaddedColumns
from .conditions import StandardiseContext
from .coordinates import (
    PERIODIC,
    BeamLimit,
    LeptonPair,
    RecoilingPair,
    lepton_pair_coordinates,
)
from .dijet_coordinates import dijet_coordinates
from .dijet_production import dijets, dijets_to
from .dijet_sample import Dijets
from .distortions import Distorted, Distortion, distort
from .elementwise import Dequantise, Log, Positive, Probit, Squash
from .format import Format, PartWriter
from .jet_observables import z_jets_observables
from .jet_preprocessing import JetCoordinates, jet_coordinates
from .jet_variables import JET_COORDINATES, LeptonsAndJets
from .kinematics import Observable, lepton_pair_observables, momenta, pair_momenta
from .leptons import LEPTONS, collision_energy, four_vectors, lepton_balance, lepton_pair
from .lhc_olympics import lhco, lhco_to
from .moving import FilledHole, Shift, Smear, SmearMass
from .multiplicity import Multiplicity
from .nuisances import Nuisance, NuisanceSample, Rate, RateEstimate, with_nuisances
from .of_objects import OfObjects
from .padded import PaddedBijection
from .particles import JETS
from .power_law import PowerLaw
from .preprocessing import Identity, Standardise, UnitBox
from .pythia import drell_yan
from .reading import read, stream
from .records import from_awkward, to_awkward
from .resonance import Resonance
from .sample import EventSample, EventsLike
from .separation import JetSeparation, separated_jets, separation_weights
from .shower_files import read_showers, write_showers
from .shower_geometry import ShowerGeometry, ShowerLayer
from .shower_observables import shower_observables
from .shower_sample import Showers
from .shower_source import showers, showers_to
from .thinning import Hole, MissingMode, Reweighting, TailCut
from .threshold import ThresholdNoise
from .validation import check_events, check_weights
from .whitening import WhitenPerMultiplicity
from .writing import EventWriter, append, write
from .z_production import z_jets, z_jets_to

__all__ = [
    "Distorted",
    "Distortion",
    "FilledHole",
    "Hole",
    "MissingMode",
    "Reweighting",
    "Shift",
    "Smear",
    "SmearMass",
    "TailCut",
    "distort",
    "JETS",
    "JET_COORDINATES",
    "JetCoordinates",
    "JetSeparation",
    "LeptonsAndJets",
    "PowerLaw",
    "jet_coordinates",
    "separated_jets",
    "separation_weights",
    "ShowerGeometry",
    "ThresholdNoise",
    "ShowerLayer",
    "Showers",
    "read_showers",
    "shower_observables",
    "showers",
    "showers_to",
    "write_showers",
    "EventWriter",
    "append",
    "stream",
    "LEPTONS",
    "PERIODIC",
    "Columns",
    "LeptonPair",
    "Multiplicity",
    "Nuisance",
    "NuisanceSample",
    "Rate",
    "RateEstimate",
    "with_nuisances",
    "Observable",
    "OfObjects",
    "PaddedBijection",
    "PaddedColumns",
    "Dequantise",
    "Log",
    "Positive",
    "Probit",
    "BeamLimit",
    "RecoilingPair",
    "Resonance",
    "Squash",
    "collision_energy",
    "four_vectors",
    "from_awkward",
    "lepton_balance",
    "lepton_pair",
    "lepton_pair_coordinates",
    "lepton_pair_observables",
    "momenta",
    "pair_momenta",
    "to_awkward",
    "Bijection",
    "Chain",
    "EventSample",
    "EventsLike",
    "Format",
    "PartWriter",
    "Fixed",
    "Identity",
    "Standardise",
    "StandardiseContext",
    "UnitBox",
    "WhitenPerMultiplicity",
    "check_events",
    "check_weights",
    "Dijets",
    "dijets",
    "dijets_to",
    "lhco",
    "lhco_to",
    "dijet_coordinates",
    "drell_yan",
    "read",
    "write",
    "z_jets",
    "z_jets_observables",
    "z_jets_to",
]
