"""Z + jets, pp -> Z/gamma* (-> mu mu) + 1, 2, 3 jets: one chain of flows over the number of jets, with error bars.

The system of arXiv:2110.13632 ([B]). For each number of jets: distributions with the posterior's band over held-out
events, Wasserstein distances, a classifier, deviations in the bulk, the Z peak, and the distance of jets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pyrogen.bayes import BayesianFlow
from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    DEVICE,
    NATURAL,
    PATH,
    SEED,
    TEXT,
    check_settings,
    door,
    one_of,
    optional,
    require_extra,
    whole,
)
from pyrogen.events import (
    EventSample,
    jet_coordinates,
    read,
    separated_jets,
    z_jets,
    z_jets_observables,
)
from pyrogen.flows import MultiplicityFlow
from pyrogen.inference import SVI, DiscFlow
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
from .z_jets_results import CLOSEST, FIGURES, LAYOUT, compare, covered, jets_of, judge, numbers

SAMPLE = DATA / "z_jets_5k.h5"  #: 5,000 events of Pythia 8 and fastjet, learned by ``quick``.
LEAST = 5_000  #: Events to generate.
FEWEST = 500  #: Events to learn from and to compare with.
MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "flow": {"blocks": 4, "hidden": (16, 16), "bins": 8},
        "svi": {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2},
        "evaluation": {"draws": 20, "trainings": 1, "coarser": 2},
    },
    "default": {
        "flow": {"blocks": (6, 4, 4), "hidden": (64, 64), "bins": 10},
        "svi": {"epochs": 24, "batch_size": 1024, "lr": 2e-3, "lr_widths": 3e-2, "widths_after": 0.4},
        "evaluation": {"draws": 50, "trainings": 2, "coarser": 1},
    },
}


@dataclass(frozen=True, repr=False)
class ZJets(Brief):
    """Learn Z + 1, 2, 3 jets, generate new events with their uncertainties, and compare with held-out events.

    It needs the extra "lhc". Without ``events`` Pythia 8 and fastjet make them (extras "pythia" and "fastjet"), or
    ``quick`` takes 5,000 that the package brings along.

    Attributes:
        events: HDF5 file of the events to learn, with the columns and the numbers of jets of ``pg.events.z_jets``.
        train: training events, at most.
        quick: a small network, in two minutes.
        coordinates: what the flow learns the density of. "polar": the second jet by distance and direction from the
            first; "paper": variables that know neither the Z peak nor distances of jets.
        transform: the coupling of the flow.
        discflow: train together with a discriminator that sees the Z peak and the distances of jets.
        epochs: passes over the events (24; quick: 40).
        draws: weight draws of a prediction (50; quick: 20).
        generate: events to generate (as many as are held out, 5,000 at least).
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
    train: int = 400_000
    quick: bool = False
    coordinates: Literal["resonance", "polar", "paper"] = "resonance"
    transform: Literal["rqs", "cubic"] = "rqs"
    discflow: bool = False
    epochs: int | None = None
    draws: int | None = None
    generate: int | None = None
    label: str = "held-out events"
    caption: str = ""
    seed: int = 0
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(
            self,
            events=optional(PATH),
            train=NATURAL,
            quick=BOOLEAN,
            coordinates=one_of("resonance", "polar", "paper"),
            transform=one_of("rqs", "cubic"),
            discflow=BOOLEAN,
            epochs=COUNT,
            draws=optional(whole(2)),
            generate=COUNT,
            label=TEXT,
            caption=TEXT,
            seed=SEED,
            threads=check_threads,
            device=DEVICE,
        )

    @property
    def folder(self) -> Path:
        """Where the command puts the results, if no other folder is given."""
        kinds = ("quick" if self.quick else "", self.coordinates, self.transform, "disc" if self.discflow else "")
        return folder_name("z_jets", *kinds)

    @door(out=PATH)
    def run(self, out: str | os.PathLike[str]) -> dict[str, Any]:
        """Read, fit, generate, compare; write the posterior, both samples, seven figures and ``summary.json``.

        Args:
            out: folder of the results. An interrupted run in it goes on.

        Returns:
            The numbers of ``summary.json``.

        Raises:
            ValueError: events of another layout or too few; or a folder that cannot be written, or that holds the
                interrupted run of other settings.
            OSError: the events cannot be read.
            ImportError: an extra is not installed.
        """
        started = time.monotonic()
        require_extra("hist", "lhc", "the Z + jets recipe")
        set_threads(self.threads)
        mode = MODES["quick" if self.quick else "default"]
        evaluation = mode["evaluation"] | ({"draws": self.draws} if self.draws else {})
        sample = apart(read_events(self.events, self.train, self.quick, self.seed))
        if len(sample) < FEWEST:
            raise ValueError(f"{self._source()}: {len(sample)} events are too few to learn from and to compare with")
        truth, learned = held_out(sample, self.seed)
        for jets in FIGURES:
            if min((jets_of(part) == jets).sum() for part in (truth, learned)) == 0:
                few = f"{len(sample):,} events have too few with {jets} jets to learn from and to compare with"
                raise ValueError(f"{self._source()}: {few}")
        folder = make_folder(out)
        print(sample.summary())
        truth.save(folder / "held_out.h5")
        model = make_model(self.coordinates, mode["flow"], transform=self.transform, seed=self.seed)
        print(f"\n{len(learned):,} training events, flows with {model.weights:,} weights, seed {self.seed}")
        tell_about(folder / CHECKPOINT)
        settings = mode["svi"] | ({"epochs": self.epochs} if self.epochs else {})
        settings |= {"seed": self.seed, "device": self.device, "checkpoint": folder / CHECKPOINT}
        backend = DiscFlow(**settings, observables=hidden_features) if self.discflow else SVI(**settings)
        posterior = fitted(backend, model, learned, self._source())
        posterior.save(folder / "posterior.h5")

        clock = time.monotonic()
        wanted, draws = self.generate or max(len(truth), LEAST), evaluation["draws"]
        path = posterior.generate_to(folder / "generated.h5", wanted, draws, seed=self.seed, log_weights=True)
        generated = read(path)
        summary = {
            "coordinates": self.coordinates,
            "transform": self.transform,
            "discflow": self.discflow,
            "training_events": len(learned),
            "weights": model.weights,
            "seconds_training": float(posterior.history["seconds"][-1]),
            "seconds_generating": time.monotonic() - clock,
            "loss": {name: float(posterior.history[name][-1]) for name in ("nll", "kl")},
            "settings": posterior.info.settings,
            "numbers": numbers(posterior, truth),
        }
        save_figure(plot_training(posterior.history), folder / "training.png")
        panels = compare(path, truth, evaluation["coarser"])
        labels: dict[str, Any] = {"truth_label": self.label, "rlabel": self.caption}
        for jets, its in panels.items():
            print(f"\n{'=' * 20} {jets} {'jet' if jets == 1 else 'jets'} {'=' * 20}")
            save_figure(plot_kinematics(list(its.values()), **labels), folder / f"kinematics_{jets}.png")
            save_figure(plot_uncertainties(list(its.values()), **labels), folder / f"uncertainties_{jets}.png")
            found = judge(truth, learned, generated, jets, evaluation["trainings"], self.seed)
            summary[f"{jets} jets"] = found | {"bins": covered(its)}
        summary["seconds_all"] = time.monotonic() - started
        summary = save_summary(folder, summary)
        print(f"\ntraining {summary['seconds_training']:.0f} s of {summary['seconds_all']:.0f} s; wrote {folder}/")
        return summary

    def _source(self) -> str:
        """The file of the events, or what makes them."""
        if self.events is None:
            return str(SAMPLE) if self.quick else "Pythia"
        return os.fspath(self.events)


def read_events(events: str | os.PathLike[str] | None, train: int, quick: bool, seed: int) -> EventSample:
    """The events of a file, of the package's sample, or of Pythia and fastjet.

    Args:
        events: the file; None: what the package brings along, or new events.
        train: training events, at most.
        quick: whether the package's sample is meant.
        seed: of new events.

    Raises:
        ValueError: events of another layout.
        OSError: the file cannot be read.
        ImportError: an extra is not installed.
    """
    most = round(train / (1 - HELD_OUT))
    if events is None and not quick:
        return generated_events(z_jets, most, seed)
    path = SAMPLE if events is None else events
    sample = read(path, progress=True)[:most]
    if sample.multiplicity != LAYOUT:
        raise ValueError(f"{path} has the layout {sample.multiplicity}; this needs two leptons and 1 to 3 jets")
    return sample


def apart(sample: EventSample) -> EventSample:
    """The events whose jets are farther apart than their radius: all but a few, whose jets moved while they grew."""
    keep = separated_jets(sample, CLOSEST).keep
    if not keep.all():
        print(f"{(~keep).sum()} of {len(sample):,} events with jets closer than {CLOSEST} are left out")
    return sample[keep]


def make_model(coordinates: str, size: Mapping[str, Any], prior_scale: float | str = 1.0, **more: Any) -> BayesianFlow:
    """The chain of flows, with the coordinates as its preprocessing.

    Args:
        coordinates: of :func:`pyrogen.events.jet_coordinates`; ``"polar"``: ``"resonance"`` with ``polar=1``.
        size: arguments of the flows: blocks, layers, bins.
        prior_scale: of the weights.
        **more: other arguments of the flows.
    """
    polar = coordinates == "polar"
    chosen = jet_coordinates("resonance" if polar else coordinates, most=3, polar=int(polar))
    places: dict[str, Any] = {"periodic": chosen.periodic, "uniform": chosen.uniform}
    places |= chosen.layout.config()
    flow = MultiplicityFlow(**places, **size, **more, mixing="random")
    return BayesianFlow(flow, prior_scale=prior_scale, preprocessing=chosen.preprocessing)


def hidden_features(events: torch.Tensor) -> torch.Tensor:
    """What flows find hard to see: the distance to the Z peak, and the distances of jets; NaN without them."""
    observables = z_jets_observables()
    mass = (observables["M_pair"](events) - 91.2) / 2.5
    distances = [observables[f"delta_r_{pair}"](events) for pair in ("j1j2", "j1j3", "j2j3")]
    return torch.stack([torch.asinh(mass), torch.tanh(mass), *distances], -1)
