"""Local reparameterization (Kingma, Salimans, Welling, arXiv:1506.02557): noise on activations instead of on weights.

For a linear layer whose weights are independent Gaussians the pre-activations of an event are Gaussian too,
``a = h mu_W + mu_b + sqrt(h^2 sigma_W^2 + sigma_b^2) * eps``, with an ``eps`` of its own for every event. In training
this lowers the variance of the gradient at the same expectation. It is *not* for predictions: there one weight draw
is one network, whose density integrates to one.

It asks that every layer acts on one row of every event. Where a layer acts on several rows of an event (the members of
a set, steps of a sequence), its one draw of weights moves their activations together, which independent noise does not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrogen.bayes.packing import Methods


class LocalReparameterizationError(ValueError):
    """The module uses its weights in a way that local reparameterization does not cover."""


def check_layers(module: nn.Module) -> None:
    """Check that every parameter belongs to one plain :class:`torch.nn.Linear`, and to no other layer.

    Raises:
        LocalReparameterizationError: naming the parameter that does not, or a layer with hooks, which would be lost.
    """
    seen: dict[int, str] = {}
    for name, owner in module.named_modules(remove_duplicate=False):
        if type(owner) is nn.Linear and (owner._forward_hooks or owner._forward_pre_hooks or "forward" in vars(owner)):
            raise LocalReparameterizationError(f"the linear layer {name} has hooks or a forward of its own")
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

    Its four arrays are placeholders, to be given values by :func:`torch.func.functional_call`. It counts its calls and
    the rows that it has seen.

    Args:
        layer: the layer that it stands for.
        name: its name in the module.
    """

    mean_weight: Tensor
    mean_bias: Tensor | None
    variance_weight: Tensor
    variance_bias: Tensor | None

    def __init__(self, layer: nn.Linear, name: str) -> None:
        super().__init__()
        self.name, self.calls, self.rows = name, 0, 0
        for kind in ("mean", "variance"):
            for parameter, value in (("weight", layer.weight), ("bias", layer.bias)):
                empty = None if value is None else nn.Parameter(value.new_empty(0), requires_grad=False)
                self.register_parameter(f"{kind}_{parameter}", empty)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.rows += inputs.shape[:-1].numel()
        mean = F.linear(inputs, self.mean_weight, self.mean_bias)
        variance = F.linear(inputs * inputs, self.variance_weight, self.variance_bias)
        if self.variance_bias is None:
            # Without a bias an all-zero input has no variance, where the root has no gradient.
            variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
        return torch.addcmul(mean, variance.sqrt(), torch.randn_like(mean))

    def check(self, events: int) -> None:
        """Check that the layer has seen one row of each of ``events`` events.

        Raises:
            LocalReparameterizationError: it has seen more or fewer, or was called more often than once.
        """
        if self.calls != 1:
            raise LocalReparameterizationError(
                f"the linear layer {self.name} is called {self.calls} times for a density, not once"
            )
        if self.rows != events:
            raise LocalReparameterizationError(
                f"the linear layer {self.name} acts on {self.rows} rows of {events} events, not on one row of each: "
                "rows of one event share one draw of the weights, but local reparameterization draws noise for each row"
            )


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
                self.layers.append(NoisyLinear(layer, name))
                noisy.set_submodule(name, self.layers[-1])
        self._methods = Methods(noisy)

    def log_prob(
        self, means: Mapping[str, Tensor], variances: Mapping[str, Tensor], x: Tensor, *context: Tensor
    ) -> Tensor:
        """Log density ``[N]`` at ``x [N, d]`` for weights of these means and variances, by parameter name.

        Raises:
            LocalReparameterizationError: a layer acts on several rows of these events, though it did not in
                :meth:`check`.
        """
        arrays = {}
        for kind, values in (("mean", means), ("variance", variances)):
            for name, value in values.items():
                layer, _, parameter = name.rpartition(".")
                arrays[f"module.{layer}.{kind}_{parameter}"] = value
        for noisy in self.layers:
            noisy.calls = noisy.rows = 0
        # Tied parameters are refused above; looking for them at every call would take as long as a small network.
        found = torch.func.functional_call(self._methods, arrays, ("log_prob", x, *context), tie_weights=False)
        for noisy in self.layers:
            if noisy.rows > len(x):
                noisy.check(len(x))
        return found

    def check(self, means: Mapping[str, Tensor], variances: Mapping[str, Tensor], x: Tensor, *context: Tensor) -> None:
        """Check on example events that every layer is called once for a density, with one row of every event.

        Args:
            means: as in :meth:`log_prob`.
            variances: likewise.
            x: events ``[N, d]``, more than the rows that a layer might have for other reasons.
            *context: their conditions.

        Raises:
            LocalReparameterizationError: a layer is called more or less often, or acts on more or fewer rows (its
                weights then act together in several places, which independent noise does not describe), or is used
                other than by calling it.
        """
        try:
            self.log_prob(means, variances, x, *context)
        except LocalReparameterizationError:
            raise
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise LocalReparameterizationError(f"the flow does not work with noisy linear layers: {error}") from error
        for layer in self.layers:
            layer.check(len(x))
