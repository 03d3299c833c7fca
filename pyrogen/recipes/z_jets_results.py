"""How far generated Z + jets events are from held-out ones: the numbers and figures of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.diagnostics import classifier_test, peak_width, sample_quality
from pyrogen.events import EventSample, Multiplicity, Observable, OfObjects, separated_jets, z_jets_observables
from pyrogen.plotting import HistogramPanel
from pyrogen.posterior import Posterior, sample_histograms
from pyrogen.signals import uninterrupted

LAYOUT = Multiplicity(6, 4, 3)  #: Two leptons, and one to three jets.
CLOSEST = 0.4  # no two jets are closer in rapidity and azimuth
FEW = 500  # events that a classifier and the fit of a peak need
BULK = 10_000  # true events of a bin in the bulk
#: Shown for each number of jets: those of [B] (arXiv:2110.13632) and what is hidden in correlations.
FIGURES = {
    1: ("pt_mu+", "pt_j1", "eta_j1", "M_pair", "pt_pair", "delta_r_mu+mu-", "m_j1", "delta_phi_mu+j1", "delta_r_mu+j1"),
    2: ("pt_mu+", "pt_j1", "pt_j2", "M_pair", "pt_pair", "delta_r_j1j2", "m_j2", "delta_phi_j1j2", "ht"),
    3: ("pt_mu+", "pt_j2", "pt_j3", "M_pair", "delta_r_j1j2", "delta_r_j1j3", "delta_r_j2j3", "m_j3", "ht"),
}


def jets_of(sample: EventSample) -> NDArray[np.int64]:
    """The number of jets of each event, ``[N]``."""
    return LAYOUT.counts(sample.values)


def numbers(posterior: Posterior, truth: EventSample) -> dict[str, Any]:
    """Probabilities of the numbers of jets, with sigma, beside the fractions of the held-out events."""
    found = posterior.multiplicities().numpy().reshape(-1, 3)
    true = np.bincount(jets_of(truth), minlength=4)[1:4] / len(truth)
    error = np.sqrt(true * (1 - true) / len(truth))
    print("\nnumber of jets   posterior             held-out events")
    for n, (mean, sigma, fraction, its) in enumerate(zip(found.mean(0), found.std(0), true, error, strict=True), 1):
        print(f"{n:14}   {mean:.5f} +- {sigma:.5f}   {fraction:.5f} +- {its:.5f}")
    return {"mean": found.mean(0).tolist(), "sigma": found.std(0).tolist(), "truth": true.tolist()}


def compare(path: Path, truth: EventSample, coarser: int) -> dict[int, dict[str, HistogramPanel]]:
    """Distributions for each number of jets, with the bands that the log-weights of the generated events give.

    They are fractions of all events, so that P(n) and its uncertainty are in them.
    """
    with uninterrupted():
        import hist
    own = z_jets_observables()
    books, wanted = {}, {}
    for jets, names in FIGURES.items():
        for name in names:
            observable = own[name]
            chosen = OfObjects(observable, LAYOUT, jets, jets)
            label = observable.label + (f" [{observable.unit}]" if observable.unit else "")
            axis = hist.axis.Variable(observable.edges[:: coarser * min(jets, 2)], label=label)
            book = hist.Hist(axis, storage=hist.storage.Weight())
            values = chosen(truth.tensor(torch.float64)).numpy()
            there = np.isfinite(values)
            book.fill(values[there], weight=None if truth.weights is None else truth.weights[there])
            books[jets, name], wanted[f"{name} {jets}"] = book, (chosen, book)
    bands = sample_histograms(path, wanted)
    return {
        jets: {
            name: HistogramPanel(
                bands[f"{name} {jets}"], books[jets, name], total=truth.total_weight, log=own[name].log
            )
            for name in names
        }
        for jets, names in FIGURES.items()
    }


def covered(panels: dict[str, HistogramPanel]) -> dict[str, dict[str, Any]]:
    """How many bins agree with the truth within one and two sigma, and how far they are off in the bulk.

    Sigma is that of the posterior, of the true and of the generated events together.
    """
    print(f"\n{'bins of':18} {'within 1':>9} {'2 sigma':>8} {'largest pull':>13} {'at':>8} {'bulk: rms':>10} bins")
    table = {}
    for name, panel in panels.items():
        density, error = panel.truth()
        band = panel.band
        noise = np.sqrt(band.mean * (1 - band.mean) / band.events)
        sigma = np.hypot(np.hypot(band.sigma(subtract_noise=True), noise) / band.widths, error)
        filled = error > 0
        off = band.mean / band.widths - density
        pull = off[filled] / sigma[filled]
        worst = int(np.abs(pull).argmax())
        bulk = np.asarray(panel.counts) >= BULK
        rms = float(np.sqrt(np.mean((off[bulk] / density[bulk]) ** 2))) if bulk.any() else None
        row: dict[str, Any] = {"one": float(np.mean(abs(pull) < 1)), "two": float(np.mean(abs(pull) < 2))}
        row |= {"largest_pull": float(pull[worst]), "at": float(band.centres[filled][worst])}
        table[name] = row | {"bulk": rms, "bins": int(bulk.sum())}
        shares = f"{row['one']:9.0%} {row['two']:8.0%} {pull[worst]:13.1f} {row['at']:8.4g}"
        told = f"{rms:10.2%} {bulk.sum():4d}" if rms is not None else f"{'-':>10}"
        print(f"{name:18} {shares} {told}")
    return table


def judge(
    truth: EventSample,
    learned: EventSample,
    generated: EventSample,
    jets: int,
    trainings: int,
    seed: int,
) -> dict[str, Any]:
    """How far generated events with a number of jets are from held-out ones; printed, and for JSON."""
    if not (jets_of(generated) == jets).any():
        print(f"\nno generated event has {jets} jets: nothing to compare")
        return {}
    true, new, own = (sample.with_count(jets) for sample in (truth, generated, learned))
    observables = z_jets_observables(jets)
    quality = sample_quality(true, new, own, {name: observables[name] for name in FIGURES[jets]}, seed=seed)
    print(f"\n{quality.text()}")
    summary: dict[str, Any] = {"wasserstein": dict(zip(quality.names, quality.ratio.tolist(), strict=True))}
    if jets > 1:
        summary["distance"] = distances(true, new)
    if min(len(true), len(new), len(own)) < FEW:
        print(f"\nfewer than {FEW} events are too few for a classifier and for the Z peak")
        return summary
    seen = features(observables, jets)
    test = classifier_test(true, new, features=seen, trainings=trainings, seed=seed)
    print(f"\n{test.text()}")
    summary["auc"] = {"mean": test.mean, "error": test.statistical, "spread": test.spread}
    try:
        wanted, found = (peak_width(observables["M_pair"](each).numpy(), each.weights) for each in (true, new))
        error = float(np.hypot(found.width_error, wanted.width_error) / wanted.width)
        print(f"\nZ peak: generated {found.text()}\n        truth     {wanted.text()}")
        summary["peak"] = {"ratio": found.width / wanted.width, "error": error}
    except ValueError as problem:
        print(f"\nno Z peak: {problem}")
    return summary


def distances(truth: EventSample, generated: EventSample) -> dict[str, float]:
    """Pairs of jets closer than the jet radius, and how many just above, generated over true."""
    near = {}
    for name, sample in (("truth", truth), ("generated", generated)):
        apart, far = (separated_jets(sample, radius).total for radius in (CLOSEST, 0.8))
        near[name] = (1 - apart, apart - far)
    below, ratio = near["generated"][0], near["generated"][1] / near["truth"][1]
    print(
        f"\ntwo jets closer than {CLOSEST}: {below:.3%} of generated events, {near['truth'][0]:.4%} of true ones; "
        f"between {CLOSEST} and 0.8 generated / true = {ratio:.3f}"
    )
    return {"below": below, "true_below": near["truth"][0], "ratio_above": ratio}


def features(observables: Mapping[str, Observable], jets: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the classifier sees: momenta, azimuths relative to the first muon, the mass of the pair, all distances."""
    particles = ["mu+", "mu-", *(f"j{j}" for j in range(1, jets + 1))]

    def of(events: torch.Tensor) -> torch.Tensor:
        found = [observables[f"pt_{each}"](events).log() for each in particles]
        found += [observables[f"eta_{each}"](events) for each in particles]
        found += [observables[f"m_{each}"](events).sqrt() for each in particles[2:]]
        mass = (observables["M_pair"](events) - 91.2) / 2.5
        found += [torch.asinh(mass), torch.tanh(mass), observables["pt_pair"](events).log()]
        for i, one in enumerate(particles):
            for other in particles[i + 1 :]:
                angle = observables[f"delta_phi_{one}{other}"](events)
                found += [observables[f"delta_r_{one}{other}"](events)]
                found += [angle.cos(), angle.sin()] if one == "mu+" else []
        return torch.stack(found, -1)

    return of
