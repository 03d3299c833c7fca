"""Generated events that rounding took to where the network that made them has no density."""

from __future__ import annotations

from pyrogen.warn import warn

ROUNDED = 1e-4  # of the events: more are not lost by rounding


def tell_without_density(lost: int, n: int, instead: str) -> None:
    """Warn of the few events that have no density by rounding; ``instead`` says what is done with them.

    Raises:
        ValueError: more than rounding can explain, which one event always is not.
    """
    if lost > 1 + ROUNDED * n:
        raise ValueError(
            f"{lost:,} of {n:,} generated events have no density by the networks that made them: the inverse of the "
            "flow, or of the preprocessing, does not undo it"
        )
    if lost:
        warn(
            f"{lost:,} of {n:,} generated events have no density by the networks that made them, as numbers are "
            f"rounded; {instead}"
        )
