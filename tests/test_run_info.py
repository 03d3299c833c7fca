"""How a posterior came about: to JSON and back, and from files of the first version."""

import json
from dataclasses import fields, replace

import pytest
import torch
from known import RECORD, Location

import pyrogen as pg
from pyrogen.posterior import Finding, RunInfo

WHOLE = RunInfo(
    backend="HMC",
    settings={"seed": 3, "start": "map", "dtype": None},
    names=("x", "y"),
    units=("GeV", ""),
    context_names=("energy",),
    context_range=((90.0, 200.0),),
    data_sha256="ab12",
    training_events=500,
    validation_events=20,
    effective_size=412.5,
    exact=True,
    tempered=True,
    reweighted=True,
    is_posterior=False,
    local_reparameterization=False,
    local_reparameterization_reason="switched off",
    batching="one gradient for all chains",
    chains=4,
    epochs_done=12,
    kept_epoch=10,
    gradients=1234.5,
    seconds=6.25,
    device="cuda:0 (NVIDIA H100)",
    launch="one launch",
    compiled="not compiled: no compiler",
    sample=1,
    samples=3,
    batched=True,
    batched_reason="why not",
    prior_from={"backend": "SVI", "seed": 1},
    started_from={"backend": "SVI", "seed": 2, "started_from": {"backend": "Laplace"}},
    calibration=RECORD,
    findings=(Finding("the chains disagree", "R-hat is 2", "Try more", serious=False), Finding("stuck", "all", "Stop")),
    details={"rank": 5, "newton_decrement": 0.1},
)


@pytest.mark.parametrize("info", [WHOLE, RunInfo()], ids=["whole", "empty"])
def test_json_and_back(info):
    assert RunInfo.from_json(info.to_json()) == info
    assert RunInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("coverage", [0.7], r"info\.calibration\.coverage is '\[0\.7\]'; it must be tuple\[float, float\]"),
        ("coverage", [0.7, 0.1, 0.1], r"calibration\.coverage is .*tuple\[float, float\]"),
        ("curve", [[0.5, 0.4]], r"calibration\.curve is .*tuple\[tuple\[float, float, float\], \.\.\.\]"),
        ("rounds", [{"value": 1.0}], r"calibration\.rounds\.0\.coverage is 'missing'"),
        ("level", None, r"calibration\.level is 'None'; it must be float"),
    ],
)
def test_what_is_no_record_is_refused_by_name(entry, value, message):
    content = json.loads(json.dumps(WHOLE.to_json()))
    with pytest.raises(ValueError, match=message):
        RunInfo.from_json(content | {"calibration": content["calibration"] | {entry: value}})
    del content["calibration"][entry]
    with pytest.raises(ValueError, match=rf"info\.calibration\.{entry} is 'missing'"):
        RunInfo.from_json(content)


def test_every_entry_is_tested():
    unknown = RunInfo()
    assert all(getattr(WHOLE, entry.name) != getattr(unknown, entry.name) for entry in fields(RunInfo))


def test_a_file_keeps_all_of_it(tmp_path):
    model = pg.BayesianFlow(Location(2), preprocessing=None)
    weights = pg.posterior.MeanField(loc=torch.zeros(2), scale=torch.ones(2))
    pg.Posterior(model, weights, info=WHOLE).save(tmp_path / "posterior.h5")
    assert pg.load(tmp_path / "posterior.h5", flow=Location(2)).info == WHOLE


def test_findings_in_words():
    assert WHOLE.warnings == ("the chains disagree: R-hat is 2. Try more.", "stuck: all. Stop.")
    assert RunInfo().warnings == ()


def test_size_and_weights():
    assert RunInfo().size is None
    plain = RunInfo(training_events=500)
    assert plain.size == 500 and not plain.is_weighted
    assert replace(plain, effective_size=500.0).size == 500 and not replace(plain, effective_size=500.0).is_weighted
    assert WHOLE.size == 412.5 and WHOLE.is_weighted


# --- Files of the first version ---------------------------------------------------------------------------------

SHARED = {
    "settings": {"seed": 3, "dtype": None},
    "data_sha256": "ab12",
    "names": ["x", "y"],
    "units": None,
    "training_events": 500,
    "effective_size": 412.5,
    "gradients": 60.0,
    "seconds": 6.25,
}


def checked(content):
    """What became of it, with the entries that it shares with others already checked."""
    info = RunInfo.from_json(json.loads(json.dumps(SHARED | content)))
    assert info.settings == {"seed": 3, "dtype": None} and info.data_sha256 == "ab12"
    assert info.names == ("x", "y") and info.units is None
    assert (info.training_events, info.effective_size) == (500, 412.5)
    assert (info.gradients, info.seconds) == (60.0, 6.25)
    assert RunInfo.from_json(info.to_json()) == info
    return info


def test_a_sampler_of_version_1():
    warning = "the chains disagree: split R-hat of the potential is 1.32. Try a longer warmup and more draws"
    batched = "one gradient for all chains"
    info = checked({"backend": "HMC", "exact": True, "chains": 4, "chains_batched": batched, "warnings": [warning]})
    assert info.backend == "HMC" and info.exact and info.is_posterior and not info.tempered
    assert info.chains == 4 and info.batching == batched and info.details == {}
    (finding,) = info.findings
    assert finding.serious
    assert "the chains disagree: split R-hat of the potential is 1.32" in finding.found
    assert "Try a longer warmup and more draws" in finding.advice
    assert "1.32" in info.warnings[0] and "longer warmup" in info.warnings[0]


def test_a_laplace_approximation_of_version_1():
    figures = {
        "structure": "low_rank",
        "curvature": "hessian",
        "rank": 5,
        "largest_eigenvalue_left_out": 12.5,
        "largest_residual": 0.01,
        "negative_eigenvalues": 2,
        "smallest_eigenvalue": -0.3,
        "effective_parameters": 17.5,
        "gradient_norm": 1e-3,
        "newton_decrement": 0.02,
    }
    info = checked({"backend": "Laplace", "exact": False, "warnings": []} | figures)
    assert info.backend == "Laplace" and not info.exact and info.is_posterior
    assert info.details == figures and info.findings == ()
    assert info.chains is None and info.batching is None


def test_an_ensemble_of_version_1():
    """Its draws stand for no posterior; files did not say so then."""
    warnings = ["member 1 (of 3) ends with a loss of nan. Leave it out", "member 2 (of 3) is far. Try more steps"]
    info = checked({"backend": "Ensemble", "exact": False, "warnings": warnings})
    assert info.is_posterior is False and info.details == {}
    assert ["member 1" in info.findings[0].found, "member 2" in info.findings[1].found] == [True, True]
    assert [finding.advice for finding in info.findings] == ["Leave it out", "Try more steps"]


def test_a_variational_posterior_of_version_1():
    """Files had a reason in place of None, and no list of warnings."""
    content = {
        "backend": "SVI",
        "tempered": True,
        "local_reparameterization": True,
        "local_reparameterization_reason": "activations drawn per event",
        "validation_events": 100,
        "epochs_done": 12,
        "kept_epoch": 10,
    }
    info = checked(content)
    assert all(getattr(info, name) == value for name, value in content.items())
    assert info.findings == () and info.is_posterior and info.details == {}


def test_cost_and_temperature_of_the_first_version():
    """It told the cost of variational inference in passes alone, and did not label tempered samplers."""
    own = {name: value for name, value in SHARED.items() if name != "gradients"}
    svi = RunInfo.from_json(own | {"backend": "SVI", "epochs_done": 6, "settings": {"num_particles": 2}})
    assert svi.gradients == 12.0 and not svi.tempered
    hot = RunInfo.from_json(SHARED | {"backend": "SGLD", "gradients": 7.5, "settings": {"temperature": 0.5}})
    assert hot.gradients == 7.5 and hot.tempered
    assert not RunInfo.from_json(SHARED | {"backend": "SGLD", "settings": {"temperature": 1.0}}).tempered
    assert RunInfo.from_json(SHARED | {"backend": "SVI", "tempered": True}).tempered
