"""How often are classifiers called overfitted, and their weights calibrated, rightly and wrongly? A few minutes.

    python benchmarks/overfitting.py             # 40 samples of each case
    python benchmarks/overfitting.py --seeds 4   # a quick look

Gaussian events in five columns; the generated ones are the same, or shifted by half a standard deviation in one column.
Well-trained classifiers stop where other events say so; those that are overfitted on purpose go on for long, with
many leaves, or keep the last of many epochs.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
import torch

from pyrogen.diagnostics import ClassifierWeights, Network, Trees, classifier_weights

COLUMNS = 5
SHIFTS = {"no difference": 0.0, "shift of 0.1 sigma": 0.1, "shift of 0.5 sigma": 0.5}
LEARNERS: dict[str, Any] = {
    "trees": Trees(),
    "network": Network(hidden=(32, 32), epochs=25, batch_size=256),
    "trees, overfitted": Trees(iterations=100, leaves=31, smallest_leaf=5, patience=0),
    "network, overfitted": Network(
        hidden=(64, 64), epochs=40, batch_size=256, schedule="constant", lr=3e-3, keep="last"
    ),
}


def study(learner: Any, shift: float, n: int, seed: int) -> ClassifierWeights:
    """Weights of one pair of samples."""
    generator = torch.Generator().manual_seed(seed)
    truth, generated = (torch.randn(n, COLUMNS, generator=generator, dtype=torch.float64) for _ in range(2))
    generated[:, 0] += shift
    return classifier_weights(truth, generated, method=learner, ensemble=1, control=False, seed=seed, progress=False)


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--events", type=int, default=4_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{args.events:,} true and generated events, {args.seeds} seeds")
    print("classifier | samples | overfitted | verdicts | p < 0.01 | slope | spread of log w | s of CPU each")
    for name, learner in LEARNERS.items():
        for what, shift in SHIFTS.items():
            start = time.process_time()
            found = [study(learner, shift, args.events, seed) for seed in range(args.seeds)]
            seconds = (time.process_time() - start) / args.seeds
            slopes = [its.slope[0] for its in found if np.isfinite(its.slope[0])]
            verdicts = Counter(its.verdict for its in found).most_common()
            cells = [name, what, f"{sum(its.overfitted for its in found)} of {len(found)}"]
            cells.append(", ".join(f"{verdict} {n}" for verdict, n in verdicts))
            cells.append(str(sum(its.calibration().p_value < 0.01 for its in found)))
            cells.append(f"{np.mean(slopes):.2f} +- {np.std(slopes):.2f}")
            cells.append(f"{np.median([its.scatter for its in found]):.2f}")
            print(" | ".join([*cells, f"{seconds:.1f}"]), flush=True)


if __name__ == "__main__":
    main()
