"""The chains, replicas or members of one backend shared out among several runs: on an executor, or by torchrun."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

import torch

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import door, instance, optional, require, whole
from pyrogen.events import EventsLike
from pyrogen.executors import EXECUTOR, PartsError
from pyrogen.inference.backend import MODEL, Backend
from pyrogen.inference.merging import merged
from pyrogen.inference.run.apart import fit_all, packed, unpacked
from pyrogen.posterior.elsewhere import flow_to_send
from pyrogen.posterior.posterior import Posterior
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

B = TypeVar("B", bound=Backend)

BACKEND = instance(Backend, "a backend, such as pg.HMC()")
PATIENCE = datetime.timedelta(days=30)  # that a process waits for the others


@door(backend=BACKEND, index=whole(0), shards=whole(1))
def shard(backend: B, index: int, shards: int) -> B:
    """The settings of one of several runs that share the chains, replicas or members of a backend.

    Each run has a seed and a checkpoint of its own. :func:`pyrogen.merge` makes one posterior of their results.

    Args:
        backend: a sampler, ``pg.Bootstrap`` or ``pg.Ensemble``.
        index: number of the run, from 0.
        shards: how many runs there are.

    Raises:
        ValueError: a backend without chains or networks that are independent of each other, an index out of range, or
            fewer chains or networks than the runs need.
    """
    require(index < shards, "index", index, f"less than shards, which is {shards}")
    if backend.countable is None:
        raise ValueError(
            f"backend is pg.{type(backend).__name__}, one training, which cannot be shared out; take a sampler, "
            "pg.Bootstrap or pg.Ensemble, or train on several samples by fit_many(executor=...)"
        )
    name, least = backend.countable
    count = getattr(backend, name)
    each = f", {least} for each of the {shards} shards" if least > 1 else f", as there are {shards} shards"
    require(count >= least * shards, name, count, f"at least {least * shards}{each}")
    own = count * (index + 1) // shards - count * index // shards
    seed = stream(backend.seed, "shard", index) % 2**31
    changes: dict[str, Any] = {name: own, "seed": seed, "checkpoint": backend._own_checkpoint(f"shard{index}")}
    return replace(backend, **changes)


@door(backend=BACKEND, model=MODEL, shards=whole(1), executor=optional(EXECUTOR))
@chosen_threads()
def fit_shards(
    backend: Backend,
    model: BayesianFlow,
    events: EventsLike,
    weights: Any = None,
    context: Any = None,
    *,
    shards: int,
    executor: Any = None,
) -> Posterior:
    """Fit a sampler, ``pg.Bootstrap`` or ``pg.Ensemble`` in several runs that share its chains or networks.

    Each run (shard) has a seed of its own, and :func:`pyrogen.merge` makes one posterior of all. The number of shards
    decides the bits of the result, and the executor and its workers do not. The bits differ from those of
    ``backend.fit``, in which all chains share their random numbers and the lengths of their steps.

    Args:
        backend: the settings, for all chains or networks together.
        model: the Bayesian flow; it is copied.
        events: as in :meth:`~pyrogen.inference.Backend.fit`.
        weights: likewise.
        context: likewise.
        shards: number of runs. Of ``pg.Bootstrap`` each has 3 replicas or more, of the others 1 chain or member.
        executor: where they run, as in :meth:`~pyrogen.inference.Backend.fit_many`. None: here, one after another.

    Raises:
        ValueError: as :func:`shard` and :meth:`~pyrogen.inference.Backend.fit`.
        PartsError: runs failed on the executor; those that ended are in their checkpoints, if there are any.
    """
    own = [replace(shard(backend, i, shards), progress=False) for i in range(shards)]
    model, _ = backend.checked(model, events, weights, context)
    start, found = model.initial_theta.clone(), dict[int, Posterior]()
    runs = [(f"shard {i}", one, start, events, weights, context) for i, one in enumerate(own)]
    fit_all(runs, model, found.__setitem__, executor, what="shard", progress=backend.progress)
    return _together(found, backend, tell=True)


@door(backend=BACKEND, model=MODEL, shards=optional(whole(1)))
@chosen_threads()
def fit_distributed(
    backend: Backend,
    model: BayesianFlow,
    events: EventsLike,
    weights: Any = None,
    context: Any = None,
    *,
    shards: int | None = None,
) -> Posterior:
    """:func:`fit_shards` in all processes that ``torchrun`` started: each has its share of the runs.

    Every process calls it with the same arguments, and gets the posterior of all, with R-hat over the chains of all
    processes. With ``device="cuda"`` each process takes the card of its ``LOCAL_RANK``. The processes speak by gloo,
    and only at the end; they keep all draws in memory. Without torchrun there is one process, and it makes all runs.

    Args:
        backend: the settings, for all chains or networks together.
        model: the Bayesian flow, the same in all processes: seed torch before it is made.
        events: as in :meth:`~pyrogen.inference.Backend.fit`, the same in all processes.
        weights: likewise.
        context: likewise.
        shards: number of runs; None: as many as there are processes. The same number gives the same bits on any number
            of processes.

    Raises:
        ValueError: as :func:`fit_shards`, and posteriors of different models or events.
        PartsError: a run failed in one of the processes; every process says in which.
    """
    with _processes() as (rank, processes, group):
        count = shards or processes
        one_of_many = processes > 1 and backend.device == "cuda"
        device = f"cuda:{os.environ.get('LOCAL_RANK', rank)}" if one_of_many else backend.device
        mine: dict[int, bytes] = {}
        wrong: str | None = None
        flow = flow_to_send(model.flow)
        try:
            prepared, _ = replace(backend, device=device).checked(model, events, weights, context)
            for i in range(rank, count, processes):
                own = replace(shard(backend, i, count), device=device, progress=backend.progress and rank == 0)
                mine[i] = packed(own.fit(prepared, events, weights, context))
        except Exception as error:  # the other processes wait for this one
            if processes == 1:
                raise
            wrong = f"{type(error).__name__}: {error}"
        outcomes: list[Any] = [(mine, wrong)]
        if processes > 1:
            outcomes = [None] * processes
            torch.distributed.all_gather_object(outcomes, (mine, wrong), group)
        told = [f"process {r}: {its}" for r, (_, its) in enumerate(outcomes) if its is not None]
        if told:
            raise PartsError(f"{len(told)} of {processes} processes failed ({'; '.join(told)})")
        contents = {i: content for parts, _ in outcomes for i, content in parts.items()}
        found = {i: unpacked(contents[i], flow).to(device) for i in sorted(contents)}
        return _together(found, backend, tell=rank == 0)


def _together(found: dict[int, Posterior], backend: Backend, *, tell: bool) -> Posterior:
    posterior = merged([found[i] for i in sorted(found)], tell=tell)
    posterior.info = replace(posterior.info, settings=dict(posterior.info.settings) | {"seed": backend.seed})
    posterior.progress = backend.progress
    return posterior


@contextlib.contextmanager
def _processes() -> Iterator[tuple[int, int, Any]]:
    """A block in which processes can speak: the number of this one, how many there are, and their group."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        yield distributed.get_rank(), distributed.get_world_size(), group
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield distributed.get_rank(), distributed.get_world_size(), None
        finally:
            distributed.destroy_process_group()
    else:
        yield 0, 1, None
