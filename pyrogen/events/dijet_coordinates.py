"""The features of a dijet search on the line, for flows: masses above zero, tau21 from 0 to 1."""

from __future__ import annotations

from .bijection import Bijection
from .composites import Chain, Columns
from .elementwise import Positive, Probit
from .preprocessing import Standardise, UnitBox

LOWEST = -1e-3  # of a jet mass: below zero, so that a jet without mass has a density


def dijet_coordinates() -> Bijection:
    """A preprocessing for ``mj1, delta_mj, tau21_1, tau21_2``, the features of :class:`Dijets` without ``mjj``.

    Masses become numbers on the line by a softplus that begins at -0.001 (a jet may have no mass), ratios from 0 to 1
    by the normal quantile; then each column gets mean 0 and standard deviation 1. A training fits the constants::

        pg.BayesianFlow(pg.CouplingFlow(4, context=1, transform="rqs"), preprocessing=pg.events.dijet_coordinates())
    """
    ratios = [Chain([UnitBox(0.0, 1.0), Probit()]) for _ in range(2)]
    return Chain([Columns([Positive(LOWEST), Positive(LOWEST), *ratios]), Standardise()])
