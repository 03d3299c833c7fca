"""The backends by name, with settings for the small flow that all of them can handle; shared by the studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyrogen as pg

Box = tuple[tuple[float, float], tuple[float, float]]
NAMES: dict[str, Any] = {
    "svi": pg.SVI,
    "laplace": pg.Laplace,
    "ensemble": pg.Ensemble,
    "bootstrap": pg.Bootstrap,
    "sgld": pg.SGLD,
    "sghmc": pg.SGHMC,
    "adam-mcmc": pg.AdamMCMC,
    "nuts": pg.NUTS,
    "hmc": pg.HMC,
}

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
#: The ramps need two small blocks. A ring is no product of x and y: two blocks cannot draw it, six smaller ones can.
FLOWS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "box": {"blocks": 2, "hidden": (24,), "bins": 8},
        "ring": {"blocks": 6, "hidden": (16,), "bins": 10},
    },
    "quick": {"box": {"blocks": 2, "hidden": (6,), "bins": 4}, "ring": {"blocks": 4, "hidden": (6,), "bins": 6}},
}
#: Affine blocks. Rotations between them matter: the features of a ramp are independent of each other, and blocks that
#: only alternate between two such features start on a saddle of the likelihood that they hardly leave.
AFFINE: dict[str, Any] = {"blocks": 8, "hidden": (32, 32), "mixing": "rotation"}
#: All events of the ring are within five widths of its radius; the ramps fill the unit box.
RING_BOX = ((-9.0, 9.0), (0.0, 9.0))
#: Of 300,000 events one in ten samples has one beyond five widths. Six widths leave out none.
WIDE_RING_BOX = ((-10.0, 10.0), (0.0, 10.0))


def make_backend(name: str, mode: str, seed: int, checkpoint: Path | None) -> Any:
    """A backend with the settings of the mode.

    Args:
        name: a name in :data:`NAMES`.
        mode: ``"default"`` or ``"quick"``.
        seed: seeds the backend.
        checkpoint: where its run is saved while it goes on; None: nowhere.
    """
    return NAMES[name](**SETTINGS[mode][name], seed=seed, checkpoint=checkpoint)


def ring_box(limits: Box = RING_BOX) -> pg.events.UnitBox:
    """The box of the ring as the unit box of a flow."""
    return pg.events.UnitBox(*zip(*limits, strict=True))


def make_small_model(
    mode: str, ring: bool, prior_scale: float | str = "fan-in", box: Box = RING_BOX
) -> pg.BayesianFlow:
    """A flow of Bernstein polynomials, smooth enough for samplers that follow gradients, on the target's box.

    Args:
        mode: ``"default"`` or ``"quick"``.
        ring: whether the target is a ring, or a ramp on the unit box.
        prior_scale: width of the prior.
        box: limits of the ring in x and y.
    """
    flow = pg.CouplingFlow(
        2, **FLOWS[mode]["ring" if ring else "box"], transform="bernstein", base="uniform", activation="tanh"
    )
    return pg.BayesianFlow(flow, prior_scale=prior_scale, preprocessing=ring_box(box) if ring else None)
