"""How many rows are worked on at once: events, or events times weight draws, chains, networks or vectors.

:func:`rows_at_once` decides it for the whole package. On a CPU a chunk of a few thousand rows is fastest, since its
arrays stay in the cache; each caller states its number. On a card a chunk should be large, since every operation
costs a launch. There two things bound the number of rows: more than some number gains nothing, and a chunk takes at
most half of the free memory. The number is a power of two there, so that small changes of the free memory seldom change
it, and with it the last bits of sums.

Set the environment variable ``PYROGEN_MEMORY_GB`` to bound the memory of a chunk, on either device: ``0.5`` is half a
gigabyte. The bound counts the arrays of a chunk alone, neither events nor results.

Where a card runs out of memory all the same, :func:`in_chunks` goes on with half the rows. Chunks never decide random
numbers: parts of a random stream have fixed sizes on every device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

BOUND = "PYROGEN_MEMORY_GB"  #: environment variable: gigabytes that a chunk may take
SHARE = 0.5  #: part of a card's free memory that a chunk may take
CPU_ROWS = 4096  #: events of a prediction that a CPU evaluates fastest
CARD_ROWS = 1 << 22  #: rows of a chunk on a card; more gain nothing

Result = TypeVar("Result")


def rows_at_once(device: torch.device | str, row_bytes: float, cpu: int = CPU_ROWS, card: int = CARD_ROWS) -> int:
    """Number of rows of a chunk, at least 1.

    Args:
        device: where the work is done.
        row_bytes: memory that a row takes at the peak, such as :func:`row_bytes` estimates.
        cpu: the number of rows that is fastest on a CPU.
        card: the largest number of rows on any other device.

    Raises:
        ValueError: ``PYROGEN_MEMORY_GB`` is set, but is no positive number.
    """
    device, bound = torch.device(device), _bound()
    if device.type == "cpu":
        rows = cpu if bound == math.inf else min(cpu, int(bound / row_bytes))
    else:
        rows = min(card, int(min(bound, SHARE * free_bytes(device)) / row_bytes))
        rows = 1 << max(0, rows.bit_length() - 1)
    return max(1, rows)


def row_bytes(shapes: Sequence[Sequence[int]], dtype: torch.dtype, gradient: bool = False) -> float:
    """Estimate of the memory in bytes that one event of one network takes, from the shapes of its parameters.

    Every weight matrix ``[out, in]`` stands for ``out`` numbers of an event. A gradient holds those of all layers,
    several times, for the transforms compute with them. A prediction holds those of the widest layer.

    Args:
        shapes: of the parameters.
        dtype: of the numbers.
        gradient: whether all is held for a backward pass.
    """
    outputs = [shape[0] for shape in shapes if len(shape) > 1] or [1]
    numbers = 8 * sum(outputs) if gradient else 16 * max(outputs)
    return float(numbers * dtype.itemsize)


def free_bytes(device: torch.device) -> float:
    """Memory in bytes that torch can still take on a device; infinite where the device does not tell."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(free + unused)


def in_chunks(work: Callable[[slice], Result], n: int, rows: int) -> Iterator[tuple[slice, Result]]:
    """Do ``work`` on the rows 0 to n - 1, ``rows`` at a time, and on half as many from there on where memory runs out.

    Args:
        work: takes a slice of the rows. It must be possible to do it once more after it failed.
        n: number of all rows.
        rows: number of rows of a chunk.

    Yields:
        Each slice and its result.

    Raises:
        torch.OutOfMemoryError: one row alone takes more memory than there is.
    """
    start = 0
    while start < n:
        part = slice(start, min(start + rows, n))
        try:
            result = work(part)
        except torch.OutOfMemoryError:
            if part.stop - start == 1:
                raise
            rows = (part.stop - start + 1) // 2
        else:
            yield part, result
            start = part.stop
            continue
        # Outside of the except block, whose traceback holds the arrays of the failed chunk.
        torch.cuda.empty_cache()


def _bound() -> float:
    """The user's bound in bytes; infinite where there is none."""
    text = os.environ.get(BOUND)
    if not text:
        return math.inf
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        raise ValueError(f"the environment variable {BOUND} is {text!r}; it must be a positive number of gigabytes")
    return gigabytes * 1e9
