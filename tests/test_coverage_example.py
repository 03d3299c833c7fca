"""The studies of the uncertainty run as a user runs them: as scripts, from the command line."""

import importlib.util
import json
import math

import numpy as np
import pytest
import torch
from test_examples import EXAMPLES, call, is_png, numbers, run

import pyrogen as pg


def test_two_backends_come_into_one_figure(tmp_path):
    run("coverage", "--quick", "--out", tmp_path, "--sets", 3)
    printed = run("coverage", "--quick", "--out", tmp_path, "--sets", 3, "--backend", "hmc")
    assert "3 trainings, 45 intervals each" in printed and "p_WAIC" in printed
    for name in ("svi", "hmc"):
        result = json.loads((tmp_path / "wedge" / f"{name}.json").read_text())
        assert result["sets"] == 3 and result["events"] == 300
        assert 0 <= result["coverage_1"][0] <= result["coverage_2"][0] <= 1
        assert all(math.isfinite(number) for number in numbers(result))
    assert is_png(tmp_path / "wedge" / "calibration.png")


def test_gamma_ring(tmp_path):
    printed = run("coverage", "--quick", "--out", tmp_path, "--target", "gamma-ring")
    result = json.loads((tmp_path / "gamma-ring" / "svi.json").read_text())
    assert result["n_bins"] == [4, 9, 16] and all(gain > 0 for gain in result["gains"])
    assert "G = a n_bins^b" in printed and is_png(tmp_path / "gamma-ring" / "amplification.png")


def test_every_target_has_settings_for_every_backend(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    where = importlib.util.spec_from_file_location("coverage_example", EXAMPLES / "coverage.py")
    script = importlib.util.module_from_spec(where)
    where.loader.exec_module(script)
    for target in script.TARGETS:
        for backend in script.NAMES:
            for mode in script.MODES:
                args = script.make_parser().parse_args(["--target", target, "--backend", backend])
                model, made = script.setup(args, mode, tmp_path / "run.h5", 1000)
                assert model.weights > 0 and isinstance(made, script.NAMES[backend])


def test_bootstrap(tmp_path):
    printed = run("coverage", "--quick", "--bootstrap", "--sets", "3", "--out", tmp_path)
    result = json.loads((tmp_path / "wedge" / "svi_bootstrap.json").read_text())
    assert result["bootstrap"] and len(result["calibration"]["ranks"]) == 3 and "3 trainings, 101 intervals" in printed


@pytest.mark.parametrize(("flow", "target"), [("affine", "ring"), ("spline", "wedge")])
def test_larger_flows_and_settings(flow, target, tmp_path):
    few = ("--quick", "--sets", "2", "--out", tmp_path, "--target", target, "--flow", flow, "--events", "400")
    run("coverage", *few, "--set", "epochs=5")
    printed = run("coverage", *few, "--backend", "bootstrap", "--set", "replicas=3", "--prior", "0.3")
    names = f"svi_flow_{flow}_events_400_epochs_5", f"bootstrap_flow_{flow}_events_400_prior_0.3_replicas_3"
    results = [json.loads((tmp_path / target / f"{name}.json").read_text()) for name in names]
    assert results[0]["settings"]["epochs"] == 5 and results[1]["settings"]["replicas"] == 3
    assert results[0]["events"] == 400 and "2 trainings" in printed


def test_a_calibrated_factor(tmp_path):
    printed = run("coverage", "--quick", "--kl-weight", "calibrated", "--sets", "2", "--out", tmp_path)
    result = json.loads((tmp_path / "wedge" / "svi_kl_weight_calibrated.json").read_text())
    assert "by parametric bootstrap of sample 0" in printed and result["settings"]["kl_weight"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "hmc", "--kl-weight", "0.1"), "--kl-weight is an option of svi"),
        (("--sets", "1"), "at least 2"),
        (("--set", "epochs"), "'epochs' is not NAME=VALUE with a value in JSON"),
        (("--set", "epoch=3"), "unexpected keyword argument"),
        (("--set", "epochs=-3"), "--set: epochs is -3"),
        (("--flow", "affine", "--backend", "hmc"), "--flow affine is for the toys, with --backend svi or bootstrap"),
        (("--kl-weight", "cold"), "'cold' is not a positive number"),
        (("--prior", "0"), "'0' is not a positive number"),
        (("--target", "circle"), "invalid choice"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    assert message in call("coverage", "--quick", "--out", tmp_path, *arguments, code=2)


def test_the_scan_over_training_sizes(tmp_path):
    few = ("--quick", "--sizes", "400", "1200", "--steps", "60", "--members", "2", "--out", tmp_path)
    printed = run("training_size", *few)
    result = json.loads((tmp_path / "wedge" / "summary.json").read_text())
    assert list(result["sizes"]) == ["400", "1200"] and len(result["exponent"]) == 2
    assert "sigma ~ N^(" in printed and is_png(tmp_path / "wedge" / "training_size.png")
    assert run("training_size", *few).splitlines()[-8:] == printed.splitlines()[-8:]  # from the checkpoints
    assert "fewer than the 200" in call("training_size", "--quick", "--sizes", "20", "--out", tmp_path, code=2)


def test_amplification(tmp_path):
    """Several processes count the same as one, and the table of what is counted is the same."""
    few = ("--quick", "--most", "3", "--draws", "6")
    printed = run("amplification", *few, "--out", tmp_path / "one", "--set", "epochs=5")
    told = json.loads((tmp_path / "one" / "svi_epochs_5.json").read_text())
    assert [row["n_bins"] for row in told["rows"]] == [4, 9] and "[F], VI: G(400) = 1.6, G(900) = 3.6" in printed
    assert all(0 < row["gain"] < row["largest"] and row["trainings"] == 2 and row["draws"] == 6 for row in told["rows"])
    assert all(math.isfinite(number) for number in numbers(told)) and is_png(tmp_path / "one" / "amplification.png")
    several = (*few, "--out", tmp_path / "several", "--set", "epochs=5")
    assert "nothing is counted of SVI, epochs 5" in call("amplification", *several, "--gather", code=1)
    for share in (("--only", "0"), ("--only", "1", "--part", "0/2"), ("--part", "1/2")):
        assert "--gather makes the table" in call("amplification", *several, *share)
    one = call("amplification", *several, "--gather")  # as many draws of each training
    assert one.count("counted draws") == 0 and "      4     2      4 " in one
    assert "counted draws 2 to 3 of training 1" in call("amplification", *several)
    assert json.loads((tmp_path / "several" / "svi_epochs_5.json").read_text()) == told
    call("amplification", *several, "--only", "0", "--most", "5")  # G of one training, the calibration of both
    call("amplification", *several, "--gather")
    rows = json.loads((tmp_path / "several" / "svi_epochs_5.json").read_text())["rows"]
    assert [(row["n_bins"], row["trainings"], row["calibrated_trainings"]) for row in rows] == [
        (4, 1, 2),
        (9, 1, 2),
        (25, 1, 1),
    ]


def test_integrals_of_the_ring_are_the_probabilities_of_its_bins(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    where = importlib.util.spec_from_file_location("ring_bins_example", EXAMPLES / "ring_bins.py")
    script = importlib.util.module_from_spec(where)
    where.loader.exec_module(script)
    ring, wide = pg.targets.GammaRing(), torch.distributions.Normal(torch.zeros(2), 3.0)
    exact = script.bin_probabilities(lambda x: ring.log_prob(x).exp(), ring, (7, 150))
    for n, p in exact.items():
        assert p * n * n == pytest.approx(np.ones(n * n), abs=1e-4)
    # A Gaussian of width 3 has half of its probability in the hole: P(r < a) = 1 - exp(-a^2 / 18).
    p = script.bin_probabilities(lambda x: wide.log_prob(x).sum(-1).exp(), ring, (2, 10))[10].reshape(10, 10)
    walls = ring.from_unit(torch.tensor([[i / 10, 0.0] for i in range(1, 10)], dtype=torch.float64)).norm(dim=-1)
    below = [0.0, *(1 - np.exp(-np.square(walls.numpy()) / 18)), 1.0]
    assert p == pytest.approx(np.repeat(np.diff(below)[:, None] / 10, 10, 1), abs=1e-5)
    # Not symmetric: the angle runs fastest, from 0 on.
    shifted = torch.distributions.Normal(torch.tensor([4.0, 3.0]), 0.4)
    p = script.bin_probabilities(lambda x: shifted.log_prob(x).sum(-1).exp(), ring, (5,))[5]
    counts = ring.quantile_bins(5).counts(shifted.sample((200_000,)).double()).numpy()
    assert np.abs(counts - 200_000 * p).max() < 4.5 * np.sqrt(200_000 * p.max())
    with pytest.raises(ValueError, match="the integral of the density is 0.5"):
        script.bin_probabilities(lambda x: ring.log_prob(x).exp() / 2, ring, (5,))
    with pytest.raises(ValueError, match=r"bins are \[11\]; they must divide"):
        script.bin_probabilities(lambda x: ring.log_prob(x).exp(), ring, (5, 11))


def test_amplification_of_several_backends(tmp_path):
    few = ("--quick", "--most", "3", "--out", tmp_path)
    call("amplification", *few, "--backend", "bootstrap")
    events = json.loads((tmp_path / "bootstrap.json").read_text())
    call("amplification", *few, "--backend", "bootstrap", "--integrate")
    integrals = json.loads((tmp_path / "bootstrap_integrated.json").read_text())
    for a, b in zip(events["rows"], integrals["rows"], strict=True):  # the same networks, other noise
        assert a["gain"] == pytest.approx(b["gain"], rel=0.4)
    call("amplification", *few, "--kl-weight", "0.3", "--sets", "1", "--draws", "8")
    names = {json.loads(path.read_text())["label"] for path in tmp_path.glob("*.json")}
    assert names == {"Bootstrap", "Bootstrap, integrated", "SVI, KL \u00d7 0.3"}
    message = call("amplification", *few, "--backend", "bootstrap", "--seed", "1", code=1)
    assert "bootstrap_posterior_0_of_2.h5 was fitted with seed 0, not 1" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "2"), "--only 2: the trainings are 0 to 1"),
        (("--part", "2/2"), "'2/2' is not a share, such as 0/3"),
        (("--backend", "bootstrap", "--kl-weight", "0.1"), "--kl-weight is an option of svi"),
        (("--device", "abacus"), "--device abacus: "),
        (("--draws", "4"), "--draws 4: an error of G needs 5 draws or more"),
    ],
)
def test_bad_arguments_of_amplification(arguments, message, tmp_path):
    assert message in call("amplification", "--quick", "--out", tmp_path, *arguments, code=2)


def test_a_damaged_file_of_counts_is_named(tmp_path):
    few = ("--quick", "--most", "3", "--out", tmp_path, "--set", "epochs=2")
    call("amplification", *few)
    path = tmp_path / "svi_epochs_2_counts_1_0.h5"
    path.write_bytes(path.read_bytes()[:-500])
    message = call("amplification", *few, code=1)
    assert path.name in message and "Delete it" in message
