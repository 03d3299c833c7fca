"""Random numbers: independent streams that belong to one seed, and blocks that leave the global state alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator

import numpy as np
import torch

from .warn import warn

PATIENCE = 5.0  #: seconds that a thread waits for another one before it says so
_ONE_THREAD = threading.RLock()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A block for one thread at a time: torch has one random state for all of them, and Pyro one parameter store.

    Where a thread has to wait for long, it says for what.
    """
    if not _ONE_THREAD.acquire(timeout=PATIENCE):
        warn(
            "this thread waits for another thread that fits or generates with pyrogen: both need torch's random state, "
            "which is one for all threads. Use processes to run them at the same time"
        )
        _ONE_THREAD.acquire()
    try:
        yield
    finally:
        _ONE_THREAD.release()


def stream(seed: int, *name: int | str) -> int:
    """The seed of one of the independent streams of random numbers that belong to ``seed``.

    Streams of different seeds or names differ. Words keep apart what is run with the same seed: a diagnostic begins its
    names with a word of its own. Without a name it is the stream of the first of the seed's weight draws.
    """
    parts = [part if isinstance(part, str) else int(part) for part in (seed, *name)]
    numbers = [part for part in parts if isinstance(part, int) and 0 <= part < 1 << 32]
    if len(numbers) < len(parts) or (name and numbers[-1] == 0):
        # numpy's sequence fills short names up with zeros, cuts large numbers into several, and knows no words.
        numbers = list(hashlib.sha256(json.dumps(parts).encode()).digest())
    sequence = np.random.SeedSequence(numbers)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def untouched(device: torch.device | str = "cpu") -> Iterator[None]:
    """A block after which the global random states of the CPU and of ``device`` are as they were before it.

    One thread at a time is in such a block. In it :func:`manual_seed` takes the place of torch's, which would seed all
    other cards too.
    """
    device = torch.device(device)
    if device.type == "cpu":
        fork = torch.random.fork_rng(devices=[])
    else:
        fork = torch.random.fork_rng(devices=[device], device_type=device.type)
    with one_thread(), fork:
        yield


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """A block on a random state of its own, seeded by ``seed``; afterwards the global states are as before."""
    with untouched(device):
        manual_seed(seed, device)
        yield


def manual_seed(seed: int, device: torch.device | str) -> None:
    """Seed the global random states of the CPU and of ``device``, and of no other device.

    On the CPU the numbers are those of :func:`torch.manual_seed`, which also seeds every card there is, or, before a
    card was used, notes that it is to be seeded later.
    """
    torch.default_generator.manual_seed(seed)
    device = torch.device(device)
    if device.type != "cpu":
        module = getattr(torch, device.type)
        with module.device(device):
            module.manual_seed(seed)
