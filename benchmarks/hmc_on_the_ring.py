"""Does HMC mix on the half ring? Four chains of 1,212 weights on 2,000 events, judged by log p at 100 points.

    python benchmarks/hmc_on_the_ring.py [--device cuda] [--warmup 500] [--draws 2000]

Prints R-hat and effective draws of log p at the worst of the probe points and of the potential, and the gradients and
seconds that it took. On one core of a CPU this takes hours; a killed run goes on when repeated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import pyrogen as pg
from pyrogen.diagnostics import function_space, probe_points

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from backends import make_small_model  # noqa: E402


def main() -> None:
    """Sample and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=500)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--trajectory", type=float, default=1.6)
    parser.add_argument("--max-steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="where the run is kept")
    arguments = parser.parse_args()
    pg.set_threads(1)
    target = pg.targets.GaussianRing()
    torch.manual_seed(arguments.seed)
    events = target.sample((2000,))
    backend = pg.HMC(
        chains=arguments.chains,
        warmup=arguments.warmup,
        draws=arguments.draws,
        trajectory=arguments.trajectory,
        max_steps=arguments.max_steps,
        seed=arguments.seed,
        device=arguments.device,
        checkpoint=arguments.checkpoint,
    )
    posterior = backend.fit(make_small_model("default", ring=True), events)
    found = function_space(posterior, probe_points(target, 100))
    history = posterior.history
    steps, size = history["steps"].mean(), history["step_size"].mean()
    print(
        f"\n{arguments.chains} chains of {arguments.draws} draws after {arguments.warmup}, trajectories of "
        f"{arguments.trajectory}:\nworst of 100 points: R-hat {found.largest_rhat:.4f}, ESS {found.smallest_ess:.0f}\n"
        f"potential: R-hat {found.potential_rhat:.4f}, ESS {found.potential_ess:.0f}, mean of each chain "
        f"{', '.join(f'{u:.1f}' for u in history['potential'].mean(1))}\naccepted {history['acceptance'].mean():.2f}, "
        f"{steps:.0f} steps of {size:.4f}; {posterior.info.gradients:,} gradients in {posterior.info.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
