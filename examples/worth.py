"""How many true events is a generator worth, where the truth is not known? Histograms, regions, and the best test.

    python examples/worth.py                      # Drell-Yan: 20,000 events from Pythia 8 (extra "pythia")
    python examples/worth.py --quick              # the 5,000 events of the repository, in a minute
    python examples/worth.py --toys               # the same numbers with the truth and without it, camel back and ring
    python examples/worth.py --events lhc.lhe.gz  # your own

For every observable: how many true events the histogram of any number of generated events counts as, from the spread
of the posterior (--backend bootstrap, or svi: calibrated). Then the amplification G of cells of mass and transverse
momentum, and the differential one, of a classifier between generated and held-out events (arXiv:2509.08048).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import torch
from coverage_drell_yan import events_of, make_model

import pyrogen as pg
from pyrogen.diagnostics import (
    Network,
    averaging_amplification,
    classifier_weights,
    differential_amplification,
)
from pyrogen.events import lepton_pair_observables
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_amplification_map, plot_differential, plot_worth, save_figure
from pyrogen.posterior.worth import rounded
from pyrogen.recipes.drell_yan_results import FIGURES, features

MODES: dict[str, dict[str, Any]] = {
    "default": {
        "train": 20_000,
        "held_out": 100_000,
        "flow": {"blocks": 4, "hidden": (24, 24), "bins": 8},
        "bootstrap": {"replicas": 16, "steps": 2_000, "batch_size": 256, "lr": 5e-3},
        "svi": {"epochs": 60, "batch_size": 512, "lr": 5e-3, "lr_widths": 3e-2, "widths_after": 0.3},
        "worth": 100_000,
        "cells": (4, 16, 64),
        "network": {"epochs": 10},
        "ensemble": 2,
        "coarser": 2,
    },
    "quick": {
        "train": 2_000,
        "held_out": 2_000,
        "flow": {"blocks": 3, "hidden": (8,), "bins": 4},
        "bootstrap": {"replicas": 8, "steps": 60, "batch_size": 100, "lr": 2e-2},
        "svi": {"epochs": 20, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
        "worth": 4_000,
        "cells": (4, 16),
        "network": {"epochs": 3, "hidden": (16, 16)},
        "ensemble": 1,
        "coarser": 6,
    },
}
TOYS: dict[str, dict[str, Any]] = {
    "camel": {
        "target": pg.targets.CamelBack(),
        "bins": (10, 20, 50),
        "flow": {"blocks": 2, "hidden": (8,), "transform": "rqs", "bins": 12},
    },
    "ring": {
        "target": pg.targets.FullRing(),
        "bins": (5, 7),
        "flow": {"blocks": 6, "hidden": (16,), "transform": "affine", "activation": "tanh"},
    },
}
TOY_MODES: dict[str, dict[str, Any]] = {
    "default": {
        "sets": 10,
        "events": 500,
        "generated": 10_000,
        "bootstrap": {"replicas": 12, "steps": 800, "batch_size": 250, "lr": 1e-2},
        "svi": {"epochs": 200, "batch_size": 100, "lr": 1e-2, "lr_widths": 5e-2},
        "trainings": 20,
    },
    "quick": {
        "sets": 3,
        "events": 200,
        "generated": 1_000,
        "bootstrap": {"replicas": 6, "steps": 60, "batch_size": 100, "lr": 2e-2},
        "svi": {"epochs": 20, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
        "trainings": 8,
    },
}
BACKENDS: dict[str, Any] = {"bootstrap": pg.Bootstrap, "svi": pg.SVI}
MAP = ("M_pair", "pT")


@command_line.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, and say what it is worth.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    kinds = ["toys"] if args.toys else []
    mode = "quick" if args.quick else "default"
    folder = command_line.default_folder("worth", mode, *kinds, args.backend)
    out = command_line.make_folder(parser, args.out or folder)
    pg.set_threads(args.threads)
    summary = toys(args, TOY_MODES[mode]) if args.toys else drell_yan(parser, args, MODES[mode], out)
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    print("wrote", *(f"  {path}" for path in sorted(out.iterdir())), sep="\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn (Pythia; quick: the repository's)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="other events, to hold generated ones against")
    parser.add_argument("--train", type=command_line.count, metavar="N", help="training events (20,000; quick: 2,000)")
    parser.add_argument("--backend", choices=tuple(BACKENDS), default="bootstrap", help="svi is calibrated (bootstrap)")
    parser.add_argument("--toys", action="store_true", help="camel back and ring: with the truth and without it")
    parser.add_argument("--quick", action="store_true", help="small networks and few events")
    command_line.add_common(parser, "out/worth, with the backend")
    return parser


def drell_yan(parser: argparse.ArgumentParser, args: argparse.Namespace, mode: dict[str, Any], out: Path) -> Any:
    """The posterior of Drell-Yan events: histograms, cells, and the best test."""
    try:
        learned = events_of(args.events, args.train or mode["train"], 101 + args.seed, args.quick, last=False)
        truth = events_of(args.truth, mode["held_out"], 202 + args.seed, args.quick, last=True)
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    model = make_model(mode["flow"], learned)
    settings = mode[args.backend] | {"seed": args.seed, "checkpoint": out / "run_checkpoint.h5"}
    command_line.tell_about(settings["checkpoint"])
    backend, started = BACKENDS[args.backend](**settings), time.monotonic()
    if args.backend == "svi":
        posterior = pg.calibrate(backend, model, learned, trainings=10 if not args.quick else 8, seed=args.seed)
    else:
        posterior = command_line.fitted(parser, backend, model, learned, args.events)
    print(f"{posterior!r}, {time.monotonic() - started:.0f} s")
    posterior.save(out / "posterior.h5")

    observables = lepton_pair_observables()
    wanted = {name: (observables[name], observables[name].edges[:: mode["coarser"]]) for name in FIGURES}
    worths = posterior.worth(wanted, n=mode["worth"], seed=args.seed)
    for name, worth in worths.items():
        print(f"\n{name}: {worth.text(1_000_000)}")
    save_figure(plot_worth(list(worths.values())), out / "worth.png")

    seen = {name: observables[name] for name in MAP}
    cells = averaging_amplification(
        posterior, seen, cells=mode["cells"], reference=truth, n=mode["worth"], seed=args.seed
    )
    print(f"\n{cells.text()}")
    save_figure(plot_amplification_map(cells), out / "map.png")

    generated = posterior.generate(len(truth), seed=args.seed)
    network = Network(**mode["network"])
    weights = classifier_weights(
        truth, generated, features=features(truth), method=network, ensemble=mode["ensemble"], seed=args.seed
    )
    mass = observables["M_pair"]
    regions = {
        "M below 80 GeV": (mass, -math.inf, 80.0),
        "M 80 to 100 GeV": (mass, 80.0, 100.0),
        "M above 100 GeV": (mass, 100.0, math.inf),
        "pT above 45 GeV": (observables["pT"], 45.0, math.inf),
    }
    best = differential_amplification(weights, len(learned), regions=regions, seed=args.seed)
    print(f"\n{weights.text()}\n\n{best.text()}")
    save_figure(plot_differential(best), out / "differential.png")
    return {
        "training_events": len(learned),
        "calibration": posterior.info.note,
        "worth": {name: {"total": its.total, "worst": its.worst, "gain": its.gain} for name, its in worths.items()},
        "cells": {n: its.gain for n, its in cells.worths.items()},
        "differential": {
            its.name: {"distance": its.distance, "events": its.events} for its in [best.total, *best.regions.values()]
        },
    }


def toys(args: argparse.Namespace, mode: dict[str, Any]) -> Any:
    """G with the truth, without it, and their ratio, on independent samples of densities that are known."""
    rows = []
    print(f"{'target':8} {'bins':>5} {'G without truth':>18} {'G with truth':>18} {'ratio':>15} {'bias':>6}")
    for name, toy in TOYS.items():
        target = toy["target"]
        torch.manual_seed(args.seed)
        samples = target.sample((mode["sets"], args.train or mode["events"]))
        model = pg.BayesianFlow(pg.CouplingFlow(target.features, **toy["flow"]), prior_scale="fan-in")
        backend = BACKENDS[args.backend](**mode[args.backend], seed=args.seed)
        started, note = time.monotonic(), "not calibrated"
        if args.backend == "svi":
            record = pg.calibrate(
                backend, model, samples[0], trainings=mode["trainings"], seed=args.seed
            ).info.calibration
            backend, note = replace(backend, kl_weight=record.value), record.note
        posteriors = backend.fit_many(model, samples)
        seconds = time.monotonic() - started
        for n in toy["bins"]:
            row = compared(posteriors, target.quantile_bins(n), mode["generated"], args.seed)
            rows.append({"target": name, "backend": args.backend, "note": note, "seconds": seconds} | row)
            own, truth, ratio = (rounded(*row[key]) for key in ("without", "with", "ratio"))
            print(f"{name:8} {row['bins']:5d} {own:>18} {truth:>18} {ratio:>15} {row['bias']:6.0%}", flush=True)
        print(f"{len(posteriors)} trainings on {samples.shape[1]} events, {seconds:.0f} s; sigma {note}")
    return rows


def compared(posteriors: list[pg.Posterior], bins: Any, generated: int, seed: int) -> dict[str, Any]:
    """G from the spread of the draws, G from the quantile MSE to the truth, and the ratio; errors by the jackknife.

    With them the share of the bias in the MSE: what the mean of all trainings is off by, which no spread tells.
    """
    book = {"quantiles": (bins.bin_index, np.arange(bins.n_bins + 1) - 0.5)}
    bands = [its.worth(book, n=generated, procedure="a", seed=seed)["quantiles"].band for its in posteriors]
    off = np.array([band.mean - 1 / bins.n_bins for band in bands])
    total = np.array([np.square(band.std).sum() for band in bands])
    spread = total - [np.trace(band.noise) for band in bands]
    # The mean of K draws is off by a K-th of their variance, which more draws would take away.
    found = np.array([spread, np.square(off).sum(1) - total / len(bands[0].draws)])
    count, one = len(bands), 1 - 1 / bins.n_bins  # the sum of p (1 - p)
    left_out = (found.sum(1, keepdims=True) - found) / (count - 1)
    means = np.column_stack([found.mean(1), left_out]) * posteriors[0].info.size
    values = np.array([one / means[0], one / means[1], means[1] / means[0]])
    errors = np.sqrt((count - 1) * values[:, 1:].var(1))
    bias = np.square(off.mean(0)).sum() - off.var(0, ddof=1).sum() / count
    keys = ("without", "with", "ratio")
    table = {key: (float(v[0]), float(e)) for key, v, e in zip(keys, values, errors, strict=True)}
    return {"bins": bins.n_bins, "bias": float(bias / found[1].mean())} | table


if __name__ == "__main__":
    run()
