"""Probabilities of the number of objects of an event."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, checked_context
from pyrogen.events.containers import numbers_of
from pyrogen.posterior.predictor import Predictor


def multiplicities(predictor: Predictor, draws: int | None, context: Any, seed: int) -> Tensor:
    """The work of :meth:`~pyrogen.Posterior.multiplicities`."""
    model = predictor.model
    if model.multiplicity is None or not callable(getattr(model.flow, "probabilities", None)):
        raise ValueError(
            f"{type(model.flow).__name__} knows no numbers of objects; pg.MultiplicityFlow does, as the flow of events "
            "with a varying number of objects"
        )
    rows = None if context is None else numbers_of(predictor.conditions_in_order(context), "context")
    n = len(rows) if rows is not None and rows.ndim == 2 else 1
    checked = checked_context(rows, model.context, n)
    given = model._conditions(None if checked is None else as_tensor(checked, model.input_dtype, model.device))
    with torch.no_grad():
        thetas = predictor.weights.draws(predictor.weights.count(draws), seed)
        return torch.stack([model.packing.call(theta, "probabilities", *given) for theta in thetas]).double()
