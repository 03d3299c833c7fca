"""What is an event worth that is seen once? Online training against stored events, on toys and on Drell-Yan.

    python examples/online.py                     # wedge and ring, 160,000 events each (some minutes)
    python examples/online.py --toy drell-yan     # 80,000 Drell-Yan events from Pythia 8 (extra "pythia")
    python examples/online.py --quick             # a few thousand, in half a minute

Three trainings of the same flow: online (every event while it is in a buffer, and never again), offline on all events,
and offline on a stored subset as large as the buffer (OnlineFlow, arXiv:2202.09375, asks which is worth more). For the
toys: the median relative error of the density at true events, its sigma, and the divergence KL(true || learned). For
Drell-Yan nobody knows the density: error and sigma are those of the bins of three histograms, beside held-out events.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import torch

import pyrogen as pg
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_online, save_figure

TOYS = {
    "wedge": (pg.targets.Wedge, {"blocks": 6, "hidden": (32, 32)}),
    "ring": (pg.targets.GaussianRing, {"blocks": 6, "hidden": (32, 32)}),
}
DRELL_YAN = "drell-yan"
SAMPLE = Path(__file__).parent / "data" / "drell_yan_5k.h5"
MODES: dict[str, dict[str, Any]] = {
    "default": {
        "events": 160_000,
        "buffer": 10_000,
        "passes": 5,
        "offline": (10_000, 40_000, 160_000),
        "steps": 2_000,
        "batch": 512,
    },
    DRELL_YAN: {
        "events": 80_000,
        "buffer": 10_000,
        "passes": 5,
        "offline": (10_000, 80_000),
        "steps": 800,
        "batch": 512,
    },
    "quick": {"events": 4_000, "buffer": 1_000, "passes": 2, "offline": (1_000, 4_000), "steps": 80, "batch": 50},
}
RATES = {"lr": 2e-3, "lr_widths": 2e-2}
TEST, DRAWS = 10_000, 30
HELD_OUT, GENERATED, BINS = 100_000, 40_000, 16  # of Drell-Yan; every bin has as many held-out events
OBSERVABLES = ("M_pair", "pT", "eta")

Judge = Callable[[pg.Posterior], dict[str, float]]


def toy(name: str, n: int, quick: bool, seed: int) -> tuple[torch.Tensor, pg.BayesianFlow, Judge]:
    """Events of a toy, a flow for them, and what judges a training: error and sigma of the density at true events."""
    kind, shape = TOYS[name]
    target = kind()
    torch.manual_seed(seed)
    events, test = target.sample((n,)), target.sample((TEST,))

    def judged(posterior: pg.Posterior) -> dict[str, float]:
        estimate, true = posterior.density(test, DRAWS), target.log_prob(test).double()
        ratio = estimate.mean / true.exp()
        return {
            "error": float((ratio - 1).abs().median()),
            "sigma": float(estimate.relative.median()),
            "divergence": float(-ratio.log().mean()),
        }

    return events, pg.BayesianFlow(pg.CouplingFlow(2, **({"blocks": 2, "hidden": (8,)} if quick else shape))), judged


def drell_yan(n: int, quick: bool, seed: int) -> tuple[pg.EventSample, pg.BayesianFlow, Judge]:
    """The same for Drell-Yan: root mean squares of error and sigma over the bins of three histograms.

    The statistical noise of held-out and generated events is subtracted from the error.
    """
    if quick:
        sample = pg.events.read(SAMPLE)
        events, test, generated = sample[:n], sample[n:], 2_000
    else:
        events, test = (pg.events.drell_yan(size, seed=1 + 2 * seed + i) for i, size in enumerate((n, HELD_OUT)))
        generated = GENERATED
    # Limits that hold for all events to come: a preprocessing is fitted to the first buffer alone.
    limits = {"energy": 13_000.0, "mass_low": 50.0}
    shape: dict[str, Any] = {"blocks": 2, "hidden": (8,)} if quick else {"blocks": 4, "hidden": (32, 32), "bins": 8}
    flow = pg.CouplingFlow(4, transform="rqs", mixing="random", periodic=pg.events.PERIODIC["mass"], **shape)
    model = pg.BayesianFlow(flow, preprocessing=pg.events.lepton_pair_coordinates("mass", **limits))
    observables = pg.events.lepton_pair_observables()
    wanted, true = {}, {}
    for name in OBSERVABLES:
        values = observables[name](test).double().numpy()
        edges = np.quantile(values, np.linspace(0, 1, BINS + 1))
        wanted[name], true[name] = (observables[name], edges), np.histogram(values, edges)[0] / len(values)
    noise = BINS * (1 / len(test) + 1 / generated)  # relative variance of the ratio in a bin

    def judged(posterior: pg.Posterior) -> dict[str, float]:
        bands = posterior.histograms(wanted, n=generated, draws=DRAWS, procedure="b")
        off = np.concatenate([bands[name].mean / true[name] - 1 for name in OBSERVABLES])
        sigma = np.concatenate([bands[name].sigma() / bands[name].mean for name in OBSERVABLES])
        return {
            "error": float(np.sqrt(max(np.mean(off**2) - noise, 0.0))),
            "sigma": float(np.sqrt(np.mean(sigma**2))),
        }

    return events, model, judged


def study(name: str, mode: dict[str, Any], quick: bool, seed: int, out: Path) -> dict[str, dict[str, list[float]]]:
    """The three trainings; returns a curve for each."""
    n, buffer = mode["events"], mode["buffer"]
    events, model, judged = drell_yan(n, quick, seed) if name == DRELL_YAN else toy(name, n, quick, seed)
    found: dict[str, list[dict[str, float]]] = {"online": [], "offline": [], "subset": []}
    svi = pg.SVI(batch_size=mode["batch"], seed=seed, checkpoint=out / f"{name}_online.h5", **RATES)
    batches = (events[first : first + 50_000] for first in range(0, n, 50_000))
    posterior = svi.fit_stream(model, batches, buffer=buffer, passes=mode["passes"])
    for size in sorted({*posterior.snapshots, n}):
        found["online"].append({"events": size} | judged(posterior.at(size)))
    for size in sorted({buffer, *mode["offline"]}):
        epochs = max(1, round(mode["steps"] * mode["batch"] / size))
        checkpoint = out / f"{name}_{size}.h5"
        offline = pg.SVI(epochs=epochs, batch_size=mode["batch"], seed=seed, checkpoint=checkpoint, **RATES)
        found["offline"].append({"events": size} | judged(offline.fit(model, events[:size])))
    subset = next(one for one in found["offline"] if one["events"] == buffer)
    found["subset"] = [subset, subset | {"events": n}]  # which does not get better, however many events there are
    return {way: {entry: [row[entry] for row in rows] for entry in rows[0]} for way, rows in found.items()}


def told(curves: dict[str, dict[str, list[float]]]) -> str:
    """The curves as a table."""
    known = "divergence" in curves["online"]
    lines = ["training      events     error   sigma" + "   KL [nats]" * known]
    for way, curve in curves.items():
        for n, error, sigma, *more in zip(*curve.values(), strict=True):
            lines.append(f"{way:8} {n:11,.0f} {error:9.4f} {sigma:7.4f}" + "".join(f" {kl:11.4f}" for kl in more))
    return "\n".join(lines)


@command_line.stoppable
def main(arguments: list[str] | None = None) -> None:
    """Train, print a table for every toy, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few events, small flows: to see that it runs")
    parser.add_argument("--toy", choices=[*TOYS, DRELL_YAN], help="one of them (wedge and ring)")
    command_line.add_common(parser, "results/online")
    chosen = parser.parse_args(arguments)
    pg.set_threads(chosen.threads)
    out = chosen.out or Path("results/online")
    out.mkdir(parents=True, exist_ok=True)
    summary = {}
    for name in [chosen.toy] if chosen.toy else TOYS:
        mode = MODES["quick" if chosen.quick else name if name == DRELL_YAN else "default"]
        summary[name] = study(name, mode, chosen.quick, chosen.seed, out)
        print(f"{name}\n{told(summary[name])}\n", flush=True)
        save_figure(
            plot_online(summary[name], title=name, of="bins" if name == DRELL_YAN else "density"),
            out / f"online_{name}.png",
        )
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())


if __name__ == "__main__":
    main()
