"""Rate and memory of reading, generating and histogramming events of a Drell-Yan posterior.

    python benchmarks/generate.py [-n EVENTS] [--draws K]

Prints events per second of generation with densities of K draws at every event, with and without log-weights in the
file, of reading and of histograms, and the peak memory of the whole process. The network has its full size, but is
trained for a moment only: that changes no rate.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.events import PERIODIC, lepton_pair_coordinates, lepton_pair_observables

SAMPLE = Path(__file__).parents[1] / "examples" / "data" / "drell_yan_5k.h5"


def main() -> None:
    """Generate, read, fill, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1_000_000, help="events (%(default)s)")
    parser.add_argument("--draws", type=int, default=50, help="weight draws (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    flow = pg.CouplingFlow(4, 6, (64, 64), "rqs", mixing="random", periodic=PERIODIC["mass"])
    model = pg.BayesianFlow(flow, preprocessing=lepton_pair_coordinates("mass", energy=13_000))
    posterior = pg.SVI(epochs=1, batch_size=500, progress=False).fit(model, pg.events.read(SAMPLE))
    observables = lepton_pair_observables()
    names = ("E", "px", "pT", "pz", "E_pair", "M_pair")
    wanted = {name: (observables[name], observables[name].edges) for name in names}
    print(f"{args.n:,} events, {args.draws} draws, {model.weights:,} weights, one thread")
    with tempfile.TemporaryDirectory() as folder:
        plain, full = Path(folder) / "plain.h5", Path(folder) / "full.h5"
        report("generate_to", args.n, lambda: posterior.generate_to(plain, args.n, args.draws))
        report("read", args.n, lambda: pg.events.read(plain))
        some = args.n // 10
        report("... with log-weights", some, lambda: posterior.generate_to(full, some, args.draws, log_weights=True))
        report("sample_histograms, six observables", some, lambda: pg.sample_histograms(full, wanted))
        sizes = [path.stat().st_size / count for path, count in ((plain, args.n), (full, some))]
        print(f"bytes per event: {sizes[0]:.0f}, with log-weights {sizes[1]:.0f}")
    draws = max(2, args.draws // 10)
    report("histograms, own events", args.n, lambda: posterior.histograms(wanted, n=args.n // draws, draws=draws))


def report(what: str, n: int, run: object) -> None:
    """Time it."""
    started = time.perf_counter()
    run()  # type: ignore[operator]
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:36} {n / seconds:12,.0f} events/s   peak so far {peak:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
