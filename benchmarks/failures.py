"""Rates with which find_failures finds and names planted failures, with real classifiers: a few minutes on one core.

    python benchmarks/failures.py            # 20 samples of each failure
    python benchmarks/failures.py --seeds 2  # a quick look
    python benchmarks/failures.py --showers  # those of calorimeter showers

Events have two particles and a jet-like structure: falling pT, Delta R above 0.4, a resonance of two particles. Each
generator has one failure: 1 % of the events missing in the tail of pT, the hole below Delta R = 0.4 filled, the peak of
the mass smeared by 20 %, or none.

Parametric photon showers have the failures of arXiv:2305.16774, sec. 4: half of those without energy in layer 2 are
missing; cells below the threshold are filled; the faintest cells of layer 1 are lost too often; or none. Classifiers
see the observables of :func:`pyrogen.events.shower_observables`, and nobody tells which.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import pyrogen as pg
from pyrogen.events.kinematics import wrapped

Array = NDArray[np.float64]
NAMES = ("pt_a", "eta_a", "phi_a", "pt_b", "eta_b", "phi_b", "mass")
UNITS = ("GeV", "", "rad", "GeV", "", "rad", "GeV")
EXPECTED = {
    "missing tail": ("missing feature or tail", ("pt_a",)),
    "filled hole": ("wrong boundary", ("delta_r_ab",)),
    "smeared peak": ("smeared peak", ("mass",)),
    "none": ("none", ()),
}
SHOWERS = {
    "empty layer": ("missing feature or tail", ("E_2", "fraction_2", "sparsity_2", "no brightest_2")),
    "threshold": ("wrong boundary", ("faintest", "faintest_0", "faintest_1", "faintest_2")),
    "sparsity": ("", ("sparsity_1",)),  # a shift, which has no name of its own
    "none": ("none", ()),
}
RADIUS = 0.4
PEAK, WIDTH = 91.2, 2.5


def events(n: int, rng: np.random.Generator, hole: bool = True) -> Array:
    """``[n, 7]`` true events, of which none has a Delta R below 0.4; without the hole some have."""
    m = int(1.2 * n) + 100
    hard = 20 + rng.exponential(30, m)
    soft = 20 + (hard - 20) * rng.beta(3, 1.5, m)
    eta = rng.normal(0, 1.3, m)
    phi = rng.uniform(-np.pi, np.pi, m)
    close = rng.random(m) < 0.4
    angle = _wrapped(phi + np.where(close, 0.0, np.pi) + rng.normal(0, 0.9, m))
    peak = rng.random(m) < 0.7
    mass = np.where(peak, rng.normal(PEAK, WIDTH, m), rng.uniform(60, 120, m))
    found = np.stack([hard, eta, phi, soft, eta + rng.normal(0, 1.2, m), angle, mass], 1)
    return (found[delta_r(found) > RADIUS] if hole else found)[:n]


def _wrapped(angle: Array) -> Array:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def delta_r(x: Array) -> Array:
    """Of both particles, ``[n]``."""
    return np.hypot(x[:, 1] - x[:, 4], _wrapped(x[:, 2] - x[:, 5]))


def generated(failure: str, n: int, rng: np.random.Generator) -> Array:
    """``[n, 7]`` events of a generator with one failure."""
    if failure == "filled hole":
        return events(n, rng, hole=False)
    x = events(2 * n if failure == "missing tail" else n, rng)
    if failure == "missing tail":
        return x[x[:, 0] < 20 - 30 * np.log(0.01)][:n]  # the quantile of 99 % before the hole, which is independent
    if failure == "smeared peak":
        near = np.abs(x[:, 6] - PEAK) < 4 * WIDTH
        x[:, 6] += np.where(near, rng.normal(0, WIDTH * np.sqrt(1.2**2 - 1), n), 0.0)
    return x


def study(failure: str, seed: int, n: int, method: str, control: bool) -> pg.diagnostics.Failures:
    """One sample of a generator, and what is found in it."""
    rng = np.random.default_rng([seed, list(EXPECTED).index(failure)])
    truth, made = (pg.EventSample(x, NAMES, UNITS) for x in (events(n, rng), generated(failure, n, rng)))
    weights = pg.diagnostics.classifier_weights(
        truth,
        made,
        observables={"delta_r_ab": _delta_r},
        method=method,
        ensemble=1,
        control=control,
        seed=seed,
        progress=False,
    )
    return pg.diagnostics.find_failures(weights)


def showers(n: int, seed: int, threshold: float = 1e-3) -> pg.events.Showers:
    """Parametric photons of 1 to 100 GeV."""
    return pg.events.showers(n, "gamma", (1, 100), seed=seed, threshold=threshold, progress=False)


def generated_showers(failure: str, n: int, seed: int) -> pg.events.Showers:
    """Showers of a generator with one failure."""
    rng = np.random.default_rng(seed)
    if failure == "threshold":  # 0.8 in place of 1 MeV
        return showers(n, seed, 8e-4)
    made = showers(2 * n if failure == "empty layer" else n, seed)
    if failure == "empty layer":
        return made[(made.layer_energies[:, 2] > 0) | (rng.random(len(made)) < 0.5)][:n]
    if failure == "sparsity":
        cells, columns = made.values.copy(), made.geometry.columns[1]
        lost = (cells[:, columns] < 5e-3) & (rng.random((n, columns.stop - columns.start)) < 0.2)
        cells[:, columns][lost] = 0.0
        return pg.events.Showers(cells, made.energies, made.geometry)
    return made


def shower_study(failure: str, seed: int, n: int, method: str, control: bool) -> pg.diagnostics.Failures:
    """One sample of a generator of showers, and what is found in it."""
    truth = showers(n, 10_000 + seed)
    made = generated_showers(failure, n, 20_000 + 100 * seed + list(SHOWERS).index(failure))
    observables = pg.events.shower_observables(truth.geometry)
    weights = pg.diagnostics.classifier_weights(
        truth.events,
        made.events,
        observables=observables,
        features=lambda x: x.sum(1, keepdim=True),  # in place of the cells
        method=method,
        ensemble=1,
        control=control,
        seed=seed,
        progress=False,
    )
    return pg.diagnostics.find_failures(weights, observables)


def _delta_r(x: Tensor) -> Tensor:
    return (x[:, 1] - x[:, 4]).hypot(wrapped(x[:, 2] - x[:, 5]))


def rightly(found: pg.diagnostics.Failures, kind: str, observables: Collection[str]) -> bool:
    """Whether the first failure has this name (any, if it is empty), in one of these observables."""
    if not observables:
        return not found.found
    return bool(found.modes) and kind in ("", found.kind) and found.modes[0].observable in observables


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--method", choices=("trees", "network"), default="trees")
    parser.add_argument("--control", action="store_true", help="with truth against truth: twice the time")
    parser.add_argument("--showers", action="store_true", help="calorimeter showers")
    args = parser.parse_args()
    print(f"{args.method}, {args.events:,} true and generated events, {args.seeds} seeds")
    for failure, (kind, expected) in (SHOWERS if args.showers else EXPECTED).items():
        start, run = time.process_time(), shower_study if args.showers else study
        found = [run(failure, seed, args.events, args.method, args.control) for seed in range(args.seeds)]
        right = sum(rightly(each, kind, expected) for each in found)
        names = Counter(f"{each.kind} in {each.modes[0].observable}" if each.modes else each.kind for each in found)
        more = sum(len(each.modes) > 1 for each in found)
        hidden = sum(each.hidden for each in found)
        seconds = (time.process_time() - start) / args.seeds
        print(
            f"{failure:>13}: {right}/{len(found)} right; {more} with a second failure, {hidden} in no observable; "
            f"{dict(names)}; {seconds:.1f} s of CPU each",
            flush=True,
        )


if __name__ == "__main__":
    main()
