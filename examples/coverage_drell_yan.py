"""Is sigma right for histograms of real events? Many samples of Drell-Yan events, and every bin of six observables.

    python examples/coverage_drell_yan.py                         # 800,000 events of Pythia 8 (extra "pythia")
    python examples/coverage_drell_yan.py --train mine.lhe.gz   # your own lepton pairs
    python examples/coverage_drell_yan.py --quick                 # the 5,000 events of the repository, in half a minute

A flow learns independent samples of the same events. Its histograms have error bars, which are held against many
other events: the truth should lie within one sigma in 68 % of the bins. The study with 20 samples of 50,000 events is
benchmarks/coverage_drell_yan.py, that of Z + jets benchmarks/coverage_z_jets.py.
"""

import argparse
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import advise, calibration_in_bins
from pyrogen.events import PERIODIC, collision_energy, lepton_pair, lepton_pair_coordinates, lepton_pair_observables

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few events and short trainings, to see it run")
parser.add_argument("--train", type=Path, metavar="FILE", help="events to learn from (Pythia's)")
parser.add_argument("--truth", type=Path, metavar="FILE", help="other true events (the rest of the file)")
parser.add_argument("--sets", type=int, metavar="R", help="independent samples (10; quick: 4)")
parser.add_argument("--events", type=int, metavar="N", help="events of each (20,000; quick: 500)")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for the figure (out/coverage_drell_yan)")
args = parser.parse_args()
out = args.out or Path("out") / ("coverage_drell_yan_quick" if args.quick else "coverage_drell_yan")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Events to learn, and other ones for the truth: those of --truth, or the rest of the file.
sets, events = args.sets or (4 if args.quick else 10), args.events or (500 if args.quick else 20_000)
wanted = sets * events
if args.train or args.quick:
    sample = lepton_pair(pg.events.read(args.train or Path(__file__).parent / "data" / "drell_yan_5k.h5"))
    if len(sample) <= wanted:
        parser.error(f"{sets} samples of {events:,} events need {wanted:,}, and a truth; there are {len(sample):,}")
    learned, truth = sample[:wanted], sample[wanted:]
else:
    learned, truth = (
        pg.events.drell_yan(wanted, seed=101 + args.seed),
        pg.events.drell_yan(600_000, seed=202 + args.seed),
    )
if args.truth:
    truth = lepton_pair(pg.events.read(args.truth))

# 2. A spline flow in coordinates that know the Z peak and the circle of the azimuth.
coordinates = lepton_pair_coordinates("mass", circle=True, energy=collision_energy(learned) or 13_000.0)
size = {"blocks": 3, "hidden": (8,), "bins": 4} if args.quick else {"blocks": 6, "hidden": (32, 32), "bins": 8}
flow = pg.CouplingFlow(4, **size, transform="rqs", mixing="random", periodic=PERIODIC["mass"])
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=coordinates)

# 3. All samples are learned in one batch.
settings = {"steps": 60, "batch_size": 100, "lr": 2e-2} if args.quick else {"steps": 3000, "batch_size": 512}
backend = pg.Bootstrap(replicas=4 if args.quick else 12, **settings, seed=args.seed, checkpoint=out / "run.h5")
samples = torch.tensor(learned.values).reshape(sets, events, 4)
posteriors = backend.fit_many(model, samples)
print(f"\nthe first training: {advise(posteriors[0], learned[:events], seed=args.seed).text()}\n")

# 4. The same bins of the truth and of every posterior. The truth has an error of its own, which the intervals contain.
names = ("E", "px", "pT", "pz", "E_pair", "M_pair")
observables = lepton_pair_observables()
books = {name: (observables[name], observables[name].edges[::2]) for name in names}
groups = {"lepton": names[:4], "pair": names[4:]}
n = 40_000 if args.quick else 500_000  # so many that their noise is small beside sigma
found = calibration_in_bins(posteriors, books, truth.values, n=n, groups=groups, seed=args.seed)
print(found.text())
figure = pg.plotting.plot_calibration({name: found.intervals[name] for name in (*groups, "all")})
print(f"\nwrote {pg.plotting.save_figure(figure, out / 'calibration.png')}")
