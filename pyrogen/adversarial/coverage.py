"""Mode collapse, as far as it can be seen: training events with no generated event near them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrogen.posterior.info import Finding

NEIGHBOURS = 5  # the radius around a training event that as many others of them have
LEAST = 0.8  # coverage; 1 - 2^-NEIGHBOURS = 0.97 is that of the truth
LARGEST = 2000  # events of each kind that are compared


def coverage(true: Tensor, generated: Tensor) -> float:
    """Fraction of the true events ``[N, d]`` with a generated one ``[N, d]`` nearer than their fifth true neighbour.

    This is the coverage of arXiv:2002.09797, eq. 9. Where both follow one density it is ``1 - 2^-5 = 0.97``.
    """
    true, generated = true[:LARGEST].double(), generated[:LARGEST].double()
    exact = "donot_use_mm_for_euclid_dist"  # products of matrices lose the distances of near events
    own = torch.cdist(true, true, compute_mode=exact)
    radius = own.kthvalue(min(NEIGHBOURS + 1, len(true)), 1).values  # itself is the first
    return float((torch.cdist(true, generated, compute_mode=exact).amin(1) <= radius).double().mean())


def collapse(shares: Sequence[float]) -> tuple[Finding, ...]:
    """A finding where the coverage of a sample, or of some among several, is low."""
    low = [r for r, share in enumerate(shares) if share < LEAST]
    if not low:
        return ()
    worst = min(low, key=lambda r: shares[r])
    which = f"{len(low)} of {len(shares)} samples; in the worst of them, sample {worst}, " if len(shares) > 1 else ""
    return (
        Finding(
            "mode collapse",
            f"{which}{1 - shares[worst]:.0%} of the training events have no generated event nearer than their "
            f"neighbour number {NEIGHBOURS}, where {2.0**-NEIGHBOURS:.0%} are expected",
            "Train longer, with a smaller lr, or with another seed",
        ),
    )
