"""The backends by name, with settings for the small flow that all of them can handle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pyrogen.bayes import BayesianFlow
from pyrogen.events import UnitBox
from pyrogen.flows import CouplingFlow
from pyrogen.inference import HMC, NUTS, SGHMC, SGLD, SVI, AdamMCMC, Bootstrap, Ensemble, Laplace

Box = tuple[tuple[float, float], tuple[float, float]]
NAMES: dict[str, Any] = {
    "svi": SVI,
    "laplace": Laplace,
    "ensemble": Ensemble,
    "bootstrap": Bootstrap,
    "sgld": SGLD,
    "sghmc": SGHMC,
    "adam-mcmc": AdamMCMC,
    "nuts": NUTS,
    "hmc": HMC,
}
SAMPLED = ("sgld", "sghmc", "adam-mcmc", "nuts", "hmc")

# All take minutes in the default mode. SGHMC sees all events here: with the noise of mini-batches its step would have
# to be so small that it goes no faster than SGLD.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "svi": {"epochs": 1500, "batch_size": 500, "lr": 1e-2, "lr_widths": 3e-2},
        "laplace": {"steps": 4000, "batch_size": 500},
        "ensemble": {"members": 20, "steps": 2000, "batch_size": 500},
        "bootstrap": {"replicas": 32, "steps": 2000, "batch_size": 500, "lr": 1e-2},
        "sgld": {"chains": 4, "warmup": 150, "draws": 250, "thinning": 60, "batch_size": 500},
        "sghmc": {"chains": 4, "warmup": 150, "draws": 250, "thinning": 40, "batch_size": None},
        "adam-mcmc": {"chains": 4, "warmup": 150, "draws": 250, "thinning": 40},
        "nuts": {"chains": 4, "warmup": 100, "draws": 100, "max_tree_depth": 6},
        "hmc": {"chains": 4, "warmup": 150, "draws": 250},
    },
    "quick": {  # far from converged: only to see everything run
        "svi": {"epochs": 30, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
        "laplace": {"steps": 60, "batch_size": 100, "polish": 30},
        "ensemble": {"members": 5, "steps": 60, "batch_size": 100},
        "bootstrap": {"replicas": 8, "steps": 60, "batch_size": 100, "lr": 2e-2},
        "sgld": {"chains": 2, "warmup": 8, "draws": 10, "thinning": 5, "batch_size": 100, "start_steps": 40},
        "sghmc": {"chains": 2, "warmup": 8, "draws": 10, "thinning": 5, "batch_size": 100, "start_steps": 40},
        "adam-mcmc": {"chains": 2, "warmup": 8, "draws": 10, "thinning": 5, "start_steps": 40},
        "nuts": {"chains": 2, "warmup": 6, "draws": 10, "max_tree_depth": 2, "start_steps": 40},
        "hmc": {"chains": 2, "warmup": 8, "draws": 10, "max_steps": 5, "start_steps": 40},
    },
}
EVENTS = {"default": 2_000, "quick": 300}
#: In the toys, backends that need few passes over the events take as many of them as SVI.
MANY_EVENTS: dict[str, dict[str, Any]] = {
    "bootstrap": {"events": 300_000, "settings": {"steps": 3000, "batch_size": 2000}},
}
#: The ramps need two small blocks. A ring is no product of x and y: two blocks cannot draw it, six smaller ones can.
FLOWS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "box": {"blocks": 2, "hidden": (24,), "bins": 8},
        "ring": {"blocks": 6, "hidden": (16,), "bins": 10},
    },
    "quick": {"box": {"blocks": 2, "hidden": (6,), "bins": 4}, "ring": {"blocks": 4, "hidden": (6,), "bins": 6}},
}
#: Affine blocks by mode; the paper's are [A] table 1. Rotations between the blocks matter: the features of a ramp are
#: independent of each other, and blocks that only alternate between two such features start on a saddle of the
#: likelihood that they hardly leave.
AFFINE: dict[str, dict[str, Any]] = {
    "quick": {"blocks": 8, "hidden": (16, 16), "mixing": "rotation"},
    "default": {"blocks": 8, "hidden": (32, 32), "mixing": "rotation"},
    "paper": {"blocks": 20, "hidden": (32, 32, 32), "mixing": "rotation"},
}
#: Splines need fewer blocks, in all modes.
SPLINE: dict[str, Any] = {"blocks": 4, "hidden": (32, 32), "transform": "rqs", "bins": 10, "base": "uniform"}
#: All events of the ring are within five widths of its radius; the ramps fill the unit box.
RING_BOX = ((-9.0, 9.0), (0.0, 9.0))
#: Of 300,000 events one in ten samples has one beyond five widths. Six widths leave out none.
WIDE_RING_BOX = ((-10.0, 10.0), (0.0, 10.0))


def events_of(name: str, mode: str) -> int:
    """Training events of a backend in the toys."""
    return MANY_EVENTS[name]["events"] if mode == "default" and name in MANY_EVENTS else EVENTS[mode]


def make_backend(name: str, mode: str, seed: int, checkpoint: Path | None) -> Any:
    """A backend with the settings of the mode.

    Args:
        name: a name in :data:`NAMES`.
        mode: ``"default"`` or ``"quick"``.
        seed: seeds the backend.
        checkpoint: where its run is saved while it goes on; None: nowhere.
    """
    return NAMES[name](**SETTINGS[mode][name], seed=seed, checkpoint=checkpoint)


def make_toy_backend(name: str, mode: str, seed: int, checkpoint: Path | None) -> Any:
    """The same, with the settings for the number of events that the toys take."""
    backend = make_backend(name, mode, seed, checkpoint)
    return replace(backend, **MANY_EVENTS[name]["settings"]) if mode == "default" and name in MANY_EVENTS else backend


def stored_draws(backend: Any) -> int | None:
    """Weight draws that a posterior of a backend holds; None: as many as one asks for."""
    if hasattr(backend, "chains"):
        return backend.chains * backend.draws
    return getattr(backend, "members", getattr(backend, "replicas", None))


def ring_box(limits: Box = RING_BOX) -> UnitBox:
    """The box of the ring as the unit box of a flow."""
    (x_low, x_high), (y_low, y_high) = limits
    return UnitBox((x_low, y_low), (x_high, y_high))


def make_small_model(mode: str, ring: bool, prior_scale: float | str = "fan-in", box: Box = RING_BOX) -> BayesianFlow:
    """A flow of Bernstein polynomials, smooth enough for samplers that follow gradients, on the target's box.

    Args:
        mode: ``"default"`` or ``"quick"``.
        ring: whether the target is a ring, or a ramp on the unit box.
        prior_scale: width of the prior.
        box: limits of the ring in x and y.
    """
    flow = CouplingFlow(
        2, **FLOWS[mode]["ring" if ring else "box"], transform="bernstein", base="uniform", activation="tanh"
    )
    return BayesianFlow(flow, prior_scale=prior_scale, preprocessing=ring_box(box) if ring else None)


def make_model(mode: str, transform: str, ring: bool) -> BayesianFlow:
    """A flow for SVI: polynomials and splines live on the target's box, affine blocks on standardised events.

    Args:
        mode: ``"quick"``, ``"default"`` or ``"paper"``.
        transform: ``"bernstein"``, ``"rqs"`` or ``"affine"``.
        ring: whether the target is a ring, or a ramp on the unit box.
    """
    if transform == "bernstein":
        return make_small_model("default", ring, prior_scale=1.0, box=WIDE_RING_BOX)  # small enough for all modes
    if transform == "affine":
        return BayesianFlow(CouplingFlow(2, **AFFINE[mode]))
    return BayesianFlow(CouplingFlow(2, **SPLINE), preprocessing=ring_box(WIDE_RING_BOX) if ring else None)
