"""A systematic uncertainty of Z + jets: a nuisance parameter as a condition of the flows, templates, and a fit.

    python examples/z_jets_systematics.py --events z_jets.h5     # your own, with the columns of pg.events.z_jets
    python examples/z_jets_systematics.py --quick                # the 5,000 events of the repository, in a minute

The parameter a weights events by 1 + a ((pT of the leading jet - 15 GeV) / 100 GeV)^2, as in sec. 5.3 of
arXiv:2110.13632. Held-out events with these weights are the truth: the shift of one sigma that the flows learned is
compared to theirs, and a fit of the templates with pyhf has to find the value of a that they were weighted with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command_line import add_common, count, fitted, held_out, make_folder, stoppable, tell_about

import pyrogen as pg
from pyrogen.diagnostics import Systematics, systematics
from pyrogen.events import Nuisance, OfObjects, with_nuisances, z_jets_observables
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_systematics, save_figure
from pyrogen.recipes import z_jets

LEADING = 6  # column of the leading jet's pT
A = Nuisance("a", lambda x, a: 1 + a * ((x[:, LEADING] - 15) / 100) ** 2, low=0, high=1, nominal=0, sigma=0.5)
TRUE = 0.35  # what the fit has to find
COPIES = {"copies": 1, "at_nominal": 1}  # of each event: the nominal value is an end of the range
MODES: dict[str, dict[str, Any]] = {
    "quick": z_jets.MODES["quick"] | {"n": 2_000, "draws": 10, "coarser": 5},
    "default": z_jets.MODES["default"] | {"n": 50_000, "draws": 30, "coarser": 1},
}
#: The observables, and how many jets they need.
SHOWN = {"pt_j1": 1, "pt_pair": 1, "pt_j2": 2, "jets": 1}


@stoppable
def main() -> None:
    """Weight, fit, vary, compare, and fit the templates."""
    parser = make_parser()
    args = parser.parse_args()
    mode = MODES["quick" if args.quick else "default"]
    pg.set_threads(args.threads)
    try:
        sample = z_jets.apart(z_jets.read_events(args.events, args.train, args.quick, args.seed))
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    name = "z_jets_systematics_quick" if args.quick else "z_jets_systematics"
    out = make_folder(parser, args.out or Path("out") / name)
    truth, learned = held_out(sample, args.seed)

    training = with_nuisances(learned, A, **COPIES, seed=args.seed)
    print(training)
    model = z_jets.make_model("resonance", mode["flow"], context=1)
    checkpoint = out / "run_checkpoint.h5"
    tell_about(checkpoint)
    settings = mode["svi"] | ({"epochs": args.epochs} if args.epochs else {}) | {"seed": args.seed}
    svi = pg.SVI(**settings, kl_weight=training.kl_weight, checkpoint=checkpoint)
    posterior = fitted(parser, svi, model, training.sample, args.events, training.context)
    posterior.save(out / "posterior.h5")

    wanted = observables(truth.multiplicity, mode["coarser"])
    options = {"rate": training.rate, "n": mode["n"], "draws": mode["draws"], "seed": args.seed}
    found = systematics(posterior, wanted, A, **options)
    summary = {"training_events": len(learned), "weights": model.weights, "settings": posterior.info.settings}
    for name, its in found.items():
        true = {a: filled(truth, wanted[name], a) for a in (A.nominal, TRUE, A.up)}
        summary[name] = compare(name, its, true[A.nominal][0], true[A.up][0])
        counts, errors = true[A.nominal]
        panel = {"total": truth.total_weight, "errors": errors, "truth_label": "held-out events"}
        figure = plot_systematics(its, counts, **panel, log=True, rate=True)
        save_figure(figure, out / f"{name}.png")
        summary[name]["fit"] = fit(its, true[TRUE][0], truth.total_weight)
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    print(f"\nwrote {out}/")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn: .h5 with numbers of jets")
    parser.add_argument("--train", type=count, default=200_000, metavar="N", help="training events, at most (200,000)")
    parser.add_argument("--quick", action="store_true", help="a small network and the 5,000 events of the repository")
    parser.add_argument("--epochs", type=count, metavar="E", help="passes over the events (24; quick: 40)")
    add_common(parser, "out/z_jets_systematics, with the mode")
    return parser


def observables(layout: pg.events.Multiplicity, coarser: int) -> dict[str, tuple[OfObjects, np.ndarray]]:
    """The observables with their bins; those of the number of jets stay as they are."""
    own = z_jets_observables()
    return {
        name: (OfObjects(own[name], layout, least), own[name].edges[:: 1 if name == "jets" else coarser])
        for name, least in SHOWN.items()
    }


def filled(truth: pg.EventSample, wanted: tuple[OfObjects, np.ndarray], a: float) -> tuple[np.ndarray, np.ndarray]:
    """Bins of the held-out events at a value of the parameter, and their errors."""
    events = truth.tensor(torch.float64)
    weights = A.weight(events, torch.tensor(a)).numpy() * (1.0 if truth.weights is None else truth.weights)
    values = wanted[0](events).numpy()
    sums, squares = (np.histogram(values, wanted[1], weights=weights**power)[0] for power in (1, 2))
    return sums, np.sqrt(squares)


def compare(name: str, found: Systematics, nominal: np.ndarray, up: np.ndarray) -> dict[str, float]:
    """The learned shift of one sigma beside that of the held-out events, of the bins that have a hundred of these."""
    kept = nominal >= 100
    learned = found.varied(A.name, rate=True)[1][kept] / found.nominal[kept]
    true = up[kept] / nominal[kept]
    off = learned / true - 1
    print(f"\n{name}: events at one sigma over nominal, in bins with 100 held-out events or more")
    row = {"rms": float(np.sqrt(np.mean(off**2))), "largest": float(abs(off).max()), "bins": int(kept.sum())}
    print(
        f"  true: {true.min():.3f} to {true.max():.3f}; learned off by {row['rms']:.2%} rms, {row['largest']:.2%} most"
    )
    return row


def fit(found: Systematics, observed: np.ndarray, total: float) -> dict[str, float] | None:
    """Value and error of the parameter from a fit of the templates, in units of a; None without pyhf."""
    try:
        import pyhf
    except ImportError:
        print("  no fit of the templates: it needs pip install pyhf iminuit")
        return None
    pyhf.set_backend("numpy", "minuit")
    workspace = pyhf.Workspace(found.templates(total=total).workspace(observed))
    model = workspace.model()
    fixed = model.config.suggested_fixed()
    fixed[model.config.poi_index] = True  # the total number is known, but for the rate of a
    values = pyhf.infer.mle.fit(workspace.data(model), model, fixed_params=fixed, return_uncertainties=True)
    shift, its_error = values[model.config.par_slice(A.name).start]
    value, error = A.nominal + A.sigma * shift, A.sigma * its_error
    print(f"  fit of the templates: a = {value:.3f} +- {error:.3f}; the events have {TRUE}")
    return {"value": float(value), "error": float(error)}


if __name__ == "__main__":
    main()
