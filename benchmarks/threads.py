"""What several CPU threads give, and what they cost where other processes use the cores.

python benchmarks/threads.py [--busy 0 1 2] [--threads T] [--rounds N]

Every task runs on one thread, which is pyrogen's default, and on as many as torch takes by itself, in turn. Meanwhile
other processes (``--busy``) keep cores busy. Seconds of the clock, medians; a ratio above one says that one thread is
faster.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from potential_gradient import make_potential, small_flow

import pyrogen as pg
from pyrogen.inference.run.potential import independent_starts
from pyrogen.posterior import MeanField

STEPS, BATCH, POINTS = 4, 512, 4096
#: Computes as long as this script is there.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


def make_works() -> dict[str, Callable[[], object]]:
    """What is timed, by its name."""
    events = pg.targets.Wedge().sample((STEPS * BATCH,))
    flow = pg.CouplingFlow(2)
    model = pg.BayesianFlow(flow).prepare(events)
    loc = model.initial_theta
    posterior = pg.Posterior(model, MeanField(loc=loc, scale=torch.full_like(loc, 0.01)), progress=False)
    svi = pg.SVI(epochs=1, batch_size=BATCH, progress=False)
    potential = make_potential(small_flow(), pg.targets.Wedge().sample((2000,)))
    starts = independent_starts(potential.model, 4, seed=0)
    points, matrix = pg.targets.Wedge().sample((POINTS,)), torch.randn(1500, 1500)
    return {
        f"table-1 flow, {STEPS} steps of SVI": lambda: svi.fit(pg.BayesianFlow(flow), events),
        "Bernstein flow, gradient of 4 chains": lambda: potential.value_and_gradient(starts),
        "table-1 flow, density, 4,096 x 8": lambda: posterior.density(points, draws=8),
        "table-1 flow, 4,096 events": lambda: posterior.sample(POINTS, draws=2),
        "product of two 1500 x 1500 matrices": lambda: matrix @ matrix,
    }


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """A block in which other processes compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(work: Callable[[], object], threads: int) -> float:
    """Of one call on so many threads."""
    pg.set_threads(threads)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    own = torch.get_num_threads()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="other processes")
    parser.add_argument("--threads", type=int, default=own, help="threads to compare with one")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.threads == 1:
        parser.error("one thread is compared with itself: unset OMP_NUM_THREADS, or give --threads")
    works = make_works()
    for work in works.values():
        seconds(work, 1)
    for processes in args.busy:
        load = f"{processes} busy processes, load {os.getloadavg()[0]:.1f} before"
        print(f"{load:42}1 thread  {args.threads} threads  ratio")
        with busy(processes):
            for name, work in works.items():
                found = [(seconds(work, 1), seconds(work, args.threads)) for _ in range(args.rounds)]
                one, several = (statistics.median(its) for its in zip(*found, strict=True))
                print(f"  {name:40}{one:7.3f}s {several:9.3f}s {several / one:6.2f}", flush=True)


if __name__ == "__main__":
    main()
