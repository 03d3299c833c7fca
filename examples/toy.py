"""What the three toy scripts share: settings, command line, the fit and all that is made of it.

The toys are those of arXiv:2104.04543 ([A]), sec. 3: densities known in closed form on which the predicted density and
its uncertainty can be checked point by point.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from backends import (
    NAMES,
    SAMPLED,
    WIDE_RING_BOX,
    events_of,
    make_model,
    make_small_model,
    make_toy_backend,
    stored_draws,
)
from command_line import add_common, count, default_folder, make_folder, several, stoppable, tell_about

import pyrogen as pg
from pyrogen.diagnostics import (
    LikelihoodFit,
    LineResult,
    MarginalResult,
    ShapeFit,
    advise,
    calibration_along_lines,
    density_along_lines,
    fit_shape,
    likelihood_fit,
    marginal,
    uncertainty_map,
)
from pyrogen.files import write_bytes
from pyrogen.plotting import (
    HistogramPanel,
    plot_chains,
    plot_correlation,
    plot_histograms,
    plot_lines,
    plot_map,
    plot_marginal_sigma,
    plot_training,
    save_figure,
)

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
    "wedge": pg.targets.Wedge(),
    "kicker": pg.targets.Kicker(),
    "ring": pg.targets.GaussianRing(),
}


@stoppable
def run(
    name: str,
    target: Any,
    description: str,
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    argv: list[str] | None = None,
) -> None:
    """Fit a toy and write all tables and figures.

    Args:
        name: name of the script, for the default output folder.
        target: a line target of :mod:`pyrogen.targets`.
        description: for ``--help``.
        x_range: range of x shown in the figures.
        y_range: range of y.
        argv: the command line, by default that of the script.
    """
    started = time.monotonic()
    parser = make_parser(description, name)
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "paper" if args.paper else "default"
    svi = args.backend == "svi"
    if not svi and (args.paper or args.transform or args.epochs):
        parser.error(f"--backend {args.backend} has a flow and settings of its own: no --paper, --transform, --epochs")
    transform = args.transform or TRANSFORMS[mode]
    n = args.events or (MODES[mode]["events"] if svi else events_of(args.backend, mode))
    ring = (x_range, y_range) != (BOX, BOX)
    settings = make_settings(mode, transform, ring, args.epochs)
    if svi and n < settings["batch_size"]:
        parser.error(f"--events {n}: fewer than the {settings['batch_size']} of one batch")
    if n <= len(target.parameters):
        parser.error(f"--events {n}: the fit of the true form needs {len(target.parameters) + 1} events or more")
    kept = None if svi else stored_draws(make_toy_backend(args.backend, mode, args.seed, None))
    if kept is not None and (args.draws or 0) > kept:
        parser.error(f"--draws {args.draws}: the posterior of --backend {args.backend} holds {kept} weight draws")
    kinds = [args.backend] if not svi else [transform] if transform != TRANSFORMS[mode] else []
    out = make_folder(parser, args.out or default_folder(name, mode, *kinds))
    pg.set_threads(args.threads)

    torch.manual_seed(args.seed)
    events = target.sample((n,))
    on_box = transform != "affine" and not ring  # hard edges, learned exactly
    checkpoint = out / "run_checkpoint.h5"
    if svi:
        model = make_model(mode, transform, ring)
        backend = pg.SVI(**settings, seed=args.seed, checkpoint=checkpoint)
    else:
        model = make_small_model(mode, ring, box=WIDE_RING_BOX)
        backend = make_toy_backend(args.backend, mode, args.seed, checkpoint)
    print(f"{n:,} events of {target}, {transform} flow with {model.weights:,} weights, seed {args.seed}")
    tell_about(checkpoint)
    try:
        posterior = backend.fit(model, events)
    except (pg.CheckpointMismatchError, pg.FileFormatError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")
    trained = time.monotonic() - started
    posterior.save(out / "posterior.h5")
    written = [out / "posterior.h5"]

    evaluation = dict(MODES[mode]["evaluation"])
    evaluation["draws"] = posterior.weights.at_most(args.draws or evaluation["draws"])  # an ensemble may hold fewer
    first, last = (0.01, 0.99) if on_box else target.line_range  # nothing needs cutting away where edges are exact
    t = torch.linspace(first, last, evaluation["points"], dtype=torch.float64)
    lines = density_along_lines(posterior, target, t, draws=evaluation["draws"], seed=args.seed)
    shape, reference = fits(lines, target, events)
    written.append(save_figure(plot_lines(lines, shape, reference), out / "lines.png"))
    plot_history = plot_chains if args.backend in SAMPLED else plot_training
    written.append(save_figure(plot_history(posterior.history), out / "training.png"))
    plane = uncertainty_map(
        posterior, (0, *x_range), (1, *y_range), evaluation["cells"], target=target, draws=evaluation["draws"]
    )
    written.append(save_figure(plot_map(plane), out / "map.png"))
    written.append(save_figure(marginals(posterior, events, x_range, y_range, evaluation), out / "marginals.png"))
    sigma = marginal_sigma(posterior, target, lines, evaluation)
    measure = target.line_measure(torch.from_numpy(lines.t)).numpy()
    written.append(save_figure(plot_marginal_sigma(sigma, lines, measure), out / "marginal_sigma.png"))
    correlation = plot_correlation(sigma.bands["a"], label=lines.label, subtract_noise=True)
    written.append(save_figure(correlation, out / "correlation.png"))
    advice = advise(posterior, events, support=target, draws=evaluation["draws"])

    coverage = calibration_along_lines([posterior], target, t, draws=evaluation["draws"], seed=args.seed)
    summary = summarise(lines, shape, reference) | {
        "coverage": {"within_1_sigma": coverage.fraction()[0], "verdict": coverage.verdict},
        "marginal_over_lines": median_ratio(sigma, lines, measure),
        "advice": [vars(finding) for finding in advice.findings],
        "seconds_training": trained,
        "seconds_all": time.monotonic() - started,
        "settings": {
            "script": name,
            "mode": mode,
            "events": n,
            "seed": args.seed,
            "transform": transform,
            "draws": evaluation["draws"],
            "backend": args.backend,
            args.backend.replace("-", "_"): posterior.info.settings,
        },
        "warnings": posterior.info.warnings,
        "history": last_values(posterior.history),
    }
    print_summary(summary, lines.label)
    if reference is not None:
        print(reference.text())
    print(f"\nDoes sigma cover the truth? {coverage.text()}")
    print(f"\n{advice.text()}\n")
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    written.append(out / "summary.json")
    print("wrote", *(f"  {path}" for path in written), sep="\n")


def make_parser(description: str, name: str) -> argparse.ArgumentParser:
    """The command line of a toy script."""
    parser = argparse.ArgumentParser(description=description, epilog="A killed run goes on when repeated.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="a small network and few events, in under a minute")
    mode.add_argument("--paper", action="store_true", help="batch size and epochs of arXiv:2104.04543, for hours")
    parser.add_argument("--events", type=count, metavar="N", help="training events (300,000; quick: 20,000)")
    parser.add_argument(
        "--transform", choices=("bernstein", "rqs", "affine"), help="coupling of svi (bernstein; paper: affine)"
    )
    parser.add_argument("--epochs", type=count, metavar="E", help="passes over the events, of svi")
    parser.add_argument(
        "--backend",
        choices=NAMES,
        default="svi",
        help="how the posterior is found (svi); the samplers, laplace and ensemble take 2,000 events (quick: 300)",
    )
    parser.add_argument("--draws", type=several, metavar="K", help="weight draws of a prediction (50; quick: 20)")
    add_common(parser, f"out/{name}, with the mode and the transform or backend")
    return parser


def make_settings(mode: str, transform: str, ring: bool, epochs: int | None) -> dict[str, Any]:
    """The training of svi; ``epochs`` in place of its own."""
    of_ring = RING_TRAINING.get((mode, transform), {}) if ring else {}
    return MODES[mode]["svi"][transform] | of_ring | ({"epochs": epochs} if epochs else {})


def fits(lines: LineResult, target: Any, events: torch.Tensor) -> tuple[ShapeFit | None, LikelihoodFit | None]:
    """The fit-like shape of the uncertainty, and the true form fitted to the events, where iminuit is there."""
    try:
        shape = fit_shape(lines.sigma, lines.sigma_spread, target.sensitivities(torch.from_numpy(lines.t)))
        return shape, likelihood_fit(target, events)
    except ImportError as error:
        print(f"no fit-like curve: {error}")
        return None, None


def marginal_sigma(
    posterior: pg.Posterior, target: Any, lines: LineResult, evaluation: dict[str, int]
) -> MarginalResult:
    """The coordinate along the lines, with the other one integrated out, and its uncertainty by both procedures."""
    return marginal(
        posterior,
        target.line_coordinate,
        evaluation["bins"] // 2,  # sigma of a bin needs more events than its content
        range=(float(lines.t[0]), float(lines.t[-1])),
        n=evaluation["generated"],
        draws=evaluation["draws"],
        label=lines.label,
    )


def median_ratio(sigma: MarginalResult, lines: LineResult, measure: np.ndarray) -> dict[str, float]:
    """Sigma of the marginal distribution over that along lines, median over the bins, by procedure."""
    ratios = {name: sigma.ratio_to_lines(lines, measure, name) for name in sigma.bands}
    return {name: float(np.nanmedian(ratio)) for name, ratio in ratios.items()}


def marginals(
    posterior: pg.Posterior,
    events: torch.Tensor,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    evaluation: dict[str, int],
) -> Any:
    """Generated and training distributions of x and y."""
    wanted = {"x": (0, evaluation["bins"], x_range), "y": (1, evaluation["bins"], y_range)}
    bands = posterior.histograms(wanted, n=evaluation["generated"], draws=evaluation["draws"])
    panels = []
    for column, (label, band) in enumerate(bands.items()):
        counts = np.histogram(events[:, column].double().numpy(), band.edges)[0]
        panels.append(HistogramPanel(band, counts, total=len(events), label=label))
    return plot_histograms(panels, truth_label="training events")


def summarise(lines: LineResult, shape: ShapeFit | None, reference: LikelihoodFit | None) -> dict[str, Any]:
    """All numbers of the table and of the summary, for JSON."""
    step = max(1, (len(lines.t) - 1) // 8)  # a table of about 9 points
    columns = {lines.label: lines.t, "p": lines.density, "sigma": lines.sigma, "truth": lines.truth, "pull": lines.pull}
    fit = None
    if shape is not None:
        fit = {"values": shape.values, "errors": shape.errors, "chi2": shape.chi2, "ndf": shape.ndf}
    true_form = None
    if reference is not None:
        # Of root mean squares: the reference may have a node.
        ratio = float(np.sqrt(np.mean(lines.sigma**2) / np.mean(reference.sigma(lines.t) ** 2)))
        true_form = {"values": reference.values, "errors": reference.errors, "sigma_over_its_sigma": ratio}
    return {
        "table": {key: values[::step].tolist() for key, values in columns.items()},
        "rms_bias": lines.rms_bias,
        "within_2_sigma": lines.within(2.0),
        "pull_rms": lines.pull_rms,
        "rms_bias_of_each_line": [lines.line(i).rms_bias for i in range(len(lines.positions))],
        "relative_sigma": lines.relative[::step].tolist(),
        "sigma_minima": lines.minima.tolist(),
        "fit": fit,
        "fit_of_true_form": true_form,
    }


def last_values(history: dict[str, np.ndarray]) -> dict[str, Any]:
    """The last entry of every curve (of every chain), where it is finite."""
    return {
        key: values[..., -1].tolist()
        for key, values in history.items()
        if values.shape[-1] and np.isfinite(values[..., -1]).all()
    }


def print_summary(summary: dict[str, Any], label: str) -> None:
    """The table and the summary line."""
    table = summary["table"]
    print(f"\n{label:>6} {'p':>9} {'sigma':>9} {'truth':>9} {'pull':>7}")
    for row in zip(*table.values(), strict=True):
        print("{:6.3f} {:9.4f} {:9.4f} {:9.4f} {:7.2f}".format(*row))
    parts = [
        f"rms bias {summary['rms_bias']:.4f}",
        f"within 2 sigma {summary['within_2_sigma']:.1%}",
        f"pull rms {summary['pull_rms']:.2f}",
    ]
    if summary["sigma_minima"]:
        parts.append(f"sigma has minima at {label} = " + ", ".join(f"{t:.2f}" for t in summary["sigma_minima"]))
    if summary["fit"]:
        values, errors = summary["fit"]["values"], summary["fit"]["errors"]
        parts += [f"{key} {value:.4f} +- {errors[key]:.4f}" for key, value in values.items()]
    ratios = summary["marginal_over_lines"]
    parts.append(f"marginal sigma / sigma along lines {ratios['a']:.2f} (a), {ratios['b']:.2f} (b)")
    print("\n" + ", ".join([*parts, f"{summary['seconds_all']:.0f} s"]))
