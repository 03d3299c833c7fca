"""Training on a stream: known answers, the same bits after a stop, streams that are not what they should be."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from baselines import same_bits as same_bits_and_times
from known import Line, Location

import pyrogen as pg
from pyrogen.inference.modes.bootstrap import ReplicaPotential
from pyrogen.inference.modes.resampling import dirichlet, split_mix
from pyrogen.inference.problems import SamplingWarning
from pyrogen.inference.run import stream_run
from pyrogen.inference.run.data import TrainingData, prepare_many
from pyrogen.inference.run.repeats import Repeats, row_hashes
from pyrogen.inference.run.stream import Rows, Seen
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.run.stream_curve import MOST, OpenCurve
from pyrogen.inference.run.stream_drift import WINDOW, Drift, kolmogorov
from pyrogen.inference.vi.mean_field import ManyMeanFields
from pyrogen.seeds import stream as seed_of

SETTINGS = {"lr": 0.1, "lr_widths": 0.06, "progress": False, "batch_size": 100}
STREAM = {"buffer": 1000, "passes": 2, "decay_after": 500}
N = 2000
#: Enough steps for the widths, which one batch tells little about.
KNOWN = {"buffer": 500, "passes": 100, "decay_after": 200}
QUIET = {"lr": 0.03, "batch_size": 250, "init_scale": 0.001}
LATE = np.exp(1 / 8)  # N grew while widths of 1 / sqrt(N) were averaged with weights t^3, in the logarithm
STRETCHED = 16 / 7  # variance of a mean with weights t^3, over that of the plain one


def events(n=20_000, seed=0, d=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + torch.arange(float(d))


def location(d=2, **kwargs):
    return pg.BayesianFlow(Location(d), **{"prior_scale": 1.0, "preprocessing": None} | kwargs)


def same_bits(*posteriors):
    for each in posteriors:
        each.history["seconds"] = np.zeros(0)
    return same_bits_and_times(*posteriors)


def fit(x=None, model=None, backend=pg.SVI, chunk=700, settings=None, **kwargs):
    x = events() if x is None else x
    batches = iter(x.split(chunk)) if isinstance(x, torch.Tensor) else x
    given = {
        name: value for name, value in SETTINGS.items() if backend is pg.SVI or name not in ("lr_widths", "init_scale")
    }
    return backend(**given | (settings or {})).fit_stream(model or location(), batches, **STREAM | kwargs)


@pytest.fixture(scope="module")
def trained():
    return fit(events(N), settings=QUIET, **KNOWN)


def test_the_posterior_of_a_location_is_found(trained):
    """N(sum x / (N + 1), 1 / (N + 1)): the width is that of all events seen, though each was used a hundred times."""
    x, weights = events(N), trained.weights.arrays
    width = (N + 1) ** -0.5
    assert weights["loc"].numpy() == pytest.approx((x.sum(0) / (N + 1)).numpy(), abs=3 * width * STRETCHED**0.5)
    assert weights["scale"].numpy() == pytest.approx(np.full(2, LATE * width), rel=0.15)
    info, history = trained.info, trained.history
    assert info.training_events == info.effective_size == N and info.details["stream"]["to_its_end"]
    assert history["events_seen"][-1] == N and (np.diff(history["events_seen"]) > 0).all()
    entropy = 1 + np.log(2 * np.pi)
    assert np.nanmean(history["fresh_nll"][-32:]) == pytest.approx(entropy, abs=4 * 1000**-0.5)
    assert info.findings == () and info.gradients == pytest.approx(100, rel=0.03)


def test_every_event_is_used_as_often_as_asked_and_then_never_again():
    x, uses = events(30), np.zeros(30)
    buffer = EventBuffer(Rows(x[:10]), 3, torch.float64, torch.float64, torch.device("cpu"))
    taken = 10
    torch.manual_seed(0)
    while taken < 30 or buffer.free < 10:
        if buffer.free and taken < 30:
            fresh = x[taken : taken + buffer.free]
            buffer.add(Rows(fresh), taken)
            taken += len(fresh)
        rows = buffer.draw(4)
        assert len(set(rows.tolist())) == len(rows) and torch.equal(buffer.events[rows], x[buffer.numbers[rows]])
        uses[buffer.numbers[rows].numpy()] += 1
    assert (uses == 3).all()


@pytest.mark.parametrize("kind", ["signed weights", "conditions", "bootstrap"])
def test_other_streams_and_backends_find_the_known_answer(kind):
    x = events(N)
    generator = torch.Generator().manual_seed(1)
    if kind == "conditions":
        context = torch.rand(N, 1, generator=generator, dtype=torch.float64) + 0.5
        y = context + 0.5 * torch.randn(N, 1, generator=generator, dtype=torch.float64)
        model = pg.BayesianFlow(Line(1, 0.5), preprocessing=None, context_preprocessing=None)
        pairs = zip(y.split(700), context.split(700), strict=True)
        weights = fit(pairs, model, settings=QUIET, **KNOWN).weights.arrays
        precision = float((context**2).sum()) / 0.25 + 1
        assert float(weights["loc"]) == pytest.approx(
            float((context * y).sum()) / 0.25 / precision, abs=5 * precision**-0.5
        )
        assert float(weights["scale"]) == pytest.approx(LATE * precision**-0.5, rel=0.15)
        return
    if kind == "bootstrap":
        found = fit(
            x, backend=pg.Bootstrap, settings={"replicas": 12, "seed": 3, "lr": 0.03, "batch_size": 250}, **KNOWN
        )
        draws = found.weights.arrays["draws"][:, 0].double()
        keys = torch.tensor([seed_of(3, "bootstrap sample", r) for r in range(12)])
        w = dirichlet(split_mix(keys, torch.arange(N).expand(12, -1)), N)[1]
        expected = (w[..., None] * x).sum(1) / w.sum(1, keepdim=True)  # offline, with the weights of the same events
        assert (draws - expected).abs().max() < 4 * STRETCHED**0.5 * N**-0.5
        assert 0.5 < float((draws.std(0) * N**0.5).mean()) < 2
        assert found.info.details["replicas"] == 12 and found.at(500).weights.stored == 12
        return
    w = 1.3 * torch.rand(N, generator=generator, dtype=torch.float64) - 0.2
    batches = (pg.EventSample(a, weights=b, part=0) for a, b in zip(x.split(700), w.split(700), strict=True))
    found = fit(batches, settings=QUIET, **KNOWN)
    size = float(w.sum() ** 2 / w.square().sum())
    mean = (w[:, None] * x).sum(0) / w.sum() * size / (size + 1)
    assert found.info.effective_size == pytest.approx(size)
    assert found.weights.arrays["loc"].numpy() == pytest.approx(mean.numpy(), abs=5 * size**-0.5)
    assert found.weights.arrays["scale"].numpy() == pytest.approx(np.full(2, LATE * (size + 1) ** -0.5), rel=0.15)


@pytest.mark.parametrize("scheme", ["dirichlet", "poisson"])
def test_replicas_minimise_online_what_they_minimise_offline(scheme):
    """With all events in the buffer, potential and gradient are those of the bootstrap of the sample."""
    x, w = events(300), torch.rand(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5
    settings = pg.Bootstrap(replicas=5, resampling=scheme, seed=4)
    for weights in (None, w):
        data = TrainingData.check(location(), x, weights, None, torch.float64, "cpu")
        model = location().prepare(data.events, dtype=torch.float64)
        offline = ReplicaPotential(settings, model, data, 5)
        rows = Rows(x, None if weights is None else weights / weights.mean())
        learner = settings._learner(model, data, EventBuffer(rows, 1, torch.float64, torch.float64, model.device))
        learner.admit(rows, 0)
        online = learner.potential
        online.seen = Seen().and_more(rows)
        online.size = 300
        theta = torch.randn(5, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        found = online.value_and_gradient(theta, torch.randperm(300).expand(5, -1))
        for ours, theirs in zip(found, offline.value_and_gradient(theta), strict=True):
            assert ours.numpy() == pytest.approx(theirs.numpy(), rel=1e-9)


class StoppedError(Exception):
    pass


def stopping(batches, after):
    """A stream that breaks off."""
    for i, batch in enumerate(batches):
        if i == after:
            raise StoppedError
        yield batch


@pytest.mark.parametrize("backend", [pg.SVI, pg.Bootstrap])
def test_a_run_goes_on_to_the_same_bits_whatever_the_batches(tmp_path, backend):
    x = events(6000)
    own = {} if backend is pg.SVI else {"replicas": 4}
    whole = fit(x, backend=backend, settings=own, drift=0.5)
    saved = own | {"checkpoint": tmp_path / "run.h5"}
    with pytest.raises(StoppedError):
        fit(stopping(x.split(700), 4), backend=backend, settings=saved, drift=0.5)
    part = fit(x, backend=backend, settings=saved, chunk=300, drift=0.5, max_events=4000)
    assert 3900 < part.info.training_events <= 4000 and not part.info.details["stream"]["to_its_end"]
    for _ in range(2):  # to the end, and from the end
        assert same_bits(whole, fit(x, backend=backend, settings=saved, chunk=999, drift=0.5))
    with pytest.raises(pg.CheckpointMismatchError, match="belongs to another stream: the first 59"):
        fit(torch.cat([x[:5000], x[5000:].flip(0)]), backend=backend, settings=saved, drift=0.5)
    with pytest.raises(pg.CheckpointMismatchError, match="ends after 5000"):
        fit(x[:5000], backend=backend, settings=saved, drift=0.5)
    with pytest.raises(pg.CheckpointMismatchError, match="data.sha256"):
        fit(x.flip(0), backend=backend, settings=saved, drift=0.5)
    with pytest.raises(pg.CheckpointMismatchError, match="stream.passes"):
        fit(x, backend=backend, settings=saved, drift=0.5, passes=3)


def test_the_posterior_is_kept_as_it_was(trained, tmp_path):
    assert list(trained.snapshots) == [500, 1000, 2000]
    for n in (500, 1000):
        then = trained.at(n)
        assert then.info.training_events == then.info.effective_size == n and then.history["events_seen"][-1] <= n
    assert trained.at(N) is trained and list(then.snapshots) == [500]
    trained.save(tmp_path / "stream.h5")
    loaded = pg.load(tmp_path / "stream.h5", Location(2))
    x = events(5)
    assert torch.equal(loaded.at(1000).log_prob(x), trained.at(1000).log_prob(x))
    with pytest.raises(ValueError, match="events_seen is 3; the numbers of events that were kept are 500, 1000, 2000"):
        loaded.at(3)
    chosen = fit(events(3000), snapshots=[1111, 2000])
    assert list(chosen.snapshots) == [1111, 2000] and chosen.at(1111).info.training_events == 1111
    shorter = fit(
        events(3000)[:1111]
    )  # a posterior of then is what a stream that ended then would give, before its end
    assert shorter.info.training_events == 1111


def test_a_posterior_with_widths_that_had_no_time_to_grow_says_so(tmp_path):
    """From 0.001 a width needs 6.9 e-folds: with 0.06 a step, and 100 steps without, about 230 steps."""
    saved = {"lr_widths": 0.06, "init_scale": 0.001, "checkpoint": tmp_path / "run.h5"}
    with pytest.raises(StoppedError):
        fit(stopping(events(16_000).split(500), 20), settings=saved, decay_after=10**9)
    found = fit(events(16_000), settings=saved, decay_after=10**9)  # 20 steps for 1,000 events
    assert found.info.findings == () and list(found.snapshots) == [1000, 2000, 4000, 8000, 16_000]
    found.save(tmp_path / "stream.h5")
    for posterior in (found, pg.load(tmp_path / "stream.h5", Location(2))):
        for n in (1000, 2000, 4000, 8000):
            with pytest.warns(UserWarning, match=f"after {n} events: too few steps for the widths: in"):
                early = posterior.at(n)
            (finding,) = early.info.findings
            assert finding.serious and "sigma is too small" in finding.advice
            assert float(early.weights.arrays["scale"].max()) < 0.5
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert posterior.at(16_000).info.findings == ()


def named(values, names=("a", "b"), units=("GeV", ""), **kwargs):
    return pg.EventSample(values, names, units, **kwargs)


def changed(x, row, value):
    x = x.clone()
    x[row] = value
    return x


BAD = {
    "nothing": (lambda x: iter([]), "stream gave no events"),
    "nan": (
        lambda x: iter([x[:1500], changed(x[1500:], 3, torch.nan)]),
        "batch 1 of the stream, after 1500 events.*row 3",
    ),
    "features": (lambda x: iter([x, x[:, :1]]), "batch 1 of the stream, after 3000 events"),
    "names": (
        lambda x: iter([named(x), named(x, ("a", "c"))]),
        "after 3000 events: its columns are a, c, and those before were a, b",
    ),
    "no names": (lambda x: iter([named(x), x]), "its columns are no names"),
    "units": (lambda x: iter([named(x), named(x, units=("TeV", ""))]), "column a is in TeV, and was in GeV before"),
    "weights": (
        lambda x: iter([x, pg.EventSample(x, weights=torch.ones(3000))]),
        "after 3000 events: the events before had no weights, and these have some",
    ),
    "context": (lambda x: iter([(x, x)]), r"it is a pair \(events, context\), but the flow has no conditions"),
    "again": (lambda x: iter([x, x]), "repeats itself: near event 3000 come the events that came 3000 events before"),
    "empty": (lambda x: itertools.chain([x], itertools.repeat(x[:0])), "1000 empty batches in a row after 3000"),
    "sum of weights": (
        lambda x: iter([pg.EventSample(x, weights=w * torch.ones(3000), part=0) for w in (1.0, -1.0)]),
        "cancel almost completely",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_streams_that_are_not_what_they_should_be(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        fit(make(events(3000)), pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))) if case == "context" else None)


def test_later_events_have_to_fit_the_first_ones():
    x = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = pg.CouplingFlow(2, 1, (4,), transform="bernstein", base="uniform", bins=4)
    model = pg.BayesianFlow(flow, preprocessing=pg.events.UnitBox([0, 0], [1, 1]))
    with pytest.raises(ValueError, match="after 2000 events.*constants of the preprocessing are those of the first"):
        fit(iter([x[:2000], x[2000:] + 0.5]), model)
    with pytest.raises(ValueError, match="Dequantise, which adds the same numbers to every batch"):
        fit(
            iter([x.round()]),
            location(preprocessing=pg.events.Chain([pg.events.Dequantise(), pg.events.Standardise()])),
        )
    times = torch.cat([x, 1e9 + x])
    with pytest.raises(ValueError, match="float32 does not hold column x0"):
        fit(iter(times.split(3000)), location(preprocessing="auto"), settings={"dtype": torch.float32})


def test_order_of_columns_and_of_named_parts_does_not_count():
    x = events(3000)
    straight = fit(iter([named(x[:1500]), named(x[1500:])]))
    crossed = fit(iter([named(x[:1500]), named(x[1500:].flip(1), ("b", "a"), ("", "GeV"))]))
    assert same_bits(straight, crossed) and crossed.names == ("a", "b") and crossed.units == ("GeV", "")


@pytest.mark.parametrize(
    ("stream", "message"),
    [(events(5), "stream is one Tensor"), ("run.h5", "stream is the path 'run.h5'"), (3, "stream is a int")],
)
def test_what_is_no_stream(stream, message):
    with pytest.raises(TypeError, match=message):
        pg.SVI(progress=False).fit_stream(location(), stream)


def test_settings_without_a_meaning_are_refused():
    for backend, settings, message in (
        (pg.SVI, {"epochs": 5}, "epochs is 5; it must be left out"),
        (pg.SVI, {"validation": 0.1}, "validation is 0.1"),
        (pg.Bootstrap, {"steps": 5}, "steps is 5"),
        (pg.Bootstrap, {"resampling": "multinomial"}, "multinomial.*needs the number of events"),
        (pg.DiscFlow, {}, "DiscFlow cannot learn from a stream"),
        (pg.SVI, {"kl_weight": "calibrated"}, "kl_weight is 'calibrated'"),
    ):
        with pytest.raises(ValueError, match=message):
            backend(progress=False, **settings).fit_stream(location(), iter([events(50)]))
    for arguments, message in (
        ({"max_events": 10}, "max_events is 10; it must be at least the buffer, 1000"),
        ({"snapshots": [2000, 1500]}, "increasing numbers of events"),
        ({"snapshots": [10]}, "numbers from the buffer on, 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(**arguments)


def test_repeats_are_found_with_bounded_memory_and_not_by_chance():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50_000, 2))
    memory = Repeats()
    for i in range(0, 50_000, 1000):
        memory.look(row_hashes(table[i : i + 1000]), i)
    assert len(memory.hashes) <= 4096 and memory.share == 0
    shuffled = rng.permutation(table)
    for i in range(0, 20_000, 1000):  # again, in another order: told, not refused
        memory.look(row_hashes(shuffled[i : i + 1000]), 50_000 + i)
    assert memory.share == 1 and 50_000 < memory.found_after < 52_000
    with pytest.raises(pg.inference.RepeatedStreamError, match="came 70000 events before"):
        for i in range(0, 20_000, 1000):
            memory.look(row_hashes(table[i : i + 1000]), 70_000 + i)
    rounded = Repeats()
    for i in range(20):
        rounded.look(row_hashes(np.ascontiguousarray(rng.integers(0, 30, (1000, 2)).astype(float))), 1000 * i)
    assert rounded.share > 0.9  # few different values, which is no error


def test_false_alarms_of_the_drift_test_are_as_rare_as_promised():
    """Of 60 stationary streams of 12 windows in 3 columns, with a rate of 0.3: at most 18 +- 3.5."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(60):
        drift = Drift(("a", "b", "c"), 0.3)
        for i in range(13):
            drift.add(rng.normal(size=(WINDOW, 3)), None, i)
        alarms += drift.raised > 0
    assert 3 < alarms < 18 + 3 * 3.5
    p = [kolmogorov(np.sqrt(2 / 5) * x / np.sqrt(5), 5 * 1e4) for x in (0.01,)]
    assert 0 <= p[0] <= 1
    # D = 1.36 / sqrt(n) is exceeded in 5 % of large samples (Smirnov 1948).
    assert kolmogorov(1.358 / 1e3, 1e6) == pytest.approx(0.05, abs=1e-3)


def test_a_shift_is_told_and_a_stationary_stream_is_not(monkeypatch):
    monkeypatch.setattr(stream_run, "SCORED", 1000)
    x, grown = events(20_000), {"init_scale": 0.01}  # from which few steps are enough for the widths
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplingWarning)
        assert fit(x, passes=1, settings=grown).info.details["stream"]["drift_alarms"] == 0
    x[10_000:, 1] += 0.15
    with pytest.warns(SamplingWarning, match=r"the events change: .* x1 differs from the first events"):
        found = fit(x, passes=1, settings=grown)
    (finding,) = found.info.findings
    assert finding.problem == "the events change" and " windows differ" in finding.found
    x = events(20_000)
    x[10_000:, 1] = 0.8 * x[10_000:, 0] + 0.6 * (x[10_000:, 1] - 1) + 1  # a correlation, which no column shows
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,), seed=1))
    with pytest.warns(SamplingWarning, match="log p under the model of the first events differs"):
        fit(x, model, passes=1, settings={"lr": 0.01})


def test_a_curve_of_any_length_has_a_bounded_number_of_points():
    curve = OpenCurve(("a",), ("n",))
    for i in range(5000):
        curve.append({"a": i % 2, "n": i})
    history = curve.history()
    assert len(history["n"]) <= MOST + 1 and history["n"][-1] == 4999
    assert history["a"][:-1] == pytest.approx(0.5)
    again = OpenCurve(("a",), ("n",))
    again.load(curve.state())
    again.append({"a": 0, "n": 5000})
    curve.append({"a": 0, "n": 5000})
    assert all(np.array_equal(curve.history()[name], again.history()[name]) for name in ("a", "n"))


def test_yesterdays_posterior_is_the_prior_of_today(tmp_path):
    """Two halves, one after another, give the posterior of the whole: N(sum x / (N + 1), 1 / (N + 1))."""
    x = events(400)
    svi = pg.SVI(epochs=500, lr=0.03, lr_widths=0.05, widths_after=0.1, init_scale=0.02, progress=False)
    first = svi.fit(location(), x[:200])
    both = svi.fit(location(), x[200:], prior=first)
    weights, width = both.weights.arrays, 401**-0.5
    assert weights["loc"].numpy() == pytest.approx((x.sum(0) / 401).numpy(), abs=0.25 * width)
    assert weights["scale"].numpy() == pytest.approx(np.full(2, width), rel=0.1)
    again = svi.fit(location(), x[200:], start=first).weights.arrays  # which forgets the first half
    assert again["scale"].numpy() == pytest.approx(np.full(2, 201**-0.5), rel=0.1)
    assert both.info.prior_from["training_events"] == 200 and both.info.started_from is None
    both.save(tmp_path / "both.h5")
    loaded = pg.load(tmp_path / "both.h5", Location(2))
    assert torch.equal(loaded.model.prior_centres, first.weights.arrays["loc"]) and loaded.info == both.info
    assert torch.equal(loaded.log_prob(x), both.log_prob(x))
    for arguments, message in (
        ({"prior": first, "start": first}, "start is .* it must be left out where a prior is given"),
        ({"prior": 3}, "prior is 3; it must be a trained pyrogen.Posterior"),
    ):
        with pytest.raises(ValueError, match=message):
            svi.fit(location(), x[200:], **arguments)
    with pytest.raises(ValueError, match="these very events, which would count twice"):
        svi.fit(location(), x[:200], prior=first)
    with pytest.raises(ValueError, match="prior is a posterior over another model: prior_scale is 1.0 there"):
        svi.fit(location(prior_scale=2.0), x[200:], prior=first)
    with pytest.raises(ValueError, match="prior is for pg.SVI; for Ensemble give the model another prior"):
        pg.Ensemble(progress=False).fit(location(), x, prior=first)


def test_other_backends_take_a_model_with_another_prior():
    x, centres = events(50), torch.tensor([3.0, -2.0]).double()
    model = location().to(torch.float64).with_prior(centres, torch.full((2,), 0.1))
    exact = (x.sum(0) + 100 * centres) / 150
    laplace = pg.Laplace(steps=300, lr=0.05, progress=False, dtype=torch.float64).fit(model, x)
    assert laplace.weights.arrays["loc"].numpy() == pytest.approx(exact.numpy(), abs=1e-4)
    several = ManyMeanFields(pg.SVI(), *prepare_many(model, [x, x.flip(0)], torch.float64, "cpu"))
    kl = several.losses(torch.zeros(2, 1, dtype=torch.long), False)[2] * 50
    scale = torch.full((2,), 1e-3).double()
    offset = (several.mean[0].detach() - centres) / 0.1
    assert float(kl[0]) == pytest.approx(
        float((0.5 * ((scale / 0.1) ** 2 + offset**2 - 1) - (scale / 0.1).log()).sum())
    )
    for bad, message in (
        ((centres[:1], centres), "centres is .*; it must be 2 finite numbers, one per weight"),
        ((centres, centres), "scales is .*; it must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            model.with_prior(*bad)
