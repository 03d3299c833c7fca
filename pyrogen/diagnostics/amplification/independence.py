"""Whether generators are those of independent trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_independent(name: str, generators: Sequence[Any]) -> None:
    """Raise a ValueError where a generator is given twice, or two of them learned the same events.

    Posteriors, GANs and references know the digest of their training events; of others nothing is known.

    Args:
        name: of the argument that holds the generators.
        generators: of R trainings.
    """
    digests = [getattr(getattr(one, "info", one), "data_sha256", None) for one in generators]
    for what, keys in (("is", list(map(id, generators))), ("was trained on the events of", digests)):
        for r, key in enumerate(keys):
            if key is not None and key in keys[:r]:
                raise ValueError(f"{name}[{r}] {what} {name}[{keys.index(key)}]; give trainings on independent samples")
