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
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrogen.bayes.noise import Noise
from pyrogen.bayes.packing import WeightPacking
from pyrogen.flows import compiled

Pair = tuple[Tensor, ...] | Tensor  # what belongs to means and to variances; on a card in one tensor [2, ...]


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

    It counts its calls and the rows that it has seen.

    Args:
        layer: the layer that it stands for.
        name: its name in the module.

    Attributes:
        weight, bias: means and variances, to be given values before a call; a pair, or one tensor ``[2, ...]``, of R
            networks side by side ``[2, R, ...]``.
        noise: its noise, likewise.
    """

    weight: Pair
    bias: Pair | None
    noise: Noise | None

    def __init__(self, layer: nn.Linear, name: str) -> None:
        super().__init__()
        self.name, self.units, self.has_bias = name, layer.out_features, layer.bias is not None
        self.calls = self.rows = 0
        self.forget()

    def forget(self) -> None:
        """Drop the values, which hold the graph of their gradient."""
        self.weight, self.bias, self.noise = (), None, None

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        rows = inputs.shape[:-1].numel()
        self.rows += rows
        mean, variance = self._moments(inputs)
        if not self.has_bias:
            # Without a bias an all-zero input has no variance, where the root has no gradient.
            variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
        assert self.noise is not None
        noise = self.noise.of_layer(rows, self.units)
        if len(noise) != rows:  # not one row of every event, which check tells about
            noise = torch.randn_like(mean)
        return torch.addcmul(mean, variance.sqrt(), noise.view(mean.shape))

    def _moments(self, inputs: Tensor) -> Sequence[Tensor]:
        """Means and variances of the activations."""
        if not isinstance(self.weight, Tensor):
            biases = self.bias if isinstance(self.bias, tuple) else (None, None)
            both = zip((inputs, inputs * inputs), self.weight, biases, strict=True)
            return [F.linear(values, weight, bias) for values, weight, bias in both]
        *several, outputs, features = self.weight.shape
        networks, bias = math.prod(several), self.bias if isinstance(self.bias, Tensor) else None
        if torch.compiler.is_compiling() and min(outputs, features) <= compiled.NARROW:
            values, biases = (inputs, inputs * inputs), (None, None) if bias is None else bias.unbind()
            return [compiled.linear(*its) for its in zip(values, self.weight.unbind(), biases, strict=True)]
        pair = torch.stack([inputs, inputs * inputs]).view(networks, -1, features)
        weight = self.weight.view(networks, outputs, features).mT
        found = pair @ weight if bias is None else torch.baddbmm(bias.view(networks, 1, outputs), pair, weight)
        return found.view(2, *inputs.shape[:-1], outputs).unbind()

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
        self._packing = WeightPacking(module)
        self._noisy = copy.deepcopy(module)
        self.layers: list[NoisyLinear] = []
        for name, layer in list(self._noisy.named_modules()):
            if type(layer) is nn.Linear:
                self.layers.append(NoisyLinear(layer, name))
                self._noisy.set_submodule(name, self.layers[-1])
        self.units = sum(layer.units for layer in self.layers)
        self._whole: tuple[int, Callable[..., Tensor]] | None = None

    def log_prob(self, mean: Tensor, variance: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        """Log density ``[N]`` at ``x [N, d]`` for weights of these means and variances ``[P]``.

        Of R networks side by side, in modules that know batches of events, it is ``[R, N]`` at ``x [R, N, d]`` for
        means and variances ``[R, P]``.

        Raises:
            LocalReparameterizationError: a layer acts on several rows of these events, though it did not in
                :meth:`check`.
        """
        noise = Noise.draw(x.shape[:-1].numel(), self.units, mean)
        given = self.log_prob_given
        if mean.device.type == "cpu" and compiled.is_wanted():
            # A card, which replays its steps, has as much of compiled blocks, which take a fraction of the time.
            if self._whole is None or self._whole[0] != id(self):  # a copy needs its own
                self._whole = id(self), compiled.compiled_whole(given)
            given = self._whole[1]
        return given(noise, mean, variance, x, *context)

    def log_prob_given(self, noise: Noise, mean: Tensor, variance: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        """The same for given noise: no random numbers are drawn."""
        each = noise.layers([layer.units for layer in self.layers])
        for layer, own, weights in zip(self.layers, each, self._weights(mean, variance), strict=True):
            layer.calls = layer.rows = 0
            layer.noise = own
            layer.weight, layer.bias = weights
        try:
            found = self._noisy.log_prob(x, *context)  # type: ignore[operator]
        finally:
            for layer in self.layers:
                layer.forget()
        events = x.shape[:-1].numel()
        for layer in self.layers:
            if layer.rows > events:
                layer.check(events)
        return found

    def _weights(self, mean: Tensor, variance: Tensor) -> Iterator[tuple[Pair, Pair | None]]:
        """Means and variances of the weights and of the biases of every layer."""
        by_name: Mapping[str, Pair]
        if mean.device.type == "cpu" and mean.ndim == 1:
            means, variances = self._packing.unpack(mean), self._packing.unpack(variance)
            by_name = {name: (means[name], variances[name]) for name in means}
        else:
            # On a card every call costs, however small: one product for both. On a CPU it is slower than two.
            by_name = self._packing.split(torch.stack([mean, variance]))
        for layer in self.layers:
            yield by_name[f"{layer.name}.weight"], by_name.get(f"{layer.name}.bias")

    def check(self, mean: Tensor, variance: Tensor, x: Tensor, *context: Tensor) -> None:
        """Check on example events that every layer is called once for a density, with one row of every event.

        Args:
            mean: as in :meth:`log_prob`.
            variance: likewise.
            x: events ``[N, d]``, more than the rows that a layer might have for other reasons.
            *context: their conditions.

        Raises:
            LocalReparameterizationError: a layer is called more or less often, or acts on more or fewer rows (its
                weights then act together in several places, which independent noise does not describe), or is used
                other than by calling it.
        """
        try:
            self.log_prob(mean, variance, x, *context)
        except LocalReparameterizationError:
            raise
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise LocalReparameterizationError(f"the flow does not work with noisy linear layers: {error}") from error
        for layer in self.layers:
            layer.check(len(x))
