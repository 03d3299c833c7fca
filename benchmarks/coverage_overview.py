"""All studies of coverage on one page: a table in Markdown, and a figure with one row for each.

    python benchmarks/coverage_overview.py out/coverage out/coverage_drell_yan

Reads what coverage_toys.py and coverage_drell_yan.py wrote into these folders.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import study_options
from coverage_toys import calibration_in

from pyrogen.coverage import Calibration
from pyrogen.plotting import plot_coverage, save_figure
from pyrogen.recipes.backends import NAMES

EDGE = 0.1  # the ramps vanish at x = 0, where no flow of ours does
TARGETS = ("wedge", "kicker", "ring", "gamma-ring", "Drell-Yan", "Z + jets")
BACKENDS = ("bootstrap", "hmc", "svi", "sghmc", "sgld", "adam-mcmc", "nuts", "laplace", "ensemble")


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Read, print the table, draw.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    studies = [study for folder in args.folders for study in read(parser, folder)]
    if not studies:
        parser.error(f"no results of coverage_toys.py or coverage_drell_yan.py in {', '.join(map(str, args.folders))}")
    studies.sort(key=order)
    print(HEADER, *map(row, studies), sep="\n")
    inner = (away_from_edges(study)[0] for study in studies)
    figure = plot_coverage(dict(zip(names(studies), inner, strict=True)))
    print(f"wrote\n  {save_figure(figure, args.figure)}")


def read(parser: argparse.ArgumentParser, folder: Path) -> list[dict[str, Any]]:
    """The studies of a folder and those below it, without the ones in which networks stood in for the truth."""
    if not folder.is_dir():
        parser.error(f"no such folder: {folder}")
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            study = json.loads(path.read_text())
        except ValueError:
            parser.error(f"{path} is not JSON; was it written in full?")
        if isinstance(study, dict) and {"calibration", "target", "events"} <= study.keys():
            if reason := fault(study):
                parser.error(f"{path}: {reason}")
            found.append({"label": study["backend"]} | study)
    return found


def fault(study: dict[str, Any]) -> str:
    """What is wrong with a study; nothing, where all is right."""
    for key, known in (("target", TARGETS), ("backend", BACKENDS)):
        if study.get(key) not in known:
            return f"{key} is {study.get(key)!r}; it must be one of {', '.join(known)}"
    if not isinstance(study["events"], int):
        return f"events is {study['events']!r}; it must be a whole number"
    try:
        calibration_in(study)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"its calibration cannot be read: {type(error).__name__}: {error}"
    return ""


def order(study: dict[str, Any]) -> tuple[Any, ...]:
    """By target, events, flow and backend."""
    return (
        TARGETS.index(study["target"]),
        study["events"],
        flow(study),
        BACKENDS.index(study["backend"]),
        study["label"],
    )


def flow(study: dict[str, Any]) -> str:
    """The flow of a study."""
    if study["target"] in ("Drell-Yan", "Z + jets", "gamma-ring") or "flow spline" in study["label"]:
        return "spline"
    return "affine" if "flow affine" in study["label"] else "Bernstein"


def backend(study: dict[str, Any]) -> str:
    """The backend, and what it was told of its KL or prior."""
    told = [word for word in study["label"].split(", ")[1:] if word.startswith(("KL", "prior", "rank"))]
    return ", ".join([NAMES[study["backend"]].__name__, *told])


def name(study: dict[str, Any]) -> str:
    """Of a row of the figure; the backend comes first, as it gives the colour."""
    return f"{backend(study)}: {study['target']}, {study['events']:,} events, {flow(study)}"


def names(studies: list[dict[str, Any]]) -> list[str]:
    """Of the rows of the figure; studies that differ in their settings alone have these in it, or a number."""
    found = [name(study) for study in studies]
    found = [
        f"{own} ({study['label']})" if found.count(own) > 1 else own for own, study in zip(found, studies, strict=True)
    ]
    return [f"{own}, {found[:i].count(own) + 1}" if found.count(own) > 1 else own for i, own in enumerate(found)]


def away_from_edges(study: dict[str, Any]) -> tuple[Calibration, bool]:
    """The intervals where the density does not vanish, and whether any were left out."""
    found = calibration_in(study)
    kept = found.at > EDGE if study["target"] in ("wedge", "kicker") else np.ones(len(found.at), dtype=bool)
    truth = found.truth[..., kept]
    cut = {key: getattr(found, key)[:, kept] for key in ("ranks", "means", "sigmas")}
    return replace(found, **cut, truth=truth, at=found.at[kept]), not bool(kept.all())


HEADER = (
    "| target | events | flow | posterior | trainings \u00d7 draws | within 1\u03c3 | 2\u03c3 | pull width "
    "| \u03c3 / spread | score | x > 0.1: within 1\u03c3 | 2\u03c3 | pull width | score |\n" + 14 * "|---" + "|"
)


def row(study: dict[str, Any]) -> str:
    """One row of the table."""
    whole = calibration_in(study)
    inner, differs = away_from_edges(study)
    cells = [
        study["target"],
        f"{study['events']:,}",
        flow(study),
        backend(study),
        f"{whole.trainings} \u00d7 {whole.draws}",
        *columns(whole)[:3],
        # Where the truth has few events its own error is in the intervals; the ratio is that of sigma alone.
        with_error(*study.get("sigma_over_spread", whole.sigma_ratio())),
        columns(whole)[3],
        *(columns(inner) if differs else ("", "", "", "")),
    ]
    return f"| {' | '.join(cells)} |"


def columns(found: Calibration) -> tuple[str, str, str, str]:
    """Coverage at one and two sigma, width of the pulls, score."""
    one, two = found.fraction(), found.fraction(0.9545)
    return (
        with_error(100 * one[0], 100 * one[1], 1),
        with_error(100 * two[0], 100 * two[1], 1),
        with_error(*found.pull_width()),
        f"{found.score:.3f}",
    )


def with_error(value: float, error: float, digits: int = 2) -> str:
    """Value and error."""
    return f"{value:.{digits}f} \u00b1 {error:.{digits}f}"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("out/coverage")], help="(out/coverage)")
    parser.add_argument("--figure", type=Path, default=Path("out/coverage.png"), help="(out/coverage.png)")
    return parser


if __name__ == "__main__":
    run()
