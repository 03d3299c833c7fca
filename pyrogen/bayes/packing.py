"""All weights of a module as one vector: the only latent variable of the Bayesian model.

One sample site for all weights is what makes Pyro fast on a deep flow (the cost of a step grows with the
number of sites), and the same vector serves variational inference and every sampler.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyrogen.checks import is_number, shown

Owner = TypeVar("Owner")


class Methods(nn.Module):
    """Lets :func:`torch.func.functional_call`, which calls ``forward``, reach any method of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *args: Any) -> Any:
        return getattr(self.module, method)(*args)


class WeightPacking:
    """Packs the parameters of ``module`` into one vector ``theta [P]`` and calls the module with such a vector.

    Args:
        module: any module with at least one parameter; it is used, not copied.

    Attributes:
        lock: held while the module has other weights than its own: one thread at a time may use it.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = dict(module.named_parameters())
        if not parameters:
            raise ValueError(f"{type(module).__name__} has no parameters; there is nothing to learn")
        self.names = list(parameters)
        self.shapes = [p.shape for p in parameters.values()]
        self.sizes = [p.numel() for p in parameters.values()]
        self.size = sum(self.sizes)
        # Looking for tied parameters at every call takes as long as a small network; mostly there are none.
        self._tied = len(list(module.named_parameters(remove_duplicate=False))) > len(parameters)
        self._methods = Methods(module)
        places = (name.rpartition(".") for name in self.names)
        self._places = [(module.get_submodule(owner), name) for owner, _, name in places]
        self.lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self.lock = threading.RLock()  # a copy has a module of its own

    def copied(self, owner: Owner) -> Owner:
        """A copy of whoever owns the module, made while no other thread has put other weights in it."""
        with self.lock:
            return copy.deepcopy(owner)

    def pack(self) -> Tensor:
        """The module's own parameters as a vector ``[P]``."""
        return torch.cat([p.detach().reshape(-1) for p in self._methods.module.parameters()])

    def unpack(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of ``theta [P]`` by parameter name."""
        if theta.shape != (self.size,):
            raise ValueError(
                f"weights of shape {list(theta.shape)}; this model needs one vector [{self.size}] "
                "(draws one after another, not vectorized: Predictive(parallel=False), vectorize_particles=False)"
            )
        return self.split(theta)

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """Views ``[..., *shape]`` of several vectors ``theta [..., P]`` by parameter name.

        One split, so that its backward is one concatenation.
        """
        several, parts = theta.shape[:-1], theta.split(self.sizes, -1)
        return {
            name: part.view(several + shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def call(self, theta: Tensor, method: str, *args: Any) -> Any:
        """Call ``module.method(*args)`` with the weights ``theta [P]`` in place of the module's own."""
        weights = {f"module.{name}": value for name, value in self.unpack(theta).items()}
        # The module's own weights are taken out while it is called. Compiled code takes none out, and knows no locks.
        with contextlib.nullcontext() if torch.compiler.is_compiling() else self.lock:
            return torch.func.functional_call(self._methods, weights, (method, *args), tie_weights=self._tied)

    def call_side_by_side(self, theta: Tensor, method: str, *args: Any) -> Any:
        """Call ``module.method(*args)`` with parameters of C networks ``[C, ...]`` out of ``theta [C, P]``.

        Only for modules that know such parameters (:mod:`pyrogen.flows.fused`), and have no tied ones. It puts the
        parameters in their places itself: for small networks ``functional_call`` takes longer than what it calls.
        """
        weights = list(self.split(theta).values())  # in the order of the places
        with self.lock:
            homes = [(module._parameters, name) for module, name in self._places]
            own = [parameters[name] for parameters, name in homes]
            try:
                for (parameters, name), values in zip(homes, weights, strict=True):
                    parameters[name] = values  # type: ignore[assignment]
                return getattr(self._methods.module, method)(*args)
            finally:
                for (parameters, name), before in zip(homes, own, strict=True):
                    parameters[name] = before

    def scales(self, widths: float | str | Mapping[str, float]) -> Tensor:
        """A prior width per weight ``[P]``, from one number or from widths by parameter-name pattern.

        Args:
            widths: one width; ``"fan-in"``: 1 over the square root of the number of inputs for every weight matrix, 1
                for every other parameter; or ``{pattern: width}`` with shell patterns such as ``"blocks.0.*"`` or
                ``"*.bias"``; the first pattern that matches a parameter's name counts.

        Raises:
            ValueError: a width that is not positive and finite, or a parameter that no pattern matches.
        """
        if widths == "fan-in":
            fans = [shape[1:].numel() if len(shape) > 1 else 1 for shape in self.shapes]
            return torch.cat([torch.full((n,), fan**-0.5) for n, fan in zip(self.sizes, fans, strict=True)])
        if not (is_number(widths) or isinstance(widths, Mapping)):
            raise ValueError(f'prior_scale is {shown(widths)}; it must be a width, widths by pattern, or "fan-in"')
        patterns: dict[str, Any] = dict(widths) if isinstance(widths, Mapping) else {"*": widths}
        for pattern, width in patterns.items():
            if not (is_number(width) and 0 < width < float("inf")):
                raise ValueError(
                    f"prior_scale is {shown(width)} for {pattern!r}; a prior width must be positive and finite"
                )
        found = []
        for name, size in zip(self.names, self.sizes, strict=True):
            matching = [width for pattern, width in patterns.items() if fnmatchcase(name, pattern)]
            if not matching:
                raise ValueError(
                    f"no pattern of prior_scale matches the parameter {name!r} (patterns: {list(patterns)}); "
                    'end with "*" to cover the rest'
                )
            found.append(torch.full((size,), float(matching[0])))
        return torch.cat(found)
