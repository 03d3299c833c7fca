"""Bump hunts without a signal and with one: are p-values uniform, and what does each method find?

    python benchmarks/bump_hunt.py [--samples 200] [--trained 200] [--replicas 12] [--figure p_values.png]

Falling spectra of 6,000 expected masses between 2.5 and 5 TeV, one window from 3.3 to 3.7 TeV. Samples without a signal
give a Kolmogorov test of the p-values, the width of the z-values and the rate of 2-sigma claims; samples with a
resonance in the window the mean z and the fraction of 3-sigma claims, against its strength in units of
``sqrt(B + delta_B^2)`` of the fit. The generators are Bernstein flows of the mass, on coordinates that end where the
range ends; a bootstrap of them for each sample. ``--coordinates open`` shows the bias of a generator whose coordinates
go on beyond the upper end of the range.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import pyrogen as pg
from pyrogen.search import GeneratedMasses, SidebandCounting, SidebandFit, bump_hunt

RANGE, WINDOW, NARROW, ENERGY = (2.5, 5.0), (3.3, 3.7), (3.4, 3.6), 13.0
EVENTS, WIDTH = 6_000, 0.08
MAXIMISATIONS = 300  # of the likelihood of a mixture
FIT = SidebandFit(bins=60, parameters=3)
STRENGTHS = (0, 1, 2, 3, 5)
GRID = np.linspace(*RANGE, 20_001)


def cumulative() -> np.ndarray:
    """Distribution function of the background on the grid."""
    x = GRID / ENERGY
    density = (1 - x) ** 9 / x ** (5.0 + 0.1 * np.log(x))
    found = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    return found / found[-1]


CDF = cumulative()
EXPECTED = EVENTS * float(np.diff(np.interp(WINDOW, GRID, CDF))[0])


def masses(seed: int, signal: float = 0.0) -> np.ndarray:
    """One sample: Poisson numbers of background and signal."""
    rng = np.random.default_rng([seed, 19])
    background = np.interp(rng.uniform(size=rng.poisson(EVENTS)), CDF, GRID)
    resonance = np.clip(rng.normal(3.5, WIDTH, rng.poisson(signal)), *RANGE)
    return np.concatenate([background, resonance])


def bootstrap(
    samples: list[np.ndarray], seed: int, replicas: int, steps: int, degree: int, coordinates: str
) -> list[pg.Posterior]:
    """A bootstrap of small flows for each sample, all in one batch; samples are cut to one size."""
    box = pg.events.UnitBox(*RANGE) if coordinates == "closed" else pg.events.PowerLaw(RANGE[0])
    size = min(map(len, samples))
    rng = np.random.default_rng([seed, 20])
    events = np.stack([rng.permutation(sample)[:size, None] for sample in samples])
    flow = pg.CouplingFlow(1, blocks=1, hidden=(), transform="bernstein", bins=degree, base="uniform")
    model = pg.BayesianFlow(flow, preprocessing=box, prior_scale=3.0)
    settings = pg.Bootstrap(replicas=replicas, steps=steps, lr=0.05, batch_size=250, seed=seed, progress=False)
    return settings.fit_many(model, events)


def converged(seeds: range, signal: float, replicas: int, degree: int, coordinates: str) -> dict[str, list[float]]:
    """z-values of replicas at their minimum: the polynomial of largest likelihood for each bootstrap sample.

    The density of such a flow is a mixture of Beta densities, whose fractions expectation maximisation finds. Steps of
    a training, mini-batches and anchors are left out; so it shows the model and the statistics alone.
    """
    edges = np.linspace(*RANGE, 126)  # the window begins and ends at one of them
    box = (edges - RANGE[0]) / (RANGE[1] - RANGE[0])
    if coordinates == "open":
        law = pg.events.PowerLaw(RANGE[0]).fit(masses(0)[:, None])
        box = 1 - law.forward(torch.tensor(edges)[:, None])[0].numpy()[:, 0]
    k = np.arange(degree)[:, None]
    share = 0.99 * np.diff(stats.beta.cdf(box, k + 1, degree - k)) + 0.01 * np.diff(box)
    found: dict[str, list[float]] = {"generators": [], "masses, B of generators": []}
    samples = [masses(seed, signal) for seed in seeds]
    rng = np.random.default_rng([seeds[0], 21])
    counts = np.array([np.histogram(sample, edges)[0] for sample in samples])
    drawn = np.concatenate([rng.multinomial(its.sum(), its / its.sum(), replicas) / its.sum() for its in counts])
    fractions = np.full((len(drawn), degree), 1 / degree)
    for _ in range(MAXIMISATIONS):
        fractions *= (drawn / (fractions @ share)) @ share.T
    for sample, spectra in zip(samples, np.split(fractions @ share, len(samples)), strict=True):
        band = pg.HistogramBand(edges, spectra, len(sample), "mass")
        source = GeneratedMasses(source=band, events=float(len(sample)), sidebands=FIT)
        given = {"range": RANGE, "progress": False}
        found["generators"].append(float(bump_hunt(source, [WINDOW], background=FIT, **given).z[0]))
        found["masses, B of generators"].append(float(bump_hunt(sample, [WINDOW], background=source, **given).z[0]))
    return found


def trained(seeds: list[int], signal: float, **settings: int | str) -> dict[str, list[float]]:
    """z-values of generators, by what is made of their spread."""
    found: dict[str, list[float]] = {"generators": [], "generators, B added": [], "masses, B of generators": []}
    samples = [masses(seed, signal) for seed in seeds]
    for sample, posterior in zip(samples, bootstrap(samples, seeds[0], **settings), strict=True):
        source = GeneratedMasses(source=posterior, sidebands=FIT)
        result = bump_hunt(source, [WINDOW], range=RANGE, background=FIT, progress=False)
        found["generators"].append(float(result.z[0]))
        twice = result.signal[0] / np.sqrt(result.signal_sigma[0] ** 2 + result.background[0])
        found["generators, B added"].append(float(twice))
        scaled = GeneratedMasses(source=posterior, events=float(len(sample)), sidebands=FIT)
        real = bump_hunt(sample, [WINDOW], range=RANGE, background=scaled, progress=False)
        found["masses, B of generators"].append(float(real.z[0]))
    return found


def counted(seeds: range, signal: float) -> dict[str, list[float]]:
    """z-values of the fit and of counting."""
    methods = {
        "fit": (FIT, WINDOW),
        "counting": (SidebandCounting(), WINDOW),
        "counting, half the window": (SidebandCounting(), NARROW),
        "counting, linear": (SidebandCounting(shape="linear"), WINDOW),
    }
    found: dict[str, list[float]] = {name: [] for name in methods}
    for seed in seeds:
        sample = masses(seed, signal)
        for name, (method, window) in methods.items():
            result = bump_hunt(sample, [window], range=RANGE, background=method, progress=False)
            found[name].append(float(result.z[0]))
    return found


def line(name: str, strength: int, z: list[float]) -> str:
    """A row of the table."""
    n, values = len(z), np.array(z)
    test = f"KS p = {stats.kstest(stats.norm.sf(values), 'uniform').pvalue:8.2g}" if strength == 0 else ""
    share = [
        f"{np.mean(values > level):.3f}+-{max(np.std(values > level), 1 / n) / np.sqrt(n):.3f}" for level in (2, 3)
    ]
    return (
        f"{strength:>2} {name:36} {n:5} z = {values.mean():6.2f} +- {values.std() / np.sqrt(n):.2f}, "
        f"width {values.std(ddof=1):.2f} +- {1 / np.sqrt(2 * n):.2f}, above 2, 3: {share[0]}, {share[1]}  {test}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="samples of each strength for fit and counting")
    parser.add_argument("--converged", type=int, default=200, help="samples for generators at their minimum")
    parser.add_argument("--trained", type=int, default=200, help="samples without a signal that generators learn")
    parser.add_argument("--with-signal", type=int, default=40, help="samples of each strength that generators learn")
    parser.add_argument("--replicas", type=int, default=12)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--degree", type=int, default=30, help="of the polynomial of each generator")
    parser.add_argument("--coordinates", choices=("closed", "open"), default="closed", help="of the generators")
    parser.add_argument("--batch", type=int, default=8, help="samples that are trained at once")
    parser.add_argument("--record", default="", help="JSON of the z-values; a run that was stopped goes on with it")
    parser.add_argument("--figure", default="", help="where to write the figure of the p-values")
    args = parser.parse_args()
    warnings.simplefilter("ignore", pg.SamplingWarning)
    # Of the fit: delta_B is about 12 for 500 events.
    unit = np.sqrt(EXPECTED + (0.026 * EXPECTED) ** 2)
    print(f"{EXPECTED:.0f} background events in the window; one sigma is {unit:.1f} signal events", flush=True)
    settings = {name: getattr(args, name) for name in ("replicas", "steps", "degree", "coordinates")}
    path = Path(args.record) if args.record else None
    record: dict[str, dict[str, list[float]]] = json.loads(path.read_text()) if path and path.exists() else {}
    for strength in STRENGTHS:
        key, start = f"counted {strength}", time.process_time()
        if key not in record and args.samples:
            record[key] = counted(range(args.samples), strength * unit)
        for name, z in record.get(key, {}).items():
            print(line(name, strength, z), flush=True)
        print(f"   {time.process_time() - start:.0f} s of CPU", flush=True)
        if path:
            path.write_text(json.dumps(record))
    for strength in STRENGTHS if args.converged else ():
        key, start = f"converged {strength}", time.process_time()
        if key not in record:
            record[key] = converged(
                range(args.converged), strength * unit, args.replicas, args.degree, args.coordinates
            )
        for name, z in record[key].items():
            print(line(f"{name}, at minimum", strength, z), flush=True)
        print(f"   {time.process_time() - start:.0f} s of CPU", flush=True)
        if path:
            path.write_text(json.dumps(record))
    for strength in STRENGTHS:
        key, start = f"trained {strength}", time.process_time()
        wanted = args.trained if strength == 0 else args.with_signal
        while (done := len(next(iter(record.get(key, {"": []}).values())))) < wanted:
            seeds = list(range(done, min(done + args.batch, wanted)))
            for name, z in trained(seeds, strength * unit, **settings).items():
                record.setdefault(key, {}).setdefault(name, []).extend(z)
            if path:
                path.write_text(json.dumps(record))
        for name, z in record.get(key, {}).items():
            print(line(name, strength, z), flush=True)
        print(f"   {time.process_time() - start:.0f} s of CPU", flush=True)
    if args.figure:
        minimum = {f"{name}, at minimum": z for name, z in record.get("converged 0", {}).items()}
        without = {**record.get("counted 0", {}), **minimum, **record.get("trained 0", {})}
        p = {name: stats.norm.sf(z) for name, z in without.items() if not name.endswith(("linear", "counting"))}
        pg.plotting.save_figure(pg.plotting.plot_p_values(p, title="samples without a signal"), args.figure)


if __name__ == "__main__":
    main()
