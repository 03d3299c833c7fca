"""What parametric showers, and flows of showers, cost.

    python benchmarks/showers.py [--batch SHOWERS]

Prints, for the geometry of 90 cells and that of CaloGAN (504 cells), in seconds of one core (processor time, so that a
busy machine does not count): generated showers, a training step by maximum likelihood and by SVI, samples and densities
of one network. The networks are not trained: that changes no rate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

import pyrogen as pg


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="showers of a training step (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    small, full = pg.events.ShowerGeometry.small(), pg.events.ShowerGeometry.calogan()
    for geometry, hidden in ((small, (64, 64)), (full, (128, 128))):
        seconds, showers = timed(lambda geometry=geometry: pg.events.showers(2000, geometry=geometry, progress=False))
        flow = pg.ShowerFlow(geometry.sizes, 1e-3, order=geometry.outside_in, hidden=hidden)
        events, context = showers.events.tensor(), showers.context.tensor()
        model = pg.BayesianFlow(flow).prepare(events, context=context)
        theta = model.initial_theta.clone().requires_grad_()
        x, c, width = events[: args.batch], context[: args.batch], torch.full_like(model.initial_theta, 1e-3)
        print(f"{geometry}, {model.weights:,} weights")
        print(f"  parametric showers   {2000 / seconds:10,.0f} per second")
        for name, loss in (
            ("maximum likelihood", lambda m=model, t=theta, x=x, c=c: m.log_prob(t, x, c)),
            ("SVI", lambda m=model, t=theta, w=width, x=x, c=c: m.local_log_prob(t, w, x, c)),
        ):
            step = lambda loss=loss: loss().sum().backward()  # noqa: E731
            step()
            print(f"  step, {name:19s}{min(timed(step)[0] for _ in range(3)):8.3f} s")
        with torch.no_grad():
            for name, work in (
                ("samples", lambda m=model, t=theta, c=context: m.sample_events(t, len(c), c)),
                ("densities", lambda m=model, t=theta, x=events, c=context: m.log_prob(t, x, c)),
            ):
                print(f"  {name:21s}{len(events) / timed(work)[0]:10,.0f} per second")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time in seconds, and what came of the work."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


if __name__ == "__main__":
    main()
