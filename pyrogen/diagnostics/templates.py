"""Templates of a histogram with training and systematic uncertainties, for a fit with HistFactory or pyhf."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import TEXT, array, door, require
from pyrogen.posterior.uhi import axis_label, weighted_hist
from pyrogen.posterior.variations import Variations
from pyrogen.printing import Brief

if TYPE_CHECKING:
    import hist
    import xarray

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Templates(Brief):
    """Templates of a histogram with B bins: what :meth:`~pyrogen.diagnostics.Systematics.templates` gives.

    A fit has one parameter with a standard normal constraint for each nuisance parameter, and one for each variation of
    the training uncertainty.

    Attributes:
        variations: of the training uncertainty; ``variations.nominal`` is the nominal template.
        down: by parameter, the template one sigma down, ``[B]``; without the change of the total cross section.
        up: by parameter, the template one sigma up, ``[B]``.
        rates: by parameter, the total cross section down and up over the nominal one, where it is known.
        noise: error of the nominal template from the finite number of generated events, ``[B]``.
        name: first part of the names of the variations.
        label: name of the observable.
        unit: its unit.
    """

    variations: Variations
    down: Mapping[str, Array]
    up: Mapping[str, Array]
    rates: Mapping[str, tuple[float, float]]
    noise: Array
    name: str = "generator"
    label: str = ""
    unit: str = ""

    def _summary(self) -> str:
        return f"{', '.join(self.up)}; {self.variations!r}"

    @property
    def nominal(self) -> Array:
        """The nominal template, ``[B]``."""
        return self.variations.nominal

    @property
    def rest(self) -> Array:
        """What is independent from bin to bin, ``[B]``: the variance without a variation, and :attr:`noise`."""
        return np.hypot(self.variations.rest, self.noise)

    def to_xarray(self) -> xarray.Dataset:
        """The templates as a Dataset: that of the variations of the training, and those of the parameters.

        ``nominal [bin]``, ``training_down`` and ``training_up [variation, bin]``, ``down`` and ``up [parameter, bin]``,
        ``rates [parameter, way]`` where they are known, ``rest [bin]`` and ``noise [bin]``.
        """
        variations = self.variations.to_xarray()
        rates = [self.rates.get(name, (math.nan, math.nan)) for name in self.up]
        found = variations[["nominal"]].assign(
            training_down=variations["down"],
            training_up=variations["up"],
            down=(("parameter", "bin"), np.reshape([self.down[name] for name in self.up], (-1, len(self.nominal)))),
            up=(("parameter", "bin"), np.reshape([*self.up.values()], (-1, len(self.nominal)))),
            rates=(("parameter", "way"), np.reshape(rates, (-1, 2))),
            rest=("bin", self.rest),
            noise=("bin", self.noise),
        )
        found = found.assign_coords(edges=variations["edges"], parameter=list(self.up), way=["down", "up"])
        told = {"long_name": self.label, "units": self.unit}
        for name in ("edges", "bin"):
            found[name].attrs = {what: text for what, text in told.items() if text}
        found.attrs = {"result": "Templates", "name": self.name, "label": self.label, "unit": self.unit}
        return found

    def modifiers(self) -> list[dict[str, Any]]:
        """The uncertainties as modifiers of a sample of HistFactory or pyhf, in JSON types.

        For each nuisance parameter a ``histosys`` and, where the rate is known, a ``normsys`` of the same name, which
        is one parameter; a ``histosys`` for each variation; and :attr:`rest` as ``staterror``.

        Raises:
            ValueError: a rate that is not positive, or a variation with the name of a nuisance parameter, which a fit
                would take for one parameter.
        """
        found: list[dict[str, Any]] = []
        for name, up in self.up.items():
            data = {"hi_data": up.tolist(), "lo_data": self.down[name].tolist()}
            found.append({"name": name, "type": "histosys", "data": data})
            if name in self.rates:
                low, high = self.rates[name]
                require(low > 0 and high > 0, f"the rate of {name}", (low, high), "two positive numbers")
                found.append({"name": name, "type": "normsys", "data": {"hi": high, "lo": low}})
        own = self.variations.modifiers(self.name)
        if (self.rest > 0).any():
            own.append({"name": f"{self.name}_rest", "type": "staterror", "data": self.rest.tolist()})
        twice = [each["name"] for each in own if each["name"] in self.up]
        right = f"another one: {', '.join(twice)} would be a variation and a nuisance parameter"
        require(not twice, "name", self.name, right)
        return found + own

    @door(sample=TEXT)
    def sample(self, sample: str = "generated") -> dict[str, Any]:
        """The templates as a sample of a channel in a specification of HistFactory or pyhf, in JSON types."""
        return {"name": sample, "data": self.nominal.tolist(), "modifiers": self.modifiers()}

    @door(observed=array(1), channel=TEXT, sample=TEXT, poi=TEXT)
    def workspace(
        self, observed: ArrayLike, *, channel: str = "channel", sample: str = "generated", poi: str = "mu"
    ) -> dict[str, Any]:
        """A workspace of pyhf, in JSON types, with this sample alone and its normalisation as parameter of interest.

        Args:
            observed: numbers of events, ``[B]``.
            channel: its name.
            sample: name of the sample.
            poi: name of the normalisation.

        Raises:
            ValueError: observed numbers that do not fit the bins, or a ``poi`` with the name of another parameter.
        """
        data = np.asarray(observed, dtype=np.float64)
        right = f"{len(self.nominal)} numbers, one for each bin, finite and not negative"
        good = data.shape == self.nominal.shape and np.isfinite(data).all() and (data >= 0).all()
        require(bool(good), "observed", observed, right)
        mine = self.sample(sample)
        taken = {each["name"] for each in mine["modifiers"]}
        require(poi not in taken, "poi", poi, f"none of the other parameters, {', '.join(sorted(taken))}")
        mine["modifiers"] = [{"name": poi, "type": "normfactor", "data": None}, *mine["modifiers"]]
        return {
            "channels": [{"name": channel, "samples": [mine]}],
            "observations": [{"name": channel, "data": data.tolist()}],
            "measurements": [{"name": "measurement", "config": {"poi": poi, "parameters": []}}],
            "version": "1.0.0",
        }

    def to_hist(self) -> dict[str, hist.Hist]:
        """The templates as ``hist.Hist`` by name: ``nominal``, ``a_down``, ``a_up``, ``generator_0_up`` and so on.

        They need the extra ``lhc``. The variances of all of them are those of :attr:`noise`. Files of ROOT take them
        with uproot.

        Raises:
            ImportError: ``hist`` is missing.
        """
        found = {"nominal": self.nominal}
        for name, up in self.up.items():
            found |= {f"{name}_down": self.down[name], f"{name}_up": up}
        for i, (down, up) in enumerate(zip(self.variations.down, self.variations.up, strict=True)):
            found |= {f"{self.name}_{i}_down": down, f"{self.name}_{i}_up": up}
        label = axis_label(self.label, self.unit)
        return {
            name: weighted_hist(self.variations.edges, values, np.square(self.noise), label, "")
            for name, values in found.items()
        }
