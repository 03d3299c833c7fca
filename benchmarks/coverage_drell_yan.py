"""Is sigma right on real events? Many samples of Drell-Yan events, and every bin of six observables.

    python benchmarks/coverage_drell_yan.py                  # 20 samples of 50,000 events, Pythia 8 (extra "pythia")
    python benchmarks/coverage_drell_yan.py --backend svi
    python benchmarks/coverage_drell_yan.py --quick          # the 5,000 events of the repository, in a minute

The same spline flow learns 20 independent samples in one batch. The bins of the six distributions of arXiv:2104.04543,
fig. 9, are filled with generated events of every weight draw, and held against a truth of 2.5 million events. The
credible intervals at 68 % should hold the truth in 68 % of the bins.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coverage_bins
import study_options
import torch

import pyrogen as pg
from pyrogen.events import PERIODIC, collision_energy, lepton_pair, lepton_pair_coordinates, lepton_pair_observables
from pyrogen.recipes.drell_yan import SAMPLE
from pyrogen.recipes.drell_yan_results import FIGURES

MODES: dict[str, dict[str, Any]] = {
    "default": {
        "sets": 20,
        "events": 50_000,
        "truth": 2_500_000,
        "generated": 500_000,
        "flow": {"blocks": 6, "hidden": (32, 32), "bins": 8},
        "bootstrap": {"replicas": 16, "steps": 4_000, "batch_size": 512, "lr": 3e-3},
        "svi": {"epochs": 150, "batch_size": 1024, "lr": 3e-3, "lr_widths": 2e-2, "widths_after": 0.3},
    },
    "quick": {
        "sets": 4,
        "events": 500,
        "truth": 3_000,
        "generated": 40_000,
        "flow": {"blocks": 3, "hidden": (8,), "bins": 4},
        "bootstrap": {"replicas": 4, "steps": 60, "batch_size": 100, "lr": 2e-2},
        "svi": {"epochs": 20, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
    },
}
SEEDS = {"train": 101, "truth": 202}  # of Pythia, to which --seed is added


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, generate, count, and write table and figure.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = coverage_bins.make_parser(__doc__, f"out/{STUDY.name}", "20; quick: 4", "50,000; quick: 500")
    coverage_bins.run(STUDY, parser, argv)


def read(args: argparse.Namespace, count: int, truth: int) -> tuple[pg.EventSample, pg.EventSample]:
    """Training events and the truth."""
    return (
        events_of(args.train, count, SEEDS["train"] + args.seed, args.quick, last=False),
        events_of(args.truth, truth, SEEDS["truth"] + args.seed, args.quick, last=True),
    )


def events_of(path: Path | None, count: int, seed: int, quick: bool, last: bool) -> pg.EventSample:
    """Events of a file, of the committed sample (quick: its first ones, or its last), or of Pythia."""
    if path is None and not quick:
        return pg.events.drell_yan(count, seed=seed)
    sample = lepton_pair(pg.events.read(path or SAMPLE))
    return sample[-count:] if path is None and last else sample[:count]


def make_model(flow: Mapping[str, Any], train: pg.EventSample) -> pg.BayesianFlow:
    """A spline flow of mass, rapidity, angle and azimuth."""
    coordinates = lepton_pair_coordinates("mass", circle=True, energy=collision_energy(train) or 13_000.0)
    flow = pg.CouplingFlow(4, **flow, transform="rqs", mixing="random", periodic=PERIODIC["mass"])
    return pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=coordinates)


def values(events: torch.Tensor) -> dict[str, torch.Tensor]:
    """Values of the observables of the figures."""
    return {name: lepton_pair_observables()[name](events) for name in FIGURES}


STUDY = coverage_bins.Study(
    name="coverage_drell_yan",
    target="Drell-Yan",
    modes=MODES,
    read=read,
    make_model=make_model,
    edges={name: lepton_pair_observables()[name].edges[::2] for name in FIGURES},  # twice as wide as those of figures
    values=values,
)

if __name__ == "__main__":
    run()
