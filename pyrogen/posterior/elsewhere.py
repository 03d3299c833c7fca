"""A posterior on the worker of an executor: it travels as its file, and makes parts of a generated file there."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pyrogen.events import EventSample
from pyrogen.events.manifest import sha256_of
from pyrogen.files import check_writable
from pyrogen.flows import is_own
from pyrogen.posterior import files
from pyrogen.posterior.generation import finished, generate_sample
from pyrogen.posterior.holding import Holding
from pyrogen.posterior.predictor import Predictor


class Arrived(Holding):
    """What a worker needs of a posterior to generate events.

    Args:
        path: its file.
        flow: the flow, where it is not one of pyrogen's.
        device: where it is to predict.
        compile: whether densities are compiled.
    """

    def __init__(self, path: str, flow: nn.Module | None, device: str, compile: bool) -> None:
        model, weights, _, info, *_ = files.read(path, flow)
        self.predictor = Predictor(model.to(torch.device(device)), weights, None, False)
        self.info = info
        self.compile = compile


def flow_to_send(flow: nn.Module) -> nn.Module | None:
    """A flow that the file of a posterior cannot hold, which the engine has to carry; None for pyrogen's own."""
    return None if is_own(flow) else flow


@functools.lru_cache(maxsize=1)
def _arrived(path: str, written: int, flow: nn.Module | None, device: str, compile: bool) -> Arrived:
    return Arrived(path, flow, device, compile)


def make_part(
    source: str,
    flow: nn.Module | None,
    device: str,
    compile: bool,
    path: str,
    part: int,
    first: int,
    n: int,
    draws: int,
    conditions: np.ndarray | None,
    seed: int,
    log_weights: bool,
    finish: Callable[[EventSample], EventSample] | None,
) -> tuple[int, str]:
    """Make one part of a generated file, on a worker.

    Args:
        source: file of the posterior, which the worker must see.
        flow: its flow, where it is not one of pyrogen's.
        device: where to generate.
        compile: whether densities are compiled.
        path: file of the part, in a folder which the worker must see.
        part: its number.
        first: events in the parts before.
        n: its events.
        draws: number of weight draws.
        conditions: of its events, ``[n, k]``.
        seed: of the whole run.
        log_weights: keep those of all draws.
        finish: what is done with the events before they are written.

    Returns:
        Number of events in the part, and the SHA-256 of its file.

    Raises:
        FileNotFoundError: the worker does not see the folder.
    """
    if not os.path.exists(source):
        raise FileNotFoundError(
            f"the worker does not see {source}; the file of the events has to be in a folder that all workers see"
        )
    posterior = _arrived(source, os.stat(source).st_mtime_ns, flow, device, compile)
    given = None if conditions is None else torch.from_numpy(conditions)
    predictor = posterior.predictor
    sample = finished(
        generate_sample(predictor, posterior.info, n, draws, given, seed, log_weights, part, first), finish
    )
    check_writable(path)  # which removes what a killed worker left
    sample.save(path)
    return len(sample), sha256_of(Path(path))
