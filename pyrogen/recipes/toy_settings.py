"""Settings of the toys: targets, trainings of each mode, and how finely the predictions are evaluated."""

from __future__ import annotations

from typing import Any

from pyrogen.targets import GaussianRing, Kicker, Wedge

# What each mode does, by coupling: the trainings, and how finely the predictions are evaluated.
MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "events": 20_000,
        "svi": {
            "bernstein": {"epochs": 60, "batch_size": 512, "lr": 1e-2, "lr_widths": 5e-2},
            "rqs": {"epochs": 20, "batch_size": 512, "lr": 1e-2, "lr_widths": 5e-2},
            "affine": {"epochs": 20, "batch_size": 512, "lr": 1e-2, "lr_widths": 5e-2},
        },
        "evaluation": {"draws": 20, "points": 33, "cells": 30, "generated": 10_000, "bins": 20},
    },
    "default": {
        "events": 300_000,
        "svi": {
            "bernstein": {"epochs": 60, "batch_size": 2048, "lr": 1e-2, "lr_widths": 5e-2},
            "rqs": {"epochs": 120, "batch_size": 2048, "lr": 1e-2, "lr_widths": 5e-2},
            "affine": {"epochs": 60, "batch_size": 1024, "lr": 3e-3, "lr_widths": 2e-2, "widths_after": 0.3},
        },
        "evaluation": {"draws": 50, "points": 41, "cells": 60, "generated": 50_000, "bins": 40},
    },
    "paper": {  # [A] table 1, for all couplings
        "events": 300_000,
        "svi": dict.fromkeys(
            ("bernstein", "rqs", "affine"),
            {"epochs": 300, "batch_size": 512, "lr": 1e-3, "lr_widths": 1e-2, "widths_after": 0.6},
        ),
        "evaluation": {"draws": 50, "points": 41, "cells": 60, "generated": 50_000, "bins": 40},
    },
}
# With its six blocks, sigma on the ring settles later than on the ramps.
RING_TRAINING: dict[tuple[str, str], dict[str, Any]] = {("default", "bernstein"): {"epochs": 120}}
# The coupling of a mode, where none is asked for. Bernstein polynomials on the target's box are a posterior of some
# hundred weights, small enough to arrive within minutes; affine blocks are those of the paper.
TRANSFORMS = {"quick": "bernstein", "default": "bernstein", "paper": "affine"}

BOX = (0.0, 1.0)
TARGETS: dict[str, Any] = {
    "wedge": Wedge(),
    "kicker": Kicker(),
    "ring": GaussianRing(),
}
#: Ranges of x and y that the figures show.
RANGES = {"wedge": (BOX, BOX), "kicker": (BOX, BOX), "ring": ((-7.0, 7.0), (0.0, 7.0))}


def make_settings(mode: str, transform: str, ring: bool, epochs: int | None) -> dict[str, Any]:
    """The training of svi; ``epochs`` in place of its own."""
    of_ring = RING_TRAINING.get((mode, transform), {}) if ring else {}
    return MODES[mode]["svi"][transform] | of_ring | ({"epochs": epochs} if epochs else {})
