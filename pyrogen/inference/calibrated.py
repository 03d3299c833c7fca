"""Calibration as one call: the knob of a backend with which its intervals hold the truth as often as they say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from pyrogen.bayes.inputs import as_tensor
from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import FRACTION, SEED, door, instance, optional, require, whole
from pyrogen.coverage.calibration import ONE_SIGMA, Calibration
from pyrogen.coverage.record import factor_on_sigma, record_of, round_of, smallest_error
from pyrogen.coverage.recovery import KnownNetworks, known_networks
from pyrogen.events import EventsLike
from pyrogen.files import target_of
from pyrogen.inference.backend import MODEL, Backend
from pyrogen.inference.problems import report
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.going_on import model_of
from pyrogen.posterior.calibrated import KNOBS, VAGUE, CalibrationRecord, CalibrationRound
from pyrogen.posterior.info import Finding, RunInfo
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.progress import Bar, bar
from pyrogen.threads import chosen_threads

BOOTSTRAP = "parametric bootstrap"
INDEPENDENT = 12.0  # intervals as which one training counts: 9 to 16 in the study of the docs
LARGEST_STEP = 10.0  # factor on sigma in one round
FEWEST_DRAWS = 10  # with fewer a sigma that is far too wide covers hardly more often than the right one
DIGITS = 3  # of a value of the knob: it is known to ten per cent, and has to be the same when a run is repeated


@door(
    backend=instance(Backend, "a backend, such as pg.SVI()"),
    model=MODEL,
    posterior=optional(POSTERIOR),
    level=FRACTION,
    trainings=whole(2),
    probes=whole(1),
    draws=optional(whole(FEWEST_DRAWS)),
    tolerance=optional(FRACTION),
    rounds=whole(1),
    seed=SEED,
)
def calibrate(
    backend: Backend,
    model: BayesianFlow,
    events: EventsLike,
    weights: Any = None,
    context: Any = None,
    *,
    posterior: Posterior | None = None,
    level: float = ONE_SIGMA,
    trainings: int = 20,
    probes: int = 100,
    draws: int | None = None,
    tolerance: float | None = None,
    rounds: int = 4,
    seed: int = 0,
) -> Posterior:
    """The posterior of a backend whose intervals hold the truth as often as they say, found without the truth.

    A first posterior is fitted with the backend as it is. Networks of it generate ``trainings`` samples of the size
    of the events, the backend learns them back, and the networks that made them have to lie in the intervals at
    ``level`` in this fraction of the cases (:func:`~pyrogen.diagnostics.bootstrap_calibration`). The knob is
    ``kl_weight`` of :class:`~pyrogen.SVI`, or ``temperature`` of a sampler. It is multiplied by the square of the
    factor that sigma needs, and the *same* samples are learned again, until the coverage agrees with the level. Then
    all events are fitted with the knob found. Networks, samples and probe points are the same in all rounds, so that
    what changes from round to round is the knob's doing.

    A backend without a knob (:class:`~pyrogen.HMC`, :class:`~pyrogen.Bootstrap`, :class:`~pyrogen.Laplace`,
    :class:`~pyrogen.Ensemble`) has one round, which changes nothing: the record says how far its sigma is off.

    The result is calibrated where its flow can describe the events. What the flow gets wrong itself, the bootstrap
    cannot see: its networks can describe what they generated. A value other than 1 makes a tempered posterior.

    The cost is that of ``trainings`` fits for each round (two or three, in one batch where the backend can do that),
    and of two fits of the events. With ``checkpoint="run.h5"`` the first fit is in ``run.h5``, the rounds are in
    ``run.round1.h5`` and so on, and the last fit is in ``run.calibrated.h5``; a killed calibration goes on when it is
    repeated, to the same bits.

    Args:
        backend: the backend.
        model: the Bayesian flow; it is copied.
        events: ``[N, d]``, as for :meth:`~pyrogen.inference.Backend.fit`.
        weights: event weights ``[N]``. The samples have no weights, and as many events as these are worth,
            ``(sum w)^2 / sum w^2``.
        context: conditions ``[N, k]`` of a conditional flow. Those of the samples are drawn from them with replacement
            (of weighted events in proportion to the weights): the flow learns p(x|c), and nothing about the
            distribution of c. Samples with conditions are learned one after another.
        posterior: of these events and this model, in place of the first fit.
        level: of the intervals whose coverage is to be nominal.
        trainings: number R of samples. 20 know the coverage to 3 %, and the knob to 12 %.
        probes: number of probe points, drawn from the predictive density; log p there and the log-likelihood of the
            sample are the quantities.
        draws: weight draws, at least 10, or all where fewer are stored; None: 100.
        tolerance: largest distance of the coverage from the level, less than that of 0 and of 1; None: the error of the
            coverage.
        rounds: the most values of the knob that are tried. The one whose coverage is nearest to the level is taken.
        seed: seeds networks, samples and probe points. The backend's own seeds the fits.

    Returns:
        The posterior. Its ``info.calibration`` is a :class:`~pyrogen.posterior.CalibrationRecord`; figures, files,
        ``repr`` and :func:`~pyrogen.diagnostics.advise` show it. A coverage that did not get there is warned of.

    Raises:
        ValueError: events that cannot be learned from, conditions with negative weights, too few trainings for the
            error or the level that is asked for, more of them than a posterior will hold draws, or a posterior of other
            events or of another model.
        MemoryError: the networks of all samples do not fit into memory at once.
        CheckpointMismatchError: the checkpoint of a stage belongs to another run.
    """
    search = Search(level, trainings, probes, draws, tolerance, rounds, seed)
    tuned, first, record = search.settings(backend, model, events, weights, context, posterior)
    same = (first.info.backend, first.info.settings) == (type(tuned).__name__, tuned.describe())
    if not same or first.info.started_from is not None:  # that of a longer training is not what was calibrated
        first = tuned.fit(model, events, weights, context)
    return with_info(first, replace(first.info, calibration=record))


@dataclass(frozen=True)
class Search:
    """The search for the knob, with the arguments of :func:`calibrate`."""

    level: float = ONE_SIGMA
    trainings: int = 20
    probes: int = 100
    draws: int | None = None
    tolerance: float | None = None
    rounds: int = 4
    seed: int = 0

    @chosen_threads()
    def settings(
        self,
        backend: Backend,
        model: BayesianFlow,
        events: EventsLike,
        weights: Any = None,
        context: Any = None,
        posterior: Posterior | None = None,
        how: str = BOOTSTRAP,
    ) -> tuple[Backend, Posterior, CalibrationRecord]:
        """The backend with the knob found, whose checkpoint is that of the last fit; the first posterior; the record.

        Raises:
            ValueError: as :func:`calibrate`.
        """
        backend = _as_number(backend)
        data = self._check(backend, model, events, weights, context, posterior)
        size = round(effective_size(data.weights) or len(data.events))
        knob = knob_of(backend)
        most = self.rounds if knob else 1
        with bar(most + 2, "calibration", "stage", show=backend.progress) as shown:
            _tell(shown, "first fit")
            first = posterior or backend.fit(model, events, weights, context)
            if not first.weights.has_spread:
                raise ValueError(f"the posterior of {type(backend).__name__} has no spread that could be calibrated")
            shown.update()
            w = data.weights
            known = known_networks(first, size, self.trainings, self.probes, self.seed, data.context, w)
            tried = self._rounds(backend, knob, known, most, shown)
            value, found, _ = min(tried, key=lambda one: abs(one[1].fraction(self.level)[0] - self.level))
            record = record_of(found, self.level, knob, [one for *_, one in tried], value, size, self.seed, how)
            self._report(record)
            _tell(shown, "last fit")
        return _stage(backend, "calibrated", knob, value), first, record

    def _rounds(
        self, backend: Backend, knob: str | None, known: KnownNetworks, most: int, shown: Bar[Any]
    ) -> list[tuple[float | None, Calibration, CalibrationRound]]:
        """Values of the knob that were tried, what they gave, and that in a few numbers."""
        value = None if knob is None else float(getattr(backend, knob))
        tried: list[tuple[float | None, Calibration, CalibrationRound]] = []
        for i in range(most):
            told = f", {knob} {value:g}" if knob else ""
            _tell(shown, f"round {i + 1} of {most}{told}, {self.trainings} trainings")
            found = known.learned_by(_stage(backend, f"round{i + 1}", knob, value), self.draws)
            tried.append((value, found, round_of(found, self.level, value)))
            shown.update()
            if value is None or self._agrees(found) or self._runs_away([one.factor for *_, one in tried]):
                break
            value = _next(value, factor_on_sigma(found, self.level)[0])
            if any(value == before for before, *_ in tried):
                break
        return tried

    def _runs_away(self, factors: list[float]) -> bool:
        """Whether the last value of the knob made it worse, on the same side: sigma does not follow it.

        By the factors on sigma: where it is wrong by far, all or none of the intervals hold the truth before and after.
        """
        off = [math.log(factor) for factor in factors]
        if math.isnan(off[-1]):
            return True
        return len(off) > 1 and off[-1] * off[-2] > 0 and abs(off[-1]) >= abs(off[-2])

    def _agrees(self, found: Calibration) -> bool:
        fraction, error = found.fraction(self.level)
        # Of a level close to 1 nearly all intervals hold the truth, however wide they are.
        limit = min(error, self._edge / 2) if self.tolerance is None else self.tolerance
        return abs(fraction - self.level) <= limit

    def _check(
        self,
        backend: Backend,
        model: BayesianFlow,
        events: EventsLike,
        weights: Any,
        context: Any,
        posterior: Posterior | None,
    ) -> TrainingData:
        """Check all that can be checked before any work; the checked data."""
        if self.tolerance is not None:
            right = f"less than {self._edge:.3g}: any coverage on one side would agree with a level of {self.level:.1%}"
            require(self.tolerance < self._edge, "tolerance", self.tolerance, right)
        independent = min(INDEPENDENT, self.probes + 1)
        error = smallest_error(self.level, self.trainings, independent)
        wanted = self._wanted_error
        if error > wanted:
            needed = math.ceil(self.trainings * (error / wanted) ** 2)
            raise ValueError(
                f"trainings is {self.trainings}: they know the coverage at {self.level:.1%} to about {error:.3f} (each "
                f"counts for about {independent:g} independent intervals); for {wanted:g} it takes {needed} or more"
            )
        if 2 * error > self._edge:
            needed = math.ceil(self.trainings * (2 * error / self._edge) ** 2)
            raise ValueError(
                f"level is {self.level!r}: {self.trainings} trainings know its coverage to about {error:.2g}, and "
                f"cannot tell it from that of sigma far too wide or too narrow; it takes {needed} trainings or more"
            )
        kept = backend._kept if posterior is None else posterior.weights.stored
        require(
            kept is None or kept >= self.trainings,
            "trainings",
            self.trainings,
            f"at most {kept}, the draws of the posterior",
        )
        dtype = backend.dtype or model.dtype
        data = TrainingData.check(model, events, weights, context, dtype, backend.device)
        backend._check_memory(model, 1 if model.context else self.trainings)
        if posterior is not None:
            model_of(posterior, model, backend.dtype, "posterior")
            require(
                posterior.info.data_sha256 == data.digest,
                "posterior",
                f"one of other events (digest {str(posterior.info.data_sha256)[:12]}; these have {data.digest[:12]})",
                "trained on the events, weights and conditions that are given here; leave it out to fit them first",
            )
        if data.context is not None and data.weights is not None and (data.weights < 0).any():
            raise ValueError(
                "weights are negative for some events, and the flow is conditional: conditions cannot be drawn with "
                "negative probabilities"
            )
        return data

    def _report(self, record: CalibrationRecord) -> None:
        found, error = record.coverage
        off, wanted = abs(found - self.level), self._wanted_error
        if not record.ok:
            problem = f"sigma is {record.verdict}"
        elif self.tolerance is not None and off > self.tolerance:
            problem = f"the coverage at {self.level:.1%} is off by {off:.3f}"
        elif error > wanted:
            problem = f"the coverage at {self.level:.1%} is known to {error:.3f} and not to {wanted:g}"
        else:
            return
        advice = f"Try more than {self.rounds} rounds, more trainings, or a longer training"
        if record.knob is None:
            advice = f"The backend has no setting that would change it; multiply sigma by {record.factor[0]:.2f}"
        report([Finding(problem, record.text(), advice)])

    @property
    def _wanted_error(self) -> float:
        return VAGUE if self.tolerance is None else self.tolerance

    @property
    def _edge(self) -> float:
        """Distance of the level from 0 or 1: no coverage can be off by more on that side."""
        return min(self.level, 1 - self.level)


def effective_size(weights: Any) -> float | None:
    """How many events without weights these weights ``[N]`` are worth; None without weights, or where none is left."""
    if weights is None:
        return None
    w = as_tensor(weights, torch.float64)
    w = w / w.abs().max()
    size = float(w.sum() ** 2 / w.square().sum())
    return size if size > 0 else None


def knob_of(backend: Any) -> str | None:
    """The setting by which a backend scales its sigma, if it has one."""
    return next((knob for knob in KNOBS if hasattr(backend, knob)), None)


def with_info(posterior: Posterior, info: RunInfo) -> Posterior:
    """The same posterior with another record; the one that was given stays as it is."""
    model, weights, history = posterior.model, posterior.weights, posterior.history
    found = Posterior(model, weights, history, info, progress=posterior.progress, probes=posterior.probes)
    found.compile = posterior.compile
    return found


def _as_number(backend: Backend) -> Backend:
    """The backend with a number for its knob, and a checkpoint that does not depend on the working folder."""
    changes: dict[str, Any] = {}
    knob = knob_of(backend)
    if knob is not None and isinstance(getattr(backend, knob), str):
        changes[knob] = 1.0
    if backend.checkpoint is not None:
        changes["checkpoint"] = target_of(backend.checkpoint)
    return replace(backend, **changes)


def _stage(backend: Backend, name: str, knob: str | None, value: float | None) -> Backend:
    """The backend of one stage, with a checkpoint of its own."""
    changes: dict[str, Any] = {} if knob is None else {knob: value}
    if backend.checkpoint is not None:
        changes["checkpoint"] = backend._own_checkpoint(name)
    return replace(backend, **changes)


def _next(value: float, factor: float) -> float:
    """The next value of the knob: sigma goes as its root where the events determine the weights."""
    factor = min(max(factor, 1 / LARGEST_STEP), LARGEST_STEP)
    return float(f"{value * factor**2:.{DIGITS}g}")


def _tell(shown: Bar[Any], stage: str) -> None:
    shown.set_description_str(f"calibration: {stage}")
