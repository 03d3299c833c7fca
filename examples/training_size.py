"""How does the uncertainty fall with the number of training events? A scan as in arXiv:2104.04543, sec. 3.4.

    python examples/training_size.py            # 10,000 to 1,000,000 events of the wedge, 20 minutes of a core
    python examples/training_size.py --target kicker --members 0
    python examples/training_size.py --quick    # 1,000 and 4,000 events, in half a minute

The same Bayesian flow learns more and more events of a toy, by the same number of steps. Beside it stand an ensemble of
deterministic networks on the same events, and a fit of the true functional form, which tells what the events hold.
The fit needs the extra "fits". A killed run goes on when repeated.
"""

import argparse
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import likelihood_fit, scan_training_size

targets = {"wedge": pg.targets.Wedge(), "kicker": pg.targets.Kicker(), "ring": pg.targets.GaussianRing()}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="two small samples and networks, to see it run")
parser.add_argument("--target", choices=targets, default="wedge", help="the truth (wedge)")
parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="training events (10000 100000 1000000)")
parser.add_argument("--members", type=int, metavar="M", help="networks of the ensemble, 0: none (8; quick: 3)")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for the results (out/training_size)")
args = parser.parse_args()
out = (args.out or Path("out") / ("training_size_quick" if args.quick else "training_size")) / args.target
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. One flow for all sizes. Rotations between its affine blocks matter: x and y of a ramp are independent, and blocks
#    that only alternate between them start on a saddle of the likelihood.
target = targets[args.target]
size = {"blocks": 4, "hidden": (16,)} if args.quick else {"blocks": 8, "hidden": (32, 32)}
model = pg.BayesianFlow(pg.CouplingFlow(2, **size, mixing="rotation"))
if args.quick:
    sizes, steps, members, batch, rates = (1_000, 4_000), 300, 3, 200, {"lr": 1e-2, "lr_widths": 1e-1}
else:
    sizes, steps, members, batch, rates = (10_000, 100_000, 1_000_000), 6000, 8, 1024, {"lr": 5e-3, "lr_widths": 5e-2}
sizes, members = sorted(args.sizes or sizes), members if args.members is None else args.members
if sizes[0] < batch:
    parser.error(f"--sizes {sizes[0]}: fewer than the {batch} of one batch")

# 2. Train, by the same number of steps whatever the number of events.
posteriors, ensembles, references = {}, {}, {}
for n in sizes:
    torch.manual_seed(args.seed)
    events = target.sample((n,))
    references[n] = likelihood_fit(target, events)  # what a fit of the right form knows
    print(f"{n:,} events; {references[n].text()}", flush=True)
    epochs = max(1, round(steps / (n // batch)))
    svi = pg.SVI(
        **rates,
        epochs=epochs,
        batch_size=batch,
        widths_after=0.3,
        seed=args.seed,
        checkpoint=out / f"svi_{n}_run.h5",
        checkpoint_every=max(1, epochs // 30),
    )
    posteriors[n] = svi.fit(model, events)
    posteriors[n].save(out / f"svi_{n}.h5")
    if members:
        ensemble = pg.Ensemble(
            members=members,
            objective="likelihood",  # deterministic networks, without a prior
            steps=steps // 2,  # as many as the means of the Bayesian flow need to find the density
            batch_size=batch,
            lr=rates["lr"],
            seed=args.seed,
            checkpoint=out / f"ensemble_{n}_run.h5",
        )
        ensembles[n] = ensemble.fit(model, events)
        ensembles[n].save(out / f"ensemble_{n}.h5")

# 3. Sigma against N along lines of the toy: its exponent, its shape, its bias. Counting would give N^(-1/2).
scan = scan_training_size(posteriors, target, ensembles=ensembles, references=references, seed=args.seed)
print(f"\n{scan.text()}")
figure = pg.plotting.plot_training_size(scan)
print(f"wrote posteriors and {pg.plotting.save_figure(figure, out / 'training_size.png')}")
