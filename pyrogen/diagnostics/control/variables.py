"""Observables of two samples, one number each: columns, functions of the events, and pairs made of the columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.events import EventSample
from pyrogen.events.kinematics import delta_phi, delta_r, eta, mass, phi, pt
from pyrogen.events.observing import of_sample

Array = NDArray[np.float64]
KINDS = ("column", "given", "pair")  # the simplest first
MOST = 4000  # observables
MANY = 50  # columns that are no particles, which are not looked at one by one where there are observables
SAME = 1e-9  # relative difference of values that rounding makes
POLAR, CARTESIAN = ("pt", "eta", "phi"), ("px", "py", "pz")


@dataclass(frozen=True, eq=False)
class Variable:
    """An observable with its values of all events, those of the truth first; NaN where an event does not have it."""

    name: str
    kind: str
    label: str
    unit: str
    edges: Array | None
    values: Callable[[], Array]


def variables_of(
    truth: EventSample,
    generated: EventSample,
    observables: Mapping[str, Callable[[Tensor], Tensor]],
    pairs: bool | Sequence[str] | None,
    columns: bool | None = None,
) -> tuple[list[Variable], dict[str, str]]:
    """All observables of two samples with the same columns, and those that are left out, by name, with the reason.

    Raises:
        ValueError: values that are no numbers or of a wrong shape, the same for all events, two observables of one
            name, too many pairs.
    """
    table = np.concatenate([truth.values, generated.values])
    found = {
        name: Variable(name, "column", name, unit, None, lambda i=i: table[:, i])  # type: ignore[misc]
        for i, (name, unit) in enumerate(zip(truth.names, truth.units, strict=True))
    }
    if truth.multiplicity is not None and truth.multiplicity.most > truth.multiplicity.least:
        counts = truth.multiplicity.counts(table).astype(np.float64)
        edges = np.array([*truth.multiplicity.numbers, truth.multiplicity.most + 1]) - 0.5
        if "objects" not in found and "objects" not in observables:
            found["objects"] = Variable("objects", "column", "number of objects", "", edges, lambda: counts)
    given = {name: _given(name, function, truth, generated) for name, function in observables.items()}
    particles = _particles(table, truth, truth.names)
    cells = bool(given) and not particles and len(truth.names) > MANY  # as of a detector
    taken = not cells if columns is None else columns
    reason = f"one of {len(truth.names)} columns; columns=True takes them"
    left_out = {} if taken else {name: reason for name in truth.names if name not in given}
    left_out |= {each.name: told for each in found.values() if (told := _useless(each.values()))}
    if pairs is None:
        count = _count(particles, found if particles else {**found, **given})
        pairs = count <= MOST and not cells
        if not pairs:
            left_out["pairs"] = f"up to {count:,}; pairs=[names of some columns] makes them"
    automatic = [*_pairs(table, truth, found, given, pairs), *_holes(truth, given)]
    for each in automatic:
        if each.name in found:  # a user's column of the same name says what it is
            left_out[f"{each.name} of the pair"] = "a column has this name"
        elif reason := _useless(each.values()):
            left_out[each.name] = reason
        else:
            found[each.name] = each
    for name, each in given.items():
        if name in found and not _same(found[name].values(), each.values()):
            raise ValueError(
                f"observables[{name!r}] has other values than the {found[name].kind} of this name; give it another name"
            )
        kind = found[name].kind if name in found else "given"
        found[name] = Variable(name, kind, each.label, each.unit, each.edges, each.values)
    return [each for name, each in found.items() if name not in left_out], left_out


def _given(name: str, function: Callable[[Tensor], Tensor], truth: EventSample, generated: EventSample) -> Variable:
    samples = {"truth": truth, "generated": generated}
    parts = [
        of_sample(function, sample, f"observables[{name!r}] of {which}", undeclared=True)
        for which, sample in samples.items()
    ]
    both = np.concatenate(parts)
    if reason := _useless(both):
        raise ValueError(f"observables[{name!r}] {reason}, so that it can show nothing; leave it out")
    edges = getattr(function, "edges", None)
    return Variable(
        name,
        "given",
        str(getattr(function, "label", name)),
        str(getattr(function, "unit", "")),
        None if edges is None else np.asarray(edges, dtype=np.float64),
        lambda: both,
    )


def _useless(values: Array) -> str:
    there = values[~np.isnan(values)]
    if not len(there):
        return "does not exist in any event"
    if infinite := int(np.isinf(there).sum()):
        return f"is infinite in {infinite} events"
    if np.ptp(there) <= SAME * np.abs(there).max():
        return f"is {there[0]:.6g} in all events"
    return ""


def _same(a: Array, b: Array) -> bool:
    scale = np.nanmax(np.abs(a))
    return bool(np.allclose(a, b, rtol=1e-5, atol=1e-6 * scale, equal_nan=True))


def _pairs(
    table: Array,
    truth: EventSample,
    columns: Mapping[str, Variable],
    given: Mapping[str, Variable],
    wanted: bool | Sequence[str],
) -> list[Variable]:
    """The pairs that are made automatically, see :func:`find_failures`."""
    if wanted is False:
        return []
    chosen = tuple(truth.names) if wanted is True else tuple(wanted)
    unknown = [name for name in chosen if name not in columns and name not in given]
    if unknown:
        raise ValueError(
            f"pairs names {', '.join(unknown)}; there are the columns {', '.join(columns)}"
            + (f" and the observables {', '.join(given)}" if given else "")
        )
    particles = _particles(table, truth, chosen)
    others = {name: columns.get(name) or given[name] for name in _others(chosen, particles)}
    if wanted is True and not particles:
        others |= {name: each for name, each in given.items() if name not in others}
    count = _count(particles, others)
    if count > MOST:
        raise ValueError(
            f"pairs: {len(particles)} particles and {len(others)} other columns make up to {count:,} pairs, more than "
            f"{MOST:,}; give pairs=[names of some columns], or pairs=False"
        )
    found = list(_of_particles(particles))
    for a, b in itertools.combinations(others.values(), 2):
        found += _of_numbers(a, b)
    return found


def _others(names: Iterable[str], particles: Mapping[str, _Particle]) -> list[str]:
    """The columns that belong to no particle."""
    used = {name for each in particles.values() for name in each.columns}
    return [name for name in names if name not in used]


def _count(particles: Mapping[str, _Particle], columns: Iterable[str]) -> int:
    """How many pairs there may be."""
    n, m = len(particles), len(_others(columns, particles))
    return 6 * n * (n - 1) // 2 + 3 * m * (m - 1) // 2


def _holes(truth: EventSample, given: Mapping[str, Variable]) -> Iterator[Variable]:
    """Whether events do not have an observable: 1 or 0, once for those that the same events do not have."""
    if truth.multiplicity is not None:  # the number of objects says it
        return
    known = set()
    for name, each in given.items():
        lacking = np.isnan(each.values())
        if lacking.any() and (key := lacking.tobytes()) not in known:
            known.add(key)
            edges, values = np.array([-0.5, 0.5, 1.5]), lacking.astype(np.float64)
            yield Variable(f"no {name}", "pair", f"no {each.label}", "", edges, partial(np.asarray, values))


@dataclass(frozen=True, eq=False)
class _Particle:
    columns: tuple[str, ...]
    momentum: Tensor  # [N + M, 4]
    polar: bool
    massive: bool


def _particles(table: Array, sample: EventSample, chosen: Sequence[str]) -> dict[str, _Particle]:
    """Particles by name, in the order of their columns."""
    found: dict[str, _Particle] = {}
    partners: dict[str, str] = {}
    for name in chosen:
        quantity, _, which = name.partition("_")
        if not which or which in found or quantity not in ("pt", *CARTESIAN):
            continue

        def column(quantity: str, which: str = which) -> Tensor:
            return torch.from_numpy(table[:, sample.names.index(f"{quantity}_{which}")])

        polar, cartesian = ([f"{each}_{which}" for each in kind] for kind in (POLAR, CARTESIAN))
        extra = [each for each in (f"m_{which}", f"E_{which}") if each in chosen]
        if all(each in chosen for each in polar):
            transverse, pseudo, azimuth = (column(each) for each in POLAR)
            p = [transverse * azimuth.cos(), transverse * azimuth.sin(), transverse * pseudo.sinh()]
            names = polar
        elif all(each in chosen for each in cartesian):
            p, names = [column(each) for each in CARTESIAN], cartesian
        else:
            if quantity == "pz":
                partners[which] = name
            continue
        found[which] = _Particle(tuple(names + extra), _momentum(p, extra, column), names is polar, bool(extra))
    if len(found) == 1 and len(partners) == 1:  # a balanced pair: the transverse momenta cancel
        (first,), ((which, name),) = found.values(), partners.items()
        if not first.polar:
            p = [-first.momentum[:, 0], -first.momentum[:, 1], torch.from_numpy(table[:, sample.names.index(name)])]
            found[which] = _Particle((name,), _momentum(p, [], lambda _: p[0]), False, False)
    return found


def _momentum(p: list[Tensor], extra: Sequence[str], column: Callable[[str], Tensor]) -> Tensor:
    """Four-vectors; without a mass or an energy the particle counts as massless."""
    if extra and extra[0].startswith("E_"):
        energy = column("E")
    else:
        squared = sum(each**2 for each in p) + (column("m") ** 2 if extra else 0.0)
        energy = squared.sqrt()  # type: ignore[union-attr]
    return torch.stack([*p, energy], -1)


def _of_particles(particles: Mapping[str, _Particle]) -> Iterator[Variable]:
    def variable(name: str, label: str, unit: str, function: Callable[[], Tensor]) -> Variable:
        return Variable(name, "pair", f"${label}$", unit, None, lambda: function().numpy())

    for which, a in particles.items():
        if not a.polar:  # what the columns of others say already
            of = f"({_roman(which)})"
            yield variable(f"pt_{which}", f"p_T{of}", "GeV", lambda a=a: pt(a.momentum))  # type: ignore[misc]
            yield variable(f"eta_{which}", rf"\eta{of}", "", lambda a=a: eta(a.momentum))  # type: ignore[misc]
            yield variable(f"phi_{which}", rf"\phi{of}", "rad", lambda a=a: phi(a.momentum))  # type: ignore[misc]
    for (one, a), (other, b) in itertools.combinations(particles.items(), 2):
        p, q, between = a.momentum, b.momentum, f"({_roman(one)}, {_roman(other)})"
        for name, label, unit, function in (
            ("m", "M", "GeV", lambda p, q: mass(p + q)),
            ("pt", "p_T", "GeV", lambda p, q: pt(p + q)),
            ("delta_r", r"\Delta R", "", delta_r),
            ("delta_phi", r"\Delta\phi", "rad", delta_phi),
            ("delta_eta", r"\Delta\eta", "", lambda p, q: eta(p) - eta(q)),
            ("pt_ratio", r"p_T\ \mathrm{ratio}", "", lambda p, q: pt(p) / pt(q)),
        ):
            full = f"{name}_{one}{other}"
            yield variable(full, label + between, unit, lambda p=p, q=q, f=function: f(p, q))  # type: ignore[misc]


def _roman(name: str) -> str:
    """The name of a particle in a formula."""
    escaped = "".join("\\" + letter if letter in "_#%&$^{}" else letter for letter in name if letter != "\\")
    return rf"\mathrm{{{escaped}}}"


def _of_numbers(a: Variable, b: Variable) -> Iterator[Variable]:
    """Ratio, difference and sum of two numbers, where these make sense."""

    def variable(sign: str, unit: str, function: Callable[[Any, Any], Any]) -> Variable:
        name = f"{a.name} {sign} {b.name}"
        return Variable(name, "pair", name, unit, None, lambda: function(a.values(), b.values()))

    if a.unit == b.unit:
        yield variable("-", a.unit, np.subtract)
        yield variable("+", a.unit, np.add)
    denominator = b.values()
    there = denominator[~np.isnan(denominator)]
    if len(there) and ((there > 0).all() or (there < 0).all()):
        unit = "" if a.unit == b.unit else f"{a.unit or '1'}/{b.unit}" if b.unit else a.unit
        yield variable("/", unit, np.divide)
