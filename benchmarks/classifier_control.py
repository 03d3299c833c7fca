"""Where is a generator wrong, does its sigma know, and what mends it? A classifier tells (arXiv:2305.16774).

    python benchmarks/classifier_control.py --fault tail               # a toy: tail, hole, smear, or none
    python benchmarks/classifier_control.py out/z_jets_resonance_rqs   # of z_jets.py, drell_yan.py, own_events.py
    python benchmarks/classifier_control.py out/showers                # of showers.py
    python benchmarks/classifier_control.py --truth true.h5 --generated generated.h5
    python benchmarks/classifier_control.py --quick

Needs the extra "trees". Half of the true events are seen by classifiers; the other half judges what mending has done.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study_options import add_common, count, make_folder, stoppable
from study_options import path as path_of

import pyrogen as pg
from pyrogen import diagnostics
from pyrogen.events import FilledHole, Smear, TailCut, distort, lepton_pair_observables, z_jets_observables
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_classifier_weights, plot_failures, plot_weight_pulls, save_figure

Observables = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]
Z_JETS = pg.events.Multiplicity(6, 4, 3)
TOY = ["pt_a", "eta_a", "phi_a", "pt_b", "eta_b", "phi_b", "mass"]
PEAK, WIDTH = 91.2, 2.5  # GeV
DRAWS, MOST = 20, 12  # of the posterior; observables that judge the mending
LEAST = 500  # events that other measures need
EVENTS, SHOWERS = "held_out.h5", "held_out.hdf5"  # true events; those of showers.py
FAULTS = {
    "none": [],
    "tail": [TailCut("pt_a", missing=0.01)],
    "hole": [FilledHole("a", "b", 0.4, fraction=0.5)],
    "smear": [Smear("mass", absolute=WIDTH * math.sqrt(1.2**2 - 1))],
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
        truth, generated, posterior, name, observables = samples(args, most)
        out = make_folder(parser, args.out or Path("out") / f"classifier_control_{name}")
        half = len(truth) // 2
        judging, seen = truth[:half], truth[half:]
        # One by one, the cells of a detector say little beside its observables.
        inputs = {"observables": observables, "features": incident if "E_inc" in observables else None}
        weights = diagnostics.classifier_weights(
            seen, generated, **inputs, method=args.method, trained_on=posterior, seed=args.seed
        )
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    print(f"\n{weights.text()}")
    save_figure(plot_classifier_weights(weights), out / "weights.png")
    weights.save(out / "weights.h5")

    failures = diagnostics.find_failures(weights, observables)
    print(f"\n{failures.text()}")
    failing = list(dict.fromkeys(mode.observable for mode in failures.modes)) or None  # each failure once
    save_figure(plot_failures(failures, names=failing), out / "failures.png")
    if posterior is not None or generated.uncertainties is not None:
        pulls = diagnostics.weight_pulls(weights, posterior, observables=histograms(truth, observables, posterior))
        print(f"\n{pulls.text()}")
        save_figure(plot_weight_pulls(pulls), out / "pulls.png")

    mended = diagnostics.reweight(weights)
    print(f"\n{mended.text()}")
    mended.events.save(out / "reweighted.h5")
    largest = float(np.quantile(mended.events.weights, 0.999))
    # No copies: the permutations of the test below need independent events.
    unweighted = diagnostics.unweight(mended.events, maximum=largest, overweights="cut", seed=args.seed)
    print(unweighted.text())
    failed = [row.name for row in failures.rows]
    for what, parts, own in alike(observables, judging, generated, mended.events):
        shown = {name: own[name] for name in failed if name in own}
        print(f"\n{what}\n{diagnostics.closure(*parts, dict(list(shown.items())[:MOST]), seed=args.seed).text()}")
    if "M_pair" in observables:
        print(f"\n{peaks(observables['M_pair'], judging, generated, mended.events)}")

    summary = {"auc": weights.auc, "width": weights.width, "floor": weights.floor, "effective": mended.effective_size}
    if truth.multiplicity is None:
        for what, sample in (("generated", generated), ("unweighted", unweighted.events)):
            if len(sample) < LEAST:
                print(f"\n{len(sample)} {what} events are too few for other measures")
                continue
            features = of_all(observables) if "E_inc" in observables else None
            measured = diagnostics.sample_measures(judging, sample, features, splits=mode["splits"], seed=args.seed)
            few = (plain(each)[: mode["events"] // 10] for each in (judging, sample))
            tested = diagnostics.two_sample_test(
                *few, **(inputs | {"method": args.method} if features else {}), toys=mode["toys"], seed=args.seed
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
    parser.add_argument("--fault", choices=FAULTS, help="of the toy (smear)")
    parser.add_argument("--method", choices=("trees", "network"), default="trees", help="classifier (trees)")
    parser.add_argument("--quick", action="store_true", help="at most 10,000 events of each kind")
    parser.add_argument("--events", type=count, metavar="N", help="events of each kind, at most (100,000)")
    add_common(parser, "out/classifier_control, with the name of the fault or the folder")
    return parser


def samples(
    args: argparse.Namespace, most: int
) -> tuple[pg.EventSample, pg.EventSample, pg.Posterior | None, str, Observables]:
    """True and generated events, the posterior where pulls need it, what to call them, and observables."""
    if (args.truth is None) != (args.generated is None):
        raise ValueError("give --truth and --generated together")
    if args.folder is not None and args.truth is not None:
        raise ValueError("give a folder, or --truth and --generated")
    if args.fault is not None and (args.folder, args.truth) != (None, None):
        raise ValueError("--fault is of the toy; leave it out, or leave out the folder and the files")
    if args.folder is None and args.truth is None:
        first, second = (toy(2 * most if i == 0 else most, args.seed + i) for i in range(2))
        fault = args.fault or "smear"
        made = distort(second, FAULTS[fault], seed=args.seed).sample
        return first, made, None, f"toy_{fault}", observables_of(first)
    if args.truth is not None:
        truth, made = pg.events.read(args.truth)[: 2 * most], pg.events.read(args.generated)[:most]
        return truth, made, None, args.generated.stem, observables_of(truth)
    check_results(args.folder)
    posterior = pg.load(args.folder / "posterior.h5")
    if (args.folder / SHOWERS).exists():
        return *showers(args, most, posterior), None, args.folder.name, observables_of_showers(args.folder)
    truth = pg.events.read(args.folder / EVENTS)[: 2 * most]
    made = posterior.generate(min(most, len(truth)), draws=DRAWS, seed=args.seed, log_weights=True)
    return truth, made, posterior, args.folder.name, observables_of(truth)


def check_results(folder: Path) -> None:
    """Raise a ValueError where the folder is not that of an example's results."""
    instead = "give the folder in which an example wrote its results, or --truth FILE --generated FILE"
    if not folder.is_dir():
        raise ValueError(f"{folder} is {'a file' if folder.exists() else 'no folder'}; {instead}")
    if not (folder / "posterior.h5").exists():
        raise ValueError(f"{folder} has no posterior.h5; {instead}")
    if not any((folder / name).exists() for name in (EVENTS, SHOWERS)):
        raise ValueError(f"{folder} has neither {EVENTS} nor {SHOWERS}, the true events to compare with; {instead}")


def showers(args: argparse.Namespace, most: int, posterior: pg.Posterior) -> tuple[pg.EventSample, pg.EventSample]:
    """True and generated showers; the incident energy is a column behind the cells.

    Generated ones have the incident energies of the true ones that judge the mending, so that those which classifiers
    see are independent of them.
    """
    true = pg.events.read_showers(args.folder / SHOWERS)[: 2 * most]
    context = true.context[: len(true) // 2]
    made = posterior.generate(len(context), draws=DRAWS, context=context, seed=args.seed, log_weights=True)
    return with_energy(true.events, true.context), with_energy(made, context)


def with_energy(cells: pg.EventSample, context: pg.EventSample) -> pg.EventSample:
    """Showers with their incident energy."""
    return pg.EventSample(
        np.concatenate([cells.values, context.values], 1),
        [*cells.names, *context.names],
        [*cells.units, "GeV"],
        uncertainties=cells.uncertainties,
        log_weights=cells.log_weights,
        provenance=cells.provenance,
    )


def observables_of_showers(folder: Path) -> Observables:
    """Those of the cells, and the response."""
    geometry = pg.events.read_showers(folder / SHOWERS, n=1).geometry
    cells = slice(geometry.voxels)
    found = {name: its.of_columns(cells) for name, its in pg.events.shower_observables(geometry).items()}
    response = pg.events.Observable(
        lambda x: x[:, cells].sum(1) / x[:, -1], r"$E/E_\mathrm{inc}$", "", np.linspace(0.5, 1.5, 51)
    )
    return {"E_inc": lambda x: x[:, -1], "response": response, **found}


def incident(events: torch.Tensor) -> torch.Tensor:
    """The incident energies of showers, as the only column that classifiers see besides observables."""
    return events[:, -1:].log()


def of_all(observables: Observables) -> Observables:
    """The observables that all showers have."""
    return {name: its for name, its in observables.items() if getattr(its, "missing", None) is None}


def toy(n: int, seed: int) -> pg.EventSample:
    """Two jets with falling pT that are farther apart than 0.4, and a mass with a peak."""
    random, m = np.random.default_rng(seed), 2 * n + 100
    pt_a, eta_a, phi_a = 20 + random.exponential(30, m), random.normal(0, 1.3, m), random.uniform(-math.pi, math.pi, m)
    pt_b, eta_b = 20 + (pt_a - 20) * random.beta(3, 1.5, m), eta_a + random.normal(0, 1.2, m)
    opposite = np.where(random.random(m) < 0.4, 0.0, math.pi)
    between = opposite + random.normal(0, 0.9, m)
    mass = np.where(random.random(m) < 0.7, random.normal(PEAK, WIDTH, m), random.uniform(60, 120, m))
    phi_b = np.angle(np.exp(1j * (phi_a + between)))
    apart = np.hypot(eta_a - eta_b, np.angle(np.exp(1j * between))) > 0.4
    values = np.stack([pt_a, eta_a, phi_a, pt_b, eta_b, phi_b, mass], 1)[apart][:n]
    return pg.EventSample(values, TOY, ["GeV", "", "rad", "GeV", "", "rad", "GeV"])


def observables_of(truth: pg.EventSample) -> Observables:
    """What the classifier sees besides the columns: masses and distances, where sharp features hide."""
    if truth.multiplicity not in (None, Z_JETS):
        raise ValueError(
            f"the events have the layout {truth.multiplicity}; this script knows two leptons and 1 to 3 jets"
        )
    if truth.multiplicity == Z_JETS:
        names = ("M_pair", "pt_pair", "delta_r_j1j2", "delta_r_j1j3", "delta_r_j2j3")
        return {name: z_jets_observables()[name] for name in names}
    if [name[:2] for name in truth.names] in (["px", "py", "pz", "pz"], ["px", "py", "pz"] * 2):
        return {name: lepton_pair_observables()[name] for name in ("M_pair", "E_pair")}
    return {"delta_r_ab": distance} if list(truth.names) == TOY else {}


def distance(x: torch.Tensor) -> torch.Tensor:
    """Delta R of the two jets of the toy."""
    angle = torch.remainder(x[:, 2] - x[:, 5] + math.pi, 2 * math.pi) - math.pi
    return torch.hypot(x[:, 1] - x[:, 4], angle)


def alike(
    observables: Observables, *samples: pg.EventSample
) -> list[tuple[str, list[pg.EventSample], Mapping[str, Any]]]:
    """The samples, or those of each number of jets, with columns and observables that all of their events have."""
    columns = {name: name for name in samples[0].names if name not in observables}
    if samples[0].multiplicity is None:
        return [("all events", list(samples), columns | dict(observables))]
    found = []
    for n in (1, 2, 3):
        parts, own = [each.with_count(n) for each in samples], z_jets_observables(n)
        found.append((f"{n} jets", parts, {name: name for name in parts[0].names} | dict(own)))
    return found


def peaks(mass: Callable[[torch.Tensor], torch.Tensor], *samples: pg.EventSample) -> str:
    """Widths of the mass peak before and after mending, over that of true events."""
    try:
        true, *others = (diagnostics.peak_width(values_of(each, mass), each.weights) for each in samples)
    except ValueError as error:
        return f"no mass peak to compare: {error}"
    ratios = [
        f"{each.width / true.width:.3f} +- {math.hypot(each.width_error, true.width_error) / true.width:.3f}"
        for each in others
    ]
    return f"width of the mass peak over that of true events: {ratios[0]} before, {ratios[1]} after"


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
