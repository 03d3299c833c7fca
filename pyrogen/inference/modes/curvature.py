"""The curvature of the log-likelihood at one network: products with vectors, the matrix, its leading directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyrogen.inference.run.potential import Potential
from pyrogen.memory import row_bytes, rows_at_once
from pyrogen.progress import Bar, bar

# What a CPU works on at once; on a card see pyrogen.memory.
SECOND_DERIVATIVES_AT_ONCE = 1024  # events whose graph of second derivatives is held
VECTORS_AT_ONCE = 16  # vectors multiplied: with the events, what bounds the memory
DERIVATIVES_AT_ONCE = 1 << 23  # largest number of per-event derivatives [rows, P] held
BLOCK = 16  # directions by which the Krylov space grows


class Curvature:
    """The likelihood's part of the potential's curvature at ``theta [P]``, in units of the prior's widths S.

    ``"hessian"``: ``-S sum_n w_n d^2 log p(x_n|theta) S``, exact, and negative along some directions where the
    potential is not convex or weights are negative. ``"fisher"``: the empirical Fisher matrix
    ``S sum_n w_n g_n g_n^T S`` with ``g_n = d log p(x_n|theta)``, which first derivatives give; the two agree for many
    events of a density that the flow can describe, and where they do not the Hessian is the curvature. The prior's
    part is the unit matrix in these units. Sums are in float64.

    Args:
        potential: the potential; event weights count as in it.
        theta: the weights ``[P]``.
        kind: ``"hessian"`` or ``"fisher"``.
        progress: show a progress bar.
    """

    def __init__(self, potential: Potential, theta: Tensor, kind: str, progress: bool = False) -> None:
        self.potential, self.theta, self.kind, self.progress = potential, theta.detach(), kind, progress
        self.scale = potential.prior_scale
        model, few = potential.model, SECOND_DERIVATIVES_AT_ONCE
        self._row_bytes = row_bytes(model.packing.shapes, model.dtype, gradient=True)
        both = rows_at_once(self.scale.device, 2 * self._row_bytes, cpu=few * VECTORS_AT_ONCE)
        self.events_at_once = max(1, min(both // VECTORS_AT_ONCE, max(potential.size, few)))
        self.vectors_at_once = both // self.events_at_once

    def products(self, vectors: Tensor) -> Tensor:
        """The curvature times vectors ``[K, P]``, in float64."""
        with self._bar(self.potential.size * len(vectors)) as shown:
            return self._products(vectors, shown)

    def _products(self, vectors: Tensor, shown: Bar[Any]) -> Tensor:
        scaled = vectors.to(self.scale) * self.scale
        result = torch.zeros_like(scaled, dtype=torch.float64)
        if self.kind == "fisher":
            for gradients, weights in self._gradients():
                result += (weights * (scaled.double() @ gradients.T)) @ gradients
                shown.update(len(gradients) * len(vectors))
            return result * self.scale
        for start in range(0, self.potential.size, self.events_at_once):
            leaf = self.theta.clone().requires_grad_()
            rows = self.potential._rows(slice(start, start + self.events_at_once))
            gradient = torch.autograd.grad(self.potential._one(leaf, *rows), leaf, create_graph=True)[0]
            for k in range(0, len(scaled), self.vectors_at_once):
                some = slice(k, k + self.vectors_at_once)
                result[some] += self._directional(gradient, leaf, scaled[some])
                shown.update(len(rows[0]) * len(scaled[some]))
        return result * self.scale

    def _directional(self, gradient: Tensor, leaf: Tensor, vectors: Tensor) -> Tensor:
        if self.potential.batched:
            return torch.autograd.grad(gradient, leaf, vectors, retain_graph=True, is_grads_batched=True)[0]
        return torch.stack([torch.autograd.grad(gradient, leaf, v, retain_graph=True)[0] for v in vectors])

    def _gradients(self) -> Any:
        """Yields ``d log p(x_n|theta)`` ``[M, P]`` and weights ``[M]`` of the events chunk by chunk, in float64."""
        potential = self.potential

        def one(theta: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
            return potential.model.log_prob(theta, x[None], None if context is None else context[None])[0]

        size = len(self.theta)
        on_cpu = max(1, min(SECOND_DERIVATIVES_AT_ONCE, DERIVATIVES_AT_ONCE // size))
        step = rows_at_once(self.scale.device, self._row_bytes + 24 * size, cpu=on_cpu)
        for start in range(0, potential.size, step):
            events, weights, context = potential._rows(slice(start, start + step))
            if potential.batched:
                dims = (None, 0, None if context is None else 0)
                gradients = torch.func.vmap(torch.func.grad(one), in_dims=dims)(self.theta, events, context)
            else:
                leaf = self.theta.clone().requires_grad_()
                contexts = [None] * len(events) if context is None else context
                rows = [torch.autograd.grad(one(leaf, x, c), leaf)[0] for x, c in zip(events, contexts, strict=True)]
                gradients = torch.stack(rows)
            gradients = gradients.double()
            yield gradients, gradients.new_ones(len(events)) if weights is None else weights.double()

    def matrix(self) -> Tensor:
        """The whole matrix ``[P, P]``, in float64."""
        size = len(self.theta)
        if self.kind == "hessian":
            matrix = self.products(torch.eye(size, dtype=self.scale.dtype, device=self.scale.device))
            return (matrix + matrix.T) / 2
        matrix = torch.zeros(size, size, dtype=torch.float64, device=self.scale.device)
        with self._bar(self.potential.size) as shown:
            for gradients, weights in self._gradients():
                matrix += (weights * gradients.T) @ gradients
                shown.update(len(gradients))
        return self.scale * matrix * self.scale[:, None]

    def diagonal(self) -> Tensor:
        """The diagonal ``[P]``, in float64; of the Hessian it takes as long as the matrix, but not its memory."""
        size = len(self.theta)
        diagonal = torch.zeros(size, dtype=torch.float64, device=self.scale.device)
        if self.kind == "hessian":
            with self._bar(self.potential.size * size) as shown:
                for k in range(0, size, self.vectors_at_once):
                    rows = torch.arange(k, min(k + self.vectors_at_once, size), device=self.scale.device)
                    units = torch.zeros(len(rows), size, dtype=self.scale.dtype, device=self.scale.device)
                    units[rows - k, rows] = 1
                    diagonal[rows] = (self._products(units, shown) * units).sum(1)
            return diagonal
        with self._bar(self.potential.size) as shown:
            for gradients, weights in self._gradients():
                diagonal += weights @ gradients.square()
                shown.update(len(gradients))
        return diagonal * self.scale.double().square()

    def leading(self, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Approximate eigenpairs by the Rayleigh-Ritz method in a block Krylov space (Musco and Musco,
        arXiv:1504.05477), from ``2 rank + 32`` products with vectors (at most P, and then they are exact).

        Args:
            rank: number of eigenpairs wanted; at most P are there.
            generator: draws the first block.

        Returns:
            Ritz values ``[m]`` of the whole space in falling order, the vectors ``[P, rank]`` of the first of them,
            and the norms ``[rank]`` of what the curvature times each vector differs from its multiple; in float64.
        """
        size = len(self.theta)
        wanted = min(size, 2 * rank + 2 * BLOCK)
        basis = torch.zeros(size, 0, dtype=torch.float64, device=self.scale.device)
        images = basis
        block = torch.randn(size, BLOCK, dtype=torch.float64, generator=generator, device=generator.device)
        with self._bar(self.potential.size * wanted) as shown:
            while basis.shape[1] < wanted:
                known = basis.shape[1]
                basis = _extended(basis, block[:, : wanted - known], generator)
                block = self._products(basis[:, known:].T, shown).T
                images = torch.cat([images, block], 1)
        projected = basis.T @ images
        values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)[:, : min(rank, size)]
        ritz = basis @ vectors
        residuals = (images @ vectors - ritz * values[: ritz.shape[1]]).norm(dim=0)
        return values, ritz, residuals

    def _bar(self, total: int) -> Bar[Any]:
        return bar(total, f"curvature ({self.kind})", "event", show=self.progress, scaled=True)


def _extended(basis: Tensor, block: Tensor, generator: torch.Generator) -> Tensor:
    """The orthonormal basis ``[P, m]`` with the columns of ``block [P, b]`` made orthonormal to it.

    A column that lies in the space already (eigenvalues may be degenerate) gives way to a random one.
    """
    for column in block.T:
        length = column.norm()
        for _ in range(2):  # once leaves rounding errors of the length of what it takes away
            column = column - basis @ (basis.T @ column)
        while not column.norm() > 1e-8 * length:
            column = torch.randn(len(column), dtype=column.dtype, generator=generator, device=generator.device)
            length = column.norm()
            for _ in range(2):
                column = column - basis @ (basis.T @ column)
        basis = torch.cat([basis, (column / column.norm())[:, None]], 1)
    return basis
