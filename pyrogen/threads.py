"""On how many CPU threads fits and predictions compute: on one, unless the user chooses another number.

By itself torch takes as many threads as there are cores. They wait for each other after every operation of a network,
and an operation of a small network takes microseconds. If another process uses one of the cores, it delays one thread,
and all others wait for that one. ``benchmarks/threads.py`` prints what that costs.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator
from typing import ParamSpec, TypeVar, cast

import torch

from pyrogen.checks import door, optional, require, whole

P = ParamSpec("P")
T = TypeVar("T")

MOST = 1024  #: threads; a larger number is a mistake
#: Environment variables from which torch takes its number when it starts, set by users and by batch systems.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_from_environment = any(os.environ.get(name) for name in VARIABLES)
_torchs_own = torch.get_num_threads()
_chosen: int | None = None


@door(threads=optional(whole(1)))
def set_threads(threads: int | None) -> None:
    """Choose the number of CPU threads of torch in this process, for pyrogen too.

    Fits and predictions compute on one thread, unless another number is chosen: by this function, by
    ``torch.set_num_threads`` with a number other than the one that torch took by itself, or by ``OMP_NUM_THREADS`` or
    ``MKL_NUM_THREADS`` in the environment. On one thread the same seed gives the same bits. More threads may pay
    for large networks and batches where no other process uses the cores.

    Args:
        threads: their number, at most 1024; None: torch's own number, and one in fits and predictions.

    Raises:
        ValueError: a number out of range.
    """
    global _chosen
    require(threads is None or threads <= MOST, "threads", threads, f"at most {MOST}")
    torch.set_num_threads(_torchs_own if threads is None else threads)
    _chosen = threads


def _is_chosen(threads: int) -> bool:
    return _from_environment or threads != _torchs_own or threads == _chosen


@contextlib.contextmanager
def chosen_threads() -> Iterator[None]:
    """A block on the threads that the user chose, else on one; also a decorator. Afterwards torch has its own again.

    The number belongs to each Python thread. A new one takes over the last that was set anywhere in the process.
    """
    threads = torch.get_num_threads()
    if threads == 1 or _is_chosen(threads):
        yield
        return
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def parts_on_chosen_threads(function: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """Let a generator compute each of its parts as in :func:`chosen_threads`; between them its user has all threads."""

    @functools.wraps(function)
    def parts(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        found, end = cast(Generator[T, None, None], function(*args, **kwargs)), object()
        with contextlib.closing(found):
            while True:
                with chosen_threads():
                    part = next(found, end)
                if part is end:
                    return
                yield part  # type: ignore[misc]

    return parts
