"""The loop of the sampled backends: chains, their statistics, checkpoints and draws."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.files import FileFormatError
from pyrogen.inference.mcmc.contract import Kernel, State
from pyrogen.inference.mcmc.judge import find_problems
from pyrogen.inference.problems import SamplingError, report
from pyrogen.inference.run.adam import Adam
from pyrogen.inference.run.checkpoint import load_checkpoint, name_of, run_identity, save_checkpoint
from pyrogen.inference.run.curves import Curve
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.draw_store import DrawStore
from pyrogen.inference.run.going_on import weights_digests
from pyrogen.inference.run.potential import Potential, Whitened, independent_starts
from pyrogen.inference.run.stopping import SafePoints
from pyrogen.memory import row_bytes, rows_at_once
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import StoredDraws
from pyrogen.progress import Bar, bar
from pyrogen.seeds import stream

PROBES = 20  # training events, at which the densities of different chains are compared
PROBED = 100  # draws of every chain, for that
JUDGES = 4096  # events by whose potential chains on mini-batches are judged


@dataclass
class SamplingRun:
    """One run of a kernel."""

    kernel: Kernel
    model: BayesianFlow
    data: TrainingData
    statistics: dict[str, Any] = field(default_factory=dict)
    done: int = 0  # transitions, warm-up included
    seconds: float = 0.0

    #: Where draws go, in the order in which this loop makes them.
    draw_store: ClassVar[type[DrawStore]] = DrawStore

    def __post_init__(self) -> None:
        kernel = self.kernel
        self.potential = self.make_potential()
        self.generator = torch.Generator(self.model.device).manual_seed(stream(kernel.seed, 0))
        location, scale = self.potential.prior_centre, self.potential.prior_scale
        if kernel.whiten:
            assert isinstance(kernel.start, Posterior)
            location, scale = (kernel.start.weights.arrays[name].to(scale) for name in ("loc", "scale"))
        self.target = Whitened(self.potential, location, scale)
        more: dict[str, Any] = {"backend": type(kernel).__name__}
        if isinstance(kernel.start, Posterior):
            more["start"] = weights_digests(kernel.start)
        self.identity = run_identity(kernel.describe(), self.model, self.data, **more)
        self.name = name_of(self.identity)  # by which the file of the draws knows its run
        self.total = kernel.warmup + kernel.draws
        # Kernels on mini-batches are judged by the potential of events that stay the same, for all chains.
        self.judges: Tensor | None = None
        if kernel.noisy_potential and self.potential.size > JUDGES:
            rows = np.random.default_rng(stream(kernel.seed, 2)).choice(self.potential.size, JUDGES, replace=False)
            self.judges = torch.from_numpy(np.sort(rows)).to(self.model.device)

    def make_potential(self) -> Potential:
        """The potential that the chains follow."""
        return Potential(self.model, self.data, compile=self.kernel.compile)

    def run(self) -> Posterior:
        """Sample from the beginning or the checkpoint to the end."""
        return self.posterior(self.sample_chains(), self.history())

    def sample_chains(self) -> Tensor:
        """All transitions that are left; returns the draws ``[C, draws, P]``."""
        kernel = self.kernel
        store, state = self._resume()
        before = time.monotonic() - self.seconds
        saved = time.monotonic()
        with self.bar() as shown, SafePoints(lambda: self._save(store, state)) as safe_point:
            while self.done < self.total:
                row = self.transition(state)
                for name, values in row.items():
                    self.statistics.setdefault(name, Curve()).append(values.tolist())
                if self.done >= kernel.warmup:
                    store.append(self.target.theta(state["position"]))
                self.done += 1
                self.seconds = time.monotonic() - before
                if time.monotonic() - saved > kernel.checkpoint_seconds or self.done == self.total:
                    self._save(store, state)
                    saved = time.monotonic()
                shown.update()
                shown.set_postfix_str(self._progress(row), refresh=False)
                safe_point()
        return store.draws

    def bar(self, rounds: int = 1, finished: int = 0) -> Bar[Any]:
        """The progress bar of the whole run, of which all transitions come in one or several rounds."""
        return bar(
            rounds * self.total,
            type(self.kernel).__name__,
            "transition",
            show=self.kernel.progress,
            done=finished * self.total + self.done,
        )

    def transition(self, state: State) -> dict[str, Tensor]:
        """``thinning`` steps of the kernel; statistics ``[C]`` are averaged over them.

        Raises:
            SamplingError: a chain whose potential or weights are not finite any more.
        """
        kernel = self.kernel
        warmup_steps = kernel.warmup * kernel.thinning
        sums: dict[str, Tensor] = {}
        for i in range(kernel.thinning):
            step = self.done * kernel.thinning + i
            for name, values in self.advance(state, step, warmup_steps).items():
                sums[name] = sums[name] + values.double() if name in sums else values.double()
        row = {name: values / kernel.thinning for name, values in sums.items()}
        self._check(state)
        value = self.target.value(state["position"], self.judges) if kernel.noisy_potential else state["potential"]
        return row | {"potential": value.double()}

    def advance(self, state: State, step: int, warmup_steps: int) -> dict[str, Tensor]:
        """One step of the kernel, as :meth:`~pyrogen.inference.mcmc.contract.Kernel.advance`."""
        kernel, target = self.kernel, self.target
        phase = kernel.phase(step, warmup_steps)
        if phase is None or not target.records:
            return kernel.advance(target, state, step, warmup_steps, self.generator)
        names = tuple(sorted(state))

        def whole(*values: Tensor) -> tuple[Tensor, ...]:
            own = dict(zip(names, values, strict=True))
            told = kernel.advance(target, own, step, warmup_steps, self.generator)
            return tuple(own[name] for name in names) + tuple(told[name] for name in kernel.statistics)

        found = target.launch(f"{phase} {names}", whole, self.generator, *(state[name] for name in names))
        state.update(zip(names, found, strict=False))
        return dict(zip(kernel.statistics, found[len(names) :], strict=True))

    def _check(self, state: State) -> None:
        bad = ~(state["potential"].isfinite() & state["position"].isfinite().all(1))
        if bad.any():
            chains = ", ".join(str(c) for c in bad.nonzero()[:, 0].tolist())
            where = "in the warm-up" if self.done < self.kernel.warmup else "after the warm-up"
            raise SamplingError(
                f"chain {chains} (of {len(bad)}): the potential or the weights became NaN or infinite in transition "
                f'{self.done} ({where}); try a smaller step_size, dtype=torch.float64, or start="map"'
            )

    def _progress(self, row: dict[str, Tensor]) -> str:
        def several(name: str, form: str) -> str:
            values = row[name].tolist()[:8]
            return " ".join(form.format(value) for value in values)

        phase = "warm-up, " if self.done <= self.kernel.warmup else ""
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
        return self.kernel.begin(self.target, position, self.generator)

    def _starting_position(self) -> Tensor:
        kernel = self.kernel
        seed = stream(kernel.seed, 1)
        if isinstance(kernel.start, Posterior):
            theta = _overdispersed(kernel.start, kernel.chains, kernel.dispersion, seed).to(self.target.scale)
        elif kernel.start == "prior":
            theta = self.potential.prior_centre + self.potential.prior_scale * torch.randn(
                kernel.chains,
                self.model.weights,
                generator=self.generator,
                dtype=self.model.dtype,
                device=self.model.device,
            )
        else:
            theta = independent_starts(self.model, kernel.chains, seed)
        position = self.target.position(theta)
        if kernel.start == "map":
            batch = 1024 if self.potential.size > 4096 else None
            adam = Adam(kernel.start_steps, batch_size=batch)
            position = adam.run(self.target, position, self.generator, kernel.progress)
        return position

    @property
    def draws_done(self) -> int:
        """Draws of each chain that were made."""
        return max(self.done - self.kernel.warmup, 0)

    def _resume(self) -> tuple[DrawStore, State]:
        """The state in the checkpoint, or a fresh one."""
        kernel = self.kernel
        shape = (kernel.chains, kernel.draws, self.model.weights)
        if kernel.checkpoint is None:
            return self.draw_store(shape, self.model.dtype), self.start()
        path = draws_path(kernel.checkpoint)
        found = load_checkpoint(kernel.checkpoint, self.identity)
        if found is None:
            return self.draw_store(shape, self.model.dtype, path, self.name), self.start()
        saved, tensors = found
        self.done, self.seconds, self.statistics = saved["done"], saved["seconds"], saved["statistics"]
        for name in kernel.statistics if self.statistics else ():  # older files do not have all of them
            self.statistics.setdefault(name, np.full_like(self.statistics["potential"], np.nan).tolist())
        self.potential.gradients, self.name = saved["gradients"], saved["run"]
        self.generator.set_state(tensors.pop("generator"))
        store = self.draw_store(shape, self.model.dtype, path, self.name, saved["checksums"])
        if store.kept != self.draws_done:
            raise FileFormatError(
                f"{kernel.checkpoint} is damaged: it counts {store.kept} draws in {path}, but {self.draws_done} "
                "were made"
            )
        state = {name: tensor.to(self.model.device) for name, tensor in tensors.items()}
        kernel.take_up(state)
        return store, state

    def _save(self, store: DrawStore, state: State) -> None:
        """Write the checkpoint, if there is to be one."""
        if self.kernel.checkpoint is None:
            return
        store.flush()
        saved = {
            "run": self.name,
            "done": self.done,
            "seconds": self.seconds,
            "statistics": self.statistics,
            "gradients": self.potential.gradients,
            "checksums": store.checksums,
        }
        tensors = state | {"generator": self.generator.get_state()}
        save_checkpoint(self.kernel.checkpoint, self.identity, saved, tensors)

    def history(self) -> dict[str, np.ndarray]:
        """The statistics of all transitions, ``[C, draws]`` by name, those of the warm-up as ``warmup_...``."""
        warmup = self.kernel.warmup
        history = {}
        for name, rows in self.statistics.items():
            values = np.asarray(rows).T  # [C, transitions]
            history[name], history[f"warmup_{name}"] = values[:, warmup:], values[:, :warmup]
        return history

    @torch.no_grad()
    def log_prob_of_probes(self, draws: Tensor) -> np.ndarray:
        """Log p ``[C, rows, n]`` of some of the draws ``[C, draws, P]`` at some training events, in which chains of the
        same potential differ where they sit in different modes."""
        events, context = self.potential.events.flatten(0, -2), self.potential.context
        rows = torch.linspace(0, len(events) - 1, min(PROBES, len(events))).long().to(events.device)
        some = torch.linspace(0, draws.shape[1] - 1, min(PROBED, draws.shape[1])).long()
        theta = draws[:, some].flatten(0, 1).to(self.potential.prior_scale)
        given = events[rows], None if context is None else context[rows]
        if self.potential.batched:
            needed = row_bytes(self.model.packing.shapes, self.model.dtype)
            networks = max(1, rows_at_once(theta.device, needed, cpu=16 * len(rows)) // len(rows))
            values = torch.func.vmap(self.model.log_prob, (0, None, None), chunk_size=networks)(theta, *given)
        else:
            values = torch.stack([self.model.log_prob(one, *given) for one in theta])
        return values.double().cpu().unflatten(0, (len(draws), -1)).numpy()

    def posterior(self, draws: Tensor, history: dict[str, np.ndarray]) -> Posterior:
        """The result of some of the chains, with warnings where something is wrong with them."""
        findings = (*find_problems(history, draws, self.log_prob_of_probes(draws)), *self.kernel.findings(history))
        report(findings)
        return self.kernel._posterior(
            self.model,
            StoredDraws(draws),
            history,
            self.data,
            exact=self.kernel.exact,
            tempered=self.kernel.tempered,
            training_events=self.potential.size,
            effective_size=float(self.potential.effective_size),
            chains=len(draws),
            gradients=self.potential.gradients,
            seconds=self.seconds,
            launch=self.target.told,
            compiled=self.potential.compiled.told,
            batching=self.potential.obstacle or "one gradient for all chains",
            findings=findings,
        )


def draws_path(checkpoint: Any) -> Path:
    """The file of the draws that belongs to a checkpoint: ``run.h5`` -> ``run.draws.h5``."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.draws{path.suffix or '.h5'}")


def _overdispersed(posterior: Posterior, chains: int, dispersion: float, seed: int) -> Tensor:
    """Starting weights ``[C, P]``: draws of a posterior.

    Those of a distribution are stretched away from its mean by ``dispersion``; stored draws, which may come from
    several modes, have no centre to be stretched from, and every chain takes one of them.
    """
    weights = posterior.weights
    if isinstance(weights, StoredDraws):
        chosen = np.random.default_rng(seed).choice(weights.stored, chains, replace=False)
        return torch.stack([weights[int(i)] for i in chosen])
    draws = torch.stack(list(weights.draws(chains, seed)))
    centre = weights.arrays.get("loc")
    return draws if centre is None else centre + dispersion * (draws - centre)
