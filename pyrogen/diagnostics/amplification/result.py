"""The quantile errors of generators, and what these are worth; [D] is arXiv:2008.06545."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import NATURAL, PATH, door
from pyrogen.files import FileFormatError, check_writable
from pyrogen.hdf5 import Kind, open_hdf5, read_json, write_array, write_hdf5, write_json
from pyrogen.labelled import Labelled
from pyrogen.printing import Brief
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
KIND = Kind("amplification study", version=1, sealed=1)
ARRAYS = ("sizes", "mse", "asymptotic", "counts")
LIMIT = 0.95  # confidence of a lower limit
RESOLVED = 3.0  # times the noise, from which on an error is known to be there
SATURATED = 0.1  # of the error: the most that further events can take from it


@dataclass(frozen=True, eq=False, repr=False)
class QuantileError(Labelled):
    """Quantile errors of R independent trainings, in q quantiles that hold 1/q of the truth each.

    Attributes:
        bins: number n of quantiles along each coordinate.
        coordinate: the one that the events were projected on; None: all, q = n^d.
        sizes: numbers of generated events ``[S]``.
        training_events: events N that each generator was trained on.
        mse: quantile error ``sum_j (x_j - 1/q)^2 / q`` [D eq. 2] of the first so many events ``[R, S]``.
        asymptotic: the same without the noise of the generated events ``[R]``, unbiased; it may be below zero where
            the generator is nearly the truth.
        counts: events of the largest sample in each quantile ``[R, q]``.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "sizes": "size",
        "mse": "training size",
        "asymptotic": "training",
        "counts": "training quantile",
    }
    _at: ClassVar[tuple[str, ...]] = ("sizes",)

    bins: int
    coordinate: str | None
    sizes: NDArray[np.int64]
    training_events: int
    mse: Array
    asymptotic: Array
    counts: NDArray[np.int64]

    def _summary(self) -> str:
        value, error = self.factor
        worth = f"G = {value:.3g} +- {error:.2g}" if self.resolved else f"G > {self.factor_limit:.3g}"
        return f"{self.label}, {self.trainings} trainings on {self.training_events:,} events, {worth}"

    @property
    def quantiles(self) -> int:
        """Number q of quantiles."""
        return self.counts.shape[1]

    @property
    def trainings(self) -> int:
        """Number R of trainings."""
        return len(self.mse)

    @property
    def label(self) -> str:
        """Such as ``7^2 = 49 quantiles``, or ``10 quantiles of r``."""
        if self.coordinate is not None:
            return f"{self.bins} quantiles of {self.coordinate}"
        power = round(math.log(self.quantiles, self.bins))
        return f"{self.bins}^{power} = {self.quantiles:,} quantiles" if power > 1 else f"{self.bins} quantiles"

    @door(events=NATURAL)
    def true_error(self, events: int) -> tuple[float, float]:
        """Mean and standard deviation of the quantile error of samples of so many true events; both are exact.

        ``q^2 n MSE`` is Pearson's chi^2, with mean q - 1 and variance 2 (q - 1) (1 - 1/n).
        """
        q = self.quantiles
        return (q - 1) / (q**2 * events), math.sqrt(2 * (q - 1) * (1 - 1 / events)) / (q**2 * events)

    @property
    def error(self) -> tuple[float, float]:
        """Mean over the trainings of the asymptotic error, and the error of this mean."""
        return float(self.asymptotic.mean()), float(self.asymptotic.std(ddof=1) / math.sqrt(self.trainings))

    @property
    def noise(self) -> float:
        """Standard deviation of the mean asymptotic error of a generator that is the truth: the noise of its events.

        That of Pearson's chi^2, and a little more: nine tenths of the pairs of events, or more, are of different parts.
        """
        return self.true_error(int(self.sizes[-1]))[1] / math.sqrt(0.9 * self.trainings)

    @property
    def resolved(self) -> bool:
        """Whether the asymptotic error is three times its noise: else the generator may be the truth.

        G then has a lower limit only.
        """
        return self.error[0] > RESOLVED * self.noise

    @property
    def equivalent_events(self) -> tuple[float, float]:
        """True events with the same mean quantile error, ``(1/q)(1 - 1/q) / M``, and its error.

        M is the mean over the trainings. The error is that of a jackknife over them. Infinite, with an error that is
        not known, where M is within its noise (:attr:`resolved`).
        """
        if not self.resolved:
            return math.inf, math.nan
        means = (self.asymptotic.sum() - self.asymptotic) / (self.trainings - 1)
        without = self.true_error(1)[0] / means
        error = math.sqrt((self.trainings - 1) * float(np.var(without)))
        return self.true_error(1)[0] / float(self.asymptotic.mean()), error

    @property
    def equivalent_events_limit(self) -> float:
        """Lower limit on the equivalent events at 95 % confidence, by Student's t over the trainings."""
        with uninterrupted():
            from scipy.special import ndtri, stdtrit

        value, error = self.error
        reach = max(stdtrit(self.trainings - 1, LIMIT) * error, ndtri(LIMIT) * self.noise)
        return float(self.true_error(1)[0] / (max(value, 0.0) + reach))

    @property
    def factor(self) -> tuple[float, float]:
        """Amplification factor G, the equivalent events for each training event, and its error."""
        value, error = self.equivalent_events
        return value / self.training_events, error / self.training_events

    @property
    def factor_limit(self) -> float:
        """Lower limit on G at 95 % confidence."""
        return self.equivalent_events_limit / self.training_events

    @property
    def saturation(self) -> float:
        """Number of generated events beyond which all further ones take less than 10 % from the quantile error.

        Independent generated events have the error ``M + ((1/q)(1 - 1/q) - M)/n``, so this is 9 times the equivalent
        events less one; infinite where these are.
        """
        return (1 / SATURATED - 1) * (self.equivalent_events[0] - 1)

    @property
    def common(self) -> tuple[float, float]:
        """Part of the asymptotic error that all trainings share, and its error: the bias of the method.

        From products of the deviations of different trainings, which hold neither noise nor fluctuations. The rest is
        how much the trainings differ: what more training events would lower.
        """
        deviation = self.deviation / self.quantiles
        trainings = self.trainings
        values = [_mean_product(deviation) / float(self.asymptotic.mean())]
        for r in range(trainings):
            rest = np.delete(np.arange(trainings), r)
            values.append(_mean_product(deviation[rest]) / float(self.asymptotic[rest].mean()))
        return values[0], math.sqrt((trainings - 1) * float(np.var(values[1:])))

    @property
    def deviation(self) -> Array:
        """Relative deviation ``q x_j - 1`` of the largest generated samples in each quantile ``[R, q]`` [D fig. 5]."""
        return self.quantiles * self.counts / self.sizes[-1] - 1

    def row(self) -> dict[str, Any]:
        """All numbers of a table, in JSON types."""
        return {
            "label": self.label,
            "quantiles": self.quantiles,
            "coordinate": self.coordinate,
            "trainings": self.trainings,
            "training_events": self.training_events,
            "asymptotic": self.error,
            "resolved": self.resolved,
            "equivalent_events": self.equivalent_events if self.resolved else None,
            "equivalent_events_limit": self.equivalent_events_limit,
            "factor": self.factor if self.resolved else None,
            "factor_limit": self.factor_limit,
            "saturation": self.saturation if self.resolved else None,
            "common": self.common if self.resolved else None,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Amplification(Brief):
    """How many true events generators are worth, from :func:`~pyrogen.diagnostics.amplification` or a file.

    Attributes:
        rows: the quantile errors, one for each kind of quantiles.
        target: the truth, as its ``repr`` shows it.
        coordinates: names of the unit coordinates of the target.
        generator: what the generators are.
        sigma: what posteriors say of the calibration of their sigma; empty for other generators. The study does not
            use sigma, but the factors that need no truth do.
        seed: that was given.
    """

    rows: tuple[QuantileError, ...]
    target: str
    coordinates: tuple[str, ...]
    generator: str
    sigma: str
    seed: int

    def _summary(self) -> str:
        return f"{self.generator}, {self.target}, {'; '.join(row._summary() for row in self.rows)}"

    @property
    def features(self) -> int:
        """Number of features d."""
        return len(self.coordinates)

    @property
    def training_events(self) -> int:
        """Events that each generator was trained on."""
        return self.rows[0].training_events

    @property
    def trainings(self) -> int:
        """Number of trainings."""
        return self.rows[0].trainings

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Numbers of generated events ``[S]``."""
        return self.rows[0].sizes

    def text(self) -> str:
        """A table: what the generators are worth in each kind of quantiles."""
        lines = [
            f"{self.generator}: {self.trainings} trainings on {self.training_events:,} events of {self.target}, up to "
            f"{self.sizes[-1]:,} generated events each",
            f"{'':<26}{'worth true events':>22}{'factor G':>18}{'saturated at':>14}{'common to all':>16}",
        ]
        for row in self.rows:
            if row.resolved:
                (n, n_error), (gain, error), (part, its) = row.equivalent_events, row.factor, row.common
                cells = (f"{n:,.0f} +- {n_error:,.0f}", f"{gain:.2f} +- {error:.2f}", f"{row.saturation:,.0f}")
                lines.append(
                    f"{row.label:<26}{cells[0]:>22}{cells[1]:>18}{cells[2]:>14}{f'{part:.0%} +- {its:.0%}':>16}"
                )
            else:
                limits = f"> {row.equivalent_events_limit:,.0f}", f"> {row.factor_limit:.1f}"
                lines.append(f"{row.label:<26}{limits[0]:>22}{limits[1]:>18}{'-':>14}{'-':>16}")
        if any(not row.resolved for row in self.rows):
            lines.append("> : lower limit at 95 % confidence; the error is within the noise of the generated events")
        if self.sigma:
            lines.append(f"sigma of the posteriors: {self.sigma}; G from the truth does not use it")
        return "\n".join(lines)

    def table(self) -> list[dict[str, Any]]:
        """All numbers of the rows, in JSON types."""
        return [row.row() for row in self.rows]

    @door(path=PATH)
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to an HDF5 file, in one piece.

        Raises:
            OSError: the file cannot be written; an old file at ``path`` is left as it was.
        """
        check_writable(path)
        about = {name: getattr(self, name) for name in ("target", "coordinates", "generator", "sigma", "seed")}
        kinds = [{name: getattr(row, name) for name in ("bins", "coordinate", "training_events")} for row in self.rows]

        def fill(file: h5py.File) -> None:
            write_json(file, "about", about | {"rows": kinds})
            for k, row in enumerate(self.rows):
                for name in ARRAYS:
                    write_array(file, f"rows/{k}/{name}", getattr(row, name))

        write_hdf5(path, KIND, fill)

    @classmethod
    @door(path=PATH)
    def load(cls, path: str | os.PathLike[str]) -> Amplification:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            FileFormatError: another file, or a damaged one.
        """
        with open_hdf5(path, KIND) as file:
            try:
                about = read_json(file, "about")
                rows = [
                    QuantileError(**kind, **{name: file[f"rows/{k}/{name}"][()] for name in ARRAYS})
                    for k, kind in enumerate(about.pop("rows"))
                ]
                return cls(rows=tuple(rows), coordinates=tuple(about.pop("coordinates")), **about)
            except (KeyError, ValueError, TypeError) as error:
                raise FileFormatError(f"{path} is damaged or incomplete: {error}") from error


def _mean_product(deviation: Array) -> float:
    """Mean over quantiles and pairs of different trainings of the products of their deviations ``[R, q]``."""
    count = len(deviation)
    return float((np.square(deviation.sum(0)) - np.square(deviation).sum(0)).mean() / (count * (count - 1)))
