"""How does the uncertainty fall with the number of training events? A scan as in arXiv:2104.04543, sec. 3.4.

python examples/training_size.py --quick

The same Bayesian flow learns 10,000, 100,000 and 1,000,000 events of a toy, by the same number of steps; an ensemble of
deterministic networks learns the same events, and a maximum-likelihood fit of the true functional form tells what they
hold. Every posterior is saved as it is finished; a killed run goes on when repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import command_line
import torch
import toy

import pyrogen as pg
from pyrogen.diagnostics import SizeScan, likelihood_fit, scan_training_size
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_training_size, save_figure

MODES: dict[str, dict[str, Any]] = {
    "default": {
        "sizes": (10_000, 100_000, 1_000_000),
        "flow": {"blocks": 8, "hidden": (32, 32), "mixing": "rotation"},
        "svi": {"batch_size": 1024, "lr": 5e-3, "lr_widths": 5e-2, "widths_after": 0.3},
        "steps": 6000,
        "members": 8,
    },
    "quick": {
        "sizes": (1_000, 4_000),
        "flow": {"blocks": 4, "hidden": (16,), "mixing": "rotation"},
        "svi": {"batch_size": 200, "lr": 1e-2, "lr_widths": 1e-1, "widths_after": 0.3},
        "steps": 300,
        "members": 3,
    },
}


@command_line.stoppable
def run(argv: list[str] | None = None) -> None:
    """Train, evaluate, and write table and figure.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    settings = MODES[mode]
    sizes = sorted(args.sizes or settings["sizes"])
    if sizes[0] < settings["svi"]["batch_size"]:
        parser.error(f"--sizes {sizes[0]}: fewer than the {settings['svi']['batch_size']} of one batch")
    networks = settings["members"] if args.members is None else args.members
    out = command_line.make_folder(parser, args.out or command_line.default_folder("training_size", mode))
    folder = command_line.make_folder(parser, out / args.target)
    pg.set_threads(args.threads)
    target = toy.TARGETS[args.target]
    steps = args.steps or settings["steps"]
    model = pg.BayesianFlow(pg.CouplingFlow(2, **settings["flow"]))
    print(f"{target}, {model.weights:,} weights, {steps:,} steps, {networks} members, seed {args.seed}", flush=True)
    posteriors, ensembles, references = {}, {}, {}
    try:
        for n in sizes:
            torch.manual_seed(args.seed)
            events = target.sample((n,))
            references[n] = likelihood_fit(target, events)
            print(f"{n:,} events; {references[n].text()}", flush=True)
            posteriors[n] = make_svi(settings["svi"], n, steps, args.seed, folder).fit(model, events)
            posteriors[n].save(folder / f"svi_{n}.h5")
            if networks:
                ensembles[n] = make_ensemble(settings, n, steps, networks, args.seed, folder).fit(model, events)
                ensembles[n].save(folder / f"ensemble_{n}.h5")
    except (pg.CheckpointMismatchError, pg.FileFormatError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")
    except ImportError as error:
        parser.exit(1, f"{error}\n")
    scan = scan_training_size(posteriors, target, ensembles=ensembles, references=references, seed=args.seed)
    print("\n" + scan.text())
    write_bytes(folder / "summary.json", json.dumps(summary(scan, args, mode, steps), indent=1).encode())
    save_figure(plot_training_size(scan), folder / "training_size.png")
    print("wrote", f"  {folder / 'summary.json'}", f"  {folder / 'training_size.png'}", sep="\n")


def make_svi(settings: dict[str, Any], n: int, steps: int, seed: int, folder: Path) -> pg.SVI:
    """The same number of steps whatever the number of events."""
    epochs = max(1, round(steps / (n // settings["batch_size"])))
    every = max(1, epochs // 30)
    return pg.SVI(**settings, epochs=epochs, seed=seed, checkpoint=folder / f"svi_{n}_run.h5", checkpoint_every=every)


def make_ensemble(settings: dict[str, Any], n: int, steps: int, networks: int, seed: int, folder: Path) -> pg.Ensemble:
    """Deterministic networks: likelihood alone, without prior."""
    return pg.Ensemble(
        members=networks,
        objective="likelihood",
        steps=steps // 2,  # as many as the means of the Bayesian flow need to find the density
        batch_size=settings["svi"]["batch_size"],
        lr=settings["svi"]["lr"],
        seed=seed,
        checkpoint=folder / f"ensemble_{n}_run.h5",
    )


def summary(scan: SizeScan, args: Any, mode: str, steps: int) -> dict[str, Any]:
    """All numbers of table and figure, for JSON."""
    rows = {}
    for i, (n, line) in enumerate(scan.lines.items()):
        rows[str(n)] = {
            "t": line.t.tolist(),
            "sigma": line.sigma.tolist(),
            "sigma_spread": line.sigma_spread.tolist(),
            "density": line.density.tolist(),
            "rms_bias": line.rms_bias,
            "pull_rms": line.pull_rms,
            "structure": float(scan.structure()[i]),
            "fit": vars(scan.shapes[n])
            | {"sensitivities": None, "bars": None, "chi2_per_ndf": scan.shapes[n].chi2 / scan.shapes[n].ndf},
            "true_form": {"values": scan.references[n].values, "errors": scan.references[n].errors},
            "ensemble_sigma": scan.ensembles[n].sigma.tolist() if n in scan.ensembles else None,
        }
    told: dict[str, Any] = {"target": args.target, "mode": mode, "steps": steps, "seed": args.seed, "sizes": rows}
    if len(scan.lines) > 1:
        told["exponent"] = scan.exponent()
    if len(scan.ensembles) > 1:
        told["ensemble_exponent"] = scan.exponent(True)
    return told


def members(text: str) -> int:
    """A number of networks that have a spread, or zero, for argparse."""
    return 0 if text == "0" else command_line.several(text)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="A killed run goes on when repeated; finished posteriors stay."
    )
    parser.add_argument("--quick", action="store_true", help="two small samples and networks, in under a minute")
    parser.add_argument("--target", choices=toy.TARGETS, default="wedge", help="the truth (wedge)")
    parser.add_argument(
        "--sizes", type=command_line.count, nargs="+", metavar="N", help="training events (10000 100000 1000000)"
    )
    parser.add_argument(
        "--steps", type=command_line.count, metavar="S", help="steps of every training (6,000; quick: 300)"
    )
    parser.add_argument("--members", type=members, metavar="M", help="networks of an ensemble, 0: none (8; quick: 3)")
    command_line.add_common(parser, "out/training_size, with the mode")
    return parser


if __name__ == "__main__":
    run()
