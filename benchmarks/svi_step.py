"""Time of a training step and of a density evaluation, as ratios measured in one run.

python benchmarks/svi_step.py [--threads T]

The rows alternate, so that a noisy machine meets all of them alike; medians are printed. "plain torch" is the same
arithmetic without Pyro: what the packed sample site costs on top is Pyro's whole share.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch

import pyrogen as pg

ROUNDS = 15


def make_steps(batch_size: int) -> dict[str, Callable[[], None]]:
    """One training step (loss and gradient) in each of the ways compared."""
    events = pg.targets.Wedge().sample((batch_size,))
    model = pg.BayesianFlow(pg.CouplingFlow(2)).prepare(events)
    guide = pg.AutoNormal(model)
    guide(events)
    mean = model.initial_theta.clone().requires_grad_()
    raw = torch.full_like(mean, -7.0).requires_grad_()

    def through_pyro(local: bool) -> Callable[[], None]:
        elbo = pg.ELBO(local=local)

        def step() -> None:
            with pyro.validation_enabled(False):
                elbo.differentiable_loss(model, guide, events, size=300_000).backward()

        return step

    def plain(local: bool) -> Callable[[], None]:
        def step() -> None:
            scale = torch.nn.functional.softplus(raw)
            if local:
                likelihood = model.local_log_prob(mean, scale, events).sum()
            else:
                likelihood = model.log_prob(mean + scale * torch.randn_like(mean), events).sum()
            kl = (0.5 * (mean**2 + scale**2 - 1) - scale.log()).sum()
            (kl - 300_000 / batch_size * likelihood).backward()

        return step

    return {
        "one weight draw, plain torch": plain(False),
        "one weight draw, pg.ELBO": through_pyro(False),
        "local reparameterization, plain torch": plain(True),
        "local reparameterization, pg.ELBO": through_pyro(True),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for batch_size in (512, 2048):
        steps = make_steps(batch_size)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for round_number in range(ROUNDS + 2):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                if round_number >= 2:  # the first rounds warm up
                    times[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) for name, values in times.items()}
        reference = medians["one weight draw, plain torch"]
        print(f"table-1 flow (44,840 weights), batch {batch_size}: loss and gradient")
        for name, value in medians.items():
            print(f"  {name:38} {1e3 * value:7.1f} ms   {value / reference:5.2f} x")

    events = pg.targets.Wedge().sample((40_960,))
    model = pg.BayesianFlow(pg.CouplingFlow(2)).prepare(events)
    started = time.perf_counter()
    with torch.no_grad():
        for chunk in events.split(4096):
            model.log_prob(model.initial_theta, chunk)
    seconds = time.perf_counter() - started
    print(f"density of one weight draw: {len(events) / seconds / 1e3:.0f} thousand events a second")


if __name__ == "__main__":
    main()
