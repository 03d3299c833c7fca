"""Rates of predictions with K weight draws: densities and events with log-weights, and what they were before.

    python benchmarks/predict.py [--flow affine|rqs] [--device cuda] [-n EVENTS] [--draws K] [--rows R ...]

``affine`` is the flow of table 1 of arXiv:2104.04543 (20 blocks of 32-32-32, 44,840 weights), ``rqs`` the Drell-Yan
flow of ``benchmarks/generate.py``. Old and new are measured in turn in one process, and the ratio is that of the
medians. The old rate is that of ``benchmarks/before.py``. On a card, ``--rows`` says how many events times networks
are evaluated at once, several numbers one after another; with none, pyrogen decides. ``--profile`` prints the
operations that take most of the time. The weights are drawn around those of an untrained flow: that changes no rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import before
import torch

import pyrogen as pg
from pyrogen.events import PERIODIC, lepton_pair_coordinates
from pyrogen.posterior import MeanField, predictor

SAMPLE = Path(__file__).parents[1] / "examples" / "data" / "drell_yan_5k.h5"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", choices=("affine", "rqs"), default="affine", help="which flow (%(default)s)")
    parser.add_argument("--device", default="cpu", help="a torch device (%(default)s)")
    parser.add_argument("-n", type=int, help="events (20,000, on a card 200,000)")
    parser.add_argument("--draws", type=int, default=10, help="weight draws (%(default)s)")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="events times networks at once")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (%(default)s)")
    parser.add_argument("--profile", action="store_true", help="print the operations")
    args = parser.parse_args()
    torch.set_num_threads(1)
    card = args.device != "cpu"
    n = args.n or (200_000 if card else 20_000)
    model, old_model = (made(args.flow, args.device, old) for old in (False, True))
    scale = torch.full_like(model.initial_theta, 0.01)
    posterior = pg.Posterior(model, MeanField(loc=model.initial_theta, scale=scale), progress=False)
    thetas = torch.stack(list(posterior.weights.draws(args.draws, 0)))
    events = posterior.sample(n, args.draws)
    few = events[: n // 20] if card else events  # the old way takes minutes there
    found, expected = posterior.log_prob(few, args.draws), before.log_prob(old_model, thetas, few)
    print(f"{args.flow}, {model.weights:,} weights, {n:,} events, {args.draws} draws, {device_name(args.device)}")
    print(f"largest difference of log p from the old one: {float((found - expected).abs().max()):.1e}")
    automatic = predictor.EVENTS_AT_ONCE, predictor.CARD_ROWS
    for rows in args.rows or [0]:
        predictor.EVENTS_AT_ONCE, predictor.CARD_ROWS = (rows, rows) if rows else automatic
        old, new = in_turn(
            args,
            (lambda: before.log_prob(old_model, thetas, few), len(few)),
            (lambda: posterior.log_prob(events, args.draws), n),
        )
        text = f"densities, {rows:,} rows at once" if rows else "densities"
        print(f"{text:36} {args.draws / new:14,.0f} /s   before {args.draws / old:14,.0f} /s   ratio {old / new:.2f}")
    predictor.EVENTS_AT_ONCE, predictor.CARD_ROWS = automatic
    old, new = in_turn(
        args,
        (lambda: before.generate(old_model, thetas, len(few)), len(few)),
        (lambda: posterior.generate(n, args.draws, log_weights=True), n),
    )
    text = f"events with {args.draws} log-weights"
    print(f"{text:36} {1 / new:14,.0f} /s   before {1 / old:14,.0f} /s   ratio {old / new:.2f}")
    if card:
        print(f"peak memory {torch.cuda.max_memory_allocated(args.device) / 1e9:.1f} GB")
    if args.profile:
        activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * card
        with torch.profiler.profile(activities=activities) as profile:
            posterior.log_prob(events, args.draws)
        key = "self_device_time_total" if card else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=40))


def made(flow: str, device: str, old: bool) -> pg.BayesianFlow:
    """The prepared model; the old one has the same weights."""
    if flow == "affine":
        return pg.BayesianFlow(pg.CouplingFlow(2)).prepare(pg.targets.Wedge().sample((5000,)), device=device)
    transform = "rqs before" if old else "rqs"
    network = pg.CouplingFlow(4, 6, (64, 64), transform, mixing="random", periodic=PERIODIC["mass"])
    model = pg.BayesianFlow(network, preprocessing=lepton_pair_coordinates("mass", energy=13_000))
    return model.prepare(pg.events.read(SAMPLE).tensor(torch.float64), device=device)


def in_turn(args: argparse.Namespace, *works: tuple[Callable[[], Any], int]) -> list[float]:
    """Median seconds per event of each of the works on so many events, in turn; the first round does not count.

    On a CPU it is the time of the processor that counts, which other programs on the machine change less.
    """
    card, times = args.device != "cpu", [[] for _ in works]  # type: ignore[var-annotated]
    clock = time.perf_counter if card else time.process_time
    for round_ in range(args.rounds + 1):
        for (work, n), its in zip(works, times, strict=True):
            started = clock()
            work()
            if card:
                torch.cuda.synchronize(args.device)
            if round_:
                its.append((clock() - started) / n)
    return [statistics.median(its) for its in times]


def device_name(device: str) -> str:
    """What to call the device."""
    return "one CPU thread" if device == "cpu" else torch.cuda.get_device_name(device)


if __name__ == "__main__":
    main()
