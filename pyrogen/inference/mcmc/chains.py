"""The loop of the sampled backends: chains, their statistics, checkpoints, and what is wrong with them at the end."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.run.adam import Adam
from pyrogen.inference.run.checkpoint import digest, load_checkpoint, run_identity, save_checkpoint
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.draw_store import DrawStore
from pyrogen.inference.run.potential import Potential, Whitened, independent_starts
from pyrogen.inference.runs import run_info
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.seeds import stream

if TYPE_CHECKING:
    from pyrogen.inference.mcmc.sampler import Sampler

State = dict[str, Tensor]
FEWEST = 20  # draws per chain from which on they are asked to agree
LARGEST_RHAT = 1.1
JUDGES = 4096  # events by whose potential chains on mini-batches are judged


class SamplingWarning(UserWarning):
    """The chains of a sampler are not what a posterior needs; the text says why and what to try."""


class SamplingError(RuntimeError):
    """A chain cannot go on; the text names the chain and says what to try."""


@dataclass
class SamplingRun:
    """One run of a :class:`~pyrogen.inference.mcmc.sampler.Sampler`."""

    sampler: Sampler
    model: BayesianFlow
    data: TrainingData
    statistics: dict[str, list[list[float]]] = field(default_factory=dict)
    done: int = 0  # transitions, warm-up included
    seconds: float = 0.0

    #: Where draws go, in the order in which this loop makes them.
    draw_store: ClassVar[type[DrawStore]] = DrawStore

    def __post_init__(self) -> None:
        sampler = self.sampler
        self.potential = self.make_potential()
        self.generator = torch.Generator(self.model.device).manual_seed(stream(sampler.seed, 0))
        location, scale = torch.zeros_like(self.potential.prior_scale), self.potential.prior_scale
        if sampler.whiten:
            assert isinstance(sampler.start, Posterior)
            location, scale = (sampler.start.weights.arrays[name].to(scale) for name in ("loc", "scale"))
        self.target = Whitened(self.potential, location, scale)
        more: dict[str, Any] = {"backend": type(sampler).__name__}
        if isinstance(sampler.start, Posterior):
            more["start"] = {name: digest(array) for name, array in sampler.start.weights.arrays.items()}
        self.identity = run_identity(sampler.describe(), self.model, self.data, **more)
        self.total = sampler.warmup + sampler.draws
        # Kernels on mini-batches are judged by the potential of events that stay the same, for all chains.
        self.judges: Tensor | None = None
        if sampler.noisy_potential and self.potential.size > JUDGES:
            rows = np.random.default_rng(stream(sampler.seed, 2)).choice(self.potential.size, JUDGES, replace=False)
            self.judges = torch.from_numpy(np.sort(rows)).to(self.model.device)

    def make_potential(self) -> Potential:
        """The potential that the chains follow."""
        return Potential(self.model, self.data, compile=self.sampler.compile)

    def run(self) -> Posterior:
        """Sample from the beginning or the checkpoint to the end."""
        return self.posterior(self.sample_chains(), self.history())

    def sample_chains(self) -> Tensor:
        """All transitions that are left; returns the draws ``[C, draws, P]``."""
        sampler = self.sampler
        store, state = self._resume()
        before = time.monotonic() - self.seconds
        saved = time.monotonic()
        with self.bar() as bar:
            while self.done < self.total:
                row = self.transition(state)
                for name, values in row.items():
                    self.statistics.setdefault(name, []).append(values.tolist())
                if self.done >= sampler.warmup:
                    store.append(self.target.theta(state["position"]))
                self.done += 1
                self.seconds = time.monotonic() - before
                if sampler.checkpoint is not None and (
                    time.monotonic() - saved > sampler.checkpoint_seconds or self.done == self.total
                ):
                    self._save(store, state)
                    saved = time.monotonic()
                bar.update()
                bar.set_postfix_str(self._progress(row), refresh=False)
        return store.draws

    def bar(self, rounds: int = 1, finished: int = 0) -> tqdm[Any]:
        """The progress bar of the whole run, of which all transitions come in one or several rounds."""
        return tqdm(
            total=rounds * self.total,
            initial=finished * self.total + self.done,
            desc=type(self.sampler).__name__,
            unit="transition",
            disable=not self.sampler.progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    def transition(self, state: State) -> dict[str, Tensor]:
        """``thinning`` steps of the kernel; statistics ``[C]`` are averaged over them.

        Raises:
            SamplingError: a chain whose potential or weights are not finite any more.
        """
        sampler = self.sampler
        warmup_steps = sampler.warmup * sampler.thinning
        sums: dict[str, Tensor] = {}
        for i in range(sampler.thinning):
            step = self.done * sampler.thinning + i
            for name, values in self.advance(state, step, warmup_steps).items():
                sums[name] = sums[name] + values.double() if name in sums else values.double()
        row = {name: values / sampler.thinning for name, values in sums.items()}
        self._check(state)
        value = self.target.value(state["position"], self.judges) if sampler.noisy_potential else state["potential"]
        return row | {"potential": value.double()}

    def advance(self, state: State, step: int, warmup_steps: int) -> dict[str, Tensor]:
        """One step of the kernel, as :meth:`~pyrogen.inference.mcmc.sampler.Sampler.advance`."""
        return self.sampler.advance(self.target, state, step, warmup_steps, self.generator)

    def _check(self, state: State) -> None:
        bad = ~(state["potential"].isfinite() & state["position"].isfinite().all(1))
        if bad.any():
            chains = ", ".join(str(c) for c in bad.nonzero()[:, 0].tolist())
            where = "in the warm-up" if self.done < self.sampler.warmup else "after the warm-up"
            raise SamplingError(
                f"chain {chains} (of {len(bad)}): the potential or the weights became NaN or infinite in transition "
                f'{self.done} ({where}); try a smaller step_size, dtype=torch.float64, or start="map"'
            )

    def _progress(self, row: dict[str, Tensor]) -> str:
        def several(name: str, form: str) -> str:
            values = row[name].tolist()[:8]
            return " ".join(form.format(value) for value in values)

        phase = "warm-up, " if self.done <= self.sampler.warmup else ""
        told = [f"U {several('potential', '{:.1f}')}"]
        if "acceptance" in row:
            told.insert(0, f"acceptance {several('acceptance', '{:.2f}')}")
        if "step_size" in row:
            told.append(f"step {several('step_size', '{:.1e}')}")
        return phase + ", ".join(told)

    def start(self, theta: Tensor | None = None) -> State:
        """The kernel's state at starting points ``theta [C, P]``; None: at those that the sampler's ``start`` names.

        Raises:
            SamplingError: the potential is not finite there.
        """
        position = self._starting_position() if theta is None else self.target.position(theta)
        value = self.target.value(position)
        if not value.isfinite().all():
            raise SamplingError(
                f"the potential at the chains' starting points is {[f'{v:.6g}' for v in value.tolist()]}, and no chain "
                'can start where it is not finite; try start="map", or a flow whose density covers all events'
            )
        return self.sampler.begin(self.target, position, self.generator)

    def _starting_position(self) -> Tensor:
        sampler = self.sampler
        seed = stream(sampler.seed, 1)
        if isinstance(sampler.start, Posterior):
            theta = _overdispersed(sampler.start, sampler.chains, sampler.dispersion, seed).to(self.target.scale)
        elif sampler.start == "prior":
            theta = self.potential.prior_scale * torch.randn(
                sampler.chains,
                self.model.weights,
                generator=self.generator,
                dtype=self.model.dtype,
                device=self.model.device,
            )
        else:
            theta = independent_starts(self.model, sampler.chains, seed)
        position = self.target.position(theta)
        if sampler.start == "map":
            batch = 1024 if self.potential.size > 4096 else None
            adam = Adam(sampler.start_steps, batch_size=batch)
            position = adam.run(self.target, position, self.generator, sampler.progress)
        return position

    def _resume(self) -> tuple[DrawStore, State]:
        """The state in the checkpoint, or a fresh one."""
        sampler = self.sampler
        shape = (sampler.chains, sampler.draws, self.model.weights)
        run = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        if sampler.checkpoint is None:
            return self.draw_store(shape, self.model.dtype), self.start()
        path = draws_path(sampler.checkpoint)
        found = load_checkpoint(sampler.checkpoint, self.identity)
        if found is None:
            return self.draw_store(shape, self.model.dtype, path, run), self.start()
        saved, tensors = found
        self.done, self.seconds, self.statistics = saved["done"], saved["seconds"], saved["statistics"]
        self.potential.gradients = saved["gradients"]
        self.generator.set_state(tensors.pop("generator"))
        store = self.draw_store(shape, self.model.dtype, path, run, saved["checksums"])
        return store, {name: tensor.to(self.model.device) for name, tensor in tensors.items()}

    def _save(self, store: DrawStore, state: State) -> None:
        store.flush()
        saved = {
            "done": self.done,
            "seconds": self.seconds,
            "statistics": self.statistics,
            "gradients": self.potential.gradients,
            "checksums": store.checksums,
        }
        tensors = state | {"generator": self.generator.get_state()}
        save_checkpoint(self.sampler.checkpoint, self.identity, saved, tensors)

    def history(self) -> dict[str, np.ndarray]:
        """The statistics of all transitions, ``[C, draws]`` by name, those of the warm-up as ``warmup_...``."""
        warmup = self.sampler.warmup
        history = {}
        for name, rows in self.statistics.items():
            values = np.asarray(rows).T  # [C, transitions]
            history[name], history[f"warmup_{name}"] = values[:, warmup:], values[:, :warmup]
        return history

    def posterior(self, draws: Tensor, history: dict[str, np.ndarray]) -> Posterior:
        """The result of some of the chains, with warnings where something is wrong with them."""
        problems = find_problems(history, draws) + self.sampler.problems(history)
        for problem in problems:
            warnings.warn(problem, SamplingWarning, stacklevel=5)
        info = run_info(self.sampler, self.data) | {
            "exact": self.sampler.exact,
            "training_events": self.potential.size,
            "effective_size": self.potential.effective_size,
            "chains": len(draws),
            "gradients": self.potential.gradients,
            "seconds": self.seconds,
            "warnings": problems,
            "chains_batched": self.potential.obstacle or "one gradient for all chains",
        }
        return Posterior(self.model, WeightPosterior("draws", {"draws": draws}), history, info)


def draws_path(checkpoint: Any) -> Path:
    """The file of the draws that belongs to a checkpoint: ``run.h5`` -> ``run.draws.h5``."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.draws{path.suffix or '.h5'}")


def find_problems(history: dict[str, np.ndarray], draws: Tensor) -> list[str]:
    """What is wrong with finished chains, in words with advice.

    Args:
        history: statistics ``[C, draws]`` by name.
        draws: ``[C, draws, P]``.
    """
    problems = []
    stuck = [c for c, chain in enumerate(draws) if len(chain) > 1 and bool((chain[0] == chain[-1]).all())]
    stuck = [c for c in stuck if bool((draws[c] == draws[c][:1]).all())]
    if stuck:
        problems.append(
            f"chain {_list(stuck)} never moved: every draw is the same; its step size is too large for where it "
            "sits. Try a longer warmup, a smaller step_size, or another start, and leave these draws out"
        )
    if "diverging" in history:
        share = history["diverging"].mean(1)
        if (share > 0.01).any():
            problems.append(
                f"divergent trajectories: {', '.join(f'{s:.1%}' for s in share)} of each chain's; the draws miss the "
                "regions where the potential is steep. Try target_acceptance=0.95, or a longer warmup"
            )
    if "acceptance" in history:
        low = [c for c, a in enumerate(history["acceptance"].mean(1)) if a < 0.05 and c not in stuck]
        if low:
            problems.append(
                f"chain {_list(low)} accepted less than 5 % of its proposals: its draws repeat each other. Try a "
                "longer warmup or a smaller step_size"
            )
    if "step_size" in history:
        smallest = history["step_size"].min(1)
        collapsed = [c for c, s in enumerate(smallest) if s < 1e-3 * np.median(smallest) or s < 1e-8]
        if collapsed:
            problems.append(
                f"the step size of chain {_list(collapsed)} collapsed to {smallest[collapsed].min():.1e}: it sits "
                "where the potential is far steeper than elsewhere. Try dtype=torch.float64, another start, or a "
                'smooth flow (transform="bernstein", activation="tanh")'
            )
    potential = history["potential"]
    if potential.shape[1] >= FEWEST and (rhat := split_rhat(potential)) > LARGEST_RHAT:
        means = ", ".join(f"{mean:.1f}" for mean in potential.mean(1))
        problems.append(
            f"the chains disagree: split R-hat of the potential is {rhat:.2f} (its means: {means}). They have not met, "
            "and an average over them is none of the posterior. Try a longer warmup and more draws; see "
            "pyrogen.diagnostics.function_space for their predictions"
        )
    return problems


def split_rhat(values: np.ndarray) -> float:
    """Gelman and Rubin's R-hat of ``values [C, draws]``, every chain cut into two halves."""
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    within, between = halves.var(1, ddof=1).mean(), halves.mean(1).var(ddof=1)
    return float(np.sqrt((half - 1) / half + between / within)) if within > 0 else np.inf


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _overdispersed(posterior: Posterior, chains: int, dispersion: float, seed: int) -> Tensor:
    """Starting weights ``[C, P]``: draws of a posterior.

    Those of a distribution are stretched away from its mean by ``dispersion``; stored draws, which may come from
    several modes, have no centre to be stretched from, and every chain takes one of them.
    """
    weights = posterior.weights
    if weights.family == "draws":
        stored = weights.arrays["draws"]
        chosen = np.random.default_rng(seed).choice(weights.stored or 0, chains, replace=False)
        return torch.stack([stored[divmod(int(i), stored.shape[1])] for i in chosen])
    draws = torch.stack(list(weights.draws(chains, seed)))
    return weights.arrays["loc"] + dispersion * (draws - weights.arrays["loc"])
