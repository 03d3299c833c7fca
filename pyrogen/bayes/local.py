"""Local reparameterization (Kingma, Salimans, Welling, arXiv:1506.02557): noise on activations instead of on weights.

For a linear layer whose weights are independent Gaussians the pre-activations of an event are Gaussian too,
``a = h mu_W + mu_b + sqrt(h^2 sigma_W^2 + sigma_b^2) * eps``, with an ``eps`` of its own for every event. In training
this lowers the variance of the gradient at the same expectation. It is *not* for predictions: there one weight draw
is one network, whose density integrates to one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalReparameterizationError(ValueError):
    """The module uses its weights in a way that local reparameterization does not cover."""


def check_layers(module: nn.Module) -> None:
    """Check that every parameter belongs to a plain :class:`torch.nn.Linear`.

    Raises:
        LocalReparameterizationError: naming the parameter that does not.
    """
    for name, owner in module.named_modules():
        if type(owner) is nn.Linear:
            continue
        for parameter, _ in owner.named_parameters(recurse=False):
            raise LocalReparameterizationError(
                f"the parameter {name + '.' if name else ''}{parameter} belongs to a {type(owner).__name__}, "
                "not to a torch.nn.Linear"
            )


@contextlib.contextmanager
def noisy_activations(
    module: nn.Module, means: Mapping[str, Tensor], variances: Mapping[str, Tensor]
) -> Iterator[None]:
    """Within this context every linear layer of ``module`` draws its activations from their Gaussian.

    Args:
        module: a module that :func:`check_layers` accepts.
        means: posterior means by parameter name.
        variances: posterior variances by parameter name.

    Raises:
        LocalReparameterizationError: at the end, if a layer was not called exactly once: its weights then act
            together in several places, which independent noise does not describe.
    """
    layers = {name: layer for name, layer in module.named_modules() if type(layer) is nn.Linear}
    calls = dict.fromkeys(layers, 0)
    for name, layer in layers.items():
        prefix = f"{name}." if name else ""
        bias = f"{prefix}bias" if layer.bias is not None else None
        layer.forward = _noisy_linear(  # type: ignore[assignment, method-assign]
            means[f"{prefix}weight"],
            means[bias] if bias else None,
            variances[f"{prefix}weight"],
            variances[bias] if bias else None,
            calls,
            name,
        )
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward  # the class's own method shows again
    for name, count in calls.items():
        if count != 1:
            raise LocalReparameterizationError(f"the layer {name!r} was called {count} times for a density, not once")


def _noisy_linear(
    mean_weight: Tensor,
    mean_bias: Tensor | None,
    variance_weight: Tensor,
    variance_bias: Tensor | None,
    calls: dict[str, int],
    name: str,
) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        calls[name] += 1
        mean = F.linear(inputs, mean_weight, mean_bias)
        variance = F.linear(inputs * inputs, variance_weight, variance_bias)
        if variance_bias is None:
            # Without a bias an all-zero input has no variance, where the root has no gradient.
            variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
        return torch.addcmul(mean, variance.sqrt(), torch.randn_like(mean))

    return forward
