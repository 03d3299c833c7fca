"""Results as Datasets of xarray: every array, names, units, edges and notes; and back from a netCDF file."""

import dataclasses
import inspect

import numpy as np
import pytest
import xarray
from arguments import calibration, lines, marginal, posterior, systematics, weights

import pyrogen as pg
import pyrogen.plotting
from pyrogen import diagnostics
from pyrogen.labelled import EDGE, Labelled, inverse_unit
from pyrogen.posterior import Finding, LogDensities, RunInfo

ROOMS = (pg, pg.diagnostics, pg.posterior, pg.search)
CLASSES = {
    thing
    for room in ROOMS
    for thing in (getattr(room, name) for name in room.__all__)
    if inspect.isclass(thing) and issubclass(thing, Labelled)
}


@pytest.fixture(scope="module")
def fitted():
    """A posterior of columns with names and units; nothing has to be trained."""
    known = posterior()
    info = RunInfo(training_events=60, names=("pt", "eta"), units=("GeV", ""))
    return pg.Posterior(known.model, known.weights, None, info, progress=False)


def is_array(entry):
    return any(kind in str(entry.type) for kind in ("Array", "Tensor")) and "Mapping" not in str(entry.type)


@pytest.mark.parametrize("kind", sorted(CLASSES, key=lambda kind: kind.__name__))
def test_no_array_of_a_result_is_forgotten(kind):
    """The table of dimensions has every field that is an array, and nothing that is not there."""
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    dims = dict(kind._dims) | ({"truth": ""} if kind is diagnostics.Calibration else {})
    assert {name for name, entry in entries.items() if is_array(entry)} - set(dims) <= (
        {"events"} if kind is LogDensities else set()  # which are coordinates
    )
    assert set(kind._at) <= set(dims)
    for name in dims:
        assert name in entries or hasattr(kind, name), name


def test_there_are_many():
    assert len(CLASSES) >= 20


def written(dataset, tmp_path):
    """The dataset as a netCDF file gives it back."""
    dataset.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as found:
        return found.load()


def check_round_trip(result, tmp_path):
    dataset = result.to_xarray()
    found = written(dataset, tmp_path)
    xarray.testing.assert_equal(found, dataset)
    for name in dataset.variables:
        kept = {key: found[name].attrs.get(key) for key in dataset[name].attrs}
        assert kept == dataset[name].attrs, name
    assert found.attrs["result"] == type(result).__name__
    return found


def test_a_band_with_its_edges_unit_and_note(fitted, tmp_path):
    band = fitted.histogram("pt", [-2.0, 0.0, 3.0], n=50, draws=5)
    found = check_round_trip(band, tmp_path)
    assert dict(found.sizes) == {"bin": 2, "bin_edge": 3, "draw": 5, "other_bin": 2}
    np.testing.assert_array_equal(found["edges"], band.edges)
    np.testing.assert_array_equal(found["bin"], [-1.0, 1.5])
    np.testing.assert_array_equal(found["draws"], band.draws)
    np.testing.assert_array_equal(found["density"], band.density())
    np.testing.assert_array_equal(found["noise"], band.noise)
    assert found["edges"].attrs == found["bin"].attrs == {"units": "GeV", "long_name": "pt"}
    assert found["density"].attrs["units"] == "1/GeV" and "units" not in found["mean"].attrs
    wanted = {
        "events": 50,
        "procedure": "a",
        "closed": 1,
        "label": "pt",
        "unit": "GeV",
        "calibration": "not calibrated",
    }
    assert {name: found.attrs[name] for name in wanted} == wanted
    assert "noise" not in dataclasses.replace(band, noise=None).to_xarray()


def test_densities_and_log_densities(fitted, tmp_path):
    x = pg.EventSample([[0.5, 1.0], [0.1, -0.2], [0.3, 0.0]], ["pt", "eta"], ["GeV", ""])
    estimate = fitted.density(x, draws=4)
    assert (estimate.unit, estimate.calibration) == ("1/GeV", "not calibrated")
    assert " 1/GeV, sigma/p" in repr(estimate) and repr(estimate).endswith("not calibrated)")
    found = check_round_trip(estimate, tmp_path)
    assert found["mean"].dims == ("event",) and found["std"].attrs["units"] == "1/GeV"
    assert found.attrs["calibration"] == "not calibrated" and "units" not in found["relative"].attrs

    swapped = pg.EventSample(x.values[:, ::-1], ["eta", "pt"], ["", "GeV"])  # columns are chosen by name
    logs = fitted.log_densities(swapped, draws=4)
    assert isinstance(logs, LogDensities)
    found = check_round_trip(logs, tmp_path)
    np.testing.assert_array_equal(found["log_prob"], fitted.log_prob(x, draws=4).double())
    assert found["log_prob"].dims == ("draw", "event") and found["log_prob"].attrs["units"] == "nat"
    assert found["log_prob"].attrs["long_name"] == "log density per GeV"
    np.testing.assert_array_equal(found["pt"], x.column("pt"))
    assert found["pt"].attrs == {"units": "GeV"} and found["eta"].attrs == {}


def test_a_map_and_its_truth(fitted, tmp_path):
    result = diagnostics.uncertainty_map(fitted, ("pt", -1, 1), ("eta", 0, 1), 3, target=pg.targets.GaussianRing())
    found = check_round_trip(result, tmp_path)
    assert found["density"].dims == ("x", "y") and found["density"].attrs["units"] == "1/GeV"
    np.testing.assert_array_equal(found["truth"], result.truth)
    assert found["x"].attrs == {"units": "GeV", "long_name": "pt"} and found["y_edges"].attrs == {"long_name": "eta"}
    assert list(found.attrs["labels"]) == ["pt", "eta"] and "at" not in found.attrs


def test_coverage_with_its_verdict_and_curve(tmp_path):
    found = check_round_trip(calibration(), tmp_path)
    assert found.attrs["verdict"] == calibration().verdict and found.attrs["draws"] == calibration().draws
    nominal, covered, error = calibration().curve()
    np.testing.assert_array_equal(found["level"], nominal)
    np.testing.assert_array_equal(found["covered"], covered)
    assert found["truth"].dims == ("quantity",) and found["at"].attrs == {"long_name": calibration().label}
    each = dataclasses.replace(calibration(), truth=np.zeros_like(calibration().means))
    assert each.to_xarray()["truth"].dims == ("training", "quantity")


def test_lines_worth_and_variations(fitted, tmp_path):
    found = check_round_trip(lines(), tmp_path)
    assert found["means"].dims == ("line", "t") and found["t"].attrs == {"long_name": lines().label}
    band = fitted.histogram("pt", [-2.0, 0.0, 3.0], n=200, draws=9)
    found = check_round_trip(pg.Worth.of(band), tmp_path)
    np.testing.assert_array_equal(found["edges"], band.edges)
    assert found.attrs["left_out"] in ("band", ["band"]) and found["edges"].attrs["units"] == "GeV"
    found = check_round_trip(band.variations(), tmp_path)
    assert found["up"].dims == ("variation", "bin")


def test_rows_with_names_and_dictionaries(tmp_path):
    table = diagnostics.QualityTable(("a", "b"), ("GeV", ""), *np.ones((4, 2)), (5, 5), (5.0, 5.0, 5.0), 3)
    found = check_round_trip(table, tmp_path)
    assert found["names"].values.tolist() == ["a", "b"] and found["units"].values.tolist() == ["GeV", ""]
    assert list(found.attrs["sizes"]) == [5, 5] and found["ratio"].dims == ("observable",)
    fit = pg.search.SpectrumFit(
        {"p1": 1.0}, np.ones((1, 1)), np.arange(3.0), *(np.ones(2), np.eye(2), np.ones(2, bool)), 1, 1, 13
    )
    assert check_round_trip(fit, tmp_path).attrs["values"] == '{"p1": 1.0}'


def test_a_marginal_by_procedure(tmp_path):
    result = dataclasses.replace(marginal(), truth=np.array([0.2, 0.3]), label="pt", unit="GeV")
    found = check_round_trip(result, tmp_path)
    assert found["procedure"].values.tolist() == ["a", "b"] and found["density"].dims == ("procedure", "bin")
    for name in ("a", "b"):
        np.testing.assert_array_equal(found["density"].sel(procedure=name), result.density(name))
        np.testing.assert_array_equal(found["sigma"].sel(procedure=name), result.sigma(name))
        np.testing.assert_array_equal(found["relative"].sel(procedure=name), result.relative(name))
    np.testing.assert_array_equal(found["truth"], result.truth)
    np.testing.assert_array_equal(found["edges"], result.edges)
    assert found.attrs["label"] == "pt" and found.attrs["unit"] == "GeV"
    assert "truth" not in marginal().to_xarray()


def test_systematics_and_templates_by_parameter(tmp_path):
    result = systematics()
    found = check_round_trip(result, tmp_path)
    (name,) = result.shifts
    assert found["parameter"].values.tolist() == [name] and found["way"].values.tolist() == ["down", "up"]
    down, up = result.varied(name)
    np.testing.assert_array_equal(found["down"].sel(parameter=name), down)
    np.testing.assert_array_equal(found["up"].sel(parameter=name), up)
    for part in ("training", "systematic", "total"):
        np.testing.assert_array_equal(found["sigma"].sel(part=part), result.sigma(part))
        np.testing.assert_array_equal(found["covariance"].sel(part=part), result.covariance(part))
    assert found["covariance"].dims == ("part", "bin", "other_bin")
    known = found["rates"].notnull().all()
    assert bool(known) == (result.shifts[name].rates is not None)

    templates = result.templates()
    found = check_round_trip(templates, tmp_path)
    np.testing.assert_array_equal(found["nominal"], templates.nominal)
    np.testing.assert_array_equal(found["up"].sel(parameter=name), templates.up[name])
    np.testing.assert_array_equal(found["training_up"], templates.variations.up)
    np.testing.assert_array_equal(found["rest"], templates.rest)
    np.testing.assert_array_equal(found["edges"], templates.variations.edges)
    for label, unit in (("pt", "GeV"), ("pt", ""), ("", "")):
        told = dataclasses.replace(templates, label=label, unit=unit).to_xarray()["edges"].attrs
        assert (told.get("long_name", ""), told.get("units", "")) == (label, unit)


def test_agreement_and_classifier_weights(fitted, tmp_path):
    x = np.random.default_rng(0).normal(size=(400, 2))
    result = diagnostics.agreement(pg.EventSample(x[:200], ["pt", "eta"]), pg.EventSample(x[200:], ["pt", "eta"]))
    found = check_round_trip(result, tmp_path)
    assert found["comparison"].values.tolist() == [", ".join(names) for names in result.names]
    np.testing.assert_array_equal(found["p_value"], result.p_value)

    result = weights()
    found = check_round_trip(result, tmp_path)
    np.testing.assert_array_equal(found["w_generated"], result.w_generated)
    assert found["log_w_truth"].dims == ("truth_event",) and found["fold_generated"].dims == ("generated_event",)
    assert {"truth", "generated"} <= {*found.attrs["left_out"]}
    pulls = diagnostics.weight_pulls(result, posterior(), draws=3)
    found = check_round_trip(pulls, tmp_path)
    assert found["pull"].dims == ("event",) and found["median"].dims == ("w_bin",)
    assert found.attrs["events_without_pull"] == pulls.left_out and "left_out" not in found.attrs


def test_what_is_no_attribute_is_named():
    @dataclasses.dataclass(frozen=True, repr=False)
    class Odd(Labelled):
        _dims = {"values": f"bin{EDGE}"}

        values: np.ndarray
        finding: Finding
        mixed: tuple
        nothing: None = None

    found = Odd(np.arange(3), Finding("a", "b", "c"), (1, "x")).to_xarray()
    assert found.attrs == {"result": "Odd", "left_out": ["finding", "mixed"]}
    assert found["bin"].values.tolist() == [0.5, 1.5]


def test_units_of_densities():
    assert inverse_unit(["GeV", "", "GeV", "TeV"]) == "1/(GeV^2 TeV)"
    assert (inverse_unit(["", ""]), inverse_unit(["GeV"]), inverse_unit(["GeV"] * 2)) == ("", "1/GeV", "1/GeV^2")
