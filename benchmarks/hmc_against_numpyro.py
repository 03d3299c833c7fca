"""Effective draws per second: ``pg.HMC`` against NumPyro's NUTS, on the same flow, prior and events.

python benchmarks/hmc_against_numpyro.py [--repeats R] [--warmup W] [--draws D] [--bins B] [--activation A]

It needs JAX and NumPyro (``pip install jax numpyro``), which pyrogen itself does not. Two Bernstein blocks with 24
hidden units (496 weights), 2,000 events of the wedge, four chains in one batch (NumPyro: ``chain_method="vectorized"``,
the default target acceptance of 0.8, trees of at most 2^8 steps), all on one thread.

1. Potential and gradient of both agree; then the time of a gradient of four chains, in turn, medians and minima.
2. Both sample from their own starts, in turn, with other seeds in every repetition. Everything counts: start, warm-up,
   compilation. Judged by log p at 100 probe points: bulk ESS (ArviZ, the same for both) of the worst, and R-hat.

Seconds are those of the wall; ``CPU`` are those of the process, which a busy machine disturbs less.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import arviz as az
import numpy as np
import pyro
import torch

import pyrogen as pg
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential

try:
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS
except ImportError as error:
    raise SystemExit(f"{error}. This benchmark compares with NumPyro: pip install jax numpyro") from error

CHAINS, HIDDEN, FLOOR, PROBES = 4, 24, 0.01, 100


class JaxFlow:
    """The flow of :func:`make_model` and its potential, in JAX."""

    def __init__(self, model: pg.BayesianFlow, events: np.ndarray, bins: int, activation: str) -> None:
        n = self.bins = bins
        self.activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[activation]
        self.shapes, self.scales = model.packing.shapes, jnp.array(model.prior_scales.numpy())
        self.events = jnp.array(events)
        factors = [math.log((1 - FLOOR) * n * math.comb(n - 1, k)) for k in range(n)]
        self.log_factors, self.powers = jnp.array(factors), jnp.arange(n, dtype=jnp.float32)

    def transform(self, x: Any, raw: Any) -> tuple[Any, Any]:
        """A Bernstein polynomial and its slope at ``x [N]``, for parameters ``raw [N, bins]``."""
        fractions, tiny = jax.nn.softmax(raw, -1), jnp.finfo(jnp.float32).tiny
        low, high = (jnp.log(jnp.maximum(value, tiny))[:, None] for value in (x, 1 - x))
        densities = jnp.exp(low * self.powers + high * (self.bins - 1 - self.powers) + self.log_factors)
        following = jnp.cumsum(densities[:, ::-1], 1)[:, ::-1] - densities
        slope = FLOOR + (densities * fractions).sum(1)
        value = ((following * fractions).sum(1) + x * (slope + FLOOR * (self.bins - 1))) / self.bins
        return value, slope

    def log_prob(self, theta: Any, x: Any) -> Any:
        """Log densities ``[N]`` of events ``x [N, 2]``."""
        parts, start = [], 0
        for shape in self.shapes:
            parts.append(theta[start : start + math.prod(shape)].reshape(shape))
            start += math.prod(shape)
        first, second, total = x[:, 0], x[:, 1], 0.0
        for w1, b1, w2, b2 in (parts[4:], parts[:4]):
            hidden = self.activation(second[:, None] @ w1.T + b1)
            moved, slope = self.transform(first, hidden @ w2.T + b2)
            total, first, second = total + jnp.log(slope), second, moved
        return total

    def potential(self, theta: Any) -> Any:
        """The potential of the weights ``[P]``, without the constants of the prior."""
        return -self.log_prob(theta, self.events).sum() + 0.5 * ((theta / self.scales) ** 2).sum()


@dataclass
class Result:
    """What one run came to."""

    seconds: float
    cpu: float
    gradients: float
    smallest_ess: float
    median_ess: float
    rhat: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:6.1f} s ({self.cpu:6.1f} CPU)  {self.gradients:8,.0f} gradients after the warm-up   "
            f"ESS {self.smallest_ess:5.0f} worst, {self.median_ess:5.0f} median   R-hat {self.rhat:.3f}   "
            f"{self.smallest_ess / self.seconds:6.2f} ESS/s ({self.smallest_ess / self.cpu:6.2f} per CPU s)"
        )


def make_model(bins: int, activation: str) -> pg.BayesianFlow:
    """Two Bernstein blocks on the unit box."""
    flow = pg.CouplingFlow(
        2, blocks=2, hidden=(HIDDEN,), transform="bernstein", base="uniform", bins=bins, activation=activation
    )
    return pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None)


def timed(work: Callable[[], tuple[Callable[[], np.ndarray], float]]) -> Result:
    """Run something that gives a function for log p ``[chains, draws, probes]``, and gradients after the warm-up."""
    wall, cpu = time.perf_counter(), time.process_time()
    log_prob_of, gradients = work()
    seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
    log_prob = log_prob_of()
    points = [log_prob[:, :, i] for i in range(PROBES)]
    ess = [float(az.ess(values, method="bulk")) for values in points]
    return Result(seconds, cpu, gradients, min(ess), statistics.median(ess), max(float(az.rhat(v)) for v in points))


def run_pyrogen(model: pg.BayesianFlow, events: torch.Tensor, probes: torch.Tensor, settings: dict[str, Any]) -> Any:
    """Four chains of ``pg.HMC``."""
    posterior = pg.HMC(chains=CHAINS, progress=False, **settings).fit(model, events)
    shape = (CHAINS, settings["draws"], PROBES)
    log_prob = lambda: posterior.log_prob(probes, CHAINS * settings["draws"]).reshape(shape).double().numpy()  # noqa: E731
    return log_prob, posterior.history["steps"][0].sum()


def run_numpyro(flow: JaxFlow, probes: np.ndarray, settings: dict[str, Any]) -> Any:
    """Four chains of NumPyro's NUTS in one batch."""
    seed, start = settings["seed"], np.random.default_rng(settings["seed"])
    draws = 0.3 * start.standard_normal((CHAINS, len(flow.scales))).astype(np.float32)
    mcmc = MCMC(
        NUTS(potential_fn=flow.potential, max_tree_depth=8),
        num_warmup=settings["warmup"],
        num_samples=settings["draws"],
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(seed), init_params=jnp.array(draws) * flow.scales, extra_fields=("num_steps",))
    theta = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    # Chains in one batch wait for the longest trajectory. NumPyro does not tell those of the warm-up.
    steps = np.array(mcmc.get_extra_fields(group_by_chain=True)["num_steps"]).max(0).sum()
    log_prob = jax.vmap(jax.vmap(flow.log_prob, (0, None)), (0, None))
    return lambda: np.array(log_prob(theta, jnp.array(probes)), dtype=np.float64), float(steps)


def print_gradients(model: pg.BayesianFlow, events: torch.Tensor, flow: JaxFlow, rounds: int) -> None:
    """Both gradients agree; how long they take."""
    prepared = model.prepare(events)
    potential = Potential(prepared, TrainingData.check(prepared, events, None, None, events.dtype, "cpu"))
    theta = 0.3 * prepared.prior_scales * torch.randn(CHAINS, prepared.weights)
    inner = jax.jit(jax.vmap(jax.value_and_grad(flow.potential)))
    theirs = jnp.array(theta.numpy())
    value, gradient = (torch.from_numpy(np.array(array)) for array in inner(theirs))
    own_value, own_gradient = potential.value_and_gradient(theta)
    assert (value - own_value).abs().max() < 1e-2, "the two potentials differ"
    assert (gradient - own_gradient).abs().max() < 1e-4 * gradient.abs().max(), "the two gradients differ"
    calls = {
        "pyrogen": lambda: potential.value_and_gradient(theta),
        "JAX": lambda: jax.block_until_ready(inner(theirs)),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - started))
    print(f"gradient of {CHAINS} chains, {prepared.weights} weights, {len(events):,} events: both agree")
    for name, values in times.items():
        print(f"  {name:8} median {statistics.median(values):6.2f} ms   smallest {min(values):6.2f} ms")
    medians, smallest = ([f(times["JAX"]) / f(times["pyrogen"])] for f in (statistics.median, min))
    print(f"  JAX / pyrogen: {medians[0]:.2f} (medians), {smallest[0]:.2f} (smallest)")


def main() -> None:
    """Print gradients, runs and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("repeats", 1),
        ("warmup", 150),
        ("draws", 250),
        ("events", 2000),
        ("bins", 8),
        ("rounds", 60),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--activation", choices=("tanh", "relu"), default="tanh")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    torch.manual_seed(0)
    events = pg.targets.Wedge().sample((arguments.events,))
    probes = torch.rand(PROBES, 2, generator=torch.Generator().manual_seed(5))
    model = make_model(arguments.bins, arguments.activation)
    flow = JaxFlow(model, events.numpy(), arguments.bins, arguments.activation)
    print_gradients(model, events, flow, arguments.rounds)
    ratios: dict[str, list[float]] = {"wall": [], "CPU": []}
    for seed in range(arguments.repeats):
        settings = {"warmup": arguments.warmup, "draws": arguments.draws, "seed": seed}
        ours = timed(partial(run_pyrogen, model, events, probes, settings))
        print(f"seed {seed}  pg.HMC        {ours}", flush=True)
        theirs = timed(partial(run_numpyro, flow, probes.numpy(), settings))
        print(f"seed {seed}  NumPyro NUTS  {theirs}", flush=True)
        for name, times in (("wall", (ours.seconds, theirs.seconds)), ("CPU", (ours.cpu, theirs.cpu))):
            ratios[name].append(ours.smallest_ess / times[0] / (theirs.smallest_ess / times[1]))
    for name, found in ratios.items():
        listed = ", ".join(f"{ratio:.2f}" for ratio in found)
        print(f"effective draws per second ({name}), pg.HMC / NumPyro: {listed}; median {statistics.median(found):.2f}")


if __name__ == "__main__":
    main()
