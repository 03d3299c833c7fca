"""A parametric source of calorimeter showers: profiles in closed form with fluctuations, no simulation of particles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import (
    BOOLEAN,
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    SEED,
    check_memory,
    check_settings,
    door,
    one_of,
    pair,
    whole,
)
from ..checks import require as require
from ..files import target_of
from ..progress import bar
from ..seeds import stream
from .shower_files import ShowerWriter
from .shower_geometry import ShowerGeometry, ShowerLayer
from .shower_profiles import (
    CONVERSION,
    LEAD_ARGON,
    Longitudinal,
    Radial,
    electron_radii,
    electrons,
    hadronic,
    hadronic_radii,
    in_cells,
)
from .shower_sample import OPTIONAL_GEOMETRY, Showers

Array = NDArray[np.float64]

PARTICLES = ("e+", "e-", "gamma", "pi+", "pi-")
SAMPLING = 0.1  # sqrt(GeV): relative resolution of 1 GeV of electrons by sampling
HADRONIC_SAMPLING = 0.3  # sqrt(GeV), of the hadronic part
RESPONSE = 0.7  # h/e: what is seen of the hadronic part
GROOM = 0.82  # mean electromagnetic share 1 - E^(k - 1), E in GeV
CONCENTRATION = 4.0  # of the Beta distribution of that share: a spread of 0.2
SLICE = 3.0  # radiation lengths over which a radial profile is taken as one
TRACK = 1.0  # mm: radius of the energy along the track of a pion before it interacts
BLOCK = 1_000  # showers that share a random stream
_VERSION = 1  # of what a seed means


def _energies(name: str, value: Any) -> tuple[float, float]:
    """One energy, or the lowest and the highest, in GeV."""
    try:
        low = high = POSITIVE(name, value)
    except ValueError:
        low, high = pair(POSITIVE, "an energy in GeV, or (lowest, highest)")(name, value)
    require(low <= high, name, value, "(lowest, highest) in GeV, increasing")
    return low, high


@dataclass(frozen=True)
class Source:
    """What decides the showers of a seed; the arguments of :func:`showers`."""

    particle: str
    energies: tuple[float, float]
    geometry: ShowerGeometry
    threshold: float
    impact: float

    def __post_init__(self) -> None:
        check_settings(
            self, particle=one_of(*PARTICLES), energies=_energies, threshold=NOT_NEGATIVE, impact=NOT_NEGATIVE
        )
        for layer in self.geometry.layers:
            if layer.depth is None or layer.columns is None or layer.polar:
                raise ValueError(
                    f"geometry is {self.geometry!r}; the source needs layers with a depth and a table of cells along "
                    "eta and phi, such as ShowerGeometry.small() and ShowerGeometry.calogan()"
                )

    def provenance(self, seed: int) -> dict[str, Any]:
        return {
            "source": "parametric showers of pyrogen",
            "process": (
                f"{self.particle} of {self.energies[0]:g} to {self.energies[1]:g} GeV, perpendicular to a sampling "
                "calorimeter of lead and liquid argon; profiles in closed form (hep-ex/0001020, and for hadrons after "
                "Nucl. Instrum. Meth. 186 (1981) 533) with fluctuations. Not a simulation of particles in matter"
            ),
            "particle": self.particle,
            "energies_GeV": list(self.energies),
            "threshold_GeV": self.threshold,
            "impact_mm": self.impact,
            "material": asdict(LEAD_ARGON),
            "sampling": [SAMPLING, HADRONIC_SAMPLING],
            "seed": seed,
            "version": _VERSION,
        }


@door(n=whole(1), seed=SEED, geometry=OPTIONAL_GEOMETRY, progress=BOOLEAN)
def showers(
    n: int,
    particle: str = "e+",
    energies: float | tuple[float, float] = (1.0, 100.0),
    seed: int = 1,
    *,
    geometry: ShowerGeometry | None = None,
    threshold: float = 1e-3,
    impact: float = 5.0,
    progress: bool = True,
) -> Showers:
    """Generate **parametric** calorimeter showers: mean profiles in closed form, with fluctuations.

    No particle is followed through matter, so these are no substitute for Geant4: they have the main features of real
    showers, for tests and demonstrations. A shower is made in these steps:

    * *Electrons and positrons*: a gamma distribution in depth, whose maximum and shape fluctuate together, and a core
      and a tail in the radius that widen with depth (Grindhammer and Peters, hep-ex/0001020, with the formulas for
      sampling calorimeters of lead and liquid argon).
    * *Photons*: the same behind a conversion, at an exponential depth of 9/7 radiation lengths in the mean.
    * *Pions*: a track of minimum ionisation up to an exponential depth of one interaction length in the mean; behind it
      an electromagnetic share of mean 1 - E^(-0.18) (E in GeV, a Beta distribution of spread 0.2) as for electrons, and
      a hadronic rest, wider and deeper, of which 70 % is seen. Many pions pass through without an interaction.
    * *Sampling*: the energy of every cell is drawn from a gamma distribution of variance ``s^2 E``, with s = 0.1
      sqrt(GeV), and 0.3 for the hadronic rest. Sums of cells have the same resolution s / sqrt(E).
    * *Zero-suppression*: cells below the threshold have no energy.

    Energies are those of the absorber and the liquid together, calibrated for electrons. What leaves the calorimeter at
    its back and its sides is lost.

    Args:
        n: number of showers.
        particle: ``"e+"``, ``"e-"``, ``"gamma"``, ``"pi+"`` or ``"pi-"``; charges make no difference.
        energies: lowest and highest incident energy in GeV, uniform between them; or one energy.
        seed: the same seed gives the same showers, and fewer of them are the first ones of more.
        geometry: the cells; :meth:`ShowerGeometry.small` (90 cells) if left out.
        threshold: smallest energy of a cell, in GeV.
        impact: standard deviation of the point of impact around the centre, in mm, along eta and along phi.
        progress: show a progress bar.

    Returns:
        The showers, whose provenance says how they were made.

    Raises:
        ValueError: an argument out of range, or a geometry without depths and cells along eta and phi.
        MemoryError: more than the memory holds; :func:`showers_to` writes them to a file.
    """
    source = _source(particle, energies, geometry, threshold, impact)
    check_memory("n", n, 4 * 8.0 * source.geometry.voxels * n, "showers_to(path, n) writes them to a file")
    blocks = list(_blocks(source, n, seed, progress, "parametric showers"))
    values, incident = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Showers(values, incident, source.geometry, provenance=source.provenance(seed))


@door(path=PATH, n=whole(1), seed=SEED, geometry=OPTIONAL_GEOMETRY, progress=BOOLEAN)
def showers_to(
    path: str | os.PathLike[str],
    n: int,
    particle: str = "e+",
    energies: float | tuple[float, float] = (1.0, 100.0),
    seed: int = 1,
    *,
    geometry: ShowerGeometry | None = None,
    threshold: float = 1e-3,
    impact: float = 5.0,
    progress: bool = True,
) -> Path:
    """:func:`showers` to an HDF5 file in the layout of the CaloChallenge, a thousand in memory at a time.

    The file appears in one piece at the end. :func:`read_showers` reads it; its energies are those of :func:`showers`
    in float32, in MeV.

    Args:
        path: the file.
        n: number of showers.
        particle, energies, seed, geometry, threshold, impact, progress: as :func:`showers`.

    Returns:
        The path.

    Raises:
        ValueError: as :func:`showers`.
        OSError: the file cannot be written.
    """
    source = _source(particle, energies, geometry, threshold, impact)
    what = f"parametric showers {target_of(path).name}"
    with ShowerWriter(path, source.geometry, source.provenance(seed)) as writer:
        for values, incident in _blocks(source, n, seed, progress, what):
            writer.write(values, incident)
    return Path(path)


def _source(particle: str, energies: Any, geometry: ShowerGeometry | None, threshold: float, impact: float) -> Source:
    return Source(particle, energies, geometry or ShowerGeometry.small(), threshold, impact)


def _blocks(source: Source, n: int, seed: int, progress: bool, what: str) -> Iterator[tuple[Array, Array]]:
    """Energies of cells and of particles, block by block."""
    with bar(n, what, " showers", show=progress) as shown:
        for k, first in enumerate(range(0, n, BLOCK)):
            rng = np.random.default_rng(stream(seed, "showers", k))
            incident = rng.uniform(*source.energies, BLOCK)
            # A block is made as a whole, so that its first showers do not depend on how many are wanted.
            values = shower_cells(source, incident, rng)
            wanted = min(BLOCK, n - first)
            yield values[:wanted], incident[:wanted]
            shown.update(wanted)


def shower_cells(source: Source, incident: Array, rng: np.random.Generator) -> Array:
    """Energies ``[N, voxels]`` of the cells of showers of particles of ``incident [N]`` energies, in GeV."""
    n, axis = len(incident), rng.normal(0.0, source.impact, (2, len(incident)))
    if source.particle.startswith("pi"):
        means, scattered = _pions(source.geometry, incident, axis, rng)
    else:
        profile = electrons(incident, rng.normal(size=(n, 2)))
        if source.particle == "gamma":
            profile = Longitudinal(profile.shape, profile.rate, rng.exponential(CONVERSION, n))
        means, scattered = _electromagnetic(source.geometry, incident, profile, axis), None
    values = _sampled(means, SAMPLING, rng)
    if scattered is not None:
        values += _sampled(scattered, HADRONIC_SAMPLING, rng)
    return np.where(values < source.threshold, 0.0, values)


def _sampled(means: Array, resolution: float, rng: np.random.Generator) -> Array:
    """Energies of a gamma process: independent in each cell, of variance ``resolution^2`` times the mean, in GeV."""
    scale = resolution**2
    return scale * rng.standard_gamma(means / scale)


def _electromagnetic(geometry: ShowerGeometry, energies: Array, profile: Longitudinal, axis: Array) -> Array:
    """Mean energies ``[N, voxels]`` of electromagnetic showers."""
    maximum = ((profile.shape - 1) / profile.rate)[:, None]

    def radii(depths: Array) -> Radial:
        return electron_radii(energies, np.clip((depths - profile.start[:, None]) / maximum, 0.0, 5.0))

    return _spread(geometry, energies, profile, radii, axis)


def _pions(geometry: ShowerGeometry, incident: Array, axis: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Mean energies ``[N, voxels]`` of the electromagnetic part with the track, and of the hadronic part."""
    material, n = LEAD_ARGON, len(incident)
    start = rng.exponential(material.interaction_length, n)  # mm
    mean = np.clip(1 - incident ** (GROOM - 1), 0.02, 0.98)
    share = rng.beta(CONCENTRATION * mean, CONCENTRATION * (1 - mean))
    noise = rng.normal(size=(n, 3))
    track = [
        np.clip(np.minimum(start, layer.depth[1]) - layer.depth[0], 0, None) * material.minimal  # type: ignore[index]
        for layer in geometry.layers
    ]
    left = np.clip(incident - np.sum(track, 0), 0.0, None)
    behind = start / material.radiation_length
    core = electrons(np.maximum(share * left, 1e-3), noise[:, :2])
    core = Longitudinal(core.shape, core.rate, behind)
    means = _electromagnetic(geometry, np.maximum(share * left, 1e-3), core, axis)
    for layer, columns, energy in zip(geometry.layers, geometry.columns, track, strict=True):
        means[:, columns] += energy[:, None] * _in_layer(layer, np.full(n, TRACK), axis)
    rest = hadronic(left, noise[:, 2])
    rest = Longitudinal(rest.shape, rest.rate, behind)

    def radii(depths: Array) -> Radial:
        lengths = (depths - behind[:, None]) * material.radiation_length / material.interaction_length
        return hadronic_radii(np.clip(lengths, 0.0, 5.0))

    return means, _spread(geometry, RESPONSE * (1 - share) * left, rest, radii, axis)


def _spread(geometry: ShowerGeometry, energies: Array, profile: Longitudinal, radii: Any, axis: Array) -> Array:
    """Mean energies ``[N, voxels]`` of ``energies [N]`` with a profile in depth and radial profiles at each depth."""
    unit = LEAD_ARGON.radiation_length
    found = np.zeros((len(energies), geometry.voxels))
    for layer, columns in zip(geometry.layers, geometry.columns, strict=True):
        begin, end = (edge / unit for edge in layer.depth)  # type: ignore[union-attr]
        depths = np.linspace(begin, end, max(1, round((end - begin) / SLICE)) + 1)
        shares = profile.between(depths)
        middle = np.broadcast_to((depths[1:] + depths[:-1]) / 2, shares.shape)
        radial = radii(middle)
        for i in range(shares.shape[1]):
            energy = energies * shares[:, i]
            for radius, part in ((radial.core, radial.weight), (radial.tail, 1 - radial.weight)):
                cells = _in_layer(layer, radius[:, i] * LEAD_ARGON.moliere_radius, axis)
                found[:, columns] += (energy * part[:, i])[:, None] * cells
    return found


def _in_layer(layer: ShowerLayer, radius: Array, axis: Array) -> Array:
    """Share ``[N, voxels]`` of a part of the radial profile, of ``radius [N]`` in mm, in the cells of a layer."""
    columns, rows = (
        np.asarray(edges) - shift[:, None] for edges, shift in zip((layer.columns, layer.rows), axis, strict=True)
    )
    return in_cells(radius, columns, rows).reshape(len(radius), -1)
