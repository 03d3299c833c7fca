"""Shares of a whole as numbers on the line: a stick that is broken piece by piece.

Parts ``y_1, ..., y_n`` of a total have the rests ``R_j = y_j + ... + y_n``. Each share ``v_j = y_j / R_j`` of what is
left becomes ``u_j = logit(alpha + (1 - 2 alpha) v_j)``, as in arXiv:2106.05285 eq. 4. The map from the parts to
``(R_1, u_1, ..., u_(n-1))`` is one to one, so that a density of u is one of y.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def to_sticks(parts: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Total ``[...]``, ``u [..., n - 1]`` and log|d(total, u) / d parts| ``[...]`` of positive ``parts [..., n]``."""
    rest = parts.flip(-1).cumsum(-1).flip(-1)
    here = rest[..., :-1]
    # Share and complement each from their own ratio: neither is a difference of numbers near one.
    share = alpha + (1 - 2 * alpha) * parts[..., :-1] / here
    other = alpha + (1 - 2 * alpha) * rest[..., 1:] / here
    log_share, log_other = share.log(), other.log()
    slopes = math.log1p(-2 * alpha) - log_share - log_other - here.log()
    return rest[..., 0], log_share - log_other, slopes.sum(-1)


def from_sticks(total: Tensor, u: Tensor, alpha: float) -> Tensor:
    """The parts ``[..., n]`` of totals ``[...]`` and ``u [..., n - 1]``.

    Beyond logit(alpha) a share is zero, and beyond logit(1 - alpha) the rest is.
    """
    share, other = (((torch.sigmoid(x) - alpha) / (1 - 2 * alpha)).clamp(0, 1) for x in (u, -u))
    one = torch.ones_like(total).unsqueeze(-1)
    rest = total.unsqueeze(-1) * torch.cat([one, other.cumprod(-1)], -1)
    return torch.cat([rest[..., :-1] * share, rest[..., -1:]], -1)
