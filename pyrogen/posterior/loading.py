"""Posteriors from their files."""

from __future__ import annotations

import os

import torch
from torch import nn

from pyrogen.checks import DEVICE, PATH, door, instance, optional
from pyrogen.log import LOG
from pyrogen.posterior import files
from pyrogen.posterior.posterior import Posterior


@door(path=PATH, flow=optional(instance(nn.Module, "a torch.nn.Module with log_prob and sample")), device=DEVICE)
def load(path: str | os.PathLike[str], flow: nn.Module | None = None, device: torch.device | str = "cpu") -> Posterior:
    """Load a posterior that :meth:`Posterior.save` wrote; on the same kind of device it predicts bit for bit the same.

    Args:
        path: the HDF5 file.
        flow: the flow, for a posterior over a flow that is not a :class:`~pyrogen.CouplingFlow` (files hold numbers,
            never code); its parameters must have the names and shapes of the saved one.
        device: where it is to predict, whatever device it was trained on (``info.device`` tells).

    Raises:
        ValueError: a device that this machine does not have.
        FileNotFoundError: no such file.
        FileFormatError: not a posterior, truncated, damaged, of a newer version, or not fitting ``flow``: other
            parameters, other buffers, or another density at the training events that the file remembers.
    """
    model, weights, history, info, probes, snapshots = files.read(path, flow)
    posterior = Posterior(model, weights, history, info, probes=probes)
    posterior.snapshots = snapshots
    LOG.info("loaded the posterior %s: %r", path, posterior)
    return posterior.to(device)
