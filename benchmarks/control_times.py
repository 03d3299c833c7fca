"""Seconds that classifier weights, and what is made of them, take.

    python benchmarks/control_times.py --threads 2
    python benchmarks/control_times.py --events 10000 --paper 2    # two epochs of Network.paper(), scaled to all 50

True and generated events are Gaussians in five columns. CPU seconds stand beside those of the clock: on a machine that
others use, only they mean something. Classifiers have two folds, one training each, without a control, which takes the
same again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import pyrogen as pg
from pyrogen.diagnostics import (
    Network,
    classifier_weights,
    find_failures,
    sample_measures,
    two_sample_test,
    weight_pulls,
)

COLUMNS, DRAWS = 5, 50


def clocked(name: str, work: Callable[[], Any], factor: float = 1.0) -> Any:
    """Do it, and print how long it took, times a factor."""
    start = time.perf_counter(), time.process_time()
    found = work()
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"{name} | {factor * wall:.1f} | {factor * cpu:.1f}", flush=True)
    return found


def samples(n: int) -> tuple[pg.EventSample, pg.EventSample]:
    """True events, and generated ones with log-weights of draws that move the first mean."""
    rng = np.random.default_rng(0)
    truth, made = rng.normal(size=(n, COLUMNS)), rng.normal(size=(n, COLUMNS))
    made[:, 0] *= 1.05
    shifts = rng.normal(0, 0.02, DRAWS)
    generated = pg.EventSample(made, log_weights=made[:, :1] * shifts - shifts**2 / 2)
    return pg.EventSample(truth), generated


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--paper", type=int, default=0, help="epochs of Network.paper() that are tried; 0: none")
    args = parser.parse_args()
    pg.set_threads(args.threads)
    torch.set_num_threads(args.threads)
    truth, generated = samples(args.events)
    quick: Any = {"ensemble": 1, "control": False, "progress": False}
    print(f"{args.events:,} true and generated events, {args.threads} threads\nwhat | s | CPU s")
    clocked(
        "classifier_weights, trees, the first of a process",
        lambda: classifier_weights(*samples(1000), method="trees", **quick),
    )
    weights = clocked(
        "classifier_weights, trees", lambda: classifier_weights(truth, generated, method="trees", **quick)
    )
    clocked("find_failures", lambda: find_failures(weights))
    clocked("weight_pulls", lambda: weight_pulls(weights, observables={"x0": (0, 20, (-3.0, 3.0))}))
    clocked("sample_measures", lambda: sample_measures(truth, generated, progress=False))
    part = min(args.events, 10_000)
    clocked(
        f"two_sample_test, {part:,} events, 10 toys of 100",
        lambda: two_sample_test(truth[:part], pg.EventSample(generated.values[:part]), toys=10, progress=False),
    )
    clocked("classifier_weights, network", lambda: classifier_weights(truth, generated, method="network", **quick))
    if args.paper:
        paper = replace(Network.paper(), epochs=args.paper)
        work: Callable[[], Any] = lambda: classifier_weights(truth, generated, method=paper, **quick)  # noqa: E731
        clocked("classifier_weights, Network.paper()", work, Network.paper().epochs / args.paper)  # type: ignore[operator]


if __name__ == "__main__":
    main()
