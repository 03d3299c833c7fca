"""
Drell-Yan: from a generator's file to events with uncertainties
===============================================================

    python examples/drell_yan.py                                 # a million events from Pythia 8 (extra "pythia")
    python examples/drell_yan.py --events unweighted.lhe.gz      # your own: LHE, HDF5 or ROOT
    python examples/drell_yan.py --quick                         # 5,000 events in a minute

pp -> Z/gamma* -> l+ l-, as in section 4 of arXiv:2104.04543: a resonance of 2.5 GeV width and tails of several TeV in
one sample. The flow learns four fifths of the events. A fifth is held out, and the generated events are compared with
it. ``pyrogen drell-yan`` does the same with a classifier test and more options. Needs the extra "lhc".
"""

import argparse
import json
from pathlib import Path

import hist
import numpy as np

import pyrogen as pg
from pyrogen.diagnostics import advise, peak_width, sample_quality
from pyrogen.events import LEPTONS, PERIODIC, collision_energy, four_vectors, lepton_pair, lepton_pair_coordinates
from pyrogen.plotting import HistogramPanel, plot_kinematics, plot_training
from pyrogen.plotting import save_figure as save

parser = argparse.ArgumentParser(description="A Bayesian flow learns Drell-Yan events. A killed run goes on.")
parser.add_argument("--events", type=Path, metavar="FILE", help="events to learn: .lhe, .lhe.gz, .h5, .root, .npy")
parser.add_argument("--quick", action="store_true", help="a small network, and 5,000 events if no file is given")
parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results (out/drell_yan, with the mode)")
parser.add_argument("--seed", type=int, default=0, help="of the events and of the training (0)")
args = parser.parse_args()

# %%
# 1. The events
# -------------
# An ``EventSample`` holds values, names, units, weights and where the events are from. An LHE file lists all particles
# of an event: ``LEPTONS["l"]`` takes the pair of electrons or muons. ``lepton_pair`` checks that their transverse
# momenta balance, so that four numbers describe an event: px, py, pz of the positive lepton, pz of the negative one.
if args.events is None and not args.quick:
    sample = pg.events.drell_yan(1_000_000, seed=1 + args.seed)
else:
    file = args.events or Path(__file__).parent / "data" / "drell_yan_5k.h5"
    sample = pg.events.read(file, particles=LEPTONS["l"] if ".lhe" in file.suffixes else None)
sample = lepton_pair(sample)
print(sample.summary())
out = args.out or Path("out") / ("drell_yan" + "_quick" * args.quick)
out.mkdir(parents=True, exist_ok=True)

order = np.random.default_rng(args.seed).permutation(len(sample))
held_out, learned = sample[order[: len(order) // 5]], sample[order[len(order) // 5 :]]
held_out.save(out / "held_out.h5")

# %%
# 2. The coordinates, and the flow
# --------------------------------
# In Cartesian momenta the Z peak is a thin curved shell, which no flow learns well. The coordinates "mass" are the mass
# and the rapidity of the pair, and two angles. The peak is in one of them. The azimuth is periodic, and the flow knows.
# The preprocessing belongs to the model: densities and generated events are those of the momenta.
size = {"blocks": 4, "hidden": (16, 16), "bins": 8} if args.quick else {"blocks": 6, "hidden": (64, 64), "bins": 10}
flow = pg.CouplingFlow(4, transform="rqs", mixing="random", periodic=PERIODIC["mass"], **size)
model = pg.BayesianFlow(flow, preprocessing=lepton_pair_coordinates("mass", energy=collision_energy(sample)))
print(f"\n{len(learned):,} training events, a flow with {model.weights:,} weights")

# %%
# 3. The posterior
# ----------------
# A killed run goes on from the checkpoint when the same command is given again.
settings = {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2}
if not args.quick:
    settings = {"epochs": 16, "batch_size": 1024, "lr": 2e-3, "lr_widths": 1e-2, "widths_after": 0.5}
posterior = pg.SVI(**settings, seed=args.seed, checkpoint=out / "run_checkpoint.h5").fit(model, learned)
posterior.save(out / "posterior.h5")
save(plot_training(posterior.history), out / "training.png")

# %%
# 4. New events
# -------------
# The file holds the four-vectors of both leptons and the relative uncertainty of each event. For a billion events it is
# the same call: events are made and written in chunks.
draws = 20 if args.quick else 50
path = posterior.generate_to(out / "generated.h5", len(held_out), draws, seed=args.seed, finish=four_vectors)
generated = lepton_pair(pg.events.read(path))
median = float(np.median(generated.uncertainties))
print(f"\n{len(generated):,} generated events, median uncertainty {median:.1%}")

# %%
# 5. Distributions with the posterior's band, over the held-out events
# --------------------------------------------------------------------
observables = {name: pg.events.lepton_pair_observables()[name] for name in ("E", "pT", "pz", "M_pair")}
wanted = {name: (its, its.edges[:: 3 if args.quick else 1]) for name, its in observables.items()}
bands = posterior.histograms(wanted, n=10_000 if args.quick else 100_000, draws=draws)
panels = []
for name, its in observables.items():
    truth = hist.Hist(hist.axis.Variable(wanted[name][1]), storage=hist.storage.Weight())  # with the events' weights
    truth.fill(its(held_out).numpy(), weight=held_out.weights)
    panels.append(HistogramPanel(bands[name], truth, label=its.label, unit=its.unit, log=its.log))
save(plot_kinematics(panels, truth_label="held-out events"), out / "kinematics.png")

# %%
# 6. Is it right?
# ---------------
# Distances to the held-out events, in units of what two samples of true events differ by; and the width of the Z peak.
quality = sample_quality(held_out, generated, learned, observables, seed=args.seed)
peaks = [peak_width(observables["M_pair"](events).numpy(), events.weights) for events in (generated, held_out)]
advice = advise(posterior, learned, draws=draws)
print(f"\n{quality.text()}\n\ngenerated {peaks[0].text()}\nheld out  {peaks[1].text()}\n\n{advice.text()}\n")
summary = {"wasserstein": dict(zip(quality.names, quality.ratio.tolist(), strict=True)), "median_uncertainty": median}
summary |= {"peak": {"generated": peaks[0].width, "held_out": peaks[1].width}, "ok": advice.ok}
(out / "summary.json").write_text(json.dumps(summary, indent=1))
print("wrote", *sorted(map(str, out.iterdir())), sep="\n  ")
