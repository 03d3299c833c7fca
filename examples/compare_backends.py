"""All backends on the same events: do they agree on the density and its uncertainty, and what does each of them cost?

    python examples/compare_backends.py                    # the wedge, ten minutes of a core
    python examples/compare_backends.py --target ring --backends svi hmc bootstrap
    python examples/compare_backends.py --quick            # tiny network, few draws: a minute

A small flow is fitted to a toy of arXiv:2104.04543, sec. 3, by every backend; nothing but the backend changes. HMC,
which follows the posterior exactly, is the reference. Posteriors are saved; a killed run goes on when repeated.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import compare

targets = {"wedge": pg.targets.Wedge(), "kicker": pg.targets.Kicker(), "ring": pg.targets.GaussianRing()}
# All take minutes. SGHMC sees all events: with the noise of mini-batches it goes no faster than SGLD.
chains = {"chains": 4, "warmup": 150, "draws": 250}
backends = {
    "svi": pg.SVI(epochs=1500, batch_size=500, lr=1e-2, lr_widths=3e-2),
    "laplace": pg.Laplace(steps=4000, batch_size=500),
    "ensemble": pg.Ensemble(members=20, steps=2000, batch_size=500),
    "bootstrap": pg.Bootstrap(replicas=32, steps=2000, batch_size=500, lr=1e-2),
    "sgld": pg.SGLD(**chains, thinning=60, batch_size=500),
    "sghmc": pg.SGHMC(**chains, thinning=40, batch_size=None),
    "adam-mcmc": pg.AdamMCMC(**chains, thinning=40),
    "nuts": pg.NUTS(chains=4, warmup=100, draws=100, max_tree_depth=6),
    "hmc": pg.HMC(**chains),
}
short = {"chains": 2, "warmup": 8, "draws": 10, "start_steps": 40}
quick = {  # far from converged: only to see everything run
    "svi": pg.SVI(epochs=30, batch_size=100, lr=2e-2, lr_widths=1e-1),
    "laplace": pg.Laplace(steps=60, batch_size=100, polish=30),
    "ensemble": pg.Ensemble(members=5, steps=60, batch_size=100),
    "bootstrap": pg.Bootstrap(replicas=8, steps=60, batch_size=100, lr=2e-2),
    "sgld": pg.SGLD(**short, thinning=5, batch_size=100),
    "sghmc": pg.SGHMC(**short, thinning=5, batch_size=100),
    "adam-mcmc": pg.AdamMCMC(**short, thinning=5),
    "nuts": pg.NUTS(chains=2, warmup=6, draws=10, max_tree_depth=2, start_steps=40),
    "hmc": pg.HMC(**short, max_steps=5),
}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="a tiny network and few draws, to see it run")
parser.add_argument("--target", choices=targets, default="wedge", help="the density to learn (wedge)")
parser.add_argument("--backends", choices=backends, nargs="+", default=[*backends], metavar="NAME", help="some (all)")
parser.add_argument("--events", type=int, metavar="N", help="training events (2,000; quick: 300)")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for the results (out/compare_backends)")
args = parser.parse_args()
out = (args.out or Path("out") / ("compare_backends_quick" if args.quick else "compare_backends")) / args.target
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. The events, and a flow of Bernstein polynomials on the target's box: smooth enough for samplers that follow
#    gradients. The ramps need two small blocks; a ring is no product of x and y, and needs six.
target, ring = targets[args.target], args.target == "ring"
torch.manual_seed(args.seed)
events = target.sample((args.events or (300 if args.quick else 2_000),))
if ring:
    size = {"blocks": 4, "hidden": (6,), "bins": 6} if args.quick else {"blocks": 6, "hidden": (16,), "bins": 10}
else:
    size = {"blocks": 2, "hidden": (6,), "bins": 4} if args.quick else {"blocks": 2, "hidden": (24,), "bins": 8}
flow = pg.CouplingFlow(2, **size, transform="bernstein", base="uniform", activation="tanh")
box = pg.events.UnitBox((-9.0, 0.0), (9.0, 9.0)) if ring else None  # the ramps fill the unit box
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=box)
print(f"{len(events):,} events of {target}, a flow with {model.weights:,} weights")

# 2. Fit with each backend: the same call.
posteriors = {}
for name in (name for name in backends if name in args.backends):
    backend = (quick if args.quick else backends)[name]
    backend = replace(backend, seed=args.seed, checkpoint=out / f"{name}_checkpoint.h5")
    try:
        posteriors[type(backend).__name__] = posterior = backend.fit(model, events)
    except (pg.SamplingError, pg.TrainingDivergedError) as error:
        print(f"{name} is left out: {error}")
        continue
    posterior.save(out / f"{name}.h5")

# 3. Compare: sigma along lines of the toy, the density on a grid and at held-out events, convergence, and cost.
reference = "HMC" if "HMC" in posteriors else next(iter(posteriors))
first, last = target.line_range if ring else (0.01, 0.99)  # the flow of a ramp knows the edges of its box
comparison = compare(
    posteriors,
    target,
    reference,
    t=torch.linspace(first, last, 21 if args.quick else 41, dtype=torch.float64),
    grid_range=((-9.0, 9.0), (0.0, 9.0)) if ring else ((0.0, 1.0), (0.0, 1.0)),
    trained_on=events,
    seed=args.seed,
    **(
        {"cells": 25, "probes": 10, "held_out": 300, "generated": 300}
        if args.quick
        else {"cells": 60, "probes": 100, "held_out": 10_000, "generated": 20_000}
    ),
)
print(f"\n{comparison.text()}")
figure = pg.plotting.plot_backends(comparison.lines, reference, log=True)
print(f"wrote posteriors and {pg.plotting.save_figure(figure, out / 'backends.png')}")
