"""Drell-Yan events, pp -> Z/gamma* -> l+ l-: learn a generator's events, make new ones with their uncertainties.

    python examples/drell_yan.py                                 # a million events from Pythia 8 (extra "pythia")
    python examples/drell_yan.py --events unweighted.lhe.gz      # your own: LHE, HDF5 or ROOT
    python examples/drell_yan.py --quick                         # 5,000 events in a minute

Needs the extra "lhc". Section 4 of arXiv:2104.04543 ([A]): the six distributions of its fig. 9 and their uncertainties,
with Wasserstein distances, a classifier between generated and held-out events, and the width of the Z peak.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hist
import numpy as np
import torch
from command_line import HELD_OUT, add_common, count, fitted, held_out, make_folder, several, stoppable, tell_about

import pyrogen as pg
from pyrogen.diagnostics import classifier_test, peak_width, sample_quality
from pyrogen.events import (
    LEPTONS,
    PERIODIC,
    collision_energy,
    four_vectors,
    lepton_balance,
    lepton_pair,
    lepton_pair_coordinates,
    lepton_pair_observables,
)
from pyrogen.files import write_bytes
from pyrogen.plotting import HistogramPanel, plot_kinematics, plot_training, plot_uncertainties, save_figure

SAMPLE = Path(__file__).parent / "data" / "drell_yan_5k.h5"
FIGURES = ("E", "px", "pT", "pz", "E_pair", "M_pair")  # [A] fig. 9

# The affine flow of [A] table 2 is much deeper than splines need to be where coordinates fit.
MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "affine": {"blocks": 8, "hidden": (16, 16)},
        "rqs": {"blocks": 4, "hidden": (16, 16), "bins": 8},
        "svi": {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2},
        "evaluation": {"draws": 20, "histogram": 10_000, "trainings": 2, "coarser": 3},
    },
    "default": {
        "affine": {"blocks": 20, "hidden": (64, 64)},
        "rqs": {"blocks": 6, "hidden": (64, 64), "bins": 10},
        "svi": {"epochs": 16, "batch_size": 1024, "lr": 2e-3, "lr_widths": 1e-2, "widths_after": 0.5},
        "evaluation": {"draws": 50, "histogram": 100_000, "trainings": 3, "coarser": 1},
    },
}


@stoppable
def main() -> None:
    """Read, fit, generate, compare."""
    started = time.monotonic()
    parser = make_parser()
    args = parser.parse_args()
    mode = MODES["quick" if args.quick else "default"]
    evaluation = mode["evaluation"] | ({"draws": args.draws} if args.draws else {})
    pg.set_threads(args.threads)
    try:
        sample = read_pairs(args)
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    if len(sample) < 500:
        parser.error(f"{len(sample)} events are too few to learn from and to compare with")
    parts = ["drell_yan", *(["quick"] if args.quick else []), args.coordinates, args.transform]
    out = make_folder(parser, args.out or Path("out") / "_".join(parts))
    print(sample.summary())

    truth, learned = held_out(sample, args.seed)
    truth.save(out / "held_out.h5")
    model = make_model(args, mode, sample)
    print(f"\n{len(learned):,} training events, {args.transform} flow with {model.weights:,} weights, seed {args.seed}")
    checkpoint = out / "run_checkpoint.h5"
    tell_about(checkpoint)
    settings = mode["svi"] | ({"epochs": args.epochs} if args.epochs else {})
    svi = pg.SVI(**settings, seed=args.seed, checkpoint=checkpoint)
    posterior = fitted(parser, svi, model, learned, args.events)
    posterior.save(out / "posterior.h5")

    wanted = args.generate or len(truth)
    path = posterior.generate_to(
        out / "generated.h5",
        wanted,
        evaluation["draws"],
        seed=args.seed,
        log_weights=args.log_weights,
        finish=four_vectors,
    )
    generated = lepton_pair(pg.events.read(path), recoil=sample.features == 6)
    panels = compare(posterior, truth, evaluation)
    labels = {"truth_label": args.label, "rlabel": args.caption}
    save_figure(plot_kinematics(panels, **labels), out / "kinematics.png")
    # The same events for all draws: what these differ by is the posterior's, with little noise of the events in it.
    same_events = compare(posterior, truth, evaluation, procedure="b")
    save_figure(plot_uncertainties(same_events, **labels), out / "uncertainties.png")
    save_figure(plot_training(posterior.history), out / "training.png")
    summary = judge(truth, learned, generated, evaluation, args.seed)
    summary["bins"] = covered(panels, same_events)
    impossible = beyond_the_beams(generated, args.energy or collision_energy(sample))
    summary |= {
        "beyond_the_beams": impossible,
        "coordinates": args.coordinates,
        "transform": args.transform,
        "training_events": len(learned),
        "weights": model.weights,
        "seconds_training": float(posterior.history["seconds"][-1]),
        "seconds_all": time.monotonic() - started,
        "median_uncertainty": float(np.median(generated.uncertainties)),  # type: ignore[arg-type]
        "loss": {name: float(posterior.history[name][-1]) for name in ("nll", "kl")},
        "settings": posterior.info.settings,
    }
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    print(
        f"\n{wanted:,} generated events, median uncertainty {summary['median_uncertainty']:.1%}; training "
        f"{summary['seconds_training']:.0f} s of {summary['seconds_all']:.0f} s"
    )
    files = (
        "posterior.h5",
        "held_out.h5",
        "generated.h5",
        "kinematics.png",
        "uncertainties.png",
        "training.png",
        "summary.json",
    )
    print("wrote", *(f"  {out / file}" for file in files), sep="\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn: .lhe, .lhe.gz, .h5, .root, .npy")
    parser.add_argument("--dataset", metavar="NAME", help="which table or tree of a file that holds several")
    parser.add_argument("--leptons", choices=tuple(LEPTONS), default="l", help="of an LHE file (l: e and mu)")
    parser.add_argument(
        "--select",
        choices=("all", "balanced", "recoiling"),
        default="all",
        help="events whose leptons balance in the transverse plane, or those where something recoils",
    )
    parser.add_argument(
        "--train", type=count, default=1_000_000, metavar="N", help="training events, at most (1,000,000)"
    )
    parser.add_argument("--quick", action="store_true", help="a small network and the 5,000 events of the repository")
    parser.add_argument("--coordinates", choices=("mass", "log-pt", "cartesian", "recoil"), default="mass")
    parser.add_argument("--energy", type=float, metavar="GEV", help="of the beams together (what the file says)")
    parser.add_argument("--mass-low", type=float, metavar="GEV", help="cut on the mass (just below the smallest)")
    parser.add_argument("--transform", choices=("affine", "rqs"), default="rqs", help="coupling (rqs)")
    parser.add_argument("--epochs", type=count, metavar="E", help="passes over the events (16; quick: 40)")
    parser.add_argument("--draws", type=several, metavar="K", help="weight draws of a prediction (50; quick: 20)")
    parser.add_argument("--generate", type=count, metavar="N", help="events to generate (as many as are held out)")
    parser.add_argument("--log-weights", action="store_true", help="keep the log-weights of all draws in generated.h5")
    parser.add_argument("--label", default="held-out events", help="what figures call the truth")
    parser.add_argument("--caption", default="", help="above the figures, such as 'pp at 13 TeV'")
    add_common(parser, "out/drell_yan, with the coordinates and the transform")
    return parser


def read_pairs(args: argparse.Namespace) -> pg.EventSample:
    """The lepton pairs of the file, of the committed sample, or of Pythia, in four columns or six."""
    most = round(args.train / (1 - HELD_OUT))
    if args.events is None and not args.quick:
        return pg.events.drell_yan(most, seed=1 + args.seed)
    path = args.events or SAMPLE
    particles = LEPTONS[args.leptons] if path.name.endswith((".lhe", ".lhe.gz")) else None
    sample = pg.events.read(path, dataset=args.dataset, particles=particles, progress=True)[:most]
    if args.select != "all":
        balanced = lepton_balance(sample)
        sample = sample[balanced if args.select == "balanced" else ~balanced]
    recoil = args.coordinates == "recoil" or (args.coordinates == "cartesian" and args.select == "recoiling")
    try:
        return lepton_pair(sample, recoil=recoil)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}\nIn this script: --select balanced, or --select recoiling --coordinates recoil"
        ) from error


def make_model(args: argparse.Namespace, mode: dict[str, Any], sample: pg.EventSample) -> pg.BayesianFlow:
    """The flow, with the coordinates as its preprocessing; splines know circles, affine blocks do not."""
    circle = args.transform == "rqs" and args.coordinates != "cartesian"
    more: dict[str, Any] = {"transform": args.transform}
    if args.transform == "rqs":
        more |= {"mixing": "random", "periodic": PERIODIC[args.coordinates] if circle else ()}
    flow = pg.CouplingFlow(sample.features, **mode[args.transform] | more)
    limits = {"energy": args.energy or collision_energy(sample), "mass_low": args.mass_low}
    known = {} if args.coordinates in ("cartesian", "log-pt") else limits
    preprocessing = lepton_pair_coordinates(args.coordinates, circle=circle, **known)
    return pg.BayesianFlow(flow, preprocessing=preprocessing)


def compare(
    posterior: pg.Posterior, truth: pg.EventSample, evaluation: dict[str, Any], procedure: str = "a"
) -> list[HistogramPanel]:
    """The six distributions: the held-out events as histograms, the posterior's bands in the same bins."""
    lepton = truth.names[0].removeprefix("px_").removesuffix("+")
    observables = lepton_pair_observables(lepton={"mu": r"\mu", "l": r"\ell"}.get(lepton, lepton))
    books = {}
    for name in FIGURES:
        observable = observables[name]
        label = f"{observable.label} [{observable.unit}]"
        axis = hist.axis.Variable(observable.edges[:: evaluation["coarser"]], label=label)
        books[name] = hist.Hist(axis, storage=hist.storage.Weight())
        books[name].fill(observable(truth).numpy(), weight=truth.weights)
    wanted = {name: (observables[name], book) for name, book in books.items()}
    bands = posterior.histograms(wanted, n=evaluation["histogram"], draws=evaluation["draws"], procedure=procedure)
    return [HistogramPanel(bands[name], books[name], log=observables[name].log) for name in FIGURES]


def covered(panels: list[HistogramPanel], same_events: list[HistogramPanel]) -> dict[str, dict[str, float]]:
    """How many bins agree with the truth within one and two sigma of the posterior and of the truth's statistics.

    The mean is that of all generated events, sigma that of the same events for all draws, which has no noise of them.
    """
    print(f"\n{'bins of':24} {'within 1':>9} {'2 sigma':>8} {'largest pull':>13} {'at':>8}")
    table = {}
    for name, panel, same in zip(FIGURES, panels, same_events, strict=True):
        density, error = panel.truth()
        sigma = np.hypot(same.band.sigma(subtract_noise=True) / same.band.widths, error)
        filled = error > 0
        pull = (panel.band.mean / panel.band.widths - density)[filled] / sigma[filled]
        worst = int(np.abs(pull).argmax())
        place = float(panel.band.edges[:-1][filled][worst] + panel.band.widths[filled][worst] / 2)
        row = {"one": float(np.mean(abs(pull) < 1)), "two": float(np.mean(abs(pull) < 2))}
        table[name] = row | {"largest_pull": float(pull[worst]), "at": place}
        print(f"{name:24} {row['one']:9.0%} {row['two']:8.0%} {pull[worst]:13.1f} {place:8.4g}")
    return table


def judge(
    truth: pg.EventSample, learned: pg.EventSample, generated: pg.EventSample, evaluation: dict[str, Any], seed: int
) -> dict[str, Any]:
    """How far generated events are from held-out ones: distances, a classifier, the Z peak; printed and for JSON."""
    observables = lepton_pair_observables()
    quality = sample_quality(truth, generated, learned, {name: observables[name] for name in FIGURES}, seed=seed)
    print(f"\n{quality.text()}")
    result = classifier_test(truth, generated, features=features(truth), trainings=evaluation["trainings"], seed=seed)
    print(f"\n{result.text()}")
    summary = {
        "wasserstein": {
            name: {"distance": float(d), "floor": float(f)}
            for name, d, f in zip(quality.names, quality.distance, quality.floor, strict=True)
        },
        "auc": {"mean": result.mean, "spread": result.spread, "each": result.auc.tolist()},
    }
    try:
        true, new = (peak_width(observables["M_pair"](events).numpy(), events.weights) for events in (truth, generated))
    except ValueError as error:
        print(f"\nno Z peak: {error}")
        return summary
    ratio = new.width / true.width
    error = float(ratio * np.hypot(new.width_error / new.width, true.width_error / true.width))
    print(f"\ngenerated {new.text()}\ntruth     {true.text()}\nratio of the widths {ratio:.3f} +- {error:.3f}")
    return summary | {"peak": {"generated": vars(new), "truth": vars(true), "ratio": ratio, "error": error}}


def beyond_the_beams(generated: pg.EventSample, energy: float | None) -> int | None:
    """How many generated pairs have more energy than the beams: a few of them make any Wasserstein distance large."""
    if energy is None:
        return None
    found = int((lepton_pair_observables()["E_pair"](generated) > energy).sum())
    if found:
        print(f"\n{found} of {len(generated):,} generated events have more energy than the beams, {energy:g} GeV")
    return found


def features(truth: pg.EventSample) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the classifier sees: coordinates in which neither the peak nor the tails are hidden."""
    observables = lepton_pair_observables()
    middle = float(observables["M_pair"](truth).median())

    def of(events: torch.Tensor) -> torch.Tensor:
        found = {name: observables[name](events) for name in ("M_pair", "y_pair", "eta", "pT", "E_pair", "px")}
        distance = (found["M_pair"] - middle) / 2.5
        plus, minus = pg.events.pair_momenta(events)
        columns = [
            torch.asinh(distance),
            torch.tanh(distance),
            found["M_pair"].log(),
            found["y_pair"],
            found["eta"],
            pg.events.kinematics.eta(minus),
            found["pT"].log(),
            found["E_pair"].log(),
            found["px"] / found["pT"],
            plus[:, 1] / found["pT"],
        ]
        if events.shape[1] == 6:
            columns += [pg.events.kinematics.pt(minus).log(), pg.events.kinematics.delta_phi(plus, minus)]
            columns.append(pg.events.kinematics.pt(plus + minus).log())
        return torch.stack(columns, -1)

    return of


if __name__ == "__main__":
    main()
