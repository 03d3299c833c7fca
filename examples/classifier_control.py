"""Where is a generator wrong, and what mends it? A classifier tells (arXiv:2305.16774).

    python examples/classifier_control.py                  # two jets and a mass whose peak is smeared: two minutes
    python examples/classifier_control.py --fault tail     # other failures: tail, hole, none
    python examples/classifier_control.py --truth true.h5 --generated generated.h5    # your own events
    python examples/classifier_control.py --quick          # 10,000 events of each kind, half a minute

A classifier between true and generated events gives every event the weight w = p_true / p_generated. Large and small
weights lie where the generator fails. Generated events with these weights follow the truth, as other true events
confirm. Needs the extra "trees".
With the results of other examples, and pulls of their sigma: benchmarks/classifier_control.py.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg
from pyrogen import diagnostics
from pyrogen.events import FilledHole, Smear, TailCut, distort

FAULTS = {
    "none": [],
    "tail": [TailCut("pt_a", missing=0.01)],
    "hole": [FilledHole("a", "b", 0.4, fraction=0.5)],
    "smear": [Smear("mass", absolute=2.5 * math.sqrt(1.2**2 - 1))],
}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--fault", choices=FAULTS, default="smear", help="what is wrong with the generated jets (smear)")
parser.add_argument("--truth", type=Path, metavar="FILE", help="true events, which no generator was trained on")
parser.add_argument("--generated", type=Path, metavar="FILE", help="generated events")
parser.add_argument("--quick", action="store_true", help="at most 10,000 events of each kind")
parser.add_argument("--seed", type=int, default=0, help="seed of events and classifiers (0)")
parser.add_argument("--out", type=Path, help="folder for the results (out/classifier_control)")
args = parser.parse_args()
if (args.truth is None) != (args.generated is None):
    parser.error("give --truth and --generated together")
out = args.out or Path("out/classifier_control")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time


def jets(n: int, seed: int) -> pg.EventSample:
    """Two jets with falling pT that are farther apart than 0.4, and a mass with a peak."""
    rng, m = np.random.default_rng(seed), 2 * n + 100  # more than needed: some lie too close
    pt_a, eta_a, phi_a = 20 + rng.exponential(30, m), rng.normal(0, 1.3, m), rng.uniform(-math.pi, math.pi, m)
    pt_b, eta_b = 20 + (pt_a - 20) * rng.beta(3, 1.5, m), eta_a + rng.normal(0, 1.2, m)
    between = np.where(rng.random(m) < 0.4, 0.0, math.pi) + rng.normal(0, 0.9, m)
    mass = np.where(rng.random(m) < 0.7, rng.normal(91.2, 2.5, m), rng.uniform(60, 120, m))
    phi_b = np.angle(np.exp(1j * (phi_a + between)))
    apart = np.hypot(eta_a - eta_b, np.angle(np.exp(1j * between))) > 0.4
    values = np.stack([pt_a, eta_a, phi_a, pt_b, eta_b, phi_b, mass], 1)[apart][:n]
    names = ["pt_a", "eta_a", "phi_a", "pt_b", "eta_b", "phi_b", "mass"]
    return pg.EventSample(values, names, ["GeV", "", "rad", "GeV", "", "rad", "GeV"])


def distance(x: torch.Tensor) -> torch.Tensor:
    """Delta R of the two jets ``[n]``: a sharp edge that hides in the correlation of four columns."""
    angle = torch.remainder(x[:, 2] - x[:, 5] + math.pi, 2 * math.pi) - math.pi
    return torch.hypot(x[:, 1] - x[:, 4], angle)


# 1. True events, and generated ones: here other true events, with a failure that we know.
most = 10_000 if args.quick else 100_000
if args.truth:
    truth, generated = pg.events.read(args.truth)[: 2 * most], pg.events.read(args.generated)[:most]
    observables = {}  # functions of the events that show the classifier masses and distances help here, too
else:
    truth = jets(2 * most, args.seed)
    generated = distort(jets(most, args.seed + 1), FAULTS[args.fault], seed=args.seed).sample
    observables = {"delta_r_ab": distance}
judging, seen = truth[: len(truth) // 2], truth[len(truth) // 2 :]  # classifiers see one half, the other one judges

# 2. The weight of every event. No classifier scores an event that it was trained on.
weights = diagnostics.classifier_weights(seen, generated, observables=observables, method="trees", seed=args.seed)
print(weights.text())
weights.save(out / "weights.h5")
pg.plotting.save_figure(pg.plotting.plot_classifier_weights(weights), out / "weights.png")

# 3. Where are the extreme weights? In which observable, and is it a tail, an edge or a peak?
failures = diagnostics.find_failures(weights, observables)
print(f"\n{failures.text()}")
failing = list(dict.fromkeys(mode.observable for mode in failures.modes)) or None  # None: those most alike a failure
pg.plotting.save_figure(pg.plotting.plot_failures(failures, names=failing), out / "failures.png")

# 4. Generated events with their weights. Do they agree with true events that no classifier has seen?
mended = diagnostics.reweight(weights)
print(f"\n{mended.text()}")
mended.events.save(out / "reweighted.h5")
looked_at = {name: name for name in truth.names} | observables
told = diagnostics.closure(judging, generated, mended.events, looked_at, seed=args.seed)
print(f"\n{told.text()}")

# 5. The same without weights: events are kept with a probability that goes as their weight.
largest = float(np.quantile(mended.events.weights, 0.999))
unweighted = diagnostics.unweight(mended.events, maximum=largest, overweights="cut", seed=args.seed)
unweighted.events.save(out / "unweighted.h5")
print(f"\n{unweighted.text()}\nwrote figures and events in {out}")
