"""Mode collapse, as far as it can be seen: training events with no generated event near them."""

from __future__ import annotations

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
    true, generated = true[:LARGEST], generated[:LARGEST]
    radius = torch.cdist(true, true).kthvalue(min(NEIGHBOURS + 1, len(true)), 1).values  # itself is the first
    return float((torch.cdist(true, generated).amin(1) <= radius).double().mean())


def uncovered(share: float, which: str) -> tuple[Finding, ...]:
    """A finding where the coverage is low; ``which`` names the sample."""
    if share >= LEAST:
        return ()
    return (
        Finding(
            "mode collapse",
            f"{which}{1 - share:.0%} of the training events have no generated event among their {NEIGHBOURS} nearest "
            "neighbours; about 3% are expected",
            "Train longer, with a smaller lr, or with another seed",
        ),
    )
