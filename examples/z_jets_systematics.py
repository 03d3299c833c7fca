"""A systematic uncertainty of Z + jets: a nuisance parameter as a condition of the flows, templates, and a fit.

    python examples/z_jets_systematics.py                        # 250,000 events of Pythia and fastjet, many hours
    python examples/z_jets_systematics.py --events z_jets.h5     # your own, with the columns of pg.events.z_jets
    python examples/z_jets_systematics.py --quick                # the 5,000 events of the repository, in a minute

The parameter a weights events by 1 + a ((pT of the leading jet - 15 GeV) / 100 GeV)^2, as in sec. 5.3 of
arXiv:2110.13632. Held-out events with these weights are the truth: the shift of one sigma that the flows learned is
compared to theirs, and a fit of the templates with pyhf (pip install pyhf iminuit) has to find the value of a that they
were weighted with.
"""

import argparse
from pathlib import Path

import numpy as np
import pyhf
import torch

import pyrogen as pg
from pyrogen.diagnostics import systematics
from pyrogen.events import Nuisance, OfObjects, jet_coordinates, separated_jets, with_nuisances, z_jets_observables

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn: .h5 with numbers of jets (Pythia's)")
parser.add_argument("--train", type=int, default=200_000, metavar="N", help="training events, at most (200,000)")
parser.add_argument("--epochs", type=int, metavar="E", help="passes over the events (24; quick: 40)")
parser.add_argument("--quick", action="store_true", help="a small network and the 5,000 events of the repository")
parser.add_argument("--seed", type=int, default=0, help="seed of events and training (0)")
parser.add_argument("--out", type=Path, help="folder for the results (out/z_jets_systematics)")
args = parser.parse_args()
out = args.out or Path("out") / ("z_jets_systematics_quick" if args.quick else "z_jets_systematics")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Events with one to three jets, without those whose jets are closer than the radius. A fifth is held out.
most = round(args.train / 0.8)
if args.events or args.quick:
    sample = pg.events.read(args.events or Path(__file__).parent / "data" / "z_jets_5k.h5", progress=True)[:most]
else:
    sample = pg.events.z_jets(most, seed=1 + args.seed)
coordinates = jet_coordinates("resonance", most=3)
if sample.multiplicity != coordinates.layout:
    parser.error(f"the events have the layout {sample.multiplicity}; this script needs {coordinates.layout}")
sample = sample[separated_jets(sample, 0.4).keep]
order = np.random.default_rng(args.seed).permutation(len(sample))
truth, learned = (sample[rows] for rows in np.split(order, [round(0.2 * len(sample))]))

# 2. The nuisance parameter: a weight of each event as a function of a. It is one-sided, and a = 0.5 is one sigma. Each
#    event is learned with a random a, and once more at the nominal value, an end of the range.
leading = 6  # column of the leading jet's pT
a = Nuisance("a", lambda x, a: 1 + a * ((x[:, leading] - 15) / 100) ** 2, low=0, high=1, nominal=0, sigma=0.5)
training = with_nuisances(learned, a, copies=1, at_nominal=1, seed=args.seed)
print(training)

# 3. One chain of flows over the number of jets, with a as its condition.
small, large = {"blocks": 4, "hidden": (16, 16), "bins": 8}, {"blocks": (6, 4, 4), "hidden": (64, 64), "bins": 10}
size = small if args.quick else large
places = {"periodic": coordinates.periodic, "uniform": coordinates.uniform}
flow = pg.MultiplicityFlow(**coordinates.layout.config(), **size, **places, context=1, mixing="random")
model = pg.BayesianFlow(flow, preprocessing=coordinates.preprocessing)
if args.quick:
    settings = {"epochs": args.epochs or 40, "batch_size": 256, "lr": 5e-3}
else:
    settings = {"epochs": args.epochs or 24, "batch_size": 1024, "lr": 2e-3, "widths_after": 0.4}
svi = pg.SVI(
    **settings,
    lr_widths=3e-2,
    kl_weight=training.kl_weight,  # copies of an event are one event
    seed=args.seed,
    checkpoint=out / "run_checkpoint.h5",  # a killed run goes on when repeated
)
posterior = svi.fit(model, training.sample, context=training.context)
posterior.save(out / "posterior.h5")

# 4. Histograms at a = 0 and at one sigma, with the error of the training and the shift by a.
pyhf.set_backend("numpy", "minuit")
own, books = z_jets_observables(), {}
for name, jets in {"pt_j1": 1, "pt_pair": 1, "pt_j2": 2, "jets": 1}.items():  # and how many jets they need
    edges = own[name].edges[:: 5 if args.quick and name != "jets" else 1]
    books[name] = (OfObjects(own[name], truth.multiplicity, jets), edges)
n, draws = (2_000, 10) if args.quick else (50_000, 30)
found = systematics(posterior, books, a, rate=training.rate, n=n, draws=draws, seed=args.seed)


def filled(name: str, value: float) -> tuple[np.ndarray, np.ndarray]:
    """Bins of the held-out events at a value of a, and their errors, ``[B]`` each."""
    events, (observable, edges) = truth.tensor(torch.float64), books[name]
    weights = a.weight(events, torch.tensor(value)).numpy() * (1.0 if truth.weights is None else truth.weights)
    values = observable(events).numpy()
    sums, squares = (np.histogram(values, edges, weights=weights**power)[0] for power in (1, 2))
    return sums, np.sqrt(squares)


# 5. The learned shift beside that of the held-out events, and a fit of the templates to events weighted with a = 0.35.
for name, its in found.items():
    (nominal, errors), (up, _), (observed, _) = filled(name, 0.0), filled(name, a.up), filled(name, 0.35)
    kept = nominal >= 100
    if kept.any():
        learned_shift, true_shift = its.varied("a", rate=True)[1][kept] / its.nominal[kept], up[kept] / nominal[kept]
        off = learned_shift / true_shift - 1
        print(f"\n{name}: events at one sigma over nominal: {true_shift.min():.3f} to {true_shift.max():.3f}")
        print(f"  learned off by {np.sqrt(np.mean(off**2)):.2%} rms, {abs(off).max():.2%} most")
    panel = {"total": truth.total_weight, "errors": errors, "truth_label": "held-out events"}
    figure = pg.plotting.plot_systematics(its, nominal, **panel, log=True, rate=True)
    pg.plotting.save_figure(figure, out / f"{name}.png")
    workspace = pyhf.Workspace(its.templates(total=truth.total_weight).workspace(observed))
    fitted = workspace.model()
    fixed = fitted.config.suggested_fixed()
    fixed[fitted.config.poi_index] = True  # the total number is known, but for the rate of a
    values = pyhf.infer.mle.fit(workspace.data(fitted), fitted, fixed_params=fixed, return_uncertainties=True)
    shift, its_error = values[fitted.config.par_slice("a").start]  # in units of sigma
    value, error = a.nominal + a.sigma * shift, a.sigma * its_error
    print(f"  fit of the templates: a = {value:.3f} +- {error:.3f}; the events have 0.35")
print(f"\nwrote posterior.h5 and figures in {out}")
