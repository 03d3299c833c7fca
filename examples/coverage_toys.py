"""Is the uncertainty right? One flow learns many samples of a toy, and every error bar is held against the truth.

    python examples/coverage_toys.py            # 20 samples of 2,000 events of the wedge, half an hour of a core
    python examples/coverage_toys.py --quick    # 4 samples of 300 events, in half a minute

Of the intervals at 68.3 %, 68.3 % should hold the truth. Mean-field SVI of a small flow covers far too often: its sigma
is three times too wide. A bootstrap is right, and a calibrated KL mends SVI. The last part asks the same of events
whose truth nobody knows.
The study with other flows, targets and backends is benchmarks/coverage_toys.py.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import bootstrap_calibration, calibration_along_lines

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few events and short trainings, to see it run")
parser.add_argument("--sets", type=int, metavar="R", help="independent samples (20; quick: 4)")
parser.add_argument("--events", type=int, metavar="N", help="events of each (2,000; quick: 300)")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for the figure (out/coverage_toys)")
args = parser.parse_args()
out = args.out or Path("out") / ("coverage_toys_quick" if args.quick else "coverage_toys")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. One posterior on one sample has one deviation from the truth, which neighbouring points share. So we take many
#    samples, and count every interval as many times.
wedge = pg.targets.Wedge()
sets, events = args.sets or (4 if args.quick else 20), args.events or (300 if args.quick else 2_000)
torch.manual_seed(args.seed)
samples = wedge.sample((sets, events))  # [R, N, 2]

# 2. A flow of Bernstein polynomials on the unit box, where the wedge lives, so that it knows the edges.
small = {"hidden": (6,), "bins": 4} if args.quick else {"hidden": (24,), "bins": 8}
flow = pg.CouplingFlow(2, blocks=2, transform="bernstein", base="uniform", activation="tanh", **small)
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None)

# 3. Three ways to a posterior. "calibrated" weighs the KL such that networks of a first fit are covered. It fits twenty
#    further samples several times: too long for a quick look.
if args.quick:
    svi = pg.SVI(epochs=300, batch_size=100, lr=1e-2, lr_widths=5e-2, seed=args.seed)
    bootstrap = pg.Bootstrap(replicas=12, steps=150, batch_size=100, lr=2e-2, seed=args.seed)
else:
    svi = pg.SVI(epochs=1500, batch_size=500, lr=1e-2, lr_widths=3e-2, seed=args.seed)
    bootstrap = pg.Bootstrap(replicas=24, steps=1000, batch_size=500, lr=2e-2, seed=args.seed)
backends = {"SVI": svi, "Bootstrap": bootstrap}
if not args.quick:
    backends["SVI, calibrated"] = replace(svi, kl_weight="calibrated")

# 4. Fit all samples in one batch, and count how often the truth is in the intervals, along lines of constant y.
found = {}
for name, backend in backends.items():
    kept = replace(backend, checkpoint=out / f"{name.replace(', ', '_')}_checkpoint.h5")  # a killed run goes on
    posteriors = kept.fit_many(model, samples)
    t = torch.linspace(0.01, 0.99, 9 if args.quick else 41, dtype=torch.float64)
    found[name] = calibration_along_lines(posteriors, wedge, t, seed=args.seed)
    print(f"\n{name}: {found[name].text()}")
figure = pg.plotting.plot_calibration(found)
print(f"\nwrote {pg.plotting.save_figure(figure, out / 'calibration.png')}")

# 5. Nobody knows the truth of real events. Networks of a posterior can stand in for it: they generate samples, the
#    backend learns these back, and the networks must lie in the intervals. What no network of the flow can describe
#    stays unseen.
posterior = bootstrap.fit(model, samples[0])
told = bootstrap_calibration(bootstrap, posterior, trainings=sets, seed=args.seed)
print(f"\nBootstrap, without the truth: {told.text()}")
