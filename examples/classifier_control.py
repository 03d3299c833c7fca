"""Where is a generator wrong, does its sigma know, and what mends it? A classifier tells (arXiv:2305.16774).

    python examples/classifier_control.py --fault tail               # a toy: tail, hole, smear, or none
    python examples/classifier_control.py out/z_jets_resonance_rqs   # of z_jets.py, drell_yan.py, own_events.py
    python examples/classifier_control.py --truth true.h5 --generated generated.h5
    python examples/classifier_control.py --quick

Needs the extra "trees". Half of the true events are seen by classifiers; the other half judges what mending has done.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from command_line import add_common, count, make_folder, stoppable
from command_line import path as path_of

import pyrogen as pg
from pyrogen import diagnostics
from pyrogen.events import FilledHole, Smear, TailCut, distort, lepton_pair_observables, z_jets_observables
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_classifier_weights, plot_failures, plot_weight_pulls, save_figure

Observables = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]
Z_JETS = pg.events.Multiplicity(6, 4, 3)
PEAK, WIDTH = 91.2, 2.5  # GeV
DRAWS = 20  # of the posterior
FAULTS = {
    "none": [],
    "tail": [TailCut("pt", missing=0.01)],
    "hole": [FilledHole("a", "b", 0.4, fraction=0.5)],
    "smear": [Smear("m", absolute=WIDTH * math.sqrt(1.2**2 - 1))],
}
MODES = {"quick": {"events": 10_000, "splits": 5, "toys": 10}, "default": {"events": 100_000, "splits": 20, "toys": 30}}


@stoppable
def main() -> None:
    """Weigh, find, explain, mend, judge."""
    parser = make_parser()
    args = parser.parse_args()
    mode = MODES["quick" if args.quick else "default"]
    most = args.events or mode["events"]
    pg.set_threads(args.threads)
    try:
        truth, generated, posterior, name = samples(args, most)
        observables = observables_of(truth)
        out = make_folder(parser, args.out or Path("out") / f"classifier_control_{name}")
        half = len(truth) // 2
        judging, seen = truth[:half], truth[half:]
        weights = diagnostics.classifier_weights(
            seen, generated, observables=observables, method=args.method, trained_on=posterior, seed=args.seed
        )
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    print(f"\n{weights.text()}")
    save_figure(plot_classifier_weights(weights), out / "weights.png")
    weights.save(out / "weights.h5")

    failures = diagnostics.find_failures(weights, observables)
    print(f"\n{failures.text()}")
    save_figure(plot_failures(failures), out / "failures.png")
    if posterior is not None or generated.uncertainties is not None:
        pulls = diagnostics.weight_pulls(weights, posterior, observables=histograms(truth, observables, posterior))
        print(f"\n{pulls.text()}")
        save_figure(plot_weight_pulls(pulls), out / "pulls.png")

    mended = diagnostics.reweight(weights)
    print(f"\n{mended.text()}")
    mended.events.save(out / "reweighted.h5")
    unweighted = diagnostics.unweight(mended.events, maximum=float(np.quantile(mended.events.weights, 0.999)))
    print(unweighted.text())
    shown = {
        row.name: observables.get(row.name, row.name) for row in failures.rows if row.name in known(truth, observables)
    }
    closed = diagnostics.closure(judging, generated, mended, dict(list(shown.items())[:12]), seed=args.seed)
    print(f"\n{closed.text()}")

    summary = {"auc": weights.auc, "width": weights.width, "floor": weights.floor, "effective": mended.effective_size}
    if truth.multiplicity is None:
        for what, sample in (("generated", generated), ("unweighted", unweighted.events)):
            measured = diagnostics.sample_measures(judging, sample, splits=mode["splits"], seed=args.seed)
            tested = diagnostics.two_sample_test(
                *(plain(each)[: mode["events"] // 10] for each in (judging, sample)), toys=mode["toys"], seed=args.seed
            )
            print(f"\n{what} events:\n{measured.text()}\n{tested.text()}")
            summary[what] = {"significance": list(measured.significance), "p_value": tested.p_value}
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    print(f"\nwrote {out}/")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=path_of, metavar="FOLDER", help="of an example's results")
    parser.add_argument("--truth", type=path_of, metavar="FILE", help="true events, which no generator was trained on")
    parser.add_argument("--generated", type=path_of, metavar="FILE", help="generated events")
    parser.add_argument("--fault", choices=FAULTS, default="smear", help="of the toy (smear)")
    parser.add_argument("--method", choices=("trees", "network"), default="trees", help="classifier (trees)")
    parser.add_argument("--quick", action="store_true", help="at most 10,000 events of each kind")
    parser.add_argument("--events", type=count, metavar="N", help="events of each kind, at most (100,000)")
    add_common(parser, "out/classifier_control, with the name of the fault or the folder")
    return parser


def samples(args: argparse.Namespace, most: int) -> tuple[pg.EventSample, pg.EventSample, pg.Posterior | None, str]:
    """True and generated events, the posterior where there is one, and what to call them."""
    if (args.truth is None) != (args.generated is None):
        raise ValueError("give --truth and --generated together")
    if args.folder is not None and args.truth is not None:
        raise ValueError("give a folder, or --truth and --generated")
    if args.folder is None and args.truth is None:
        first, second = (toy(2 * most if i == 0 else most, args.seed + i) for i in range(2))
        return first, distort(second, FAULTS[args.fault], seed=args.seed).sample, None, f"toy_{args.fault}"
    if args.truth is not None:
        return pg.events.read(args.truth)[: 2 * most], pg.events.read(args.generated)[:most], None, args.generated.stem
    truth, posterior = pg.events.read(args.folder / "held_out.h5")[: 2 * most], pg.load(args.folder / "posterior.h5")
    made = posterior.generate(min(most, len(truth)), draws=DRAWS, seed=args.seed, log_weights=True)
    return truth, made, posterior, args.folder.name


def toy(n: int, seed: int) -> pg.EventSample:
    """pT of a falling spectrum, a mass peak, and two jets that are farther apart than 0.4."""
    random = np.random.default_rng(seed)
    pt, mass = 20 + random.exponential(30, 2 * n), random.normal(PEAK, WIDTH, 2 * n)
    eta, phi = random.normal(size=(2, 2 * n)), random.uniform(-math.pi, math.pi, (2, 2 * n))
    values = np.stack([pt, eta[0], phi[0], eta[1], phi[1], mass], 1)
    distance = np.hypot(eta[0] - eta[1], np.angle(np.exp(1j * (phi[0] - phi[1]))))
    names, units = ["pt", "eta_a", "phi_a", "eta_b", "phi_b", "m"], ["GeV", "", "rad", "", "rad", "GeV"]
    return pg.EventSample(values[distance > 0.4][:n], names, units)


def observables_of(truth: pg.EventSample) -> Observables:
    """What the classifier sees besides the columns: masses and distances, where sharp features hide."""
    if truth.multiplicity == Z_JETS:
        names = ("M_pair", "pt_pair", "delta_r_j1j2", "delta_r_j1j3", "delta_r_j2j3")
        return {name: z_jets_observables()[name] for name in names}
    if [name[:2] for name in truth.names] in (["px", "py", "pz", "pz"], ["px", "py", "pz"] * 2):
        return {name: lepton_pair_observables()[name] for name in ("M_pair", "E_pair")}
    return {}


def known(truth: pg.EventSample, observables: Observables) -> set[str]:
    """Names of columns and observables; automatic pairs have names of their own."""
    return {*truth.names, *observables}


def histograms(truth: pg.EventSample, observables: Observables, posterior: pg.Posterior | None) -> dict | None:
    """The observables with bins, for the posterior's histograms."""
    if posterior is None or truth.multiplicity is not None:
        return None
    wanted = observables or {name: name for name in truth.names}
    return {name: (of, np.quantile(values_of(truth, of), np.linspace(0.01, 0.99, 21))) for name, of in wanted.items()}


def values_of(truth: pg.EventSample, of: Callable[[torch.Tensor], torch.Tensor] | str) -> np.ndarray:
    """Values of a column or an observable."""
    return truth.column(of) if isinstance(of, str) else of(truth.tensor(torch.float64)).numpy()


def plain(sample: pg.EventSample) -> pg.EventSample:
    """The events alone."""
    return pg.EventSample(sample.values, sample.names, sample.units)


if __name__ == "__main__":
    main()
