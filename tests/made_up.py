"""Made-up results with fixed numbers, one call for each kind of figure: no training, the same on every machine.

``FIGURES`` has them by name. A name is that of a function of ``pg.plot``, with a word behind a dash for a variant.
"""

import math

import numpy as np

import pyrogen as pg
from pyrogen.coverage import calibration_of
from pyrogen.diagnostics import Failures, LineResult, MarginalResult, ShapeFit, SizeScan, UncertaintyMap
from pyrogen.diagnostics.amplification import cells as boxes
from pyrogen.diagnostics.amplification import differential as best
from pyrogen.diagnostics.amplification.averaging import AveragingAmplification
from pyrogen.diagnostics.amplification.result import Amplification, QuantileError
from pyrogen.diagnostics.control import failure_results as failing
from pyrogen.diagnostics.control import modes
from pyrogen.diagnostics.control.pulls import HistogramPulls, WeightPulls
from pyrogen.diagnostics.control.result import ClassifierWeights, Trainings
from pyrogen.diagnostics.control.tables import TailFractions
from pyrogen.diagnostics.quantile_bins import AmplificationFit
from pyrogen.diagnostics.shifts import Shift, Systematics
from pyrogen.posterior import Worth
from pyrogen.posterior.bands import multinomial_noise
from pyrogen.search import background, bump_result, cathode_result, cuts, histogram, shares, sic, spectrum

T = np.linspace(0.1, 0.9, 13)
NOTE = "calibrated with 20 replicas: factor 1.31 +- 0.08"


def random(seed):
    """Numbers that no version of numpy changes."""
    return np.random.RandomState(seed)


def line(sigma=1.0, note="", label="x"):
    """A density of 2 t with a tilt, and a sigma that is smallest in the middle."""
    widths = sigma * (0.03 + 0.25 * np.abs(T - 0.5) * T) * np.array([0.8, 1.0, 1.2])[:, None]
    means = 2.06 * T + np.array([0.02, 0.0, -0.02])[:, None]
    return LineResult(T, np.array([0.2, 0.5, 0.8]), means, widths, 2 * T, label, note)


def shape(scale=1.0):
    curves = {"delta_a": np.abs(T - 0.5), "delta_x_max": T**2}
    return ShapeFit(
        {"delta_a": 0.16 * scale, "delta_x_max": 0.10 * scale},
        {"delta_a": 0.012 * scale, "delta_x_max": 0.008 * scale},
        8.3, 11, curves, np.full(13, 0.01),
    )  # fmt: skip


class Fit:
    """The uncertainty of a fit; a real one needs events."""

    def __init__(self, scale):
        self.scale = scale

    def sigma(self, t):
        return self.scale * (0.02 + 0.1 * np.asarray(t) ** 2)


def band(bins=20, draws=40, events=20_000, label="$p_T$", unit="GeV", note="", log=False):
    """A falling spectrum."""
    edges = np.linspace(20.0, 120.0, bins + 1) if not log else np.geomspace(20.0, 400.0, bins + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    mean = np.exp(-centres / 25.0) * np.diff(edges)
    mean *= 0.9 / mean.sum()
    tilt, noise = random(1).normal(size=(draws, 1)), random(2).normal(size=(draws, bins))
    found = mean * (1 + 0.06 * tilt * (centres - 60) / 60 + np.sqrt((1 - mean) / (mean * events)) * noise)
    return pg.HistogramBand(
        edges, found, events, "a", multinomial_noise(found, events), label=label, unit=unit, calibration=note
    )


def counts(of, total=5_000):
    """True events near the band, one bin far away."""
    wiggle = 1 + 0.05 * np.sin(np.arange(len(of.mean))) + 0.02 * random(3).normal(size=len(of.mean))
    wiggle[5] = 1.6
    return np.round(total * of.mean * wiggle)


def panel(**look):
    of = band(**look)
    return pg.plot.HistogramPanel(of, counts(of), total=5_000)


def plane(truth=True):
    """A ring in two momenta."""
    edges = np.linspace(-1.5, 1.5, 31)
    centres = (edges[1:] + edges[:-1]) / 2
    radius = np.hypot(*np.meshgrid(centres, centres, indexing="ij"))
    true = np.where(radius < 1.45, np.exp(-0.5 * ((radius - 0.8) / 0.25) ** 2), 0.0)
    density = true * (1 + 0.1 * np.sin(3 * radius)) + 1e-4 * (radius < 1.45)
    sigma = 0.03 * density * (1 + 3 * radius**2) + 1e-5
    relative = np.divide(sigma, density, out=np.full_like(sigma, np.inf), where=density > 0)
    at = {} if truth else {"at": {"$m_{12}$": 91.2}, "at_units": ("GeV",)}
    return UncertaintyMap(
        edges, edges, density, sigma, relative, true if truth else None, ("$p_x$", "$p_y$"), ("GeV", "GeV"), **at
    )


def marginal():
    """Both procedures: the second one without the noise of new events."""
    own = band(bins=15)
    same = own.mean * (1 + 0.05 * random(5).normal(size=(40, 1)) * np.linspace(-1, 1.2, 15))
    return MarginalResult(
        {"a": own, "b": pg.HistogramBand(own.edges, same, 20_000, "b", 1e-12 * np.eye(15))}, None, "$p_T$", "GeV"
    )


def history():
    epoch = np.arange(1, 61)
    fall = np.exp(-epoch / 12.0)
    loss = {"nll": 2.3 + 0.8 * fall, "kl": 0.4 * np.exp(-epoch / 8.0) + 0.02}
    loss["validation_nll"] = loss["nll"] + 0.02 + 0.01 * np.sin(epoch)
    loss["loss"] = loss["nll"] + loss["kl"]
    loss["loss"][30] = 9.0
    return loss


def networks():
    step = np.arange(10.0, 310.0, 10.0)
    return {"step": step, "loss": 2.0 + np.exp(-step / 80) + 0.05 * random(6).normal(size=(12, 30))}


def chains():
    walk = 40 + random(7).normal(size=(4, 120)).cumsum(1) * 0.6
    fall = 40 + 300 * np.exp(-np.arange(60) / 8.0) + random(8).normal(size=(4, 60))
    accepted = np.clip(0.8 + 0.06 * random(10).normal(size=(4, 180)), 0, 1)
    steps = np.geomspace(1e-2, 3e-4, 180) * np.array([1.0, 1.1, 0.8, 0.9])[:, None]
    return {
        "potential": walk, "warmup_potential": fall,
        "acceptance": accepted[:, 60:], "warmup_acceptance": accepted[:, :60],
        "step_size": steps[:, 60:], "warmup_step_size": steps[:, :60],
    }  # fmt: skip


def calibration(width=1.0, trainings=8, seed=9):
    at = np.tile(np.linspace(0.1, 0.9, 10), 2)
    rng = random(seed)
    spread = 0.05 + 0.1 * at
    off = rng.normal(size=(trainings, 1, 20)) * spread * width
    return calibration_of(2 * at + off + spread * rng.normal(size=(trainings, 40, 20)), 2 * at, at, "t")


def scan():
    sizes = (1_000, 10_000, 100_000)
    return SizeScan(
        {n: line(math.sqrt(1e4 / n) * (1 + 0.1 * np.cos(T * 7 + n))) for n in sizes},
        {n: shape(math.sqrt(1e4 / n)) for n in sizes},
        {n: line(1.2 * (1e4 / n) ** 0.4 * (1 + 0.1 * np.sin(T * 9 + n))) for n in sizes},
        {n: Fit(math.sqrt(1e4 / n)) for n in sizes},
    )


def online():
    events = np.array([1e4, 1e5, 1e6, 1e7])
    return {
        name: {"events": events, "error": scale * events**-0.4, "sigma": 0.8 * scale * events**-0.38}
        for name, scale in (("online", 5.0), ("offline", 6.0), ("subset", 9.0))
    }


def study(bias=0.1, features=2, training_events=100, seed=11):
    """Generators that are wrong by ``bias`` in some quantiles."""
    rows = []
    for bins in (3, 5, 7):
        quantiles, rng = bins**features, random(seed + bins)
        p = 1 + bias * np.sin(np.arange(quantiles) * 2.0)
        p /= p.sum()
        sizes = np.array([100, 1_000, 10_000])
        error = np.mean((p - 1 / quantiles) ** 2) * (1 + 0.2 * rng.normal(size=6))
        noise = (quantiles - 1) / quantiles**2 / sizes
        found = np.stack([rng.multinomial(10_000, p) for _ in range(6)])
        rows.append(QuantileError(bins, None, sizes, training_events, error[:, None] + noise, error, found))
    names = ("r", "phi", "theta", "z")[:features]
    return Amplification(tuple(rows), "GaussianRing()", names, f"made up, {bias:g}", "", 0)


def averaged():
    """Cells of a falling density in two observables."""
    values = np.column_stack([random(12).exponential(30, 800), random(13).normal(size=800)])
    cells, worths = {}, {}
    for n in (4, 16, 64):
        cells[n] = boxes.Cells.of(values, n, ("$p_T$", r"$\eta$"), ("GeV", ""))
        gain = np.exp(0.8 * np.sin(np.arange(n) * 1.7)) * 2
        edges = np.arange(n + 1.0)
        of = pg.HistogramBand(edges, np.full((8, n), 1 / n), 1_000, "a", np.eye(n), label="cell", calibration=NOTE)
        error = np.where(np.arange(n) % 7 == 3, np.nan, 0.2 * gain * 1_000)
        worths[n] = Worth(of, gain * 1_000, error, (2_000.0, 300.0 if n < 64 else np.nan), (900.0, 90.0),
                          np.ones(n), 1_000.0)  # fmt: skip
    return AveragingAmplification(cells, worths)


def differential():
    def region(name, gain, error):
        return best.DifferentialWorth(
            name, (0.02, 0.004), (gain * 1_000, error * 1_000), 1_000.0, (0.3, 0.3), (3e3, 3e3)
        )

    regions = {"central": region("central", 2.5, 0.6), "$p_T > 80$ GeV": region("$p_T > 80$ GeV", 0.6, 0.1)}
    regions["forward"] = region("forward", 4.0, np.nan)
    sizes = np.array([100, 300, 1_000, 3_000, 10_000])
    far = np.hypot(0.02, 0.87 * np.sqrt(1 / sizes + 1 / 3_000))
    return best.DifferentialAmplification(region("all events", 1.9, 0.5), regions, None, sizes, far)


def worth(label="$p_T$", unit="GeV", log=True):
    of = band(bins=12, label=label, unit=unit, note=NOTE, log=log)
    number = 4_000 * np.exp(np.sin(np.arange(12)))
    error = np.where(np.arange(12) % 5 == 2, np.nan, 0.3 * number)
    return Worth(of, number, error, (5_200.0, 700.0), (1_500.0, 200.0), np.ones(12), 1_000.0)


def weights(control=True):
    """A generator that is too wide: small weights at both ends."""
    x, y = random(14).normal(size=(500, 1)), 1.3 * random(15).normal(size=(600, 1))
    at_truth, at_generated = (0.25 - 0.2 * values[:, 0] ** 2 for values in (x, y))
    epochs = np.arange(20)
    loss = 0.62 + 0.07 * np.exp(-epochs / 5.0) + 0.002 * np.arange(4)[:, None]
    trained = Trainings(loss, loss + 0.01 + 0.001 * epochs, np.full(4, 12), np.array([0.60, 0.61]))
    events = pg.EventSample(x, ("x",), ("GeV",)), pg.EventSample(y, ("x",), ("GeV",))
    if not control:
        events = events[0][:250], events[0][250:]
        at_truth, at_generated = 0.04 * random(16).normal(size=(2, 250))
    folds = [np.arange(len(each)) % 2 for each in events]
    spread = [np.full(len(each), 0.03) for each in events]
    return ClassifierWeights(
        *events, at_truth, at_generated, *spread, *folds, trained, {"method": "network", "folds": 2},
        weights(control=False) if control else None,
    )  # fmt: skip


def pulls(scale=1.0, histograms=True):
    rng = random(17)
    w = np.exp(0.2 * rng.normal(size=800))
    relative = 0.1 * np.exp(0.3 * rng.normal(size=800))
    edges = np.quantile(w, np.linspace(0, 1, 7))
    at = (edges[1:] + edges[:-1]) / 2
    middle = scale * (0.07 + 0.02 * np.arange(6))
    mean = np.linspace(0.05, 0.15, 10)
    shift = {name: 0.01 * scale * np.sin(k + np.arange(10)) for k, name in enumerate(("$p_T$", "mass"))}
    its = {
        name: HistogramPulls(np.arange(11.0), mean + off, np.full(10, 0.007), mean, np.full(10, 0.003))
        for name, off in shift.items()
    }
    return WeightPulls(
        "generated", scale * (1 - w) / relative, w, relative, np.ones(800), edges, at, 0.8 * middle, middle,
        1.3 * middle, 0.4, 0, its if histograms else {},
    )  # fmt: skip


def failures():
    """A smeared peak, and what follows from it."""
    edges = np.linspace(60.0, 120.0, 31)
    at = (edges[1:] + edges[:-1]) / 2

    def density(width, centre=91.0):
        return np.exp(-0.5 * ((at - centre) / width) ** 2) / width / math.sqrt(2 * math.pi)

    error = np.sqrt(density(5.0) / 4_000)
    tails = failing.TailHistogram(
        edges, density(5.0), error, density(8.0), error, density(14.0), 3 * error, density(3.0), 3 * error
    )
    few = failing.TailHistogram(edges, density(9.0, 85.0), error, density(9.0, 86.0), error)
    mode = modes.FailureMode("smeared peak", "m_ee", "GeV", (), 21.0)
    parts = ((0.93, 0.02, 21.0, 1e-20), (0.22, 0.02, 4.0, 1e-3))
    rows = (
        failing.ObservableFailure("m_ee", "$m_{ee}$", "GeV", "pair", *parts[0], 0.7, 0.6, 21.0, False, mode, tails),
        failing.ObservableFailure("E_e", "energy of the electron", "GeV", "column", *parts[1], 0.1, 0.1, 0.5, True,
                                  None, few),
    )  # fmt: skip
    two = np.array([0.1, 0.2])
    return Failures(rows, (mode,), 22.0, (0.6, 1.5), "control", TailFractions(*[two] * 8), 0.01, {}, (4_000, 4_000))


def systematics():
    of = band(bins=12)
    tilt = 0.06 * (of.centres - 60) / 60 * of.mean * np.ones((40, 1))
    shifts = {
        "scale": Shift("scale", (-1.0, 1.0), tilt, -0.8 * tilt, 1e-12 * np.eye(12)),
        "tune": Shift("tune", (-1.0, 1.0), 0.02 * of.mean * np.ones((40, 1)), -tilt / 3, 1e-12 * np.eye(12)),
    }
    return Systematics(of, shifts)


def hunted(method="sideband fit", trials=True):
    """A falling spectrum with an excess at 3.5 TeV."""
    edges = np.linspace(2.0, 6.0, 41)
    at = (edges[1:] + edges[:-1]) / 2
    expected = 4_000 * np.exp(-(at - 2) / 0.7)
    seen = np.round(expected + 60 * np.exp(-0.5 * ((at - 3.5) / 0.08) ** 2) + np.sqrt(expected) * np.sin(at * 9) * 0.8)
    low = np.linspace(2.3, 4.7, 9)
    high = low * 1.12
    inside = [(at > a) & (at < b) for a, b in zip(low, high, strict=True)]
    b = np.array([expected[its].sum() for its in inside])
    o = np.array([seen[its].sum() for its in inside])
    z = (o - b) / np.sqrt(b + (0.02 * b) ** 2)
    p = np.array([0.5 * math.erfc(its / math.sqrt(2)) for its in z])
    fit = spectrum.SpectrumFit({"log_p1": 1.0}, np.eye(1), edges, expected, np.outer(*[0.03 * expected] * 2),
                               np.ones(40, dtype=bool), 44.0, 37, 13.0)  # fmt: skip
    scans = bump_result.Trials(np.linspace(0.5, 4.0, 200), float(z.max())) if trials else None
    known = method == "sideband fit"
    return pg.search.BumpHuntResult(
        low, high, o, 0 * o, b, 0.02 * b, np.sqrt(o), z, p, True, method, (2.0, 6.0), edges, seen, np.sqrt(seen),
        fit if known else None, (), scans, "dijet mass", "TeV",
    )  # fmt: skip


def searched():
    """CATHODE with an excess in the tightest cuts."""
    rng = random(21)
    regions = pg.search.Regions(signal=(3.3, 3.7), window=(2.9, 4.1))
    mass = 2.9 + 3.0 * (1 - np.sqrt(1 - 0.64 * rng.random_sample(1_500)))
    inside = regions.in_signal(mass)
    features = np.column_stack([rng.exponential(100, 1_500), rng.random_sample(1_500)])
    names, units = ("$m_{j1}$", r"$\tau_{21}$"), ("GeV", "")
    sample = shares.SearchSample(
        features=pg.EventSample(features, names, units), mass=mass, name="$m_{jj}$", unit="TeV", regions=regions,
        in_signal=inside, fold=np.arange(1_500) % 6, folds=6, flows=3,
    )  # fmt: skip
    bins = np.linspace(0, 1, 13)
    fit = background.MassFit(
        edges=3.3 + 0.4 * bins, expected=np.linspace(46, 38, 12), total=500.0, sigma=15.0,
        sideband_edges=np.stack([2.9 + 0.4 * bins, 3.7 + 0.4 * bins]),
        sideband_expected=np.stack([np.linspace(54, 47, 12), np.linspace(37, 32, 12)]),
    )  # fmt: skip
    made = pg.EventSample(np.column_stack([rng.exponential(98, 4_000), rng.random_sample(4_000)]), names, units)
    tilt = 0.1 * rng.normal(size=(12, 1)) * (made.values[:, 0] / 100 - 1)
    one = background.Template(events=made, mass=np.full(4_000, 3.5), weights=(1 + tilt).astype(np.float32))
    efficiency = np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
    b = 500 * efficiency
    slices = np.concatenate([np.linspace(2.9, 3.3, 5), np.linspace(3.3, 3.7, 5)[1:], np.linspace(3.7, 4.1, 5)[1:]])
    before = np.histogram(mass, slices)[0]
    left = efficiency[:, None] * before
    excess = np.where((slices[:-1] > 3.25) & (slices[1:] < 3.75), 6.0, 0.0)
    table = cuts.CutTable(
        efficiency=efficiency, thresholds=np.zeros((6, 6)), observed=b + 24, background=b, sigma_posterior=0.05 * b,
        sigma_mass=0.03 * b, sigma_template=0.3 * np.sqrt(b), corrected=1.05 * b, sigma_corrected=0.1 * b + 1,
        sideband_observed=np.stack([b, b], 1), sideband_background=np.stack([b, b], 1),
        sideband_sigma=0.1 * np.stack([b, b], 1), slice_edges=slices, slice_observed=np.round(left + excess),
        slice_background=left, slice_sigma=0.15 * left + 0.5, slice_efficiency=left / before,
        slice_error=0.1 * left / before,
    )  # fmt: skip
    return cathode_result.Cathode(
        sample=sample, mass_fit=fit, posteriors=(), templates=(one, one), classifiers=(), members=np.zeros((2, 1_500)),
        table=table, seconds=1.0, settings={},
    )  # fmt: skip


def improvement(power, seed):
    eps = np.geomspace(1e-3, 1.0, 60)
    signal = eps ** (power * (1 + 0.05 * random(seed).normal()))
    return sic.SicCurve(threshold=-np.log(eps), signal_efficiency=signal, background_efficiency=eps,
                        signal_error=0.02 * signal, background_error=np.sqrt(eps / 3e4), least=25)  # fmt: skip


def methods():
    return {
        "CATHODE": sic.SicCurves([improvement(0.30, seed) for seed in range(4)]),
        "CWoLa": sic.SicCurves([improvement(0.36, seed + 9) for seed in range(4)]),
        "supervised": improvement(0.22, 30),
    }


def scores():
    edges = np.linspace(-2, 3, 26)
    at = (edges[1:] + edges[:-1]) / 2
    template = 5_000 * np.exp(-0.5 * (at / 0.7) ** 2)
    signal = 40 * np.exp(-0.5 * ((at - 1.8) / 0.4) ** 2)
    data = np.round(template * (1 + 0.03 * np.sin(at * 7)) + signal)
    return histogram.ScoreHistogram(edges=edges, data=data, data_error=np.sqrt(data), template=template,
                                    template_error=0.05 * template + 0.3, signal=signal)  # fmt: skip


def showers(factor=1.0):
    """Energy that falls from the middle of three layers."""
    geometry = pg.events.ShowerGeometry.small()
    parts = []
    for layer in geometry.layers:
        row, column = np.indices(layer.shape)
        middle = [(size - 1) / 2 for size in layer.shape]
        distance = np.hypot((row - middle[0]) / layer.shape[0], (column - middle[1]) / layer.shape[1])
        parts.append((np.exp(-8 * distance) * factor ** (column - middle[1])).ravel())
    return pg.events.Showers(np.tile(np.concatenate(parts), (3, 1)), np.full(3, 50.0), geometry)


BINS = np.array([10.0, 30.0, 100.0, 300.0])
PARTS = ({"SVI": 2 * BINS**0.3, "HMC": 1.2 * BINS**0.4}, {"SVI": 0.2 * BINS**0.3, "HMC": 0.1 * BINS**0.4})
POWERS = {"SVI": AmplificationFit(2.0, 0.1, 0.3, 0.02), "HMC": AmplificationFit(1.2, 0.1, 0.4, 0.02)}
LABELS = {"llabel": "pyrogen simulation", "rlabel": r"$\sqrt{s}=13$ TeV"}
PER = {"unit": "GeV", "density_unit": "1/GeV"}

#: By name, what gives the arguments of a call.
FIGURES = {
    "amplification": lambda: ((dict.fromkeys(PARTS[0], BINS), *PARTS, POWERS), {}),
    "amplification_map": lambda: ((averaged(),), {}),
    "backends": lambda: (
        ({"SVI": line(0.8), "HMC": line(label="x"), "Laplace": line(1.6)}, "HMC"), PER
    ),
    "calibration": lambda: (
        ({"SVI: 100,000 events, 300 epochs": calibration(1.6), "HMC": calibration(1.0, seed=10)},), PER
    ),
    "chains": lambda: ((chains(),), {}),
    "classifier_weights": lambda: ((weights(),), {}),
    "correlation": lambda: ((band(bins=8),), {}),
    "coverage": lambda: (
        ({f"{kind}: {n} trainings": calibration(w, n) for kind, w in (("SVI", 1.3), ("HMC", 1.0)) for n in (4, 16)},),
        {},
    ),
    "differential": lambda: ((differential(),), {}),
    "factor": lambda: (({"kernel density": study(), "flow": study(0.4)},), {}),
    "failures": lambda: ((failures(),), {}),
    "histogram": lambda: ((band(note=NOTE),), {}),
    "histogram-truth": lambda: ((band(), counts(band())), {"total": 5_000, "truth_label": "Pythia", "log": True}),
    "histograms": lambda: (([panel(), panel(bins=10, label="mass", unit="GeV"), panel(label="$x$", unit="")],), {}),
    "kinematics": lambda: (([panel(), panel(bins=10, label="$m_{ee}$", unit="GeV")],), LABELS),
    "lines": lambda: ((line(note=NOTE), shape(), None), PER),
    "map": lambda: ((plane(),), {}),
    "map-slice": lambda: ((plane(truth=False),), {"log": True}),
    "marginal_sigma": lambda: ((marginal(),), {}),
    "mass_after_cut": lambda: ((searched(),), {}),
    "online": lambda: ((online(),), {}),
    "p_values": lambda: (({"fit": np.linspace(0, 1, 150) ** 1.1, "counting": np.linspace(0, 1, 150) ** 0.95},), {}),
    "quantile_deviation": lambda: (({"kernel density": study(), "flow": study(0.4)},), {}),
    "quantile_error": lambda: (({"kernel density": study(), "flow": study(0.4)},), {}),
    "scan": lambda: (({"sideband fit": hunted(), "counting": hunted("counting", trials=False)},), {}),
    "scores": lambda: ((scores(),), {}),
    "shower_images": lambda: ((showers(), showers(1.03)), {}),
    "sic": lambda: ((methods(),), {}),
    "sic-background": lambda: ((methods(),), {"against": "background"}),
    "significance": lambda: ((searched(),), {}),
    "spectrum": lambda: ((hunted(),), {}),
    "spectrum-windows": lambda: ((hunted("counting"),), {}),
    "systematics": lambda: ((systematics(), counts(band(bins=12))), {"total": 5_000}),
    "template": lambda: ((searched(),), {"bins": 20}),
    "training": lambda: ((history(),), {}),
    "training-networks": lambda: ((networks(),), {}),
    "training_size": lambda: ((scan(),), PER),
    "uncertainties": lambda: (([panel(), panel(bins=10, label="$m_{ee}$", unit="GeV")],), LABELS),
    "weight_pulls": lambda: ((pulls(),), {}),
    "weight_pulls-several": lambda: (({"SVI": pulls(), "HMC": pulls(0.6)},), {}),
    "worth": lambda: (([worth(), worth("$m_{ee}$", "GeV", log=False)],), {}),
}  # fmt: skip


def draw(name, **changes):
    """The figure of a name."""
    args, kwargs = FIGURES[name]()
    return getattr(pg.plot, name.partition("-")[0])(*args, **kwargs | changes)
