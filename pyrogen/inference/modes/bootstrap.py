"""The bootstrap of the posterior: networks that each learn a bootstrap sample, pulled to a draw of the prior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow, normalise_weights
from pyrogen.checks import check_memory, check_settings, door, one_of, whole
from pyrogen.inference.backend import MODEL
from pyrogen.inference.modes.descent import Descent, Optimised, check_as_many, starts_of
from pyrogen.inference.modes.resampling import SCHEMES, Resampling
from pyrogen.inference.problems import NotBatchedError, SamplingError, report
from pyrogen.inference.run.data import ManySamples, TrainingData
from pyrogen.inference.run.potential import Potential
from pyrogen.posterior.info import Finding
from pyrogen.posterior.jackknife import sigma_and_error
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import StoredDraws
from pyrogen.seeds import stream
from pyrogen.signals import uninterrupted

FAR = 10.0  # square of the deviation, in sigma, from which on a replica failed to train, if it is also
RARE = 1e-3  # as rare among good ones, and
SPREADS = 6.0  # so many standard deviations of the losses above their median
TELLING = 4  # replicas that it takes to tell which one of them failed
NEIGHBOURS = 11  # replicas that each one is held against
PROBED = 200  # events at which sigma is found, to judge the replicas
COPIES = 10  # arrays of all weights that a step holds: weights, anchors, moments, gradients, and what comes between
WIDE = 3.0  # standard deviation of a layer's outputs for inputs of width 1, from which on anchors are too far away
MANY_FAILED = 0.1  # share of the replicas


@dataclass(frozen=True, kw_only=True)
class Bootstrap(Optimised):
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
        log_density = self._log_density(descent, theta, sample)
        failed = far_above(nll, log_density)
        kept = int((~failed).sum())
        which = f"sample {sample}: " if samples > 1 else ""
        if kept < 3:
            raise SamplingError(
                f"{which}{kept} of {self.replicas} replicas ended with a finite loss near that of the others after "
                f"{self.steps} steps; try a smaller lr (now {self.lr}), more steps or dtype=torch.float64, with "
                "another checkpoint file if there is one"
            )
        findings = (
            *left_out(nll, failed, which),
            *untold(nll, which),
            *steps_left_out(descent.state["skipped"][rows], which),
        )
        report(findings)
        kept_density = log_density[~failed]
        # Relative to the largest at each event: no number may hold a density per unit of the events itself.
        sigma, error = sigma_and_error((kept_density - kept_density.amax(0)).exp())
        known = sigma > 0
        details: dict[str, Any] = {
            "replicas": self.replicas,
            "left_out": failed.nonzero()[:, 0].tolist(),
            "sigma_error": float((error[known] / sigma[known]).median()) if known.any() else 0.0,
        }
        history = {name: its if its.ndim == 1 else its[rows] for name, its in descent.curve().items()}
        return descent.posterior(
            StoredDraws(theta[~failed][:, None]),
            history | {"final_nll": nll.cpu().numpy()},
            findings=(*early, *findings),
            details=details,
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


def probed(size: int, weights: Tensor | None) -> Tensor:
    """Rows of the events at which replicas are judged: spread evenly, of weighted events in proportion to ``abs(w)``.

    A loss is a weighted mean too: where the weights sit at events that are badly known, it differs by more.
    """
    n = min(PROBED, size)
    if weights is None:
        return torch.linspace(0, size - 1, n).round().long()
    upto = weights.double().abs().cumsum(0)
    at = (torch.arange(n, dtype=torch.float64, device=upto.device) + 0.5) / n * upto[-1]
    return torch.searchsorted(upto, at).clamp(max=size - 1)


def far_above(nll: Tensor, log_density: Tensor) -> Tensor:
    """Which replicas failed to train, ``[R]``.

    A replica whose log density is off by ``d(x)`` loses about ``mean(d^2) / 2`` nats per event, and d is typically as
    large as sigma of the log density. One that lost :data:`FAR` times as much did not find the density, unless d^2 of
    good replicas is as large more often than :data:`RARE`: where k independent numbers decide d, d^2 over a sigma^2
    from R replicas is much like Fisher's F of k and k (R - 2) degrees of freedom. (Simulated: at most 1 in 1,000 good
    replicas is left out.) Where the prior pulls the replicas away from the events, losses differ more: so the limit is
    at least :data:`SPREADS` of their own standard deviations above the median, or as rare.

    Three replicas do not tell which of them is right: only those without a finite loss failed then.

    Args:
        nll: loss per event of every replica at its end, ``[R]``.
        log_density: log densities ``[R, n]`` at some of the events.
    """
    with uninterrupted():
        from scipy.special import fdtri  # here: nothing else of a training needs it

    good = nll.isfinite()
    count = int(good.sum())
    if count < TELLING:
        return ~good
    sigma, k = _robust_sigma(log_density[good]), _numbers_behind(log_density[good])
    square, spreads = fdtri(k, k * (count - 2), 1 - RARE), math.sqrt(fdtri(1, count - 2, 1 - RARE))
    far = torch.maximum(
        0.5 * max(FAR, float(square)) * sigma.square().nan_to_num(0.0, 0.0).mean(),
        max(SPREADS, spreads) * _robust_sigma(nll[good]),
    )
    limit = nll[good].median() + far
    return ~(nll <= limit + 1e-6 * limit.abs())


def _robust_sigma(values: Tensor) -> Tensor:
    """Standard deviation of R Gaussian numbers ``[R, ...]`` from the median distance of two of them (Shamos 1976).

    A few that lie far away do not impress it. Of many numbers each is held against its next neighbours alone.
    """
    pairs = [(values - values.roll(shift, 0)).abs() for shift in range(1, min(len(values), NEIGHBOURS))]
    return torch.cat(pairs).median(0).values / (0.6745 * math.sqrt(2))


def left_out(nll: Tensor, failed: Tensor, which: str = "") -> Iterator[Finding]:
    """Which replicas are left out, and why.

    Args:
        nll: loss per event of every replica at its end, ``[R]``.
        failed: which of them failed, ``[R]``.
        which: the sample, in words.
    """
    if failed.any():
        middle = float(nll[~failed].median())
        named = ", ".join(f"{r} ({nll[r]:.4f})" for r in failed.nonzero()[:, 0].tolist())
        yield Finding(
            "replicas left out",
            f"{which}{int(failed.sum())} of {len(nll)} replicas failed to train and are left out: {named}; the median "
            f"of the others is {middle:.4f} nats per event",
            "A few do no harm. For more, try more steps, a smaller lr or another flow",
            serious=float(failed.double().mean()) > MANY_FAILED,
        )


def _numbers_behind(values: Tensor) -> float:
    """At least how many independent numbers decide how R replicas ``[R, n]`` differ.

    Differences of replicas that share none are parallel where it is one number. Of k equal ones the square of the
    cosine is 1/k on average; of unequal ones its root is at least the share of the largest, whose tail counts. How far
    a replica lies away does not matter.
    """
    steps = torch.nn.functional.normalize(values - values.roll(1, 0), dim=1)
    apart = torch.arange(len(values))
    apart = (apart[:, None] - apart) % len(values)
    share = (steps @ steps.T).square()[((apart > 1) & (apart < len(values) - 1)).to(values.device)].mean()
    return 1 / math.sqrt(float(share)) if 0 < share <= 1 else 1.0


def untold(nll: Tensor, which: str = "") -> Iterator[Finding]:
    """Whether the replicas are too few to tell which of them failed, by their losses ``nll [R]``."""
    good = nll.isfinite()
    if good.sum() < TELLING:
        named = ", ".join(f"{loss:.4f}" for loss in nll[good].tolist())
        yield Finding(
            "too few replicas to find those that failed",
            f"{which}{int(good.sum())} replicas have a finite loss, {named} nats per event, and if one of them failed "
            "to train it cannot be told from the others",
            f"Take {TELLING} replicas or more, better 24",
            serious=False,
        )


def steps_left_out(skipped: Tensor, which: str = "") -> Iterator[Finding]:
    """Which replicas left out steps, from their numbers ``skipped [R]``."""
    if skipped.any():
        named = ", ".join(f"{r} ({skipped[r]:.0f})" for r in skipped.nonzero()[:, 0].tolist())
        yield Finding(
            "steps left out",
            f"{which}the loss of {int((skipped > 0).sum())} of {len(skipped)} replicas was NaN or infinite in some "
            f"steps, which were left out: {named}",
            "Try a smaller lr or dtype=torch.float64",
            serious=False,
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
        self.prior_centre = self.prior_scale * noise.to(model.device)

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
