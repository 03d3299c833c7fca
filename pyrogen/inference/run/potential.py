"""The potential energy of the weights, for a batch of chains at once: what every sampler and optimiser follows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow, normalise_weights
from pyrogen.bayes.side_by_side import log_prob_side_by_side, stands_side_by_side
from pyrogen.flows.compiled import CompiledSteps
from pyrogen.flows.numbers import NumberOfObjects
from pyrogen.flows.own import compile_obstacle
from pyrogen.inference.run.data import TrainingData
from pyrogen.launch import Launch
from pyrogen.memory import in_chunks, row_bytes, rows_at_once
from pyrogen.seeds import seeded

EVENTS_TIMES_CHAINS = 1 << 15  # of a gradient that a CPU evaluates at once; on a card see pyrogen.memory
#: Why the gradients of a coupling flow are not compiled.
APART = "gradients are only where networks stand side by side (docs/sampling.md)"

Result = TypeVar("Result")


class Potential:
    """``U(theta) = -sum_n w_n log p(x_n|theta) - log prior(theta)`` and its gradient, for C chains at once.

    Constants of the prior are left out. Weights of the events sum to their effective sample size, as in the ELBO
    ([A] sec. 5). The chains are a batch dimension of one computation; flows that :func:`torch.func.vmap` cannot batch
    (``batched`` is then False, and ``obstacle`` says why) are evaluated chain by chain.

    Args:
        model: the prepared Bayesian flow.
        data: its checked training events.
        likelihood_only: leave out the prior (for maximum-likelihood trainings).
        compile: compile the steps of the flow (:mod:`pyrogen.flows.compiled`).
    """

    def __init__(
        self, model: BayesianFlow, data: TrainingData, *, likelihood_only: bool = False, compile: bool = False
    ) -> None:
        self.model = model
        self.events, self.context = data.events, data.context
        self.weights = None if data.weights is None else normalise_weights(data.weights)
        self.size = len(data.events)
        self.effective_size = self.size if self.weights is None else float(self.weights.sum())
        #: Width of the prior of every weight, ``[P]``.
        self.prior_scale: Tensor = model.prior_scales
        #: Where the prior of every weight has its centre, ``[P]``, or ``[C, P]`` for each chain one of its own.
        self.prior_centre: Tensor = model.prior_centres
        self.likelihood_only = likelihood_only
        needed = row_bytes(model.packing.shapes, model.dtype, gradient=True)
        #: Events times chains evaluated at once.
        self.rows_at_once = rows_at_once(model.device, needed, cpu=EVENTS_TIMES_CHAINS)
        self.obstacle = self._obstacle()
        self.batched = self.obstacle is None
        events, _, context = self._rows(slice(0, 3), 2)
        self.side_by_side = self.batched and stands_side_by_side(model, events, context)
        obstacle = compile_obstacle(model.flow) or (None if self.side_by_side else APART)
        self.compiled = CompiledSteps(compile, obstacle)
        #: What a gradient is run by; on a card in one launch.
        self.launch = Launch(self._compiled_value_and_gradient, self.events.device)
        self.gradients = 0.0  #: gradient evaluations so far, in units of the whole sample for every chain

    def _obstacle(self) -> str | None:
        leaf = self.model.initial_theta.expand(2, -1).clone().requires_grad_()
        own = torch.zeros(2, 1, dtype=torch.long, device=leaf.device)
        try:
            for rows in (slice(0, 1), own):  # events for all chains, and for each its own
                torch.autograd.grad(self._batch_together(leaf, *self._rows(rows, 2)).sum(), leaf)
        except Exception as error:  # whatever a foreign flow does that vmap refuses
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    def _rows(self, rows: Any, chains: int = 1) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Events, weights and conditions of some rows: ``[M, ...]`` for all chains, or ``[C, M, ...]``."""
        weights, context = (None if values is None else values[rows] for values in (self.weights, self.context))
        return self.events[rows], weights, context

    def _one(self, theta: Tensor, events: Tensor, weights: Tensor | None, context: Tensor | None) -> Tensor:
        log_prob = self.model.log_prob(theta, events, context)
        return -(log_prob if weights is None else weights * log_prob).sum()

    def _batch_together(self, theta: Tensor, events: Tensor, weights: Tensor | None, context: Tensor | None) -> Tensor:
        own = 0 if events.ndim == 3 else None  # every chain its own events, or the same for all
        dims = (0, own, None if weights is None else own, None if context is None else own)
        return torch.func.vmap(self._one, in_dims=dims)(theta, events, weights, context)

    def _batch(self, theta: Tensor, events: Tensor, weights: Tensor | None, context: Tensor | None) -> Tensor:
        """Negative log-likelihoods ``[C]`` of chains ``theta [C, P]`` for events ``[M, d]`` or ``[C, M, d]``."""
        if self.side_by_side:
            log_prob = log_prob_side_by_side(self.model, theta, events, context)
            return -(log_prob if weights is None else weights * log_prob).sum(1)
        if self.batched:
            return self._batch_together(theta, events, weights, context)
        own = events.ndim == 3
        return torch.stack(
            [
                self._one(
                    theta[c],
                    events[c] if own else events,
                    weights if weights is None or not own else weights[c],
                    context if context is None or not own else context[c],
                )
                for c in range(len(theta))
            ]
        )

    def _in_chunks(self, work: Callable[[Any], Result], chains: int, rows: Tensor | None) -> Iterator[Result]:
        """What ``work`` gives for all events, or ``rows [M]`` or ``[C, M]`` of them, in chunks of bounded memory."""
        n = self.size if rows is None else rows.shape[-1]

        def chosen(part: slice) -> Result:
            return work(part if rows is None else rows[..., part])

        for _, result in in_chunks(chosen, n, max(1, self.rows_at_once // chains)):
            yield result

    def value_and_gradient(self, theta: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``U [C]`` (in float64) and its gradient ``[C, P]`` at ``theta [C, P]``.

        Args:
            theta: weights of every chain.
            rows: indices ``[C, M]`` of the events of each chain's mini-batch, whose log-likelihood is scaled to the
                whole sample; None: all events, in chunks whose memory is bounded.
        """
        self.gradients += 1.0 if rows is None else 1 / (self.size / rows.shape[-1])
        value, gradient = self.launch(theta, rows)
        # The next launch writes over its own results.
        return (value.clone(), gradient.clone()) if self.launch.recorded else (value, gradient)

    def _compiled_value_and_gradient(self, theta: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.compiled.run(lambda: self._value_and_gradient(theta, rows))

    def _value_and_gradient(self, theta: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        value = torch.zeros(len(theta), dtype=torch.float64, device=theta.device)
        gradient = torch.zeros_like(theta)
        scale = 1.0 if rows is None else self.size / rows.shape[-1]

        def both(part: Any) -> tuple[Tensor, Tensor]:
            leaf = theta.detach().requires_grad_()
            negative = self._batch(leaf, *self._rows(part, len(theta)))
            return negative.detach(), torch.autograd.grad(negative.sum(), leaf)[0]

        for negative, its_gradient in self._in_chunks(both, len(theta), rows):
            gradient += its_gradient
            value += negative
        value, gradient = scale * value, scale * gradient
        if not self.likelihood_only:
            scaled = (theta - self.prior_centre) / self.prior_scale
            value += 0.5 * scaled.double().square().sum(1)
            gradient += scaled / self.prior_scale
        return value, gradient

    @torch.no_grad()
    def value(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """``U [C]`` (in float64) at ``theta [C, P]``, from all events, or from ``rows [M]`` scaled to the sample."""
        value = torch.zeros(len(theta), dtype=torch.float64, device=theta.device)

        def negative(part: Any) -> Tensor:
            return self._batch(theta, *self._rows(part, len(theta)))

        for its_value in self._in_chunks(negative, len(theta), rows):
            value += its_value
        value *= 1.0 if rows is None else self.size / rows.shape[-1]
        if not self.likelihood_only:
            value += 0.5 * ((theta - self.prior_centre) / self.prior_scale).double().square().sum(1)
        return value

    def batches(self, chains: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """Indices ``[C, M]`` of a fresh mini-batch for every chain, drawn with replacement."""
        return torch.randint(self.size, (chains, batch_size), generator=generator, device=generator.device)


def independent_starts(model: BayesianFlow, chains: int, seed: int) -> Tensor:
    """Weights ``[C, P]`` of C networks initialised independently of each other, as torch initialises their layers.

    A flow none of whose layers can be initialised anew (no ``reset_parameters``) starts from draws of the prior.
    """
    flow = copy.deepcopy(model.flow)
    layers = [layer for layer in flow.modules() if callable(getattr(layer, "reset_parameters", None))]
    layers.sort(key=lambda layer: isinstance(layer, NumberOfObjects))  # last: it starts its own layer as it likes
    owned = sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))
    starts = []
    with seeded(seed, model.device):
        for _ in range(chains):
            if owned < model.weights:
                starts.append(model.prior().sample())
                continue
            for layer in layers:
                layer.reset_parameters()  # type: ignore[operator]
            starts.append(torch.cat([p.detach().reshape(-1) for p in flow.parameters()]))
    return torch.stack(starts).to(model.initial_theta)


class Whitened:
    """A potential in coordinates w with ``theta = location + scale * w``; what the kernels see.

    Args:
        potential: the potential of theta.
        location: ``[P]`` or ``[C, P]``.
        scale: ``[P]``, positive. By default kernels work in units of the prior's widths; a trained mean-field guide
            gives the units of its posterior instead.
    """

    def __init__(self, potential: Potential, location: Tensor, scale: Tensor) -> None:
        self.potential, self.location, self.scale = potential, location, scale
        self._launches: dict[str, Launch] = {}
        self._costs: dict[str, float] = {}

    @property
    def size(self) -> int:
        return self.potential.size

    def theta(self, position: Tensor) -> Tensor:
        """Weights of the coordinates ``position [C, P]``."""
        return self.location + self.scale * position

    def position(self, theta: Tensor) -> Tensor:
        """Coordinates of the weights ``theta [C, P]``."""
        return (theta - self.location) / self.scale

    def value_and_gradient(self, position: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`Potential.value_and_gradient`, in these coordinates."""
        value, gradient = self.potential.value_and_gradient(self.theta(position), rows)
        return value, gradient * self.scale

    def value(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """As :meth:`Potential.value`, in these coordinates."""
        return self.potential.value(self.theta(position), rows)

    def batches(self, chains: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """As :meth:`Potential.batches`."""
        return self.potential.batches(chains, batch_size, generator)

    def launch(
        self, name: str, function: Callable[..., tuple[Tensor, ...]], generator: torch.Generator | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """A step in one launch, where the device has such (:class:`~pyrogen.launch.Launch`); gradients are counted.

        Args:
            name: of the step. Steps of one name are the same function of their inputs.
            function: of tensors to a tuple of tensors, which changes nothing in place.
            generator: what it draws random numbers from, if it does.
            *inputs: tensors.
        """
        if name not in self._launches:

            def counted(*values: Tensor) -> tuple[Tensor, ...]:
                before = self.potential.gradients
                found = function(*values)
                self._costs[name] = self.potential.gradients - before
                return found

            self._launches[name] = Launch(counted, self.scale.device, generators=[generator] if generator else [])
        launch = self._launches[name]
        if not launch.recorded:
            return function(*inputs)
        before = self.potential.gradients
        found = tuple(value.clone() for value in launch(*inputs))
        self.potential.gradients = before + self._costs[name]
        return found

    @property
    def records(self) -> bool:
        """Whether steps are recorded, as far as is known."""
        return self.potential.launch.recorded

    @property
    def told(self) -> str:
        """How steps run, and why."""
        launches = [self.potential.launch, *self._launches.values()]
        return next((launch.told for launch in launches if not launch.recorded), launches[0].told)
