"""
What limits a learned density: the kicker ramp
==============================================

``python examples/kicker_svi.py`` takes about two minutes on one CPU core, with ``--quick`` half a minute.

The events follow p(x, y) = 3x^2 on the unit square (arXiv:2104.04543, sec. 3.2). A physicist who knows this form fits
its parameters to the events. The flow does not know the form. The script compares its uncertainty with that of the fit.
Start with ``wedge_svi.py``, which explains every step. This script needs the extra "fits" (iminuit).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg
from pyrogen.diagnostics import advise, density_along_lines, fit_shape, likelihood_fit, marginal, uncertainty_map
from pyrogen.plotting import plot_correlation, plot_lines, plot_map, plot_marginal_sigma, plot_training
from pyrogen.plotting import save_figure as save

parser = argparse.ArgumentParser(description="A Bayesian flow learns the kicker ramp. A killed run goes on.")
parser.add_argument("--quick", action="store_true", help="20,000 events instead of 300,000")
parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (out/kicker_svi, with the mode)")
parser.add_argument("--seed", type=int, default=0, help="of the events and of the training (0)")
args = parser.parse_args()
out = args.out or Path("out") / ("kicker_svi" + "_quick" * args.quick)
out.mkdir(parents=True, exist_ok=True)

# %%
# 1. Events, flow and posterior
# -----------------------------
target = pg.targets.Kicker()
n = 20_000 if args.quick else 300_000
torch.manual_seed(args.seed)
events = target.sample((n,))

flow = pg.CouplingFlow(2, blocks=2, hidden=(24,), bins=8, transform="bernstein", base="uniform", activation="tanh")
model = pg.BayesianFlow(flow, prior_scale=1.0)
print(f"{n:,} events of {target}, a flow with {model.weights:,} weights")

svi = pg.SVI(
    epochs=45 if args.quick else 60,
    batch_size=512 if args.quick else 2048,
    lr=1e-2,
    lr_widths=5e-2,  # the widths of the posterior start small, and have a long way to go
    seed=args.seed,
    checkpoint=out / "run_checkpoint.h5",
)
posterior = svi.fit(model, events)
posterior.save(out / "posterior.h5")
save(plot_training(posterior.history), out / "training.png")

# %%
# 2. The uncertainty, and that of a fit
# -------------------------------------
# ``likelihood_fit`` fits the true form to the events: its sigma is the smallest that anybody can reach. ``fit_shape``
# asks which errors of the form's parameters would give the sigma that the flow states.
draws = 20 if args.quick else 50
x = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
lines = density_along_lines(posterior, target, x, draws=draws)
shape = fit_shape(lines.sigma, lines.sigma_spread, target.sensitivities(x))
best = likelihood_fit(target, events)
save(plot_lines(lines, shape, best), out / "lines.png")

print(f"\n{'x':>6} {'p':>9} {'sigma':>9} {'truth':>9} {'of fit':>9}")
table = np.stack([lines.t, lines.density, lines.sigma, lines.truth, best.sigma(lines.t)], 1)[::4]
for row in table:
    print("{:6.3f} {:9.4f} {:9.4f} {:9.4f} {:9.4f}".format(*row))
print(f"\nrms bias {lines.rms_bias:.4f}, within 2 sigma {lines.within(2):.1%}")
print("errors of the parameters:", ", ".join(f"{name} {value:.4f}" for name, value in shape.values.items()))
print(best.text())
save(
    plot_map(uncertainty_map(posterior, (0, 0, 1), (1, 0, 1), 30 if args.quick else 60, target=target, draws=draws)),
    out / "map.png",
)

# %%
# 3. The uncertainty of a distribution
# ------------------------------------
# A histogram of x adds up all y. Deviations at different y cancel in part: sigma of a bin is smaller than sigma along a
# line, and neighbouring bins are correlated. Error bars of a band must not be added as if they were independent.
result = marginal(
    posterior,
    target.line_coordinate,
    10 if args.quick else 20,
    range=(0.01, 0.99),
    n=10_000 if args.quick else 50_000,
    draws=draws,
    label="x",
)
measure = target.line_measure(x).numpy()
save(plot_marginal_sigma(result, lines, measure), out / "marginal_sigma.png")
save(plot_correlation(result.bands["a"], label="x", subtract_noise=True), out / "correlation.png")
ratio = float(np.nanmedian(result.ratio_to_lines(lines, measure, "a")))
print(f"\nsigma of the distribution of x over sigma along lines: {ratio:.2f}")

# %%
# 4. Advice and results
# ---------------------
advice = advise(posterior, events, support=target, draws=draws)
print(f"\n{advice.text()}\n")
summary = {"table": table.tolist(), "rms_bias": lines.rms_bias, "within_2_sigma": lines.within(2)}
summary |= {"fit": shape.values, "marginal_over_lines": ratio, "ok": advice.ok}
(out / "summary.json").write_text(json.dumps(summary, indent=1))
print("wrote", *sorted(map(str, out.iterdir())), sep="\n  ")
