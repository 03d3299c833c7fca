"""Z + jets on one core: what a step of the training, generated events and their log-weights cost, and what Pythia does.

    python benchmarks/z_jets.py [--transform rqs|cubic] [--coordinates resonance|paper] [-n EVENTS] [--no-pythia]

The flows are those of ``examples/z_jets.py``. Their weights are drawn around those of an untrained flow, but for P(n):
that changes no rate. Pythia 8 and fastjet (extras "pythia" and "fastjet") run in the same process, in turn with the
generation, and count two ways: events with a jet, which is what the flows generate, and all generated ones.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.events import jet_coordinates
from pyrogen.posterior import MeanField

SAMPLE = Path(__file__).parents[1] / "examples" / "data" / "z_jets_5k.h5"
DRAWS, BATCH = 10, 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transform", choices=("rqs", "cubic"), default="rqs", help="coupling (%(default)s)")
    parser.add_argument("--coordinates", choices=("resonance", "paper"), default="resonance", help="(%(default)s)")
    parser.add_argument("-n", type=int, default=20_000, help="generated events (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of the training (%(default)s)")
    parser.add_argument("--no-pythia", action="store_true", help="leave out Pythia and fastjet")
    args = parser.parse_args()
    torch.set_num_threads(1)
    events = pg.events.read(SAMPLE)
    events = events[pg.events.separated_jets(events).keep]
    coordinates = jet_coordinates(args.coordinates, most=3)
    flow = pg.MultiplicityFlow(
        **coordinates.layout.config(),
        blocks=(6, 4, 4),
        transform=args.transform,
        mixing="random",
        periodic=coordinates.periodic,
        uniform=coordinates.uniform,
    )
    model = pg.BayesianFlow(flow, preprocessing=coordinates.preprocessing).prepare(
        torch.tensor(events.values), names=events.names
    )
    print(f"{args.coordinates}, {args.transform}, {model.weights:,} weights, one core")
    seconds = step(model, events, args.steps)
    print(
        f"training: {1000 * seconds:.0f} ms a step of {BATCH} events, {seconds * 1e6 / BATCH / 60:.1f} min per million"
    )

    scale = torch.full_like(model.initial_theta, 0.01)
    posterior = pg.Posterior(model, MeanField(loc=model.initial_theta, scale=scale), progress=False)
    jobs: dict[str, tuple[Callable[[], object], int]] = {
        "generate, no uncertainties": (lambda: posterior.sample(args.n, DRAWS), args.n),
        f"generate, {DRAWS} log-weights": (lambda: posterior.generate(args.n, DRAWS, log_weights=True), args.n),
    }
    if not args.no_pythia:
        few = max(args.n // 4, 1_000)
        jobs["Pythia and fastjet, events with a jet"] = (lambda: pg.events.z_jets(few, progress=False), few)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    generated = 0.0
    for _ in range(args.rounds):
        for name, (job, n) in jobs.items():
            started = time.perf_counter()
            found = job()
            times[name].append((time.perf_counter() - started) / n)
            if isinstance(found, pg.EventSample) and "generated" in found.provenance:
                generated = found.provenance["generated"] / n
    rates = {name: 1 / statistics.median(each) for name, each in times.items()}
    pythia = rates.get("Pythia and fastjet, events with a jet")
    for name, rate in rates.items():
        ratio = "" if pythia is None or rate == pythia else f"{rate / pythia:8.1f} x Pythia"
        if generated and ratio:
            ratio += f", {rate / pythia / generated:.1f} x its events with and without jets"  # type: ignore[operator]
        print(f"{name:40} {rate:10,.0f} events/s {ratio}")
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def step(model: pg.BayesianFlow, events: pg.EventSample, steps: int) -> float:
    """Seconds of a step of the training, by the difference of two runs."""
    few = events[: 4 * BATCH]
    times = []
    for epochs in (1, 1 + max(steps // 4, 1)):
        started = time.perf_counter()
        pg.SVI(epochs=epochs, batch_size=BATCH, progress=False).fit(model, few)
        times.append(time.perf_counter() - started)
    return (times[1] - times[0]) / (4 * max(steps // 4, 1))


if __name__ == "__main__":
    main()
