"""Is sigma right for events with one, two and three jets? Many samples of Z + jets, and every bin of many observables.

    python benchmarks/coverage_z_jets.py --train z_jets.h5        # 10 samples of 20,000 events; the rest is the truth
    python benchmarks/coverage_z_jets.py --train z_jets.h5 --backend svi
    python benchmarks/coverage_z_jets.py --quick                  # the 5,000 events of the repository, in a minute

The same chain of flows learns 10 independent samples in one batch. The bins of the observables of z_jets.py, for each
number of jets, are filled with generated events of every weight draw, and held against the truth, whose own statistical
error counts. A bin is a fraction of all events, so the probabilities of the numbers of jets count, too. Without --train
Pythia 8 and fastjet make the events (extras "pythia" and "fastjet"), which takes hours.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import coverage_bins
import study_options
import torch

import pyrogen as pg
from pyrogen.events import Multiplicity, z_jets_observables
from pyrogen.recipes import z_jets
from pyrogen.recipes.z_jets import SAMPLE, apart
from pyrogen.recipes.z_jets_results import FIGURES

MODES: dict[str, dict[str, Any]] = {
    "default": {
        "sets": 10,
        "events": 20_000,
        "truth": 500_000,
        "generated": 100_000,
        "flow": {"blocks": (8, 6, 6), "hidden": (64, 64), "bins": 10},
        "bootstrap": {"replicas": 16, "steps": 800, "batch_size": 256, "lr": 3e-3},
        "svi": {"epochs": 80, "batch_size": 1024, "lr": 3e-3, "lr_widths": 2e-2, "widths_after": 0.3},
    },
    "quick": {
        "sets": 3,
        "events": 1_000,
        "truth": 2_000,
        "generated": 10_000,
        "flow": {"blocks": 2, "hidden": (8,), "bins": 4},
        "bootstrap": {"replicas": 4, "steps": 20, "batch_size": 100, "lr": 2e-2},
        "svi": {"epochs": 4, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
    },
}
NUMBERS = "number of jets"
LAYOUT = Multiplicity(6, 4, 3)


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, generate, count, and write table and figure.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = coverage_bins.make_parser(__doc__, f"out/{STUDY.name}", "10; quick: 3", "20,000; quick: 1,000")
    coverage_bins.run(STUDY, parser, argv)


def read(args: argparse.Namespace, count: int, truth: int) -> tuple[pg.EventSample, pg.EventSample]:
    """Training events and the truth: that of --truth, or the events behind the training events."""
    if args.train is None and not args.quick:
        wanted = round(1.01 * count) + (0 if args.truth else truth)  # some have jets too close to each other
        sample = pg.events.z_jets(wanted, seed=101 + args.seed)
    else:
        sample = pg.events.read(args.train or SAMPLE, progress=True)
    if args.truth is not None and args.train is not None and args.truth.resolve() == args.train.resolve():
        raise ValueError(
            f"--truth is {args.truth}, as --train is; without it the other events of the file are the truth"
        )
    rest = None if args.truth is None else pg.events.read(args.truth, progress=True)
    for path, events in ((args.train, sample), (args.truth, rest)):
        if events is not None and events.multiplicity != LAYOUT:
            raise ValueError(f"{path} has the layout {events.multiplicity}; this script needs two leptons, 1 to 3 jets")
    sample = apart(sample)
    if rest is None and len(sample) <= count:
        raise ValueError(f"{count:,} training events leave none of {len(sample):,} for the truth")
    rest = sample[count:] if rest is None else apart(rest)
    return sample[:count], rest[:truth]


def make_model(flow: Mapping[str, Any], train: pg.EventSample) -> pg.BayesianFlow:
    """A chain of spline flows in coordinates that know the Z peak and the distances of jets."""
    return z_jets.make_model("resonance", flow, prior_scale="fan-in")


def values(events: torch.Tensor) -> dict[str, torch.Tensor]:
    """Values of the observables of the figures in the events with each number of jets, and the numbers themselves."""
    counts, observables = LAYOUT.counts(events), z_jets_observables()
    found = {NUMBERS: counts}
    for jets, names in FIGURES.items():
        rows = events[counts == jets]
        found |= {key(name, jets): observables[name](rows) for name in names}
    return found


def key(name: str, jets: int) -> str:
    """What an observable of the events with a number of jets is called."""
    return f"{jets}: {name}"


def edges() -> dict[str, Any]:
    """Bin edges: those of z_jets.py, for the few events of a sample twice as wide."""
    observables = z_jets_observables()
    found = {NUMBERS: observables["jets"].edges}
    for jets, names in FIGURES.items():
        found |= {key(name, jets): observables[name].edges[:: 2 if jets == 1 else 4] for name in names}
    return found


def groups() -> dict[str, list[str]]:
    """Observables of each number of jets; and those of the angle between two jets, where anti-kT has an edge."""
    found = {
        f"{jets} {'jet' if jets == 1 else 'jets'}": [key(name, jets) for name in FIGURES[jets]] for jets in FIGURES
    }
    every = [NUMBERS, *(name for names in found.values() for name in names)]
    between = [name for name in every if "delta_r_j" in name or "delta_phi_j" in name]
    return found | {"angles of two jets": between, "all others": [name for name in every if name not in between]}


STUDY = coverage_bins.Study(
    name="coverage_z_jets",
    target="Z + jets",
    modes=MODES,
    read=read,
    make_model=make_model,
    edges=edges(),
    values=values,
    groups=groups(),
    few=True,
    filled_at_once=1 << 15,
)

if __name__ == "__main__":
    run()
