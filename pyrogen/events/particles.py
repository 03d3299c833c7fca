"""Particles of the final state of an event: names, PDG ids, and which of them make up the columns of a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMES = {
    **dict(zip(range(1, 7), "duscbt", strict=True)),
    **{-i: f"{quark}~" for i, quark in zip(range(1, 7), "duscbt", strict=True)},
    **{11: "e-", 13: "mu-", 15: "tau-", -11: "e+", -13: "mu+", -15: "tau+"},
    **{12: "nu_e", 14: "nu_mu", 16: "nu_tau", -12: "nu_e~", -14: "nu_mu~", -16: "nu_tau~"},
    **{21: "g", 22: "a", 23: "Z", 24: "W+", -24: "W-", 25: "h"},
}
"""Names by PDG id, as MadGraph writes them; other particles are called ``pdg<id>``."""

JETS = (1, 2, 3, 4, 5, -1, -2, -3, -4, -5, 21)
"""PDG ids of what becomes a jet: the quarks but the top, and the gluon."""

COMPONENTS = ("px", "py", "pz", "E")
_IDS = {name: pdg for pdg, name in NAMES.items()}


def name_of(pdg: int) -> str:
    """The name of a particle, such as ``e+`` or ``pdg1000022``."""
    return NAMES.get(pdg, f"pdg{pdg}")


def id_of(name: str) -> int | None:
    """The PDG id of a name that :func:`name_of` gives; None for others."""
    other = re.fullmatch(r"pdg(-?\d+)", name)
    return int(other[1]) if other else _IDS.get(name)


def in_words(ids: Iterable[int]) -> str:
    """Particles in words: ``e+, e-, 2 g``."""
    counts = Counter(ids)
    return ", ".join(f"{n} {name_of(pdg)}" if n > 1 else name_of(pdg) for pdg, n in counts.items()) or "no particle"


class Content:
    """The particles that an event must have, by name.

    Args:
        particles: ids by name, one or several for each; or a sequence of ids, named by :func:`name_of`.

    Raises:
        ValueError: no particle, or groups of ids that overlap without being the same.
        TypeError: ids that are no integers.
    """

    def __init__(self, particles: Mapping[str, int | Sequence[int]] | Sequence[int]) -> None:
        groups = particles if isinstance(particles, Mapping) else _named(particles)
        sets = {name: _ids(ids, name) for name, ids in groups.items()}
        if not sets:
            raise ValueError(f"particles is {particles!r}; it must name at least one particle")
        self.names = tuple(sets)
        kinds = list(dict.fromkeys(sets.values()))
        for i, ids in enumerate(kinds):
            shared = ids.intersection(*[set().union(*kinds[:i])])
            if shared:
                raise ValueError(
                    f"particles: {in_words(sorted(shared))} is in several groups that differ; a particle belongs to "
                    "one group, or to groups of exactly the same ids, which take theirs in order of falling pT"
                )
        self._kind_of = {pdg: kind for kind, ids in enumerate(kinds) for pdg in ids}
        self._needed = [sum(ids == kinds[k] for ids in sets.values()) for k in range(len(kinds))]
        # Where in the row of an event the particles of each kind go, in order of falling pT.
        self._places = [[i for i, ids in enumerate(sets.values()) if ids == kinds[k]] for k in range(len(kinds))]

    def ids(self) -> frozenset[int]:
        """All PDG ids."""
        return frozenset(self._kind_of)

    def columns(self) -> tuple[str, ...]:
        """``px_e+, py_e+, pz_e+, E_e+`` and so on."""
        return tuple(f"{component}_{name}" for name in self.names for component in COMPONENTS)

    def row(self, final: Sequence[Any]) -> tuple[list[float] | None, bool]:
        """The momenta of an event.

        Args:
            final: its particles with attributes ``id, px, py, pz, e``.

        Returns:
            ``[4 n]`` in the order of :meth:`columns`, or None where a particle is missing or one too many; and
            whether there are others.
        """
        found: list[list[Any]] = [[] for _ in self._needed]
        others = False
        for particle in final:
            kind = self._kind_of.get(particle.id)
            if kind is None:
                others = True
            else:
                found[kind].append(particle)
        row = [0.0] * (4 * len(self.names))
        for same, needed, places in zip(found, self._needed, self._places, strict=True):
            if len(same) != needed:
                return None, others
            if needed > 1:
                same.sort(key=lambda particle: -(particle.px**2 + particle.py**2))
            for particle, place in zip(same, places, strict=True):
                row[4 * place : 4 * place + 4] = particle.px, particle.py, particle.pz, particle.e
        return row, others


def _named(ids: Sequence[int]) -> dict[str, int]:
    """Names of particles; those of several of a kind are numbered: g1, g2."""
    if isinstance(ids, (str, int)):
        raise TypeError(f"particles is {ids!r}; it must be a mapping of names to PDG ids, or a sequence of ids")
    total, seen, named = Counter(ids), Counter[int](), {}
    for pdg in ids:
        seen[pdg] += 1
        named[f"{name_of(pdg)}{seen[pdg]}" if total[pdg] > 1 else name_of(pdg)] = pdg
    return named


def _ids(ids: Any, name: str) -> frozenset[int]:
    group = [ids] if isinstance(ids, int) else list(ids)
    if not group or not all(isinstance(pdg, int) for pdg in group):
        raise TypeError(f"particles[{name!r}] is {ids!r}; it must be a PDG id or a sequence of them")
    return frozenset(group)
