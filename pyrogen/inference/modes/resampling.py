"""Weights of the events in a bootstrap, computed where they are needed: no table of replicas times events.

Every replica has a SplitMix64 generator (Steele, Lea and Flood 2014), whose n-th number belongs to event n. So the
weight of an event is a function of the replica's key and the event's number, the same in every pass and on every
device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrogen.memory import in_chunks

NUMBERS_AT_ONCE = 1 << 20  # weights that are summed at once
#: Probabilities that a Poisson number of mean 1 is at most 0, 1, ...; it exceeds 20 with a probability of 1e-20.
POISSON = tuple(math.exp(-1) * sum(1 / math.factorial(k) for k in range(n + 1)) for n in range(20))


def _signed(number: int) -> int:
    """An unsigned number of 64 bits as the signed one of the same bits, which torch has."""
    return number - (1 << 64) if number >> 63 else number


STEP, FIRST, SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def split_mix(keys: Tensor, places: Tensor) -> Tensor:
    """The numbers ``places [C, M]`` of the generators with ``keys [C]``: 64 random bits each.

    Sums and products of 64-bit integers wrap around in torch, as the generator needs it.
    """
    state = keys[:, None] + (places + 1) * STEP
    state = (state ^ _shifted(state, 30)) * FIRST
    state = (state ^ _shifted(state, 27)) * SECOND
    return state ^ _shifted(state, 31)


def uniform(bits: Tensor) -> Tensor:
    """Numbers between 0 and 1, in float64, neither of them included."""
    return (_shifted(bits, 12).double() + 0.5) * 2.0**-52


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Bits shifted to the right, with zeros from the left."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def dirichlet(bits: Tensor, size: int) -> tuple[None, Tensor]:
    """Exponential weights: divided by their sum they follow a flat Dirichlet distribution (Rubin 1981)."""
    return None, -uniform(bits).log()


def poisson(bits: Tensor, size: int) -> tuple[None, Tensor]:
    """How often an event counts when their total number is Poisson distributed too: a Poisson number of mean 1."""
    place = uniform(bits)
    counts = torch.zeros_like(place)
    for below in POISSON:
        counts += place > below
    return None, counts


def multinomial(bits: Tensor, size: int) -> tuple[Tensor, None]:
    """The event that stands at a place of a sample drawn with replacement (Efron 1979)."""
    return _shifted(bits, 1) % size, None


#: What stands at a place of a replica's sample: the row of an event (None: the place itself), and its weight (None: 1).
Scheme = Callable[[Tensor, int], tuple[Tensor | None, Tensor | None]]
SCHEMES: dict[str, Scheme] = {"dirichlet": dirichlet, "multinomial": multinomial, "poisson": poisson}


class Resampling:
    """The bootstrap samples of C replicas.

    Args:
        scheme: a name in :data:`SCHEMES`.
        keys: a random number for each replica.
        size: number N of events.
        weights: event weights ``[N]``, or None.
        dtype: of the weights that it gives.
        device: where it gives them.
        each: replicas of a sample, where there are several samples.

    Raises:
        ValueError: a replica whose weights have no positive sum.
    """

    def __init__(
        self,
        scheme: str,
        keys: list[int],
        size: int,
        weights: Tensor | None,
        dtype: torch.dtype,
        device: torch.device | str,
        each: int | None = None,
    ) -> None:
        self.each = each or len(keys)
        self.scheme, self.size, self.dtype = scheme, size, dtype
        self.keys = torch.tensor(keys, dtype=torch.int64, device=device)
        self.weights = None if weights is None else weights.double()
        self.factors = self._factors()

    def __call__(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """What stands at ``places [C, M]`` of the samples: rows of events, and their weights, ``[C, M]`` each.

        Over all N places the weights of a replica sum to the effective number of events.
        """
        rows, weights = self._raw(places, self.keys[: len(places)])
        return rows, (weights * self.factors[: len(places), None]).to(self.dtype)

    def _raw(self, places: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        rows, weights = SCHEMES[self.scheme](split_mix(keys, places), self.size)
        rows = places if rows is None else rows
        weights = torch.ones_like(rows, dtype=torch.float64) if weights is None else weights
        return rows, weights if self.weights is None else weights * self.weights[rows]

    def _factors(self) -> Tensor:
        """What brings the weights of every replica to the sum of the given ones, ``[C]``."""
        total, squares = torch.zeros(2, len(self.keys), dtype=torch.float64, device=self.keys.device)

        def sums(part: slice) -> tuple[Tensor, Tensor]:
            places = torch.arange(part.start, part.stop, device=self.keys.device).expand(len(self.keys), -1)
            weights = self._raw(places, self.keys)[1]
            return weights.sum(1), weights.square().sum(1)

        for _, (its_sum, its_squares) in in_chunks(sums, self.size, max(1, NUMBERS_AT_ONCE // len(self.keys))):
            total += its_sum
            squares += its_squares
        effective = total.square() / squares
        bad = ~((total > 0) & (effective >= 1))
        if bad.any():
            r = int(bad.nonzero()[0, 0])
            sample = "" if self.each == len(bad) else f" of sample {r // self.each}"
            raise ValueError(
                f"the weights of {int(bad.sum())} of {len(self.keys)} bootstrap samples have no positive sum, or "
                f"positive and negative ones cancel almost completely (replica {r % self.each}{sample}: sum "
                f"{float(total[r]):.3g} of {self.size} events, {float(self._expected()):.3g} without the bootstrap); "
                "there are too few events, or too many negative weights, for a bootstrap. Give more events, or "
                'resampling="dirichlet"'
            )
        return self._expected() / total

    def _expected(self) -> float:
        return float(self.size if self.weights is None else self.weights.sum())
