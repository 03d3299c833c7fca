"""Mixings: what happens to the features between coupling blocks, so that each of them gets to move.

A mixing is a fixed bijection of the features that preserves volumes, so its log|det| is zero. As everywhere,
``forward`` goes from latent space to events. A new one is a class ``class Mine(Mixing, name="mine")``, in any file;
``CouplingFlow(mixing="mine")`` then knows it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pyrogen.flows.registry import Named
from pyrogen.printing import Compact


class Mixing(Named, Compact, nn.Module):
    """A fixed, volume-preserving bijection of the features, in front of a coupling block.

    A flow draws its random numbers in this order, which a seed's meaning rests on: :meth:`chain`, the networks'
    weights, :meth:`draw`. What decides the place of the features belongs to the first, since the networks depend on it.
    """

    keeps_features: ClassVar[bool] = True
    """It changes the places of the features only, so that the unit box and angles stay what they are."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    @classmethod
    def chain(cls, features: int, blocks: int) -> list[Self]:
        """One mixing for each of ``blocks`` blocks of ``features`` features, before the networks are made."""
        return [cls(features) for _ in range(blocks)]

    @classmethod
    def draw(cls, mixings: Sequence[Self]) -> None:
        """Draw what is random in ``mixings`` and does not change the places of the features."""
        return

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Values ``[..., features]``, from the side of latent space to that of the events."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """Values ``[..., features]``, from the side of the events to that of latent space."""

    def carry(self, mask: Tensor) -> Tensor:
        """The features that ``mask [features]`` marks on the side of the events, on that of latent space.

        Raises:
            ValueError: the mask marks features, and the mixing does not keep them.
        """
        if self.keeps_features:
            return self.inverse(mask)
        if mask.any():
            raise ValueError(f"a {self.name} does not keep the features that the mask {mask.tolist()} marks")
        return mask

    def extra_repr(self) -> str:
        return f"features={self.features}"


class Alternate(Mixing, name="alternate"):
    """No mixing: the halves of the features that a block moves and keeps alternate, and that is all."""

    def forward(self, z: Tensor) -> Tensor:
        return z

    def inverse(self, x: Tensor) -> Tensor:
        return x


class Permutation(Mixing, name="random"):
    """The features in another order: ``x[i] = z[order[i]]``.

    Args:
        order: each number from 0 to features - 1 once, ``[features]``.

    Raises:
        ValueError: not such numbers.
    """

    order: Tensor
    _back: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__(len(order))
        if not torch.equal(order.sort().values, torch.arange(len(order), device=order.device)):
            raise ValueError(f"order is {order.tolist()}; it must hold each number from 0 to {len(order) - 1} once")
        self.register_buffer("order", order)
        self.register_buffer("_back", order.argsort(), persistent=False)

    @classmethod
    def chain(cls, features: int, blocks: int) -> list[Self]:
        return [cls(torch.randperm(features)) for _ in range(blocks)]

    def forward(self, z: Tensor) -> Tensor:
        return z[..., self.order]

    def inverse(self, x: Tensor) -> Tensor:
        return x[..., self._back]

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._back = self.order.argsort()


class Rotation(Mixing, name="rotation"):
    """A rotation or reflection of the space of the features: ``x = rotation z``.

    Args:
        rotation: an orthogonal matrix ``[features, features]``.

    Raises:
        ValueError: not a square matrix.
    """

    keeps_features = False
    rotation: Tensor

    def __init__(self, rotation: Tensor) -> None:
        super().__init__(len(rotation))
        if rotation.shape != (self.features, self.features):
            raise ValueError(f"rotation of shape {list(rotation.shape)}; it must be a square matrix")
        self.register_buffer("rotation", rotation)

    @classmethod
    def chain(cls, features: int, blocks: int) -> list[Self]:
        return [cls(torch.eye(features)) for _ in range(blocks)]

    @classmethod
    def draw(cls, mixings: Sequence[Self]) -> None:
        shape = (len(mixings), mixings[0].features, mixings[0].features)
        # in float64, so that they are orthogonal to the precision of either type
        rotations = torch.linalg.qr(torch.randn(shape, dtype=torch.float64)).Q
        for mixing, rotation in zip(mixings, rotations, strict=True):
            mixing.rotation = rotation.clone()

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.rotation.T

    def inverse(self, x: Tensor) -> Tensor:
        return x @ self.rotation


def upgrade_buffers(buffers: Mapping[str, Any]) -> dict[str, Any]:
    """The buffers of a flow that an earlier version saved, under the names that they have now.

    Args:
        buffers: tensors or numpy arrays by name. The permutations or rotations of all blocks were one array,
            ``orders [blocks, features]`` or ``rotations [blocks, features, features]``.

    Returns:
        The same with one array per block, ``mixings.0.order`` or ``mixings.0.rotation`` and so on; all other names are
        left as they are.
    """
    upgraded = dict(buffers)
    for old, new in (("orders", "order"), ("rotations", "rotation")):
        if old in upgraded:
            stack = upgraded.pop(old)
            upgraded |= {f"mixings.{i}.{new}": array for i, array in enumerate(stack)}
    return upgraded
