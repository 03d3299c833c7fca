"""Generator and discriminator of [D] sec. 2, for R trainings in one batch: their weights are rows of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import elu, leaky_relu

SLOPE = 0.01  # of LeakyReLU, as in [D]
LEAST_VARIANCE = 1e-8  # of a batch statistic: the square root has no derivative at zero

Weights = Mapping[str, Tensor]


class Uniform:
    """Uniform random numbers of R trainings, each from a stream of its own: none depends on how many others there are.

    Args:
        seeds: one of every training.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), ``[R, *shape]``."""
        found = torch.empty(len(self._generators), *shape)
        for row, generator in zip(found, self._generators, strict=True):
            torch.rand(shape, generator=generator, out=row)
        return found

    def symmetric(self, *shape: int) -> Tensor:
        """Numbers in [-1, 1), ``[R, *shape]``."""
        return self(*shape).mul_(2).sub_(1)


def layers(uniform: Uniform, name: str, widths: Sequence[int]) -> dict[str, Tensor]:
    """Weights ``[R, in, out]`` and biases ``[R, 1, out]`` of fully connected layers, drawn as torch draws them."""
    found = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        bound = fan_in**-0.5
        found[f"{name}.{i}.weight"] = uniform.symmetric(fan_in, fan_out) * bound
        found[f"{name}.{i}.bias"] = uniform.symmetric(1, fan_out) * bound
    return found


def generator_weights(uniform: Uniform, noise: int, hidden: Sequence[int], features: int) -> dict[str, Tensor]:
    """Weights of a generator before the training."""
    return layers(uniform, "generator", (noise, *hidden, features))


def discriminator_weights(
    uniform: Uniform, features: int, embedding: Sequence[int], hidden: Sequence[int]
) -> dict[str, Tensor]:
    """Weights of a discriminator before the training; the last of ``embedding`` is the number m of statistics."""
    embed = layers(uniform, "embedding", (features, *embedding))
    return embed | layers(uniform, "discriminator", (features + embedding[-1], *hidden, 1))


def depth(weights: Weights, name: str) -> int:
    """Number of layers of a network."""
    return sum(key.startswith(f"{name}.") for key in weights) // 2


def apply(weights: Weights, name: str, i: int, x: Tensor) -> Tensor:
    """Layer ``i`` of a network at ``x [R, n, in]``: ``[R, n, out]``."""
    return torch.baddbmm(weights[f"{name}.{i}.bias"], x, weights[f"{name}.{i}.weight"])


def masks(uniform: Uniform, n: int, hidden: Sequence[int], dropout: float) -> list[Tensor]:
    """What the outputs of every hidden layer at n inputs are multiplied with: 0, or what makes up for it."""
    if not dropout:
        return []
    kept = (uniform(n, sum(hidden)) >= dropout).float().div_(1 - dropout)
    return list(kept.split(list(hidden), 2))


def generate(weights: Weights, noise: Tensor, dropped: Sequence[Tensor]) -> Tensor:
    """Events ``[R, n, d]`` of ``noise [R, n, k]``, uniform in [-1, 1].

    Args:
        weights: of the generators.
        noise: what the events are made of.
        dropped: the :func:`masks` of the hidden layers; dropout belongs to the generator, also after the training.
    """
    last = depth(weights, "generator") - 1
    for i in range(last):
        noise = elu(apply(weights, "generator", i, noise))
        if dropped:
            noise = noise * dropped[i]
    return apply(weights, "generator", last, noise)


def batch_statistics(weights: Weights, x: Tensor) -> Tensor:
    """Std over the batch of an embedding of the differences to every event [D]: ``[R, B, n, m]`` of ``x [R, B, n, d]``.

    It tells the discriminator of how far apart the events of a batch are, whatever their order.
    """
    r, b, n, _ = x.shape
    # The first layer is linear in the difference: it is applied to events, of which there are fewer than of pairs.
    first = (x.flatten(1, 2) @ weights["embedding.0.weight"]).view(r, b, n, -1)
    pairs = first[:, :, None] - first[:, :, :, None] + weights["embedding.0.bias"][:, :, None, None]
    pairs = leaky_relu(pairs, SLOPE).flatten(1, 3)
    for i in range(1, depth(weights, "embedding")):
        pairs = leaky_relu(apply(weights, "embedding", i, pairs), SLOPE)
    pairs = pairs.view(r, b, n, n, -1)
    centred = pairs - pairs.mean(3, keepdim=True)
    return (centred.square().mean(3) + LEAST_VARIANCE).sqrt()  # Tensor.var takes ten times as long


def discriminate(weights: Weights, x: Tensor, dropped: Sequence[Tensor]) -> Tensor:
    """Logits ``[R, B, n]`` of B batches of events ``x [R, B, n, d]``: positive where an event seems true.

    Args:
        weights: of the discriminators.
        x: the batches; each event is seen beside the others of its batch.
        dropped: the :func:`masks` of the hidden layers at ``B n`` events.
    """
    h = torch.cat([x, batch_statistics(weights, x)], 3).flatten(1, 2)
    last = depth(weights, "discriminator") - 1
    for i in range(last):
        h = leaky_relu(apply(weights, "discriminator", i, h), SLOPE)
        if dropped:
            h = h * dropped[i]
    return apply(weights, "discriminator", last, h).view(x.shape[:3])
