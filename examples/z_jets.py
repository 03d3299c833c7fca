"""
Z + jets: events with a varying number of jets
==============================================

    python examples/z_jets.py                          # 500,000 events from Pythia 8 and fastjet (extras)
    python examples/z_jets.py --events z_jets.h5       # your own, with the columns of pg.events.z_jets
    python examples/z_jets.py --quick                  # 5,000 events in a minute

pp -> Z/gamma* (-> mu mu) + 1, 2, 3 jets, the system of arXiv:2110.13632. One chain of flows learns all of it, also how
probable each number of jets is. ``drell_yan.py`` explains what both scripts share. ``pyrogen z-jets`` does the same,
with classifier tests, other coordinates and a discriminator. Needs the extra "lhc".
"""

import argparse
import json
from pathlib import Path

import hist
import numpy as np
import torch

import pyrogen as pg
from pyrogen.diagnostics import advise
from pyrogen.events import OfObjects, jet_coordinates, separated_jets, z_jets_observables
from pyrogen.plotting import HistogramPanel, plot_kinematics, plot_training
from pyrogen.plotting import save_figure as save

parser = argparse.ArgumentParser(description="A chain of flows learns Z + jets. A killed run goes on.")
parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn: .h5 with numbers of jets")
parser.add_argument("--quick", action="store_true", help="a small network, and 5,000 events if no file is given")
parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (out/z_jets, with the mode)")
parser.add_argument("--seed", type=int, default=0, help="of the events and of the training (0)")
args = parser.parse_args()

# %%
# 1. The events
# -------------
# A row has two muons and up to three jets. Where a jet is missing, its four columns are NaN. ``sample.multiplicity``
# knows that. No two jets are closer than the radius of the jet algorithm, except a few that moved while they grew.
if args.events is None and not args.quick:
    sample = pg.events.z_jets(500_000, seed=1 + args.seed)
else:
    sample = pg.events.read(args.events or Path(__file__).parent / "data" / "z_jets_5k.h5")
sample = sample[separated_jets(sample, 0.4).keep]
print(sample.summary())
out = args.out or Path("out") / ("z_jets" + "_quick" * args.quick)
out.mkdir(parents=True, exist_ok=True)

order = np.random.default_rng(args.seed).permutation(len(sample))
held_out, learned = sample[order[: len(order) // 5]], sample[order[len(order) // 5 :]]
held_out.save(out / "held_out.h5")

# %%
# 2. The coordinates, and a chain of flows
# ----------------------------------------
# One flow learns the muons and the first jet, one adds the second jet, one the third. A small network gives P(n). The
# coordinates "resonance" know the mass of the muon pair, and leave no room for jets that are too close to each other.
coordinates = jet_coordinates("resonance", most=3)
size = {"blocks": 4, "hidden": (16, 16), "bins": 8}
if not args.quick:
    size = {"blocks": (6, 4, 4), "hidden": (64, 64), "bins": 10}
flow = pg.MultiplicityFlow(
    **coordinates.layout.config(),
    **size,
    periodic=coordinates.periodic,
    uniform=coordinates.uniform,
    mixing="random",
)
model = pg.BayesianFlow(flow, preprocessing=coordinates.preprocessing)
print(f"\n{len(learned):,} training events, flows with {model.weights:,} weights")

# %%
# 3. The posterior, and new events
# --------------------------------
# With ``log_weights=True`` each event in the file says how probable it is for every weight draw. From the file alone
# ``pg.sample_histograms`` then makes histograms with bands, long after the training.
settings = {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2}
if not args.quick:
    settings = {"epochs": 24, "batch_size": 1024, "lr": 2e-3, "lr_widths": 3e-2, "widths_after": 0.4}
posterior = pg.SVI(**settings, seed=args.seed, checkpoint=out / "run_checkpoint.h5").fit(model, learned)
posterior.save(out / "posterior.h5")
save(plot_training(posterior.history), out / "training.png")
draws = 20 if args.quick else 50
path = posterior.generate_to(out / "generated.h5", max(len(held_out), 5000), draws, seed=args.seed, log_weights=True)

# %%
# 4. How many jets?
# -----------------
found = posterior.multiplicities().numpy().reshape(-1, 3)  # [draws, 3]
true = np.bincount(held_out.counts, held_out.weights, minlength=4)[1:] / held_out.total_weight
print("\nnumber of jets   posterior             held-out events")
for jets in (1, 2, 3):
    print(f"{jets:14}   {found[:, jets - 1].mean():.5f} +- {found[:, jets - 1].std():.5f}   {true[jets - 1]:.5f}")

# %%
# 5. Distributions for two jets
# -----------------------------
# ``OfObjects(..., 2, 2)`` counts events with two jets, as fractions of all events: sigma of P(2) is in the bands.
observables = {name: z_jets_observables()[name] for name in ("pt_j1", "pt_j2", "M_pair", "delta_r_j1j2")}
wanted, two = {}, held_out[held_out.counts == 2]
for name, its in observables.items():
    truth = hist.Hist(hist.axis.Variable(its.edges[:: 4 if args.quick else 2]), storage=hist.storage.Weight())
    truth.fill(its(two.tensor(torch.float64)).numpy(), weight=two.weights)
    wanted[name] = (OfObjects(its, held_out.multiplicity, 2, 2), truth)
bands = pg.sample_histograms(path, wanted)
panels = [
    HistogramPanel(bands[name], wanted[name][1], held_out.total_weight, label=its.label, unit=its.unit, log=its.log)
    for name, its in observables.items()
]
save(plot_kinematics(panels, truth_label="held-out events"), out / "two_jets.png")

# %%
# 6. Advice and results
# ---------------------
advice = advise(posterior, learned, draws=draws)
print(f"\n{advice.text()}\n")
summary = {"jets": {"mean": found.mean(0).tolist(), "sigma": found.std(0).tolist(), "truth": true.tolist()}}
(out / "summary.json").write_text(json.dumps(summary | {"ok": advice.ok}, indent=1))
print("wrote", *sorted(map(str, out.iterdir())), sep="\n  ")
