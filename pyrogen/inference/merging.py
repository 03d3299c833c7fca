"""One posterior of the chains or networks of several runs on the same events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.checks import door, each
from pyrogen.inference.mcmc.chains import PROBED
from pyrogen.inference.mcmc.judge import PROBLEMS, find_problems
from pyrogen.inference.modes import ensemble
from pyrogen.inference.modes.judging import far_above, left_out, untold
from pyrogen.inference.problems import report
from pyrogen.posterior.info import Finding, History
from pyrogen.posterior.jackknife import sigma_and_error
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.weights import StoredDraws

COUNTS = ("chains", "replicas", "members")  # settings that may differ, as the seed does
SHARED = ("step", "learning_rate")  # curves that all networks of a run have in common


@door(posteriors=each(POSTERIOR, "a sequence of posteriors", 1))
def merge(posteriors: Sequence[Posterior]) -> Posterior:
    """One posterior of the chains, replicas or members of several runs, such as the jobs of a batch system.

    The runs have the same model, events and settings, but for the seed and the number of chains or networks
    (:func:`pyrogen.shard` gives such settings). What was found wrong with single runs is looked for
    in all of them together: R-hat is that of all chains, and a replica is held against all others. All draws are read
    into memory.

    Args:
        posteriors: at least one, of a sampler, of ``pg.Bootstrap`` or of ``pg.Ensemble``.

    Returns:
        The posterior. Its ``info.seconds`` is the sum over the runs; ``info.details["merged"]`` lists their seeds.

    Raises:
        ValueError: posteriors of different models, events or settings, with the same seed, or without draws; the text
            says which.
    """
    return merged(posteriors, tell=True)


def merged(posteriors: Sequence[Posterior], *, tell: bool) -> Posterior:
    """The work of :func:`merge`; ``tell``: warn of what is wrong."""
    first = posteriors[0]
    for i, other in enumerate(posteriors):
        _check(first, other, i)
    runs = [(i, run) for i, posterior in enumerate(posteriors) for run in _runs(posterior)]
    owners: dict[Any, int] = {}
    for i, run in runs:
        seed = run["seed"]
        if seed in owners:
            raise ValueError(
                f"posteriors[{i}] and posteriors[{owners[seed]}] both have the seed {seed}, and so the same "
                "random numbers; give every run its own, as pg.shard(backend, i, shards) does"
            )
        owners[seed] = i
    draws = torch.cat([posterior.weights.arrays["draws"].cpu() for posterior in posteriors])
    history = {
        name: values if name in SHARED else np.concatenate([posterior.history[name] for posterior in posteriors])
        for name, values in first.history.items()
    }
    judge = _JUDGES.get(first.info.backend, _of_chains)
    draws, findings, details = judge(posteriors, draws, history)
    infos = [posterior.info for posterior in posteriors]
    count = next((name for name in COUNTS if name in first.info.settings), None)
    total = {} if count is None else {count: sum(info.settings[count] for info in infos)}
    info = replace(
        first.info,
        settings=dict(first.info.settings) | total,
        chains=None if first.info.chains is None else sum(info.chains or 0 for info in infos),
        seconds=sum(info.seconds or 0.0 for info in infos),
        findings=findings,
        details=dict(first.info.details) | details | {"merged": [run for _, run in runs]},
    )
    if tell:
        report(findings)
    weights = StoredDraws(draws.to(first.device))
    return Posterior(first.model, weights, history, info, progress=first.progress, probes=first.probes)


def _runs(posterior: Posterior) -> list[dict[str, Any]]:
    """Seed and seconds of the runs whose draws a posterior holds: several, where it was merged before."""
    info = posterior.info
    return list(info.details.get("merged") or [{"seed": info.settings.get("seed"), "seconds": info.seconds}])


def _check(first: Posterior, other: Posterior, i: int) -> None:
    """Check that a posterior is of another run on the same.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(other.weights, StoredDraws):
        raise ValueError(
            f"posteriors[{i}] is of {other.info.backend} and holds {other.weights.family}, not draws; merge takes "
            "those of samplers, pg.Bootstrap and pg.Ensemble"
        )
    for what in ("backend", "data_sha256", "training_events"):
        _same(what, getattr(first.info, what), getattr(other.info, what), i)
    if first.info.data_sha256 is None:
        raise ValueError("posteriors[0] does not tell which events it was trained on (info.data_sha256 is None)")
    theirs, ours = (dict(one.info.settings) for one in (other, first))
    for name in sorted((theirs.keys() | ours.keys()) - {"seed", *COUNTS}):
        _same(f"the setting {name}", ours.get(name), theirs.get(name), i)
    _same("the model", first.model.describe(), other.model.describe(), i, tell=False)
    for name, buffer in first.model.flow_buffers().items():
        if not torch.equal(buffer.cpu(), other.model.flow_buffers()[name].cpu()):
            raise ValueError(f"posteriors[{i}] has another flow than posteriors[0]: its buffer {name} differs")
    _same("the history", sorted(first.history), sorted(other.history), i)


def _same(what: str, ours: Any, theirs: Any, i: int, *, tell: bool = True) -> None:
    if ours != theirs:
        told = f": {theirs!r}, not {ours!r}" if tell else ""
        raise ValueError(
            f"posteriors[{i}] differs from posteriors[0] in {what}{told}; merge takes runs of one model with the same "
            "events and settings"
        )


def _kept(posteriors: Sequence[Posterior], judged: Sequence[str]) -> list[Finding]:
    """What was found of the runs and is not looked for again: once where it is the same in all, else with the run."""
    found: list[Finding] = []
    for i, posterior in enumerate(posteriors):
        for finding in posterior.info.findings:
            if finding.problem in judged:
                continue
            everywhere = all(finding in other.info.findings for other in posteriors)
            told = finding if everywhere else replace(finding, found=f"run {i}: {finding.found}")
            if told not in found:
                found.append(told)
    return found


Judged = tuple[Tensor, tuple[Finding, ...], dict[str, Any]]


def _of_chains(posteriors: Sequence[Posterior], draws: Tensor, history: History) -> Judged:
    kept = _kept(posteriors, PROBLEMS)
    return draws, (*find_problems(history, draws, _log_prob(posteriors[0], draws)), *kept), {}


def _of_replicas(posteriors: Sequence[Posterior], draws: Tensor, history: History) -> Judged:
    sizes = [posterior.info.details["replicas"] for posterior in posteriors]
    offsets = np.cumsum([0, *sizes[:-1]])
    gone = [
        int(offset) + r
        for offset, posterior in zip(offsets, posteriors, strict=True)
        for r in posterior.info.details["left_out"]
    ]
    nll = torch.as_tensor(history["final_nll"])
    there = torch.ones(len(nll), dtype=torch.bool)
    there[gone] = False
    log_density = torch.from_numpy(_log_prob(posteriors[0], draws))[:, 0]
    failed = ~there
    failed[there] = far_above(nll[there], log_density)
    kept = ~failed[there]
    density = log_density[kept]
    sigma, error = sigma_and_error((density - density.amax(0)).exp())
    known = sigma > 0
    findings = _kept(posteriors, ("replicas left out", "too few replicas to find those that failed"))
    details = {
        "replicas": sum(sizes),
        "left_out": failed.nonzero()[:, 0].tolist(),
        "sigma_error": float((error[known] / sigma[known]).median()) if known.any() else 0.0,
    }
    return draws[kept], (*left_out(nll, failed), *untold(nll), *findings), details


def _of_members(posteriors: Sequence[Posterior], draws: Tensor, history: History) -> Judged:
    final = torch.as_tensor(history["final_loss"])
    found = ensemble.find_problems(final, torch.zeros_like(final))
    kept = _kept(posteriors, ("member without a density", "training got stuck"))
    return draws, (*found, *kept), {}


_JUDGES: dict[str, Callable[[Sequence[Posterior], Tensor, History], Judged]] = {
    "Bootstrap": _of_replicas,
    "Ensemble": _of_members,
}


@torch.no_grad()
def _log_prob(posterior: Posterior, draws: Tensor) -> np.ndarray:
    """Log p ``[C, rows, n]`` of some of the draws ``[C, draws, P]`` at the training events that a posterior keeps."""
    model, probes = posterior.model, posterior.probes
    if probes is None:
        raise ValueError("posteriors[0] keeps none of its training events; merge takes posteriors of trainings")
    events = probes.events.to(model.device)
    context = None if probes.context is None else probes.context.to(model.device)
    some = torch.linspace(0, draws.shape[1] - 1, min(PROBED, draws.shape[1])).long()
    thetas = draws[:, some].flatten(0, 1).to(model.initial_theta)
    values = torch.stack([model.log_prob(theta, events, context) for theta in thetas])
    return values.double().cpu().unflatten(0, (len(draws), -1)).numpy()
