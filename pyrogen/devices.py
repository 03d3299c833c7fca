"""Devices: which one a name means, and what a record calls it."""

from __future__ import annotations

import torch


def exact(device: torch.device | str) -> torch.device:
    """A device with its number: ``"cuda"`` is the card that torch uses now, such as ``cuda:0``."""
    return torch.empty(0, device=device).device


def told(device: torch.device | str) -> str:
    """A device for a record: ``"cpu"``, or ``"cuda:0 (NVIDIA H100)"``."""
    found = exact(device)
    return f"{found} ({torch.cuda.get_device_name(found)})" if found.type == "cuda" else str(found)
