"""A flow alone, with a discriminator in the training, and with weights from a classifier afterwards.

python benchmarks/discflow.py [CASE ...] [--events FILE] [--train N] [--seed S]

Cases: "ring" (the Gaussian ring), "band" (a narrow band around a sine), both with an affine flow that is too small for
them, "small" (the band with 1,000 events), "good" (the ring with a
spline flow that describes it well), and "mass" (Drell-Yan pairs in Cartesian momenta, where the Z peak is a
correlation of four columns; needs --events, an event file with px, py, pz of one lepton and pz of the other). One line
for each training: AUC of a classifier on new events (it sees the sharp observable too), width of the sharp feature over
its true one, chi2 per bin of its histogram against new true events, effective share of the weights, seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pyrogen as pg
from pyrogen.diagnostics import classifier_test, peak_width, reweight, train_classifier

TESTED, BINS = 100_000, 60


@dataclass(frozen=True)
class Case:
    """Events, a flow that is too small for them, and the observable in which they are sharp.

    Attributes:
        sample: true events ``[n, d]``.
        sharp: the observable ``[n]`` of events ``[n, d]``.
        width: of the observable's values and weights.
        model: the flow.
        fit: settings of every training.
    """

    sample: Callable[[int], Tensor]
    sharp: Callable[[Tensor], Tensor]
    width: Callable[[Any, Any], float]
    model: Callable[[], pg.BayesianFlow]
    fit: dict[str, Any]
    train: int


def core_width(values: Any, weights: Any) -> float:
    """Half of the central 68 % of weighted values."""
    order = np.argsort(values)
    below = np.cumsum(np.ones(len(values)) if weights is None else weights[order])
    low, high = np.interp(np.array([0.1587, 0.8413]) * below[-1], below, values[order])
    return float(high - low) / 2


def band(n: int) -> Tensor:
    """A narrow band around a sine."""
    x = 2 * torch.randn(n)
    return torch.stack([x, torch.sin(2 * x) + 0.1 * torch.randn(n)], 1)


def affine() -> pg.BayesianFlow:
    return pg.BayesianFlow(pg.CouplingFlow(2, 4, (16, 16)))


def cases(file: Path | None, train: int | None) -> dict[str, Case]:
    """The cases by name."""
    fit = {"epochs": 40, "batch_size": 500, "lr": 5e-3, "progress": False}
    ring = Case(
        lambda n: pg.targets.GaussianRing().sample((n,)), lambda x: x.norm(dim=1), core_width, affine, fit, 20_000
    )
    sine = Case(band, lambda x: x[:, 1] - torch.sin(2 * x[:, 0]), core_width, affine, fit, 20_000)

    def spline() -> pg.BayesianFlow:
        return pg.BayesianFlow(pg.CouplingFlow(2, 4, (32, 32), "rqs", mixing="rotation"))

    good = Case(ring.sample, ring.sharp, core_width, spline, fit | {"epochs": 20}, 50_000)
    few = fit | {"epochs": 400, "batch_size": 250}
    found = {"ring": ring, "band": sine, "good": good, "small": Case(band, sine.sharp, core_width, affine, few, 1_000)}
    if file is not None:
        events = pg.events.read(file)
        drawn = iter(
            events.tensor(torch.float32).split(
                [train or 50_000, *[TESTED] * 3, len(events) - (train or 50_000) - 3 * TESTED]
            )
        )
        mass = pg.events.lepton_pair_observables()["M_pair"]
        found["mass"] = Case(
            lambda n: next(drawn),
            lambda x: mass(pg.EventSample(x, events.names)).to(x),
            lambda values, weights: peak_width(values, weights).width,
            lambda: pg.BayesianFlow(
                pg.CouplingFlow(4, 4, (32, 32), "rqs", mixing="random"),
                preprocessing=pg.events.lepton_pair_coordinates("cartesian"),
            ),
            {"epochs": 10, "batch_size": 500, "lr": 3e-3, "progress": False},
            train or 50_000,
        )
    return found


def line(case: Case, name: str, generated: pg.EventSample, new: Tensor, share: float, seconds: float) -> None:
    """Print what one generator is worth."""
    x = generated.tensor(torch.float32)

    def seen(events: Tensor) -> Tensor:
        return torch.cat([events, case.sharp(events.float())[:, None].to(events)], 1)

    auc = classifier_test(new, generated, features=seen, trainings=1, epochs=10, progress=False)
    made, true = case.sharp(x).double().numpy(), case.sharp(new).double().numpy()
    weights = generated.weights
    ratio = case.width(made, weights) / case.width(true, None)
    edges = np.quantile(true, np.linspace(0.005, 0.995, BINS + 1))
    count = np.histogram(true, edges)[0]
    w = np.ones(len(made)) if weights is None else weights
    scale = len(true) / w.sum()
    filled, squares = (np.histogram(made, edges, weights=w**k)[0] for k in (1, 2))
    chi2 = np.mean((scale * filled - count) ** 2 / (count + scale**2 * squares))
    print(
        f"  {name:28} {auc.mean:.4f} +- {auc.statistical:.4f} {ratio:9.3f} {chi2:10.2f} {100 * share:9.0f} % "
        f"{seconds:7.0f} s",
        flush=True,
    )


def study(name: str, case: Case, seed: int, powers: list[float]) -> None:
    torch.manual_seed(seed)
    events, new, other = case.sample(case.train), case.sample(TESTED), case.sample(TESTED)
    print(
        f"{name}, {case.train:,} events\n"
        f"  {'':28} {'AUC':16} {'width':>10} {'chi2/bin':>10} {'eff. share':>11} {'time':>9}"
    )
    line(case, "other true events", pg.EventSample(other), new, 1.0, 0.0)

    def seen(x: Tensor) -> Tensor:
        return case.sharp(x.float())[:, None]

    ways: dict[str, pg.SVI] = {"SVI": pg.SVI(seed=seed, **case.fit)}
    for alpha in powers:
        ways[f"DiscFlow, alpha {alpha:g}"] = pg.DiscFlow(seed=seed, observables=seen, alpha=alpha, **case.fit)
    ways["DiscFlow, no observable"] = pg.DiscFlow(seed=seed, **case.fit)
    for label, backend in ways.items():
        begin = time.monotonic()
        try:
            posterior = backend.fit(case.model(), events)
        except pg.TrainingDivergedError as error:
            print(f"  {label:28} stopped: {str(error)[:90]}")
            continue
        seconds = time.monotonic() - begin
        share = posterior.history.get("effective_share", np.ones(1))[-1]
        generated = pg.EventSample(posterior.sample(TESTED, 20, seed=seed + 1))
        line(case, label, generated, new, share, seconds)
        if label in ("SVI", "DiscFlow, alpha 1"):
            begin = time.monotonic()
            others = posterior.sample(TESTED, 20, seed=seed + 2)

            def both(x: Tensor) -> Tensor:
                return torch.cat([x, seen(x).to(x)], 1)

            classifier = train_classifier(events, others, features=both, epochs=10, progress=False)
            found = reweight(classifier, generated)
            share = found.effective_size / found.before
            line(case, f"{label}, reweighted", found.events, new, share, seconds + time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="ring, band, small, mass (all that there are)")
    parser.add_argument("--events", type=Path, metavar="FILE", help="Drell-Yan events for the case mass")
    parser.add_argument("--train", type=int, metavar="N", help="training events of the case mass (50,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alpha", type=float, nargs="+", default=[1.0], help="powers of DiscFlow (1)")
    args = parser.parse_args()
    known = cases(args.events, args.train)
    for name in args.cases or known:
        study(name, known[name], args.seed, args.alpha)


if __name__ == "__main__":
    main()
