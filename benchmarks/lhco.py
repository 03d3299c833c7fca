"""Significance improvement on the LHC Olympics R&D events, of several trainings of each method.

    python benchmarks/lhco.py PATH.npz [--methods supervised idealised cwola] [--trainings 5] [--figure sic.png]

The file has ``data`` and ``test``, ``[N, 5]`` of mjj, mj1, mj2 - mj1 [TeV], tau21 of both jets, and ``data_label`` and
``test_label``, 1 for signal. Curves are those of the test events in the signal region, 3.4 to 3.6 TeV. A method is one
function: it takes :class:`Events`, and gives the scores of ``events.test``.
"""

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np

import pyrogen as pg
from pyrogen.search import SicCurves, cathode, cwola, density_ratio, idealised, sic_curve, supervised

REGIONS = pg.search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
NAMES, UNITS = ("mj1", "dmj", "tau21_1", "tau21_2"), ("TeV", "TeV", "", "")


def sample(values):
    return pg.EventSample(values[:, 1:].astype(float), NAMES, UNITS)


def inside(values):
    """Features that have a density: some tau21 are exactly 0."""
    return np.clip(values[:, 1:].astype(float), 1e-6, [np.inf, np.inf, 1 - 1e-6, 1 - 1e-6])


@dataclass
class Events:
    """Events of one training; the order of data and of test signal changes with it.

    Attributes:
        data: the window ``[N, 5]``; label: 1 for signal, for the baselines that need it.
        signal: labelled test signal in the signal region for the supervised training, which is not in ``test``.
        test: events that are scored; test_label: 1 for signal.
    """

    data: np.ndarray
    label: np.ndarray
    signal: np.ndarray
    test: np.ndarray
    test_label: np.ndarray

    @property
    def region(self):
        """Which data are in the signal region."""
        return REGIONS.in_signal(self.data[:, 0])


def read(path, seed, clean=False):
    with np.load(path) as file:
        data, label, test, test_label = (np.array(file[k]) for k in ("data", "data_label", "test", "test_label"))
    if clean:
        kept = REGIONS.in_signal(data[:, 0]) | (label == 0)
        data, label = data[kept], label[kept]
    test, test_label = (each[REGIONS.in_signal(test[:, 0])] for each in (test, test_label))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    chosen = rng.permutation(np.flatnonzero(test_label))[: int(test_label.sum()) // 2]
    kept = np.ones(len(test), bool)
    kept[chosen] = False
    return Events(data[order], label[order], test[chosen], test[kept], test_label[kept])


def run_supervised(events, seed, options, flows):
    """Half of the labelled test signal (3,301 events) against all background of the data."""
    background = events.data[events.region & (events.label == 0)]
    return supervised(sample(events.signal), sample(background), seed=seed, **options).of(sample(events.test))


def run_idealised(events, seed, options, flows):
    """All signal and half of the background against the other half."""
    region = events.data[events.region]
    label = events.label[events.region]
    background = region[label == 0]
    half = len(background) // 2
    data = np.concatenate([region[label == 1], background[:half]])
    return idealised(sample(data), sample(background[half:]), seed=seed, **options).of(sample(events.test))


def run_cwola(events, seed, options, flows):
    """Signal region against sidebands."""
    found = cwola(sample(events.data), events.data[:, 0], REGIONS, seed=seed, **options)
    return found.of(sample(events.test))


@dataclass
class Flows:
    """Settings of the flows.

    Attributes:
        number: of flows of cathode; blocks, hidden: of each network; steps: of its training.
        template: generated events of a template over the data; None: 2, and 4 of a single flow.
    """

    number: int = 3
    blocks: int = 6
    hidden: int = 16
    steps: int = 800
    template: float | None = None

    def model(self, context):
        """The flow of the sidebands, or of the signal region without a condition."""
        hidden = (self.hidden, self.hidden)
        more = {"transform": "rqs", "context": context, "bins": 8, "mixing": "random"}
        flow = pg.CouplingFlow(4, blocks=self.blocks, hidden=hidden, **more)
        return pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=pg.events.dijet_coordinates())

    def backend(self, seed=0):
        """A bootstrap of six replicas."""
        return pg.Bootstrap(replicas=6, steps=self.steps, lr=5e-3, seed=seed, progress=False)


def run_cathode(events, seed, options, flows):
    """Conditional flows of the sidebands, each of a part of them."""
    values = np.column_stack([events.data[:, :1].astype(float), inside(events.data)])
    data = pg.EventSample(values, ("mjj", *NAMES), ("TeV", *UNITS))
    more = {"mass": "mjj", "energy": 13.0, "backend": flows.backend(), "flows": flows.number, "background": 2.0}
    more |= {"template": flows.template or (4.0 if flows.number == 1 else 2.0), "seed": seed}
    result = cathode(data, REGIONS, flows.model(1), **more, **options | {"folds": 6})
    print(result.text(), flush=True)
    own, region = events.label == 0, result.sample.in_signal
    print("   true background:", [int((own & region & result.passed(c)).sum()) for c in range(len(result.table))])
    return result.of(sample(events.test))


def run_cathode_one_flow(events, seed, options, flows):
    """One flow of all sidebands, as published."""
    return run_cathode(events, seed, options, replace(flows, number=1))


def run_anode(events, seed, options, flows):
    """Ratio of two densities: a flow of the signal region, and a conditional one of the sidebands."""
    backend = flows.backend(seed)
    region, mass = events.region, events.data[:, :1].astype(float)
    own = backend.fit(flows.model(0), pg.EventSample(inside(events.data[region]), NAMES, UNITS))
    beside = backend.fit(
        flows.model(1), pg.EventSample(inside(events.data[~region]), NAMES, UNITS), context=mass[~region]
    )
    test = pg.EventSample(inside(events.test), NAMES, UNITS)
    return density_ratio(test, events.test[:, 0].astype(float), own, beside).data


METHODS = {
    "supervised": run_supervised,
    "idealised": run_idealised,
    "cwola": run_cwola,
    "cathode": run_cathode,
    "one flow": run_cathode_one_flow,
    "anode": run_anode,
}


def curve_of(scores, label):
    return sic_curve(scores[label == 1], scores[label == 0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--ensemble", type=int, default=10)
    parser.add_argument("--classifier", choices=("trees", "network", "both"), default="trees")
    parser.add_argument("--clean-sidebands", action="store_true", help="without the signal there, by its label")
    parser.add_argument("--flows", type=int, default=3, help="flows of cathode")
    parser.add_argument("--blocks", type=int, default=6, help="of the flows of cathode and anode")
    parser.add_argument("--hidden", type=int, default=16, help="units of each of their two hidden layers")
    parser.add_argument("--steps", type=int, default=800, help="steps of their training")
    parser.add_argument("--template", type=float, help="generated events of a template, over the data (2; one flow: 4)")
    parser.add_argument("--figure", help="where to draw the curves")
    given = parser.parse_args()
    options = {"folds": given.folds, "ensemble": given.ensemble, "method": given.classifier, "progress": False}
    flows = Flows(given.flows, given.blocks, given.hidden, given.steps, given.template)
    print(f"{'method':12} {'maximum SIC':>15} {'at eps_B = 0.003':>18} {'0.01':>14} {'CPU s each':>11}")
    found = {}
    for name in given.methods:
        curves, start = [], time.process_time()
        for seed in range(given.trainings):
            events = read(given.path, seed, given.clean_sidebands)
            scores = METHODS[name](events, seed, options, flows)
            curves.append(curve_of(scores, events.test_label))
        used = (time.process_time() - start) / given.trainings
        found[name] = SicCurves(curves)
        mean, spread = found[name].maximum
        at, of = found[name].at_background([0.003, 0.01])
        cells = " ".join(f"{m:6.2f} +- {s:4.2f}" for m, s in zip(at, of, strict=True))
        error = np.mean([curve.maximum_error for curve in curves])
        each = ", ".join(f"{m:.2f}" for m in found[name].maxima)
        print(
            f"{name:12} {mean:8.2f} +- {spread:4.2f} {cells} {used:8.0f}   maxima {each}, of the test {error:.2f}",
            flush=True,
        )
    if given.figure:
        pg.plotting.save_figure(pg.plotting.plot_sic(found), given.figure)


if __name__ == "__main__":
    main()
