"""What is an event worth that is seen once? Online training against stored events, on toys with a known density.

    python examples/online.py            # wedge and ring, 160,000 events each (some minutes)
    python examples/online.py --quick    # a few thousand, in half a minute
    python examples/online.py --toy ring

Three trainings of the same flow: online (every event while it is in a buffer, and never again), offline on all events,
and offline on a stored subset as large as the buffer (OnlineFlow, arXiv:2202.09375, asks which is worth more). For each
the median relative error of the density at true events, its sigma, and the divergence KL(true || learned).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import command_line
import torch

import pyrogen as pg
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_online, save_figure

TOYS = {
    "wedge": (pg.targets.Wedge, {"blocks": 6, "hidden": (32, 32)}),
    "ring": (pg.targets.GaussianRing, {"blocks": 6, "hidden": (32, 32)}),
}
MODES: dict[str, dict[str, Any]] = {
    "default": {
        "events": 160_000,
        "buffer": 10_000,
        "passes": 5,
        "offline": (10_000, 40_000, 160_000),
        "steps": 2_000,
        "batch": 512,
    },
    "quick": {"events": 6_000, "buffer": 1_000, "passes": 2, "offline": (1_000, 4_000), "steps": 100, "batch": 50},
}
RATES = {"lr": 2e-3, "lr_widths": 2e-2}
TEST, DRAWS = 10_000, 30


def judged(posterior: pg.Posterior, target: Any, test: torch.Tensor) -> dict[str, float]:
    """Median error and sigma of the density at true events, relative to it, and KL(true || learned) in nats."""
    estimate, true = posterior.density(test, DRAWS), target.log_prob(test).double()
    ratio = estimate.mean / true.exp()
    return {
        "error": float((ratio - 1).abs().median()),
        "sigma": float(estimate.relative.median()),
        "divergence": float(-ratio.log().mean()),
    }


def study(name: str, mode: dict[str, Any], quick: bool, seed: int, out: Path) -> dict[str, dict[str, list[float]]]:
    """The three trainings of a toy; returns a curve for each."""
    kind, shape = TOYS[name]
    target, n, buffer = kind(), mode["events"], mode["buffer"]
    torch.manual_seed(seed)
    events, test = target.sample((n,)), target.sample((TEST,))
    model = pg.BayesianFlow(pg.CouplingFlow(2, **({"blocks": 2, "hidden": (8,)} if quick else shape)))
    found: dict[str, list[dict[str, float]]] = {"online": [], "offline": [], "subset": []}
    svi = pg.SVI(batch_size=mode["batch"], seed=seed, checkpoint=out / f"{name}_online.h5", **RATES)
    posterior = svi.fit_stream(model, iter(events.split(50_000)), buffer=buffer, passes=mode["passes"])
    for size in sorted({*posterior.snapshots, n}):
        found["online"].append({"events": size} | judged(posterior.at(size), target, test))
    for size in sorted({buffer, *mode["offline"]}):
        epochs = max(1, round(mode["steps"] * mode["batch"] / size))
        checkpoint = out / f"{name}_{size}.h5"
        offline = pg.SVI(epochs=epochs, batch_size=mode["batch"], seed=seed, checkpoint=checkpoint, **RATES)
        found["offline"].append({"events": size} | judged(offline.fit(model, events[:size]), target, test))
    subset = next(one for one in found["offline"] if one["events"] == buffer)
    found["subset"] = [subset, subset | {"events": n}]  # which does not get better, however many events there are
    return {way: {entry: [row[entry] for row in rows] for entry in rows[0]} for way, rows in found.items()}


def told(curves: dict[str, dict[str, list[float]]]) -> str:
    """The curves as a table."""
    lines = ["training      events     error   sigma   KL [nats]"]
    for way, curve in curves.items():
        for n, error, sigma, divergence in zip(*curve.values(), strict=True):
            lines.append(f"{way:8} {n:11,.0f} {error:9.4f} {sigma:7.4f} {divergence:11.4f}")
    return "\n".join(lines)


@command_line.stoppable
def main(arguments: list[str] | None = None) -> None:
    """Train, print a table for every toy, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few events, small flows: to see that it runs")
    parser.add_argument("--toy", choices=TOYS, help="one of the toys (both)")
    command_line.add_common(parser, "results/online")
    chosen = parser.parse_args(arguments)
    pg.set_threads(chosen.threads)
    out = chosen.out or Path("results/online")
    out.mkdir(parents=True, exist_ok=True)
    summary = {}
    for name in [chosen.toy] if chosen.toy else TOYS:
        summary[name] = study(name, MODES["quick" if chosen.quick else "default"], chosen.quick, chosen.seed, out)
        print(f"{name}\n{told(summary[name])}\n", flush=True)
        save_figure(plot_online(summary[name], title=name), out / f"online_{name}.png")
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())


if __name__ == "__main__":
    main()
