"""Local reparameterization (Kingma, Salimans, Welling, arXiv:1506.02557): noise on activations instead of on weights.

For a linear layer whose weights are independent Gaussians the pre-activations of an event are Gaussian too,
``a = h mu_W + mu_b + sqrt(h^2 sigma_W^2 + sigma_b^2) * eps``, with an ``eps`` of its own for every event. In training
this lowers the variance of the gradient at the same expectation. It is *not* for predictions: there one weight draw
is one network, whose density integrates to one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrogen.bayes.packing import Methods


class LocalReparameterizationError(ValueError):
    """The module uses its weights in a way that local reparameterization does not cover."""


def check_layers(module: nn.Module) -> None:
    """Check that every parameter belongs to one plain :class:`torch.nn.Linear`, and to no other layer.

    Raises:
        LocalReparameterizationError: naming the parameter that does not.
    """
    seen: dict[int, str] = {}
    for name, owner in module.named_modules(remove_duplicate=False):
        for parameter, value in owner.named_parameters(name, recurse=False):
            if type(owner) is not nn.Linear:
                raise LocalReparameterizationError(
                    f"the parameter {parameter} belongs to a {type(owner).__name__}, not to a torch.nn.Linear"
                )
            if id(value) in seen:
                raise LocalReparameterizationError(f"{parameter} and {seen[id(value)]} are the same parameter")
            seen[id(value)] = parameter


class NoisyLinear(nn.Module):
    """A linear layer whose weights are independent Gaussians: every row of its input draws its own activations.

    Its four arrays are placeholders, to be given values by :func:`torch.func.functional_call`.
    """

    mean_weight: Tensor
    mean_bias: Tensor | None
    variance_weight: Tensor
    variance_bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        for kind in ("mean", "variance"):
            for name, parameter in (("weight", layer.weight), ("bias", layer.bias)):
                empty = None if parameter is None else nn.Parameter(parameter.new_empty(0), requires_grad=False)
                self.register_parameter(f"{kind}_{name}", empty)

    def forward(self, inputs: Tensor) -> Tensor:
        mean = F.linear(inputs, self.mean_weight, self.mean_bias)
        variance = F.linear(inputs * inputs, self.variance_weight, self.variance_bias)
        if self.variance_bias is None:
            # Without a bias an all-zero input has no variance, where the root has no gradient.
            variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
        return torch.addcmul(mean, variance.sqrt(), torch.randn_like(mean))


class LocalFlow:
    """A copy of a module with a :class:`NoisyLinear` in place of every linear layer.

    Args:
        module: a module that :func:`check_layers` accepts.
    """

    def __init__(self, module: nn.Module) -> None:
        check_layers(module)
        noisy = copy.deepcopy(module)
        self.layers: list[NoisyLinear] = []
        for name, layer in list(noisy.named_modules()):
            if type(layer) is nn.Linear:
                self.layers.append(NoisyLinear(layer))
                noisy.set_submodule(name, self.layers[-1])
        self._methods = Methods(noisy)

    def call(self, means: Mapping[str, Tensor], variances: Mapping[str, Tensor], method: str, *args: Any) -> Any:
        """Call ``module.method(*args)`` for weights of these means and variances, by parameter name."""
        arrays = {}
        for kind, values in (("mean", means), ("variance", variances)):
            for name, value in values.items():
                layer, _, parameter = name.rpartition(".")
                arrays[f"module.{layer}.{kind}_{parameter}"] = value
        # Tied parameters are refused above; looking for them at every call would take as long as a small network.
        return torch.func.functional_call(self._methods, arrays, (method, *args), tie_weights=False)

    def check_calls(self, run: Callable[[], Any]) -> None:
        """Check that ``run()`` calls every layer exactly once.

        Raises:
            LocalReparameterizationError: a layer is called more or less often (its weights then act together in
                several places, which independent noise does not describe), or is used other than by calling it.
        """
        calls = [0] * len(self.layers)

        def count(index: int) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                calls[index] += 1

            return hook

        handles = [layer.register_forward_hook(count(i)) for i, layer in enumerate(self.layers)]
        try:
            run()
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise LocalReparameterizationError(f"the flow does not work with noisy linear layers: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
        for index, number in enumerate(calls):
            if number != 1:
                raise LocalReparameterizationError(
                    f"linear layer {index} is called {number} times for a density, not once"
                )
