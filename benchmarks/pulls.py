"""Pulls of posteriors that are calibrated beside those of mean field, with the true density and with a classifier.

Samples of the wedge train each posterior. At its generated events the pull t = mu (1 - w) / sigma is taken with the
true w, which is known here, and with that of a classifier between other true events and the generated ones. A single
posterior is off in a few directions at once, so the width of its pulls scatters: the pulls of all samples together are
the ones that have a width of one where sigma is right.

    python benchmarks/pulls.py             # 16 samples of 2,000 events, 20,000 events for the classifier
    python benchmarks/pulls.py --quick     # only to see it run
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pyrogen as pg
from pyrogen.diagnostics import WeightPulls, classifier_weights, weight_pulls
from pyrogen.recipes.backends import SETTINGS, make_small_model

Array = NDArray[np.float64]
TARGET = pg.targets.Wedge()
EDGES = {"x": (0, 10, (0.1, 1.0)), "y": (1, 10, (0.0, 1.0))}
MODES: dict[str, dict[str, int]] = {
    "default": {"sets": 16, "training": 2_000, "events": 20_000, "draws": 50, "sampled": 4},
    "quick": {"sets": 2, "training": 300, "events": 2_000, "draws": 20, "sampled": 1},
}


def backends(mode: str) -> dict[str, Any]:
    """Those whose sigma is held against the truth."""
    its = SETTINGS[mode]
    quiet = {"seed": 0, "progress": False}
    return {
        "SVI, mean field": pg.SVI(**its["svi"], **quiet),
        "SVI, KL x 0.1": pg.SVI(**its["svi"], kl_weight=0.1, **quiet),
        "Bootstrap": pg.Bootstrap(**its["bootstrap"], **quiet),
        "HMC": pg.HMC(**its["hmc"], **quiet),
    }


@dataclass
class Row:
    """What the posteriors of one method say, a list entry for each training sample."""

    exact: list[WeightPulls] = field(default_factory=list)
    learned: list[WeightPulls] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The line of the table."""
        cells = [name, str(len(self.exact)), f"{np.median([np.median(its.relative) for its in self.exact]):.1%}"]
        for pulls in (self.exact, self.learned):
            t = np.concatenate([its.pull for its in pulls])
            each = [its.width for its in pulls]
            cells += [f"{half_width(t):.2f} ({min(each):.2f} to {max(each):.2f})", f"{np.mean(np.abs(t) < 1):.0%}"]
        noise = math.sqrt(np.mean([its.floor**2 for its in self.learned]))
        own = math.sqrt(max(half_width(t) ** 2 - noise**2, 0.0))
        cells += [f"{noise:.2f}", f"{own:.2f}", f"{np.median(self.slopes):.2f}"]
        t = np.concatenate([its.pull for pulls in self.learned for its in pulls.histograms.values()])
        cells += [f"{np.sqrt(np.nanmean(t**2)):.2f}", f"{np.nanmean(np.abs(t) < 1):.0%}"]
        return " | ".join([*cells, *(f"{its / len(self.exact):.1f}" for its in self.seconds.values())])


HEAD = (
    "method | samples | sigma / mu | width, true w (of single samples) | within 1 | width, classifier (single) | "
    "within 1 | noise alone | without it | slope | histograms | within 1 | s: fit | classifier | pulls"
)


def half_width(t: Array) -> float:
    """Half the width of the central 68 %."""
    low, high = np.quantile(t, [0.158655, 0.841345])
    return float(high - low) / 2


def study(backend: Any, samples: torch.Tensor, model: Any, mode: dict[str, int], method: str) -> Row:
    """The posteriors of a backend, one for each training sample."""
    row = Row()
    start = time.process_time()
    posteriors = backend.fit_many(model, samples)
    row.seconds = {"fit": time.process_time() - start, "classifier": 0.0, "pulls": 0.0}
    for k, posterior in enumerate(posteriors):
        posterior.progress = False
        n, draws = mode["events"], posterior.weights.count(None if backend_stores(backend) else mode["draws"], least=2)
        generated = posterior.generate(n, draws, log_weights=True, seed=1)
        torch.manual_seed(1000 + k)
        truth = TARGET.sample((n,))
        start = time.process_time()
        weights = classifier_weights(truth, generated, method=method, seed=k, progress=False)
        row.seconds["classifier"] += time.process_time() - start
        start = time.process_time()
        learned = weight_pulls(weights, observables=EDGES)
        row.seconds["pulls"] += time.process_time() - start
        mu = posterior.density(generated, draws, seed=1).mean.numpy()
        log_w = TARGET.log_prob(generated.tensor(torch.float64)).numpy() - np.log(mu)
        row.exact.append(weight_pulls(replace(weights, log_w_generated=log_w)))
        row.learned.append(learned)
        row.slopes.append(weights.slope[0])
    return row


def backend_stores(backend: Any) -> bool:
    """Whether the posterior has a number of draws of its own."""
    return hasattr(backend, "replicas")


def main() -> None:
    """Print the table as its rows come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sets", type=int, help="training samples")
    parser.add_argument("--events", type=int, help="true and generated events of the classifier")
    parser.add_argument("--method", choices=("trees", "network"), default="trees", help="classifier")
    parser.add_argument("--only", help="one method by a part of its name")
    args = parser.parse_args()
    name = "quick" if args.quick else "default"
    mode = MODES[name] | {key: getattr(args, key) for key in ("sets", "events") if getattr(args, key)}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = TARGET.sample((mode["sets"], mode["training"]))
    model = make_small_model(name, ring=False)
    print(f"{mode['training']:,} training events, {mode['events']:,} events of the classifier ({args.method})\n{HEAD}")
    for method, backend in backends(name).items():
        if args.only and args.only not in method:
            continue
        chosen = samples[: mode["sampled"]] if method == "HMC" else samples
        row = study(backend, chosen, model, mode, args.method)
        print(row.text(method), flush=True)


if __name__ == "__main__":
    main()
