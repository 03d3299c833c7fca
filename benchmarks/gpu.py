"""What a card makes of pyrogen: rates, and every backend against the CPU (about five minutes).

    python benchmarks/gpu.py [--device cuda] [--parts backends training densities chains] [--compile]

Prints milliseconds of a training step of table 1 of arXiv:2104.04543 for 1, 20 and 100 networks, of a gradient of 4,
64 and 1,024 chains, densities a second, and for every backend a short fit, its prediction, saving, loading and
resuming, compared with the same on the CPU. Each rate stands beside that of the same operations launched one by one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyro
import torch

import pyrogen as pg
from pyrogen.inference.run.data import TrainingData, prepare_many
from pyrogen.inference.run.potential import Potential, independent_starts
from pyrogen.inference.vi.guided import GuideObjective
from pyrogen.inference.vi.mean_field import ManyMeanFields
from pyrogen.inference.vi.objective import Objective
from pyrogen.inference.vi.steps import Steps
from pyrogen.launch import Launch
from pyrogen.seeds import untouched

WEDGE = pg.targets.Wedge()
TABLE_1 = {"events": 300_000, "epochs": 300, "batch": 512}


def milliseconds(call: Callable[[], object], device: str, rounds: int = 20) -> float:
    """Median time of a call, the card waited for."""
    times = []
    for _ in range(rounds + 3):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[3:])


def wait(device: str) -> None:
    """Wait for the card."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def step_of(objective: Objective) -> tuple[Callable[[], object], Steps]:
    """A training step of the later part of a training, in which activations are drawn per event."""
    steps = Steps(objective)
    taken = [0]

    def call() -> None:
        if taken[0] % objective.steps_per_epoch == 0:
            steps.begin(objective.shuffled(), [(1e-3, 1e-2)] * objective.steps_per_epoch)
        taken[0] += 1
        steps.take(objective.local)

    return call, steps


def training(device: str, compiled: bool) -> None:
    """Steps of table 1."""
    print(f"\ntable 1 (44,840 weights), batch {TABLE_1['batch']}: a training step")
    first = None
    for networks in (1, 20, 100):
        torch.compiler.reset()  # as in a process of its own
        found = {}
        for way in ("one by one", "graph", *(["compiled, graph"] if compiled else [])):
            Launch.allowed = way != "one by one"
            settings = pg.SVI(
                batch_size=TABLE_1["batch"],
                device=device,
                progress=False,
                **({"compile": True} if "comp" in way else {}),
            )
            started = time.perf_counter()
            with untouched(device), pyro.get_param_store().scope():
                if networks == 1:
                    model, data = settings.checked(pg.BayesianFlow(pg.CouplingFlow(2)), WEDGE.sample((40_960,)))
                    objective: Objective = GuideObjective(settings, model, data)
                else:
                    samples = WEDGE.sample((networks, 10_240))
                    model, many = prepare_many(pg.BayesianFlow(pg.CouplingFlow(2)), samples, None, device)
                    objective = ManyMeanFields(settings, model, many)
                call, steps = step_of(objective)
                with objective.in_epoch(first=False):
                    call()
                    wait(device)
                    before = time.perf_counter() - started
                    found[way] = milliseconds(call, device)
                print(
                    f"  {networks:4} networks, {way:16} {found[way]:8.2f} ms   first step after {before:5.1f} s   "
                    f"({'; '.join(filter(None, [steps.told, objective.compiled.told]))})",
                    flush=True,
                )
        best = min(found.values())
        first = first or best
        print(f"       best {best:.2f} ms, {best / first:.2f} x one network", flush=True)
        if networks == 1:
            count = TABLE_1["epochs"] * (TABLE_1["events"] // TABLE_1["batch"])
            print(f"       table 1 ({count:,} steps) in {count * best / 6e4:.1f} minutes", flush=True)
    Launch.allowed = True


def chains(device: str, compiled: bool) -> None:
    """Gradients of many chains."""
    flow = pg.CouplingFlow(2, blocks=2, hidden=(24,), transform="bernstein", base="uniform")
    events = WEDGE.sample((2000,)).to(device)
    model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None).prepare(events, device=device)
    data = TrainingData.check(model, events, None, None, events.dtype, device)
    print(f"\nBernstein flow ({model.weights} weights), 2,000 events: a gradient")
    first = None
    for count in (4, 64, 1024):
        theta = independent_starts(model, count, seed=0)
        found = {}
        for way in ("one by one", "graph", *(["compiled, graph"] if compiled and count == 1024 else [])):
            Launch.allowed = way != "one by one"
            potential = Potential(model, data, compile="comp" in way)
            found[way] = milliseconds(lambda: potential.value_and_gradient(theta), device, 10)  # noqa: B023
            told = "; ".join(filter(None, [potential.launch.told, potential.compiled.told]))
            print(f"  {count:5} chains, {way:16} {found[way]:8.2f} ms   ({told})", flush=True)
        best = min(found.values())
        first = first or best
        print(f"        best {best:.2f} ms, {best / first:.2f} x four chains", flush=True)
    Launch.allowed = True


def densities(device: str, compiled: bool) -> None:
    """Densities of table 1 a second, and generated events."""
    model = pg.BayesianFlow(pg.CouplingFlow(2))
    posterior = pg.SVI(epochs=1, batch_size=512, device=device, progress=False).fit(model, WEDGE.sample((5120,)))
    events = WEDGE.sample((1 << 20,)).to(device)
    print("\ntable 1, predictions")
    for wanted in (False, True) if compiled else (False,):
        posterior.compile = wanted
        for n, draws in ((10_000, 50), (200_000, 50), (1 << 20, 10)):
            points = events[:n]
            started = time.perf_counter()
            posterior.log_prob(points, draws)
            wait(device)
            first = time.perf_counter() - started
            found = milliseconds(lambda: posterior.log_prob(points, draws), device, 3)  # noqa: B023
            band = milliseconds(lambda: posterior.density(points, draws), device, 3)  # noqa: B023
            rates = f"log_prob {n * draws / found / 1e3:7.1f}, density {n * draws / band / 1e3:7.1f} M densities/s"
            way = "compiled" if wanted else "as it is"
            print(f"  {n:9,} events x {draws} draws, {way}: {rates} (first call {first:.1f} s)", flush=True)
    posterior.compile = False
    for _ in range(2):
        started = time.perf_counter()
        posterior.generate(1_000_000, 10, log_weights=True)
        seconds = time.perf_counter() - started
    print(f"  generate 1 M events with 10 log-weights: {1 / seconds:6.2f} M events/s", flush=True)


BACKENDS = {
    "SVI": pg.SVI(epochs=20, batch_size=100, lr=5e-3),
    "HMC": pg.HMC(chains=2, warmup=20, draws=10, start_steps=100, max_steps=20),
    "NUTS": pg.NUTS(chains=1, warmup=10, draws=5, start_steps=100, max_tree_depth=4),
    "SGLD": pg.SGLD(chains=2, warmup=20, draws=10, thinning=5, batch_size=100, start_steps=100),
    "SGHMC": pg.SGHMC(chains=2, warmup=20, draws=10, thinning=5, batch_size=100, start_steps=100),
    "AdamMCMC": pg.AdamMCMC(chains=2, warmup=20, draws=10, thinning=5, start_steps=100),
    "Ensemble": pg.Ensemble(members=3, steps=200, batch_size=100),
    "Laplace": pg.Laplace(steps=200, batch_size=100),
}


def backends(device: str, compiled: bool) -> None:
    """Every backend on the card: the same fit twice, killed and resumed, saved, loaded on the CPU, and compared."""
    events = WEDGE.sample((500,))
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (16,), "bernstein", base="uniform"))
    points = WEDGE.sample((200,))
    print("\nevery backend, 500 wedge events")
    for name, backend in BACKENDS.items():
        try:
            print(f"  {name:10} {check_backend(backend, device, model, events, points)}", flush=True)
        except Exception:
            print(f"  {name:10} FAILED\n{traceback.format_exc(limit=-6)}", flush=True)


def check_backend(
    backend: pg.inference.Backend, device: str, model: pg.BayesianFlow, events: torch.Tensor, points: torch.Tensor
) -> str:
    """Fit, repeat, resume, predict, save, load; what came out in words."""
    told = []
    cpu = replace(backend, progress=False).fit(model, events)
    on_card = replace(backend, progress=False, device=device)
    random = torch.get_rng_state(), torch.cuda.get_rng_state() if device != "cpu" else None
    started = time.perf_counter()
    posterior = on_card.fit(model, events)
    seconds = time.perf_counter() - started
    told.append(f"{seconds:5.1f} s ({seconds / cpu.info.seconds:.1f} x CPU), {posterior.info.launch}")
    again = on_card.fit(model, events.to(device))
    same = all(torch.equal(a, again.weights.arrays[k]) for k, a in posterior.weights.arrays.items())
    told.append("same bits again" if same else "OTHER BITS AGAIN")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        kept = replace(on_card, checkpoint=path, **({} if hasattr(backend, "epochs") else {"checkpoint_seconds": 1e-9}))
        resumed = resume(kept, model, events)
        same = all(torch.equal(a, resumed.weights.arrays[k]) for k, a in posterior.weights.arrays.items())
        told.append("resumed to the same bits" if same else "RESUMED TO OTHER BITS")
        card = posterior.density(points)
        posterior.save(Path(folder) / "posterior.h5")
        loaded = pg.load(Path(folder) / "posterior.h5")
        laptop = loaded.density(points)
        off = float(((card.mean.cpu() - laptop.mean) / laptop.mean).abs().max())
        told.append(f"loaded on the CPU: density off by {off:.1e}")
    moved = posterior.to("cpu").density(points)
    told.append(
        "moved to the CPU: the same" if torch.equal(moved.mean, laptop.mean) else "MOVED TO THE CPU: OTHER NUMBERS"
    )
    reference = cpu.density(points).mean.cpu()
    spread = float((card.mean.cpu() / reference - 1).abs().median())
    told.append(f"CPU fit differs by {spread:.1%} (median)")
    for what in (
        lambda: posterior.log_prob(points.to(device)),
        lambda: posterior.generate(100, 3, log_weights=True),
        lambda: posterior.sample(100),
        lambda: posterior.histogram("x0", 10, range=(0, 1), n=500),
        lambda: posterior.histogram("x0", 10, range=(0, 1), n=500, procedure="b"),
        lambda: pg.diagnostics.advise(posterior, events),
    ):
        if backend.__class__ is not pg.Laplace or what is not None:
            what()
    untouched_state = torch.equal(torch.get_rng_state(), random[0]) and (
        device == "cpu" or torch.equal(torch.cuda.get_rng_state(), random[1])
    )
    told.append("random states untouched" if untouched_state else "RANDOM STATE MOVED")
    return "; ".join(told)


def resume(backend: pg.inference.Backend, model: pg.BayesianFlow, events: torch.Tensor) -> pg.Posterior:
    """A run that is stopped after some of its checkpoints, and goes on."""
    from pyrogen.inference.mcmc import chains as chains_module
    from pyrogen.inference.modes import descent as descent_module
    from pyrogen.inference.vi import training as training_module

    saves = [0]
    modules = (chains_module, descent_module, training_module)
    own = [module.save_checkpoint for module in modules]

    def stop(*args: object) -> None:
        own[0](*args)
        saves[0] += 1
        if saves[0] == 7:
            raise KeyboardInterrupt

    for module in modules:
        module.save_checkpoint = stop  # type: ignore[assignment]
    try:
        backend.fit(model, events)
    except KeyboardInterrupt:
        pass
    finally:
        for module, before in zip(modules, own, strict=True):
            module.save_checkpoint = before
    return backend.fit(model, events)


PARTS = {"backends": backends, "training": training, "densities": densities, "chains": chains}


def main() -> None:
    """Print all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--compile", action="store_true", help="compiled steps too (10 to 25 s each)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    card = torch.cuda.get_device_name(0) if arguments.device.startswith("cuda") else "CPU"
    print(f"torch {torch.__version__}, {card}")
    for name in arguments.parts:
        started = time.perf_counter()
        try:
            PARTS[name](arguments.device, arguments.compile)
        except Exception:
            print(f"{name} FAILED\n{traceback.format_exc(limit=-8)}", flush=True)
        print(f"[{name}: {time.perf_counter() - started:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
