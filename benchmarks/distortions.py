"""Which measure sees which known distortion? AUC, measures of the field, and the tails of the classifier's weights.

A toy with the features of an LHC event is distorted in known ways, as in arXiv:2305.16774, sec. 3. A row has the AUC of
the best possible classifier (from the known ratio of the densities) and of a trained one; by how many standard
deviations each measure is above true events in the place of the generated ones; the tail of w that is most significant.

python benchmarks/distortions.py --events 10000        # needs the extra trees
python benchmarks/distortions.py --figure blind.png    # the AUC of each against its largest tail, too
"""

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

import pyrogen as pg
from pyrogen.diagnostics import classifier_weights, roc_auc, sample_measures
from pyrogen.diagnostics.control.verdict import SIGMA_AUC, SIGMA_TAIL
from pyrogen.events import Hole, Shift, Smear, TailCut, distort
from pyrogen.plotting import save_figure
from pyrogen.plotting.style import TRUTH, colours, new_figure, styled

MASS, WIDTH, WINDOW = 91.2, 2.5, (71.2, 111.2)  # of a resonance, in GeV
NAMES = ("pt", "eta_a", "phi_a", "eta_b", "phi_b", "m")
FLAT_MEAN, THRESHOLD = 30.0, 20.0
CUTS = (0.1, 0.2, 0.5, 0.8, 1.25, 2.0, 5.0, 10.0)


def half_angle() -> float:
    """The Breit-Wigner's quantile function is a tangent up to this angle."""
    return math.atan((WINDOW[1] - MASS) / (WIDTH / 2))


def truth(n: int, seed: int) -> pg.EventSample:
    """pT of an exponential spectrum, eta and phi of two jets, mass of a resonance."""
    rng = np.random.default_rng(seed)
    values = np.empty((n, len(NAMES)))
    values[:, 0] = THRESHOLD + rng.exponential(FLAT_MEAN, n)
    values[:, [1, 3]] = rng.normal(size=(n, 2))
    values[:, [2, 4]] = rng.uniform(-math.pi, math.pi, (n, 2))
    values[:, 5] = MASS + WIDTH / 2 * np.tan(rng.uniform(-1, 1, n) * half_angle())
    return pg.EventSample(values, NAMES, ["GeV", "", "rad", "", "rad", "GeV"])


def log_density(x: torch.Tensor) -> torch.Tensor:
    """log p of :func:`truth`."""
    pt, m = x[:, 0], x[:, 5]
    found = -(pt - THRESHOLD) / FLAT_MEAN - math.log(FLAT_MEAN) - 0.5 * x[:, [1, 3]].square().sum(1)
    found = found - 3 * math.log(2 * math.pi) - math.log(2 * half_angle())
    found = found + math.log(WIDTH / 2) - ((m - MASS) ** 2 + (WIDTH / 2) ** 2).log()
    inside = (pt >= THRESHOLD) & (m >= WINDOW[0]) & (m <= WINDOW[1])
    return torch.where(inside, found, -torch.inf)


def delta_r(x: torch.Tensor) -> torch.Tensor:
    """Distance of the two jets."""
    d_phi = torch.remainder(x[:, 2] - x[:, 4] + math.pi, 2 * math.pi) - math.pi
    return torch.hypot(x[:, 1] - x[:, 3], d_phi)


DISTORTIONS = {
    "none": [],
    "tail of pT, 1 %": [TailCut("pt", missing=0.01)],
    "hole, Delta R < 0.4": [Hole("a", "b", 0.4)],
    "m smeared, 20 % of width": [Smear("m", absolute=0.2 * WIDTH)],
    "m smeared, 50 % of width": [Smear("m", absolute=0.5 * WIDTH)],
    "pT shifted, 3 %": [Shift("pt", factor=1.03)],
}


@dataclass
class Point:
    """What the classifier says of a distortion: its AUC with the error, and the significance of the largest tail."""

    name: str
    auc: tuple[float, float]
    tail: float


def row(name: str, events: int, seed: int) -> tuple[list[str], Point]:
    """One line of the table, and what is drawn of it."""
    true, other = truth(2 * events, 2 * seed), truth(events, 2 * seed + 1)
    done = distort(other, DISTORTIONS[name], seed=seed, log_density=log_density) if DISTORTIONS[name] else None
    generated = other if done is None else done.sample
    best = 0.5
    if done is not None:
        scores = [np.clip(done.log_ratio(sample), -30, 30) for sample in (true, generated)]
        best = roc_auc(*scores)[0]
    observables = {column: column for column in NAMES} | {"delta_r": delta_r}
    measured = sample_measures(true, generated, observables, splits=20, seed=seed, progress=False)
    weights = classifier_weights(
        true[:events], generated, observables={"delta_r": delta_r}, method="trees", seed=seed, progress=False
    )
    tails = weights.tails(CUTS)
    k = int(np.argmax(np.nan_to_num(tails.significance)))
    sign = "<" if tails.cuts[k] < 1 else ">"
    cells = [name, f"{best:.4f}", "{:.4f} +- {:.4f}".format(*weights.auc)]
    cells += [f"{number:+.1f}" for number in measured.significance]
    cells += [f"{weights.width / weights.floor:.2f}", f"{tails.significance[k]:.1f} (w {sign} {tails.cuts[k]:g})"]
    return cells, Point(name, weights.auc, float(tails.significance[k]))


@styled
def draw(points: list[Point]) -> Figure:
    """The AUC of each distortion against its most significant tail."""
    figure = new_figure(10, 6)
    axis = figure.subplots()
    seen = (
        SIGMA_AUC * math.sqrt(2) * points[0].auc[1]
    )  # an area scatters by sqrt(2) of its error where nothing is wrong
    axis.axvspan(0.5 - seen, 0.5 + seen, color="#8a8a8a", alpha=0.3, linewidth=0, label="the AUC sees nothing")
    axis.axhline(SIGMA_TAIL, color=TRUTH, linestyle="--", linewidth=1, label="a tail is seen above")
    for point, colour in zip(points, colours(len(points)), strict=True):
        axis.errorbar(point.auc[0], point.tail, xerr=point.auc[1], fmt="o", color=colour, capsize=3, label=point.name)
    axis.set(xlabel="AUC of the classifier", ylabel=r"most significant tail of $w$ [$\sigma$]")
    axis.set_ylim(bottom=0)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def main() -> None:
    """Print the table as its rows come."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=10_000, help="of the generated sample, and of the truth")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--figure", help="where the figure goes")
    given = options.parse_args()
    torch.set_num_threads(1)
    head = ["distortion", "best AUC", "AUC", "FPD", "KPD", "energy", "sliced W1", "precision", "recall", "density"]
    print(" | ".join([*head, "coverage", "width/floor", "largest tail [sigma]"]))
    started = time.process_time()
    points = []
    for name in DISTORTIONS:
        cells, point = row(name, given.events, given.seed)
        points.append(point)
        print(" | ".join(cells), flush=True)
    if given.figure:
        save_figure(draw(points), given.figure)
    print(f"{time.process_time() - started:.0f} s of one core")


if __name__ == "__main__":
    main()
