"""How many true events is a generator worth, where the truth is not known? Histograms, cells, and the best test.

    python examples/worth.py                      # Drell-Yan: 20,000 events from Pythia 8 (extra "pythia")
    python examples/worth.py --quick              # the 5,000 events of the repository, in half a minute
    python examples/worth.py --events lhc.lhe.gz  # your own lepton pairs

A posterior says how well it knows a histogram. From this error follows how many true events the histogram counts as,
however many are generated (arXiv:2509.08048). It is done for histograms, for cells of mass and transverse momentum, and
for the whole phase space, where a classifier looks for the difference from other true events.
Whether the number is right, with the truth known: benchmarks/worth_toys.py.
"""

import argparse
import math
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import Network, averaging_amplification, classifier_weights, differential_amplification
from pyrogen.events import PERIODIC, collision_energy, lepton_pair, lepton_pair_coordinates, lepton_pair_observables

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn (Pythia's)")
parser.add_argument("--truth", type=Path, metavar="FILE", help="other true events (the rest of the file)")
parser.add_argument("--train", type=int, metavar="N", help="training events (20,000; quick: 2,000)")
parser.add_argument("--backend", choices=("bootstrap", "svi"), default="bootstrap", help="svi: calibrated (bootstrap)")
parser.add_argument("--quick", action="store_true", help="small networks and few events, to see it run")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for posterior and figures (out/worth, with the backend)")
args = parser.parse_args()
out = args.out or Path("out") / "_".join(["worth", *(["quick"] if args.quick else []), args.backend])
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Events to learn, and other ones to compare with: those of --truth, or the rest of the file.
quick, n = args.quick, args.train or (2_000 if args.quick else 20_000)
if args.events or quick:
    sample = lepton_pair(pg.events.read(args.events or Path(__file__).parent / "data" / "drell_yan_5k.h5"))
    learned, truth = sample[:n], sample[n : n + 100_000]
else:
    learned, truth = pg.events.drell_yan(n, seed=101 + args.seed), pg.events.drell_yan(100_000, seed=202 + args.seed)
if args.truth:
    truth = lepton_pair(pg.events.read(args.truth))

# 2. A spline flow in coordinates that know the Z peak and the circle of the azimuth, and its posterior. A number of
#    events goes as 1 / sigma^2, so sigma has to be right: that of a bootstrap nearly is, that of SVI is calibrated.
coordinates = lepton_pair_coordinates("mass", circle=True, energy=collision_energy(learned) or 13_000.0)
size = {"blocks": 3, "hidden": (8,), "bins": 4} if quick else {"blocks": 4, "hidden": (24, 24), "bins": 8}
flow = pg.CouplingFlow(4, **size, transform="rqs", mixing="random", periodic=PERIODIC["mass"])
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=coordinates)
kept = {"seed": args.seed, "checkpoint": out / "run_checkpoint.h5"}  # a killed run goes on when repeated
if args.backend == "svi":
    fast = {"epochs": 20, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1}
    slow = {"epochs": 60, "batch_size": 512, "lr": 5e-3, "lr_widths": 3e-2, "widths_after": 0.3}
    svi = pg.SVI(**(fast if quick else slow), **kept)
    posterior = pg.calibrate(svi, model, learned, trainings=8 if quick else 10, seed=args.seed)
else:
    fast = {"replicas": 8, "steps": 200, "batch_size": 100, "lr": 1e-2}
    slow = {"replicas": 16, "steps": 2_000, "batch_size": 256, "lr": 5e-3}
    posterior = pg.Bootstrap(**(fast if quick else slow), **kept).fit(model, learned)
print(posterior)
posterior.save(out / "posterior.h5")

# 3. What is a histogram worth? The sentence is for a million generated events; more of them hardly help.
observables, many = lepton_pair_observables(), 4_000 if quick else 100_000
wanted = {
    name: (observables[name], observables[name].edges[:: 6 if quick else 2])
    for name in ("E", "px", "pT", "pz", "E_pair", "M_pair")
}
worths = posterior.worth(wanted, n=many, seed=args.seed)
for name, worth in worths.items():
    print(f"\n{name}: {worth.text(1_000_000)}")
pg.plotting.save_figure(pg.plotting.plot_worth(list(worths.values())), out / "worth.png")

# 4. Where is the amplification below one? In cells of mass and transverse momentum that hold as many true events each.
seen = {name: observables[name] for name in ("M_pair", "pT")}
numbers = (4, 16) if quick else (4, 16, 64)
cells = averaging_amplification(posterior, seen, cells=numbers, reference=truth, n=many, seed=args.seed)
print(f"\n{cells.text()}")
pg.plotting.save_figure(pg.plotting.plot_amplification_map(cells), out / "map.png")

# 5. The whole phase space: the best test there is between generated and true events is a classifier. It is shown what
#    tells the peak and the tails.
middle = float(observables["M_pair"](truth).median())


def features(events: torch.Tensor) -> torch.Tensor:
    """Columns ``[n, 10]`` in which neither the peak nor the tails are hidden."""
    mass, y, eta, pt, energy, px = (
        observables[name](events) for name in ("M_pair", "y_pair", "eta", "pT", "E_pair", "px")
    )
    plus, minus = pg.events.pair_momenta(events)
    peak = (mass - middle) / 2.5
    columns = [torch.asinh(peak), torch.tanh(peak), mass.log(), y, eta, pg.events.kinematics.eta(minus)]
    return torch.stack([*columns, pt.log(), energy.log(), px / pt, plus[:, 1] / pt], -1)


generated = posterior.generate(len(truth), seed=args.seed)
network = Network(epochs=3, hidden=(16, 16)) if quick else Network(epochs=10)
weights = classifier_weights(
    truth, generated, features=features, method=network, ensemble=1 if quick else 2, seed=args.seed
)
mass = observables["M_pair"]
regions = {
    "M below 80 GeV": (mass, -math.inf, 80.0),
    "M 80 to 100 GeV": (mass, 80.0, 100.0),
    "M above 100 GeV": (mass, 100.0, math.inf),
    "pT above 45 GeV": (observables["pT"], 45.0, math.inf),
}
best = differential_amplification(weights, len(learned), regions=regions, seed=args.seed)
print(f"\n{weights.text()}\n\n{best.text()}")
pg.plotting.save_figure(pg.plotting.plot_differential(best), out / "differential.png")
print(f"\nwrote posterior.h5, worth.png, map.png and differential.png in {out}")
