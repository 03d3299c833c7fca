"""How many events is a posterior worth? Calibration and amplification on a ring, as in arXiv:2408.00838.

    python examples/amplification.py            # four trainings on 10,000 events: hours of a core
    python examples/amplification.py --quick    # 300 events, in half a minute

A flow that learned N events may know the content of a bin better than the N events do, as it is smooth. The
amplification G says how many times N a counting experiment would need for the same error. This number means something
only where the error is right, so the script first asks how often the truth lies within it.
The study with more posteriors and up to 40,000 bins is benchmarks/amplification.py.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg
from pyrogen.diagnostics import fit_amplification, quantile_bins

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few events and short trainings, to see it run")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, help="folder for the figures (out/amplification)")
args = parser.parse_args()
out = args.out or Path("out") / ("amplification_quick" if args.quick else "amplification")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Events whose density is known: r = 4 + Gamma(2, 1/2) and any angle. One training says little about an error bar,
#    which is wrong by one deviation everywhere at once. So there are four independent samples.
ring = pg.targets.GammaRing()
torch.manual_seed(args.seed)
samples = ring.sample((4, 300 if args.quick else 10_000))  # [trainings, events, 2]

# 2. One model learns them all in one batch. Every posterior is a set of networks, each trained on resampled events.
if args.quick:
    flow = pg.CouplingFlow(2, blocks=2, hidden=(8,), transform="rqs", bins=5, seed=args.seed)
    settings = {"replicas": 12, "steps": 400, "batch_size": 100, "lr": 1e-2}
else:
    flow = pg.CouplingFlow(2, blocks=4, hidden=(16, 16), transform="rqs", bins=8, seed=args.seed)
    settings = {"replicas": 24, "steps": 2500, "batch_size": 512, "lr": 5e-3}
model = pg.BayesianFlow(flow, prior_scale="fan-in")
backend = pg.Bootstrap(**settings, seed=args.seed, checkpoint=out / "run_checkpoint.h5")  # a killed run goes on
posteriors = backend.fit_many(model, samples)

# 3. Each network generates events, which fill n x n bins of equal true probability. What the networks differ by, beyond
#    the noise of the generated events, is the posterior's sigma of a bin.
numbers = (2, 3, 4, 5) if args.quick else (5, 7, 10, 14, 20)
results = quantile_bins(posteriors, ring, numbers, events=20_000 if args.quick else 40_000, seed=args.seed)

# 4. Is sigma right? How often does the truth, one over the number of bins, lie within it?
for n, result in results.items():
    print(f"{n} x {n} bins: {result.calibration().text()}\n")
calibrations = {f"{n} x {n} bins": results[n].calibration() for n in (numbers[0], numbers[-1])}
pg.plotting.save_figure(pg.plotting.plot_calibration(calibrations), out / "calibration.png")

# 5. The amplification: the smaller the bins, the more a smooth density gains over counting.
gains = np.array([result.amplification() for result in results.values()])  # [n, 2]: G and its error
for (gain, error), result in zip(gains, results.values(), strict=True):
    share = result.noise_share()
    print(f"{result.bins:4d} bins: G = {gain:.3f} +- {error:.3f}; {share:.0%} of the variance was noise, taken out")
fit = fit_amplification(results)
print(f"G = a bins^b with a = {fit.a:.4f} +- {fit.a_error:.4f}, b = {fit.b:.3f} +- {fit.b_error:.3f}")
bins = np.array([result.bins for result in results.values()])
figure = pg.plotting.plot_amplification(
    {"Bootstrap": bins}, {"Bootstrap": gains[:, 0]}, {"Bootstrap": gains[:, 1]}, {"Bootstrap": fit}
)
print(f"wrote {pg.plotting.save_figure(figure, out / 'amplification.png')}")
