"""What a coverage study costs: 20 samples trained in one batch, in units of 20 trainings one after another.

python benchmarks/many_samples.py
"""

import time
import warnings

import torch

import pyrogen as pg

SAMPLES, EVENTS = 20, 2000
BACKENDS = {
    "SVI": pg.SVI(epochs=10, batch_size=500, progress=False),
    "SGLD": pg.SGLD(chains=1, warmup=5, draws=5, thinning=10, batch_size=500, start_steps=1, progress=False),
    "HMC": pg.HMC(chains=1, warmup=3, draws=3, max_steps=10, jitter=0, start_steps=1, progress=False),
}


def seconds(call, *arguments):
    """Time of one call; the warnings of so short chains are no news."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        call(*arguments)
    return time.perf_counter() - started


def main() -> None:
    """Time single trainings and batches in turn, so that a busy machine is busy for both; print the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = pg.targets.Wedge().sample((SAMPLES, EVENTS))
    flow = pg.CouplingFlow(2, blocks=2, hidden=(24,), transform="bernstein", base="uniform", bins=8, activation="tanh")
    model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None)
    for name, backend in BACKENDS.items():
        seconds(backend.fit_many, model, samples[:2])  # warm
        ratios = []
        for r in range(3):
            alone = seconds(backend.fit, model, samples[r])
            ratios.append(seconds(backend.fit_many, model, samples) / (SAMPLES * alone))
        low, middle, high = sorted(ratios)
        print(
            f"{name:5s} {SAMPLES} samples in one batch: {middle:.2f} of {SAMPLES} trainings ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
