"""Trainings that are runs of their own, one after another here, or on the workers of an executor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyrogen.bayes.model import BayesianFlow
from pyrogen.executors import run_parts
from pyrogen.files import target_of
from pyrogen.inference.run.potential import independent_starts
from pyrogen.posterior import files
from pyrogen.posterior.elsewhere import flow_to_send
from pyrogen.posterior.info import RunInfo
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import Point
from pyrogen.progress import bar
from pyrogen.seeds import stream


def packed(posterior: Posterior) -> bytes:
    """A posterior as the content of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.h5"
        posterior.save(path)
        return path.read_bytes()


def unpacked(content: bytes, flow: nn.Module | None) -> Posterior:
    """The posterior of :func:`packed`; ``flow`` is its flow, where that is not one of pyrogen's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.h5"
        path.write_bytes(content)
        model, weights, history, info, probes, snapshots = files.read(path, flow)
    posterior = Posterior(model, weights, history, info, probes=probes)
    posterior.snapshots = snapshots
    return posterior


def fit_packed(
    backend: Any, model: bytes, flow: nn.Module | None, start: np.ndarray, events: Any, weights: Any, context: Any
) -> bytes:
    """One training on a worker.

    Args:
        backend: the settings.
        model: the model, as :func:`packed`.
        flow: its flow, where that is not one of pyrogen's.
        start: the weights that the network has at first, ``[P]``.
        events: as for ``fit``.
        weights: likewise.
        context: likewise.
    """
    its = unpacked(model, flow).model
    its.initial_theta.copy_(torch.from_numpy(start))
    return packed(backend.fit(its, events, weights, context))


def fit_apart(
    backend: Any, model: BayesianFlow, samples: Any, reason: str, context: Any, executor: Any
) -> list[Posterior]:
    """A posterior for every sample, each from a run of its own.

    Args:
        backend: the settings.
        model: the model, prepared for all samples.
        samples: R samples.
        reason: why they are not one batch.
        context: their conditions, or None.
        executor: where they are trained; None: here.
    """
    starts = independent_starts(model, len(samples), stream(backend.seed, 2))
    posteriors: dict[int, Posterior] = {}

    def take(r: int, posterior: Posterior) -> None:
        told: dict[str, Any] = {"sample": r, "samples": len(samples), "batched": False, "batched_reason": reason}
        posterior.info = replace(posterior.info, **told)
        posterior.progress = backend.progress
        posteriors[r] = posterior

    runs = []
    for r, sample in enumerate(samples):
        seed, checkpoint = stream(backend.seed, r, 1) % 2**31, backend._own_checkpoint(r)
        own = replace(backend, seed=seed, progress=False, checkpoint=checkpoint)
        runs.append((f"sample {r}", own, starts[r], sample, None, None if context is None else context[r]))
    fit_all(runs, model, take, executor, what="sample", progress=backend.progress)
    return [posteriors[r] for r in range(len(samples))]


def fit_all(
    runs: Sequence[tuple[str, Any, Tensor, Any, Any, Any]],
    model: BayesianFlow,
    finished: Callable[[int, Posterior], None],
    executor: Any,
    *,
    what: str,
    progress: bool,
) -> None:
    """Train one network, or set of networks, for each of several runs.

    Args:
        runs: the name of each, its backend, the weights ``[P]`` that its network has at first, and what it is trained
            on: events, weights and context.
        model: the prepared model, whose initial weights are overwritten.
        finished: called with the number and the posterior of each run, in their order.
        executor: where they run; None: here.
        what: what the runs are, for the bar.
        progress: show a bar.

    Raises:
        PartsError: a run failed on the executor.
    """
    if executor is None:
        with bar(len(runs), f"{what}s", what, show=progress) as shown:
            for i, (_, backend, start, *given) in enumerate(runs):
                model.initial_theta.copy_(start)  # of this copy of the model, which fit copies again
                finished(i, backend.fit(model, *given))
                shown.update()
        return
    flow = flow_to_send(model.flow)
    sent = packed(Posterior(model, Point(loc=model.initial_theta), None, RunInfo(), progress=False))
    calls, numbers = {}, {}
    for i, (name, backend, start, *given) in enumerate(runs):
        if backend.checkpoint is not None:  # a worker has another working folder
            backend = replace(backend, checkpoint=target_of(backend.checkpoint))
        calls[name] = (backend, sent, flow, start.cpu().numpy(), *map(_plain, given))
        numbers[name] = i
    saved = all(backend.checkpoint is not None for _, backend, *_ in runs)
    run_parts(
        executor,
        fit_packed,
        calls,
        lambda name, content: finished(numbers[name], unpacked(content, flow).to(model.device)),
        what=f"train {len(runs)} {what}s",
        go_on=(
            "Those are in their checkpoints. Repeat the call to go on from there"
            if saved
            else 'Nothing is saved. With checkpoint="run.h5" in the settings of the backend a repeated call goes on'
        ),
        progress=progress,
    )


def _plain(value: Any) -> Any:
    """Tensors as arrays, for engines that carry these."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
