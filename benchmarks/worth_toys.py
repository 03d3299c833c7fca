"""Is the number of true events that a histogram is worth right? With the truth and without it, on camel back and ring.

    python benchmarks/worth_toys.py                  # Bootstrap
    python benchmarks/worth_toys.py --backend svi    # calibrated
    python benchmarks/worth_toys.py --quick          # only to see it run

What examples/worth.py says without the truth, from the spread of the posterior, is compared with the quantile MSE to
the truth, of the mean of ten trainings.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import study_options
import torch

import pyrogen as pg
from pyrogen.files import write_bytes
from pyrogen.posterior.worth import rounded

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
MODES: dict[str, dict[str, Any]] = {
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


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, and compare.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    folder = study_options.default_folder("worth_toys", mode, args.backend)
    out = study_options.make_folder(parser, args.out or folder)
    pg.set_threads(args.threads)
    write_bytes(out / "summary.json", json.dumps(toys(args, MODES[mode]), indent=1).encode())
    print(f"wrote {out / 'summary.json'}")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=study_options.count, metavar="N", help="training events (500; quick: 200)")
    parser.add_argument("--backend", choices=tuple(BACKENDS), default="bootstrap", help="svi is calibrated (bootstrap)")
    parser.add_argument("--quick", action="store_true", help="small networks and few events")
    study_options.add_common(parser, "out/worth_toys, with the backend")
    return parser


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
