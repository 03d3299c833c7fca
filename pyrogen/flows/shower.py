"""Calorimeter showers given the incident energy: energies of the layers first, then the cells of each layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import (
    NOT_NEGATIVE,
    TENSOR,
    check_memory,
    door,
    each,
    number,
    optional,
    require,
    whole,
    whole_number,
)
from pyrogen.flows.chain import SIZES, ChainFlow
from pyrogen.flows.coupling import SETTINGS, check_inputs
from pyrogen.flows.sticks import from_sticks, to_sticks
from pyrogen.printing import Compact

ALPHA = number("at least 0 and below 0.1", lambda value: 0 <= value < 0.1)


class ShowerFlow(Compact, nn.Module):
    """A normalizing flow of showers, conditional on the incident energy, in the order of arXiv:2106.05285 (CaloFlow)::

        log p(shower | E_inc) = log p(layer energies | E_inc) + sum_i log p(cells of layer i | all before it, E_inc)

    It is a :class:`~pyrogen.ChainFlow` of numbers on the line, one for each cell: ``log(E / E_inc)`` of the total
    energy E; the share of each layer but the last in what the layers before it leave; and within a layer the share of
    each cell but the last in what the cells before it leave. Shares v become ``logit(alpha + (1 - 2 alpha) v)``. All
    numbers are brought to mean 0 and width 1 by constants that a training sets. CaloFlow normalises cells by the energy
    of their layer, which makes one of them redundant; here none is, so the Jacobian is exact.

    The density is one of *cells without gaps*, per GeV of each cell: cells below the threshold, which have no energy,
    are filled with noise from 0 to the threshold before a training
    (:class:`pyrogen.events.ThresholdNoise`, the preprocessing that :class:`~pyrogen.BayesianFlow` takes for this flow).
    So the probability that a cell is empty is that of an energy below the threshold. :meth:`sample` gives cells with
    their noise; a posterior, whose preprocessing undoes it, gives showers with empty cells.

    Args:
        layers: number of cells of each layer, such as ``geometry.sizes``.
        threshold: smallest energy of a cell, in GeV.
        order: in which the cells of a row are broken off, layer by layer: a permutation of the columns in each layer,
            such as ``geometry.outside_in``. Last should be cells with much energy, so that a share is nearly that of
            the layer. Left out: the order of the row.
        alpha: of the logit. With 0 the density of cells without gaps integrates to one. With more, shares near 0 or 1
            keep finite numbers; what the network puts beyond is generated as empty cells.
        blocks, hidden: of the parts (layer energies, then each layer of more than one cell), as in
            :class:`~pyrogen.ChainFlow`; so are the others.
        seed: seeds the initial weights and fixed mixings.

    Raises:
        ValueError: an argument out of range, or one that does not go with the others, with what would be right.
    """

    order: Tensor
    location: Tensor
    scale: Tensor
    energy: Tensor
    back: Tensor

    @door(
        layers=SIZES,
        threshold=NOT_NEGATIVE,
        order=optional(each(whole(0), "a permutation of the columns of each layer")),
        alpha=ALPHA,
        **SETTINGS,
    )
    def __init__(
        self,
        layers: Sequence[int],
        threshold: float,
        *,
        order: Sequence[int] | None = None,
        alpha: float = 1e-6,
        blocks: int | Sequence[int] = 4,
        hidden: Sequence[int] | Sequence[Sequence[int]] = (64, 64),
        transform: str = "rqs",
        mixing: str | None = "random",
        bins: int = 6,
        bound: float = 5.0,
        clamp: float = 2.0,
        activation: str = "relu",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.features, self.context, self.layers = sum(layers), 1, tuple(layers)
        self.threshold, self.alpha = threshold, alpha
        columns = list(range(self.features)) if order is None else list(order)
        fits = len(columns) == self.features
        for end, size in zip(itertools.accumulate(layers), layers, strict=True):
            fits = fits and sorted(columns[end - size : end]) == list(range(end - size, end))
        require(fits, "order", order, f"a permutation of the columns of each layer, {self.features} in all")
        sizes = [len(layers), *(size - 1 for size in layers if size > 1)]
        options: dict[str, Any] = {
            "transform": transform,
            "mixing": mixing,
            "bins": bins,
            "bound": float(bound),
            "clamp": float(clamp),
            "activation": activation,
            "seed": seed,
        }
        self.chain = ChainFlow(sizes, blocks=blocks, hidden=hidden, context=1, dtype=dtype, **options)
        self.config: dict[str, Any] = {
            "layers": list(layers),
            "threshold": threshold,
            "order": columns,
            "alpha": alpha,
            "blocks": self.chain.config["blocks"],
            "hidden": self.chain.config["hidden"],
            **options,
            "dtype": str(dtype).removeprefix("torch."),
        }
        self.register_buffer("order", torch.tensor(columns, dtype=torch.long), persistent=False)
        self.register_buffer("back", torch.tensor(columns).argsort(), persistent=False)
        self.register_buffer("location", torch.zeros(self.features))
        self.register_buffer("scale", torch.ones(self.features))
        self.register_buffer("energy", torch.tensor([0.0, 1.0]))  # mean and width of log E_inc
        self.to(dtype)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of showers with noise in their empty cells.

        Args:
            x: energies of the cells ``[..., features]`` in GeV, all positive.
            context: incident energies ``[..., 1]`` in GeV.

        Returns:
            ``[...]`` in nats, per GeV of each cell; -inf for showers with a cell that is not positive.
        """
        u, log_jacobian, fits = self._inner(x, context)
        log_prob = self.chain.log_prob(u, self._seen(context)) + log_jacobian
        return torch.where(fits, log_prob, -math.inf)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` showers ``[n, features]`` in GeV through torch's global random state; ``context [n, 1]`` in GeV."""
        n = whole_number("n", n, 0)
        check_memory("n", n, 16.0 * n * self.features, "generate fewer showers at a time")
        return self._events(self._latent(n, next(self.parameters())), context)

    def _latent(self, n: int, like: Tensor) -> Tensor:
        return self.chain._latent(n, like)

    def _events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        context = check_inputs(z, context, self.features, 1)
        return self._outer(self.chain._events(z, self._seen(context)), context)

    def _seen(self, context: Tensor | None) -> Tensor:
        """What the networks see of incident energies ``[..., 1]``."""
        assert context is not None
        return (context.clamp(min=torch.finfo(context.dtype).tiny).log() - self.energy[0]) / self.energy[1]

    def _inner(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers ``[..., features]`` of the chain, log|du / dx| ``[...]``, and whether there is a density."""
        u, log_jacobian, fits = self._broken(x, context)
        return (u - self.location) / self.scale, log_jacobian - self.scale.log().sum(), fits

    def _broken(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`_inner`, before all are brought to mean 0 and width 1."""
        context = check_inputs(x, context, self.features, 1)
        assert context is not None
        fits = (x > 0).all(-1) & (context[..., 0] > 0)
        x, incident = torch.where(fits.unsqueeze(-1), x, 1.0), torch.where(fits, context[..., 0], 1.0)
        sticks = [to_sticks(cells, self.alpha) for cells in x[..., self.order].split(self.layers, -1)]
        total, splits, log_jacobian = to_sticks(torch.stack([layer for layer, _, _ in sticks], -1), self.alpha)
        u = torch.cat([(total / incident).log().unsqueeze(-1), splits, *(shares for _, shares, _ in sticks)], -1)
        return u, log_jacobian + sum(slope for _, _, slope in sticks) - total.log(), fits

    def _outer(self, u: Tensor, context: Tensor | None) -> Tensor:
        """Showers ``[..., features]`` in GeV of the numbers of the chain."""
        assert context is not None
        u, count = u * self.scale + self.location, len(self.layers)
        energies = from_sticks(context[..., 0] * u[..., 0].exp(), u[..., 1:count], self.alpha)
        shares = u[..., count:].split([size - 1 for size in self.layers], -1)
        cells = [from_sticks(energies[..., i], its, self.alpha) for i, its in enumerate(shares)]
        return torch.cat(cells, -1)[..., self.back]

    @property
    def is_centred(self) -> bool:
        """Whether its constants are set."""
        return bool((self.scale != 1).any())

    @torch.no_grad()
    def _centre_like(self, other: ShowerFlow) -> None:
        """Take the constants of another flow of this architecture."""
        for name, buffer in self.named_buffers(recurse=False):
            buffer.copy_(getattr(other, name))

    @door(x=TENSOR, context=TENSOR, weights=optional(TENSOR))
    @torch.no_grad()
    def centre_on(self, x: Tensor, context: Tensor, weights: Tensor | None = None) -> None:
        """Set the constants that bring all numbers to mean 0 and width 1, unless that was done before.

        Args:
            x: showers ``[N, features]`` in GeV, with noise in their empty cells.
            context: incident energies ``[N, 1]`` in GeV.
            weights: ``[N]``, which count by their absolute value.

        Raises:
            ValueError: other shapes, or showers without a density.
        """
        if self.is_centred:
            return
        found, incident = [], []
        for rows in torch.arange(len(x), device=x.device).split(10_000):
            u, _, fits = self._broken(x[rows].double(), context[rows].double())
            require(bool(fits.all()), "x", x, "positive energies of cells, and context positive incident energies")
            found.append(u)
            incident.append(context[rows].double().log())
        sizes = torch.ones(len(x)).double() if weights is None else weights.double().abs()
        for values, mean, width in (
            (torch.cat(found), self.location, self.scale),
            (torch.cat(incident), self.energy[:1], self.energy[1:]),
        ):
            shares = (sizes / sizes.sum()).to(values).unsqueeze(-1)
            centre = (shares * values).sum(0)
            spread = (shares * (values - centre).square()).sum(0).sqrt()
            mean.copy_(centre)
            width.copy_(torch.where(spread > 1e-6, spread, 1.0))  # all of one incident energy

    def _summary(self) -> str:
        return f"{self.extra_repr()}, weights={sum(p.numel() for p in self.parameters()):,}"

    def extra_repr(self) -> str:
        return f"cells={list(self.layers)}, threshold={self.threshold:g} GeV, alpha={self.alpha:g}"
