"""A training step of pyrogen against one of zuko's ``BayesianModel``, both with local reparameterization, in turn.

python benchmarks/svi_against_zuko.py [--batch-size B] [--threads T] [--rounds R]

Needs zuko 1.6 or later, which nothing else here does: ``pip install zuko``. Both flows have 20 affine blocks, networks
of three layers with 32 units. A step is loss, gradient and Adam. One step of each follows the other, so that a noisy
machine meets both alike; medians and their ratio are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch

import pyrogen as pg

WIDTHS, BLOCKS, SIZE = (32, 32, 32), 20, 300_000  # table 1 of arXiv:2104.04543, and its number of events
WARM_UP = 3  # rounds that are not counted


def zuko_step(events: torch.Tensor) -> tuple[Callable[[], None], int]:
    """A step of zuko's Bayesian model, and its number of weights."""
    try:
        import zuko
        from zuko.bayesian import BayesianModel
    except ImportError as error:
        raise SystemExit(f"this benchmark compares with zuko 1.6 or later: pip install zuko ({error})") from error
    flow = zuko.flows.NICE(events.shape[1], transforms=BLOCKS, hidden_features=WIDTHS)
    model = BayesianModel(flow)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with model.reparameterize(local_trick=True) as drawn:
            loss = -drawn().log_prob(events).mean()
        (loss + model.kl_divergence() / SIZE).backward()
        optimizer.step()

    return step, sum(mean.numel() for mean in model.means.values())


def pyrogen_step(events: torch.Tensor) -> tuple[Callable[[], None], int]:
    """A step of pyrogen, and its number of weights."""
    model = pg.BayesianFlow(pg.CouplingFlow(events.shape[1], BLOCKS, WIDTHS)).prepare(events)
    guide = pg.AutoNormal(model)
    guide(events)
    optimizer = torch.optim.Adam(guide.parameters(), 1e-3)
    elbo = pg.ELBO(local=True)

    def step() -> None:
        optimizer.zero_grad()
        with pyro.validation_enabled(False):
            elbo.differentiable_loss(model, guide, events, size=SIZE).backward()
        optimizer.step()

    return step, model.weights


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    events = pg.targets.Wedge().sample((args.batch_size,))
    steps = {"zuko": zuko_step(events), "pyrogen": pyrogen_step(events)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(args.rounds + WARM_UP):
        for name, (step, _) in steps.items():
            started = time.perf_counter()
            step()
            if round_number >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - started))
    print(f"table-1 flow, batch {args.batch_size}, {args.threads} thread(s): loss, gradient and Adam")
    for name, (_, weights) in steps.items():
        median, least = statistics.median(times[name]), min(times[name])
        print(f"  {name:8} {weights:7,} weights   median {median:7.1f} ms   least {least:7.1f} ms")
    for what, of in (("medians", statistics.median), ("least times", min)):
        print(f"zuko / pyrogen, {what}: {of(times['zuko']) / of(times['pyrogen']):.2f}")


if __name__ == "__main__":
    main()
