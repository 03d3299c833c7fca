"""
A first Bayesian flow: the wedge ramp
=====================================

``python examples/wedge_svi.py`` takes less than two minutes on one CPU core, with ``--quick`` half a minute.

The events follow p(x, y) = 2x on the unit square (arXiv:2104.04543, sec. 3.1). This density is known, so the script can
hold everything against the truth: the density that the flow learns, and the uncertainty that it states.
``pyrogen toy wedge`` does the same with more figures and more options.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg
from pyrogen.diagnostics import advise, calibration_along_lines, density_along_lines, uncertainty_map
from pyrogen.plotting import HistogramPanel, plot_chains, plot_histograms, plot_lines, plot_map, plot_training
from pyrogen.plotting import save_figure as save

parser = argparse.ArgumentParser(description="A Bayesian flow learns the wedge ramp. A killed run goes on.")
parser.add_argument("--quick", action="store_true", help="20,000 events instead of 300,000")
parser.add_argument("--backend", choices=("svi", "hmc"), default="svi", help="how the posterior is found (svi)")
parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (out/wedge_svi, with the options)")
parser.add_argument("--seed", type=int, default=0, help="of the events and of the training (0)")
args = parser.parse_args()
name = "wedge_svi" + "_quick" * args.quick + "_hmc" * (args.backend == "hmc")
out = args.out or Path("out") / name
out.mkdir(parents=True, exist_ok=True)

# %%
# 1. The events
# -------------
# A tensor [N, 2]. An array, a DataFrame, or ``pg.events.read("events.root")`` would do as well.
# HMC looks at all events in every step, so it gets fewer of them.
target = pg.targets.Wedge()
n = {"svi": 20_000 if args.quick else 300_000, "hmc": 300 if args.quick else 2_000}[args.backend]
torch.manual_seed(args.seed)
events = target.sample((n,))

# %%
# 2. The flow, and the Bayesian flow
# ----------------------------------
# The flow maps the events to a uniform distribution on the unit square. Its Bernstein polynomials live on this square,
# so the hard edges of the ramp are exact. A Bayesian flow is a flow with a prior for each of its weights.
flow = pg.CouplingFlow(2, blocks=2, hidden=(24,), bins=8, transform="bernstein", base="uniform", activation="tanh")
model = pg.BayesianFlow(flow, prior_scale=1.0)
print(f"{n:,} events of {target}, a flow with {model.weights:,} weights")

# %%
# 3. The posterior
# ----------------
# SVI fits a normal distribution to every weight. HMC draws weights from the exact posterior. The rest of the script is
# the same for both: every backend returns a ``Posterior``.
checkpoint = out / "run_checkpoint.h5"  # a killed run goes on when the same command is given again
if args.backend == "svi":
    length = {"epochs": 45, "batch_size": 512} if args.quick else {"epochs": 60, "batch_size": 2048}
    backend = pg.SVI(**length, lr=1e-2, lr_widths=5e-2, seed=args.seed, checkpoint=checkpoint)
else:
    few = {"max_steps": 5, "start_steps": 40} if args.quick else {}  # far from converged: only to see it run
    warmup, kept = (8, 10) if args.quick else (150, 250)
    backend = pg.HMC(chains=4, warmup=warmup, draws=kept, **few, seed=args.seed, checkpoint=checkpoint)
posterior = backend.fit(model, events)
posterior.save(out / "posterior.h5")  # pg.load(...) predicts bit for bit the same
plot_history = plot_training if args.backend == "svi" else plot_chains
save(plot_history(posterior.history), out / "training.png")

# %%
# 4. The density and its uncertainty
# ----------------------------------
# Each draw of the weights is a flow of its own. p is the mean of their densities, sigma their standard deviation.
# The ramp depends on x alone: points on several lines of constant y show the same curve.
draws = 20 if args.quick else 50
x = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
lines = density_along_lines(posterior, target, x, draws=draws)
save(plot_lines(lines), out / "lines.png")
print(f"\n{'x':>6} {'p':>9} {'sigma':>9} {'truth':>9} {'pull':>7}")
table = np.stack([lines.t, lines.density, lines.sigma, lines.truth, lines.pull], 1)[::4]
for row in table:
    print("{:6.3f} {:9.4f} {:9.4f} {:9.4f} {:7.2f}".format(*row))
print(f"\nrms bias {lines.rms_bias:.4f}, within 2 sigma {lines.within(2):.1%}, pull rms {lines.pull_rms:.2f}")
plane = uncertainty_map(posterior, (0, 0, 1), (1, 0, 1), 30 if args.quick else 60, target=target, draws=draws)
save(plot_map(plane), out / "map.png")

# %%
# 5. Histograms with an error band
# --------------------------------
# Every draw of the weights generates its own events. Their histograms differ: that is the band.
generated = 10_000 if args.quick else 50_000
bands = posterior.histograms({"x": (0, 30, (0, 1)), "y": (1, 30, (0, 1))}, n=generated, draws=draws)
panels = [
    HistogramPanel(band, np.histogram(events[:, column], band.edges)[0], total=n, label=label)
    for column, (label, band) in enumerate(bands.items())
]
save(plot_histograms(panels, truth_label="training events"), out / "histograms.png")
posterior.generate(1000).save(out / "generated.h5")  # events, each with its relative uncertainty

# %%
# 6. Is it right?
# ---------------
# The advice needs no truth: it looks at the training and at the events. Coverage needs the truth.
advice = advise(posterior, events, support=target, draws=draws)
coverage = calibration_along_lines([posterior], target, x, draws=draws, seed=args.seed)
print(f"\nDoes sigma cover the truth? {coverage.text()}\n\n{advice.text()}\n")
summary = {"table": table.tolist(), "rms_bias": lines.rms_bias, "within_2_sigma": lines.within(2), "ok": advice.ok}
(out / "summary.json").write_text(json.dumps(summary, indent=1))
print("wrote", *sorted(map(str, out.iterdir())), sep="\n  ")
