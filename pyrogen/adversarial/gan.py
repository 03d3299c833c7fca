"""The GAN of [D]: a generator of events that is trained against a discriminator, and that has no density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pyrogen.adversarial.coverage import collapse, coverage
from pyrogen.adversarial.data import Sample, checked, checked_samples, refuse, refuse_model
from pyrogen.adversarial.sampler import GANSampler
from pyrogen.adversarial.settings import GANSettings
from pyrogen.adversarial.training import Training
from pyrogen.events import EventsLike
from pyrogen.files import check_writable
from pyrogen.inference.documented import inherit_arguments
from pyrogen.inference.problems import report
from pyrogen.inference.run.checkpoint import only_run
from pyrogen.inference.run.stopping import Terminated, end, terminable
from pyrogen.posterior.info import RunInfo
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

#: Settings of the paper that are not the defaults.
PAPER: dict[str, Any] = {
    "noise": 1000,
    "hidden": (256,) * 7,
    "embedding": (256, 256, 32),
    "dropout": 0.5,
    "penalty": 0.01,
    "smearing": 0.1,
    "epochs": 10_000,
    "batch_size": 10,
    "lr": 5e-5,
    "betas": (0.5, 0.9),
    "decay": 0.9,
    "average": 0.0,
    "standardise": False,
}


@dataclass(frozen=True, kw_only=True, repr=False)
class GAN(GANSettings):
    """The generative adversarial network of *GANplifying event samples*, arXiv:2008.06545 [D] sec. 2.

    A generator makes events of uniform noise. A discriminator that sees batches of events, and by how much these differ
    from each other, learns to tell them from true ones, and the generator learns what it takes for true. Both learn in
    turn. Dropout is part of the generator, also after the training.

    What it gives is a generator of events, without a density and without an uncertainty::

        sampler = pg.GAN(seed=0).fit(events)
        sampler.sample(10_000)  # [10000, d]

    The discriminator minimises the cross-entropy plus ``penalty / 2`` times
    ``E_true[(1 - D)^2 |grad phi|^2] + E_generated[D^2 |grad phi|^2]``, phi its logit and D its sigmoid (Roth et al.,
    arXiv:1705.09367); the generator minimises ``-log D``. The defaults are smaller than the paper's networks, for a
    training on a CPU; :meth:`paper` has the paper's.
    """

    @classmethod
    def paper(cls, **changes: Any) -> GAN:
        """The settings of [D]: a training on 100 events takes about an hour on a CPU core or a card.

        Args:
            changes: settings that differ from these, such as ``seed``.
        """
        return cls(**PAPER | changes)

    @chosen_threads()
    def fit(self, events: EventsLike, weights: Any = None, context: Any = None) -> GANSampler:
        """Train on events, or go on from the checkpoint.

        Args:
            events: ``[N, d]`` (or ``[N]`` for one feature), a tensor, an array, an :class:`~pyrogen.EventSample` or a
                table of another package, whose names and units count. All events count the same.
            weights, context: what other trainings take, and this one refuses.

        Returns:
            What generates events. Its ``history`` has the curves of the run, its ``info`` how it came about.

        Raises:
            TypeError: no events.
            ValueError: NaN or infinite events, a varying number of objects, weights or conditions, a constant column,
                fewer events than a batch, or a foreign checkpoint.
            TrainingDivergedError: a loss that is NaN or infinite.
            PathInUseError: another process, or another part of this one, trains with this checkpoint.
            OSError: the checkpoint cannot be written.
            KeyboardInterrupt: Ctrl-C. The checkpoint is written first, and the text says how to go on.
        """
        refuse_model(events)
        refuse("weights", weights)
        refuse("context", context)
        return self._trained([checked(events, self.batch_size, self.standardise)], [self.seed])[0]

    @chosen_threads()
    def fit_many(self, samples: Sequence[EventsLike] | torch.Tensor, context: Any = None) -> list[GANSampler]:
        """Train on R independent samples in one batch, such as a study over many trainings needs.

        Args:
            samples: R samples of events of one size and with the same columns, ``[R, N, d]`` or a sequence of
                ``[N, d]``.
            context: what other trainings take, and this one refuses.

        Returns:
            R generators. Each is what :meth:`fit` gives with the seed in its ``info.settings``, up to rounding, and its
            ``seconds`` are those of the whole run.

        Raises:
            TypeError, ValueError, TrainingDivergedError, PathInUseError, OSError: as :meth:`fit`, naming the sample;
                samples that differ in size or columns.
        """
        refuse_model(samples)
        refuse("context", context)
        found = checked_samples(samples, self.batch_size, self.standardise)
        return self._trained(found, [stream(self.seed, r, 1) % 2**31 for r in range(len(found))])

    def _trained(self, samples: list[Sample], seeds: list[int]) -> list[GANSampler]:
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        identity = {
            "gan": self.describe(),
            "data": {"events": list(samples[0].events.shape), "sha256": [each.digest for each in samples]},
        }
        try:
            with terminable(), only_run(self) as run:
                events = torch.stack([each.scaled for each in samples])
                training = Training(run, events, seeds, identity)
                training.run()
                found = [self._sampler(training, samples, r) for r in range(len(samples))]
        except (KeyboardInterrupt, Terminated) as stop:
            end(stop, "GAN", self.checkpoint)
        report(collapse([each.info.details["coverage"] for each in found]))
        return found

    def _sampler(self, training: Training, samples: list[Sample], r: int) -> GANSampler:
        """The generator of sample ``r``."""
        sample, several = samples[r], len(samples) > 1
        history = training.curves(r)
        info = RunInfo(
            backend="GAN",
            settings=self.describe() | {"seed": training.seeds[r]},
            names=sample.names,
            units=sample.units,
            data_sha256=sample.digest,
            training_events=len(sample.events),
            effective_size=float(len(sample.events)),
            is_posterior=False,
            epochs_done=self.epochs,
            seconds=float(history["seconds"][-1]),
            device="cpu",
            sample=r if several else None,
            samples=len(samples) if several else None,
            batched=True if several else None,
        )
        weights = {name: value[r : r + 1].clone() for name, value in training.average.items()}
        sampler = GANSampler(weights, sample.centre, sample.scale, history, info)
        share = coverage(sample.scaled, sampler._scaled(len(sample.events), stream(training.seeds[r], "coverage")))
        sampler.info = replace(info, details={"coverage": share}, findings=collapse([share]))
        return sampler


inherit_arguments(GAN)
