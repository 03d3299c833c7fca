"""Where a generator fails: the tails of the classifier's weights, and the observables in which they cluster [C]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, FRACTION, FUNCTION, POSITIVE, TEXT, dictionary, door, each, instance, optional, pair
from pyrogen.diagnostics.control.failure_results import Failures, ObservableFailure, TailHistogram
from pyrogen.diagnostics.control.information import (
    Cells,
    Contrast,
    Information,
    cells_of,
    effective,
    information,
    one_sided,
)
from pyrogen.diagnostics.control.modes import FailureMode, failure_mode
from pyrogen.diagnostics.control.result import ClassifierWeights
from pyrogen.diagnostics.control.tails import Tails, distance, tail_histogram
from pyrogen.diagnostics.control.variables import KINDS, Variable, variables_of

Array = NDArray[np.float64]

MOST_MODES = 5
FOLLOWS = 0.5  # an observable follows from another one if it keeps less of its information once that is mended
NEAR = 0.5  # of the lead, below which nothing shares it
NAMED = 10  # rows with a mode of their own
FEWEST_LEFT = 50  # effective events of each sample, and
OVERLAP = 0.05  # part of one of them, that a mended observable must leave: where samples only touch, it is a few cells


@door(
    weights=instance(ClassifierWeights, "a ClassifierWeights, from classifier_weights"),
    observables=optional(dictionary(FUNCTION, 'functions of events by name, such as {"M": f}')),
    cuts=optional(pair(POSITIVE, "(low, high), cuts on w such as (0.5, 2.0)")),
    p_value=FRACTION,
    columns=optional(BOOLEAN),
)
def find_failures(
    weights: ClassifierWeights,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    *,
    pairs: bool | Sequence[str] | None = None,
    cuts: tuple[float, float] | None = None,
    p_value: float = 0.01,
    columns: bool | None = None,
) -> Failures:
    """Rank the observables in which a generator fails, and name what is wrong there.

    Generated events with a small weight w lie where the truth has too few events, true events with a large one where
    the generator has too few [C secs. 2, 5]. These events are compared with all others in every observable: all
    columns, ``observables``, and automatic pairs:

    * of particles, with columns ``pt_A, eta_A, phi_A`` (and ``m_A``) or ``px_A, py_A, pz_A`` (and ``E_A``): invariant
      mass, pT, Delta R, Delta phi, Delta eta and ratio of the pT of two of them, as ``m_AB, pt_AB, delta_r_AB,
      delta_phi_AB, delta_eta_AB, pt_ratio_AB``; and pT, eta and phi of each in Cartesian columns. Without mass and
      energy particles count as massless. Of two leptons that balance (``px, py, pz`` of one and ``pz`` of the other)
      the second one is completed.
    * of other columns, and of ``observables`` where there are no particles: sum and difference of numbers with the same
      unit, and the ratio ``a / b`` where b has one sign in all events, as ``"a + b"``, ``"a - b"`` and ``"a / b"``.

    For events of a varying number of objects there is ``objects``, their number; other observables compare the events
    that have them. Of an observable that some events say that they do not have (see
    :class:`pyrogen.events.Observable`), ``"no <name>"`` is 1 for these and 0 for all others.

    A value that many events share, such as the zero energy of an empty layer, is looked at by itself.

    **Ranking.** A tail of w always differs from its bulk somewhere, even if the weights are noise. So observables are
    ranked by what the *labels* say: with C = w / (1 + w) and c(o) its mean at a value o of the observable,
    ``E_truth[c] - E_generated[c]`` is how much of the difference shows in this observable. Divided by the same of C
    itself it is the ``share``: 1 where w depends on the observable alone, and less where it is only correlated with
    it. No classifier saw the label of an event that it scored, so without a difference the value is zero within
    its error, whatever the classifiers learned: ``sigma`` is Gaussian then, or closer to zero. (The error has a factor
    of sqrt(2) for the folds of the cross-fitting, see :attr:`ClassifierWeights.auc`.) The look elsewhere is
    counted by Bonferroni: the p-value times the number of observables. This is too strict where they are correlated.
    Where several observables share the lead within one standard error of their difference, columns come before
    ``observables``, and these before pairs.

    **Names**: see :class:`FailureMode`. After the first failure is mended by reweighting in its observable, what is
    left in all others is looked at again. So a second failure is found, and is not confused with what only follows
    from the first one.

    Args:
        weights: of both samples, from :func:`classifier_weights`.
        observables: functions of events ``[n, d]`` (a float64 tensor) that give ``[n]``, by name, such as
            :func:`pyrogen.events.z_jets_observables`, whose labels, units and bins are taken over. One with the
            name of a column or of a pair must have its values.
        pairs: whether to make pairs; or the names of the columns and observables to make them of. None: unless they
            would be more than 4000, or ``columns`` are left out.
        cuts: on w, below and above one; None: from the control, such that 0.1 % of the events of a perfect generator
            are beyond each (the noise of w is scaled as in :attr:`ClassifierWeights.floor`); 0.5 and 2 without a
            control. They decide which events count as tails, not the ranking.
        p_value: a failure is found where the p-value, with the look elsewhere, is smaller.
        columns: whether to look at the columns. None: unless they are more than 50, none of them of a particle, and
            there are ``observables``: the cells of a detector say little one by one.

    Raises:
        ValueError: observables that are NaN (where events do not say that they lack them), infinite, of a wrong shape
            or the same for all events; two with one name; a name in ``pairs`` that is not there, or too many pairs;
            given cuts with fewer than ten (effective) events beyond.
    """
    chosen = _checked_pairs(pairs)
    contrast = _contrast(weights)
    tails = Tails.of(weights, contrast, cuts)
    variables, left_out = variables_of(weights.truth, weights.generated, observables or {}, chosen, columns)
    whole = information(None, contrast)
    level = p_value / len(variables)
    entries = _ranked([_Entry.of(its, contrast, tails, whole) for its in variables], contrast, level)
    modes, left, told = _modes(entries, contrast, tails, level)
    rows = tuple(
        _row(entry, i, left.get(entry.variable.name), contrast, tails, level, len(entries))
        for i, entry in enumerate(entries)
    )
    sizes = len(weights.truth), len(weights.generated)
    return Failures(
        rows, modes, whole.sigma, tails.cuts, tails.cuts_from, tails.fractions, p_value, left_out, sizes, told
    )


def _checked_pairs(pairs: bool | Sequence[str] | None) -> bool | tuple[str, ...] | None:
    if pairs is None:
        return None
    if isinstance(pairs, bool | np.bool_):
        return bool(pairs)
    return each(TEXT, "True, False, or names of columns", 2)("pairs", pairs)


def _contrast(weights: ClassifierWeights) -> Contrast:
    sizes = [its / its.sum() for its in weights.weights]
    true = np.repeat([True, False], [len(its) for its in sizes])
    folds = np.concatenate([weights.fold_truth, weights.fold_generated])
    return Contrast(true, np.concatenate(sizes), np.concatenate(weights.log_w), folds)


@dataclass(frozen=True, eq=False)
class _Entry:
    """An observable that was looked at."""

    variable: Variable
    cells: Cells
    value: float
    sigma: float
    share: tuple[float, float]
    distances: tuple[float, float]
    histogram: TailHistogram

    @classmethod
    def of(cls, variable: Variable, contrast: Contrast, tails: Tails, whole: Information) -> _Entry:
        values = variable.values()
        cells = cells_of(values, contrast)
        own = information(cells, contrast)
        there = cells >= 0
        small, large = (
            np.nan if tail is None else distance(values[there], tail[there], bulk[there])
            for tail, bulk in zip((tails.small, tails.large), tails.bulk, strict=True)
        )
        histogram = tail_histogram(variable, values, there, contrast, tails)
        return cls(variable, cells, own.value, own.sigma, own.share_of(whole), (small, large), histogram)

    def after(self, contrast: Contrast) -> _Entry:
        """The same for other weights of the events."""
        own = information(self.cells, contrast)
        return replace(self, value=own.value, sigma=own.sigma)


def _ranked(entries: list[_Entry], contrast: Contrast, level: float) -> list[_Entry]:
    """Significant ones first, by information; at the top the simplest of those that share the lead within an error."""
    entries = sorted(entries, key=lambda entry: (one_sided(entry.sigma) >= level, -entry.value))
    lead = information(entries[0].cells, contrast)
    near = []
    for entry in entries:
        if entry.value > NEAR * lead.value and one_sided(entry.sigma) < level:
            own = information(entry.cells, contrast)
            if lead.value - own.value <= np.sqrt(np.sum((lead.terms - own.terms) ** 2)):
                near.append(entry)
    first = min(near, key=lambda entry: KINDS.index(entry.variable.kind), default=entries[0])
    return [first, *(entry for entry in entries if entry is not first)]


def _modes(
    entries: list[_Entry], contrast: Contrast, tails: Tails, level: float
) -> tuple[tuple[FailureMode, ...], dict[str, _Entry], bool]:
    """The failures one after the other, what is left in each observable after the first, and whether these are all."""
    modes: list[FailureMode] = []
    left: dict[str, _Entry] = {}
    whole = contrast
    candidates = [entry for entry in entries if one_sided(entry.sigma) < level]
    found = candidates[0] if candidates else None
    while found is not None and len(modes) < MOST_MODES:
        modes.append(_mode(found, contrast, tails))
        contrast = contrast.mended(found.cells)
        if not _comparable(contrast, whole):
            return tuple(modes), left, False
        remaining = [entry.after(contrast) for entry in entries]
        left = left or {entry.variable.name: entry for entry in remaining}
        candidates = [now for now, before in zip(remaining, entries, strict=True) if _remains(now, before, level)]
        found = _ranked(candidates, contrast, level)[0] if candidates else None
    return tuple(modes), left, True


def _comparable(left: Contrast, whole: Contrast) -> bool:
    """Whether enough of both samples is left to look for another failure."""
    sizes = [[effective(its.weights[which]) for its in (left, whole)] for which in (whole.true, ~whole.true)]
    return min(own for own, _ in sizes) >= FEWEST_LEFT and max(own / every for own, every in sizes) >= OVERLAP


def _remains(now: _Entry, before: _Entry, level: float) -> bool:
    """Whether a failure remains after another one was mended."""
    return bool(one_sided(now.sigma) < level and now.value > FOLLOWS * before.value)


def _mode(entry: _Entry, contrast: Contrast, tails: Tails) -> FailureMode:
    its = entry.variable
    return failure_mode(its.name, its.unit, its.values(), entry.cells, contrast, tails.both, entry.sigma)


def _row(
    entry: _Entry, place: int, after: _Entry | None, contrast: Contrast, tails: Tails, level: float, count: int
) -> ObservableFailure:
    its, p = entry.variable, float(one_sided(entry.sigma))
    return ObservableFailure(
        its.name,
        its.label,
        its.unit,
        its.kind,
        *entry.share,
        entry.sigma,
        min(1.0, count * p),
        *entry.distances,
        np.nan if after is None else after.sigma,
        after is not None and place > 0 and p < level and not _remains(after, entry, level),
        _mode(entry, contrast, tails) if p < level and place < NAMED else None,
        entry.histogram,
    )
