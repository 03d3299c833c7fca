"""Stochastic variational inference: the backend that trains a guide by the ELBO of [A] eq. 16."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyro

from pyrogen.bayes.guide import AutoNormal
from pyrogen.bayes.last_layers import is_batched
from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import require
from pyrogen.events import EventsLike
from pyrogen.events.containers import table_of
from pyrogen.inference.backend import Samples
from pyrogen.inference.calibrated import BOOTSTRAP, Search, calibrate, effective_size, with_info
from pyrogen.inference.problems import NotBatchedError
from pyrogen.inference.run.checkpoint import digest, run_identity
from pyrogen.inference.run.data import ManySamples, TrainingData, check_samples, in_one_order, prepare_together
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.streaming import Streaming
from pyrogen.inference.vi.guided import GuideObjective
from pyrogen.inference.vi.mean_field import ManyMeanFields
from pyrogen.inference.vi.objective import Objective
from pyrogen.inference.vi.online import GuideLearner
from pyrogen.inference.vi.settings import CALIBRATED, SVISettings
from pyrogen.inference.vi.training import Training
from pyrogen.posterior.posterior import Posterior

ALIKE = 1.2  # ratio of effective sizes up to which one kl_weight, known to 12 %, is right for both


@dataclass(frozen=True, kw_only=True)
class SVI(SVISettings, Streaming):
    """Trains a variational posterior over the weights of a :class:`~pyrogen.BayesianFlow`.

    The loss per event is ``-sum_m w_m log p(x_m|theta) / sum_m w_m + KL(q||prior) / N`` in nats [A eq. 16], with N the
    number of training events (for weighted events the effective sample size), and nothing else divided.

    A step whose loss or gradient is NaN or infinite is left out, and counted in ``history["skipped_steps"]``; 20 of
    them in a row are a :class:`~pyrogen.TrainingDivergedError`. ``fit_many`` trains mean-field guides (and
    :class:`~pyrogen.LastLayers`) of samples of one size without event weights in one batch: one step serves all of
    them, at the same batch size and rates as in ``fit``, and each stops for itself where ``patience`` is given.

    Raises:
        ValueError: an argument out of range.
    """

    def _searched(
        self, model: BayesianFlow, events: EventsLike, weights: Any, context: Any, start: Posterior | None
    ) -> Posterior | None:
        if self.kl_weight != CALIBRATED:
            return None
        right = 'left out where kl_weight="calibrated": the fits of a calibration begin anew'
        require(start is None, "start", start, right)
        return calibrate(self, model, events, weights, context, seed=self.seed)

    def _many_searched(
        self, model: BayesianFlow, samples: Samples, context: Samples | None, executor: Any = None
    ) -> list[Posterior] | None:
        if self.kl_weight != CALIBRATED:
            return None
        check_samples(model, samples, context)
        samples = in_one_order(samples)
        sizes = {len(table_of(sample).values) for sample in samples}
        if len(sizes) > 1:
            raise ValueError(
                f"samples have between {min(sizes)} and {max(sizes)} events, and one kl_weight is not right for all of "
                "them; fit them one by one, or give a number"
            )
        worth = [effective_size(table_of(sample).weights) for sample in samples]
        known = [size for size in worth if size is not None]
        if known and max(known) > ALIKE * min(known):
            raise ValueError(
                f"the weighted events of the samples are worth between {min(known):.0f} and {max(known):.0f} events "
                "without weights, and one kl_weight is not right for all of them; fit them one by one, or give a number"
            )
        prepare_together(model, samples, self.dtype, self.device, context)  # all of them, before the work on the first
        how = f"{BOOTSTRAP} of sample 0"
        first = None if context is None else context[0]
        tuned, _, record = Search(seed=self.seed).settings(self, model, samples[0], None, first, how=how)
        found = tuned.fit_many(model, samples, context, executor=executor)
        return [with_info(one, replace(one.info, calibration=record)) for one in found]

    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        with pyro.get_param_store().scope():
            objective = self._objective(model, data)
            initial_guide = {name: digest(value) for name, value in objective.guide.state_dict().items()}
            identity = run_identity(self.describe(), model, data, initial_guide=initial_guide)
            training = Training(self, objective, identity, type(self).__name__)
            training.run()
            return self._result(model, data, objective, training)

    def _objective(self, model: BayesianFlow, data: TrainingData) -> GuideObjective:
        """What one training minimises."""
        return GuideObjective(self, model, data)

    def _check_prior(self, prior: Posterior, start: Posterior | None) -> None:
        require(start is None, "start", start, "left out where a prior is given: the run starts at the prior")
        right = 'a number where a prior is given: "calibrated" fits begin anew'
        require(self.kl_weight != CALIBRATED, "kl_weight", self.kl_weight, right)

    def _check_going_on(self, start: Posterior, model: BayesianFlow) -> None:
        if self.guide is not AutoNormal or not start.weights.independent:
            raise ValueError(
                f"{type(self).__name__} goes on with the guide pg.AutoNormal from a mean-field posterior; here the "
                f"guide is {self.describe()['guide']}, and start holds {start.weights.family}"
            )

    @property
    def _without_stream(self) -> tuple[str, ...]:
        return "epochs", "schedule", "lr_warmup", "widths_after", "validation", "patience", "checkpoint_every"

    def _learner(self, model: BayesianFlow, data: TrainingData, buffer: EventBuffer) -> GuideLearner:
        return GuideLearner(self, model, data, buffer)

    def _check_batch(self, samples: Samples) -> None:
        if not is_batched(self.guide):
            raise NotBatchedError("only the mean-field guide pg.AutoNormal and pg.LastLayers are batched")
        if self.num_particles > 1:
            raise NotBatchedError("several particles are not batched")
        super()._check_batch(samples)

    def _fit_many(self, model: BayesianFlow, data: ManySamples) -> list[Posterior]:
        objective = ManyMeanFields(self, model, data)
        self._check_single_runs()
        identity = run_identity(self.describe(), model, data, backend="SVI on many samples")
        training = Training(self, objective, identity, f"SVI on {objective.networks} samples")
        training.run()
        each = range(objective.networks)
        told = [{"sample": r, "samples": len(each), "batched": True, "data_sha256": data.digests[r]} for r in each]
        return [self._result(model, data, objective, training, r, **told[r]) for r in each]

    def _result(
        self,
        model: BayesianFlow,
        data: TrainingData,
        objective: Objective,
        training: Training,
        r: int = 0,
        **entries: Any,
    ) -> Posterior:
        """The posterior of network ``r``."""
        history, epochs = training.curves(r), int(training.epochs_done[r])
        return self._posterior(
            model,
            objective.weights(r),
            history,
            data,
            tempered=self.kl_factor != 1,
            local_reparameterization=objective.local,
            local_reparameterization_reason=objective.local_reason,
            training_events=objective.size,
            effective_size=objective.effective_size,
            validation_events=objective.validation_events,
            epochs_done=epochs,
            kept_epoch=int(training.kept_epoch[r]),
            gradients=float(epochs * self.num_particles),
            launch=training.steps.told,
            compiled=objective.compiled.told,
            seconds=float(history["seconds"][-1]),
            **entries,
        )
