"""The background of a signal region from the sidebands: how many events, and how their features are distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import SEED, array, door, require, whole
from pyrogen.events import EventSample
from pyrogen.labelled import Labelled
from pyrogen.posterior.posterior import Posterior
from pyrogen.printing import Brief
from pyrogen.search.dijet import DijetFunction, fit_all
from pyrogen.search.regions import Regions

Array = NDArray[np.float64]
BINS = 60  # of the mass in each region, in which the fit integrates and masses are drawn


@dataclass(frozen=True, kw_only=True, repr=False)
class MassFit(Labelled):
    """The dijet function, fitted to the masses in the sidebands.

    Attributes:
        edges: of the bins of the signal region, ``[B + 1]``.
        expected: background events in each bin, ``[B]``.
        total, sigma: background events in the signal region, and the uncertainty that the fit leaves.
        sideband_edges, sideband_expected: the same of both sidebands, ``[2, B + 1]`` and ``[2, B]``.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "expected": "bin",
        "sideband_edges": "sideband sideband_bin_edge",
        "sideband_expected": "sideband sideband_bin",
    }

    edges: Array
    expected: Array
    total: float
    sigma: float
    sideband_edges: Array
    sideband_expected: Array

    @door(n=whole(1), seed=SEED)
    def draw(self, n: int, seed: int) -> Array:
        """``n`` masses ``[n]`` of the background in the signal region."""
        rng = np.random.default_rng(seed)
        bins = rng.choice(len(self.expected), n, p=self.expected / self.expected.sum())
        return self.edges[bins] + rng.random(n) * (self.edges[bins + 1] - self.edges[bins])


def fit_masses(mass: Array, regions: Regions, energy: float, parameters: int = 3) -> MassFit:
    """Fit the dijet function to the sidebands by maximum Poisson likelihood.

    Args:
        mass: ``[N]``, in the window of the regions.
        regions: signal region and sidebands.
        energy: centre-of-mass energy of the collisions, in the unit of the mass.
        parameters: of the dijet function, 2 to 4.

    Raises:
        ValueError: the fit does not converge.
    """
    cuts = (regions.window[0], *regions.signal, regions.window[1])
    parts = [np.linspace(low, high, BINS + 1) for low, high in zip(cuts, cuts[1:], strict=False)]
    edges = np.concatenate([parts[0], parts[1][1:], parts[2][1:]])
    counts = np.histogram(mass, edges)[0].astype(np.float64)
    inside = np.zeros(3 * BINS, dtype=bool)
    inside[BINS : 2 * BINS] = True
    function = DijetFunction(energy, parameters, edges)
    fitted = fit_all(function, counts[None], ~inside)
    if not fitted.converged[0]:
        raise ValueError(
            f"the fit of the dijet function to {int(counts[~inside].sum()):,} events in the sidebands does not "
            f"converge; give fewer parameters than {parameters}, or wider sidebands"
        )
    expected, slopes = (each[0] for each in function.expected(fitted.theta))
    slope = slopes[inside].sum(0)
    return MassFit(
        edges=parts[1],
        expected=expected[inside],
        total=float(expected[inside].sum()),
        sigma=float(np.sqrt(slope @ fitted.covariance[0] @ slope)),
        sideband_edges=np.stack([parts[0], parts[2]]),
        sideband_expected=np.stack([expected[:BINS], expected[2 * BINS :]]),
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class Template(Brief):
    """Background events that a conditional flow generates at given masses, each with the weight of every draw.

    Attributes:
        events: features ``[M, d]``, from all K posterior draws in equal shares.
        mass: ``[M]``.
        weights: ``[K, M]``: ``p(x|m, theta_k) / p(x|m)`` with the mean density ``p`` of all draws, scaled to a mean of
            1 for each draw. No weight is larger than about K.
    """

    events: EventSample
    mass: Array
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def draws(self) -> int:
        """Number of draws K."""
        return len(self.weights)

    @door(passed=array(1))
    def fractions(self, passed: ArrayLike) -> Array:
        """Fraction ``[K]`` of the background that passes a cut, in each draw; ``passed [M]`` says which events do."""
        chosen = np.asarray(passed)
        right = f"True or False for each of the {len(self)} generated events"
        require(chosen.dtype == bool and len(chosen) == len(self), "passed", passed, right)
        return self.weights[:, chosen].sum(1, dtype=np.float64) / len(self)


def make_template(
    posterior: Posterior, mass: Array, names: tuple[str, ...], units: tuple[str, ...], seed: int
) -> Template:
    """Generate one background event at each mass ``[M]``."""
    draws = posterior.weights.count(None, least=2)
    found = posterior.generate(len(mass), draws, context=mass[:, None], seed=seed, log_weights=True)
    assert found.log_weights is not None
    weights = np.exp(found.log_weights.T.astype(np.float32))
    weights /= weights.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
    return Template(events=EventSample(found.values, names, units), mass=mass, weights=weights)
