"""Events with a varying number of objects: a chain of conditional flows, one for each further object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import (
    TENSOR,
    TEXT,
    check_memory,
    door,
    optional,
    require,
    whole,
    whole_number,
)
from pyrogen.checks import (
    each as every,
)
from pyrogen.flows.coupling import SETTINGS, check_inputs
from pyrogen.flows.numbers import NumberOfObjects, drawn
from pyrogen.flows.parts import Made, Part, blocks_of_parts, widths_of_parts
from pyrogen.flows.rows import Rows
from pyrogen.flows.spaces import in_box
from pyrogen.printing import Compact
from pyrogen.seeds import seeded, stream

COLUMNS = every(whole(0), "a sequence of columns, such as (2, 5)")


class MultiplicityFlow(Compact, nn.Module):
    """A normalizing flow of events with a varying number n of objects, such as jets.

    Rows are laid out as :class:`pyrogen.events.Multiplicity` says: ``shared`` columns, then ``each`` columns for each
    of at most ``most`` objects, NaN where no object is. The density of a row is ::

        log p(x) = log P(n) + log p(shared, first objects | n) + sum_j log p(object j | all before it, n)

    with a sum over the objects beyond the first ``least``, as in arXiv:2110.13632 sec. 2. Every term is a
    :class:`~pyrogen.CouplingFlow`, trained by all events that have its objects. Rows of another layout (too few
    objects, a gap, NaN among numbers that are there) have the log-density -inf.

    Args:
        shared: number of columns that every event has.
        each: number of columns of one object.
        most: largest number of objects.
        least: smallest number of objects.
        blocks: coupling blocks of every part, or a sequence with one number for each part: the first one, and those of
            the objects ``least + 1, ..., most``. Fewer events have the later objects, which can be described by less.
        hidden: units of each hidden layer of a block's network, or one such sequence for each part.
        transform: as in :class:`~pyrogen.CouplingFlow`; so are ``base``, ``mixing``, ``bins``, ``bound``, ``clamp``,
            ``activation`` and ``dtype``.
        context: number of conditions per event, which P(n) and all parts see.
        seed: seeds the initial weights and fixed mixings.
        periodic: columns of the row that are angles, from 0 to 1 once around.
        uniform: shared columns that are uniform from 0 to 1 and independent of all others, by an exact symmetry. Their
            density is 1 on [0, 1]; no network sees or learns them. That is right for the azimuth of one lepton, where
            all other azimuths are measured from it: the beams have no azimuth. With conditions that may depend on the
            azimuth, or cuts that do, it is wrong.

    Raises:
        ValueError: an argument out of range, or one that does not go with the others, with what would be right.
    """

    uniform: Tensor

    @door(
        shared=whole(0),
        each=whole(1),
        most=whole(1),
        least=whole(0),
        context=whole(0),
        base=TEXT,
        periodic=COLUMNS,
        uniform=COLUMNS,
        **SETTINGS,
    )
    def __init__(
        self,
        shared: int,
        each: int,
        most: int,
        least: int = 1,
        *,
        blocks: int | Sequence[int] = 8,
        hidden: Sequence[int] | Sequence[Sequence[int]] = (64, 64),
        transform: str = "rqs",
        context: int = 0,
        base: str = "normal",
        mixing: str | None = None,
        bins: int = 10,
        bound: float = 5.0,
        clamp: float = 2.0,
        activation: str = "relu",
        seed: int = 0,
        periodic: Sequence[int] = (),
        uniform: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        require(least <= most, "least", least, f"at most most = {most}")
        first = [column for column in range(shared + each * least) if column not in uniform]
        require(len(first) > 0, "least", least, "at least 1 where no shared column is left to learn")
        self.shared, self.each, self.most, self.least = shared, each, most, least
        self.features, self.context, self.base = shared + each * most, context, base
        periodic, fixed = sorted(set(periodic)), sorted(set(uniform))
        for name, columns, below in (("periodic", periodic, self.features), ("uniform", fixed, shared)):
            what = "columns of the row" if name == "periodic" else "shared columns"
            require(not columns or columns[-1] < below, name, tuple(columns), f"{what}, below {below}")
        parts = 1 + most - least
        depths, widths = blocks_of_parts(blocks, parts), widths_of_parts(hidden, parts)
        options: dict[str, Any] = {
            "transform": transform,
            "base": base,
            "mixing": mixing,
            "bins": bins,
            "bound": float(bound),
            "clamp": float(clamp),
            "activation": activation,
        }
        self.config: dict[str, Any] = {
            "shared": shared,
            "each": each,
            "most": most,
            "least": least,
            "blocks": depths,
            "hidden": widths,
            "context": context,
            **options,
            "seed": seed,
            "periodic": periodic,
            "uniform": fixed,
            "dtype": str(dtype).removeprefix("torch."),
        }
        self.register_buffer("uniform", torch.tensor(fixed, dtype=torch.long), persistent=False)
        with seeded(stream(seed, "number")):
            self.number = NumberOfObjects(parts, context, widths[0], activation)
        chain = []
        for i in range(parts):
            start = shared + each * (least + i - 1)
            columns = first if i == 0 else list(range(start, start + each))
            before = [] if i == 0 else [column for column in range(start) if column not in fixed]
            own = {"blocks": depths[i], "hidden": widths[i], "seed": stream(seed, "part", i)}
            chain.append(Part(columns, before, periodic, range(least + i, most + 1), context, options | own))
        self.parts = nn.ModuleList(chain)
        self.to(dtype)

    @property
    def layout(self) -> dict[str, int]:
        """The arguments of the :class:`pyrogen.events.Multiplicity` that its rows follow."""
        return {"shared": self.shared, "each": self.each, "most": self.most, "least": self.least}

    @property
    def unit_columns(self) -> tuple[int, ...]:
        """Columns whose numbers are from 0 to 1 by their meaning, which a preprocessing leaves as they are."""
        return tuple(sorted({*self.config["periodic"], *self.config["uniform"]}))

    @property
    def on_unit_box(self) -> bool:
        """True where all numbers that are there live in the unit box."""
        return self.base == "uniform"

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of events.

        Args:
            x: events ``[..., features]``, NaN where no object is.
            context: conditions ``[..., context]``, only for a conditional flow.

        Returns:
            ``[...]`` in nats; -inf for rows that are not laid out like the flow's.
        """
        context = self._check(x, context)
        values, number, fits = self._opened(x)
        log_prob = self.number.log_probabilities(fits.to(x.dtype), context)
        total = log_prob.gather(-1, (number - self.least).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        for part, rows in self._with_rows(number):
            own = rows.take(values[..., part.columns])
            total = rows.add(total, part.flow.log_prob(own, part.conditions(rows, values, number, context)))
        return torch.where(fits, total, -math.inf)

    def _opened(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows ``x [..., d]`` without their NaN.

        Returns:
            The rows with zeros in place of NaN, so that no network and no gradient sees one; the number of objects
            ``[...]``; and whether a row has a density.
        """
        missing = x.isnan()
        number = (~missing[..., self.shared :: self.each]).sum(-1)
        values = torch.where(missing, 0.0, x)
        fits = (missing == self._behind(number)).all(-1) & (number >= self.least)
        if len(self.uniform):
            fits = fits & in_box(values[..., self.uniform])
        return values, number, fits

    def _with_rows(self, number: Tensor) -> list[tuple[Part, Rows]]:
        """The parts that some rows with ``number [...]`` objects have, and these rows."""
        found: list[tuple[Any, Rows | None]] = [(self.parts[0], Rows(None, None))]
        found += [(part, Rows.of(number >= part.least)) for part in list(self.parts)[1:]]  # type: ignore[operator]
        return [(part, rows) for part, rows in found if rows is not None]

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` events ``[n, features]`` through torch's global random state; ``context [n, context]``."""
        n = whole_number("n", n, 0)
        check_memory("n", n, 8.0 * n * self.features, "generate fewer events at a time")
        return self._events(self._latent(n, next(self.parameters())), context)

    def _latent(self, n: int, like: Tensor) -> Tensor:
        """Random numbers ``[n, 1 + features]`` that :meth:`_events` makes events of, of the type of ``like``.

        The first decides the number of objects, the others are the latent values of the columns.
        """
        z = torch.rand(n, 1 + self.features, dtype=like.dtype, device=like.device)
        for part in self.parts:
            z[:, 1 + part.columns] = part.flow.latent.sample(n, like)  # type: ignore[operator, union-attr]
        return z

    def _events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Events ``[n, features]`` of random numbers ``z [n, 1 + features]`` from :meth:`_latent`."""
        context = self._check(z[..., 1:], context)
        number = self.least + drawn(z[..., 0], self.number.log_probabilities(z[..., 0], context))
        return self._filled(z, number, context, lambda part, latent, given: part.flow(latent, given)[0])

    def _filled(self, z: Tensor, number: Tensor, context: Tensor | None, made: Made) -> Tensor:
        """Events of ``number [n]`` objects each, as :meth:`_events`; ``made`` gives the columns of a part."""
        values = torch.zeros_like(z[..., 1:]).index_copy(-1, self.uniform, z[..., 1 + self.uniform])
        for part, rows in self._with_rows(number):
            latent, conditions = rows.take(z[..., 1 + part.columns]), part.conditions(rows, values, number, context)
            changed = rows.take(values).index_copy(-1, part.columns, made(part, latent, conditions))
            values = rows.put(values, changed)
        return torch.where(self._behind(number), math.nan, values)

    def _behind(self, number: Tensor) -> Tensor:
        """Which columns ``[..., features]`` are behind the last of ``number [...]`` objects."""
        filled = self.shared + self.each * number
        return torch.arange(self.features, device=number.device) >= filled.unsqueeze(-1)

    def probabilities(self, context: Tensor | None = None) -> Tensor:
        """P(n) of the numbers from ``least`` to ``most``, ``[K]``; with conditions ``[..., k]`` it is ``[..., K]``."""
        like = next(self.parameters()) if context is None else context
        if (self.context > 0) != (context is not None):
            raise ValueError(f"context is needed by flows with conditions only; this one has {self.context}")
        like = like.new_empty(()) if context is None else like[..., 0]
        return self.number.log_probabilities(like, context).exp()

    @property
    def is_centred(self) -> bool:
        """Whether P(n) starts at fractions of events already."""
        return bool(self.number.centre.any())

    @torch.no_grad()
    def _centre_like(self, other: MultiplicityFlow) -> None:
        """Start P(n) where that of another flow of this architecture starts."""
        self.number.centre.copy_(other.number.centre)

    @door(x=TENSOR, weights=optional(TENSOR))
    def centre_on(self, x: Tensor, weights: Tensor | None = None) -> None:
        """Start P(n) at the fractions of events ``[N, features]`` with weights ``[N]``, unless that was done before.

        The log-odds of P(n) count from there. So the prior of P(n) has its centre at these fractions, with a width of
        1 in the log-odds for a ``prior_scale`` of 1, which a hundred events of each number overrule.
        """
        if self.is_centred:
            return
        each = torch.ones(len(x), dtype=torch.float64, device=x.device) if weights is None else weights.double()
        which = (self._opened(x)[1] - self.least).clamp(min=0)
        self.number.centre_on(each.new_zeros(self.number.count).index_add(0, which, each))

    def extra_repr(self) -> str:
        weights, dtype = sum(p.numel() for p in self.parameters()), next(self.parameters()).dtype
        return (
            f"{self.shared} shared columns, {self.each} of each of {self.least} to {self.most} objects, "
            f'context={self.context}, base="{self.base}", weights={weights:,}, '
            f"dtype={str(dtype).removeprefix('torch.')}"
        )

    def _check(self, values: Tensor, context: Tensor | None) -> Tensor | None:
        """The conditions, checked to be those of events ``values [..., features]``."""
        return check_inputs(values, context, self.features, self.context)
