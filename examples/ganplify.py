"""How many true events is a generator worth? GANs, flows, a fit and a kernel density on the same 100 events.

    python examples/ganplify.py            # 20 samples of 100 events, in minutes
    python examples/ganplify.py --quick    # 3 samples and short trainings, in half a minute

Every generator learns 100 events of a camel back (arXiv:2008.06545). Its events are counted in quantiles of the truth:
the error of their fractions says how many true events it is worth. More than 100 is a gain, and it comes from what the
generator assumes: smoothness, or the right form. The fit needs the extra "fits".
The study with more generators, rings and shells is benchmarks/ganplify.py.
"""

import argparse
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import amplification, fit_two_gaussians, kernel_density, memorised

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few short trainings, to see it run")
parser.add_argument("--trainings", type=int, metavar="R", help="independent samples (20; quick: 3)")
parser.add_argument("--events", type=int, default=100, metavar="N", help="training events of each (100)")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for the figures (out/ganplify)")
args = parser.parse_args()
out = args.out or Path("out") / ("ganplify_quick" if args.quick else "ganplify")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Many samples of the same kind: the error of a generator is what it misses on average over its trainings.
target = pg.targets.CamelBack()
torch.manual_seed(args.seed)
samples = target.sample((args.trainings or (3 if args.quick else 20), args.events))  # [trainings, events, 1]

# 2. What learns: the events themselves, drawn again and again; the true form, fitted; a kernel density ...
generators = {
    "training sample": [memorised(sample) for sample in samples],
    "likelihood fit": [fit_two_gaussians(sample) for sample in samples],
    "kernel density": [kernel_density(sample) for sample in samples],
}
# ... and networks: a GAN, and flows by two backends, all samples in one batch.
kept = out / f"{samples.shape[0]}_samples_of_{args.events}"  # a killed run goes on when repeated
kept.mkdir(exist_ok=True)
gan = pg.GAN(**({"epochs": 20} if args.quick else {}), seed=args.seed, checkpoint=kept / "gan.h5")
generators["GAN"] = gan.fit_many(samples)
flow = pg.CouplingFlow(1, blocks=1, hidden=(8,), transform="rqs", bins=8)  # few weights, for so few events
model = pg.BayesianFlow(flow, prior_scale="fan-in")
rates = {"lr": 2e-2, "lr_widths": 5e-2}
svi = pg.SVI(epochs=150 if args.quick else 600, batch_size=100, **rates, seed=args.seed, checkpoint=kept / "svi.h5")
generators["SVI"] = svi.fit_many(model, samples)
replicas, steps = (4, 100) if args.quick else (24, 300)
bootstrap = pg.Bootstrap(replicas=replicas, steps=steps, lr=2e-2, seed=args.seed, checkpoint=kept / "bootstrap.h5")
generators["Bootstrap"] = bootstrap.fit_many(model, samples)

# 3. Count the events of each in 10, 20 and 50 quantiles of the truth, and compare with samples of true events.
sizes = (100, 300, 1_000, 3_000, 10_000) if args.quick else (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
found = {}
for name, trained in generators.items():
    found[name] = amplification(
        trained, target, (10, 20, 50), training_events=args.events, sizes=sizes, seed=args.seed, progress=False
    )
    print(f"\n{name}\n{found[name].text()}")

# 4. Error against the number of generated events: where a curve gets flat, more events do not help. And the factor.
pg.plotting.save_figure(pg.plotting.plot_quantile_error(found, band="error"), out / "quantile_error.png")
pg.plotting.save_figure(pg.plotting.plot_factor(found), out / "factor.png")
print(f"\nwrote quantile_error.png and factor.png in {out}")
