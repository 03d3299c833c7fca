"""What CATHODE found: scores, events after cuts against their background, and the checks of that background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import door, require, whole
from pyrogen.events import EventSample, EventsLike
from pyrogen.posterior.posterior import Posterior
from pyrogen.printing import Brief
from pyrogen.search.background import MassFit, Template
from pyrogen.search.counting import excess_p_value, excess_significance, z_of
from pyrogen.search.cuts import CutTable
from pyrogen.search.samples import checked
from pyrogen.search.shares import SearchSample
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
UNLIKELY = 1e-4  # closure of a background that may not be believed


@dataclass(frozen=True, kw_only=True, repr=False)
class Cathode(Brief):
    """The result of :func:`cathode`.

    Attributes:
        sample: the events, their folds and regions.
        mass_fit: the fit of the mass spectrum.
        posteriors: of each background flow.
        templates: what each flow generated in the signal region; 8 bytes per event, column and draw.
        classifiers: of each fold, the members of the ensemble.
        members: log-ratio of each event in each member, ``[E, N]``, by the classifiers of its fold, sideband events
            included.
        table: events and background after each cut.
        seconds: of the whole search.
        settings: how it was made, in JSON types.
    """

    sample: SearchSample
    mass_fit: MassFit
    posteriors: tuple[Posterior, ...]
    templates: tuple[Template, ...]
    classifiers: tuple[tuple[Any, ...], ...]
    members: Array
    table: CutTable
    seconds: float
    settings: dict[str, Any]

    @property
    def scores(self) -> Array:
        """Score of each event, ``[N]``: the mean of log p_data(x) / p_background(x) over the ensemble."""
        return self.members.mean(0)

    @property
    def spread(self) -> Array:
        """Standard deviation of the log-ratio over the ensemble, ``[N]``: of the template and of the training."""
        return self.members.std(0, ddof=1) if len(self.members) > 1 else np.full(len(self.sample), np.nan)

    def of(self, events: EventsLike) -> Array:
        """Scores ``[n]`` of other events, such as labelled ones: the mean over all folds and members.

        Raises:
            ValueError: other columns or units than the features of the search.
        """
        sample = checked("events", events, self.sample.features, "the search")
        folds = [
            np.mean([np.asarray(one.log_ratio(sample)) for one in members], axis=0) for members in self.classifiers
        ]
        return np.mean(folds, axis=0)

    @door(cut=whole(0))
    def passed(self, cut: int) -> NDArray[np.bool_]:
        """Which events ``[N]`` pass the cut with this number in the table, in the signal region and beside it.

        Raises:
            ValueError: there is no such cut.
        """
        require(cut < len(self.table), "cut", cut, f"below {len(self.table)}, the number of cuts")
        return self.scores >= self.table.thresholds[self.sample.scored_by, cut]

    @property
    def significance(self) -> Array:
        """``(O - B) / sqrt(delta_B^2 + B)`` of each cut, ``[C]``."""
        table = self.table
        return excess_significance(table.observed, table.background, table.sigma)

    @property
    def significance_without_sigma(self) -> Array:
        """``(O - B) / sqrt(B)`` of each cut, ``[C]``: the significance if the background had no uncertainty."""
        return excess_significance(self.table.observed, self.table.background, np.zeros(len(self.table)))

    @property
    def p_value(self) -> Array:
        """Probability of as many events or more without a signal, at each cut, ``[C]``."""
        return excess_p_value(self.table.observed, self.table.background, self.table.sigma)

    @property
    def z(self) -> Array:
        """:attr:`p_value` as a one-sided Gaussian significance, ``[C]``; right for few events, too."""
        return z_of(self.p_value)

    @property
    def z_corrected(self) -> Array:
        """:attr:`z` for the background that the sideband events correct, ``[C]``; NaN with fewer than three flows."""
        table, found = self.table, np.full(len(self.table), np.nan)
        known = np.isfinite(table.corrected)
        if known.any():
            p = excess_p_value(table.observed[known], table.corrected[known], table.sigma_corrected[known])
            found[known] = z_of(p)
        return found

    @property
    def closure(self) -> Array:
        """Observed over predicted events after each cut, ``[C, 2]``, in the lower and the upper sideband.

        Infinite or NaN where no generated event passes.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.table.sideband_observed / self.table.sideband_background

    @property
    def closure_error(self) -> Array:
        """Its uncertainty, ``[C, 2]``: Poisson noise of the prediction, and the spread of the draws.

        Infinite where no generated event passes.
        """
        table = self.table
        with np.errstate(divide="ignore"):
            return np.sqrt(table.sideband_background + table.sideband_sigma**2) / table.sideband_background

    @property
    def closure_p_value(self) -> Array:
        """Probability of a closure at least as bad, ``[C]``, from the chi-square of both sidebands.

        From three flows on the flow did not see these events. With fewer it did, and closes a little better than on
        new ones: then a small value is a warning, and a large one no proof. A signal that leaks into the sidebands
        makes it small, too.
        """
        with uninterrupted():
            from scipy.stats import chi2
        table = self.table
        variance = table.sideband_background + table.sideband_sigma**2
        pulls = (table.sideband_observed - table.sideband_background) / np.sqrt(variance)
        return chi2.sf((pulls**2).sum(1), 2)

    @property
    def sculpting(self) -> Array:
        """Largest relative deviation of the efficiency of a cut in a slice of the mass from its mean, ``[C]``.

        If it is large, the cut changes the shape of the mass spectrum, and a fit of the sidebands after the cut gives
        a wrong background. The template is still right, because it has the same shape.
        """
        values = self.table.slice_efficiency
        return np.nanmax(np.abs(values / np.nanmean(values, 1, keepdims=True) - 1), 1)

    @property
    def sculpting_p_value(self) -> Array:
        """Probability of such differences between the slices if the efficiency is the same in all, ``[C]``."""
        with uninterrupted():
            from scipy.stats import chi2
        there = np.isfinite(self.table.slice_efficiency[0])  # slices that have events before the cut
        values, errors = self.table.slice_efficiency[:, there], self.table.slice_error[:, there]
        weights = 1 / errors**2
        mean = (weights * values).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
        return chi2.sf((weights * (values - mean) ** 2).sum(1), values.shape[1] - 1)

    @door(cut=whole(0))
    def after(self, cut: int) -> EventSample:
        """Events of all regions that pass a cut, with the mass as last column: for a bump hunt or a figure."""
        rows = self.passed(cut)
        own = self.sample.features
        values = np.column_stack([own.values, self.sample.mass])[rows]
        return EventSample(values, (*own.names, self.sample.name), (*own.units, self.sample.unit))

    def rows(self) -> list[dict[str, float | None]]:
        """A row for each cut, in JSON types; None for what three flows are needed for."""
        table = self.table
        names = ["efficiency", "observed", "background", "sigma", "sigma_posterior", "sigma_mass", "sigma_template"]
        columns = {name: getattr(table, name) for name in [*names, "corrected", "sigma_corrected"]}
        own = [
            "significance",
            "significance_without_sigma",
            "p_value",
            "z",
            "z_corrected",
            "closure_p_value",
            "sculpting",
        ]
        columns |= {name: getattr(self, name) for name in own}
        return [
            {name: float(values[c]) if np.isfinite(values[c]) else None for name, values in columns.items()}
            for c in range(len(table))
        ]

    def text(self) -> str:
        """A table of all cuts."""
        table, low = self.table, self.sample.regions.signal
        unit = f" {self.sample.unit}" if self.sample.unit else ""
        lines = [
            f"CATHODE, {self.sample.name} from {low[0]:g} to {low[1]:g}{unit}: "
            f"{int(self.sample.in_signal.sum()):,} events, background from the fit {self.mass_fit.total:,.0f} "
            f"+- {self.mass_fit.sigma:,.0f}",
            "  eff. of B       O        B  +- posterior  mass  template   S/sqrt(B)  with sigma       p    "
            "closure low, high      B corrected    z: flows, corrected",
        ]
        for c in range(len(table)):
            ratio, error = self.closure[c], self.closure_error[c]
            lines.append(
                f"  {table.efficiency[c]:9.2g} {table.observed[c]:7.0f} {table.background[c]:8.1f} "
                f"{table.sigma_posterior[c]:12.1f} {table.sigma_mass[c]:5.1f} {table.sigma_template[c]:9.1f} "
                f"{self.significance_without_sigma[c]:11.2f} {self.significance[c]:11.2f} {self.p_value[c]:9.2g}   "
                f"{ratio[0]:.2f}({error[0]:.2f}) {ratio[1]:.2f}({error[1]:.2f})  {table.corrected[c]:8.1f} +- "
                f"{table.sigma_corrected[c]:5.1f} {self.z[c]:8.2f} {self.z_corrected[c]:6.2f}"
            )
        if self._open:
            lines.append(f"  {self._open}")
        return "\n".join(lines)

    def _summary(self) -> str:
        best = int(np.argmax(self.z))
        return (
            f"{int(self.sample.in_signal.sum()):,} events in the signal region, {len(self.table)} cuts, at most "
            f"{self.z[best]:.1f} sigma at {self.table.efficiency[best]:g} of the background"
            f"{', ' if self._open else ''}{self._open}"
        )

    @property
    def _open(self) -> str:
        """A warning where the flows do not describe the sidebands, from which they were learned."""
        worst = float(self.closure_p_value.min())
        if worst > UNLIKELY:
            return ""
        return f"NOT CLOSED: the flows do not describe the sidebands after a cut (p = {worst:.1g}); claim no excess"
