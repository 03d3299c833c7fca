"""Calorimeter showers given the incident energy: learn them, make new ones with their uncertainties, compare.

    python examples/showers.py                      # 160,000 parametric photons, up to an hour of one core
    python examples/showers.py --file dataset_1_photons_1.hdf5 --geometry binning_dataset_1_photons.xml
    python examples/showers.py --quick              # 6,000 photons, in a minute
    python benchmarks/classifier_control.py out/showers    # what is wrong with them?

Files are those of the CaloChallenge, of CaloGAN, or of pg.events.write_showers. Parametric showers are mean profiles
with fluctuations; they replace no simulation of a detector. The flow is explained in docs/showers.md.
"""

import argparse
from pathlib import Path

import numpy as np

import pyrogen as pg
from pyrogen.events import Showers
from pyrogen.plotting import HistogramPanel, plot_kinematics, plot_shower_images, plot_training, save_figure

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--file", type=Path, metavar="SHOWERS", help="showers to learn; parametric ones if left out")
parser.add_argument("--geometry", metavar="XML", help="binning file of the CaloChallenge, or layers such as 0,8,20")
parser.add_argument(
    "--particle", choices=("gamma", "e-", "e+", "pi-", "pi+"), default="gamma", help="parametric (gamma)"
)
parser.add_argument("--events", type=int, metavar="N", help="showers, a fifth held out (200,000; quick: 7,500)")
parser.add_argument("--epochs", type=int, metavar="E", help="passes over the showers (48; quick: 25)")
parser.add_argument("--quick", action="store_true", help="a small network and few showers, to see it run")
parser.add_argument("--seed", type=int, default=0, help="seed of showers and training (0)")
parser.add_argument("--out", type=Path, help="folder for the results (out/showers)")
args = parser.parse_args()
out = args.out or Path("out") / ("showers_quick" if args.quick else "showers")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Showers, without cells below a threshold of 1 MeV. A fifth of them is held out.
threshold = 1e-3  # GeV
if args.file:
    geometry = args.geometry
    if geometry and geometry[0].isdigit() and "," in geometry:  # first cells of the layers, where no file names them
        geometry = tuple(map(int, geometry.split(",")))
    showers = pg.events.read_showers(args.file, geometry, n=args.events).suppressed(threshold)
else:
    n = args.events or (7_500 if args.quick else 200_000)
    showers = pg.events.showers(n, args.particle, seed=1 + args.seed, threshold=threshold)
print(showers)
order = np.random.default_rng(args.seed).permutation(len(showers))
truth, learned = (showers[rows] for rows in np.split(order, [round(0.2 * len(showers))]))
pg.events.write_showers(truth, out / "held_out.hdf5")

# 2. A chain of flows: first the energies of the layers, given the incident energy, then the cells of each layer.
geometry = truth.geometry
size = {"blocks": 2, "hidden": (32,)} if args.quick else {"blocks": 4, "hidden": (64, 64)}
flow = pg.ShowerFlow(geometry.sizes, threshold, order=geometry.outside_in, **size, bins=6, seed=args.seed)
if args.quick:
    settings = {"epochs": args.epochs or 25, "batch_size": 256, "lr": 4e-3, "widths_after": 0.5}
else:
    settings = {"epochs": args.epochs or 48, "batch_size": 512, "lr": 2e-3, "widths_after": 0.6}
svi = pg.SVI(**settings, lr_widths=3e-2, validation=0.05, seed=args.seed, checkpoint=out / "run_checkpoint.h5")
posterior = svi.fit(
    pg.BayesianFlow(flow), learned.events, context=learned.context
)  # a killed run goes on when repeated
posterior.save(out / "posterior.h5")
save_figure(plot_training(posterior.history), out / "training.png")

# 3. One generated shower for each true one, of the same incident energy. The log-weights hold the posterior's draws.
draws = 10 if args.quick else 20
generated = posterior.generate(len(truth), draws, context=truth.context, seed=args.seed, log_weights=True)
generated.save(out / "generated.h5")
made = Showers(generated, truth.energies, geometry)
print(f"{len(made):,} generated showers, median uncertainty {np.median(generated.uncertainties):.1%}\n")
save_figure(plot_shower_images(truth, made, truth_label="held-out showers"), out / "images.png")

# 4. Distributions with the posterior's band. What a shower does not have, such as the centre of an empty layer, is NaN
#    and in no bin.
panels = {}
print(
    f"{'observable':22} {'mean truth':>11} {'generated':>11} {'of showers':>11} {'generated':>11}  bins within 2 sigma"
)
for name, observable in pg.events.shower_observables(geometry, float(np.quantile(truth.energies, 0.999))).items():
    true, new = (observable(each.events).numpy() for each in (truth, made))
    there = true[np.isfinite(true)]
    if len(there) == 0 or np.ptp(there) == 0:
        continue  # nothing to draw
    low, high = np.quantile(there, [0.001, 0.999])
    values = np.unique(there)
    edges = np.linspace(low, high, 31) if low < high else np.linspace(there.min(), there.max(), 31)
    if len(values) <= 60:  # shares of a few cells: one bin for each value
        middle = (values[1:] + values[:-1]) / 2
        edges = np.array([2 * values[0] - middle[0], *middle, 2 * values[-1] - middle[-1]])
    band = pg.sample_histograms(generated, {name: (observable, edges)})[name]
    counts = np.histogram(there, edges)[0]
    panel = HistogramPanel(band, counts, len(truth), label=observable.label, unit=observable.unit, log=True)
    panels[name] = panel
    density, error = panel.truth()
    off = np.abs(band.density() - density)[error > 0] / np.hypot(error, band.density_sigma())[error > 0]
    shares = f"{np.isfinite(true).mean():11.2%} {np.isfinite(new).mean():11.2%}"
    label = f"{name} [{panel.unit}]" if panel.unit else name
    agree = f"{np.mean(off < 2):.0%} of {len(off)}"
    print(f"{label:22} {np.nanmean(true):11.4g} {np.nanmean(new):11.4g} {shares}  {agree}")

# 5. One figure for the whole shower, and one for each layer.
figures = {"showers": [panel for name, panel in panels.items() if not name[-1].isdigit()]}
for i, number in enumerate(geometry.numbers):
    figures[f"layer_{i}"] = [panel for name, panel in panels.items() if name.endswith(f"_{number}")]
for name, its in figures.items():
    save_figure(plot_kinematics(its, truth_label="held-out showers"), out / f"{name}.png")
print(f"\nwrote posterior.h5, held_out.hdf5, generated.h5 and figures in {out}")
