"""Is the background of CATHODE right, with the uncertainty that it states? Pseudo-experiments without a signal.

    python benchmarks/cathode_pulls.py lhco_rd_inner.npz --experiments 20 --to pulls.json
    python benchmarks/cathode_pulls.py --toy --experiments 20
    python benchmarks/cathode_pulls.py lhco_rd_inner.npz --misfit --blocks 4

The file has the arrays ``data [N, 5]`` (columns mjj, mj1, mj2 - mj1, tau21 of both jets; TeV) and ``data_label [N]``.
A flow is trained on all of its background. The mean density of its eight networks, which is smoother than that of each,
is the truth of the pseudo-experiments; their masses follow a power law. ``--toy`` takes two Gaussian features instead.
After each cut O events pass, and B +- sigma were predicted. The pull with sigma is ``(O - B) / sqrt(B + sigma^2)``,
without it ``(O - B) / sqrt(B)``. Of a right uncertainty its mean is 0 and its width 1. ``expected`` is the pull of B
alone, against the mean of the truth. Finished experiments are kept in the file ``--to``, and a repeated run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyrogen as pg
from pyrogen import events as ev
from pyrogen.files import write_bytes
from pyrogen.seeds import stream

Array = NDArray[np.float64]
COLUMNS = ["mjj", "mj1", "delta_mj", "tau21_1", "tau21_2"]
UNITS = ["TeV", "TeV", "TeV", "", ""]
REGIONS = pg.search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
ENERGY = 13.0
CENTRE = 3.5  # TeV
POWER = 5.4  # of the masses, p(m) ~ m^-POWER
INSIDE = 1e-6, 1 - 1e-6


def flow_model(features: int, hidden: int, blocks: int, context: int = 1, seed: int = 0) -> pg.BayesianFlow:
    """The conditional flow of a search, or one without a condition."""
    flow = pg.CouplingFlow(
        features,
        blocks=blocks,
        hidden=(hidden, hidden),
        transform="rqs",
        context=context,
        bins=8,
        mixing="random",
        seed=seed,
    )
    return pg.BayesianFlow(
        flow, prior_scale="fan-in", preprocessing=ev.dijet_coordinates() if features == 4 else "auto"
    )


def masses(n: int, seed: int) -> Array:
    """``n`` masses of a power law in the window."""
    low, high = (end ** (1 - POWER) for end in REGIONS.window)
    u = np.random.default_rng(seed).random(n)
    return np.clip((low + u * (high - low)) ** (1 / (1 - POWER)), *REGIONS.window)


def learned_truth(path: Path, keep: Path, steps: int) -> Callable[[Array, int], Array]:
    """Features ``[n, 4]`` at masses ``[n]``, by networks that learned the background of a file.

    Jet masses scale with the mass of both jets, and nothing else depends on it: what the sidebands do not know about
    the signal region, no method can learn from them.
    """
    if keep.exists():
        truth = pg.load(keep)
    else:
        with np.load(path) as file:
            data = file["data"][file["data_label"] == 0].astype(np.float64)
        scaled = np.maximum(data[:, 1:3] * (CENTRE / data[:, :1]), INSIDE[0])
        backend = pg.Bootstrap(replicas=8, steps=steps, batch_size=512, lr=5e-3, seed=3)
        truth = backend.fit(flow_model(4, 24, 6, 0, seed=5), np.column_stack([scaled, np.clip(data[:, 3:], *INSIDE)]))
        truth.save(keep)
    truth.progress = False

    def draw(mass: Array, seed: int) -> Array:
        found = truth.sample(len(mass), seed=seed).numpy()
        jets = np.maximum(found[:, :2] * (mass[:, None] / CENTRE), INSIDE[0])
        return np.column_stack([jets, np.clip(found[:, 2:], *INSIDE)])

    return draw


def gaussian_truth(mass: Array, seed: int) -> Array:
    """Two Gaussian features, the first of which moves with the mass."""
    noise = np.random.default_rng(seed).normal(size=(len(mass), 2))
    return noise + np.column_stack([2 * (mass - 3.5), 0 * mass])


def misfit(path: Path, arguments: argparse.Namespace) -> str:
    """How far two flows, each of half of the sidebands, are off in the signal region, and how much of that they share.

    It is the deviation of log p from the learned truth, at events of the truth.
    """
    draw = learned_truth(path, arguments.truth_file, arguments.truth_steps)
    truth = pg.load(arguments.truth_file)
    truth.progress = False
    mass, test = masses(arguments.events, 1), masses(arguments.truth, 7)
    test = test[REGIONS.in_signal(test)][:20_000]
    values, events = draw(mass, 1), draw(test, 7)
    scale = CENTRE / test
    own = truth.log_prob(np.column_stack([events[:, :2] * scale[:, None], events[:, 2:]])).double().numpy()
    log_p = np.logaddexp.reduce(own) - math.log(len(own)) + 2 * np.log(scale)
    beside = np.flatnonzero(~REGIONS.in_signal(mass))
    off, sigma = [], []
    for half in (0, 1):
        rows = beside[half::2]
        backend = pg.Bootstrap(
            replicas=arguments.replicas, steps=arguments.steps, batch_size=512, lr=5e-3, seed=half, progress=False
        )
        model = flow_model(4, arguments.hidden, arguments.blocks, seed=half)
        found = backend.fit(model, values[rows], context=mass[rows, None])
        draws = found.log_prob(events, context=test[:, None]).double().numpy()
        mean = np.logaddexp.reduce(draws) - math.log(len(draws))
        off.append(np.clip(mean - log_p, -1, 1))
        sigma.append(np.median(np.exp(draws - mean).std(0, ddof=1)))
    covariance = np.cov(off)
    shared = math.sqrt(max(covariance[0, 1], 0.0))
    alone = np.sqrt(np.maximum(np.diag(covariance) - covariance[0, 1], 0))
    return (
        f"{arguments.blocks} blocks of {arguments.hidden}, {arguments.steps} steps, {arguments.events:,} events: log p "
        f"is off by {shared:.3f} in both flows together and by {alone[0]:.3f}, {alone[1]:.3f} in each alone; the "
        f"spread of the draws is {sigma[0]:.3f}, {sigma[1]:.3f}"
    )


def experiment(draw: Callable[[Array, int], Array], arguments: argparse.Namespace, number: int) -> dict[str, Any]:
    """One pseudo-experiment without a signal."""
    seed = stream(arguments.seed, "experiment", number) % 2**31
    mass = masses(arguments.events, seed)
    values = np.column_stack([mass, draw(mass, seed)])
    features = values.shape[1] - 1
    names, units = (COLUMNS, UNITS) if features == 4 else (["mjj", "x", "y"], ["TeV", "", ""])
    result = pg.search.cathode(
        pg.EventSample(values, names, units),
        REGIONS,
        flow_model(features, arguments.hidden, arguments.blocks),
        mass="mjj",
        energy=ENERGY,
        backend=pg.Bootstrap(
            replicas=arguments.replicas, steps=arguments.steps, batch_size=512, lr=5e-3, progress=False
        ),
        flows=arguments.flows,
        folds=2 * arguments.flows,
        ensemble=arguments.ensemble,
        template=arguments.template,
        background=arguments.background,
        cuts=arguments.cuts,
        seed=seed,
        progress=False,
    )
    table = result.table
    more = masses(arguments.truth, seed + 1)
    more = more[REGIONS.in_signal(more)]
    sample = pg.EventSample(draw(more, seed + 1), names[1:], units[1:])
    share = np.zeros(len(table))
    for thresholds, classifiers in zip(table.thresholds, result.classifiers, strict=True):
        scores = np.mean([np.asarray(each.log_ratio(sample)) for each in classifiers], axis=0)
        share += (scores[:, None] > thresholds).mean(0) / len(result.classifiers)
    expected = share * len(more) * arguments.events / arguments.truth
    return {
        "efficiency": table.efficiency.tolist(),
        "observed": table.observed.tolist(),
        "background": table.background.tolist(),
        "sigma": table.sigma.tolist(),
        "sigma_posterior": table.sigma_posterior.tolist(),
        "sigma_mass": table.sigma_mass.tolist(),
        "corrected": table.corrected.tolist(),
        "sigma_corrected": table.sigma_corrected.tolist(),
        "z_corrected": result.z_corrected.tolist(),
        "expected": expected.tolist(),
        "expected_error": (expected / np.sqrt(np.maximum(share * len(more), 1))).tolist(),
        "p_value": result.p_value.tolist(),
        "closure": result.closure.tolist(),
        "closure_error": result.closure_error.tolist(),
        "seconds": result.seconds,
    }


def report(found: list[dict[str, Any]]) -> str:
    """Mean and width of the pulls of all experiments, for each cut."""
    table = {name: np.array([each[name] for each in found]) for name in found[0]}
    o, b, s, e = (table[name] for name in ("observed", "background", "sigma", "expected"))
    pulls = {
        "with sigma": (o - b) / np.sqrt(b + s**2),
        "without": (o - b) / np.sqrt(b),
        "expected": (e - b) / np.hypot(s, table["expected_error"]),
    }
    if np.isfinite(table["corrected"].astype(float)).all():
        c, t = table["corrected"].astype(float), table["sigma_corrected"].astype(float)
        pulls["corrected"] = (o - c) / np.sqrt(c + t**2)
    error = 1 / math.sqrt(2 * max(len(found) - 1, 1))
    lines = [f"{len(found)} pseudo-experiments without signal; a width is known to {error:.0%}"]
    lines.append("eff. of B       B  sigma/B   " + "".join(f"{name:>27}" for name in pulls) + "    z > 3, > 2")
    for c, efficiency in enumerate(table["efficiency"][0]):
        row = f"{efficiency:9.2g} {b[:, c].mean():7.0f} {(s / b)[:, c].mean():8.3f}   "
        for pull in pulls.values():
            its = pull[:, c]
            rms = float(np.sqrt((its**2).mean()))
            row += (
                f"  {its.mean():+.2f} +- {its.std(ddof=1):.2f} (rms {rms:.2f})" if len(its) > 1 else f"{its[0]:27.2f}"
            )
        z = table["z_corrected"][:, c].astype(float)
        lines.append(row + f"    {(z > 3).sum()}, {(z > 2).sum()}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--misfit", action="store_true", help="only how far two flows are off the truth, and how alike")
    parser.add_argument("--toy", action="store_true", help="two Gaussian features in place of a learned truth")
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first experiment")
    parser.add_argument("--events", type=int, default=120_000, help="of each experiment")
    parser.add_argument("--truth", type=int, default=1_000_000, help="events that tell the mean of the truth")
    parser.add_argument("--truth-file", type=Path, default=Path("truth.h5"), help="where the learned truth is kept")
    parser.add_argument("--truth-steps", type=int, default=1500)
    parser.add_argument("--flows", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=6)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--ensemble", type=int, default=4)
    parser.add_argument("--template", type=float, default=3.0)
    parser.add_argument("--background", type=float, default=6.0)
    parser.add_argument("--cuts", type=float, nargs="+", default=[0.3, 0.1, 0.03, 0.01, 0.003])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("cathode_pulls.json"))
    parser.add_argument("--read", type=Path, nargs="+", help="only report on such files, of experiments run in parts")
    arguments = parser.parse_args()
    if arguments.read:
        print(report([row for path in arguments.read for row in json.loads(path.read_text())]))
        return
    if arguments.toy == (arguments.file is not None):
        parser.error("give the file of events, or --toy")
    if arguments.misfit:
        print(misfit(arguments.file, arguments))
        return
    draw = (
        gaussian_truth if arguments.toy else learned_truth(arguments.file, arguments.truth_file, arguments.truth_steps)
    )
    found = json.loads(arguments.to.read_text()) if arguments.to.exists() else []
    for number in range(arguments.first + len(found), arguments.first + arguments.experiments):
        found.append(experiment(draw, arguments, number))
        write_bytes(arguments.to, json.dumps(found).encode())
        print(f"experiment {number}: {found[-1]['seconds']:.0f} s", flush=True)
        print(report(found), flush=True)
    print(report(found))


if __name__ == "__main__":
    main()
