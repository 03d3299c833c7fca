"""How well a few draws know their own spread."""

from __future__ import annotations

from torch import Tensor


def sigma_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of K draws, and its error by the jackknife (Efron and Stein 1981).

    Args:
        values: independent draws ``[K, ...]``, K at least 3.

    Returns:
        Both ``[...]``, in float64. Of Gaussian draws the error is close to ``sigma / sqrt(2 (K - 1))``.

    Raises:
        ValueError: fewer than 3 draws.
    """
    k = len(values)
    if k < 3:
        raise ValueError(f"values holds {k} draws; an error on their standard deviation needs 3 or more")
    deviations = (values.double() - values.double().mean(0)).square()
    # Without draw k the sum of squares about the new mean is smaller by K / (K - 1) times its own square.
    others = ((deviations.sum(0) - k / (k - 1) * deviations) / (k - 2)).clamp(min=0).sqrt()
    error = ((k - 1) / k * (others - others.mean(0)).square().sum(0)).sqrt()
    return (deviations.sum(0) / (k - 1)).sqrt(), error
