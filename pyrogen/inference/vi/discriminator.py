"""A discriminator between true and generated events that is trained beside a flow, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrogen.classifier import Classifier, Features
from pyrogen.inference.run.checkpoint import CheckpointMismatchError
from pyrogen.inference.vi.objective import load_moments, make_adam, moments_of
from pyrogen.seeds import seeded

SCALED_BY = 100_000  # events do to take centres and scales of the variables from
BETAS = (0.9, 0.999)


class Discriminator:
    """The network of :class:`~pyrogen.diagnostics.Classifier` on events, observables of them and their conditions.

    Variables that some of the events do not have, NaN, such as those of further jets, come with a flag each.

    Args:
        events: true events ``[N, d]``, which centres and scales of its inputs are taken from.
        context: their conditions ``[N, k]``, or None.
        observables: further variables ``[N, m]`` of events ``[N, d]`` (float64), or None.
        hidden: widths of its layers.
        seed: seeds its weights.

    Raises:
        ValueError: observables that are no table of finite numbers (or NaN) of their own for every event.
    """

    def __init__(
        self, events: Tensor, context: Tensor | None, observables: Features | None, hidden: Sequence[int], seed: int
    ) -> None:
        self.observables = observables
        self.columns: int | None = None  # of the observables
        seen = self._seen(events, context).cpu()
        check_seen(seen, events.shape[1])
        missing = seen.isnan().any(0).nonzero()[:, 0].tolist()
        with seeded(seed):
            self.classifier = Classifier(seen.shape[1], hidden, missing=missing)
        self.classifier._fit_scales(seen)
        self.classifier.to(events.device)
        self.optimizer = make_adam([list(self.classifier.network.parameters())], BETAS)

    @torch.no_grad()
    def standardise(self, events: Tensor, context: Tensor | None) -> Tensor:
        """What the network sees of events ``[N, d]``."""
        return self.classifier._scaled(self._seen(events, context))

    @torch.no_grad()
    def log_ratio(self, standardised: Tensor) -> Tensor:
        """log p_truth / p_generated ``[N]``, without gradients."""
        return self.classifier.logit(standardised)

    def learn(self, true: Tensor, generated: Tensor, weights: tuple[Tensor, Tensor], rate: float) -> float:
        """A step of Adam on a batch of both classes; returns the cross-entropy before it, log 2 that of a guess.

        Args:
            true, generated: standardised events ``[M, k]``; rows that are not finite do not count.
            weights: of the events of both classes, ``[M]`` each, with mean one.
            rate: learning rate.
        """
        fine = [each.isfinite().all(1) for each in (true, generated)]
        inputs = torch.cat([torch.where(ok[:, None], x, 0.0) for x, ok in zip((true, generated), fine, strict=True)])
        signs = torch.cat([torch.ones(len(true)), -torch.ones(len(generated))]).to(inputs)
        counts = torch.cat([torch.where(ok, w, 0.0) for w, ok in zip(weights, fine, strict=True)])
        loss = (counts * softplus(-signs * self.classifier.logit(inputs))).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return float(loss.detach())

    def tensors(self) -> dict[str, Tensor]:
        """Network, scales and Adam's moments by name."""
        return {f"network.{name}": value for name, value in self.classifier.state_dict().items()} | {
            f"adam.{name}": value for name, value in moments_of(self.optimizer).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave.

        Raises:
            CheckpointMismatchError: it was of other observables, as their centres and scales tell. Their name does
                not: all functions that are written as ``lambda`` have the same one.
        """
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "adam": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        for name in ("centre", "scale"):
            saved, own = parts["network"][name], getattr(self.classifier, name).cpu()
            if saved.shape != own.shape or not torch.allclose(saved, own, rtol=1e-6, atol=0.0):
                raise CheckpointMismatchError(
                    f"the checkpoint belongs to a run with other observables: of {len(saved)} variables that the "
                    f"discriminator sees the {name} is {saved.tolist()} in the file and {own.tolist()} in this run"
                )
        self.classifier.load_state_dict(parts["network"])
        load_moments(self.optimizer, parts["adam"])

    def _seen(self, events: Tensor, context: Tensor | None) -> Tensor:
        parts = [events.double()]
        if self.observables is not None:
            # A copy of their own: observables may compute in place.
            found = _table(self.observables(events.to(torch.float64, copy=True)), len(events), self.columns)
            self.columns = found.shape[1]
            parts.append(found.to(parts[0]))
        return torch.cat(parts if context is None else [*parts, context.double()], 1)


def _table(found: Any, n: int, columns: int | None) -> Tensor:
    """Checked observables of n events, with as many columns as before (None: any number)."""
    table = isinstance(found, Tensor) and found.ndim == 2 and len(found) == n
    if not table or found.is_complex() or columns not in (None, found.shape[1]):
        shape = f"{list(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        width = "m" if columns is None else columns
        raise ValueError(
            f"observables(events) is {shape}; it must be a tensor of real numbers [{n}, {width}], one row per event"
        )
    return found.detach()


def check_seen(seen: Tensor, features: int) -> None:
    """Check what a discriminator is to see of true events.

    Raises:
        ValueError: an infinite number, or a variable that no event has.
    """
    for column in range(seen.shape[1]):
        values = seen[:, column]
        name = f"column {column} of the events" if column < features else f"observable {column - features}"
        if values.isinf().any():
            raise ValueError(f"{name} is infinite in row {int(values.isinf().nonzero()[0])}; it must be finite, or NaN")
        if values.isnan().all():
            raise ValueError(f"{name} is NaN in all of {len(seen)} events; leave it out")
