"""Time of a gradient of the potential: what a leapfrog step of HMC or a step of SGHMC costs.

python benchmarks/potential_gradient.py [--threads T] [--rounds R] [--compile]

1. One, two, four and eight chains in one batch; four may cost at most twice one.
2. One packed vector of weights against Pyro's own potential with a sample site per layer parameter, same events and
   priors, after a check that both give the same potential and gradient; packed may cost at most a fifth for the
   table-1 flow (160 sites).
3. Networks side by side against ``torch.func.vmap``, for three flows and 1, 4 and 64 chains; both gradients agree.
4. With ``--compile``: torch.compile of the small flow's potential, and what compiling costs.

The rows alternate, so that a noisy machine meets all of them alike; medians are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import init_to_value
from pyro.infer.mcmc.util import initialize_model
from pyro.nn import PyroSample
from pyro.nn.module import to_pyro_module_
from pyro.ops.integrator import potential_grad
from torch import Tensor

import pyrogen as pg
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential, independent_starts

CHAINS = (1, 2, 4, 8)


def small_flow() -> pg.CouplingFlow:
    """A flow that HMC mixes (496 weights)."""
    return pg.CouplingFlow(2, blocks=2, hidden=(24,), transform="bernstein", base="uniform", bins=8, activation="tanh")


def make_potential(flow: pg.CouplingFlow, events: Tensor, *, compile: bool = False) -> Potential:
    """The potential of the flow's weights, without preprocessing."""
    model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None).prepare(events)
    data = TrainingData.check(model, events, None, None, events.dtype, "cpu")
    return Potential(model, data, compile=compile)


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every call, all of them in turn; the first two rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(rounds + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if round_number >= 2:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def print_chains(name: str, potential: Potential, rounds: int) -> None:
    """Cost of C chains in one batch."""
    starts = independent_starts(potential.model, max(CHAINS), seed=0)
    calls: dict[str, Callable[[], object]] = {
        f"{c} chains": lambda c=c: potential.value_and_gradient(starts[:c])  # type: ignore[misc]
        for c in CHAINS
    }
    found = medians(calls, rounds)
    print(f"{name} ({potential.model.weights:,} weights), {potential.size:,} events")
    for row, seconds in found.items():
        print(f"  {row:10} {1e3 * seconds:7.1f} ms   {seconds / found['1 chains']:5.2f} x one chain")


def site_per_parameter(flow: pg.CouplingFlow, scales: Tensor, events: Tensor) -> tuple[Callable, dict[str, Tensor]]:
    """Pyro's traced potential of the same flow with a sample site for every weight and bias, and where it starts."""
    sizes = [p.numel() for p in flow.parameters()]
    start = {name: p.detach().clone() for name, p in flow.named_parameters()}
    widths = dict(zip(start, scales.split(sizes), strict=True))
    to_pyro_module_(flow)
    for name, values in start.items():
        owner, _, attribute = name.rpartition(".")
        prior = dist.Normal(0.0, widths[name].reshape(values.shape)).to_event(values.ndim)
        setattr(flow.get_submodule(owner), attribute, PyroSample(prior))

    def model(events: Tensor) -> None:
        pyro.factor("likelihood", flow.log_prob(events).sum())

    initial, potential, _, _ = initialize_model(model, (events,), init_strategy=init_to_value(values=start))
    assert set(initial) == set(start)
    return potential, start


def print_against_pyro(name: str, make_flow: Callable[[], pg.CouplingFlow], batch_size: int, rounds: int) -> None:
    """Packed weights against one site per parameter, on ``batch_size`` events."""
    events = pg.targets.Wedge().sample((batch_size,))
    packed = make_potential(make_flow(), events)
    traced, start = site_per_parameter(make_flow(), packed.prior_scale, events)
    theta = torch.cat([values.reshape(-1) for values in start.values()])

    value, gradient = packed.value_and_gradient(theta[None])
    gradients, pyro_value = potential_grad(traced, start)
    pyro_gradient = torch.cat([gradients[name].reshape(-1) for name in start])
    constant = -dist.Normal(0.0, packed.prior_scale).log_prob(torch.zeros(())).sum()
    assert abs(pyro_value - constant - value[0]) < 1e-5 * abs(pyro_value), "the two potentials differ"
    assert (gradient[0] - pyro_gradient).abs().max() < 1e-4 * gradient.abs().max(), "the two gradients differ"

    found = medians(
        {
            f"Pyro, {len(start)} sites": lambda: potential_grad(traced, start),
            "packed": lambda: packed.value_and_gradient(theta[None]),
        },
        rounds,
    )
    print(f"{name}, {batch_size} events, one chain: potentials and gradients agree")
    for row, seconds in found.items():
        print(f"  {row:16} {1e3 * seconds:7.1f} ms   {seconds / found['packed']:5.2f} x packed")


def gradient_of(potential: Potential, theta: Tensor, side_by_side: bool) -> Tensor:
    """The gradient, with the networks side by side or by vmap."""
    potential.side_by_side = side_by_side
    return potential.value_and_gradient(theta)[1]


def print_side_by_side(rounds: int) -> None:
    """Networks side by side, with derivatives by hand, against vmap."""
    wedge = pg.targets.Wedge()
    flows = {
        "Bernstein": (small_flow(), 2000),
        "table 1": (pg.CouplingFlow(2), 512),
        "spline": (pg.CouplingFlow(2, blocks=2, hidden=(24,), transform="rqs", activation="tanh"), 2000),
    }
    print("networks side by side, against vmap")
    for name, (flow, size) in flows.items():
        potential = make_potential(flow, wedge.sample((size,)))
        assert potential.side_by_side, "the networks of this flow do not stand side by side"
        for chains in (1, 4, 64):
            theta = independent_starts(potential.model, chains, seed=0)
            one, two = (gradient_of(potential, theta, side_by_side) for side_by_side in (True, False))
            assert (one - two).abs().max() < 1e-4 * two.abs().max(), "the two gradients differ"
            calls: dict[str, Callable[[], object]] = {
                "side by side": partial(gradient_of, potential, theta, True),
                "vmap": partial(gradient_of, potential, theta, False),
            }
            own, vmap = (1e3 * t for t in medians(calls, rounds if chains < 64 else max(3, rounds // 5)).values())
            print(f"  {name:10} {chains:3} chains  {own:7.1f} ms, vmap {vmap:7.1f} ms   {vmap / own:5.2f} x faster")


def print_compiled(events: Tensor, rounds: int) -> None:
    """Compiled against eager, four chains."""
    eager, compiled = (make_potential(small_flow(), events, compile=compile) for compile in (False, True))
    theta = independent_starts(eager.model, 4, seed=0)
    started = time.perf_counter()
    gradient = compiled.value_and_gradient(theta)[1]
    seconds = time.perf_counter() - started
    reference = eager.value_and_gradient(theta)[1]
    assert (gradient - reference).abs().max() < 1e-4 * reference.abs().max(), "the compiled gradient differs"
    found = medians(
        {
            "eager": lambda: eager.value_and_gradient(theta),
            "compiled": lambda: compiled.value_and_gradient(theta),
        },
        rounds,
    )
    print(f"Bernstein flow, {len(events):,} events, four chains, torch.compile: {seconds:.0f} s to compile")
    for row, value in found.items():
        print(f"  {row:10} {1e3 * value:7.1f} ms   {value / found['eager']:5.2f} x eager")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--compile", action="store_true", help="also compile the small flow (a minute or so)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    pyro.enable_validation(False)
    rounds, wedge = arguments.rounds, pg.targets.Wedge()
    events = wedge.sample((2000,))
    print_chains("Bernstein flow", make_potential(small_flow(), events), rounds)
    print_chains("table-1 flow", make_potential(pg.CouplingFlow(2), wedge.sample((512,))), rounds)
    for batch_size in (512, 64):
        print_against_pyro("table-1 flow", lambda: pg.CouplingFlow(2), batch_size, rounds)
    print_against_pyro("Bernstein flow", small_flow, 512, rounds)
    print_side_by_side(rounds)
    if arguments.compile:
        print_compiled(events, rounds)


if __name__ == "__main__":
    main()
