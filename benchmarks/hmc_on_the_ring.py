"""Does HMC mix on the half ring? Four chains of 1,212 weights on 2,000 events, judged by log p at 100 points.

    python benchmarks/hmc_on_the_ring.py [--device cuda] [--more 1600]

Prints R-hat and effective draws of log p at the worst of the probe points and of the potential, and the gradients and
seconds that it took. On one core of a CPU this takes hours; a killed run goes on when repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg
from pyrogen.coverage.chains import diagnose
from pyrogen.diagnostics import function_space, probe_points
from pyrogen.recipes.backends import make_small_model


def main() -> None:
    """Sample and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=2500)
    parser.add_argument("--more", type=int, default=0, help="further draws, by chains that go on from these")
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
    model, points = make_small_model("default", ring=True), probe_points(target, 100)
    posterior = backend.fit(model, events)
    log_prob, history = function_space(posterior, points).log_prob, posterior.history
    gradients, seconds = posterior.info.gradients, posterior.info.seconds
    if arguments.more:
        kept = arguments.checkpoint and arguments.checkpoint.with_name(f"{arguments.checkpoint.stem}_more.h5")
        going_on = replace(backend, warmup=100, draws=arguments.more, checkpoint=kept)
        posterior = going_on.fit(model, events, start=posterior)
        log_prob = np.concatenate([log_prob, function_space(posterior, points).log_prob], 1)
        history = {key: np.concatenate([history[key], posterior.history[key]], 1) for key in history}
        gradients, seconds = gradients + posterior.info.gradients, seconds + posterior.info.seconds
    found = np.array([diagnose(log_prob[:, :, i]) for i in range(len(points))])
    rhat, ess, _ = diagnose(history["potential"])
    steps, size = history["steps"].mean(), history["step_size"].mean()
    print(
        f"\n{arguments.chains} chains of {log_prob.shape[1]} draws after {arguments.warmup}, trajectories of "
        f"{arguments.trajectory}:\nworst of 100 points: R-hat {found[:, 0].max():.4f}, ESS {found[:, 1:].min():.0f}; "
        f"median ESS {np.median(found[:, 1]):.0f}\n"
        f"potential: R-hat {rhat:.4f}, ESS {ess:.0f}, mean of each chain "
        f"{', '.join(f'{u:.1f}' for u in history['potential'].mean(1))}\naccepted {history['acceptance'].mean():.2f}, "
        f"{steps:.0f} steps of {size:.4f}; {gradients:,.0f} gradients in {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
