"""Bijections of events with a varying number of objects, whose rows are padded with NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from padded import check_padded

from pyrogen.events import (
    Chain,
    Columns,
    Dequantise,
    Identity,
    Log,
    Multiplicity,
    PaddedColumns,
    Positive,
    Probit,
    Resonance,
    Squash,
    Standardise,
    UnitBox,
    WhitenPerMultiplicity,
)
from pyrogen.events.bijection import from_config

LAYOUT = Multiplicity(shared=2, each=2, most=3)
NAMES = ("m", "z", "pt1", "y1", "pt2", "y2", "pt3", "y3")


def make_events(n=600, seed=1, layout=LAYOUT):
    """Positive and unbounded columns in turn, correlated, with each number of objects for a third of the events."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, layout.features)).cumsum(axis=1) * 0.3
    x[:, ::2] = 5 * np.exp(x[:, ::2] / 3)
    counts = layout.least + np.arange(n) % len(layout.numbers)
    x += 0.5 * counts[:, None]
    x[np.arange(layout.features) >= layout.shared + layout.each * counts[:, None]] = np.nan
    return torch.tensor(x)


def columns(layout=LAYOUT):
    """A part of every kind."""
    jets = [Positive(0.0), UnitBox(), Log(), Squash(), Chain([Log(), Standardise()]), Chain([UnitBox(), Probit()])]
    return PaddedColumns(layout, [Resonance(1.0), Standardise(), *jets])


MAKERS = {
    "columns": columns,
    "resonance-absent": lambda: PaddedColumns(LAYOUT, [Log(), Identity()] * 2 + [Resonance(0.1), Identity()] * 2),
    "whiten": lambda: WhitenPerMultiplicity(LAYOUT),
    "leave": lambda: WhitenPerMultiplicity(LAYOUT, leave=(1, 5), alone=(2, 6)),
    "standardise": lambda: WhitenPerMultiplicity(LAYOUT, alone=range(8)),
    "chain": lambda: Chain([PaddedColumns(LAYOUT, [Log(), Identity()] * 4), WhitenPerMultiplicity(LAYOUT)]),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_contract(maker):
    x = make_events()
    bijection = MAKERS[maker]()
    check_padded(bijection.fit(x), x)


def test_no_objects():
    layout = Multiplicity(2, 2, 2, least=0)
    x = make_events(layout=layout)
    assert layout.counts(x).unique().tolist() == [0, 1, 2]
    check_padded(PaddedColumns(layout, [Log(), Standardise()] * 3).fit(x), x)
    check_padded(WhitenPerMultiplicity(layout).fit(x), x)


def test_each_column_is_fitted_to_the_numbers_that_are_there():
    x, weights = make_events(), np.random.default_rng(2).normal(1, 0.5, 600)
    lifted = PaddedColumns(LAYOUT, [Standardise() for _ in NAMES]).fit(x, weights)
    for i, part in enumerate(lifted.parts):
        rows = ~x[:, i].isnan()
        assert part.config() == Standardise().fit(x[rows, i], weights[rows.numpy()]).config()
    plain = Columns(lifted.parts)
    full = x[LAYOUT.counts(x) == 3]
    for ours, theirs in zip(lifted(full), plain(full), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


def test_a_part_that_is_fitted_stays():
    given = UnitBox(0.0, 100.0)
    lifted = PaddedColumns(LAYOUT, [Log(), Identity()] * 3 + [Log(), given]).fit(make_events())
    assert lifted.parts[-1].high.tolist() == 100.0


def test_whitened_events_have_no_correlation():
    x = make_events(3000)
    weights = np.random.default_rng(2).choice([1.5, 0.4, -0.1], 3000)
    u = WhitenPerMultiplicity(LAYOUT).fit(x, weights)(x)[0].numpy()
    for n in LAYOUT.numbers:
        rows, width = LAYOUT.counts(u) == n, LAYOUT.width(n)
        w = weights[rows] / weights[rows].sum()
        assert np.allclose(w @ u[rows, :width], 0, atol=1e-10)
        assert np.allclose(u[rows, :width].T @ (w[:, None] * u[rows, :width]), np.eye(width), atol=1e-10)


def test_left_and_lone_columns():
    x = make_events(3000)
    u = WhitenPerMultiplicity(LAYOUT, leave=(1,), alone=(2, 5)).fit(x)(x)[0]
    assert torch.equal(u[:, 1], x[:, 1])
    for n in LAYOUT.numbers:
        rows = LAYOUT.counts(x) == n
        alone = [i for i in (2, 5) if i < LAYOUT.width(n)]
        expected = Standardise().fit(x[rows][:, alone])(x[rows][:, alone])[0]
        torch.testing.assert_close(u[rows][:, alone], expected, rtol=1e-12, atol=1e-12)
        others = [i for i in range(LAYOUT.width(n)) if i not in (1, 2, 5)]
        torch.testing.assert_close(torch.cov(u[rows][:, others].T), torch.eye(len(others)).double(), rtol=0, atol=2e-3)
        assert (torch.corrcoef(u[rows][:, [0, 2]].T)[0, 1]).abs() > 0.05


def test_the_density_of_every_number_integrates_to_one():
    """exp(log-Jacobian) is the density of x where u is uniform on a box, or standard normal."""
    layout = Multiplicity(1, 1, 2)
    x = make_events(layout=layout)
    bijection = WhitenPerMultiplicity(layout).fit(x)
    for n, width in ((1, 2), (2, 3)):
        rows = x[layout.counts(x) == n][:, :width]
        low, high = rows.amin(0) - 6 * rows.std(0), rows.amax(0) + 6 * rows.std(0)
        axes = [torch.linspace(float(a), float(b), 61, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        grid = torch.cartesian_prod(*axes)
        padded = torch.nn.functional.pad(grid, (0, 3 - width), value=torch.nan)
        u, log_jacobian = bijection(padded)
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(u[:, :width]).sum(-1) + log_jacobian
        cell = float(((high - low) / 60).prod())
        assert log_p.exp().sum() * cell == pytest.approx(1.0, abs=2e-3)


def test_rows_outside_have_no_density():
    fitted = PaddedColumns(LAYOUT, [Log(), Identity()] * 4).fit(make_events())
    for bijection in (fitted, Chain([fitted, WhitenPerMultiplicity(LAYOUT).fit(fitted(make_events())[0])])):
        x = make_events(12)
        x[0, 2] = -1.0  # no logarithm
        x[1, 0] = torch.nan  # a shared column
        x[2, 4] = torch.nan  # object 2 of 3: a gap
        x[3, 2:] = torch.nan  # no object
        x[5, 7] = torch.inf
        u, log_jacobian = bijection(x)
        assert (log_jacobian == -torch.inf).nonzero()[:, 0].tolist() == [0, 1, 2, 3, 5]
        assert torch.equal(LAYOUT.counts(u), torch.tensor([1, 2, 2, 1, 2, 3, 1, 2, 3, 1, 2, 3]))
        LAYOUT.check(u.numpy())  # whatever comes next finds events


def check_message(bijection, x, message, names=NAMES):
    with pytest.raises(ValueError, match=message):
        bijection.check(x, names)


def test_errors_name_row_and_column():
    bijection = PaddedColumns(LAYOUT, [Log(), Identity()] * 4).fit(make_events())
    x = make_events(12)
    x[5, 4] = -3.0
    x[8, 4] = -3.0
    message = r"2 of 12 events are outside of Log; the first is row 5, column 0 \(pt2\): -3. Only positive numbers"
    check_message(bijection, x, message)
    check_message(Chain([bijection, WhitenPerMultiplicity(LAYOUT)]), x, message)
    with pytest.raises(ValueError, match="2 of 12 events are outside of Log; the first is row 5"):
        PaddedColumns(LAYOUT, [Log(), Identity()] * 4).fit(x)
    broken = make_events(12)
    broken[5, 5] = torch.nan
    for each in (bijection, WhitenPerMultiplicity(LAYOUT), Chain([bijection])):
        check_message(
            each, broken, r"1 of 12 rows do not fit their number of objects; the first is row 5, column 5 \(y2"
        )
        with pytest.raises(ValueError, match="the first is row 5, column 5"):
            each.fit(broken)
    none = make_events(12)
    none[4, 2:] = torch.nan
    check_message(bijection, none, "1 of 12 events have fewer than 1 objects; the first is row 4")
    for wrong, message in ((make_events()[:, :6], "rows of 8 columns"), (make_events().int(), "needs floating-point")):
        with pytest.raises(ValueError, match=message):
            bijection(wrong)


def test_an_object_that_no_event_has():
    x = make_events()
    x = x[LAYOUT.counts(x) < 3]
    with pytest.raises(ValueError, match=r"no event has the object of column 6 \(x6\): the 400 events have at most 2"):
        PaddedColumns(LAYOUT, [Standardise() for _ in NAMES]).fit(x)
    with pytest.raises(ValueError, match=r"0 events have 3 objects; their whitening needs at least 9.*most=2"):
        WhitenPerMultiplicity(LAYOUT).fit(x)


def test_whitening_that_is_not_possible():
    x = make_events(3000)
    few = torch.cat([x[LAYOUT.counts(x) < 3], x[LAYOUT.counts(x) == 3][:8]])
    with pytest.raises(
        ValueError, match=r"8 events have 3 objects; their whitening needs at least 9.*alone=range\(8\)"
    ):
        WhitenPerMultiplicity(LAYOUT).fit(few)
    WhitenPerMultiplicity(LAYOUT, alone=range(8)).fit(few)
    WhitenPerMultiplicity(LAYOUT, alone=(1,)).fit(few)
    weightless = torch.ones(len(few), dtype=torch.float64)
    weightless[-1] = 0.0
    with pytest.raises(
        ValueError, match="7 events with weights of sum 7 have 3 objects; their whitening needs at least 8"
    ):
        WhitenPerMultiplicity(LAYOUT, alone=(1,)).fit(few, weightless)
    constant = x.clone()
    constant[LAYOUT.counts(x) == 2, 3] = 4.0
    with pytest.raises(ValueError, match=r"column 3 \(x3\) of events with 2 objects is 4.0 in all 1000"):
        WhitenPerMultiplicity(LAYOUT).fit(constant)
    bound = x.clone()
    bound[:, 3] = 2 * bound[:, 0] - bound[:, 1]
    with pytest.raises(
        ValueError, match=r"of events with 1 objects cannot be whitened with the others: others determine"
    ):
        WhitenPerMultiplicity(LAYOUT).fit(bound)
    negative = np.where(LAYOUT.counts(x.numpy()) == 2, -1.0, 1.0)
    with pytest.raises(ValueError, match="1000 events with weights of sum -1000 have 2 objects"):
        WhitenPerMultiplicity(LAYOUT).fit(x, negative)
    outer = np.where((LAYOUT.counts(x.numpy()) == 2) & (np.abs(x[:, 1].numpy() - 1) > 0.1), -0.5, 30.0)
    with pytest.raises(
        ValueError, match=r"\(x1\) of events with 2 objects has no positive variance, because of negative"
    ):
        WhitenPerMultiplicity(LAYOUT).fit(x, outer)
    for leave, alone, message in (((8,), (), "leave is"), ((), (9,), "alone is"), ((1, 2), (2,), r"\[2\] are in both")):
        with pytest.raises(ValueError, match=message):
            WhitenPerMultiplicity(LAYOUT, leave=leave, alone=alone)


def test_constants_that_are_no_bijection():
    config = WhitenPerMultiplicity(LAYOUT).fit(make_events()).config()
    for name, index in (("mean", (0, 0)), ("factor", (1, 2, 2)), ("factor", (1, 2, 3))):
        wrong = {**config, name: np.array(config[name])}
        wrong[name][index] = np.nan if name == "mean" else -1.0
        with pytest.raises(ValueError, match="needs a finite mean"):
            from_config({**wrong, name: wrong[name].tolist()})


def test_parts_of_other_layouts_are_refused():
    other = Multiplicity(2, 3, 2)
    lifted = PaddedColumns(LAYOUT, [Identity()] * 8)
    for parts in ([lifted, Standardise()], [Standardise(), lifted], [lifted, WhitenPerMultiplicity(other)]):
        with pytest.raises(ValueError, match="all parts of a Chain need the same layout"):
            Chain(parts)
    with pytest.raises(ValueError, match="parts has 3 bijections; the rows have 8 columns"):
        PaddedColumns(LAYOUT, [Identity()] * 3)
    with pytest.raises(ValueError, match="WhitenPerMultiplicity is for whole rows"):
        PaddedColumns(LAYOUT, [Identity()] * 7 + [WhitenPerMultiplicity(LAYOUT)])
    with pytest.raises(TypeError, match="layout is .*must be a pyrogen.events.Multiplicity"):
        WhitenPerMultiplicity((2, 2, 3))
    assert Chain([Chain([lifted])]).layout == LAYOUT and Chain([Standardise()]).layout is None


def test_whole_numbers_of_objects():
    """The charge of a jet, say: only what is there gets noise, and NaN stay."""
    x = make_events()
    x[:, 3::2] = x[:, 3::2].round()
    lifted = PaddedColumns(LAYOUT, [Log(), Identity(), *[Log(), Dequantise(seed=3)] * 3]).fit(x)
    noisy = lifted.dequantised(x, NAMES)
    assert torch.equal(noisy.isnan(), x.isnan()) and torch.equal(noisy[:, ::2].nan_to_num(), x[:, ::2].nan_to_num())
    moved = (noisy - x)[:, 3::2]
    moved = moved[~moved.isnan()]
    assert moved.abs().max() <= 0.5 and moved.std() == pytest.approx(12**-0.5, abs=0.02)
    torch.testing.assert_close(lifted.inverse(lifted(noisy)[0])[0], x, equal_nan=True, rtol=1e-12, atol=1e-12)
    x[4, 5] = 0.3
    with pytest.raises(ValueError, match=r"1 values are not, the first is row 4, column 5 \(y2\): 0.3"):
        lifted.dequantised(x, NAMES)
