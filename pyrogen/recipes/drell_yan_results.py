"""How far generated lepton pairs are from held-out ones: the numbers and figures of the Drell-Yan recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pyrogen.diagnostics import classifier_test, peak_width, sample_quality
from pyrogen.events import EventSample, lepton_pair_observables, pair_momenta
from pyrogen.events.kinematics import delta_phi, eta, pt
from pyrogen.plotting import HistogramPanel
from pyrogen.posterior import Posterior
from pyrogen.signals import uninterrupted

FIGURES = ("E", "px", "pT", "pz", "E_pair", "M_pair")  #: [A] (arXiv:2104.04543) fig. 9


def compare(
    posterior: Posterior, truth: EventSample, evaluation: dict[str, Any], procedure: str = "a"
) -> list[HistogramPanel]:
    """The six distributions: the held-out events as histograms, the posterior's bands in the same bins."""
    lepton = truth.names[0].removeprefix("px_").removesuffix("+")
    observables = lepton_pair_observables(lepton={"mu": r"\mu", "l": r"\ell"}.get(lepton, lepton))
    with uninterrupted():
        import hist
    books = {}
    for name in FIGURES:
        observable = observables[name]
        label = f"{observable.label} [{observable.unit}]"
        axis = hist.axis.Variable(observable.edges[:: evaluation["coarser"]], label=label)
        books[name] = hist.Hist(axis, storage=hist.storage.Weight())
        books[name].fill(observable(truth).numpy(), weight=truth.weights)
    wanted = {name: (observables[name], book) for name, book in books.items()}
    bands = posterior.histograms(wanted, n=evaluation["histogram"], draws=evaluation["draws"], procedure=procedure)
    return [HistogramPanel(bands[name], books[name], log=observables[name].log) for name in FIGURES]


def covered(panels: list[HistogramPanel], same_events: list[HistogramPanel]) -> dict[str, dict[str, float]]:
    """How many bins agree with the truth within one and two sigma of the posterior and of the truth's statistics.

    The mean is that of all generated events, sigma that of the same events for all draws, which has no noise of them.
    """
    print(f"\n{'bins of':24} {'within 1':>9} {'2 sigma':>8} {'largest pull':>13} {'at':>8}")
    table = {}
    for name, panel, same in zip(FIGURES, panels, same_events, strict=True):
        density, error = panel.truth()
        sigma = np.hypot(same.band.sigma(subtract_noise=True) / same.band.widths, error)
        filled = error > 0
        pull = (panel.band.mean / panel.band.widths - density)[filled] / sigma[filled]
        worst = int(np.abs(pull).argmax())
        place = float(panel.band.edges[:-1][filled][worst] + panel.band.widths[filled][worst] / 2)
        row = {"one": float(np.mean(abs(pull) < 1)), "two": float(np.mean(abs(pull) < 2))}
        table[name] = row | {"largest_pull": float(pull[worst]), "at": place}
        print(f"{name:24} {row['one']:9.0%} {row['two']:8.0%} {pull[worst]:13.1f} {place:8.4g}")
    return table


def judge(
    truth: EventSample, learned: EventSample, generated: EventSample, evaluation: dict[str, Any], seed: int
) -> dict[str, Any]:
    """How far generated events are from held-out ones: distances, a classifier, the Z peak; printed and for JSON."""
    observables = lepton_pair_observables()
    quality = sample_quality(truth, generated, learned, {name: observables[name] for name in FIGURES}, seed=seed)
    print(f"\n{quality.text()}")
    result = classifier_test(truth, generated, features=features(truth), trainings=evaluation["trainings"], seed=seed)
    print(f"\n{result.text()}")
    summary = {
        "wasserstein": {
            name: {"distance": float(d), "floor": float(f)}
            for name, d, f in zip(quality.names, quality.distance, quality.floor, strict=True)
        },
        "auc": {"mean": result.mean, "spread": result.spread, "each": result.auc.tolist()},
    }
    try:
        true, new = (peak_width(observables["M_pair"](events).numpy(), events.weights) for events in (truth, generated))
    except ValueError as problem:
        print(f"\nno Z peak: {problem}")
        return summary
    ratio = new.width / true.width
    error = float(ratio * np.hypot(new.width_error / new.width, true.width_error / true.width))
    print(f"\ngenerated {new.text()}\ntruth     {true.text()}\nratio of the widths {ratio:.3f} +- {error:.3f}")
    return summary | {"peak": {"generated": vars(new), "truth": vars(true), "ratio": ratio, "error": error}}


def beyond_the_beams(generated: EventSample, energy: float | None) -> int | None:
    """How many generated pairs have more energy than the beams: a few of them make any Wasserstein distance large."""
    if energy is None:
        return None
    found = int((lepton_pair_observables()["E_pair"](generated) > energy).sum())
    if found:
        print(f"\n{found} of {len(generated):,} generated events have more energy than the beams, {energy:g} GeV")
    return found


def features(truth: EventSample) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the classifier sees: coordinates in which neither the peak nor the tails are hidden."""
    observables = lepton_pair_observables()
    middle = float(observables["M_pair"](truth).median())

    def of(events: torch.Tensor) -> torch.Tensor:
        found = {name: observables[name](events) for name in ("M_pair", "y_pair", "eta", "pT", "E_pair", "px")}
        distance = (found["M_pair"] - middle) / 2.5
        plus, minus = pair_momenta(events)
        columns = [
            torch.asinh(distance),
            torch.tanh(distance),
            found["M_pair"].log(),
            found["y_pair"],
            found["eta"],
            eta(minus),
            found["pT"].log(),
            found["E_pair"].log(),
            found["px"] / found["pT"],
            plus[:, 1] / found["pT"],
        ]
        if events.shape[1] == 6:
            columns += [pt(minus).log(), delta_phi(plus, minus)]
            columns.append(pt(plus + minus).log())
        return torch.stack(columns, -1)

    return of
