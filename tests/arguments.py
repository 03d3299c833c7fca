"""A call that works for every public function with arguments, and what else is right for its arguments."""

import functools
import inspect
import warnings

import numpy as np
import torch
from arguments_search import SEARCH_RESULTS, SEARCH_RIGHT, search_calls

import pyrogen as pg
import pyrogen.plotting as plotting
from pyrogen import diagnostics, events, recipes, targets
from pyrogen.posterior import MeanField, RunInfo, StoredDraws


@functools.cache
def model(features=2):
    flow = pg.CouplingFlow(features, blocks=2, hidden=(4,), transform="rqs", bins=3)
    return pg.BayesianFlow(flow, preprocessing=None).prepare(training(features))


@functools.cache
def training(features=2):
    return torch.randn(60, features, generator=torch.Generator().manual_seed(1))


@functools.cache
def posterior(features=2):
    """A mean field around the first weights: nothing has to be trained."""
    theta = model(features).initial_theta
    info = RunInfo(training_events=60, effective_size=60.0)
    return pg.Posterior(model(features), MeanField(loc=theta, scale=0.05 + 0 * theta), None, info, progress=False)


@functools.cache
def chain():
    """A posterior over events with one or two objects."""
    own = pg.BayesianFlow(pg.MultiplicityFlow(1, 1, 2, blocks=1, hidden=(2,), bins=2), preprocessing=None)
    return pg.Posterior(own, MeanField(loc=own.initial_theta, scale=0.05 + 0 * own.initial_theta), progress=False)


@functools.cache
def chains():
    noise = torch.randn(2, 10, model().weights, generator=torch.Generator().manual_seed(2))
    info = RunInfo(training_events=60, effective_size=60.0)
    return pg.Posterior(model(), StoredDraws(model().initial_theta + 0.05 * noise), None, info, progress=False)


@functools.cache
def bin_calibration():
    bins = {"first": (0, 2, (-1.0, 1.0))}
    return diagnostics.calibration_in_bins([posterior()] * 2, bins, training(), n=20, draws=3, least=1.0)


@functools.cache
def band():
    return posterior().histogram(0, [-2.0, 0.0, 2.0], n=50, draws=5)


@functools.cache
def lines():
    return diagnostics.density_along_lines(posterior(), targets.GaussianRing(), draws=4)


@functools.cache
def systematic():
    flow = pg.CouplingFlow(2, blocks=1, hidden=(4,), context=1)
    lifted = pg.BayesianFlow(flow, preprocessing=None).prepare(training(), context=torch.randn(60, 1))
    theta = lifted.initial_theta
    return pg.Posterior(lifted, MeanField(loc=theta, scale=0.05 + 0 * theta), progress=False)


@functools.cache
def systematics():
    nuisance = events.Nuisance("a", None, -1.0, 1.0)
    return diagnostics.systematics(systematic(), {"x": (0, [-2.0, 0.0, 2.0])}, nuisance, n=50, draws=5)["x"]


@functools.cache
def marginal():
    return diagnostics.marginal(posterior(), 0, [-2.0, 0.0, 2.0], n=50, draws=5)


@functools.cache
def bins():
    rng = np.random.default_rng(1)
    return {n: diagnostics.QuantileBinResult(rng.integers(100, 900, (2, 50, n**2)), 10_000, 60) for n in (2, 3)}


@functools.cache
def amplified():
    samples = targets.FullRing().sample((3, 60))
    made = [diagnostics.memorised(sample) for sample in samples]
    return diagnostics.amplification(made, targets.FullRing(), (2,), sizes=(20, 100), progress=False)


@functools.cache
def calibration():
    values = np.random.default_rng(1).normal(size=(4, 10, 3))
    return diagnostics.calibration_of(values, np.zeros(3))


@functools.cache
def fit():
    return diagnostics.likelihood_fit(targets.GaussianRing(), targets.GaussianRing().sample((200,)))


@functools.cache
def shape():
    t = torch.linspace(0.2, 0.8, 12)
    return diagnostics.fit_shape(np.ones(12), np.full(12, 0.1), targets.Wedge().sensitivities(t))


@functools.cache
def scan():
    return diagnostics.scan_training_size({60: posterior()}, targets.GaussianRing(), draws=4)


@functools.cache
def uncertainty():
    return diagnostics.uncertainty_map(posterior(), ("x0", -1.0, 1.0), ("x1", -1.0, 1.0), 4, draws=4)


@functools.cache
def sample():
    return pg.EventSample(np.random.default_rng(1).normal(size=(60, 2)), ["a", "b"])


@functools.cache
def pair():
    values = np.random.default_rng(1).normal(size=(10, 4))
    return pg.EventSample(values, [f"{c}_e+" for c in ("px", "py", "pz")] + ["pz_e-"], ["GeV"] * 4)


@functools.cache
def sample_of_jets():
    values = [[1.0, 3.0, 2.0], [1.0, 4.0, np.nan]]
    return pg.EventSample(values, ["met", "pt_j1", "pt_j2"], multiplicity=pg.events.Multiplicity(1, 1, 2))


@functools.cache
def showers():
    values = np.random.default_rng(1).uniform(size=(6, 5))
    return events.Showers(values, np.full(6, 5.0), geometry())


def geometry():
    return events.ShowerGeometry.flat([2, 3])


def saved_amplification():
    amplified().save("amplification.h5")
    return "amplification.h5"


def shower_file():
    events.write_showers(showers(), "s.h5")
    return "s.h5"


def binning():
    with open("binning.xml", "w") as file:
        file.write('<Bins><Bin name="photon"><Layer id="0" r_edges="0,1" n_bin_alpha="2"/></Bin></Bins>')
    return "binning.xml"


def shower_flow():
    return pg.ShowerFlow((2, 3), 0.1, blocks=1, hidden=(4,), bins=2)


def classifier():
    return diagnostics.Classifier(2, (4,))


@functools.cache
def truth_and_generated():
    rng = np.random.default_rng(1)
    return {"truth": rng.normal(size=(100, 2)), "generated": rng.normal(size=(100, 2))}


@functools.cache
def comparison():
    return diagnostics.ClassifierResult(np.full(1, 0.5), np.full(1, 0.1), (classifier(),), (10, 10))


@functools.cache
def weights():
    quick = diagnostics.Network(hidden=(4,), epochs=1)
    return diagnostics.classifier_weights(
        **truth_and_generated(), method=quick, ensemble=1, control=False, progress=False
    )


@functools.cache
def averaged():
    return diagnostics.averaging_amplification(posterior(), cells=(2, 3), n=50, draws=5)


def region():
    return diagnostics.Region(0.0, 1.0, 0.1, 0.2, 0.01, 0.5)


def reweighted():
    return diagnostics.reweight(weights())


def saved_weights():
    weights().save("weights.h5")
    return "weights.h5"


@functools.cache
def inference_data():
    return pg.to_inference_data(chains(), generated=0)


def olympic():
    """A file of the LHC Olympics in the present folder."""
    rows = np.tile([3.5, 0.1, 0.4, 0.5, 0.6], (5, 1))
    np.savez("olympic.npz", data=rows, data_label=np.arange(5) % 2)
    return "olympic.npz"


def file():
    """A file of events in the present folder."""
    sample().save("events.h5")
    return "events.h5"


def saved():
    posterior().save("posterior.h5")
    return "posterior.h5"


def figure():
    return plotting.plot_correlation(band())


def panel():
    return plotting.HistogramPanel(band(), np.array([10, 10]), label="x")


def quick(backend=pg.SVI, **settings):
    return backend(**{"epochs": 1, "progress": False} | settings)


KICK = torch.linspace(0.2, 0.8, 5)
POINTS = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 3.0])
FIT = {"model": model(), "events": training()}
SHORT = {"chains": 2, "warmup": 1, "draws": 2, "start_steps": 1, "progress": False}
ENSEMBLE = pg.Ensemble(members=2, steps=1, progress=False)
RING_LINES = {"target": targets.GaussianRing(), "t": [3.0, 4.0], "positions": [1.0]}


@functools.cache
def part(index):
    """The result of one of two runs."""
    return pg.shard(ENSEMBLE, index, 2).fit(model(), training())


def call(function, /, **given):
    return lambda: (function, given)


def lazily(get, **given):
    """A function and arguments that are made for each test, as those that need files or posteriors."""

    def make():
        return get(), {name: value() if is_recipe(value) else value for name, value in given.items()}

    return make


def is_recipe(value):
    """Whether a value is a function of this module that makes an argument: models and targets can be called, too."""
    return inspect.isfunction(inspect.unwrap(value)) if callable(value) else False


def posterior_calls():
    x, some = training()[:5], {"draws": 3, "seed": 0}
    table = {
        "Posterior": lazily(lambda: pg.Posterior, model=model, weights=lambda: posterior().weights, progress=False),
        "Posterior.at": lazily(lambda: posterior().at, events_seen=posterior().info.training_events),
        "Posterior.density": lazily(lambda: posterior().density, x=x, **some),
        "Posterior.log_densities": lazily(lambda: posterior().log_densities, x=x, **some),
        "Posterior.log_prob": lazily(lambda: posterior().log_prob, x=x, **some),
        "Posterior.multiplicities": lazily(lambda: chain().multiplicities, **some),
        "Posterior.sample": lazily(lambda: posterior().sample, n=5, part=0, **some),
        "Posterior.replicates": lazily(lambda: posterior().replicates, n=5, **some),
        "Posterior.generate": lazily(lambda: posterior().generate, n=5, log_weights=False, **some),
        "Posterior.generate_to": lazily(lambda: posterior().generate_to, path="x.h5", n=5, **some),
        "Posterior.histogram": lazily(lambda: posterior().histogram, observable=0, bins=[0.0, 1.0], n=5, **some),
        "Posterior.histograms": lazily(lambda: posterior().histograms, observables={"x": (0, [0.0, 1.0])}, n=5, **some),
        "Posterior.worth": lazily(lambda: posterior().worth, observables={"x": (0, [0.0, 1.0])}, n=20, draws=5, seed=0),
        "Worth.of": lazily(lambda: pg.Worth.of, band=band, training_events=60.0),
        "Worth.at": lazily(lambda: pg.Worth.of(band()).at, n=100),
        "Worth.text": lazily(lambda: pg.Worth.of(band()).text),
        "Posterior.save": lazily(lambda: posterior().save, path="p.h5"),
        "Posterior.to": lazily(lambda: posterior().to, device="cpu"),
        "load": lazily(lambda: pg.load, path=saved, device="cpu"),
        "set_threads": lazily(lambda: pg.set_threads, threads=1),
        "set_progress": lazily(lambda: pg.set_progress, show=None),
        "set_verbosity": lazily(lambda: pg.set_verbosity, level=None),
        "sample_histograms": lazily(
            lambda: pg.sample_histograms,
            source=lambda: posterior().generate(20, 3, log_weights=True),
            observables={"x": (0, [0.0, 1.0])},
        ),
    }
    for method in ("correlation", "covariance", "sigma"):
        table[f"HistogramBand.{method}"] = lazily(lambda method=method: getattr(band(), method), subtract_noise=False)
    for method in ("density_sigma", "relative"):
        table[f"HistogramBand.{method}"] = lazily(lambda method=method: getattr(band(), method), subtract_noise=False)
    table["HistogramBand.variations"] = lazily(lambda: band().variations)
    table["HistogramBand.plot"] = lazily(lambda: band().plot)
    table["HistogramBand.toys"] = lazily(lambda: band().toys, n=2, seed=0)
    table["HistogramBand.to_hist"] = lazily(lambda: band().to_hist, total=1.0)
    return table


@functools.cache
def generator():
    """A GAN of a single step, which a warning is right about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        return pg.GAN(hidden=(4,), embedding=(2,), epochs=1, batch_size=50, progress=False).fit(training())


def saved_generator():
    generator().save("gan.h5")
    return "gan.h5"


def adversarial_calls():
    quick_gan = pg.GAN(hidden=(4,), embedding=(2,), epochs=1, batch_size=30, progress=False)
    return {
        "GAN": call(pg.GAN),
        "GAN.fit": call(quick_gan.fit, events=training()),
        "GAN.fit_many": call(quick_gan.fit_many, samples=training().reshape(2, 30, 2)),
        "GANSampler.sample": lazily(lambda: generator().sample, n=5, seed=0),
        "GANSampler.generate": lazily(lambda: generator().generate, n=5, seed=0),
        "GANSampler.save": lazily(lambda: generator().save, path="gan.h5"),
        "GANSampler.load": lazily(lambda: pg.GANSampler.load, path=saved_generator),
    }


def backend_calls():
    table = {}
    trained = (pg.SVI, pg.DiscFlow)
    for backend in (*trained, pg.HMC, pg.NUTS, pg.SGLD, pg.SGHMC, pg.AdamMCMC, pg.Laplace, pg.Ensemble, pg.Bootstrap):
        name = backend.__name__
        sampler = hasattr(backend, "kernel")
        settings = SHORT if sampler else {"epochs": 1} if backend in trained else {"steps": 1}
        if backend is pg.Laplace:
            settings = settings | {"polish": 0, "structure": "diagonal"}
        settings = settings | {"progress": False}
        table[name] = call(backend)
        table[f"{name}.fit"] = lazily(lambda backend=backend, settings=settings: backend(**settings).fit, **FIT)
        table[f"{name}.checked"] = lazily(lambda backend=backend: backend().checked, **FIT)
        table[f"{name}.fit_many"] = lazily(
            lambda backend=backend, settings=settings: backend(**settings).fit_many,
            model=model,
            samples=training().reshape(2, 30, 2),
        )
        if backend in (pg.SVI, pg.Bootstrap):
            own = {"resampling": "poisson"} if backend is pg.Bootstrap else {}
            table[f"{name}.fit_stream"] = lazily(
                lambda backend=backend, own=own: backend(progress=False, **own).fit_stream,
                model=model,
                stream=lambda: iter([training()]),
                buffer=50,
            )
        if sampler:
            table[f"{name}.kernel"] = lazily(lambda backend=backend: backend().kernel, model=model)
            table[f"{name}.run"] = lazily(lambda backend=backend: backend().run, **FIT)
    table["Bootstrap.memory"] = lazily(lambda: pg.Bootstrap().memory, model=model, samples=2)
    table["SVI.held_out_events"] = lazily(lambda: pg.SVI().held_out_events, n=10)
    table["DiscFlow.held_out_events"] = lazily(lambda: pg.DiscFlow().held_out_events, n=10)
    return table


def target_calls():
    table = {}
    for target in (
        targets.CamelBack,
        targets.FullRing,
        targets.GammaRing,
        targets.GaussianRing,
        targets.Kicker,
        targets.Shell,
        targets.Wedge,
    ):
        name = f"targets.{target.__name__}"
        made = target()
        table[name] = call(target)
        inside = made.from_unit(torch.full((3, made.features), 0.5))
        for method, argument in (("log_prob", "value"), ("to_unit", "x")):
            table[f"{name}.{method}"] = call(getattr(made, method), **{argument: inside})
        table[f"{name}.from_unit"] = call(made.from_unit, u=torch.full((3, made.features), 0.5))
        table[f"{name}.sample"] = call(made.sample, sample_shape=(3,))
        table[f"{name}.quantile_bins"] = call(made.quantile_bins, n=2)
        if isinstance(made, targets.LineTarget):
            table[f"{name}.line"] = call(made.line, t=KICK, position=0.5)
            table[f"{name}.line_coordinate"] = call(made.line_coordinate, x=inside)
            for method in ("line_density", "line_measure", "sensitivities", "parameter_limits", "parametric_density"):
                table[f"{name}.{method}"] = call(getattr(made, method), t=KICK)
    bins = targets.Wedge().quantile_bins(2)
    table["targets.QuantileBins"] = call(targets.QuantileBins, target=targets.Wedge(), n=2)
    table["targets.QuantileBins.bin_index"] = call(bins.bin_index, x=POINTS)
    table["targets.QuantileBins.counts"] = call(bins.counts, x=POINTS)
    table["targets.Support.check"] = call(targets.Wedge().support.check, value=POINTS)
    return table


def event_calls():
    def fitted(bijection, values):
        return lazily(lambda: bijection().fit, events=values)

    two, box = training(), torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
    layout, padded = events.Multiplicity(1, 1, 2), torch.tensor([[1.0, 2.0, torch.nan], [0.5, 1.0, 2.0]]).repeat(5, 1)
    padded = padded + torch.rand(10, 3, generator=torch.Generator().manual_seed(1))
    jets = torch.tensor([[40.0, 0.1, 1.0, 30.0, 0.9, -2.5, 60.0, 1.5, 2.5, 9.0, 25.0, -2.0, -0.5, 5.0]]).double()
    masses = 91 + torch.randn(300, 1, generator=torch.Generator().manual_seed(1)).abs()
    return {
        "EventSample": call(pg.EventSample, values=two),
        "EventSample.check_like": lazily(lambda: sample().check_like, other=sample),
        "EventSample.to_awkward": lazily(lambda: sample_of_jets().to_awkward, objects="jets"),
        "EventSample.column": lazily(lambda: sample().column, which="a"),
        "EventSample.concatenate": lazily(lambda: pg.EventSample.concatenate, samples=lambda: [sample()]),
        "EventSample.padded": call(
            pg.EventSample.padded,
            values=two,
            counts=np.ones(len(two)),
            multiplicity=events.Multiplicity(1, 1, 1),
        ),
        "EventSample.with_count": lazily(
            lambda: pg.EventSample(two, multiplicity=events.Multiplicity(0, 1, 2)).with_count, n=2
        ),
        "EventSample.save": lazily(lambda: sample().save, path="s.h5"),
        "EventSample.select": lazily(lambda: sample().select, names=["a"]),
        "EventSample.tensor": lazily(lambda: sample().tensor),
        "events.EventWriter": call(events.EventWriter, path="x.h5"),
        "events.EventWriter.write": lazily(lambda: events.EventWriter("x.h5").__enter__().write, sample=sample),
        "events.append": lazily(lambda: events.append, sample=sample, path="x.h5"),
        "events.write": lazily(lambda: events.write, sample=sample, path="x.h5"),
        "events.read": lazily(lambda: events.read, path=file),
        "events.stream": lazily(lambda: events.stream, path=file),
        "events.check_events": call(events.check_events, values=two),
        "events.check_weights": call(events.check_weights, weights=np.ones(3), n=3),
        "events.drell_yan": call(events.drell_yan, n=1, progress=False),
        "events.z_jets": call(events.z_jets, n=1, progress=False),
        "events.z_jets_to": call(events.z_jets_to, path="z.h5", n=1, progress=False),
        "events.dijets": call(events.dijets, n=1, progress=False),
        "events.dijets_to": call(events.dijets_to, path="d.h5", n=1, progress=False),
        "events.Dijets": lazily(lambda: events.Dijets, events=sample, signal=lambda: np.zeros(len(sample()), bool)),
        "events.Dijets.of": lazily(lambda: events.Dijets.of, sample=sample),
        "events.Dijets.read": lazily(lambda: events.Dijets.read, path=file),
        "events.Dijets.save": lazily(lambda: events.Dijets(sample()).save, path="d.h5"),
        "events.lhco": lazily(lambda: events.lhco, path=olympic),
        "events.lhco_to": lazily(lambda: events.lhco_to, path=olympic, output="o.h5"),
        "events.Showers": lazily(
            lambda: events.Showers, values=lambda: showers().values, energies=np.full(6, 5.0), geometry=geometry
        ),
        "events.Showers.suppressed": lazily(lambda: showers().suppressed, threshold=0.1),
        "events.ShowerGeometry": lazily(lambda: events.ShowerGeometry, layers=lambda: geometry().layers),
        "events.ShowerGeometry.flat": call(events.ShowerGeometry.flat, sizes=[2, 3]),
        "events.ShowerGeometry.from_binning": lazily(lambda: events.ShowerGeometry.from_binning, path=binning),
        "events.ShowerLayer": call(events.ShowerLayer, shape=(1, 2), rows=(0.0, 1.0), columns=(0.0, 1.0, 2.0)),
        "events.read_showers": lazily(lambda: events.read_showers, path=shower_file, geometry=geometry),
        "events.write_showers": lazily(lambda: events.write_showers, showers=showers, path="s.h5"),
        "events.shower_observables": lazily(lambda: events.shower_observables, geometry=geometry),
        "events.showers": call(events.showers, n=2, progress=False),
        "events.showers_to": call(events.showers_to, path="s.h5", n=2, progress=False),
        "events.OfObjects": lazily(
            lambda: events.OfObjects, function=lambda: len, multiplicity=lambda: events.Multiplicity(1, 1, 2), least=1
        ),
        "events.OfObjects.missing": lazily(
            lambda: events.OfObjects(len, events.Multiplicity(1, 1, 2), 1).missing, events=torch.zeros(3, 3)
        ),
        "events.Observable.of_columns": lazily(
            lambda: events.z_jets_observables()["M_pair"].of_columns, columns=slice(0, 4)
        ),
        "events.z_jets_observables": call(events.z_jets_observables),
        "events.distort": lazily(lambda: events.distort, sample=sample, distortions=lambda: [events.Shift("a", 1.0)]),
        "events.Distorted.log_ratio": lazily(
            lambda: events.distort(sample(), [events.TailCut("a", 0.0)]).log_ratio, events=sample
        ),
        "events.TailCut": call(events.TailCut, observable="a", cut=1.0),
        "events.MissingMode": call(events.MissingMode, observable="a", low=0.0, high=1.0),
        "events.Hole": call(events.Hole, first="j1", second="j2"),
        "events.FilledHole": call(events.FilledHole, first="j1", second="j2"),
        "events.Reweighting": lazily(lambda: events.Reweighting, observable="a", function=lambda: np.exp),
        "events.Shift": call(events.Shift, column="a", by=1.0),
        "events.Smear": call(events.Smear, column="a", absolute=1.0),
        "events.SmearMass": call(events.SmearMass, first="e+", second="e-", absolute=1.0),
        "events.collision_energy": lazily(lambda: events.collision_energy, sample=sample),
        "events.four_vectors": lazily(lambda: events.four_vectors, sample=pair),
        "events.from_awkward": lazily(
            lambda: events.from_awkward, array=lambda: events.to_awkward(sample_of_jets()), most=2
        ),
        "events.to_awkward": lazily(lambda: events.to_awkward, sample=sample_of_jets),
        "events.lepton_balance": lazily(lambda: events.lepton_balance, sample=pair),
        "events.lepton_pair": lazily(lambda: events.lepton_pair, sample=pair),
        "events.lepton_pair_coordinates": call(events.lepton_pair_coordinates),
        "events.lepton_pair_observables": call(events.lepton_pair_observables),
        "events.momenta": lazily(lambda: events.momenta, sample=pair, particle="e+"),
        "events.pair_momenta": lazily(lambda: events.pair_momenta, events=pair),
        "events.Columns": lazily(lambda: events.Columns, parts=lambda: [events.Identity(), events.Identity()]),
        "events.Chain": lazily(lambda: events.Chain, parts=lambda: [events.Identity()]),
        "events.PaddedColumns": lazily(
            lambda: events.PaddedColumns, layout=layout, parts=lambda: [events.Log(), events.Log(), events.Log()]
        ),
        "events.PaddedColumns.fit": fitted(lambda: events.PaddedColumns(layout, [events.Log()] * 3), padded),
        "events.WhitenPerMultiplicity": call(events.WhitenPerMultiplicity, layout=layout, leave=(0,), alone=(1,)),
        "events.WhitenPerMultiplicity.fit": fitted(lambda: events.WhitenPerMultiplicity(layout), padded),
        "events.LeptonsAndJets": call(events.LeptonsAndJets),
        "events.LeptonsAndJets.fit": lazily(lambda: events.LeptonsAndJets(most=2).fit, events=lambda: jets),
        "events.PowerLaw": call(events.PowerLaw),
        "events.PowerLaw.fit": fitted(events.PowerLaw, two.exp()),
        "events.jet_coordinates": call(events.jet_coordinates),
        "events.separated_jets": lazily(lambda: events.separated_jets, events=lambda: jets),
        "events.separation_weights": lazily(lambda: events.separation_weights, events=lambda: jets),
        "events.LeptonPair": call(events.LeptonPair),
        "events.RecoilingPair": call(events.RecoilingPair),
        "events.BeamLimit": call(events.BeamLimit, energy=13000.0),
        "events.Resonance": call(events.Resonance),
        "events.Multiplicity": call(events.Multiplicity, shared=2, each=3, most=3),
        "events.Multiplicity.columns": lazily(lambda: events.Multiplicity(2, 3, 3).columns, which=1),
        "events.Multiplicity.width": lazily(lambda: events.Multiplicity(2, 3, 3).width, count=1),
        "events.Nuisance": call(events.Nuisance, name="a", weight=None, low=-1.0, high=1.0),
        "events.with_nuisances": call(
            events.with_nuisances,
            events=two,
            nuisances=events.Nuisance("a", lambda x, a: 1 + a * x[:, 0] ** 2, 0.0, 1.0),
        ),
        "events.Squash": call(events.Squash, location=0.0, scale=1.0),
        "events.UnitBox": call(events.UnitBox, low=0.0, high=1.0),
        "events.Dequantise": call(events.Dequantise),
        "events.Positive": call(events.Positive),
        "events.ThresholdNoise": call(events.ThresholdNoise, threshold=0.1),
        "events.ThresholdNoise.fit": fitted(lambda: events.ThresholdNoise(0.1), two.exp()),
        "events.Dequantise.fit": fitted(events.Dequantise, two.round()),
        "events.Log.fit": fitted(events.Log, two.exp()),
        "events.Positive.fit": fitted(events.Positive, two.exp()),
        "events.StandardiseContext.fit": fitted(events.StandardiseContext, two),
        "events.Identity.fit": fitted(events.Identity, two),
        "events.Probit.fit": fitted(events.Probit, two),
        "events.LeptonPair.fit": fitted(events.LeptonPair, two),
        "events.RecoilingPair.fit": fitted(events.RecoilingPair, two),
        "events.Standardise.fit": fitted(events.Standardise, two),
        "events.UnitBox.fit": fitted(events.UnitBox, two),
        "events.Squash.fit": fitted(events.Squash, two),
        "events.Resonance.fit": fitted(events.Resonance, masses),
        "events.Chain.fit": fitted(lambda: events.Chain([events.Standardise()]), two),
        "events.Columns.fit": fitted(lambda: events.Columns([events.Standardise(), events.Standardise()]), two),
        "events.BeamLimit.fit": fitted(events.BeamLimit, torch.cat([masses, box.repeat(15, 2)[:, :3]], 1)),
    }


def diagnostic_calls():
    ring, some = targets.GaussianRing(), {"draws": 3, "seed": 0}
    recovery = {"backend": quick, "trainings": 2, "probes": 2}
    both = truth_and_generated()
    table = {
        "calibrate": lazily(
            lambda: pg.calibrate,
            backend=lambda: pg.SVI(epochs=1, batch_size=30, progress=False),
            model=model,
            events=training,
            trainings=8,
            probes=30,
            draws=10,
            tolerance=0.1,
            rounds=1,
            seed=0,
        ),
        "merge": lazily(lambda: pg.merge, posteriors=lambda: [part(0), part(1)]),
        "shard": lazily(lambda: pg.shard, backend=pg.HMC(), index=1, shards=2),
        "fit_shards": lazily(lambda: pg.fit_shards, backend=ENSEMBLE, shards=2, **FIT),
        "fit_distributed": lazily(lambda: pg.fit_distributed, backend=ENSEMBLE, shards=2, **FIT),
        "to_inference_data": lazily(lambda: pg.to_inference_data, posterior=chains, generated=0),
        "diagnostics.advise": lazily(lambda: diagnostics.advise, posterior=posterior, generated=20, **some),
        "diagnostics.band_overlap": lazily(lambda: diagnostics.band_overlap, a=lines, b=lines),
        "diagnostics.coverage": lazily(lambda: diagnostics.coverage, lines=lines),
        "diagnostics.simulation_based_calibration": lazily(
            lambda: diagnostics.simulation_based_calibration, model=model, size=20, **recovery, **some
        ),
        "diagnostics.averaging_amplification": lazily(
            lambda: diagnostics.averaging_amplification,
            generator=posterior,
            cells=(2, 3),
            n=20,
            draws=5,
            seed=0,
        ),
        "diagnostics.AveragingAmplification.below_one": lazily(
            lambda: averaged().below_one,
        ),
        "diagnostics.differential_amplification": lazily(
            lambda: diagnostics.differential_amplification, weights=weights, training_events=60.0
        ),
        "diagnostics.bootstrap_calibration": lazily(
            lambda: diagnostics.bootstrap_calibration, posterior=posterior, size=20, **recovery, **some
        ),
        "diagnostics.calibration_along_lines": lazily(
            lambda: diagnostics.calibration_along_lines,
            posteriors=lambda: [posterior(), posterior()],
            **RING_LINES,
            **some,
        ),
        "diagnostics.calibration_in_bins": lazily(
            lambda: diagnostics.calibration_in_bins,
            posteriors=lambda: [posterior(), posterior()],
            observables={"first": (0, 2, (-1, 1))},
            truth=training,
            n=20,
            least=1.0,
            groups={"group": ["first"]},
            **some,
        ),
        "diagnostics.BinCalibration.sigma_ratio": lazily(lambda: bin_calibration().sigma_ratio, name="first"),
        "diagnostics.amplification": lazily(
            lambda: diagnostics.amplification,
            generators=lambda: [diagnostics.memorised(training(1)[i::3]) for i in range(3)],
            target=targets.CamelBack(),
            bins=(2,),
            sizes=(10, 20),
            progress=False,
        ),
        "diagnostics.Amplification.load": lazily(lambda: diagnostics.Amplification.load, path=saved_amplification),
        "diagnostics.Amplification.save": lazily(lambda: amplified().save, path="a.h5"),
        "diagnostics.QuantileError.true_error": lazily(lambda: amplified().rows[0].true_error, events=100),
        "diagnostics.fit_two_gaussians": call(diagnostics.fit_two_gaussians, events=training(1)),
        "diagnostics.kernel_density": call(diagnostics.kernel_density, events=training()),
        "diagnostics.memorised": call(diagnostics.memorised, events=training()),
        "diagnostics.truth": call(diagnostics.truth, target=ring),
        "diagnostics.KernelDensity.sample": call(diagnostics.kernel_density(training()).sample, n=2),
        "diagnostics.Memorised.sample": call(diagnostics.memorised(training()).sample, n=2),
        "diagnostics.Truth.sample": call(diagnostics.truth(ring).sample, n=2),
        "diagnostics.TwoGaussians.sample": call(diagnostics.fit_two_gaussians(training(1)).sample, n=2),
        "diagnostics.agreement": call(diagnostics.agreement, truth=training(), generated=training()),
        "diagnostics.calibration_of": call(
            diagnostics.calibration_of, values=np.random.default_rng(1).normal(size=(3, 4, 2)), truth=[0.0, 0.0]
        ),
        "diagnostics.classifier_test": call(
            diagnostics.classifier_test, **both, trainings=1, hidden=(4,), epochs=1, progress=False
        ),
        "diagnostics.train_classifier": call(
            diagnostics.train_classifier, **both, hidden=(4,), epochs=1, progress=False
        ),
        "diagnostics.reweight": lazily(
            lambda: diagnostics.reweight, classifier=classifier, generated=lambda: pg.EventSample(training())
        ),
        "diagnostics.compare": lazily(
            lambda: diagnostics.compare,
            posteriors=lambda: {"HMC": posterior(), "SVI": posterior()},
            target=ring,
            grid_range=((-9, 9), (-9, 9)),
            cells=40,
            probes=2,
            held_out=5,
            generated=5,
            **some,
        ),
        "diagnostics.density_along_lines": lazily(
            lambda: diagnostics.density_along_lines, posterior=posterior, **RING_LINES, **some
        ),
        "diagnostics.elpd": lazily(lambda: diagnostics.elpd, posterior=posterior, events=training, **some),
        "diagnostics.effective_parameters": lazily(
            lambda: diagnostics.effective_parameters, posterior=posterior, events=training, **some
        ),
        "diagnostics.guide_pareto_k": lazily(
            lambda: diagnostics.guide_pareto_k, posterior=posterior, events=training, draws=50
        ),
        "diagnostics.fit_amplification": lazily(lambda: diagnostics.fit_amplification, results=bins),
        "diagnostics.fit_shape": lazily(
            lambda: diagnostics.fit_shape,
            sigma=np.ones(5),
            error=np.full(5, 0.1),
            sensitivities=lambda: targets.Wedge().sensitivities(KICK),
        ),
        "diagnostics.function_space": lazily(
            lambda: diagnostics.function_space, posterior=chains, probes=training()[:3]
        ),
        "diagnostics.likelihood_fit": call(
            diagnostics.likelihood_fit, target=ring, events=ring.from_unit(torch.rand(50, 2))
        ),
        "diagnostics.marginal": lazily(
            lambda: diagnostics.marginal, posterior=posterior, observable=0, bins=[0.0, 1.0], n=5, **some
        ),
        "diagnostics.peak_width": call(
            diagnostics.peak_width, values=91 + np.random.default_rng(1).standard_cauchy(5000)
        ),
        "diagnostics.predictive_distance": lazily(
            lambda: diagnostics.predictive_distance,
            posterior_a=posterior,
            posterior_b=posterior,
            grid_range=((-9, 9), (-9, 9)),
            cells=50,
            **some,
        ),
        "diagnostics.probe_points": lazily(lambda: diagnostics.probe_points, source=training, n=3),
        "diagnostics.quantile_bins": lazily(
            lambda: diagnostics.quantile_bins,
            posteriors=lambda: [posterior()],
            target=ring,
            bins=(2,),
            events=5,
            **some,
        ),
        "diagnostics.sample_measures": lazily(
            lambda: diagnostics.sample_measures,
            truth=lambda: both["truth"],
            generated=lambda: both["generated"],
            reference=lambda: both["truth"],
            which=["kpd"],
            splits=5,
            progress=False,
        ),
        "diagnostics.SampleMeasures.found": lazily(
            lambda: (
                diagnostics.sample_measures(
                    both["truth"], both["generated"], reference=both["truth"], which=["kpd"], splits=5, progress=False
                ).found
            )
        ),
        "diagnostics.roc_auc": call(diagnostics.roc_auc, truth_scores=[0.1, 0.9], generated_scores=[0.2, 0.3]),
        "diagnostics.sample_quality": call(
            diagnostics.sample_quality, **both, reference=both["truth"], observables={"x": 0}, partitions=2
        ),
        "diagnostics.scan_training_size": lazily(
            lambda: diagnostics.scan_training_size, posteriors=lambda: {60: posterior()}, target=ring, **some
        ),
        "diagnostics.total_variation": call(diagnostics.total_variation, p=[0.5, 0.5], q=[0.4, 0.6], cell=1.0),
        "diagnostics.uncertainty_map": lazily(
            lambda: diagnostics.uncertainty_map, posterior=posterior, x=(0, -1, 1), y=(1, -1, 1), cells=2, **some
        ),
        "diagnostics.wasserstein": call(diagnostics.wasserstein, a_events=both["truth"], b_events=both["generated"]),
        "diagnostics.make_inference_data": call(
            diagnostics.make_inference_data, groups={"posterior": {"x": (("chain", "draw"), np.zeros((1, 2)))}}
        ),
        "diagnostics.write_inference_data": lazily(
            lambda: diagnostics.write_inference_data, data=inference_data, path="i.nc"
        ),
        "diagnostics.read_inference_data": lazily(
            lambda: diagnostics.read_inference_data,
            path=lambda: diagnostics.write_inference_data(inference_data(), "i.nc"),
        ),
        "diagnostics.Calibration.curve": lazily(lambda: calibration().curve),
        "diagnostics.Classifier": call(diagnostics.Classifier, inputs=2),
        "diagnostics.Classifier.log_ratio": lazily(lambda: classifier().log_ratio, events=training),
        "diagnostics.ClassifierResult.log_ratio": lazily(lambda: comparison().log_ratio, events=training),
        "diagnostics.ClassifierResult.weights": lazily(lambda: comparison().weights, events=training),
        "diagnostics.classifier_weights": call(
            diagnostics.classifier_weights,
            **both,
            method=diagnostics.Network(hidden=(4,), epochs=1),
            ensemble=1,
            control=False,
            progress=False,
        ),
        "diagnostics.find_failures": lazily(lambda: diagnostics.find_failures, weights=weights),
        "diagnostics.Failures.text": lazily(lambda: diagnostics.find_failures(weights()).text),
        "diagnostics.Region.words": lazily(lambda: region().words, unit="GeV"),
        "diagnostics.two_sample_test": call(
            diagnostics.two_sample_test,
            **both,
            method=diagnostics.Network(hidden=(4,), epochs=1),
            toys=2,
            progress=False,
        ),
        "diagnostics.weight_pulls": lazily(
            lambda: diagnostics.weight_pulls, weights=weights, posterior=posterior, draws=3, n=50
        ),
        "diagnostics.unweight": lazily(lambda: diagnostics.unweight, sample=lambda: reweighted().events),
        "diagnostics.closure": call(
            diagnostics.closure,
            **{"truth": both["truth"], "before": both["generated"], "after": both["generated"]},
            observables={"x": 0},
            partitions=2,
        ),
        "diagnostics.Network": call(diagnostics.Network),
        "diagnostics.Trees": call(diagnostics.Trees),
        "diagnostics.ClassifierWeights.calibration": lazily(lambda: weights().calibration),
        "diagnostics.ClassifierWeights.tails": lazily(lambda: weights().tails),
        "diagnostics.ClassifierWeights.histograms": lazily(lambda: weights().histograms),
        "diagnostics.ClassifierWeights.recalibrated": lazily(lambda: weights().recalibrated),
        "diagnostics.ClassifierWeights.log_ratio": lazily(lambda: weights().log_ratio, events=training),
        "diagnostics.ClassifierWeights.save": lazily(lambda: weights().save, path="weights.h5"),
        "diagnostics.ClassifierWeights.load": lazily(lambda: diagnostics.ClassifierWeights.load, path=saved_weights),
        "diagnostics.Elpd.minus": lazily(
            lambda: diagnostics.Elpd(np.zeros(3)).minus, other=lambda: diagnostics.Elpd(np.ones(3))
        ),
        "diagnostics.LineResult.line": lazily(lambda: lines().line, index=0),
        "diagnostics.LineResult.within": lazily(lambda: lines().within),
        "diagnostics.MarginalResult.density": lazily(lambda: marginal().density),
        "diagnostics.MarginalResult.sigma": lazily(lambda: marginal().sigma),
        "diagnostics.MarginalResult.relative": lazily(lambda: marginal().relative),
        "diagnostics.MarginalResult.sigma_error": lazily(lambda: marginal().sigma_error),
        "diagnostics.MarginalResult.ratio_to_lines": lazily(lambda: marginal().ratio_to_lines, lines=lines),
        "diagnostics.QuantileBinResult.probabilities": lazily(lambda: bins()[2].probabilities),
        "diagnostics.QuantileBinResult.amplification": lazily(lambda: bins()[2].amplification, subtract_noise=False),
        "diagnostics.QuantileBinResult.calibration": lazily(lambda: bins()[2].calibration, subtract_noise=False),
        "diagnostics.ShapeFit.curve": lazily(lambda: shape().curve),
        "diagnostics.SizeScan.sigma": lazily(lambda: scan().sigma),
        "diagnostics.SizeScan.exponent": lazily(
            lambda: diagnostics.SizeScan(dict.fromkeys((60, 120), lines()), dict.fromkeys((60, 120), shape())).exponent
        ),
    }
    for method in ("covered", "fraction", "by_quantity"):
        table[f"diagnostics.Calibration.{method}"] = lazily(lambda method=method: getattr(calibration(), method))
    for method in ("density", "gradients", "sigma"):
        table[f"diagnostics.LikelihoodFit.{method}"] = lazily(
            lambda method=method: getattr(fit(), method), t=np.array([3.0, 4.0])
        )
    found = {"name": "a", "rate": False}
    for method in ("varied", "shift"):
        table[f"diagnostics.Systematics.{method}"] = lazily(lambda m=method: getattr(systematics(), m), **found)
    for method in ("covariance", "sigma", "correlation"):
        table[f"diagnostics.Systematics.{method}"] = lazily(lambda m=method: getattr(systematics(), m))
    table["diagnostics.Systematics.templates"] = lazily(lambda: systematics().templates)
    table["diagnostics.Templates.sample"] = lazily(lambda: systematics().templates().sample)
    table["diagnostics.Templates.workspace"] = lazily(lambda: systematics().templates().workspace, observed=[1.0, 2.0])
    table["diagnostics.systematics"] = lazily(
        lambda: diagnostics.systematics,
        posterior=systematic,
        observables={"x": (0, [-2.0, 0.0, 2.0])},
        nuisances=events.Nuisance("a", None, -1.0, 1.0),
        n=10,
        **some,
    )
    return table


def plotting_calls():
    one = np.array([1.0, 2.0])
    return {
        "plotting.colours": call(plotting.colours, n=3),
        "plotting.HistogramPanel": lazily(lambda: plotting.HistogramPanel, band=band, counts=np.array([10, 10])),
        "plotting.plot_amplification": lazily(
            lambda: plotting.plot_amplification,
            n_bins={"a": one},
            gains={"a": one},
            errors={"a": one},
            fits=lambda: {"a": diagnostics.AmplificationFit(1.0, 0.1, 1.0, 0.1)},
        ),
        "plotting.plot_amplification_map": lazily(lambda: plotting.plot_amplification_map, result=averaged),
        "plotting.plot_differential": lazily(
            lambda: plotting.plot_differential, result=lambda: diagnostics.differential_amplification(weights(), 60.0)
        ),
        "plotting.plot_worth": lazily(lambda: plotting.plot_worth, worths=lambda: [pg.Worth.of(band())]),
        "plotting.plot_backends": lazily(lambda: plotting.plot_backends, lines=lambda: {"a": lines()}),
        "plotting.plot_calibration": lazily(
            lambda: plotting.plot_calibration, calibrations=lambda: {"a": calibration()}
        ),
        "plotting.plot_classifier_weights": lazily(lambda: plotting.plot_classifier_weights, weights=weights),
        "plotting.plot_weight_pulls": lazily(
            lambda: plotting.plot_weight_pulls,
            pulls=lambda: diagnostics.weight_pulls(weights(), posterior(), draws=3),
        ),
        "plotting.plot_coverage": lazily(lambda: plotting.plot_coverage, calibrations=lambda: {"a": calibration()}),
        "plotting.plot_chains": call(plotting.plot_chains, history={"potential": np.zeros((2, 5))}),
        "plotting.plot_correlation": lazily(lambda: plotting.plot_correlation, band=band),
        "plotting.plot_factor": lazily(lambda: plotting.plot_factor, results=lambda: {"a": amplified()}),
        "plotting.plot_quantile_deviation": lazily(
            lambda: plotting.plot_quantile_deviation, results=lambda: {"a": amplified()}
        ),
        "plotting.plot_quantile_error": lazily(
            lambda: plotting.plot_quantile_error, results=lambda: {"a": amplified()}
        ),
        "plotting.plot_failures": lazily(
            lambda: plotting.plot_failures, failures=lambda: diagnostics.find_failures(weights())
        ),
        "plotting.plot_histogram": lazily(lambda: plotting.plot_histogram, band=band, counts=np.array([10, 10])),
        "plotting.plot_histograms": lazily(lambda: plotting.plot_histograms, panels=lambda: [panel()]),
        "plotting.plot_kinematics": lazily(lambda: plotting.plot_kinematics, panels=lambda: [panel()]),
        "plotting.plot_uncertainties": lazily(lambda: plotting.plot_uncertainties, panels=lambda: [panel()]),
        "plotting.plot_lines": lazily(lambda: plotting.plot_lines, result=lines),
        "plotting.plot_map": lazily(lambda: plotting.plot_map, result=uncertainty),
        "plotting.plot_marginal_sigma": lazily(lambda: plotting.plot_marginal_sigma, result=marginal),
        "plotting.plot_shower_images": lazily(lambda: plotting.plot_shower_images, truth=showers, generated=showers),
        "plotting.plot_systematics": lazily(lambda: plotting.plot_systematics, result=systematics, counts=[9, 9]),
        "plotting.plot_training": call(plotting.plot_training, history={"loss": one, "nll": one, "kl": one}),
        "plotting.plot_online": lazily(
            lambda: plotting.plot_online,
            curves=lambda: {"online": {"events": [10.0, 20.0], "error": [0.2, 0.1], "sigma": [0.2, 0.1]}},
        ),
        "plotting.plot_training_size": lazily(lambda: plotting.plot_training_size, scan=scan),
        "plotting.save_figure": lazily(lambda: plotting.save_figure, figure=figure, path="f.png"),
    }


def recipe_calls():
    given = {"Toy": {"target": "wedge"}, "DrellYan": {}, "ZJets": {}}
    classes = {f"recipes.{name}": call(getattr(recipes, name), quick=True, **its) for name, its in given.items()}
    runs = {f"{name}.run": call(make()[0](**make()[1]).run, out="out") for name, make in classes.items()}
    return classes | runs


CALLS = {
    "BayesianFlow": call(pg.BayesianFlow, flow=pg.CouplingFlow(2, blocks=1, hidden=(4,))),
    "BayesianFlow.with_prior": lazily(
        lambda: model().with_prior,
        centres=lambda: torch.zeros(model().weights),
        scales=lambda: torch.ones(model().weights),
    ),
    "BayesianFlow.prepare": call(model().prepare, events=training()),
    "CouplingFlow": call(pg.CouplingFlow, features=2, blocks=1, hidden=(4,)),
    "CouplingFlow.log_prob": call(pg.CouplingFlow(2, blocks=1, hidden=(4,)).log_prob, x=training()),
    "CouplingFlow.sample": call(pg.CouplingFlow(2, blocks=1, hidden=(4,)).sample, n=2),
    "ChainFlow": call(pg.ChainFlow, sizes=(1, 2), blocks=1, hidden=(4,)),
    "ChainFlow.log_prob": call(pg.ChainFlow((1, 2), blocks=1, hidden=(4,)).log_prob, x=torch.zeros(3, 3)),
    "ChainFlow.sample": call(pg.ChainFlow((1, 2), blocks=1, hidden=(4,)).sample, n=2),
    "ShowerFlow": call(pg.ShowerFlow, layers=(2, 3), threshold=0.1, blocks=1, hidden=(4,)),
    "ShowerFlow.log_prob": lazily(lambda: shower_flow().log_prob, x=torch.ones(3, 5), context=torch.ones(3, 1)),
    "ShowerFlow.sample": lazily(lambda: shower_flow().sample, n=2, context=torch.ones(2, 1)),
    "ShowerFlow.centre_on": lazily(lambda: shower_flow().centre_on, x=torch.rand(3, 5) + 1, context=torch.ones(3, 1)),
    "MultiplicityFlow": call(pg.MultiplicityFlow, shared=1, each=1, most=2, blocks=1, hidden=(4,)),
    "MultiplicityFlow.log_prob": lazily(lambda: chain().model.flow.log_prob, x=torch.zeros(3, 3)),
    "MultiplicityFlow.sample": lazily(lambda: chain().model.flow.sample, n=2),
    "MultiplicityFlow.centre_on": lazily(lambda: chain().model.flow.centre_on, x=torch.zeros(3, 3)),
    "MultiplicityFlow.probabilities": lazily(lambda: chain().model.flow.probabilities),
    "AutoNormal": call(pg.AutoNormal, model=model()),
    "LastLayers": call(pg.LastLayers, model=model()),
    "ELBO": call(pg.ELBO),
    **adversarial_calls(),
    **backend_calls(),
    **posterior_calls(),
    **event_calls(),
    **diagnostic_calls(),
    **target_calls(),
    **plotting_calls(),
    **search_calls(call, lazily),
    **recipe_calls(),
}

#: What functions of the package make and give back; users read them.
RESULTS = (
    {
        "DiscFlow.fit_stream",  # which refuses every stream
        "DensityEstimate",
        "GANSampler",
        "HistogramBand",
        "Worth",
        "events.Distorted",
        "events.JetCoordinates",
        "events.JetSeparation",
        "events.NuisanceSample",
        "events.Observable",
        "events.Rate",
        "events.RateEstimate",
        "targets.Support",
    }
    | {
        f"diagnostics.{name}"
        for name in [
            "Advice",
            "AveragingAmplification",
            "BinCalibration",
            "DifferentialAmplification",
            "DifferentialWorth",
            "Agreement",
            "Amplification",
            "AmplificationFit",
            "Calibration",
            "CalibrationCurve",
            "Closure",
            "ClassifierResult",
            "ClassifierWeights",
            "Comparison",
            "Convergence",
            "Elpd",
            "FailureMode",
            "Failures",
            "Finding",
            "HistogramPulls",
            "KernelDensity",
            "LikelihoodFit",
            "LineResult",
            "MarginalResult",
            "Memorised",
            "ObservableFailure",
            "PeakFit",
            "PriorDraws",
            "QualityTable",
            "SampleMeasures",
            "QuantileBinResult",
            "QuantileError",
            "Region",
            "Reweighted",
            "ShapeFit",
            "Shift",
            "SizeScan",
            "Systematics",
            "TailFractions",
            "TailHistogram",
            "Templates",
            "Trainings",
            "Truth",
            "TwoGaussians",
            "TwoSampleTest",
            "UncertaintyMap",
            "Unweighted",
            "WeightHistograms",
            "WeightPulls",
        ]
    }
    | SEARCH_RESULTS
)
#: Where classes of users begin: the package calls their methods, with arguments that it checked before.
BASES = (
    "targets.Target",
    "targets.LineTarget",
    "events.Bijection",
    "events.Distortion",
    "events.Fixed",
    "events.PaddedBijection",
    "events.Format",
    "events.PartWriter",
)
#: Methods that the package calls, in the innermost loops, with tensors of its own.
INNER = [
    "forward",
    "inverse",
    "advance",
    "begin",
    "findings",
    "phase",
    "take_up",
    "differentiable_loss",
    "log_prob",
    "local_log_prob",
    "sample_events",
    "from_description",
    "train",
    "check",
    "counts",
    "exists",
    "from_config",
    "dequantised",
    "explain",
    "inside",
    "outside",
    "populated",
    "renamed",
    "logit",
    "standardise",
    "map",
    "unmap",
    "accepts",
    "filler",
    "filled",
    "misfit",
    "applied",
    "factor",
    "moved",
    "nodes",
    "undone",
    "words",
]
#: Kinds of values that look wrong and are right, by the call ("": of all) and the argument.
RIGHT = {
    **SEARCH_RIGHT,
    **{
        (f"recipes.{name}", key): ("a text",)
        for name in ("DrellYan", "ZJets")
        for key in ("events", "label", "caption")
    },
    **{(f"events.{name}", "observable"): ("a text", "minus one") for name in ("TailCut", "MissingMode", "Reweighting")},
    **{(f"events.{name}", "column"): ("a text", "minus one") for name in ("Shift", "Smear")},
    **{
        (f"events.{name}", key): ("a text",)
        for name in ("Hole", "FilledHole", "SmearMass")
        for key in ("first", "second")
    },
    ("events.TailCut", "cut"): ("minus one",),
    ("events.TailCut", "fraction"): ("True",),
    ("events.MissingMode", "low"): ("minus one",),
    ("events.Shift", "by"): ("minus one",),
    ("events.Shift", "factor"): ("minus one",),
    ("", "label"): ("a text",),
    ("events.to_awkward", "objects"): ("a text",),
    ("EventSample.to_awkward", "objects"): ("a text",),
    ("", "unit"): ("a text",),
    ("", "density_unit"): ("a text",),
    ("", "truth_label"): ("a text",),
    ("", "llabel"): ("a text",),
    ("", "rlabel"): ("a text",),
    ("", "what"): ("a text",),
    ("", "this"): ("a text",),
    ("", "hidden"): ("an empty list",),
    ("", "sample_shape"): ("an empty list",),
    ("CouplingFlow", "periodic"): ("an empty list",),
    ("MultiplicityFlow", "periodic"): ("an empty list",),
    ("MultiplicityFlow", "uniform"): ("an empty list",),
    ("SVI", "clip"): ("infinity",),
    ("DiscFlow", "clip"): ("infinity",),
    ("DiscFlow", "discriminator_hidden"): ("an empty list",),
    ("diagnostics.Classifier", "missing"): ("an empty list",),
    ("HistogramBand.to_hist", "name"): ("a text",),
    ("diagnostics.Systematics.templates", "name"): ("a text",),
    ("diagnostics.Templates.sample", "sample"): ("a text",),
    ("diagnostics.Templates.workspace", "channel"): ("a text",),
    ("diagnostics.Templates.workspace", "sample"): ("a text",),
    ("diagnostics.Templates.workspace", "poi"): ("a text",),
    ("events.Nuisance", "name"): ("a text",),
    ("events.Nuisance", "low"): ("minus one",),
    ("events.Nuisance", "nominal"): ("minus one",),
    ("plotting.plot_classifier_weights", "title"): ("a text",),
    ("plotting.plot_weight_pulls", "title"): ("a text",),
    **{
        (f"plotting.{name}", "title"): ("a text",)
        for name in ("plot_amplification_map", "plot_differential", "plot_online", "plot_worth")
    },
    ("diagnostics.differential_amplification", "regions"): ("an empty list",),
    ("EventSample.column", "which"): ("minus one",),
    ("Worth.at", "n"): ("True", "infinity"),
    ("diagnostics.LineResult.line", "index"): ("minus one",),
    ("Posterior.histogram", "observable"): ("minus one",),
    ("diagnostics.marginal", "observable"): ("minus one",),
    ("diagnostics.coverage", "levels"): ("an empty list",),
    ("events.lepton_pair_observables", "lepton"): ("a text",),
    ("events.lepton_balance", "plus"): ("a text",),
    ("events.lepton_balance", "minus"): ("a text",),
    ("events.WhitenPerMultiplicity", "leave"): ("an empty list",),
    ("events.WhitenPerMultiplicity", "alone"): ("an empty list",),
    ("events.PowerLaw", "low"): ("minus one",),
    ("events.ShowerGeometry", "name"): ("a text",),
    ("events.Squash", "location"): ("minus one",),
    ("events.Positive", "low"): ("minus one",),
    ("events.UnitBox", "low"): ("minus one", "a half", "a numpy number"),
    ("events.UnitBox", "high"): ("True", "a half", "a numpy number"),
    ("events.check_events", "names"): ("an empty list",),
    ("diagnostics.MarginalResult.ratio_to_lines", "measure"): (
        "minus one",
        "a half",
        "a numpy number",
        "True",
        "NaN",
        "infinity",
    ),
    ("diagnostics.make_inference_data", "coords"): ("a dictionary",),
    ("plotting.plot_marginal_sigma", "measure"): (
        "an empty list",
        "minus one",
        "a half",
        "a numpy number",
        "True",
        "NaN",
        "infinity",
    ),
    ("", "mu"): ("minus one", "a half", "a numpy number"),
    ("", "w"): ("minus one", "a half", "a numpy number"),
    ("", "a"): ("minus one", "a half", "a numpy number"),
    ("", "x_min"): ("minus one", "a half", "a numpy number"),
    ("", "x_max"): ("minus one", "a half", "a numpy number"),
    ("diagnostics.make_inference_data", "attrs"): ("a dictionary",),
}
#: What a message calls an argument, where that is not its name.
NAMES_IN_MESSAGES = {
    ("", "x"): ("events",),
    ("", "values"): ("events",),
    ("", "probes"): ("events", "probe"),
    ("", "samples"): ("events", "sample"),
    ("", "bins"): ("bin edges",),
    ("", "n"): ("context", "weights"),
    ("EventSample.column", "which"): ("no column",),
    ("EventSample.select", "names"): ("no column", "at least one column"),
    ("diagnostics.marginal", "observable"): ("no column",),
    ("Posterior.histogram", "observable"): ("no column",),
    ("HistogramBand.plot", "data"): ("counts",),
    ("to_inference_data", "probe_context"): ("context",),
    ("", "flow"): ("cannot lift",),
    ("events.lepton_pair_coordinates", "mass_low"): ("low",),
    ("events.read_showers", "geometry"): ("no such file",),
    ("events.momenta", "particle"): ("x needs the columns",),
    ("events.lepton_pair", "plus"): ("x needs the columns",),
    ("events.lepton_pair", "minus"): ("x needs the columns",),
    ("diagnostics.compare", "posteriors"): ("one of 'x'",),
    ("diagnostics.roc_auc", "truth_weights"): ("weights",),
    ("diagnostics.roc_auc", "generated_weights"): ("weights",),
}
