"""Posterior distributions over the packed weight vector, as predictions and files need them."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pyrogen.checks import DEVICE, SEED, door, whole, whole_number
from pyrogen.devices import exact
from pyrogen.printing import Shown

DRAWS = 50  # weight draws of a prediction, as in [A] sec. 4
MOVED_TOGETHER = 2**30  # bytes of stored draws that another device gets in one piece

#: Weight posteriors by the name of their family, which files know them by.
FAMILIES: dict[str, type[WeightPosterior]] = {}


class WeightPosterior(Shown, ABC):
    """A distribution over the weights ``theta [P]`` that gives reproducible draws.

    A family is a subclass with a name, the names of its arrays, and :meth:`_draw`, which makes one draw out of them;
    where the density is known also ``has_density = True`` and :meth:`_log_prob`. Files know it by its name.

    Attributes:
        family: its name in files and messages.
        names: names of its arrays; the first has the number of weights as its last dimension, ``"loc"`` is the centre.
        shapes: the dimensions of its arrays by name, a letter each: ``"PR"`` for ``[P, R]``, with P the number of
            weights; those left out are not checked.
        not_negative: names of arrays without negative numbers.
        has_density: whether :meth:`log_prob` is known.
        has_spread: whether draws differ from each other.
        independent: whether the weights are independent Gaussians ``N(loc, scale^2)``.
        stored: number of stored draws, of all chains together; None for a distribution, which has any number.
        arrays: the arrays by name.

    Args:
        **arrays: the arrays of the family, by the names in ``names``.

    Raises:
        ValueError: other arrays.
    """

    family: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    shapes: ClassVar[Mapping[str, str]] = {}
    not_negative: ClassVar[tuple[str, ...]] = ()
    has_density: ClassVar[bool] = False
    has_spread: ClassVar[bool] = True
    independent: ClassVar[bool] = False
    stored: int | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "family" not in vars(cls):
            return  # a variant, which no file knows
        taken = FAMILIES.get(cls.family)
        # The same class once more, from a cell of a notebook that is run again, takes the place of the old one.
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"the family {cls.family!r} exists, it is {taken.__module__}.{taken.__qualname__}; give "
                f"{cls.__qualname__} another one"
            )
        FAMILIES[cls.family] = cls

    def __init__(self, **arrays: Tensor) -> None:
        if set(arrays) != set(self.names):
            raise ValueError(f"a {self.family} posterior is made of {self.names}; got {tuple(arrays)}")
        self.arrays = {name: self._owned(array.detach()) for name, array in arrays.items()}

    @staticmethod
    def _owned(array: Tensor) -> Tensor:
        """A copy, which nobody else changes."""
        return array.clone()

    @property
    def size(self) -> int:
        """Number of weights P."""
        return self.arrays[self.names[0]].shape[-1]

    @property
    def device(self) -> torch.device:
        """Where its draws are given out."""
        return self.arrays[self.names[0]].device

    @door(device=DEVICE)
    def to(self, device: torch.device | str) -> Self:
        """The same distribution on another device: the same seed gives the same draws there, but for rounding.

        Returns:
            Itself where it is there already; otherwise one with copies of the arrays.
        """
        device = exact(device)
        return self if device == self.device else self._moved(device)

    def _moved(self, device: torch.device) -> Self:
        moved = copy.copy(self)
        moved.arrays = {name: array.to(device) for name, array in self.arrays.items()}
        return moved

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={list(array.shape)}" for name, array in self.arrays.items())
        return f"{type(self).__name__}({shapes})"

    def check(self, size: int) -> None:
        """Raise a ValueError where the arrays are none of a posterior over ``size`` weights, naming the array."""
        lengths = {"P": size}
        for name, array in self.arrays.items():
            letters = self.shapes.get(name)
            if letters is not None:
                fits = array.ndim == len(letters) and all(
                    lengths.setdefault(letter, n) == n and (n > 0 or letter == "R")
                    for letter, n in zip(letters, array.shape, strict=True)
                )
                if not fits:
                    raise ValueError(
                        f"{name} has the shape {list(array.shape)}; that of a {self.family} posterior over {size} "
                        f"weights is [{', '.join(letters)}] with P = {size}"
                    )
            if not array.is_floating_point():
                raise ValueError(f"{name} holds {array.dtype}, which are no floating-point numbers")
            if not array.isfinite().all():
                raise ValueError(f"{name} holds NaN or infinite numbers")
            if name in self.not_negative and (array < 0).any():
                raise ValueError(f"{name} holds negative numbers")
        if self.size != size:
            raise ValueError(f"{self.names[0]} holds {self.size} weights, but the flow has {size}")

    def log_prob(self, theta: Tensor) -> float:
        """Log density of weights ``theta [P]``, in double precision.

        Raises:
            ValueError: a family without a density over the weights: stored draws, or a single point.
        """
        if not self.has_density:
            raise ValueError(f"a posterior of the family {self.family!r} has no density over the weights")
        return self._log_prob({name: array.double() for name, array in self.arrays.items()}, theta.double())

    def _log_prob(self, arrays: dict[str, Tensor], theta: Tensor) -> float:
        """Log density of ``theta [P]``; all in double precision."""
        raise TypeError(f"{type(self).__name__} says that it has a density, but has no _log_prob")

    @door(n=whole(1), seed=SEED)
    def draws(self, n: int, seed: int) -> Iterator[Tensor]:
        """``n`` weight vectors ``[P]``, one after another, the same for the same seed.

        Of a distribution, a longer run starts with the draws of a shorter one.

        Raises:
            ValueError: n is not a positive whole number, or exceeds the stored draws.
        """
        n = self.count(n)
        seeds = np.random.SeedSequence(seed).generate_state(n, np.uint64)
        for own in seeds:
            # A generator per draw: no draw depends on how many were asked for or on what ran between them. It is of the
            # CPU wherever the arrays are, so that a seed means the same networks on every device.
            yield self._draw(torch.Generator().manual_seed(int(own >> np.uint64(1))))

    @abstractmethod
    def _draw(self, generator: torch.Generator) -> Tensor:
        """One weight vector ``[P]``, all of whose noise comes from ``generator``.

        The generator is one of the CPU. The arrays may be on another device: move the noise there, ``noise.to(loc)``.
        """

    def count(self, draws: int | None, default: int = DRAWS, least: int = 1) -> int:
        """The number of weight draws of a prediction: the one policy of all of them.

        Args:
            draws: what was asked for; None: ``default``, or all where fewer are stored.
            default: number of draws where none was asked for.
            least: the fewest that make sense.

        Raises:
            ValueError: no whole number, fewer than ``least``, or more than are stored.
        """
        if draws is None:
            found = self.at_most(default)
        else:
            found = whole_number("draws", draws, 1 if draws == 1 else least)
            if self.stored is not None and found > self.stored:
                raise ValueError(f"draws is {found}, but this posterior holds {self.stored} stored weight draws")
        if found < least:
            what = f"draws is {found}" if draws is not None else f"this posterior holds {found} weight draw"
            raise ValueError(f"{what}; an uncertainty needs at least two weight draws (30 or more to be trusted)")
        return found

    def at_most(self, draws: int) -> int:
        """``draws``, or the number of stored draws where that is smaller."""
        return draws if self.stored is None else min(draws, self.stored)


def make_weights(family: str, arrays: dict[str, Tensor]) -> WeightPosterior:
    """The weight posterior of a family by its name in a file.

    Raises:
        ValueError: an unknown family, or arrays of another one.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r} of weight posteriors; known: {', '.join(FAMILIES)}")
    return FAMILIES[family](**arrays)


def _noise(like: Tensor, generator: torch.Generator, size: int | None = None) -> Tensor:
    """Standard normal numbers of the type of ``like``, on its device."""
    size = like.shape[-1] if size is None else size
    return torch.randn(size, generator=generator, dtype=like.dtype).to(like.device)


class MeanField(WeightPosterior):
    """Independent Gaussians: ``loc [P]``, ``scale [P]``."""

    family, names, has_density, independent = "mean_field", ("loc", "scale"), True, True
    shapes, not_negative = {"loc": "P", "scale": "P"}, ("scale",)

    def _draw(self, generator: torch.Generator) -> Tensor:
        loc = self.arrays["loc"]
        return loc + self.arrays["scale"] * _noise(loc, generator)

    def _log_prob(self, arrays: dict[str, Tensor], theta: Tensor) -> float:
        offset = (theta - arrays["loc"]) / arrays["scale"]
        return _standard_log_prob(offset.square().sum(), len(offset), arrays["scale"].log().sum())


class PartlyRandom(WeightPosterior):
    """Independent Gaussians for some of the weights, the others are points: ``loc [P]``, ``scale [P]``, zero there."""

    family, names = "partly_random", ("loc", "scale")
    shapes, not_negative = {"loc": "P", "scale": "P"}, ("scale",)

    @classmethod
    def of(cls, loc: Tensor, scale: Tensor, random: Tensor) -> Self:
        """Of widths ``[P]`` that count where ``random [P]`` says so."""
        return cls(loc=loc, scale=torch.where(random, scale, 0.0))

    def _draw(self, generator: torch.Generator) -> Tensor:
        loc = self.arrays["loc"]
        return loc + self.arrays["scale"] * _noise(loc, generator)


class LowRank(WeightPosterior):
    """A Gaussian of covariance ``F F^T + diag(cov_diag)``: ``loc [P]``, ``cov_factor [P, r]``, ``cov_diag [P]``."""

    family, names, has_density = "low_rank", ("loc", "cov_factor", "cov_diag"), True
    shapes, not_negative = {"loc": "P", "cov_factor": "PR", "cov_diag": "P"}, ("cov_diag",)

    def _draw(self, generator: torch.Generator) -> Tensor:
        loc, factor, diagonal = (self.arrays[name] for name in self.names)
        return loc + factor @ _noise(loc, generator, factor.shape[1]) + diagonal.sqrt() * _noise(loc, generator)

    def _log_prob(self, arrays: dict[str, Tensor], theta: Tensor) -> float:
        normal = torch.distributions.LowRankMultivariateNormal(arrays["loc"], arrays["cov_factor"], arrays["cov_diag"])
        return float(normal.log_prob(theta))


class LowRankPrecision(WeightPosterior):
    """A Gaussian narrower than independent ``N(loc, scale^2)`` along r orthonormal directions V (in units of scale).

    Its covariance is ``S (1 - V (1 - shrink^2) V^T) S`` with ``S = diag(scale)``, a draw
    ``loc + scale * (xi - V (1 - shrink) V^T xi)`` with ``xi ~ N(0, 1)``. Arrays: ``loc [P]``, ``scale [P]``,
    ``vectors [P, r]``, ``shrink [r]``.
    """

    family, names, has_density = "low_rank_precision", ("loc", "scale", "vectors", "shrink"), True
    shapes, not_negative = {"loc": "P", "scale": "P", "vectors": "PR", "shrink": "R"}, ("scale", "shrink")

    def _draw(self, generator: torch.Generator) -> Tensor:
        loc, scale, vectors, shrink = (self.arrays[name] for name in self.names)
        xi = _noise(loc, generator)
        return loc + scale * (xi - vectors @ ((1 - shrink) * (vectors.T @ xi)))

    def _log_prob(self, arrays: dict[str, Tensor], theta: Tensor) -> float:
        offset = (theta - arrays["loc"]) / arrays["scale"]
        square, shrink = offset.square().sum(), arrays["shrink"]
        square = square + ((shrink**-2 - 1) * (arrays["vectors"].T @ offset).square()).sum()
        return _standard_log_prob(square, len(offset), arrays["scale"].log().sum() + shrink.log().sum())


class Multivariate(WeightPosterior):
    """A Gaussian of full covariance ``L L^T``: ``loc [P]``, ``scale_tril [P, P]``."""

    family, names, has_density = "multivariate", ("loc", "scale_tril"), True
    shapes = {"loc": "P", "scale_tril": "PP"}

    def check(self, size: int) -> None:
        super().check(size)
        if (self.arrays["scale_tril"].diagonal() < 0).any():
            raise ValueError("scale_tril holds negative numbers on its diagonal")

    def _draw(self, generator: torch.Generator) -> Tensor:
        loc = self.arrays["loc"]
        return loc + self.arrays["scale_tril"] @ _noise(loc, generator)

    def _log_prob(self, arrays: dict[str, Tensor], theta: Tensor) -> float:
        normal = torch.distributions.MultivariateNormal(arrays["loc"], scale_tril=arrays["scale_tril"])
        return float(normal.log_prob(theta))


class Point(WeightPosterior):
    """A single network: ``loc [P]``."""

    family, names, has_spread = "point", ("loc",), False
    shapes = {"loc": "P"}

    def _draw(self, generator: torch.Generator) -> Tensor:
        return self.arrays["loc"].clone()


class StoredDraws(WeightPosterior):
    """Stored draws ``[chains, draws, P]``. They may be many and lie in a file, so they are not copied.

    For another device (:meth:`to`) draws of up to 1 GiB are copied there once. More stay where they are, and every
    single draw is copied when it is asked for.
    """

    family, names = "draws", ("draws",)
    shapes = {"draws": "CDP"}

    def __init__(self, draws: Tensor) -> None:
        super().__init__(draws=draws)
        self._device = draws.device

    @staticmethod
    def _owned(array: Tensor) -> Tensor:
        return array

    @property
    def device(self) -> torch.device:
        """Where its draws are given out."""
        return self._device

    def _moved(self, device: torch.device) -> Self:
        stored = self.arrays["draws"]
        moved = super()._moved(device) if stored.nbytes <= MOVED_TOGETHER else copy.copy(self)
        moved._device = device
        return moved

    @property
    def stored(self) -> int:  # type: ignore[override]
        """Number of stored draws, of all chains together."""
        return self.arrays["draws"].shape[:2].numel()

    @door(n=whole(1), seed=SEED)
    def draws(self, n: int, seed: int = 0) -> Iterator[Tensor]:
        """``n`` of the draws ``[P]``, taken evenly from their chains: they have no seed.

        Raises:
            ValueError: n is not a positive whole number, or exceeds the stored draws.
        """
        for i in np.linspace(0, self.stored - 1, self.count(n)).round().astype(int):
            yield self[int(i)]  # one by one: stored draws may be more than memory holds

    def __getitem__(self, i: int) -> Tensor:
        """The draw number ``i`` ``[P]``, counted through chain after chain."""
        stored = self.arrays["draws"]
        return stored[divmod(i, stored.shape[1])].to(self._device)

    def _draw(self, generator: torch.Generator) -> Tensor:
        return self[int(torch.randint(self.stored, (), generator=generator))]


def _standard_log_prob(square: Tensor, size: int, log_volume: Tensor) -> float:
    """Log density of a Gaussian from the squared length in units of its widths and the logarithm of their product."""
    return float(-0.5 * (square + size * math.log(2 * math.pi)) - log_volume)
