"""How many values of a nuisance parameter for each event? Errors and pulls of a posterior that is known in closed form.

Events of N(0, 1) with weights exp(a x) have the conditional density N(a, 1). The posterior over (m, s) in N(m + s a, 1)
is that of a weighted straight line. For each range of a and number of copies: the spread of the slope s over samples,
and the widths of the pulls at the ends of the range, at its middle and of the slope, with the likelihood that
``kl_weight`` gives and with one that counts copies as events.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from pyrogen.events import Nuisance, NuisanceSample, with_nuisances


def straight_line(found: NuisanceSample) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``[2]`` and covariance ``[2, 2]`` of the posterior over (m, s)."""
    w = found.sample.weights
    w = w * w.sum() / (w @ w) / found.kl_weight
    conditions = np.column_stack([np.ones(len(w)), found.context.values[:, 0]])
    covariance = np.linalg.inv((conditions * w[:, None]).T @ conditions)
    return covariance @ (conditions * w[:, None]).T @ found.sample.values[:, 0], covariance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--events", type=int, default=500)
    options = parser.parse_args()
    print("|a| <  copies  spread of s  kl_weight   pulls at -end, 0, end, of s   without kl_weight")
    for end in (0.5, 1.0):
        tilt = Nuisance("a", lambda x, a: torch.exp(a * x[:, 0]), -end, end, sigma=end / 2)
        rows = np.array([[1, -end], [1, 0], [1, end], [0, 1]])
        for copies in (1, 4, 16):
            slopes, pulls, factors = [], [], []
            for seed in range(options.samples):
                x = np.random.default_rng(seed).normal(size=(options.events, 1))
                found = with_nuisances(x, tilt, copies=copies, seed=seed)
                mean, covariance = straight_line(found)
                slopes.append(mean[1])
                pulls.append(rows @ (mean - [0, 1]) / np.sqrt(np.diagonal(rows @ covariance @ rows.T)))
                factors.append(found.kl_weight)
            widths, factor = np.std(pulls, axis=0), float(np.mean(factors))
            told, naive = (", ".join(f"{width:.2f}" for width in each) for each in (widths, widths * factor**0.5))
            print(f"{end:5}  {copies:6}  {np.std(slopes):11.3f}  {factor:9.2f}   {told:27}   {naive}")


if __name__ == "__main__":
    main()
