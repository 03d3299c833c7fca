"""The description of a model in a file, checked before a flow is made of it: types of its entries, and sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

MOST_PARTS = 1000
"""The most bijections that a preprocessing is made of."""
MOST_BINS = 10_000
LARGEST_MIXING = 2**26
"""The most numbers of a rotation, ``features^2``, that a flow is made with; so many features have no other limit."""


def check_description(description: Any, weights: int) -> None:
    """Check what :meth:`pyrogen.BayesianFlow.describe` told, before memory is taken for it.

    Args:
        description: the description, from JSON.
        weights: number of weights that the file holds.

    Raises:
        ValueError: an entry that is missing, has another type, or asks for more weights than the file holds, by name.
    """
    _require(isinstance(description, Mapping), "model", description, "a mapping")
    kinds: dict[str, Any] = {
        "flow": str,
        "flow_config": (Mapping, type(None)),
        "features": (int, type(None)),
        "parameters": list,
        "prior_scale": (int, float, str, Mapping),
        "preprocessing": Mapping,
    }
    for name, kind in kinds.items():
        _require(name in description, name, "missing", "there")
        good = isinstance(description[name], kind) and not isinstance(description[name], bool)
        _require(good, name, description[name], "of another type")
    features = description["features"]
    _require(features is None or features > 0, "features", features, "a whole number of at least 1")
    dtype = description.get("dtype")
    _require(dtype in ("float32", "float64"), "dtype", dtype, "float32 or float64")
    held = sum(_size(parameter) for parameter in description["parameters"])
    _require(held == weights, "parameters", f"a list of {held} weights", f"one of {weights}, as many as in the file")
    if description["flow_config"] is not None:
        _check_flow(_one_part(description["flow_config"]), weights)
    _check_parts(description["preprocessing"])


def _size(parameter: Any) -> int:
    good = isinstance(parameter, list) and len(parameter) == 2 and isinstance(parameter[1], list)
    good = good and isinstance(parameter[0], str) and all(type(n) is int and n >= 0 for n in parameter[1])
    _require(good, "parameters", parameter, "a list of names and shapes")
    return math.prod(parameter[1])


def _one_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What :func:`_check_flow` asks of a flow; of a chain of flows, of its largest part.

    Every further part has at least a weight for every block and every feature of its own.
    """
    if "most" in config:
        parts: dict[str, Any] = {name: config.get(name) for name in ("shared", "each", "most", "least")}
        for name, value in parts.items():
            _require(type(value) is int and 0 <= value < 2**31, f"flow_config.{name}", value, "a whole number")
        count = parts["most"] - parts["least"] + 1
        features = parts["shared"] + parts["each"] * parts["most"]
    elif "sizes" in config or "layers" in config:
        name = "sizes" if "sizes" in config else "layers"
        sizes = _list(config[name], f"flow_config.{name}")
        fine = len(sizes) > 0 and all(type(n) is int and 0 < n < 2**31 for n in sizes)
        _require(fine, f"flow_config.{name}", sizes, "a list of whole numbers")
        features = sum(sizes)
        count = len(sizes) if name == "sizes" else 1 + sum(size > 1 for size in sizes)
    else:
        return config
    blocks, hidden = (_list(config.get(name), f"flow_config.{name}") for name in ("blocks", "hidden"))
    _require(0 < count == len(blocks) == len(hidden), "flow_config.blocks", blocks, f"numbers of {count} parts")
    _require(all(type(n) is int for n in blocks), "flow_config.blocks", blocks, "whole numbers")
    largest = max(range(count), key=lambda i: (blocks[i], str(hidden[i])))
    return {"context": 0, **config, "features": features, "blocks": blocks[largest], "hidden": hidden[largest]}


def _check_flow(config: Mapping[str, Any], weights: int) -> None:
    """A flow has at least the weights between its hidden layers, and one for each feature that a block moves."""
    whole = {name: config.get(name, 0) for name in ("features", "blocks", "bins", "context")}
    for name, value in whole.items():
        _require(type(value) is int and value >= 0, f"flow_config.{name}", value, "a whole number")
    hidden = _list(config.get("hidden"), "flow_config.hidden")
    _require(all(type(n) is int and n > 0 for n in hidden), "flow_config.hidden", hidden, "a list of whole numbers")
    layers = sum(a * b for a, b in itertools.pairwise(hidden)) + sum(hidden)
    least = {
        "blocks": whole["blocks"] * max(layers, 1),
        "features": whole["features"] // 2,
        "bins": whole["bins"] // MOST_BINS,  # not every transform has weights for each
        "context": whole["context"],
    }
    for name, needed in least.items():
        _require(needed <= weights, f"flow_config.{name}", config[name], f"possible with the {weights} weights there")
    fine = whole["features"] ** 2 <= LARGEST_MIXING or config.get("mixing") != "rotation"
    _require(fine, "flow_config.features", whole["features"], "smaller for a flow with rotations")


def _check_parts(preprocessing: Mapping[str, Any]) -> None:
    waiting, seen = [preprocessing], 0
    while waiting:
        config = waiting.pop()
        seen += 1
        _require(isinstance(config, Mapping), "preprocessing", config, "a mapping")
        _require(seen <= MOST_PARTS, "preprocessing", f"more than {MOST_PARTS} parts", f"at most {MOST_PARTS} parts")
        waiting.extend(_list(config.get("parts", []), "preprocessing.parts"))


def _list(value: Any, name: str) -> list[Any]:
    _require(isinstance(value, list), name, value, "a list")
    return value


def _require(good: bool, name: str, value: Any, right: str) -> None:
    if not good:
        raise ValueError(f"{name} is {str(value)[:80]}; it must be {right}")
