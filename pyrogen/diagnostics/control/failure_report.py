"""What is wrong with a generator, in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np


def told(found: Any, rows: int) -> str:
    """The text of :meth:`Failures.text`; ``found`` is one."""
    return "\n".join([_head(found), found.tails.text(), "", *_table(found, rows), "", *_words(found)])


def _head(found: Any) -> str:
    source = {
        "control": "from the control: next to none of the events of a perfect generator are beyond",
        "given": "as given",
        "default": "without a control",
    }[found.cuts_from]
    left = f"; left out: {_listed(list(found.left_out))}" if found.left_out else ""
    return (
        f"{len(found.rows)} observables of {found.sizes[0]:,} true and {found.sizes[1]:,} generated events{left}\n"
        f"tails w < {found.cuts[0]:.3g} and w > {found.cuts[1]:.3g}, {source}"
    )


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _table(found: Any, count: int) -> list[str]:
    head = ["observable", "share", "sigma", "p-value", "KS small w", "KS large w", "sigma left", "what"]
    rows = [head]
    for i, row in enumerate(found.rows[:count]):
        name = f"{row.name} [{row.unit}]" if row.unit else row.name
        share = f"{row.share:.0%} +- {row.share_error:.0%}" if np.isfinite(row.share) else "-"
        what = "" if row.mode is None else row.mode.kind
        what += " (follows from the first)" if row.follows else ""
        numbers = (f"{row.small:.2f}", f"{row.large:.2f}", f"{row.left:.1f}" if i else "nan")
        rows.append([name, share, f"{row.sigma:.1f}", f"{row.p_value:.1g}", *(_dash(n) for n in numbers), what])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(head) - 1
    lines = [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rest = len(found.rows) - count
    return [*lines, f"... and {rest} more"] if rest > 0 else lines


def _dash(number: str) -> str:
    return "-" if number == "nan" else number


def _words(found: Any) -> list[str]:
    if not found.modes and not found.hidden:
        return [f"-> none: no failure shows in any of the {len(found.rows)} observables."]
    if not found.modes:
        return [
            f"-> The samples differ (the classifier as a whole: {found.sigma:.1f} sigma), but in none of the "
            f"{len(found.rows)} observables: give others."
        ]
    lines = [f"-> {found.modes[0].text()}."]
    lines += [f"-> and, after this is mended: {mode.text()}." for mode in found.modes[1:]]
    if not found.complete:
        names = _listed([mode.observable for mode in found.modes])
        lines.append(f"   Too few true and generated events overlap in {names} to tell whether more is wrong.")
    shadows = [row.name for row in found.rows if row.follows]
    if shadows:
        verb = "shows" if len(shadows) == 1 else "show"
        lines.append(f"   What {_listed(shadows)} {verb} follows from the first.")
    return lines
