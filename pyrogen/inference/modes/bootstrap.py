"""The bootstrap of the posterior: networks that each learn a bootstrap sample, pulled to a draw of the prior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow, normalise_weights
from pyrogen.checks import check_memory, check_settings, door, one_of, whole
from pyrogen.inference.backend import MODEL
from pyrogen.inference.modes.descent import Descent, Optimised, check_as_many, starts_of
from pyrogen.inference.modes.judging import judged, probed
from pyrogen.inference.modes.online import ReplicaLearner
from pyrogen.inference.modes.resampling import SCHEMES, Resampling
from pyrogen.inference.problems import NotBatchedError, report
from pyrogen.inference.run.data import ManySamples, TrainingData
from pyrogen.inference.run.potential import Potential
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.streaming import Streaming
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import StoredDraws
from pyrogen.seeds import stream

COPIES = 10  # arrays of all weights that a step holds: weights, anchors, moments, gradients, and what comes between
WIDE = 3.0  # standard deviation of a layer's outputs for inputs of width 1, from which on anchors are too far away


@dataclass(frozen=True, kw_only=True)
class Bootstrap(Optimised, Streaming):
    """The bootstrap of the posterior (weighted likelihood bootstrap with anchors).

    Each of R networks minimises ``-sum_n w_n log p(x_n|theta) + 1/2 sum_i ((theta_i - a_i)/s_i)^2`` from a start of its
    own, with weights w of a bootstrap sample (Newton and Raftery 1994; Lyddon, Holmes and Walker, arXiv:1709.07616) and
    an anchor a drawn from the prior of widths s (Pearce et al., arXiv:1810.05546). For a Gaussian model the minima
    follow the posterior where the events scatter as the model says; they take the scatter from the events, and so each
    variance to about ``1 / sqrt(N)``. For others they follow what the prediction would do on other samples of as many
    events: the uncertainty of the sample and of the training, which replicas of a parton-density fit show too. All
    networks are trained in one batch. The posterior holds one draw for each.

    Replicas whose loss ends far above the others' failed to train. They are left out, and ``info.findings`` and
    ``info.details["left_out"]`` name them; of three replicas none can be told from the others.
    ``info.details["sigma_error"]`` is the relative error of sigma that the number of replicas leaves, by the jackknife;
    about ``1 / sqrt(2 (R - 1))``.

    A step holds about ten numbers for each weight of each replica, whatever the number of events; the progress bar says
    how much that is.

    Args:
        replicas: number R of networks, at least 3. 24 know sigma to 15 %, 50 to 10 %.
        resampling: ``"dirichlet"``: smooth positive weights for all events; ``"multinomial"``: N events drawn with
            replacement; ``"poisson"``: whole numbers of mean 1, where the number of events varies too. None of them
            needs a table of replicas times events.
    """

    replicas: int = 50
    resampling: str = "dirichlet"

    countable: ClassVar[tuple[str, int] | None] = ("replicas", 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, replicas=whole(3), resampling=one_of(*SCHEMES))

    @property
    def _kept(self) -> int:
        return self.replicas

    @door(model=MODEL, samples=whole(1))
    def memory(self, model: BayesianFlow, samples: int = 1) -> float:
        """Memory in bytes that the weights of all replicas take during a step, besides the events.

        Args:
            model: the Bayesian flow.
            samples: of ``fit_many``.
        """
        return float(COPIES * samples * self.replicas * model.weights * (self.dtype or model.dtype).itemsize)

    def _check_memory(self, model: BayesianFlow, samples: int) -> None:
        size = self.memory(model, samples)
        check_memory("replicas", self.replicas, size, "train fewer replicas, or fewer samples, at once")

    def _check_going_on(self, start: Posterior, model: BayesianFlow) -> None:
        check_as_many("replicas", self.replicas, start, "give a posterior of as many networks")

    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        return self._run(model, data, 1)[0]

    @property
    def _without_stream(self) -> tuple[str, ...]:
        return "steps", "checkpoint_seconds"

    def _learner(self, model: BayesianFlow, data: TrainingData, buffer: EventBuffer) -> ReplicaLearner:
        self._check_memory(model, 1)
        early = tuple(wide_anchors(model))
        report(early)
        return ReplicaLearner(self, model, data, buffer, early)

    def _fit_many(self, model: BayesianFlow, data: ManySamples) -> list[Posterior]:
        self._check_single_runs()
        samples = len(data.events)
        found = self._run(model, data, samples)
        for r, posterior in enumerate(found):
            posterior.info = replace(
                posterior.info, sample=r, samples=samples, batched=True, data_sha256=data.digests[r]
            )
        return found

    def _run(self, model: BayesianFlow, data: TrainingData, samples: int) -> list[Posterior]:
        self._check_memory(model, samples)
        if data.context is not None:
            check_no_copies(data.events.cpu().numpy())
        early = tuple(wide_anchors(model))
        report(early)
        networks = samples * self.replicas
        potential = ReplicaPotential(self, model, data, networks)
        if samples > 1 and not potential.batched:
            raise NotBatchedError(str(potential.obstacle))
        starts = starts_of(model, data, networks, stream(self.seed, 1))
        of_all = f"{self.replicas} replicas" + (f" of each of {samples} samples" if samples > 1 else "")
        label = f"Bootstrap, {of_all} ({self.memory(model, samples) / 1e9:.2g} GB)"
        descent = Descent(self, potential, data, starts, stream(self.seed, 0), label)
        theta = descent.run()
        nll = potential.plain(theta)
        each = [slice(s * self.replicas, (s + 1) * self.replicas) for s in range(samples)]
        return [self._posterior_of(descent, theta[rows], nll[rows], rows, samples, early) for rows in each]

    def _posterior_of(
        self, descent: Descent, theta: Tensor, nll: Tensor, rows: slice, samples: int, early: tuple[Finding, ...]
    ) -> Posterior:
        """The posterior of one sample, from its replicas ``theta [R, P]`` and their losses ``nll [R]``."""
        sample = rows.start // self.replicas
        which = f"sample {sample}: " if samples > 1 else ""
        found = judged(
            nll,
            self._log_density(descent, theta, sample),
            descent.state["skipped"][rows],
            f"after {self.steps} steps; try a smaller lr (now {self.lr}), more steps",
            which,
        )
        report(found.findings)
        history = {name: its if its.ndim == 1 else its[rows] for name, its in descent.curve().items()}
        return descent.posterior(
            StoredDraws(theta[~found.failed][:, None]),
            history | {"final_nll": nll.cpu().numpy()},
            findings=(*early, *found.findings),
            details=found.details,
        )

    @torch.no_grad()
    def _log_density(self, descent: Descent, theta: Tensor, sample: int) -> Tensor:
        """Log densities of networks ``theta [R, P]`` at some events of a sample, ``[R, n]`` in float64."""
        model, data = descent.potential.model, descent.data
        events = data.events if data.events.ndim == 2 else data.events[sample]
        rows = probed(len(events), data.weights).to(events.device)
        context = None if data.context is None else data.context[rows]
        return torch.stack([model.log_prob(network, events[rows], context).double() for network in theta])


def check_no_copies(events: NDArray[np.float64]) -> None:
    """Refuse events ``[N, d]`` that are all there several times, at different conditions.

    Raises:
        ValueError: no event is there once only. Where some are by chance, as of rounded numbers, others are not.
    """
    n = len(events)
    if any(len(np.unique(column)) > n / 2 for column in events.T):  # fast, and enough for nearly all events
        return
    _, counts = np.unique(np.nan_to_num(events, nan=np.inf), axis=0, return_counts=True)  # NaN are no equals
    if counts.min() > 1:
        raise ValueError(
            f"the {n} events are copies of {len(counts)}, each at other conditions. Bootstrap resamples rows and takes "
            "copies for independent events: its sigma would be too small by about the root of their number. Give each "
            "event once, as with_nuisances(copies=1) does, or take pg.SVI(kl_weight=...)"
        )


def wide_anchors(model: BayesianFlow) -> Iterator[Finding]:
    """Whether anchors drawn from the prior would make the outputs of the layers large."""
    widths = model.packing.split(model.prior_scales)
    gains = {name: float(width.square().sum(1).mean().sqrt()) for name, width in widths.items() if width.ndim == 2}
    name = max(gains, key=gains.__getitem__, default="")
    if name and gains[name] > WIDE:
        yield Finding(
            "prior too wide for anchors",
            f"with weights of the prior's width, outputs of the layer {name} are {gains[name]:.1f} times as large as "
            "its inputs, and every replica is pulled to such a draw of the prior",
            'Give pg.BayesianFlow(flow, prior_scale="fan-in"); in deep flows wide anchors spoil the density',
            serious=False,
        )


class ReplicaPotential(Potential):
    """What C replicas minimise, on bootstrap samples of S samples: the first C/S see the first sample, and so on.

    Args:
        settings: the backend.
        model: the prepared Bayesian flow.
        data: one checked sample, or S of one size.
        networks: number C of replicas of all samples.
    """

    def __init__(self, settings: Bootstrap, model: BayesianFlow, data: TrainingData, networks: int) -> None:
        self.samples = data.events if data.events.ndim == 3 else data.events[None]
        size, self.each = self.samples.shape[1], settings.replicas
        self.own_weights = None if data.weights is None else normalise_weights(data.weights)
        keys = [stream(settings.seed, "bootstrap sample", c) for c in range(networks)]
        self.resampling = Resampling(
            settings.resampling, keys, size, self.own_weights, model.dtype, model.device, self.each
        )
        super().__init__(model, data, compile=settings.compile)
        self.size = size
        if data.weights is None:
            self.effective_size = size
        generator = torch.Generator().manual_seed(stream(settings.seed, "anchors"))
        noise = torch.randn(networks, model.weights, generator=generator, dtype=model.dtype)
        self.prior_centre = self.prior_centre + self.prior_scale * noise.to(model.device)

    def _rows(self, rows: Any, chains: int = 1) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(self.samples.shape[1]), device=self.samples.device)
        return self._chosen(*self.resampling(rows.expand(chains, -1)))

    def _chosen(self, rows: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Events in ``rows [C, M]`` of each replica's sample, their weights, and their conditions."""
        owner = torch.arange(len(rows), device=rows.device) // self.each
        return self.samples[owner[:, None], rows], weights, None if self.context is None else self.context[rows]

    @torch.no_grad()
    def plain(self, theta: Tensor) -> Tensor:
        """Negative log-likelihood per event ``[C]`` of the samples as they are, without the bootstrap."""
        chains, own = len(theta), self.own_weights

        def negative(part: slice) -> Tensor:
            places = torch.arange(*part.indices(self.size), device=theta.device).expand(chains, -1)
            return self._batch(theta, *self._chosen(places, None if own is None else own[places]))

        total = torch.zeros(chains, dtype=torch.float64, device=theta.device)
        for its in self._in_chunks(negative, chains, None):
            total += its
        return total / float(self.size if own is None else own.double().sum())
