"""How many true events is a generator worth? Quantile errors over independent trainings, as in [D] (arXiv:2008.06545).

The truth fills q quantiles alike. A sample with fractions x_j has the quantile error MSE = sum_j (x_j - 1/q)^2 / q
[D eq. 2], and for n true events its mean is (1/q)(1 - 1/q)/n. So a generator whose error is M without the noise of the
generated events is worth (1/q)(1 - 1/q)/M events.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    SEED,
    check_memory,
    column_index,
    door,
    each,
    instance,
    optional,
    whole,
)
from pyrogen.diagnostics.amplification.independence import check_independent
from pyrogen.diagnostics.amplification.result import Amplification, QuantileError
from pyrogen.posterior.posterior import Posterior
from pyrogen.progress import bar
from pyrogen.seeds import stream
from pyrogen.targets.base import Target, cell_index

Array = NDArray[np.float64]
Draw = Callable[..., Tensor]
SIZES = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
FEWEST = 3  # trainings that have a spread with an error
PARTS = 10  # at least, of independent events: their spread is the noise
EVENTS_AT_ONCE = 16_384


def _generator(name: str, value: Any) -> Draw:
    """A function of ``(n, seed=...)``, from an object with ``sample`` or from one that can be called."""
    right = "a generator, an object with sample(n, seed=...), or a function of (n, seed=...)"
    draw = getattr(value, "sample", value)
    what = "a class" if isinstance(value, type) else f"a {type(value).__name__}"
    if isinstance(value, type) or not callable(draw):
        raise TypeError(f"{name} is {what}; it must be {right}")
    try:
        inspect.signature(draw).bind(1, seed=0)
    except TypeError as error:
        raise TypeError(f"{name} is {what} that takes no (n, seed=...): {error}; it must be {right}") from error
    return draw


@door(
    generators=each(lambda name, value: (_generator(name, value), value), "a sequence of generators"),
    target=instance(Target, "a target of pyrogen.targets"),
    bins=each(whole(2), "numbers of quantiles, such as (10, 20, 50)", 1),
    training_events=COUNT,
    sizes=each(whole(1), "increasing numbers of generated events, such as (100, 1000, 10000)", 1),
    coordinates=optional(each(lambda name, value: value, "names or indices of coordinates, such as ('r',)", 1)),
    seed=SEED,
    progress=BOOLEAN,
)
def amplification(
    generators: Sequence[Any],
    target: Target,
    bins: Sequence[int] = (10, 20, 50),
    *,
    training_events: int | None = None,
    sizes: Sequence[int] = SIZES,
    coordinates: Sequence[str | int] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Amplification:
    """Quantile error of generators against the number of generated events, and the true events that they are worth [D].

    Every generator makes one stream of events; the error at each size is that of the first so many. It comes in parts
    that are independent of each other, at least ten, each with a seed of its own. Products of different parts hold no
    noise of the generated events, so that the asymptotic error is estimated without bias, also where a posterior gives
    its events in equal shares of its weight draws. Memory is bounded whatever the sizes.

    Args:
        generators: one for each of R >= 3 independent trainings: objects with ``sample(n, seed=...)`` that give events
            ``[n, d]``, such as posteriors, or functions of ``(n, seed=...)``.
        target: the truth.
        bins: numbers n of quantiles along each coordinate: n^d in all.
        training_events: that each generator was trained on; None: posteriors know it.
        sizes: numbers of generated events, increasing.
        coordinates: names or indices of unit coordinates (``target.unit_names``), each projected on its own, with n
            quantiles [D figs. 4, 6]; None: all together.
        seed: seeds the events.
        progress: show a progress bar.

    Raises:
        TypeError: generators without ``sample(n, seed=...)``.
        ValueError: fewer than three trainings; one that is given twice, or trained on the same events as another;
            training events that are not known, or not the same; events of other features; more quantiles than events
            of the largest sample; sizes that do not increase; no such coordinate.
    """
    draws, given = [draw for draw, _ in generators], [own for _, own in generators]
    known = _training_events(given, training_events)
    which = [None] if coordinates is None else [column_index(each, target.unit_names) for each in coordinates]
    if len(set(which)) < len(which):
        raise ValueError(f"coordinates is {coordinates}; give every one once")
    _check_sizes(sizes, bins, target.features if coordinates is None else 1, len(draws) * len(which))
    for r, draw in enumerate(draws):
        _events(draw, 2, stream(seed, "amplification", r), target, r)
    cells = [(n, i) for i in which for n in bins]
    found = []
    for draw_number, draw in zip(range(len(draws)), _shown(draws, progress), strict=True):
        found.append(_counted(draw, draw_number, target, cells, sizes, seed))
    rows = tuple(
        QuantileError(
            n,
            None if i is None else target.unit_names[i],
            np.array(sizes),
            known,
            *(np.stack(parts) for parts in zip(*(training[k] for training in found), strict=True)),
        )
        for k, (n, i) in enumerate(cells)
    )
    return Amplification(rows, repr(target), target.unit_names, _name(given), _note(given), seed)


def _check_sizes(sizes: Sequence[int], bins: Sequence[int], features: int, copies: int) -> None:
    """Sizes that increase, and quantiles that the largest sample can fill."""
    if any(b <= a for a, b in zip(sizes, sizes[1:], strict=False)):
        raise ValueError(f"sizes is {tuple(sizes)}; the numbers of generated events must increase")
    if sizes[-1] < PARTS:
        raise ValueError(f"sizes is {tuple(sizes)}; the largest sample needs at least {PARTS} events")
    if len(set(bins)) < len(bins):
        raise ValueError(f"bins is {tuple(bins)}; give every number once")
    most = max(bins)
    if most**features > sizes[-1]:
        power = f"{most}^{features} = " * (features > 1)
        raise ValueError(
            f"bins has {most}: {power}{most**features:,} quantiles are more than the {sizes[-1]:,} events of the "
            "largest sample; give fewer quantiles, or a larger last entry of sizes"
        )
    check_memory("bins", most, 8.0 * copies * sum(n**features for n in bins), "give fewer quantiles or generators")


def _shown(draws: list[Draw], progress: bool) -> Iterator[Draw]:
    with bar(len(draws), "amplification", "training", show=progress, brief=True) as shown:
        for draw in draws:
            yield draw
            shown.update()


def _counted(
    draw: Draw, r: int, target: Target, cells: list[tuple[int, int | None]], sizes: Sequence[int], seed: int
) -> list[tuple[Array, float, NDArray[np.int64]]]:
    """For every kind of quantiles: the error at all sizes ``[S]``, the asymptotic one, and the counts ``[q]``."""
    features = [target.features if i is None else 1 for _, i in cells]
    counts = [np.zeros(n**d, dtype=np.int64) for (n, _), d in zip(cells, features, strict=True)]
    squares = np.zeros(len(cells))  # of the deviations of the parts, summed over parts and quantiles
    mse: list[list[float]] = [[] for _ in cells]
    done, noisy = 0, 0
    for part, events in enumerate(_parts(sizes)):
        u = target.to_unit(_events(draw, events, stream(seed, "amplification", r, part + 1), target, r))
        done, noisy = done + events, noisy + events**2
        for k, (n, i) in enumerate(cells):
            index = cell_index(u if i is None else u[:, [i]], n)
            filled = torch.bincount(index, minlength=len(counts[k])).cpu().numpy()
            counts[k] += filled
            squares[k] += np.square(filled - events / len(filled)).sum()
            if done in sizes:
                mse[k].append(float(np.mean(np.square(counts[k] / done - 1 / len(filled)))))
    pairs = done**2 - noisy  # of events of different parts
    whole_squares = [np.square(count - done / len(count)).sum() for count in counts]
    return [
        (np.array(its), float(total - own) / pairs / len(count), count)
        for its, total, own, count in zip(mse, whole_squares, squares, counts, strict=True)
    ]


def _parts(sizes: Sequence[int]) -> Iterator[int]:
    """Numbers of events that add up to every one of the sizes in turn."""
    most, done = min(EVENTS_AT_ONCE, sizes[-1] // PARTS), 0
    for size in sizes:
        while done < size:
            events = min(most, size - done)
            yield events
            done += events


@torch.no_grad()
def _events(draw: Draw, n: int, seed: int, target: Target, r: int) -> Tensor:
    """Checked events ``[n, d]`` in double precision."""
    x = draw(n, seed=seed)
    if not isinstance(x, Tensor) or list(x.shape) != [n, target.features]:
        got = list(x.shape) if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(
            f"generators[{r}] gave {got} for {n} events; {target!r} needs a tensor [{n}, {target.features}]"
        )
    if not torch.isfinite(x).all():
        raise ValueError(f"generators[{r}] gave events that are NaN or infinite")
    return x.double()


def _training_events(generators: Sequence[Any], given: int | None) -> int:
    """The number of training events of generators that are independent of each other."""
    if len(generators) < FEWEST:
        raise ValueError(
            f"generators has {len(generators)} entries; a band needs {FEWEST} independent trainings, better 20"
        )
    check_independent("generators", generators)
    known = [getattr(getattr(g, "info", g), "training_events", None) for g in generators]
    for r, own in enumerate(known):
        if given is None and not own:
            raise ValueError(f"generators[{r}] does not know how many events it was trained on; give training_events=N")
        if own and own != (given or known[0]):
            right = f"not the {given:,} of training_events" if given else f"generators[0] on {known[0]:,}"
            raise ValueError(f"generators[{r}] was trained on {own:,} events, {right}")
    return given or int(known[0])  # type: ignore[arg-type]


def _name(generators: Sequence[Any]) -> str:
    """What kind of generators they are: the backend of posteriors, else the class."""
    names = [getattr(getattr(g, "info", None), "backend", None) or type(g).__name__ for g in generators]
    return ", ".join(dict.fromkeys(names))


def _note(generators: Sequence[Any]) -> str:
    """What posteriors say of the calibration of their sigma."""
    return "; ".join(dict.fromkeys(one.info.note for one in generators if isinstance(one, Posterior)))
