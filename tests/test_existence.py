"""Events that have no density are told before the training; ordinary ones are not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from known import Location
from torch import nn

import pyrogen as pg
from pyrogen.events import Columns, Dequantise, EventSample, Standardise, UnitBox
from pyrogen.inference.run.existence import obstacles

SAMPLE = Path(__file__).parents[1] / "examples" / "data" / "drell_yan_5k.h5"
SVI = pg.SVI(epochs=1, batch_size=200, progress=False)
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(2304, 3))


def found(events, weights=None, names=None):
    events = np.asarray(events, dtype=np.float64)
    return obstacles(events, weights, names or [f"x{i}" for i in range(events.shape[1])])


def test_ordinary_events_are_not_called_doubtful():
    samples = [getattr(pg.targets, name)().sample((3000,)) for name in ("Wedge", "Kicker", "GaussianRing", "GammaRing")]
    samples += [pg.targets.Wedge().sample((n,)) for n in (1, 2, 3, 10, 100)]
    samples += [NORMAL, NORMAL.astype(np.float32), 1.7e9 + 30 * NORMAL, NORMAL * [1e-12, 1, 1e12], np.exp(5 * NORMAL)]
    samples += [1e200 * NORMAL, 1e-200 * NORMAL, np.round(NORMAL, 2), np.round(1e6 * NORMAL)]
    samples.append(pg.events.read(SAMPLE).values)
    # Rounded: a mass to 0.01 and 0.1 GeV, in half precision, without the last 13 bits; counts of a converter; a
    # correlation of 0.99.
    mass = 60 + RNG.exponential(20, size=(50_000, 1))
    samples += [np.round(mass, 2), np.round(mass, 1).astype(np.float32), mass.astype(np.float16)]
    samples.append((mass.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32))
    samples.append(np.round(RNG.normal(2000, 100, size=(200_000, 2))))
    close = RNG.normal(size=(50_000, 2)) @ np.array([[100, 99], [0, 14.1]])
    samples.append(np.round(close))
    for sample in samples:
        assert found(sample) == []
    for weights in (RNG.uniform(size=2304), RNG.normal(1, 1, 2304), RNG.exponential(size=2304) ** 2, np.ones(2304)):
        assert found(NORMAL, weights) == []
    # A correlation of 0.99999, and weighted events of weight zero among others.
    assert found(np.column_stack([NORMAL[:, 0], NORMAL[:, 0] + 5e-3 * NORMAL[:, 1]])) == []
    assert found(NORMAL[:200], (np.arange(200) > 20) * 1.0) == []


LINE = np.column_stack([NORMAL[:, 0], 3 * NORMAL[:, 0] + 7, NORMAL[:, 2]])
COUNTS = np.column_stack([NORMAL[:, 0], RNG.poisson(4.0, 2304)])
CASES = {
    "constant": (np.column_stack([NORMAL, np.full(2304, 13.0)]), None, r"column 3 \(x3\) is constant, 13.0"),
    "line": (LINE, None, r"column 0 \(x0\) and column 1 \(x1\) depend on each other linearly, exactly\. Events"),
    "float32": (LINE.astype(np.float32), None, r"column 0 \(x0\) and column 1 \(x1\) depend"),
    "far off": (LINE + [1e6, 0, 0], None, r"column 0 \(x0\) and column 1 \(x1\) depend"),
    "sum": (np.column_stack([NORMAL, NORMAL.sum(1)]), None, r"x0\) and column 1 .*x2\) and column 3"),
    "counts": (
        COUNTS,
        None,
        r"column 1 \(x1\) has 1\d different values in 2304 events, all of them whole .*Dequantise\(\)",
    ),
    "halves": (
        COUNTS / 2,
        None,
        r"column 1 \(x1\) has 1\d different values in 2304 events. Scale it so that its steps",
    ),
    "flag": (np.column_stack([NORMAL, NORMAL[:, 0] > 1]), None, r"column 3 \(x3\) has 2 different values"),
    "repeated": (NORMAL[RNG.integers(0, 500, 2304)], None, r"only \d+ of 2304 events are different. .*return_counts"),
    "repeated and rounded": (np.round(NORMAL, 3)[RNG.integers(0, 500, 2304)], None, r"only \d+ of 2304 events are"),
    "heavy": (NORMAL, np.where(np.arange(2304) == 7, 9 * 2303.0, 1.0), "event 7 of 2304 has 90% of the total weight"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_rules_a_density_out_is_an_error_before_the_training(case):
    events, weights, message = CASES[case]
    flow = pg.CouplingFlow(events.shape[1], 1, (4,), "rqs")
    with pytest.raises(ValueError, match=f"these events have no density: .*{message}"):
        SVI.fit(pg.BayesianFlow(flow, preprocessing=None), events, weights=weights)
    if case == "line":
        with pytest.raises(ValueError, match=r"sample 1: these events .*column 0 \(pt\) and column 1 \(E\)"):
            SVI.fit_many(pg.BayesianFlow(flow), [EventSample(x, ["pt", "E", "y"]) for x in (NORMAL, events)])


@pytest.mark.parametrize(
    ("events", "weights", "problem"),
    [
        (NORMAL[RNG.integers(0, 2304, 2304)], None, "repeated events"),  # a bootstrap: 63 % are different
        (np.round(NORMAL, 2)[RNG.integers(0, 2304, 2304)], None, "repeated events"),
        (np.where(RNG.uniform(size=(2304, 1)) < 0.3, [[0.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]) * NORMAL, None, "a spike"),
        (np.column_stack([NORMAL[:, 0], NORMAL[:, 0] + 1e-5 * NORMAL[:, 1]]), None, "nearly no density"),
        (NORMAL, np.where(np.arange(2304) == 7, 500.0, 1.0), "a heavy event"),
    ],
)
def test_what_is_doubtful_is_a_warning_and_stays_with_the_posterior(events, weights, problem, tmp_path):
    model = pg.BayesianFlow(pg.CouplingFlow(events.shape[1], 1, (4,), "rqs"))
    with pytest.warns(UserWarning, match=problem) as caught:
        posterior = SVI.fit(model, events, weights=weights)
    assert any(problem == finding.problem for finding in posterior.info.findings)
    assert caught[0].filename == __file__
    posterior.save(tmp_path / "posterior.h5")
    assert pg.load(tmp_path / "posterior.h5").info.findings == posterior.info.findings


def test_samples_of_a_bootstrap_are_warned_of_once():
    samples = [NORMAL[RNG.integers(0, 2304, 2304)] for _ in range(3)] + [NORMAL]
    with pytest.warns(
        UserWarning, match=r"repeated events: 3 of 4 samples; in the first of them, sample 0, only"
    ) as told:
        posteriors = SVI.fit_many(pg.BayesianFlow(pg.CouplingFlow(3, 1, (4,), "rqs")), samples)
    assert len(told) == 1
    assert all(len(posterior.info.findings) == 1 for posterior in posteriors)


def test_other_flows_may_know_of_probabilities():
    """A flow that is no coupling flow is warned, since its log_prob may be that of whole numbers."""

    class Poisson(Location):
        def log_prob(self, x):
            (rate,) = (value.exp() for value in self.parameters())
            return (x * rate.log() - rate - torch.lgamma(x + 1)).sum(-1)

    assert isinstance(Poisson(1), nn.Module)
    with pytest.warns(UserWarning, match="no density: column 0"):
        SVI.fit(pg.BayesianFlow(Poisson(1), preprocessing=None), RNG.poisson(4.0, (500, 1)).astype(float))


def test_whole_numbers_dequantised():
    """The flow learns the density of n + r, which is the probability of n per unit; what it generates is whole."""
    n = RNG.poisson(3.0, 4000)
    events = EventSample(np.column_stack([RNG.normal(size=4000), n]), ["x", "jets"])
    limits = pg.events.Chain([Dequantise(), UnitBox(-0.5, 14.5)])
    model = pg.BayesianFlow(
        pg.CouplingFlow(2, 2, (16,), "rqs", base="uniform", bins=16, seed=1),
        preprocessing=Columns([UnitBox(-6.0, 6.0), limits]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior = pg.SVI(epochs=8, batch_size=200, lr=1e-2, progress=False).fit(model, events)
    made = posterior.sample(4000)[:, 1].double().numpy()
    assert (made == made.round()).all() and made.min() >= 0
    # Probabilities of 4,000 generated and 4,000 training events: 5 errors of each bin, and 3 % for the flow.
    for k in range(7):
        p = float((n == k).mean())
        assert abs((made == k).mean() - p) < 5 * np.sqrt(2 * p / 4000) + 0.03
        # The density at n, integrated over x, is the probability of n.
        x = torch.linspace(-6, 6, 201)
        density = posterior.density(torch.stack([x, torch.full_like(x, k)], 1), 5).mean
        assert float(torch.trapezoid(density.cpu(), x)) == pytest.approx(p, abs=0.06)


def test_dequantised_numbers_are_seeded_and_independent():
    x = torch.zeros(20_000, 3, dtype=torch.float64)
    columns = Columns([Dequantise(), Dequantise(), Standardise()])
    names = ("a", "b", "c")
    first, again = (columns.dequantised(x, names) for _ in range(2))
    other = Columns([Dequantise(1), Dequantise(1), Standardise()]).dequantised(x, names)
    assert torch.equal(first, again) and not torch.equal(first, other) and (first[:, 2] == 0).all()
    assert first[:, :2].min() >= -0.5 and first[:, :2].max() < 0.5
    assert (first[:, :2].std(0) - 12**-0.5).abs().max() < 5 * 12**-0.5 / 200
    assert abs(float(torch.corrcoef(first[:, :2].T)[0, 1])) < 5 / 20_000**0.5
    with pytest.raises(ValueError, match=r"Dequantise is for whole numbers; 1 values .* row 5, column 1 \(b\): 0.5"):
        x[5, 1] = 0.5
        columns.dequantised(x, names)
    with pytest.raises(ValueError, match="Dequantise must be first in a Chain"):
        pg.events.Chain([Standardise(), Dequantise()])
    with pytest.raises(ValueError, match="seed is -1"):
        Dequantise(-1)
