"""All backends on the same events: do they agree on the density and its uncertainty, and what does each of them cost?

python examples/compare_backends.py --quick

A small flow is fitted to the toys of arXiv:2104.04543 ([A]), sec. 3, by every backend. HMC, which follows the posterior
exactly, is the reference. Every posterior is saved as it is finished: when the command is repeated, those in the output
folder are used again, and a backend that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import command_line
import torch
import toy
from backends import EVENTS, NAMES, RING_BOX, make_backend, make_small_model

import pyrogen as pg
from pyrogen.diagnostics import Comparison, compare
from pyrogen.files import write_bytes
from pyrogen.inference.run.data import TrainingData
from pyrogen.plotting import plot_backends, save_figure

MODES: dict[str, dict[str, Any]] = {
    "default": {
        "evaluation": {"cells": 60, "probes": 100, "held_out": 10_000, "generated": 20_000},
        "points": 41,
    },
    "quick": {
        "evaluation": {"cells": 25, "probes": 10, "held_out": 300, "generated": 300},
        "points": 21,
    },
}


@command_line.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, compare, and write tables and figures.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    names = [name for name in NAMES if name in args.backends]  # in the order of the table
    out = command_line.make_folder(parser, args.out or command_line.default_folder("compare_backends", mode))
    pg.set_threads(args.threads)
    for target in toy.TARGETS if args.target == "all" else [args.target]:
        folder = command_line.make_folder(parser, out / target)
        n = args.events or EVENTS[mode]
        torch.manual_seed(args.seed)
        events = toy.TARGETS[target].sample((n,))
        model = make_small_model(mode, target == "ring")
        print(f"\n{target}: {n:,} events, a flow with {model.weights:,} weights, seed {args.seed}", flush=True)
        posteriors = {}
        for name in names:
            try:
                posteriors[NAMES[name].__name__] = fit(name, mode, args.seed, model, events, folder)
            except (pg.CheckpointMismatchError, pg.FileFormatError, FileExistsError) as error:
                parser.exit(1, f"{error}\nOr give another --out.\n")
            except (pg.SamplingError, pg.TrainingDivergedError) as error:
                print(f"{name} is left out: {error}", flush=True)
        reference = "HMC" if "HMC" in posteriors else next(iter(posteriors), None)
        if reference is None:
            parser.exit(1, "no backend came to its end; there is nothing to compare\n")
        report(target, posteriors, reference, mode, args, folder, events)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="A killed run goes on when repeated; finished posteriors stay."
    )
    parser.add_argument("--quick", action="store_true", help="a tiny network and few draws, in a minute per target")
    parser.add_argument("--target", choices=(*toy.TARGETS, "all"), default="all", help="the density to learn (all)")
    parser.add_argument(
        "--backends",
        choices=NAMES,
        nargs="+",
        default=[*NAMES],
        metavar="NAME",
        help=f"some of {', '.join(NAMES)} (all)",
    )
    parser.add_argument("--events", type=command_line.count, metavar="N", help="training events (2,000; quick: 300)")
    command_line.add_common(parser, "out/compare_backends, with the mode")
    return parser


def fit(name: str, mode: str, seed: int, model: pg.BayesianFlow, events: torch.Tensor, folder: Path) -> pg.Posterior:
    """The posterior of a backend: from its file, or from a run that leaves that file.

    Raises:
        FileExistsError: the file holds the posterior of another run.
    """
    backend = make_backend(name, mode, seed, folder / f"{name}_checkpoint.h5")
    path = folder / f"{name}.h5"
    if path.exists():
        posterior = pg.load(path)
        prepared = model.prepare(events)
        digest = TrainingData.check(model, events, None, None, prepared.dtype, "cpu").digest
        wanted = json.loads(json.dumps([backend.describe(), digest, prepared.describe()]))
        found = [posterior.info.settings, posterior.info.data_sha256, posterior.model.describe()]
        if json.loads(json.dumps(found)) != wanted:
            raise FileExistsError(f"{path} holds a posterior of other settings, events or model; delete it to fit anew")
        print(f"{name}: from {path}", flush=True)
        return posterior
    posterior = backend.fit(model, events)
    posterior.save(path)
    print(f"{name}: saved in {path}", flush=True)
    return posterior


def report(
    target: str,
    posteriors: dict[str, pg.Posterior],
    reference: str,
    mode: str,
    args: Any,
    folder: Path,
    events: torch.Tensor,
) -> Comparison:
    """Compare the posteriors; print the table and write it with the figure."""
    truth = toy.TARGETS[target]
    # Nothing of a ramp needs cutting away: the flow lives on its box and knows its edges.
    first, last = truth.line_range if target == "ring" else (0.01, 0.99)
    t = torch.linspace(first, last, MODES[mode]["points"], dtype=torch.float64)
    grid = RING_BOX if target == "ring" else (toy.BOX, toy.BOX)
    settings = MODES[mode]["evaluation"] | {"grid_range": grid, "t": t, "seed": args.seed, "trained_on": events}
    comparison = compare(posteriors, truth, reference, **settings)
    print("\n" + comparison.text())
    summary = {
        "target": target,
        "reference": reference,
        "rows": comparison.rows,
        "t": t.tolist(),
        "truth": comparison.lines[reference].truth.tolist(),
        "density": {name: lines.density.tolist() for name, lines in comparison.lines.items()},
        "sigma": {name: lines.sigma.tolist() for name, lines in comparison.lines.items()},
        "warnings": {name: posterior.info.warnings for name, posterior in posteriors.items()},
        "settings": {name: posterior.info.settings for name, posterior in posteriors.items()},
        "mode": mode,
        "events": next(iter(posteriors.values())).info.training_events,
        "seed": args.seed,
    }
    write_bytes(folder / "summary.json", json.dumps(summary, indent=1).encode())
    save_figure(plot_backends(comparison.lines, reference, log=True), folder / "backends.png")
    print(f"wrote\n  {folder / 'summary.json'}\n  {folder / 'backends.png'}", flush=True)
    return comparison


if __name__ == "__main__":
    run()
