"""Z + jets, pp -> Z/gamma* (-> mu mu) + 1, 2, 3 jets: one chain of flows over the number of jets, with error bars.

    python examples/z_jets.py                          # 500,000 events from Pythia 8 and fastjet
    python examples/z_jets.py --events z_jets.h5       # your own, with the columns of pg.events.z_jets
    python examples/z_jets.py --coordinates polar      # the second jet by distance and direction from the first
    python examples/z_jets.py --coordinates paper      # variables that know neither the Z peak nor distances of jets
    python examples/z_jets.py --coordinates paper --discflow    # with a discriminator that sees both
    python examples/z_jets.py --quick                  # the 5,000 events of the repository, in two minutes

Needs the extra "lhc", and "pythia" and "fastjet" for new events. The system of arXiv:2110.13632. For each number of
jets: distributions with the posterior's band over held-out events, Wasserstein distances, a classifier, deviations in
the bulk, the Z peak, and the distance of jets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hist
import numpy as np
import torch
from command_line import HELD_OUT, add_common, count, fitted, held_out, make_folder, several, stoppable, tell_about

import pyrogen as pg
from pyrogen.diagnostics import classifier_test, peak_width, sample_quality
from pyrogen.events import Observable, OfObjects, jet_coordinates, separated_jets, z_jets_observables
from pyrogen.files import write_bytes
from pyrogen.plotting import HistogramPanel, plot_kinematics, plot_training, plot_uncertainties, save_figure

SAMPLE = Path(__file__).parent / "data" / "z_jets_5k.h5"
CLOSEST = 0.4  # no two jets are closer in rapidity and azimuth
LEAST = 5_000  # events to generate
FEW = 500  # events that a classifier and the fit of a peak need
BULK = 10_000  # true events of a bin in the bulk
#: Shown for each number of jets: those of [B] and what is hidden in correlations.
FIGURES = {
    1: ("pt_mu+", "pt_j1", "eta_j1", "M_pair", "pt_pair", "delta_r_mu+mu-", "m_j1", "delta_phi_mu+j1", "delta_r_mu+j1"),
    2: ("pt_mu+", "pt_j1", "pt_j2", "M_pair", "pt_pair", "delta_r_j1j2", "m_j2", "delta_phi_j1j2", "ht"),
    3: ("pt_mu+", "pt_j2", "pt_j3", "M_pair", "delta_r_j1j2", "delta_r_j1j3", "delta_r_j2j3", "m_j3", "ht"),
}

MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "flow": {"blocks": 4, "hidden": (16, 16), "bins": 8},
        "svi": {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2},
        "evaluation": {"draws": 20, "trainings": 1, "coarser": 2},
    },
    "default": {
        "flow": {"blocks": (6, 4, 4), "hidden": (64, 64), "bins": 10},
        "svi": {"epochs": 24, "batch_size": 1024, "lr": 2e-3, "lr_widths": 3e-2, "widths_after": 0.4},
        "evaluation": {"draws": 50, "trainings": 2, "coarser": 1},
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
        sample = read_events(args)
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    sample = apart(sample)
    if len(sample) < 500:
        parser.error(f"{len(sample)} events are too few to learn from and to compare with")
    kinds = [*(["quick"] if args.quick else []), args.coordinates, args.transform]
    out = make_folder(parser, args.out or Path("out") / "_".join(["z_jets", *kinds, *(["disc"] * args.discflow)]))
    print(sample.summary())

    truth, learned = held_out(sample, args.seed)
    truth.save(out / "held_out.h5")
    for jets in FIGURES:
        if min((part.counts == jets).sum() for part in (truth, learned)) == 0:
            parser.error(f"{len(sample):,} events have too few with {jets} jets to learn from and to compare with")
    model = make_model(args.coordinates, mode["flow"], transform=args.transform, seed=args.seed)
    print(f"\n{len(learned):,} training events, flows with {model.weights:,} weights, seed {args.seed}")
    checkpoint = out / "run_checkpoint.h5"
    tell_about(checkpoint)
    settings = mode["svi"] | ({"epochs": args.epochs} if args.epochs else {}) | {"seed": args.seed}
    backend = pg.SVI(**settings, checkpoint=checkpoint)
    if args.discflow:
        backend = pg.DiscFlow(**settings, checkpoint=checkpoint, observables=hidden_features)
    posterior = fitted(parser, backend, model, learned, args.events)
    posterior.save(out / "posterior.h5")

    clock = time.monotonic()
    wanted = args.generate or max(len(truth), LEAST)
    path = posterior.generate_to(out / "generated.h5", wanted, evaluation["draws"], seed=args.seed, log_weights=True)
    generated = pg.events.read(path)
    summary = {
        "coordinates": args.coordinates,
        "transform": args.transform,
        "discflow": args.discflow,
        "training_events": len(learned),
        "weights": model.weights,
        "seconds_training": float(posterior.history["seconds"][-1]),
        "seconds_generating": time.monotonic() - clock,
        "loss": {name: float(posterior.history[name][-1]) for name in ("nll", "kl")},
        "settings": posterior.info.settings,
        "numbers": numbers(posterior, truth),
    }
    save_figure(plot_training(posterior.history), out / "training.png")
    panels = compare(path, truth, evaluation["coarser"])
    for jets, its in panels.items():
        print(f"\n{'=' * 20} {jets} {'jet' if jets == 1 else 'jets'} {'=' * 20}")
        labels = {"truth_label": args.label, "rlabel": args.caption}
        save_figure(plot_kinematics(list(its.values()), **labels), out / f"kinematics_{jets}.png")
        save_figure(plot_uncertainties(list(its.values()), **labels), out / f"uncertainties_{jets}.png")
        summary[f"{jets} jets"] = judge(truth, learned, generated, jets, evaluation["trainings"], args.seed) | {
            "bins": covered(its)
        }
    summary["seconds_all"] = time.monotonic() - started
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    print(f"\ntraining {summary['seconds_training']:.0f} s of {summary['seconds_all']:.0f} s; wrote {out}/")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn: .h5 with numbers of jets")
    parser.add_argument("--train", type=count, default=400_000, metavar="N", help="training events, at most (400,000)")
    parser.add_argument("--quick", action="store_true", help="a small network and the 5,000 events of the repository")
    parser.add_argument("--coordinates", choices=("resonance", "polar", "paper"), default="resonance")
    parser.add_argument("--transform", choices=("rqs", "cubic"), default="rqs", help="coupling (rqs)")
    parser.add_argument("--discflow", action="store_true", help="train together with a discriminator")
    parser.add_argument("--epochs", type=count, metavar="E", help="passes over the events (24; quick: 40)")
    parser.add_argument("--draws", type=several, metavar="K", help="weight draws of a prediction (50; quick: 20)")
    parser.add_argument(
        "--generate", type=count, metavar="N", help="events to generate (as many as are held out, 5,000 at least)"
    )
    parser.add_argument("--label", default="held-out events", help="what figures call the truth")
    parser.add_argument("--caption", default="", help="above the figures, such as 'pp at 13 TeV'")
    add_common(parser, "out/z_jets, with the coordinates and the transform")
    return parser


def read_events(args: argparse.Namespace) -> pg.EventSample:
    """The events of the file, of the committed sample, or of Pythia and fastjet."""
    most = round(args.train / (1 - HELD_OUT))
    if args.events is None and not args.quick:
        return pg.events.z_jets(most, seed=1 + args.seed)
    path = args.events or SAMPLE
    sample = pg.events.read(path, progress=True)[:most]
    if sample.multiplicity != pg.events.Multiplicity(6, 4, 3):
        raise ValueError(f"{path} has the layout {sample.multiplicity}; this script needs two leptons and 1 to 3 jets")
    return sample


def apart(sample: pg.EventSample) -> pg.EventSample:
    """The events whose jets are farther apart than their radius: all but a few, whose jets moved while they grew."""
    keep = separated_jets(sample, CLOSEST).keep
    if not keep.all():
        print(f"{(~keep).sum()} of {len(sample):,} events with jets closer than {CLOSEST} are left out")
    return sample[keep]


def make_model(
    coordinates: str, size: Mapping[str, Any], prior_scale: float | str = 1.0, **more: Any
) -> pg.BayesianFlow:
    """The chain of flows, with the coordinates as its preprocessing.

    Args:
        coordinates: of :func:`pyrogen.events.jet_coordinates`; ``"polar"``: ``"resonance"`` with ``polar=1``.
        size: arguments of the flows: blocks, layers, bins.
        prior_scale: of the weights.
        **more: other arguments of the flows.
    """
    polar = coordinates == "polar"
    chosen = jet_coordinates("resonance" if polar else coordinates, most=3, polar=int(polar))
    places = {"periodic": chosen.periodic, "uniform": chosen.uniform}
    flow = pg.MultiplicityFlow(**chosen.layout.config(), **size, **more, **places, mixing="random")
    return pg.BayesianFlow(flow, prior_scale=prior_scale, preprocessing=chosen.preprocessing)


def hidden_features(events: torch.Tensor) -> torch.Tensor:
    """What flows find hard to see: the distance to the Z peak, and the distances of jets; NaN without them."""
    observables = z_jets_observables()
    mass = (observables["M_pair"](events) - 91.2) / 2.5
    distances = [observables[f"delta_r_{pair}"](events) for pair in ("j1j2", "j1j3", "j2j3")]
    return torch.stack([torch.asinh(mass), torch.tanh(mass), *distances], -1)


def numbers(posterior: pg.Posterior, truth: pg.EventSample) -> dict[str, Any]:
    """Probabilities of the numbers of jets, with sigma, beside the fractions of the held-out events."""
    found = posterior.multiplicities().numpy().reshape(-1, 3)
    true = np.bincount(truth.counts, minlength=4)[1:4] / len(truth)
    error = np.sqrt(true * (1 - true) / len(truth))
    print("\nnumber of jets   posterior             held-out events")
    for n, (mean, sigma, fraction, its) in enumerate(zip(found.mean(0), found.std(0), true, error, strict=True), 1):
        print(f"{n:14}   {mean:.5f} +- {sigma:.5f}   {fraction:.5f} +- {its:.5f}")
    return {"mean": found.mean(0).tolist(), "sigma": found.std(0).tolist(), "truth": true.tolist()}


def compare(path: Path, truth: pg.EventSample, coarser: int) -> dict[int, dict[str, HistogramPanel]]:
    """Distributions for each number of jets, with the bands that the log-weights of the generated events give.

    They are fractions of all events, so that P(n) and its uncertainty are in them.
    """
    own = z_jets_observables()
    books, wanted = {}, {}
    for jets, names in FIGURES.items():
        for name in names:
            observable = own[name]
            chosen = OfObjects(observable, truth.multiplicity, jets, jets)
            label = observable.label + (f" [{observable.unit}]" if observable.unit else "")
            axis = hist.axis.Variable(observable.edges[:: coarser * min(jets, 2)], label=label)
            book = hist.Hist(axis, storage=hist.storage.Weight())
            values = chosen(truth.tensor(torch.float64)).numpy()
            there = np.isfinite(values)
            book.fill(values[there], weight=None if truth.weights is None else truth.weights[there])
            books[jets, name], wanted[f"{name} {jets}"] = book, (chosen, book)
    bands = pg.sample_histograms(path, wanted)
    return {
        jets: {
            name: HistogramPanel(
                bands[f"{name} {jets}"], books[jets, name], total=truth.total_weight, log=own[name].log
            )
            for name in names
        }
        for jets, names in FIGURES.items()
    }


def covered(panels: dict[str, HistogramPanel]) -> dict[str, dict[str, float]]:
    """How many bins agree with the truth within one and two sigma, and how far they are off in the bulk.

    Sigma is that of the posterior, of the true and of the generated events together.
    """
    print(f"\n{'bins of':18} {'within 1':>9} {'2 sigma':>8} {'largest pull':>13} {'at':>8} {'bulk: rms':>10} bins")
    table = {}
    for name, panel in panels.items():
        density, error = panel.truth()
        band = panel.band
        noise = np.sqrt(band.mean * (1 - band.mean) / band.events)
        sigma = np.hypot(np.hypot(band.sigma(subtract_noise=True), noise) / band.widths, error)
        filled = error > 0
        off = band.mean / band.widths - density
        pull = off[filled] / sigma[filled]
        worst = int(np.abs(pull).argmax())
        bulk = np.asarray(panel.counts) >= BULK
        rms = float(np.sqrt(np.mean((off[bulk] / density[bulk]) ** 2))) if bulk.any() else float("nan")
        row = {"one": float(np.mean(abs(pull) < 1)), "two": float(np.mean(abs(pull) < 2))}
        row |= {"largest_pull": float(pull[worst]), "at": float(band.centres[filled][worst])}
        table[name] = row | {"bulk": rms, "bins": int(bulk.sum())}
        shares = f"{row['one']:9.0%} {row['two']:8.0%} {pull[worst]:13.1f} {row['at']:8.4g}"
        told = f"{rms:10.2%} {bulk.sum():4d}" if bulk.any() else f"{'-':>10}"
        print(f"{name:18} {shares} {told}")
    return table


def judge(
    truth: pg.EventSample,
    learned: pg.EventSample,
    generated: pg.EventSample,
    jets: int,
    trainings: int,
    seed: int,
) -> dict[str, Any]:
    """How far generated events with a number of jets are from held-out ones; printed, and for JSON."""
    if not (generated.counts == jets).any():
        print(f"\nno generated event has {jets} jets: nothing to compare")
        return {}
    samples = [sample.with_count(jets) for sample in (truth, generated, learned)]
    observables = z_jets_observables(jets)
    quality = sample_quality(*samples, {name: observables[name] for name in FIGURES[jets]}, seed=seed)
    print(f"\n{quality.text()}")
    summary: dict[str, Any] = {"wasserstein": dict(zip(quality.names, quality.ratio.tolist(), strict=True))}
    if jets > 1:
        summary["distance"] = distances(*samples[:2])
    if min(map(len, samples)) < FEW:
        print(f"\nfewer than {FEW} events are too few for a classifier and for the Z peak")
        return summary
    seen = features(observables, jets)
    test = classifier_test(*samples[:2], features=seen, trainings=trainings, seed=seed)
    print(f"\n{test.text()}")
    summary["auc"] = {"mean": test.mean, "error": test.statistical, "spread": test.spread}
    try:
        true, new = (peak_width(observables["M_pair"](events).numpy(), events.weights) for events in samples[:2])
        error = float(np.hypot(new.width_error, true.width_error) / true.width)
        print(f"\nZ peak: generated {new.text()}\n        truth     {true.text()}")
        summary["peak"] = {"ratio": new.width / true.width, "error": error}
    except ValueError as error:
        print(f"\nno Z peak: {error}")
    return summary


def distances(truth: pg.EventSample, generated: pg.EventSample) -> dict[str, float]:
    """Pairs of jets closer than the jet radius, and how many just above, generated over true."""
    near = {}
    for name, sample in (("truth", truth), ("generated", generated)):
        apart, far = (separated_jets(sample, radius).total for radius in (CLOSEST, 0.8))
        near[name] = (1 - apart, apart - far)
    below, ratio = near["generated"][0], near["generated"][1] / near["truth"][1]
    print(
        f"\ntwo jets closer than {CLOSEST}: {below:.3%} of generated events, {near['truth'][0]:.4%} of true ones; "
        f"between {CLOSEST} and 0.8 generated / true = {ratio:.3f}"
    )
    return {"below": below, "true_below": near["truth"][0], "ratio_above": ratio}


def features(observables: dict[str, Observable], jets: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the classifier sees: momenta, azimuths relative to the first muon, the mass of the pair, all distances."""
    particles = ["mu+", "mu-", *(f"j{j}" for j in range(1, jets + 1))]

    def of(events: torch.Tensor) -> torch.Tensor:
        found = [observables[f"pt_{each}"](events).log() for each in particles]
        found += [observables[f"eta_{each}"](events) for each in particles]
        found += [observables[f"m_{each}"](events).sqrt() for each in particles[2:]]
        mass = (observables["M_pair"](events) - 91.2) / 2.5
        found += [torch.asinh(mass), torch.tanh(mass), observables["pt_pair"](events).log()]
        for i, one in enumerate(particles):
            for other in particles[i + 1 :]:
                angle = observables[f"delta_phi_{one}{other}"](events)
                found += [observables[f"delta_r_{one}{other}"](events)]
                found += [angle.cos(), angle.sin()] if one == "mu+" else []
        return torch.stack(found, -1)

    return of


if __name__ == "__main__":
    main()
