"""A bump hunt on a falling dijet spectrum with a resonance, by all methods beside each other.

    python examples/bump_hunt.py [--quick] [--out bump_hunt]

5,000 background masses between 2.5 and 5 TeV, and 160 events of a resonance at 3.5 TeV. Four methods scan 12 windows:
the dijet function, fitted to the sidebands; counting in two sidebands; generators for both O and B; and real events for
O with the generators for B. The generators are a bootstrap of flows of the mass.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

import pyrogen as pg
from pyrogen.search import GeneratedMasses, SidebandCounting, SidebandFit, bump_hunt

RANGE, ENERGY = (2.5, 5.0), 13.0
MASS, WIDTH = 3.5, 0.1


def falling(n: int, rng: np.random.Generator) -> np.ndarray:
    """About ``n`` masses by the dijet function."""
    grid = np.linspace(*RANGE, 20_001)
    x = grid / ENERGY
    density = (1 - x) ** 9 / x ** (5.0 + 0.1 * np.log(x))
    cumulative = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    return np.interp(rng.uniform(size=rng.poisson(n)), cumulative / cumulative[-1], grid)


def generators(masses: np.ndarray, replicas: int, steps: int, seed: int) -> pg.Posterior:
    """A bootstrap of flows of the mass alone: one polynomial each, on a box that ends where the range ends.

    A polynomial of degree n resolves about ``(high - low) sqrt(u (1 - u) / n)``, with u the place in the box: here
    0.16 TeV, less than a window.
    """
    flow = pg.CouplingFlow(1, blocks=1, hidden=(), transform="bernstein", bins=60, base="uniform")
    model = pg.BayesianFlow(flow, preprocessing=pg.events.UnitBox(*RANGE), prior_scale=3.0)
    settings = pg.Bootstrap(replicas=replicas, steps=steps, lr=0.05, batch_size=500, seed=seed)
    return settings.fit(model, pg.EventSample(masses[:, None], ["mjj"], ["TeV"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer events, windows, toys and replicas: a few seconds")
    parser.add_argument("--out", default="bump_hunt", help="folder of the figures and tables")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    events, signal, count, toys, replicas, steps = (
        (1_500, 60, 6, 50, 8, 150) if args.quick else (5_000, 160, 12, 500, 24, 400)
    )
    rng = np.random.default_rng(args.seed)
    masses = np.concatenate([falling(events, rng), rng.normal(MASS, WIDTH, signal)])
    windows = pg.search.mass_windows((2.7, 4.7), count)
    given = {"range": RANGE, "seed": args.seed}
    fit = SidebandFit(energy=ENERGY, parameters=3)
    results = {
        "sideband fit": bump_hunt(masses, windows, background=fit, toys=toys, **given),
        "counting": bump_hunt(masses, windows, background=SidebandCounting(), toys=toys, **given),
    }
    warnings.simplefilter("ignore", pg.SamplingWarning)
    posterior = generators(masses, replicas, steps, args.seed)
    source = GeneratedMasses(source=posterior, column="mjj", sidebands=fit)
    results["generators"] = bump_hunt(source, windows, background=fit, toys=toys, **given)
    results["events, B of generators"] = bump_hunt(masses, windows, background=source, **given)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        (out / f"{name.replace(' ', '_').replace(',', '')}.txt").write_text(result.text() + "\n")
        print(f"\n{result.text()}")
    low, high = windows[results["sideband fit"].best]
    print(f"\nwindow with the largest excess of the fit, {low:.3f} to {high:.3f} TeV:")
    print(f"{'method':26} {'O':>8} {'B':>8} {'delta_B':>8} {'S':>7} {'signif.':>8} {'local p':>9} {'z':>6}")
    at = results["sideband fit"].best
    for name, r in results.items():
        print(
            f"{name:26} {r.observed[at]:8.1f} {r.background[at]:8.1f} {r.background_sigma[at]:8.1f} "
            f"{r.signal[at]:7.1f} {r.significance[at]:8.2f} {r.p_value[at]:9.2g} {r.z[at]:6.2f}"
        )
    pg.plotting.save_figure(pg.plotting.plot_spectrum(results["sideband fit"]), out / "spectrum.png")
    pg.plotting.save_figure(pg.plotting.plot_scan(results), out / "scan.png")
    print(f"\nfigures in {out}")


if __name__ == "__main__":
    main()
