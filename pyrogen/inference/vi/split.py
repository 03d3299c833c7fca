"""How many events a training holds out."""

from __future__ import annotations

from pyrogen.inference.vi.settings import SVISettings


def held_out_events(settings: SVISettings, n: int) -> int:
    """Number of validation events among ``n``.

    Raises:
        ValueError: none of the events, or all of them.
    """
    held_out = round(settings.validation * n)
    if settings.validation > 0 and held_out == 0:
        raise ValueError(f"validation is {settings.validation}: of {n} events that holds out none; give a larger one")
    if held_out == n:
        raise ValueError(f"validation is {settings.validation}: of {n} events that leaves none for the training")
    return held_out
