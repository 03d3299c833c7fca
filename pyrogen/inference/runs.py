"""What the runs of all backends share: checked settings and data, and what a result tells of its making."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import require
from pyrogen.inference.run.data import TrainingData, check_on_support


def check_dtype(settings: Any) -> None:
    """Check the ``dtype`` of a backend's settings."""
    require(
        settings.dtype in (None, torch.float32, torch.float64),
        "dtype",
        settings.dtype,
        "torch.float32 or torch.float64",
    )


def prepare(
    settings: Any, model: BayesianFlow, events: Any, weights: Any, context: Any
) -> tuple[BayesianFlow, TrainingData]:
    """The model prepared for checked data, in the ``dtype`` and on the ``device`` of a backend's settings.

    Raises:
        ValueError: events, weights or context that cannot be learned from.
    """
    data = TrainingData.check(model, events, weights, context, settings.dtype or model.dtype, settings.device)
    model = model.prepare(data.events, data.weights, dtype=settings.dtype, device=settings.device)
    check_on_support(model, data.events)
    return model, data


def describe(settings: Any, *left_out: str) -> dict[str, Any]:
    """The settings of a backend by name, but for those that do not decide its result; ``dtype`` by its name."""
    told = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in left_out}
    return told | {"dtype": None if settings.dtype is None else str(settings.dtype).removeprefix("torch.")}


def run_info(settings: Any, data: TrainingData) -> dict[str, Any]:
    """What every result tells of how it came about, in JSON types."""
    return {
        "backend": type(settings).__name__,
        "settings": settings.describe(),
        "data_sha256": data.digest,
        "names": data.names,
        "units": data.units,
    }
