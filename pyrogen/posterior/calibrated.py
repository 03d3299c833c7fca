"""What a posterior tells of its calibration: how often its intervals held the truth, and how that was found."""

from __future__ import annotations

from dataclasses import dataclass

from pyrogen.printing import Brief, Shown

#: Settings by which a backend counts every event ``1/T`` times, and so scales sigma by about ``sqrt(T)``.
KNOBS = ("kl_weight", "temperature")
VAGUE = 0.05  # error of a coverage from which on three of them allow nearly everything


@dataclass(frozen=True, kw_only=True, repr=False)
class CalibrationRound(Brief):
    """One value of the knob that was tried.

    Attributes:
        value: of the knob; None where there is none.
        coverage: fraction of the intervals at the level that held the truth, and its binomial error.
        pull_width: root mean square of the pulls.
        factor: on sigma, with which the interval of a Gaussian at the level would have held the truth as often as it
            says.
    """

    value: float | None
    coverage: tuple[float, float]
    pull_width: float
    factor: float


@dataclass(frozen=True, kw_only=True, repr=False)
class CalibrationRecord(Shown):
    """How a posterior's sigma was calibrated, and what was found, of the settings that it was trained with.

    Numbers with an error are pairs ``(number, error)``. Errors of fractions are binomial, those of
    :meth:`pyrogen.diagnostics.Calibration.fraction`.

    Attributes:
        level: of the interval whose coverage was to be nominal.
        knob: the setting that was changed for it; None where the backend has none.
        value: of this setting.
        verdict: ``"calibrated"``, ``"too narrow"``, ``"too wide"`` or ``"uneven"``, by the coverage of one and two
            sigma within three errors.
        coverage: fraction of the intervals at ``level`` that held the truth.
        one_sigma, two_sigma: the same at 68.3 and 95.4 %.
        pull_width: root mean square of (mean - truth) / sigma.
        factor: on sigma, with which the interval of a Gaussian at ``level`` would have held the truth as often as it
            says. It was not applied.
        curve: ``(nominal, found, error)`` for 19 levels.
        how: what stood for the truth.
        trainings: number of samples that were learned.
        size: events in each of them.
        quantities: number of intervals in each training.
        draws: weight draws.
        seed: of networks, samples and probe points.
        rounds: every value of the knob that was tried.
    """

    level: float
    knob: str | None
    value: float | None
    verdict: str
    coverage: tuple[float, float]
    one_sigma: tuple[float, float]
    two_sigma: tuple[float, float]
    pull_width: tuple[float, float]
    factor: tuple[float, float]
    curve: tuple[tuple[float, float, float], ...]
    how: str
    trainings: int
    size: int
    quantities: int
    draws: int
    seed: int
    rounds: tuple[CalibrationRound, ...]

    @property
    def ok(self) -> bool:
        """Whether one and two sigma hold the truth as often as they say, within three errors."""
        return self.verdict == "calibrated"

    @property
    def score(self) -> float:
        """Mean distance ``|found - nominal|`` over the levels of the curve."""
        return sum(abs(found - nominal) for nominal, found, _ in self.curve) / len(self.curve)

    @property
    def note(self) -> str:
        """The verdict in a few words, as figures and ``repr`` show it."""
        return f"{self.verdict} ({self.how}: {_percent(self.one_sigma)} within 1 sigma)"

    def __repr__(self) -> str:
        return f"CalibrationRecord({self.note})"

    def __str__(self) -> str:
        return f"{self.verdict}: {self.text()}"

    def text(self) -> str:
        """All that was found but the curve, in one line."""
        (width, width_error), (factor, factor_error) = self.pull_width, self.factor
        tried = ", ".join(f"{one.value:g}: {one.coverage[0]:.1%}" for one in self.rounds if one.value is not None)
        changed = "no setting was changed" if self.knob is None else f"{self.knob} = {self.value:g}"
        at = f" (tried {tried} within the {self.level:.1%} interval)" if tried else ""
        return (
            f"by {self.how}, {_percent(self.one_sigma)} within 1 sigma, {_percent(self.two_sigma)} within 2 sigma; "
            f"pull width {width:.2f} +- {width_error:.2f}; score {self.score:.3f}; {self.trainings} trainings of "
            f"{self.size:,} events, {self.quantities} intervals each, seed {self.seed}; {changed}{at}; sigma times "
            f"{factor:.2f} +- {factor_error:.2f} would cover at {self.level:.1%} (not applied)"
            + (". So few independent intervals could not tell much" if self.one_sigma[1] > VAGUE else "")
        )


def _percent(fraction: tuple[float, float]) -> str:
    return f"{100 * fraction[0]:.1f} +- {100 * fraction[1]:.1f} %"


def note_of(record: CalibrationRecord | None) -> str:
    """The note of a record, or that there is none."""
    return "not calibrated" if record is None else record.note
