"""Drell-Yan events, pp -> Z/gamma* -> l+ l-: learn a generator's events, make new ones with their uncertainties.

Section 4 of arXiv:2104.04543 ([A]): the six distributions of its fig. 9 and their uncertainties, with Wasserstein
distances, a classifier between generated and held-out events, and the width of the Z peak.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pyrogen.bayes import BayesianFlow
from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    DEVICE,
    NATURAL,
    PATH,
    POSITIVE,
    SEED,
    TEXT,
    check_settings,
    door,
    one_of,
    optional,
    require,
    require_extra,
    whole,
)
from pyrogen.events import (
    LEPTONS,
    PERIODIC,
    EventSample,
    collision_energy,
    drell_yan,
    four_vectors,
    lepton_balance,
    lepton_pair,
    lepton_pair_coordinates,
    read,
)
from pyrogen.flows import CouplingFlow
from pyrogen.inference import SVI
from pyrogen.plotting import plot_kinematics, plot_training, plot_uncertainties, save_figure
from pyrogen.printing import Brief
from pyrogen.threads import set_threads

from .common import (
    CHECKPOINT,
    DATA,
    HELD_OUT,
    check_threads,
    fitted,
    folder_name,
    generated_events,
    held_out,
    make_folder,
    save_summary,
    tell_about,
)
from .drell_yan_results import beyond_the_beams, compare, covered, judge

SAMPLE = DATA / "drell_yan_5k.h5"  #: 5,000 events of Pythia 8, learned by ``quick``.
FEWEST = 500  #: Events to learn from and to compare with.
# The affine flow of [A] table 2 is much deeper than splines need to be where coordinates fit.
MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "affine": {"blocks": 8, "hidden": (16, 16)},
        "rqs": {"blocks": 4, "hidden": (16, 16), "bins": 8},
        "svi": {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2},
        "evaluation": {"draws": 20, "histogram": 10_000, "trainings": 2, "coarser": 3},
    },
    "default": {
        "affine": {"blocks": 20, "hidden": (64, 64)},
        "rqs": {"blocks": 6, "hidden": (64, 64), "bins": 10},
        "svi": {"epochs": 16, "batch_size": 1024, "lr": 2e-3, "lr_widths": 1e-2, "widths_after": 0.5},
        "evaluation": {"draws": 50, "histogram": 100_000, "trainings": 3, "coarser": 1},
    },
}
FILES = (
    "posterior.h5",
    "held_out.h5",
    "generated.h5",
    "kinematics.png",
    "uncertainties.png",
    "training.png",
    "summary.json",
)
CUT = ("mass", "recoil")  #: Coordinates that take a lowest mass and the energy of the beams.


@dataclass(frozen=True, repr=False)
class DrellYan(Brief):
    """Learn Drell-Yan lepton pairs, generate new ones with their uncertainties, and compare with held-out events.

    It needs the extra "lhc". Without ``events`` Pythia 8 makes them (extra "pythia"), or ``quick`` takes 5,000 that the
    package brings along.

    Attributes:
        events: file of the events to learn: .lhe, .lhe.gz, .h5, .root or .npy.
        dataset: which table or tree of a file that holds several.
        leptons: leptons to take from an LHE file (l: e and mu).
        select: "balanced": events whose leptons balance in the transverse plane; "recoiling": those where something
            recoils.
        train: training events, at most.
        quick: a small network, in a minute.
        coordinates: what the flow learns the density of.
        energy: of the beams together in GeV (what the file says).
        mass_low: cut on the mass of the pair in GeV (just below the smallest).
        transform: the coupling of the flow.
        epochs: passes over the events (16; quick: 40).
        draws: weight draws of a prediction (50; quick: 20).
        generate: events to generate (as many as are held out).
        log_weights: keep the log-weights of all draws in generated.h5.
        label: what the figures call the truth.
        caption: above the figures, such as "pp at 13 TeV".
        seed: seed of the events and of the training.
        threads: CPU threads of this process. One thread gives the same bits every time.
        device: where the flow is trained and evaluated: cpu, or a GPU such as cuda.

    Raises:
        ValueError: a wrong value.
        TypeError: ``events`` is no path.
    """

    events: Path | None = None
    dataset: str | None = None
    leptons: Literal["l", "e", "mu"] = "l"
    select: Literal["all", "balanced", "recoiling"] = "all"
    train: int = 1_000_000
    quick: bool = False
    coordinates: Literal["mass", "log-pt", "cartesian", "recoil"] = "mass"
    energy: float | None = None
    mass_low: float | None = None
    transform: Literal["affine", "rqs"] = "rqs"
    epochs: int | None = None
    draws: int | None = None
    generate: int | None = None
    log_weights: bool = False
    label: str = "held-out events"
    caption: str = ""
    seed: int = 0
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(
            self,
            events=optional(PATH),
            dataset=optional(TEXT),
            leptons=one_of(*LEPTONS),
            select=one_of("all", "balanced", "recoiling"),
            train=NATURAL,
            quick=BOOLEAN,
            coordinates=one_of("mass", "log-pt", "cartesian", "recoil"),
            energy=optional(POSITIVE),
            mass_low=optional(POSITIVE),
            transform=one_of("affine", "rqs"),
            epochs=COUNT,
            draws=optional(whole(2)),
            generate=COUNT,
            log_weights=BOOLEAN,
            label=TEXT,
            caption=TEXT,
            seed=SEED,
            threads=check_threads,
            device=DEVICE,
        )
        right = f"left out: coordinates {self.coordinates} know no cut"
        require(self.mass_low is None or self.coordinates in CUT, "mass_low", self.mass_low, right)
        right = "left out: only LHE files say which leptons they hold"
        require(self.leptons == "l" or self._is_lhe(), "leptons", self.leptons, right)
        for name, usual in (("dataset", None), ("select", "all")):
            right = "left out where no file of events is given"
            require(self.events is not None or getattr(self, name) == usual, name, getattr(self, name), right)

    @property
    def folder(self) -> Path:
        """Where the command puts the results, if no other folder is given."""
        return folder_name("drell_yan", "quick" if self.quick else "", self.coordinates, self.transform)

    @door(out=PATH)
    def run(self, out: str | os.PathLike[str]) -> dict[str, Any]:
        """Read, fit, generate, compare; write the posterior, both samples, three figures and ``summary.json``.

        Args:
            out: folder of the results. An interrupted run in it goes on.

        Returns:
            The numbers of ``summary.json``.

        Raises:
            ValueError: events that are no lepton pairs, or too few; or a folder that cannot be written, or holds the
                interrupted run of other settings.
            OSError: the events cannot be read.
            ImportError: an extra is not installed.
        """
        started = time.monotonic()
        require_extra("hist", "lhc", "the Drell-Yan recipe")
        set_threads(self.threads)
        mode = MODES["quick" if self.quick else "default"]
        evaluation = mode["evaluation"] | ({"draws": self.draws} if self.draws else {})
        sample = self._read()
        if len(sample) < FEWEST:
            raise ValueError(f"{self._source()}: {len(sample)} events are too few to learn from and to compare with")
        folder = make_folder(out)
        print(sample.summary())

        truth, learned = held_out(sample, self.seed)
        truth.save(folder / "held_out.h5")
        model = self._make_model(sample)
        flow = f"{self.transform} flow with {model.weights:,} weights"
        print(f"\n{len(learned):,} training events, {flow}, seed {self.seed}")
        tell_about(folder / CHECKPOINT)
        settings = mode["svi"] | ({"epochs": self.epochs} if self.epochs else {})
        svi = SVI(**settings, seed=self.seed, device=self.device, checkpoint=folder / CHECKPOINT)
        posterior = fitted(svi, model, learned, self._source())
        posterior.save(folder / "posterior.h5")

        wanted = self.generate or len(truth)
        path = posterior.generate_to(
            folder / "generated.h5",
            wanted,
            evaluation["draws"],
            seed=self.seed,
            log_weights=self.log_weights,
            finish=four_vectors,
        )
        generated = lepton_pair(read(path), recoil=sample.features == 6)
        panels = compare(posterior, truth, evaluation)
        labels: dict[str, Any] = {"truth_label": self.label, "rlabel": self.caption}
        save_figure(plot_kinematics(panels, **labels), folder / "kinematics.png")
        # The same events for all draws: what these differ by is the posterior's, with little noise of the events in it.
        same_events = compare(posterior, truth, evaluation, procedure="b")
        save_figure(plot_uncertainties(same_events, **labels), folder / "uncertainties.png")
        save_figure(plot_training(posterior.history), folder / "training.png")
        summary = judge(truth, learned, generated, evaluation, self.seed)
        summary["bins"] = covered(panels, same_events)
        summary |= {
            "beyond_the_beams": beyond_the_beams(generated, self.energy or collision_energy(sample)),
            "coordinates": self.coordinates,
            "transform": self.transform,
            "training_events": len(learned),
            "weights": model.weights,
            "seconds_training": float(posterior.history["seconds"][-1]),
            "seconds_all": time.monotonic() - started,
            "median_uncertainty": float(np.median(generated.uncertainties)),  # type: ignore[arg-type]
            "loss": {name: float(posterior.history[name][-1]) for name in ("nll", "kl")},
            "settings": posterior.info.settings,
        }
        summary = save_summary(folder, summary)
        print(
            f"\n{wanted:,} generated events, median uncertainty {summary['median_uncertainty']:.1%}; training "
            f"{summary['seconds_training']:.0f} s of {summary['seconds_all']:.0f} s"
        )
        print("wrote", *(f"  {folder / file}" for file in FILES), sep="\n")
        return summary

    def _read(self) -> EventSample:
        """The lepton pairs of the file, of the package's sample, or of Pythia, in four columns or six.

        Raises:
            ValueError: events that are no lepton pairs, or whose leptons do not balance.
            OSError: the file cannot be read.
            ImportError: an extra is not installed.
        """
        most = round(self.train / (1 - HELD_OUT))
        if self.events is None and not self.quick:
            return generated_events(drell_yan, most, self.seed)
        path = self._source()
        particles = LEPTONS[self.leptons] if self._is_lhe() else None
        sample = read(path, dataset=self.dataset, particles=particles, progress=True)[:most]
        if self.select != "all":
            balanced = lepton_balance(sample)
            sample = sample[balanced if self.select == "balanced" else ~balanced]
        recoil = self.coordinates == "recoil" or (self.coordinates == "cartesian" and self.select == "recoiling")
        try:
            return lepton_pair(sample, recoil=recoil)
        except ValueError as error:
            raise ValueError(
                f"{path}: {error}\nIn this recipe: --select balanced, or --select recoiling --coordinates recoil"
            ) from error

    def _make_model(self, sample: EventSample) -> BayesianFlow:
        """The flow, with the coordinates as its preprocessing; splines know circles, affine blocks do not."""
        circle = self.transform == "rqs" and self.coordinates != "cartesian"
        more: dict[str, Any] = {"transform": self.transform}
        if self.transform == "rqs":
            more |= {"mixing": "random", "periodic": PERIODIC[self.coordinates] if circle else ()}
        flow = CouplingFlow(sample.features, **MODES["quick" if self.quick else "default"][self.transform] | more)
        limits: dict[str, Any] = {"energy": self.energy or collision_energy(sample), "mass_low": self.mass_low}
        known = limits if self.coordinates in CUT else {}
        preprocessing = lepton_pair_coordinates(self.coordinates, circle=circle, **known)
        return BayesianFlow(flow, preprocessing=preprocessing)

    def _source(self) -> str:
        """The file of the events, or what makes them."""
        if self.events is None:
            return str(SAMPLE) if self.quick else "Pythia"
        return os.fspath(self.events)

    def _is_lhe(self) -> bool:
        return self._source().endswith((".lhe", ".lhe.gz"))
