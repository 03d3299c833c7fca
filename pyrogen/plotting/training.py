"""The training curve; [A] is arXiv:2104.04543."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import door

from .sheet import AX, Place, Sheet
from .style import FIT, HISTORY, PREDICTION, TRUTH, VALIDATION, plain_numbers, styled


@styled
@door(history=HISTORY, ax=AX)
def plot_training(history: Mapping[str, ArrayLike], *, ax: Place | None = None) -> Figure:
    """Loss = negative log-likelihood + KL/N, and its two parts, per event against the epoch [A eq. 16].

    A few values far above all others (the first epoch, a single bad batch) leave the panel; an arrow marks their epoch.
    Of the networks of a bootstrap, an ensemble or Laplace there is one panel: the loss of each against the step.

    Args:
        history: ``posterior.history``: ``"loss"``, ``"nll"`` and ``"kl"``, ``[epochs]`` in nats per event, and
            ``"validation_nll"`` if events were held out (NaN otherwise); of several networks ``"loss"`` ``[R, points]``
            and ``"step"`` ``[points]``.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: a curve that is missing, empty, of another length, or without a finite number.
    """
    curves = {name: np.asarray(values, dtype=np.float64) for name, values in history.items()}
    if "step" in curves and curves.get("loss", np.empty(0)).ndim == 2:
        return _networks(curves["step"], curves["loss"], ax)
    missing = [name for name in ("loss", "nll", "kl") if not curves.get(name, np.empty(0)).size]
    if missing:
        raise ValueError(f"the history has no {', '.join(missing)}; it has {', '.join(map(str, curves)) or 'nothing'}")
    length = curves["loss"].shape
    known = [name for name in ("nll", "kl", "validation_nll") if curves.get(name, np.empty(0)).size]
    others = [name for name in known if curves[name].shape != length]
    if others or len(length) != 1:
        raise ValueError(f"the curves {', '.join(others)} in the history have other lengths than loss {list(length)}")
    for name in ("loss", "nll", "kl"):
        if not np.isfinite(curves[name]).any():
            raise ValueError(f"{name} in the history has no finite number to draw")
    epochs = np.arange(1, len(curves["loss"]) + 1)
    # A line through one point is invisible.
    line: Any = {"marker": "o" if len(epochs) == 1 else ""}
    sheet = Sheet(ax, 17, 4.8)
    loss, likelihood, divergence = sheet.panels(["loss", "NLL", "KL"])
    loss.plot(epochs, curves["loss"], color=TRUTH, **line)
    loss.set_ylabel("loss [nats per event]")
    likelihood.plot(epochs, curves["nll"], color=PREDICTION, label="training events", **line)
    validation = curves.get("validation_nll", np.empty(0))
    if validation.size and np.isfinite(validation).any():
        likelihood.plot(epochs, validation, color=VALIDATION, linestyle="--", label="held-out events", **line)
        likelihood.legend(loc="upper right")
    likelihood.set_ylabel("NLL [nats per event]")
    divergence.plot(epochs, curves["kl"], color=FIT, **line)
    divergence.set_ylabel("KL / N [nats per event]")
    smallest = curves["kl"].min()
    if smallest > 0 and curves["kl"].max() > 10 * smallest:
        divergence.set_yscale("log")
        plain_numbers(divergence.yaxis)
    for axis in (loss, likelihood, divergence):
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_xlim(min(1, len(epochs) - 1), max(len(epochs), 2))
        _limit(axis)
    return sheet.figure


def _networks(step: NDArray[np.float64], loss: NDArray[np.float64], ax: Place | None) -> Figure:
    """The loss of every network against the step, and their median."""
    if loss.shape[1:] != step.shape or not np.isfinite(loss).any():
        raise ValueError(
            f"loss in the history has the shape {list(loss.shape)}, with {np.isfinite(loss).sum()} finite numbers; it "
            f"must be [R, {len(step)}] as step is"
        )
    sheet = Sheet(ax, 8, 4.8)
    (axis,) = sheet.panels(["loss"])
    for row in loss:
        axis.plot(step, row, color=PREDICTION, linewidth=0.8, alpha=max(0.15, 1 / len(loss)))
    if len(loss) > 1:
        axis.plot(step, np.nanmedian(loss, 0), color=TRUTH, label=f"median of {len(loss)} networks")
        axis.legend(loc="upper right")
    axis.set_xlabel("step")
    axis.set_ylabel("loss [nats per event]")
    axis.set_xlim(min(step[0], step[-1] - 1), step[-1])
    _limit(axis)
    return sheet.figure


def _limit(axis: Axes) -> None:
    """Fit the y axis to all but the largest twentieth of the values, if these would squeeze the others."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axis.lines])
    values = values[np.isfinite(values)]
    low, usual, high = np.quantile(values, [0, 0.95, 1], method="lower")
    if axis.get_yscale() != "linear" or usual == low or high - low <= 3 * (usual - low):
        return
    top = usual + 0.1 * (usual - low)
    for line in list(axis.lines):
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), dtype=np.float64)
        axis.plot(
            x[y > top],
            np.full(np.sum(y > top), 0.97),
            transform=axis.get_xaxis_transform(),  # the height is a fraction of the panel's
            marker="^",
            linestyle="",
            color=line.get_color(),
        )
    axis.set_ylim(low - 0.05 * (usual - low), top)
