"""A bump hunt on a falling dijet spectrum with a resonance, by four methods beside each other.

    python examples/bump_hunt.py            # 5,000 masses and 160 of a resonance, a minute
    python examples/bump_hunt.py --quick    # a few seconds

5,000 background masses between 2.5 and 5 TeV, and 160 events of a resonance at 3.5 TeV. Four methods scan 12 windows
and say how many background events they expect: the dijet function, fitted to the sidebands; counting in two sidebands;
generators for both the observed and the background events; and real events with the background of generators. The
generators are a bootstrap of flows of the mass. Needs the extra "fits".
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

import pyrogen as pg
from pyrogen.search import GeneratedMasses, SidebandCounting, SidebandFit, bump_hunt

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="fewer events, windows, toys and replicas: a few seconds")
parser.add_argument("--seed", type=int, default=1, help="seed of events, toys and trainings (1)")
parser.add_argument("--out", type=Path, default=Path("out/bump_hunt"), help="folder for the results (out/bump_hunt)")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time
if args.quick:
    events, signal, count, toys, replicas, steps = 1_500, 60, 6, 50, 8, 150
else:
    events, signal, count, toys, replicas, steps = 5_000, 160, 12, 500, 24, 400

# 1. Masses in TeV: a spectrum that falls as the dijet function, and a resonance.
limits, energy, rng = (2.5, 5.0), 13.0, np.random.default_rng(args.seed)
grid = np.linspace(*limits, 20_001)
x = grid / energy
density = (1 - x) ** 9 / x ** (5.0 + 0.1 * np.log(x))
cumulative = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
background = np.interp(rng.uniform(size=rng.poisson(events)), cumulative / cumulative[-1], grid)
masses = np.concatenate([background, rng.normal(3.5, 0.1, signal)])

# 2. Two classical methods. The toys tell how often a spectrum without a resonance has such an excess anywhere.
windows = pg.search.mass_windows((2.7, 4.7), count)
given = {"range": limits, "seed": args.seed}
fit = SidebandFit(energy=energy, parameters=3)
results = {
    "sideband fit": bump_hunt(masses, windows, background=fit, toys=toys, **given),
    "counting": bump_hunt(masses, windows, background=SidebandCounting(), toys=toys, **given),
}

# 3. Generators: flows of the mass alone, one polynomial each, on a box that ends where the range ends. A polynomial of
#    degree n resolves about (high - low) sqrt(u (1 - u) / n), with u the place in the box: 0.16 TeV, less than a window.
flow = pg.CouplingFlow(1, blocks=1, hidden=(), transform="bernstein", bins=60, base="uniform")
model = pg.BayesianFlow(flow, preprocessing=pg.events.UnitBox(*limits), prior_scale=3.0)
backend = pg.Bootstrap(replicas=replicas, steps=steps, lr=0.05, batch_size=500, seed=args.seed)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", pg.SamplingWarning)  # of few replicas
    posterior = backend.fit(model, pg.EventSample(masses[:, None], ["mjj"], ["TeV"]))
    source = GeneratedMasses(source=posterior, column="mjj", sidebands=fit)
    results["generators"] = bump_hunt(source, windows, background=fit, toys=toys, **given)
    results["events, B of generators"] = bump_hunt(masses, windows, background=source, **given)

# 4. All windows of each method, and the window with the largest excess of the fit: do the methods agree?
for name, result in results.items():
    (args.out / f"{name.replace(' ', '_').replace(',', '')}.txt").write_text(result.text() + "\n")
    print(f"\n{result.text()}")
best = results["sideband fit"].best
low, high = windows[best]
print(f"\nwindow with the largest excess of the fit, {low:.3f} to {high:.3f} TeV:")
print(f"{'method':26} {'O':>8} {'B':>8} {'delta_B':>8} {'S':>7} {'signif.':>8} {'local p':>9} {'z':>6}")
for name, r in results.items():
    print(
        f"{name:26} {r.observed[best]:8.1f} {r.background[best]:8.1f} {r.background_sigma[best]:8.1f} "
        f"{r.signal[best]:7.1f} {r.significance[best]:8.2f} {r.p_value[best]:9.2g} {r.z[best]:6.2f}"
    )
pg.plotting.save_figure(pg.plotting.plot_spectrum(results["sideband fit"]), args.out / "spectrum.png")
pg.plotting.save_figure(pg.plotting.plot_scan(results), args.out / "scan.png")
print(f"\nfigures in {args.out}")
