"""How time and memory grow with batch, blocks, width, features, networks, chains and draws (three minutes).

python benchmarks/scaling.py [--device cuda]

Each row changes one thing of table 1 of arXiv:2104.04543 (2 features, 20 affine blocks of 32-32-32, batch 512): a
training step with activations drawn per event, a gradient of the potential of four chains on 2,000 events, and log
densities of 50 draws at 4,096 events. Every row is a process of its own. Memory is what a task took beyond the flow,
the events and the tasks before it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

ROWS: list[dict[str, int]] = [
    {},
    *({"batch": value} for value in (128, 2048, 8192)),
    *({"blocks": value} for value in (5, 10, 40)),
    *({"width": value} for value in (16, 64, 128)),
    *({"features": value} for value in (4, 8)),
    *({"networks": value} for value in (4, 16)),
    *({"chains": value} for value in (1, 16, 64)),
    *({"draws": value} for value in (10, 200)),
]


def measure(device: str, changes: dict[str, int], queue: Any) -> None:
    """Time and memory of the three tasks, in milliseconds and MB; those that a change does not concern are left out."""
    import pyro
    import torch

    import pyrogen as pg
    from pyrogen.inference.run.data import TrainingData, prepare_many
    from pyrogen.inference.run.potential import Potential, independent_starts
    from pyrogen.inference.vi.mean_field import ManyMeanFields
    from pyrogen.inference.vi.steps import Steps
    from pyrogen.seeds import untouched

    torch.set_num_threads(1)
    torch.manual_seed(0)
    of = {"batch": 512, "blocks": 20, "width": 32, "features": 2, "networks": 1, "chains": 4, "draws": 50} | changes
    card = torch.device(device).type == "cuda"
    flow = pg.CouplingFlow(of["features"], of["blocks"], (of["width"],) * 3)
    found: dict[str, tuple[float, float]] = {}

    def note(name: str, call: Callable[[], object], rounds: int) -> None:
        before = peak()
        call()
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            call()
            if card:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        found[name] = 1e3 * statistics.median(times), peak() - before

    def peak() -> float:
        if card:
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    concerned = set(changes) or {"batch"}
    general = {"blocks", "width", "features"}
    if concerned & (general | {"batch", "networks"}):
        settings = pg.SVI(batch_size=of["batch"], device=device, progress=False)
        samples = torch.randn(of["networks"], 4 * of["batch"], of["features"])
        model, many = prepare_many(pg.BayesianFlow(flow), samples, None, device)
        with untouched(device), pyro.get_param_store().scope():
            objective = ManyMeanFields(settings, model, many)
            steps = Steps(objective)

            def step() -> None:
                steps.begin(objective.shuffled(), [(1e-3, 1e-2)] * objective.steps_per_epoch)
                steps.take(True)

            note("training step", step, 10)
    if concerned & (general | {"chains"}) or not changes:
        events = torch.randn(2000, of["features"]).to(device)
        model = pg.BayesianFlow(flow).prepare(events, device=device)
        data = TrainingData.check(model, events, None, None, events.dtype, device)
        potential, theta = Potential(model, data), independent_starts(model, of["chains"], 0)
        note("gradient", lambda: potential.value_and_gradient(theta), 5)
    if concerned & (general | {"draws"}) or not changes:
        events = torch.randn(4096, of["features"])
        model = pg.BayesianFlow(flow).prepare(events).to(device)
        loc = model.initial_theta
        weights = pg.posterior.MeanField(loc=loc, scale=0.01 * torch.ones_like(loc))
        posterior = pg.Posterior(model, weights, progress=False)
        note("densities", lambda: posterior.log_prob(events, of["draws"]), 3)
    queue.put((model.weights, found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    context = multiprocessing.get_context("spawn")
    print(f"{'':16} {'weights':>9}   {'training step':>16}   {'gradient':>16}   {'densities':>16}")
    for changes in ROWS:
        queue = context.Queue()
        process = context.Process(target=measure, args=(device, changes, queue))
        process.start()
        weights, found = queue.get()
        process.join()
        name = ", ".join(f"{what} {value:,}" for what, value in changes.items()) or "table 1"
        cells = [
            f"{found[task][0]:7.1f} ms {found[task][1]:4.0f} MB" if task in found else ""
            for task in ("training step", "gradient", "densities")
        ]
        print(f"{name:16} {weights:9,}   " + "   ".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
