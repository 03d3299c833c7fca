"""Random numbers: independent streams that belong to one seed, and blocks that leave the global state alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def stream(seed: int, *name: int) -> int:
    """The seed of one of the independent streams of random numbers that belong to ``seed``.

    A name of several numbers must not end in zero: its sequence would be that of the shorter name.
    """
    return int(np.random.SeedSequence([seed, *name]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def untouched(device: torch.device | str = "cpu") -> Iterator[None]:
    """A block after which the global random states of the CPU and of ``device`` are as they were before it."""
    device = torch.device(device)
    if device.type == "cpu":
        fork = torch.random.fork_rng(devices=[])
    else:
        fork = torch.random.fork_rng(devices=[device], device_type=device.type)
    with fork:
        yield


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """A block on a random state of its own, seeded by ``seed``; afterwards the global states are as before."""
    with untouched(device):
        torch.manual_seed(seed)
        yield
