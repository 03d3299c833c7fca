"""The check of :func:`pyrogen.diagnostics.advise` that tells whether anybody has counted how often intervals cover."""

from __future__ import annotations

from collections.abc import Iterator

from pyrogen.diagnostics.look import Look
from pyrogen.posterior.info import Finding


def calibration(look: Look) -> Iterator[Finding]:
    """What the record of the calibration says, or that there is none."""
    info = look.posterior.info
    record = info.calibration
    if record is None:
        yield Finding(
            "not calibrated",
            "nobody has counted how often the intervals of this sigma hold the truth",
            "pg.calibrate(backend, model, events) does, and no truth is needed for it",
            serious=False,
        )
        return
    if record.ok:
        advice = "Quote sigma with its calibration, which does not see what the flow itself cannot describe"
        if info.tempered:
            advice += f". By {record.knob} = {record.value:g} it is a calibrated error bar: label it as tempered"
        yield Finding("calibrated", record.text(), advice, serious=False)
        return
    yield Finding(
        f"sigma {record.verdict}",
        record.text(),
        f"Do not use sigma as it is: calibrate with more rounds or trainings, or multiply it by {record.factor[0]:.2f}",
    )
