"""Backgrounds that come from elsewhere: estimates with an error, and spectra of generators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    POSITIVE,
    SEED,
    TEXT,
    array,
    check_settings,
    column_index,
    door,
    instance,
    one_of,
    optional,
    require,
)
from pyrogen.posterior import HistogramBand, Posterior
from pyrogen.printing import Brief

from .counting import SidebandCounting
from .dijet import NODES
from .spectrum import SidebandFit
from .windows import Windows

Array = NDArray[np.float64]
ENOUGH = 10  # generated events of a draw for each event of the data
SYMMETRIC = 1e-6
SIDEBANDS = instance((SidebandFit, SidebandCounting), "a SidebandFit or a SidebandCounting")


@dataclass(frozen=True, repr=False)
class GivenBackground(Brief):
    """A background estimate with its error, from any source.

    Args:
        mean: expected events ``[W]`` in the windows of the scan, in their order; with ``edges`` in bins ``[B]``.
        sigma: uncertainty of them, ``[W]`` or ``[B]``, without correlations; or
        covariance: of them, ``[W, W]`` or ``[B, B]``.
        edges: of the bins ``[B + 1]``; every window begins and ends at one of them.
        name: what it is called in tables and figures.

    Raises:
        ValueError: numbers that are not finite, negative, or do not fit together; sigma and covariance both, or none.
    """

    mean: ArrayLike
    sigma: ArrayLike | None = None
    covariance: ArrayLike | None = None
    edges: ArrayLike | None = None
    name: str = "given background"

    def __post_init__(self) -> None:
        check_settings(
            self,
            mean=array(1),
            sigma=optional(array(1)),
            covariance=optional(array(2)),
            edges=optional(array(1)),
            name=TEXT,
        )
        mean = np.asarray(self.mean, dtype=np.float64)
        require(bool(len(mean) and (np.isfinite(mean) & (mean >= 0)).all()), "mean", self.mean, "finite, not negative")
        if (self.sigma is None) == (self.covariance is None):
            raise ValueError("sigma and covariance: give one of them (zeros for a background that is known exactly)")
        size = (len(mean), len(mean))
        if self.sigma is not None:
            sigma = np.asarray(self.sigma, dtype=np.float64)
            good = sigma.shape == mean.shape and bool((np.isfinite(sigma) & (sigma >= 0)).all())
            require(good, "sigma", self.sigma, f"{len(mean)} finite numbers, not negative")
            covariance = np.diag(sigma**2)
        else:
            covariance = np.asarray(self.covariance, dtype=np.float64)
            good = covariance.shape == size and bool(np.isfinite(covariance).all())
            require(good, "covariance", self.covariance, f"finite numbers of shape {list(size)}, as mean has")
            even = np.abs(covariance - covariance.T).max() <= SYMMETRIC * np.abs(covariance).max()
            positive = np.linalg.eigvalsh(covariance).min() >= -SYMMETRIC * np.abs(covariance).max()
            require(bool(even and positive), "covariance", self.covariance, "symmetric, without negative variances")
        store = object.__setattr__
        store(self, "mean", mean)
        store(self, "sigma", np.sqrt(np.clip(np.diag(covariance), 0, None)))
        store(self, "covariance", covariance)
        if self.edges is not None:
            edges = np.asarray(self.edges, dtype=np.float64)
            good = len(edges) == len(mean) + 1 and bool(np.isfinite(edges).all() and (np.diff(edges) > 0).all())
            require(good, "edges", self.edges, f"{len(mean) + 1} finite numbers that rise, one more than mean has")
            store(self, "edges", edges)

    @classmethod
    @door(band=instance(HistogramBand, "a HistogramBand"), total=POSITIVE, subtract_noise=BOOLEAN)
    def of(cls, band: HistogramBand, total: float, subtract_noise: bool = False) -> GivenBackground:
        """The background that a band predicts, with all its correlations.

        Args:
            band: from ``posterior.histogram``; of the background alone.
            total: number of background events that a probability of one stands for.
            subtract_noise: without the noise of the generated events.
        """
        mean, covariance = total * band.mean, total**2 * band.covariance(subtract_noise)
        return cls(mean, covariance=covariance, edges=band.edges, name="band of generators")


def in_windows(given: GivenBackground, windows: Windows) -> tuple[Array, Array]:
    """Expected events ``[W]`` in the windows, and their covariance ``[W, W]``."""
    mean, covariance = cast(Array, given.mean), cast(Array, given.covariance)
    if given.edges is None:
        if len(mean) != len(windows.low):
            raise ValueError(f"background has {len(mean)} means; there are {len(windows.low)} windows")
        return mean, covariance
    chosen = windows.inside.astype(np.float64)
    return chosen @ mean, chosen @ covariance @ chosen.T


def _source(name: str, value: Any) -> Any:
    """A posterior, a band, or a sequence of posteriors or of masses."""
    right = "a Posterior, a HistogramBand, or a list of posteriors or of generated masses [n]"
    if isinstance(value, (Posterior, HistogramBand)):
        return value
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be {right}")
    found = list(value)
    require(len(found) >= 3, name, value, "of at least three members")
    if all(isinstance(each, Posterior) for each in found):
        return found
    masses = [np.asarray(array(1)(f"every entry of {name}", each), dtype=np.float64) for each in found]
    require(all(len(each) and np.isfinite(each).all() for each in masses), name, value, right)
    return masses


@dataclass(frozen=True, kw_only=True, repr=False)
class GeneratedMasses(Brief):
    """Mass spectra of generators that were trained on the data.

    Two kinds of spread among generators mean two things:

    * ``spread="posterior"``: draws of a posterior, replicas of a bootstrap. Each one could be the truth that the data
      came from, so that the spread has the Poisson noise of the data in it: that of O in the window, that of the fit
      in the sidebands. Nothing is added: the significance is ``mean(S_k) / std(S_k)``, with ``S_k = O_k - B_k`` of the
      same draw k. More draws make the spread better known, not smaller.
    * ``spread="training"``: trainings on the same events from other starts. Their spread is the noise of the training
      alone, and averages out: ``delta = sqrt(2 / K) std`` for means over halves of K trainings (Kasieczka 2023). The
      noise of the data is added: B for the window, and the statistical error of the sidebands' fit in ``delta_B``.

    Coordinates of a generator should end where its training events end, as ``UnitBox(low, high)`` does. Those that go
    on, as ``PowerLaw(low)`` does, let the density leak beyond the end, and B is biased (``docs/searches.md``).

    Args:
        source: a posterior; a band of ``posterior.histogram`` of the mass; or a list of posteriors or of generated
            masses ``[n]``, one for each training.
        spread: ``"posterior"`` or ``"training"``.
        events: number of events in the data that a probability of one stands for, those beyond the range among them;
            None: the effective size of the training events of the posterior.
        column: of the mass, by name or index.
        draws: of a posterior; None: 50, or all that are stored.
        n: events to generate for each draw; None: ten times ``events``. Their noise is in the spread. A flow of the
            mass alone needs none: its density is integrated.
        seed: seeds draws and events.
        sidebands: how the background of each generator follows from its sidebands, where the generators give the
            background alone: :func:`bump_hunt` with masses as data.
    """

    source: Any
    spread: str = "posterior"
    events: float | None = None
    column: str | int = 0
    draws: int | None = None
    n: int | None = None
    seed: int = 0
    sidebands: SidebandFit | SidebandCounting = field(default_factory=SidebandFit)

    def __post_init__(self) -> None:
        check_settings(
            self,
            source=_source,
            spread=one_of("posterior", "training"),
            events=optional(POSITIVE),
            draws=COUNT,
            n=COUNT,
            seed=SEED,
            sidebands=SIDEBANDS,
        )
        if not self.posteriors:
            require(self.column == 0, "column", self.column, "left out: the source has the mass alone")
            require(self.draws is None and self.n is None, "draws", self.draws, "left out: the source has its events")
        for posterior in self.posteriors:
            column_index(self.column, posterior.names)
        require(self.events is not None or self.size is not None, "events", self.events, "the number of events")

    @property
    def name(self) -> str:
        """What it is called in tables and figures."""
        return "generators, spread of the " + ("posterior" if self.spread == "posterior" else "training")

    @property
    def posteriors(self) -> list[Posterior]:
        """The posteriors of the source."""
        if isinstance(self.source, Posterior):
            return [self.source]
        listed = isinstance(self.source, list) and isinstance(self.source[0], Posterior)
        return self.source if listed else []

    @property
    def size(self) -> float | None:
        """Number of events of the data."""
        found = [posterior.info.effective_size for posterior in self.posteriors]
        return self.events or (found[0] if found else None)

    @property
    def unit(self) -> str:
        """Unit of the mass; empty where it is not known."""
        if isinstance(self.source, HistogramBand):
            return self.source.unit
        for posterior in self.posteriors:
            return posterior.units[column_index(self.column, posterior.names)]
        return ""

    @property
    def label(self) -> str:
        """Name of the mass; empty where it is not known."""
        for posterior in self.posteriors:
            return posterior.names[column_index(self.column, posterior.names)]
        return self.source.label if isinstance(self.source, HistogramBand) else ""


def spectra_of(generated: GeneratedMasses, edges: Array) -> Array:
    """Expected events of the data in every bin by every generator, ``[K, B]``."""
    size = float(generated.size or 0)
    if isinstance(generated.source, HistogramBand):
        found = generated.source.draws
    elif isinstance(generated.source, Posterior):
        found = _of_draws(generated, generated.source, edges, size)
    elif generated.posteriors:
        found = np.stack([_of_mean(generated, posterior, edges, size) for posterior in generated.posteriors])
    else:
        found = np.stack([np.histogram(masses, edges)[0] / len(masses) for masses in generated.source])
    if len(found) < 3:
        raise ValueError(f"draws is {len(found)}; a spread needs at least three generators")
    return size * found


def _of_draws(generated: GeneratedMasses, posterior: Posterior, edges: Array, size: float) -> Array:
    if posterior.model.features == 1:
        return _integrated(posterior, edges, generated.draws, generated.seed)
    n = generated.n or int(ENOUGH * size)
    return posterior.histogram(generated.column, edges, n=n, draws=generated.draws, seed=generated.seed).draws


def _of_mean(generated: GeneratedMasses, posterior: Posterior, edges: Array, size: float) -> Array:
    if posterior.model.features == 1:
        draws = generated.draws if posterior.weights.has_spread else 1
        return _integrated(posterior, edges, draws, generated.seed).mean(0)
    n = generated.n or int(ENOUGH * size)
    masses = posterior.sample(n, generated.draws, seed=generated.seed)[
        :, column_index(generated.column, posterior.names)
    ]
    return np.histogram(masses.double().cpu().numpy(), edges)[0] / n


def _integrated(posterior: Posterior, edges: Array, draws: int | None, seed: int) -> Array:
    """Probability ``[K, B]`` of each bin by the density of each draw of a posterior over one feature."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges)[:, None] / 2
    nodes = (edges[1:] + edges[:-1])[:, None] / 2 + half * points
    log_density = posterior.log_prob(nodes.reshape(-1, 1), draws, seed=seed).double().cpu().numpy()
    return (np.exp(log_density).reshape(len(log_density), *nodes.shape) * half * weights).sum(-1)
