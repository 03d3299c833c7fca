"""
Preprocessing, and histograms of any function: the Gaussian half ring
=====================================================================

``python examples/ring_svi.py`` takes about five minutes on one CPU core, with ``--quick`` half a minute.

The events lie on a half ring of radius 4 and width 1 (arXiv:2104.04543, sec. 3.3). Start with ``wedge_svi.py``, which
explains every step. Two things are new here. The events have a range of their own, which the preprocessing maps to the
range of the flow. And x and y depend on each other, so the flow needs more blocks.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg
from pyrogen.diagnostics import advise, calibration_along_lines, density_along_lines, uncertainty_map
from pyrogen.plotting import HistogramPanel, plot_histograms, plot_lines, plot_map, plot_training
from pyrogen.plotting import save_figure as save

parser = argparse.ArgumentParser(description="A Bayesian flow learns a Gaussian half ring. A killed run goes on.")
parser.add_argument("--quick", action="store_true", help="20,000 events instead of 300,000")
parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (out/ring_svi, with the mode)")
parser.add_argument("--seed", type=int, default=0, help="of the events and of the training (0)")
args = parser.parse_args()
out = args.out or Path("out") / ("ring_svi" + "_quick" * args.quick)
out.mkdir(parents=True, exist_ok=True)

# %%
# 1. The events
# -------------
target = pg.targets.GaussianRing()
n = 20_000 if args.quick else 300_000
torch.manual_seed(args.seed)
events = target.sample((n,))

# %%
# 2. Preprocessing and flow
# -------------------------
# Bernstein polynomials live on the unit square. ``UnitBox`` maps a box to it. The box has to hold all events.
# The preprocessing belongs to the model, with its Jacobian. So every density below is per unit of your own x and y.
# Without ``preprocessing=`` the events are standardised. For other variables see docs/howto/variables.md.
#
# One block of the flow changes one feature as a function of the other one. Two blocks can draw a density in x times a
# density in y, as for the ramps. A ring is no such product: it takes six blocks.
box = pg.events.UnitBox([-10, 0], [10, 10])
flow = pg.CouplingFlow(2, blocks=6, hidden=(16,), bins=10, transform="bernstein", base="uniform", activation="tanh")
model = pg.BayesianFlow(flow, prior_scale=1.0, preprocessing=box)
print(f"{n:,} events of {target}, a flow with {model.weights:,} weights")

# %%
# 3. The posterior
# ----------------
# Sigma takes longer to settle than the density: with six blocks twice as long as with two.
svi = pg.SVI(
    epochs=45 if args.quick else 120,
    batch_size=512 if args.quick else 2048,
    lr=1e-2,
    lr_widths=5e-2,
    seed=args.seed,
    checkpoint=out / "run_checkpoint.h5",
)
posterior = svi.fit(model, events)
posterior.save(out / "posterior.h5")
save(plot_training(posterior.history), out / "training.png")

# %%
# 4. Lines from the centre outwards, and a map
# --------------------------------------------
# The truth depends on the radius r alone. So the lines of the ring start at the centre, and sigma is a function of r.
draws = 20 if args.quick else 50
r = torch.linspace(*target.line_range, 33, dtype=torch.float64)
lines = density_along_lines(posterior, target, r, draws=draws)
save(plot_lines(lines), out / "lines.png")
print(f"\n{'r':>6} {'p':>9} {'sigma':>9} {'truth':>9} {'pull':>7}")
table = np.stack([lines.t, lines.density, lines.sigma, lines.truth, lines.pull], 1)[::4]
for row in table:
    print("{:6.3f} {:9.4f} {:9.4f} {:9.4f} {:7.2f}".format(*row))
print(f"\nrms bias {lines.rms_bias:.4f}, within 2 sigma {lines.within(2):.1%}, pull rms {lines.pull_rms:.2f}")
plane = uncertainty_map(posterior, (0, -7, 7), (1, 0, 7), 30 if args.quick else 60, target=target, draws=draws)
save(plot_map(plane), out / "map.png")

# %%
# 5. Histograms of whatever you want
# ----------------------------------
# An observable is a column, or any function of the events [N, 2]: here the radius.
wanted = {"x": (0, 30, (-7, 7)), "y": (1, 30, (0, 7)), "r": (lambda events: events.norm(dim=1), 30, (0, 7))}
bands = posterior.histograms(wanted, n=10_000 if args.quick else 50_000, draws=draws)
truth = {"x": events[:, 0], "y": events[:, 1], "r": events.norm(dim=1)}
panels = [
    HistogramPanel(band, np.histogram(truth[name], band.edges)[0], total=n, label=name) for name, band in bands.items()
]
save(plot_histograms(panels, truth_label="training events"), out / "histograms.png")

# %%
# 6. Is it right?
# ---------------
advice = advise(posterior, events, support=target, draws=draws)
coverage = calibration_along_lines([posterior], target, r, draws=draws, seed=args.seed)
print(f"\nDoes sigma cover the truth? {coverage.text()}\n\n{advice.text()}\n")
summary = {"table": table.tolist(), "rms_bias": lines.rms_bias, "within_2_sigma": lines.within(2), "ok": advice.ok}
(out / "summary.json").write_text(json.dumps(summary, indent=1))
print("wrote", *sorted(map(str, out.iterdir())), sep="\n  ")
