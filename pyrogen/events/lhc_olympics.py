"""Readers of the R&D data of the LHC Olympics 2020 (arXiv:2101.08320; doi:10.5281/zenodo.6466204)."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import BOOLEAN, LIMITS, PATH, POSITIVE, TEXT, door, one_of, optional, require, require_extra, whole
from ..files import FileFormatError, target_of
from ..hdf5 import damage_named, open_any_hdf5
from ..progress import bar
from ..signals import uninterrupted
from .dijet_sample import NAMES, UNITS, Dijets, features, sample_of
from .pandas_hdf5 import CONVERT, Frame, frame_of
from .reading import stream
from .substructure import masses, subjettiness, two_hardest
from .writing import EventWriter

#: Columns of the high-level features.
FEATURES = tuple(f"{name}j{jet}" for jet in (1, 2) for name in ("px", "py", "pz", "m", "tau1", "tau2", "tau3"))
LABEL = "label"
PARTICLES = 3 * 700  #: pT, eta, phi of 700 particles
CHUNK = 65_536  # events of features in memory at a time
PARTICLE_CHUNK = 1_000  # of particles, which take 17 MB
GEV = 1000.0  # in a TeV
_MASSES = (0.05, 14.0)  # of two jets in TeV, by their median: others are in other units
_UNIT, _MISSING = one_of(*UNITS), one_of("error", "skip")


@dataclass(frozen=True)
class _Layout:
    """A file that is open: its number of rows, how many to read at a time, and a function that makes some of them into
    rows of :func:`features` in GeV (NaN where an event has no two jets), and labels."""

    name: str
    n: int
    chunk: int
    rows: Callable[[slice], tuple[NDArray[np.float64], NDArray[np.float64] | None]]


@door(
    path=PATH,
    part=optional(TEXT),
    window=optional(LIMITS),
    first=whole(0),
    n=optional(whole(1)),
    unit=_UNIT,
    labelled=BOOLEAN,
    missing=_MISSING,
    radius=POSITIVE,
    progress=BOOLEAN,
)
def lhco(
    path: str | os.PathLike[str],
    *,
    part: str | None = None,
    window: tuple[float, float] | None = None,
    first: int = 0,
    n: int | None = None,
    unit: str = "TeV",
    labelled: bool = True,
    missing: str = "error",
    radius: float = 1.0,
    progress: bool = True,
) -> Dijets:
    """Read a file of the LHC Olympics 2020 as events with two jets.

    * High-level features, ``events_anomalydetection_v2.features.h5``: a frame of pandas with ``pxj1, pyj1, pzj1, mj1,
      tau1j1, tau2j1, tau3j1, pxj2, ..., tau3j2`` and ``label``, in GeV. tau3 is not needed.
    * Particles, ``events_anomalydetection_v2.h5``: a frame of 2,101 columns, pT (GeV), eta and phi of 700 particles
      without mass, zeros behind the last one, and the label. They are clustered (``pip install "pyrogen[fastjet]"``):
      anti-kT, E scheme, pseudorapidity up to 2.5, two hardest jets. :mod:`pyrogen.events.substructure` defines tau_N.
    * ``.npy`` with six columns in TeV, as the scripts of CATHODE (arXiv:2109.00546) write it: those of
      :class:`Dijets`, and the label.
    * ``.npz`` with such tables of five columns, and labels of the same name with ``_label`` behind it.

    Args:
        path: the file, ``.h5`` or ``.hdf5``, ``.npy``, ``.npz``.
        part: the table of an ``.npz`` file that has several.
        window: lowest and highest mass of both jets, in ``unit``; others are left out. The provenance has their number.
        first: the first event to read, counted from 0.
        n: number of events to read, all that follow if left out.
        unit: of the masses that are returned, ``"TeV"`` or ``"GeV"``.
        labelled: whether the file has labels. The black boxes have none.
        missing: what to do where an event has no two jets, or NaN in a feature: ``"error"``, or ``"skip"`` to leave it
            out; the provenance has their number.
        radius: R of anti-kT, for particles.
        progress: show a progress bar.

    Returns:
        The events ``[N, 5]`` and their labels.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: truncated, damaged or foreign, other columns, no labels, masses in another unit, labels other
            than 0 and 1, or text that is pickled; the message says what to do.
        ValueError: ``first`` behind the last event, no event in the window, or an argument without a use here.
        ImportError: fastjet is not installed.
    """
    parts = list(_parts(Path(path), part, window, first, n, unit, labelled, missing, radius, progress))
    rows, labels, told = zip(*parts, strict=True)
    signal = np.concatenate([each for each in labels if each is not None]) if labelled else None
    return Dijets(sample_of(np.concatenate(rows), unit, told[-1]), signal)


@door(
    path=PATH,
    output=PATH,
    part=optional(TEXT),
    window=optional(LIMITS),
    first=whole(0),
    n=optional(whole(1)),
    unit=_UNIT,
    labelled=BOOLEAN,
    missing=_MISSING,
    radius=POSITIVE,
    progress=BOOLEAN,
)
def lhco_to(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    part: str | None = None,
    window: tuple[float, float] | None = None,
    first: int = 0,
    n: int | None = None,
    unit: str = "TeV",
    labelled: bool = True,
    missing: str = "error",
    radius: float = 1.0,
    progress: bool = True,
    **layout: Any,
) -> Path:
    """:func:`lhco` to a file of events, with a part of them in memory; :meth:`Dijets.read` reads it.

    The provenance is that of the first part: it says how the events were read, and not how many were left out.

    Args:
        path: the file of the LHC Olympics.
        output: the file to write, as :class:`EventWriter` writes it; its last column, ``signal``, holds the labels.
        part, window, first, n, unit, labelled, missing, radius, progress: as :func:`lhco`.
        **layout: for :class:`EventWriter`.

    Returns:
        The path of the new file.

    Raises:
        FileNotFoundError, FileFormatError, ValueError, ImportError: as :func:`lhco`.
        OSError: the file cannot be written.
    """
    require(target_of(output) != target_of(path), "output", output, "another file than path")
    with EventWriter(output, **layout) as writer:
        for rows, labels, told in _parts(Path(path), part, window, first, n, unit, labelled, missing, radius, progress):
            if len(rows):
                kept = {name: told[name] for name in told if not name.startswith("left_out")}
                writer.write(Dijets(sample_of(rows, unit, kept), labels).table())
    return Path(output)


def _parts(
    path: Path,
    part: str | None,
    window: tuple[float, float] | None,
    first: int,
    n: int | None,
    unit: str,
    labelled: bool,
    missing: str,
    radius: float,
    progress: bool,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_] | None, dict[str, Any]]]:
    """Parts of what is read: rows of features in GeV, labels, and the provenance of all up to there."""
    with _opened(path, part, radius, labelled) as layout:
        require(first < layout.n, "first", first, f"below {layout.n}, the number of events in {path}")
        last = layout.n if n is None else first + n
        require(last <= layout.n, "n", n, f"at most {layout.n - first}: {path} has {layout.n:,} events")
        told: dict[str, Any] = {
            "source": f"LHC Olympics 2020, {layout.name}",
            "file": str(path),
            "rows": [first, last],
            "left_out_without_two_jets": 0,
        }
        if layout.name == "particles":
            told["jets"] = f"anti-kT, R = {radius:g}, E scheme, |eta| < 2.5; the two hardest"
        if window is not None:
            told |= {"window": [*window, unit], "left_out_by_window": 0}
        found = 0
        with bar(last - first, path.name, " events", show=progress, scaled=True) as shown:
            for start in range(first, last, layout.chunk):
                stop = min(start + layout.chunk, last)
                rows, labels = layout.rows(slice(start, stop))
                signal = None if labels is None else _checked_labels(path, labels, start)
                keep = np.isfinite(rows).all(1)
                if not keep.all() and missing == "error":
                    bad = int(np.flatnonzero(~keep)[0])
                    raise FileFormatError(
                        f"{path}: event {start + bad} has no two jets, or NaN in a feature, as {int((~keep).sum())} of "
                        f'the events {start} to {stop - 1}; missing="skip" leaves such events out'
                    )
                told["left_out_without_two_jets"] += int((~keep).sum())
                _check_units(path, rows[keep, 0] / GEV, start)
                if window is not None:
                    mass = rows[:, 0] * UNITS[unit]
                    inside = (mass >= window[0]) & (mass <= window[1])
                    told["left_out_by_window"] += int((keep & ~inside).sum())
                    keep &= inside
                found += int(keep.sum())
                yield rows[keep], None if signal is None else signal[keep], told
                shown.update(stop - start)
        if not found:
            where = "" if window is None else f" and a mass of {window[0]:g} to {window[1]:g} {unit}"
            raise ValueError(f"none of the events {first} to {last - 1} of {path} has two jets{where}")


@contextlib.contextmanager
def _opened(path: Path, part: str | None, radius: float, labelled: bool) -> Iterator[_Layout]:
    suffix = path.suffix.lower()
    require(suffix == ".npz" or part is None, "part", part, "left out: it chooses a table of an .npz file")
    if suffix in (".h5", ".hdf5"):
        with open_any_hdf5(path) as file, damage_named(path):
            yield _of_frame(frame_of(file, path), path, radius, labelled)
    elif suffix in (".npy", ".npz"):
        yield _of_npy(path, labelled) if suffix == ".npy" else _of_npz(path, part, labelled)
    else:
        raise ValueError(f"path is {str(path)!r}; it must be a file of the LHC Olympics, .h5, .hdf5, .npy or .npz")


def _of_frame(frame: Frame, path: Path, radius: float, labelled: bool) -> _Layout:
    names = frame.names
    if names is not None and set(FEATURES) <= set(names):
        known = (*FEATURES, LABEL) if labelled else FEATURES
        _check_columns(path, names, known, labelled)
        order = [names.index(name) for name in known]
        return _Layout("high-level features", len(frame), CHUNK, lambda rows: _of_features(frame.rows(rows)[:, order]))
    if frame.width in (PARTICLES, PARTICLES + 1):
        numbered = tuple(str(i) for i in range(frame.width))
        if names is not None and tuple(names) != numbered and LABEL not in names:
            raise FileFormatError(
                f"{path} has {frame.width} columns as particles have, but they are called {', '.join(names[:3])}, ...; "
                f"they must be 0, 1, ..., {frame.width - 1}"
            )
        if labelled != (frame.width == PARTICLES + 1):
            raise _wrong_labels(path, labelled, f"{frame.width} columns")
        require_extra("awkward", "fastjet", "lhco, to make jets of particles,")
        require_extra("fastjet", "fastjet", "lhco, to make jets of particles,")
        return _Layout(
            "particles",
            len(frame),
            PARTICLE_CHUNK,
            lambda rows: _of_particles(path, rows.start, frame.rows(rows), radius),
        )
    if names is None:
        raise FileFormatError(
            f"{path}: the names of its {frame.width} columns are pickled, which is never read; {CONVERT}"
        )
    lacking = [name for name in FEATURES if name not in names]
    raise FileFormatError(
        f"{path} has {frame.width} columns, {', '.join(names[:4])}, ...; files of the LHC Olympics have the features "
        f"{FEATURES[0]}, ..., {FEATURES[-1]} (without {', '.join(lacking[:3])} here) or {PARTICLES} "
        f"columns of particles and the label"
    )


def _check_columns(path: Path, names: tuple[str, ...], known: tuple[str, ...], labelled: bool) -> None:
    if labelled != (LABEL in names):
        raise _wrong_labels(path, labelled, f"the columns {', '.join(names)}")
    others = [name for name in names if name not in known]
    if others:
        raise FileFormatError(f"{path} has columns that features do not have: {', '.join(others)}; leave them out")


def _wrong_labels(path: Path, labelled: bool, has: str) -> FileFormatError:
    return FileFormatError(
        f"{path} has no labels, but {has}; read it with labelled=False"
        if labelled
        else f"{path} has labels; leave out labelled=False"
    )


def _of_features(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    jets = table[:, : len(FEATURES)].reshape(-1, 2, 7)
    rows = features(jets[..., :4], jets[..., 4:6])
    rows[~np.isfinite(jets[..., :6]).all((1, 2))] = np.nan
    return rows, table[:, -1] if table.shape[1] > len(FEATURES) else None


def _of_particles(
    path: Path, first: int, table: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    with uninterrupted():
        import awkward as ak
    pt, eta, phi = np.moveaxis(table[:, :PARTICLES].reshape(len(table), -1, 3), -1, 0)
    there = pt > 0
    wrong = ~np.isfinite(pt + eta + phi) | (pt < 0) | (~there & ((eta != 0) | (phi != 0)))
    if wrong.any():
        event, particle = np.argwhere(wrong)[0]
        raise FileFormatError(
            f"{path}: particle {particle} of event {first + event} has pT = {pt[event, particle]:g}, eta = "
            f"{eta[event, particle]:g}, phi = {phi[event, particle]:g}; pT must be positive, or all three 0 behind the "
            "last particle"
        )
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)], -1)[there]
    counts = there.sum(1)
    momenta = ak.unflatten(ak.zip(dict(zip(("px", "py", "pz", "E"), p.T, strict=True)), with_name="Momentum4D"), counts)
    rows = np.full((len(table), len(NAMES)), np.nan)
    events, jets, constituents = two_hardest(momenta, radius)
    if len(events):
        each_jet = ak.flatten(constituents, axis=1)
        tau = np.stack([subjettiness(each_jet, axes, radius) for axes in (1, 2)], -1).reshape(-1, 2, 2)
        rows[events] = features(np.concatenate([jets[..., :3], masses(jets)[..., None]], -1), tau)
    return rows, table[:, PARTICLES] if table.shape[1] > PARTICLES else None


def _of_npy(path: Path, labelled: bool) -> _Layout:
    tables = [each.values for each in stream(path)]
    table = np.concatenate(tables)
    wanted = len(NAMES) + labelled
    if table.shape[1] != wanted:
        raise FileFormatError(
            f"{path} has {table.shape[1]} columns; it must have {wanted}: {', '.join(NAMES)}"
            + (" and the label" if labelled else "")
        )
    return _in_tev("features of CATHODE", table[:, : len(NAMES)], table[:, -1] if labelled else None)


def _of_npz(path: Path, part: str | None, labelled: bool) -> _Layout:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            tables = sorted(name for name in file.files if not name.endswith(f"_{LABEL}"))
            if part is None and len(tables) != 1 or part is not None and part not in tables:
                raise ValueError(f"part is {part!r}; {path} has the tables {', '.join(tables) or 'none'}")
            name = part or tables[0]
            table = _array(file, path, name)
            label = f"{name}_{LABEL}"
            if labelled != (label in file.files):
                raise _wrong_labels(path, labelled, f"only {', '.join(file.files)}")
            labels = _array(file, path, label) if labelled else None
    except (zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        raise FileFormatError(f"{path} is not a whole .npz file: {error}") from error
    if table.ndim != 2 or table.shape[1] != len(NAMES) or not len(table):
        raise FileFormatError(
            f"{path}: {name} has the shape {list(table.shape)}; it must be [N, 5]: {', '.join(NAMES)}"
        )
    if labels is not None and labels.shape != (len(table),):
        raise FileFormatError(f"{path}: {label} has the shape {list(labels.shape)}; it must be [{len(table)}]")
    return _in_tev(f"features of the table {name!r}", table, labels)


def _array(file: Any, path: Path, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(file[name], np.float64)
    except (ValueError, TypeError) as error:  # objects, which are pickled
        raise FileFormatError(f"{path}: {name} holds no numbers: {error}") from error


def _in_tev(name: str, table: NDArray[np.float64], labels: NDArray[np.float64] | None) -> _Layout:
    rows = table * [GEV, GEV, GEV, 1.0, 1.0]
    return _Layout(name, len(table), CHUNK, lambda part: (rows[part], None if labels is None else labels[part]))


def _checked_labels(path: Path, labels: NDArray[np.float64], first: int) -> NDArray[np.bool_]:
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise FileFormatError(
            f"{path}: the label of event {first + wrong[0]} is {labels[wrong[0]]:g}; it must be 0 or 1"
        )
    return labels == 1


def _check_units(path: Path, mass: NDArray[np.float64], first: int) -> None:
    """Raise a FileFormatError where masses in TeV cannot be what they should be."""
    if not mass.size:
        return
    median = float(np.median(mass))
    if not _MASSES[0] <= median <= _MASSES[1]:
        raise FileFormatError(
            f"{path}: the mass of two jets is {median:.4g} TeV in the median of the events from {first} on; momenta "
            "and masses of .h5 files must be in GeV, those of .npy and .npz files in TeV"
        )
