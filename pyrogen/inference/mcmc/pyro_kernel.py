"""The samplers as kernels of Pyro's own MCMC loop."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyrogen.bayes.model import THETA, BayesianFlow
from pyrogen.checks import require
from pyrogen.events import EventsLike
from pyrogen.inference.mcmc.chains import SamplingRun
from pyrogen.inference.mcmc.contract import Kernel, State
from pyrogen.printing import Shown
from pyrogen.seeds import stream


class PyroKernel(Shown, MCMCKernel):
    """A sampler as a kernel for :class:`pyro.infer.MCMC`; its method ``kernel`` makes it::

        kernel = pg.HMC(seed=0).kernel(model)
        mcmc = pyro.infer.MCMC(kernel, num_samples=500, warmup_steps=500)
        mcmc.run(events)                    # or run(events, weights, context)
        mcmc.get_samples()["theta"]         # [num_samples, P]
        mcmc.summary()

    The loop is Pyro's: the numbers of chains, warm-up steps and samples are the arguments of ``MCMC``, which takes
    the place of the sampler's own ``chains``, ``warmup``, ``draws`` and ``progress``; each sample is ``thinning``
    steps of the sampler. All draws are held in memory, and each chain has its own gradients: ``fit`` is the faster
    way, which batches them, streams draws and resumes.

    *Random numbers.* Every chain draws a number from Pyro's global random state when it is set up, and takes all its
    noise from a generator seeded by that number and the sampler's ``seed``: chains differ, and two runs after the same
    ``pyro.set_rng_seed`` are the same.

    *Several chains.* Pyro runs them in processes where the machine has more cores than chains, and one after another
    otherwise. The kernel can be pickled, so that ``mp_context`` may be ``"fork"`` (the default on Linux) or
    ``"spawn"``; for the latter flows of your own must be importable, and the script needs its
    ``if __name__ == "__main__":``. A forked process that uses several threads of OpenMP can hang, which is no fault of
    the kernel: call ``torch.set_num_threads(1)`` first.

    Args:
        sampler: the settings.
        model: the Bayesian flow; as in ``fit``, it is copied, and the copy's preprocessing fitted to the events.
        loop: what runs the sampler's transitions.

    Raises:
        ValueError: the sampler has a ``checkpoint``.
    """

    def __init__(self, sampler: Kernel, model: BayesianFlow, loop: type[SamplingRun] = SamplingRun) -> None:
        require(
            sampler.checkpoint is None,
            "checkpoint",
            sampler.checkpoint,
            "None for a kernel of pyro.infer.MCMC, which keeps its draws in memory; fit(model, events) writes files",
        )
        schedule = getattr(sampler, "schedule", "constant")
        if schedule != "constant":
            raise ValueError(
                f"schedule is {schedule!r}: cycles share a number of draws that Pyro's loop does not tell; "
                'use schedule="constant", or fit()'
            )
        self.sampler, self.model, self.loop = sampler, model, loop
        #: Weights are unconstrained; with this Pyro need not set the model up again to learn it.
        self.transforms: dict[str, Any] = {}
        self.cleanup()
        super().__init__()

    def __repr__(self) -> str:
        return f"PyroKernel({self.sampler!r}, {self.model.packing.size:,} weights)"

    def cleanup(self) -> None:
        """Forget chain, data and initial parameters."""
        self._run: SamplingRun | None = None
        self._state: State = {}
        self._initial: Tensor | None = None
        self._acceptances: list[float] = []  # of this phase, warm-up or sampling
        self._divergences: list[int] = []
        self._step_size: float | None = None

    def setup(self, warmup_steps: int, events: EventsLike, weights: Any = None, context: Any = None) -> None:
        """Check the data, prepare the model and find the chain's starting point, as ``fit`` does.

        Args:
            warmup_steps: transitions in which the sampler adapts itself.
            events, weights, context: as in :meth:`~pyrogen.inference.backend.Backend.fit`.

        Raises:
            ValueError: data that cannot be sampled from, or initial parameters of a wrong shape.
            SamplingError: the potential is not finite where the chain starts.
        """
        seed = stream(self.sampler.seed, 1 + int(torch.randint(2**62, ())))
        sampler = replace(self.sampler, chains=1, warmup=warmup_steps, draws=1, seed=seed)
        self._run = run = self.loop(sampler, *sampler.checked(self.model, events, weights, context))
        self._state = run.start(None if self._initial is None else self._check(self._initial))
        self._initial = self._theta()

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """``{"theta": [P]}``: where the chain starts, as given or, after :meth:`setup`, as the sampler chose it.

        Raises:
            ValueError: it is neither given nor chosen yet.
        """
        if self._initial is None:
            raise ValueError('initial_params are not known before setup(); give {"theta": [P]}, or call setup first')
        return {THETA: self._initial}

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        require(set(params) == {THETA}, "initial_params", list(params), f'a dict of "{THETA}" alone, [P]')
        self._initial = params[THETA]

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """One transition of the chain from ``params``, which adapts the sampler while the warm-up lasts.

        The chain goes on from where it is, with all that the sampler remembers. If ``params`` are another place, it
        is moved there, and keeps its adaptation.

        Args:
            params: ``{"theta": [P]}``.

        Returns:
            The new ``{"theta": [P]}``.

        Raises:
            RuntimeError: :meth:`setup` was not called.
            SamplingError: the potential is not finite any more.
        """
        run = self._run
        if run is None:
            raise RuntimeError("sample() before setup(): call setup(warmup_steps, events), as pyro.infer.MCMC does")
        if not torch.equal(params[THETA], self._theta()):
            fresh = run.start(self._check(params[THETA]))
            self._state |= {name: fresh[name] for name in ("position", "potential", "gradient") if name in fresh}
        if run.done == run.kernel.warmup:
            self._acceptances = []
        row = run.transition(self._state)
        if "acceptance" in row:
            self._acceptances.append(row["acceptance"].item())
        if run.done >= run.kernel.warmup and "diverging" in row and row["diverging"] > 0:
            self._divergences.append(run.done - run.kernel.warmup)
        self._step_size = row["step_size"].item() if "step_size" in row else None
        run.done += 1
        return {THETA: self._theta()}

    def logging(self) -> OrderedDict[str, str]:
        """Step size and mean acceptance of this phase, of samplers that have them; Pyro's progress bar shows them."""
        told = OrderedDict()
        if self._step_size is not None:
            told["step size"] = f"{self._step_size:.2e}"
        if self._acceptances:
            told["acc. prob"] = f"{self._mean_acceptance():.3f}"
        return told

    def diagnostics(self) -> dict[str, Any]:
        """``"divergences"``, the numbers of the samples whose trajectory diverged, and ``"acceptance rate"``, the mean
        acceptance probability after the warm-up; each for samplers that have it."""
        assert self._run is not None
        names = self._run.kernel.statistics
        told: dict[str, Any] = {"divergences": self._divergences} if "diverging" in names else {}
        return told | ({"acceptance rate": self._mean_acceptance()} if self._acceptances else {})

    def _mean_acceptance(self) -> float:
        return sum(self._acceptances) / len(self._acceptances)

    def _theta(self) -> Tensor:
        assert self._run is not None
        return self._run.target.theta(self._state["position"])[0]

    def _check(self, theta: Tensor) -> Tensor:
        """Given weights ``[P]`` as one chain's ``[1, P]``."""
        size = self.model.weights
        good = isinstance(theta, Tensor) and theta.shape == (size,)
        require(good, THETA, list(theta.shape) if isinstance(theta, Tensor) else theta, f"a tensor of shape [{size}]")
        assert self._run is not None
        return theta.detach().to(self._run.model.initial_theta)[None]
