"""
Your own events
===============

    python examples/own_events.py events.root --columns pt eta mass
    python examples/own_events.py --quick             # 5,000 Drell-Yan events, in a minute

Any number of features, from HDF5, ROOT, LHE or numpy files. The flow learns four fifths of the events. A fifth is held
out, and the generated events are compared with it. Change the script as you like: it uses nothing but ``pyrogen``.
``pyrogen fit`` does the same from a run card.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import pyrogen as pg
from pyrogen.diagnostics import advise
from pyrogen.plotting import HistogramPanel, plot_histograms, plot_training
from pyrogen.plotting import save_figure as save

SAMPLE = Path(__file__).parent / "data" / "drell_yan_5k.h5"
parser = argparse.ArgumentParser(description="A Bayesian flow learns the events of a file. A killed run goes on.")
parser.add_argument("file", nargs="?", type=Path, default=SAMPLE, metavar="EVENTS", help=".h5, .root, .lhe, .npy, ...")
parser.add_argument("--dataset", metavar="NAME", help="which table of a file that holds several")
parser.add_argument("--columns", nargs="+", metavar="NAME", help="columns to learn (all)")
parser.add_argument("--quick", action="store_true", help="a short training of a small network")
parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (out/own_events, with the mode)")
parser.add_argument("--seed", type=int, default=0, help="of the training (0)")
args = parser.parse_args()

# %%
# 1. The events
# -------------
# A sample knows the names and units of its columns, its weights, and where it is from. In a script of your own,
# ``pg.events.EventSample(array, names, units, weights)`` makes one. ``fit`` takes a plain array or a DataFrame, too.
sample = pg.events.read(args.file, dataset=args.dataset, columns=args.columns)
print(sample.summary())
out = args.out or Path("out") / ("own_events" + "_quick" * args.quick)
out.mkdir(parents=True, exist_ok=True)

order = np.random.default_rng(args.seed).permutation(len(sample))
held_out, learned = sample[order[: len(order) // 5]], sample[order[len(order) // 5 :]]
held_out.save(out / "held_out.h5")

# %%
# 2. The flow
# -----------
# Small networks for small samples: weights that the events cannot determine only widen the uncertainty. The events are
# standardised. Splines act within five standard deviations and leave alone what is further out. Variables with long
# tails, hard edges or a period need other coordinates, given as ``preprocessing=``: see docs/howto/variables.md.
size = {"blocks": 6, "hidden": (16,), "bins": 6} if args.quick else {"blocks": 6, "hidden": (16, 16), "bins": 8}
model = pg.BayesianFlow(pg.CouplingFlow(sample.features, transform="rqs", **size))
print(f"\n{len(learned):,} training events, a flow with {model.weights:,} weights")

# %%
# 3. The posterior
# ----------------
# A tenth of the training events is only watched: ``training.png`` shows whether the flow learns the others by heart.
svi = pg.SVI(
    epochs=40 if args.quick else 200,
    batch_size=min(256, len(learned) // 2),
    lr=5e-3,
    lr_widths=3e-2,
    validation=0.1,
    seed=args.seed,
    checkpoint=out / "run_checkpoint.h5",  # a killed run goes on when the same command is given again
)
posterior = svi.fit(model, learned)
posterior.save(out / "posterior.h5")
save(plot_training(posterior.history), out / "training.png")

# %%
# 4. New events
# -------------
draws = 20 if args.quick else 50
generated = posterior.generate(2_000 if args.quick else 10_000, draws=draws, seed=args.seed)
generated.save(out / "generated.h5")  # .root, .lhe or .npy would do as well
print(f"\n{len(generated):,} generated events, median uncertainty {np.median(generated.uncertainties):.1%}")

# %%
# 5. Every column, generated and held out
# ---------------------------------------
# The central 98 %, so that a far tail does not squeeze the rest into one bin.
bins = max(10, min(40, round(0.6 * len(held_out) ** 0.5)))
edges = {name: np.linspace(*np.quantile(held_out.column(name), [0.01, 0.99]), bins + 1) for name in sample.names}
wanted = {name: (name, its) for name, its in edges.items()}
bands = posterior.histograms(wanted, n=5_000 if args.quick else 20_000, draws=draws)
weights = np.ones(len(held_out)) if held_out.weights is None else held_out.weights
panels, rows = [], {}
print(f"\n{'column':12} {'mean truth':>11} {'generated':>11} {'chi2/bins':>10}")
for name, unit in zip(sample.names, sample.units, strict=True):
    values, band = held_out.column(name), bands[name]
    counts, squares = (np.histogram(values, edges[name], weights=w)[0] for w in (weights, weights**2))
    panel = HistogramPanel(band, counts, held_out.total_weight, np.sqrt(squares), label=name, unit=unit)
    panels.append(panel)
    density, error = panel.truth()
    filled = error > 0
    pull = (band.density() - density)[filled] / np.hypot(error, band.density_sigma())[filled]
    means = float(np.average(values, weights=weights)), float(generated.column(name).mean())
    rows[name] = {"mean_truth": means[0], "mean_generated": means[1], "chi2": float(pull @ pull), "bins": len(pull)}
    print(f"{name:12} {means[0]:11.4g} {means[1]:11.4g} {pull @ pull:7.1f}/{len(pull)}")
save(plot_histograms(panels, truth_label="held-out events"), out / "histograms.png")

# %%
# 6. Advice and results
# ---------------------
advice = advise(posterior, learned, draws=draws, seed=args.seed)
print(f"\n{advice.text()}\n")
(out / "summary.json").write_text(json.dumps({"columns": rows, "ok": advice.ok}, indent=1))
print("wrote", *sorted(map(str, out.iterdir())), sep="\n  ")
