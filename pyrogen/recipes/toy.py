"""The toys of arXiv:2104.04543, sec. 3: densities known in closed form, on which every prediction can be checked."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from pyrogen.checks import BOOLEAN, COUNT, DEVICE, PATH, SEED, check_settings, door, one_of, optional, require, whole
from pyrogen.diagnostics import advise, calibration_along_lines, density_along_lines, uncertainty_map
from pyrogen.inference import SVI
from pyrogen.plotting import (
    plot_chains,
    plot_correlation,
    plot_lines,
    plot_map,
    plot_marginal_sigma,
    plot_training,
    save_figure,
)
from pyrogen.posterior import Posterior
from pyrogen.printing import Brief
from pyrogen.seeds import seeded
from pyrogen.threads import set_threads

from .backends import (
    NAMES,
    SAMPLED,
    WIDE_RING_BOX,
    events_of,
    make_model,
    make_small_model,
    make_toy_backend,
    stored_draws,
)
from .common import CHECKPOINT, check_threads, fitted, folder_name, make_folder, save_summary, tell_about
from .toy_results import (
    fits,
    last_values,
    marginal_sigma,
    marginals,
    median_ratio,
    print_summary,
    summarise,
)
from .toy_settings import MODES, RANGES, TARGETS, TRANSFORMS, make_settings


@dataclass(frozen=True, repr=False)
class Toy(Brief):
    """Learn a density that is known in closed form, and check the prediction and its uncertainty with the truth.

    Attributes:
        target: the density: "wedge", "kicker" or "ring".
        quick: a small network and few events, in under a minute.
        paper: the network, batch size and epochs of arXiv:2104.04543, for hours.
        events: training events. SVI takes 300,000 (quick: 20,000), the samplers, laplace and ensemble 2,000 (quick:
            300), bootstrap 300,000 (quick: 300).
        transform: the coupling of the flow for svi (bernstein; paper: affine).
        epochs: passes over the events, for svi.
        backend: how the posterior is found.
        draws: weight draws of a prediction (50; quick: 20).
        seed: seed of the events and of the training.
        threads: CPU threads of this process. One thread gives the same bits every time.
        device: where the flow is trained and evaluated: cpu, or a GPU such as cuda.

    Raises:
        ValueError: a wrong value, or two settings that exclude each other.
    """

    target: Literal["wedge", "kicker", "ring"]
    quick: bool = False
    paper: bool = False
    events: int | None = None
    transform: Literal["bernstein", "rqs", "affine"] | None = None
    epochs: int | None = None
    backend: Literal["svi", "laplace", "ensemble", "bootstrap", "sgld", "sghmc", "adam-mcmc", "nuts", "hmc"] = "svi"
    draws: int | None = None
    seed: int = 0
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(
            self,
            target=one_of(*TARGETS),
            quick=BOOLEAN,
            paper=BOOLEAN,
            events=COUNT,
            transform=optional(one_of("bernstein", "rqs", "affine")),
            epochs=COUNT,
            backend=one_of(*NAMES),
            draws=optional(whole(2)),
            seed=SEED,
            threads=check_threads,
            device=DEVICE,
        )
        require(not (self.quick and self.paper), "paper", True, "left out where quick is given")
        if self.backend != "svi":
            for name in ("paper", "transform", "epochs"):
                right = f"left out: backend {self.backend} has a flow and settings of its own"
                require(not getattr(self, name), name, getattr(self, name), right)
            kept = stored_draws(make_toy_backend(self.backend, self.mode, self.seed, None))
            right = f"at most {kept}, the weight draws that the posterior of backend {self.backend} holds"
            require(kept is None or (self.draws or 0) <= kept, "draws", self.draws, right)
        else:
            batch = self._training()["batch_size"]
            require(self._events() >= batch, "events", self._events(), f"at least {batch}, the events of one batch")
        least = len(TARGETS[self.target].parameters) + 1
        require(self._events() >= least, "events", self._events(), f"at least {least}, to fit the true form to them")

    @property
    def mode(self) -> str:
        """``"quick"``, ``"paper"`` or ``"default"``."""
        return "quick" if self.quick else "paper" if self.paper else "default"

    @property
    def folder(self) -> Path:
        """Where the command puts the results, if no other folder is given."""
        kind = self.backend if self.backend != "svi" else self.transform if self._transform() != self._usual() else None
        return folder_name(f"toy_{self.target}", "" if self.mode == "default" else self.mode, kind or "")

    @door(out=PATH)
    def run(self, out: str | os.PathLike[str]) -> dict[str, Any]:
        """Fit, evaluate, and write the posterior, six figures and ``summary.json``.

        Args:
            out: folder of the results. An interrupted run in it goes on.

        Returns:
            The numbers of ``summary.json``.

        Raises:
            ValueError: the folder cannot be written, or holds the interrupted run of other settings.
            MemoryError: more events than memory.
        """
        started = time.monotonic()
        folder = make_folder(out)
        set_threads(self.threads)
        target = TARGETS[self.target]
        with seeded(self.seed):
            events = target.sample((self._events(),))
        posterior = self._fit(events, folder / CHECKPOINT)
        trained = time.monotonic() - started
        posterior.save(folder / "posterior.h5")
        written = [folder / "posterior.h5"]

        evaluation = dict(MODES[self.mode]["evaluation"])
        evaluation["draws"] = draws = posterior.weights.at_most(self.draws or evaluation["draws"])
        x_range, y_range = RANGES[self.target]
        on_box = self._transform() != "affine" and not self._is_ring()  # hard edges, learned exactly
        first, last = (0.01, 0.99) if on_box else target.line_range  # nothing needs cutting away where edges are exact
        t = torch.linspace(first, last, evaluation["points"], dtype=torch.float64)
        lines = density_along_lines(posterior, target, t, draws=draws, seed=self.seed)
        shape, reference = fits(lines, target, events)
        written.append(save_figure(plot_lines(lines, shape, reference), folder / "lines.png"))
        plot_history = plot_chains if self.backend in SAMPLED else plot_training
        written.append(save_figure(plot_history(posterior.history), folder / "training.png"))
        cells = evaluation["cells"]
        plane = uncertainty_map(posterior, (0, *x_range), (1, *y_range), cells, target=target, draws=draws)
        written.append(save_figure(plot_map(plane), folder / "map.png"))
        written.append(
            save_figure(marginals(posterior, events, x_range, y_range, evaluation), folder / "marginals.png")
        )
        sigma = marginal_sigma(posterior, target, lines, evaluation)
        measure = target.line_measure(torch.from_numpy(lines.t)).numpy()
        written.append(save_figure(plot_marginal_sigma(sigma, lines, measure), folder / "marginal_sigma.png"))
        correlation = plot_correlation(sigma.bands["a"], label=lines.label, subtract_noise=True)
        written.append(save_figure(correlation, folder / "correlation.png"))
        advice = advise(posterior, events, support=target, draws=draws)
        coverage = calibration_along_lines([posterior], target, t, draws=draws, seed=self.seed)

        summary = summarise(lines, shape, reference) | {
            "coverage": {"within_1_sigma": coverage.fraction()[0], "verdict": coverage.verdict},
            "marginal_over_lines": median_ratio(sigma, lines, measure),
            "advice": [vars(finding) for finding in advice.findings],
            "seconds_training": trained,
            "seconds_all": time.monotonic() - started,
            "settings": {
                "target": self.target,
                "mode": self.mode,
                "events": len(events),
                "seed": self.seed,
                "transform": self._transform(),
                "draws": draws,
                "backend": self.backend,
                self.backend.replace("-", "_"): posterior.info.settings,
            },
            "warnings": posterior.info.warnings,
            "history": last_values(posterior.history),
        }
        print_summary(summary, lines.label)
        if reference is not None:
            print(reference.text())
        print(f"\nDoes sigma cover the truth? {coverage.text()}")
        print(f"\n{advice.text()}\n")
        summary = save_summary(folder, summary)
        print("wrote", *(f"  {path}" for path in [*written, folder / "summary.json"]), sep="\n")
        return summary

    def _fit(self, events: torch.Tensor, checkpoint: Path) -> Posterior:
        """The posterior; an interrupted run goes on."""
        transform, ring = self._transform(), self._is_ring()
        backend: Any
        if self.backend == "svi":
            model = make_model(self.mode, transform, ring)
            backend = SVI(**self._training(), seed=self.seed, checkpoint=checkpoint)
        else:
            model = make_small_model(self.mode, ring, box=WIDE_RING_BOX)
            backend = make_toy_backend(self.backend, self.mode, self.seed, checkpoint)
        flow = f"{transform} flow with {model.weights:,} weights"
        print(f"{len(events):,} events of {TARGETS[self.target]}, {flow}, seed {self.seed}")
        tell_about(checkpoint)
        return fitted(replace(backend, device=self.device), model, events)

    def _is_ring(self) -> bool:
        return self.target == "ring"

    def _usual(self) -> str:
        return TRANSFORMS[self.mode]

    def _transform(self) -> str:
        return self.transform or self._usual()

    def _training(self) -> dict[str, Any]:
        return make_settings(self.mode, self._transform(), self._is_ring(), self.epochs)

    def _events(self) -> int:
        if self.events is not None:
            return self.events
        return MODES[self.mode]["events"] if self.backend == "svi" else events_of(self.backend, self.mode)
