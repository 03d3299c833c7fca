"""Samplers as backends: what turns a kernel into ``fit``, ``fit_many`` and a kernel of Pyro's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import door
from pyrogen.events import EventsLike
from pyrogen.files import check_writable
from pyrogen.inference.backend import MODEL, Samples
from pyrogen.inference.mcmc.chains import SamplingRun, draws_path
from pyrogen.inference.mcmc.contract import Kernel
from pyrogen.inference.mcmc.many import ManyRun
from pyrogen.inference.mcmc.pyro_kernel import PyroKernel
from pyrogen.inference.problems import NotBatchedError
from pyrogen.inference.run.data import ManySamples, TrainingData
from pyrogen.inference.run.going_on import rounds
from pyrogen.posterior.posterior import Posterior
from pyrogen.seeds import stream


@dataclass(frozen=True, kw_only=True)
class Sampler(Kernel):
    """A sampled backend. A new sampler subclasses it with ``statistics``, ``begin`` and ``advance``.

    A *transition* is ``thinning`` steps of the kernel; after ``warmup`` transitions every one gives a draw of every
    chain. Chains are a batch dimension: one gradient evaluation serves all.

    The posterior has its draws ``[chains, draws, P]`` in ``posterior.weights`` and the statistics of every transition
    ``[chains, draws]`` in ``posterior.history`` (of the warm-up as ``warmup_...``). ``fit_many`` gives every sample
    ``chains`` chains of its own, all in one batch, in which trajectories have the same number of steps.

    Raises:
        ValueError: an argument out of range.
    """

    #: The loop around the kernel.
    loop: ClassVar[type[SamplingRun]] = SamplingRun

    @door(model=MODEL)
    def run(self, model: BayesianFlow, events: EventsLike, weights: Any = None, context: Any = None) -> SamplingRun:
        """Prepare a run without starting it: check the data and prepare the model for them.

        Raises:
            ValueError: as :meth:`fit`.
        """
        return self.loop(self, *self.checked(model, events, weights, context))

    @door(model=MODEL)
    def kernel(self, model: BayesianFlow) -> PyroKernel:
        """This sampler as a kernel for :class:`pyro.infer.MCMC`, which then runs single chains of it.

        Raises:
            ValueError: a ``checkpoint``, which Pyro's loop cannot write.
        """
        return PyroKernel(self, model, self.loop)

    def _check_going_on(self, start: Posterior, model: BayesianFlow) -> None:
        if self.start != "map":  # the default
            raise ValueError("start was given to the sampler and to fit; leave out one of them")
        self._check_start(start, model)

    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        if data.start is None:
            return self.loop(self, model, data).run()
        # Chains with the random numbers of the run before would come back to its draws.
        seed = stream(self.seed, 4, rounds(data.start)) % 2**31
        return self.loop(replace(self, start=data.start, seed=seed), model, data).run()

    def _check_batch(self, samples: Samples) -> None:
        if self.loop is not SamplingRun:
            raise NotBatchedError(f"{type(self).__name__} runs one chain after another")
        if isinstance(self.start, Posterior):
            raise NotBatchedError("the chains start at one posterior's draws")
        super()._check_batch(samples)

    def _fit_many(self, model: BayesianFlow, data: ManySamples) -> list[Posterior]:
        self._check_single_runs()
        every = replace(self, chains=self.chains * len(data.events))
        return ManyRun(every, model, data).posteriors()

    def _check_run(self) -> None:
        super()._check_run()
        if self.checkpoint is not None:
            check_writable(draws_path(self.checkpoint))
