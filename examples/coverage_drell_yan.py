"""Is sigma right on real events? Many samples of Drell-Yan events, and every bin of six observables.

    python examples/coverage_drell_yan.py                       # 20 samples of 50,000 events, Pythia 8 (extra "pythia")
    python examples/coverage_drell_yan.py --backend svi
    python examples/coverage_drell_yan.py --quick               # the 5,000 events of the repository, in a minute

The same spline flow learns 20 independent samples in one batch. The bins of the six distributions of arXiv:2104.04543,
fig. 9, are filled with generated events of every weight draw, and held against a truth of 2.5 million events. The
credible intervals at 68 % should hold the truth in 68 % of the bins.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import torch
from coverage_toys import numbers, setting, settings_of
from drell_yan import FIGURES, SAMPLE

import pyrogen as pg
from pyrogen.diagnostics import Calibration, QuantileBinResult, calibration_of
from pyrogen.events import PERIODIC, collision_energy, lepton_pair, lepton_pair_coordinates, lepton_pair_observables
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_calibration, save_figure
from pyrogen.progress import bar
from pyrogen.seeds import seeded, stream

NAMES: dict[str, Any] = {"bootstrap": pg.Bootstrap, "svi": pg.SVI}
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
DRAWS = 32
FILLED_AT_ONCE = 1 << 18  # events generated and filled at once
LEAST = 10  # training events that a bin has to expect; emptier ones are left out
SEEDS = {"train": 101, "truth": 202}  # of Pythia, to which --seed is added


@command_line.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, generate, count, and write table and figure.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    settings = MODES[mode]
    given = settings_of(parser, args, "kl_weight", "seed", "device")
    sets, n = args.sets or settings["sets"], args.events or settings["events"]
    changed = {"kl_weight": args.kl_weight} if args.kl_weight is not None else {}
    if changed and args.backend != "svi":
        parser.error("--kl-weight is an option of svi")
    out = command_line.make_folder(parser, args.out or command_line.default_folder("coverage_drell_yan", mode))
    pg.set_threads(args.threads)
    try:
        train = read(args.train, sets * n, SEEDS["train"] + args.seed, args.quick, last=False)
        truth = read(args.truth, settings["truth"], SEEDS["truth"] + args.seed, args.quick, last=True)
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    if len(train) < sets * n:
        parser.error(f"{sets} samples of {n:,} events need {sets * n:,}; --train has {len(train):,}")
    chosen = [
        (key, value) for key, value in [("events", args.events), *changed.items(), *given.items()] if value is not None
    ]
    name = "_".join([args.backend, *(f"{key}_{value}" for key, value in chosen)])
    checkpoint = out / f"{name}_checkpoint.h5"
    options = settings[args.backend] | changed | given
    try:
        backend = NAMES[args.backend](**options, seed=args.seed, checkpoint=checkpoint, device=args.device)
    except (TypeError, ValueError) as error:
        parser.error(f"--set: {error}")
    flow = pg.CouplingFlow(4, **settings["flow"], transform="rqs", mixing="random", periodic=PERIODIC["mass"])
    coordinates = lepton_pair_coordinates("mass", circle=True, energy=collision_energy(train) or 13_000.0)
    model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=coordinates)
    print(f"{sets} samples of {n:,} Drell-Yan events, {model.weights:,} weights, {args.backend}, seed {args.seed}")
    command_line.tell_about(checkpoint)
    try:
        posteriors = backend.fit_many(model, torch.tensor(train.values[: sets * n]).reshape(sets, n, -1))
    except (pg.CheckpointMismatchError, pg.FileFormatError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")

    filled = out / f"{name}_bins_{settings['generated']}.json"
    counts = filled_bins(posteriors, settings["generated"], args.seed, filled)
    found = calibrations(counts, settings["generated"], n, truth)
    print(table(found, len(truth)))
    result = {
        "target": "Drell-Yan",
        "backend": args.backend,
        "label": ", ".join([NAMES[args.backend].__name__, *(f"{key} {value}" for key, value in chosen)]),
        "sets": sets,
        "events": n,
        "truth": len(truth),
        "settings": posteriors[0].info.settings,
        "mode": mode,
        "seed": args.seed,
        "weights": model.weights,
        "seconds": posteriors[0].info.seconds,
        "observables": {key: numbers(one) for key, one in found.items() if key != "all"},
    } | numbers(found["all"])
    write_bytes(out / f"{name}.json", json.dumps(result, indent=1).encode())
    figure = save_figure(plot_calibration({result["label"]: found["all"]}), out / f"{name}.png")
    print("wrote", *(f"  {path}" for path in (filled, out / f"{name}.json", figure)), sep="\n")


def read(path: Path | None, count: int, seed: int, quick: bool, last: bool) -> pg.EventSample:
    """Events of a file, of the committed sample (quick: its first ones, or its last), or of Pythia."""
    if path is None and not quick:
        return pg.events.drell_yan(count, seed=seed)
    sample = lepton_pair(pg.events.read(path or SAMPLE))
    return sample[-count:] if path is None and last else sample[:count]


def edges_of(name: str) -> np.ndarray:
    """Bin edges of an observable, twice as wide as those of the figures."""
    return lepton_pair_observables()[name].edges[::2]


def fill(events: torch.Tensor) -> dict[str, torch.Tensor]:
    """Contents of the bins of every observable, on the device of the events."""
    found = {}
    for name in FIGURES:
        edges = torch.tensor(edges_of(name), dtype=torch.float64, device=events.device)
        place = torch.bucketize(lepton_pair_observables()[name](events).contiguous(), edges, right=True)
        found[name] = torch.bincount(place, minlength=len(edges) + 1)[1 : len(edges)]
    return found


def filled_bins(posteriors: list[pg.Posterior], generated: int, seed: int, path: Path) -> dict[str, np.ndarray]:
    """Bins of every weight draw of every training, ``[R, K, B]``, kept in a file; a repeated command reads them.

    A file of other trainings is filled afresh.
    """
    trainings = [[p.info.data_sha256, json.loads(json.dumps(p.info.settings))] for p in posteriors]
    of = {"trainings": trainings, "generated": generated, "seed": seed}
    if path.exists() and (kept := json.loads(path.read_text())).get("of") == of:
        print(f"bins of the generated events are those of {path}; delete it to fill them afresh", flush=True)
        return {name: np.array(its) for name, its in kept["counts"].items()}
    draws = min(posterior.weights.at_most(DRAWS) for posterior in posteriors)
    counts = {name: np.zeros((len(posteriors), draws, len(edges_of(name)) - 1), dtype=np.int64) for name in FIGURES}
    shown = bar(len(posteriors) * draws, "bins", "draw", brief=True)
    with seeded(stream(seed, "coverage"), posteriors[0].model.device), torch.no_grad(), shown:
        for r, posterior in enumerate(posteriors):
            for k, theta in enumerate(posterior.weights.draws(draws, stream(seed, "coverage", r))):
                for start in range(0, generated, FILLED_AT_ONCE):
                    events = posterior.model.sample_events(theta, min(FILLED_AT_ONCE, generated - start))
                    for name, content in fill(events).items():
                        counts[name][r, k] += content.cpu().numpy()
                shown.update()
    kept = {"of": of, "counts": {name: its.tolist() for name, its in counts.items()}}
    write_bytes(path, json.dumps(kept).encode())
    return counts


def calibrations(
    counts: dict[str, np.ndarray], generated: int, training_events: int, truth: pg.EventSample
) -> dict[str, Calibration]:
    """Of every observable, and of all bins together; bins that expect fewer than :data:`LEAST` events are left out."""
    values, shares = {}, {}
    for name, content in fill(torch.tensor(truth.values)).items():
        share = content.numpy() / len(truth)
        kept = share * training_events >= LEAST
        values[name] = QuantileBinResult(counts[name], generated, training_events).probabilities()[..., kept]
        shares[name] = share[kept]
    values["all"] = np.concatenate(list(values.values()), -1)
    shares["all"] = np.concatenate(list(shares.values()))
    return {name: calibration_of(values[name], shares[name], label="bin") for name in values}


def table(found: dict[str, Calibration], truth: int) -> str:
    """Coverage of every observable, in words."""
    lines = [
        f"\ntruth: {truth:,} events",
        f"{'bins of':10} {'bins':>5} {'within 1 sigma':>16} {'2 sigma':>15} pull width",
    ]
    for name, one in found.items():
        within = [f"{100 * f:.1f} +- {100 * e:.1f} %" for f, e in (one.fraction(), one.fraction(0.9545))]
        width, error = one.pull_width()
        lines.append(f"{name:10} {one.ranks.shape[1]:5} {within[0]:>16} {within[1]:>15} {width:.2f} +- {error:.2f}")
    return "\n".join([*lines, "", found["all"].text()])


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few small trainings, in a minute")
    parser.add_argument(
        "--backend", choices=NAMES, default="bootstrap", help="how the posteriors are found (bootstrap)"
    )
    parser.add_argument("--train", type=Path, metavar="FILE", help="events to learn from, instead of Pythia's")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="other events of the same kind, many more")
    parser.add_argument("--sets", type=command_line.several, metavar="R", help="independent samples (20; quick: 4)")
    parser.add_argument("--events", type=command_line.count, metavar="N", help="events per sample (50,000; quick: 500)")
    parser.add_argument("--kl-weight", type=float, metavar="T", help="factor on the KL of svi")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="another setting of the backend"
    )
    parser.add_argument(
        "--device", type=command_line.device, default="cpu", help="where to train and generate: cpu or cuda (cpu)"
    )
    command_line.add_common(parser, "out/coverage_drell_yan, with the mode")
    return parser


if __name__ == "__main__":
    run()
