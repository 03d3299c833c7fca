"""Log weights of a posterior's networks, which mean something together only where the networks are the same."""

from __future__ import annotations

from typing import Any

GENERATOR = "pyrogen posterior"
"""What the provenance of events calls a posterior that made them."""


def check_same_networks(mine: dict[str, Any], others: dict[str, Any], what: str, this: str) -> None:
    """Raise a ValueError where log weights are told to be those of different weight draws."""
    for name in ("seed", "draws", "backend", "training_data_sha256"):
        if mine.get("generator") == others.get("generator") == GENERATOR and mine.get(name) != others.get(name):
            raise ValueError(
                f"{what} has log weights of other networks than {this}: its provenance has {name} "
                f"{others.get(name)!r}, that of {this} {mine.get(name)!r}; generate all with one posterior, seed and "
                "number of draws (generate_to makes any number of events), or leave the log weights out"
            )
