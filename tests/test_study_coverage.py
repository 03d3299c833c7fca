"""The studies of the uncertainty run as a user runs them: as scripts, from the command line."""

import json
import math

import numpy as np
import pytest
import torch
from studies import imported, run
from test_examples import EXAMPLES, is_png, numbers

import pyrogen as pg


def test_two_backends_come_into_one_figure(tmp_path, short, sparse):
    run("coverage_toys", "--quick", "--out", tmp_path, "--sets", 2)
    printed = run("coverage_toys", "--quick", "--out", tmp_path, "--sets", 2, "--backend", "hmc")
    assert "2 trainings, 45 intervals each" in printed and "p_WAIC" in printed
    for name in ("svi", "hmc"):
        result = json.loads((tmp_path / "wedge" / f"{name}.json").read_text())
        assert result["sets"] == 2 and result["events"] == 300
        assert 0 <= result["coverage_1"][0] <= result["coverage_2"][0] <= 1
        assert all(math.isfinite(number) for number in numbers(result))
    assert is_png(tmp_path / "wedge" / "calibration.png")


def test_gamma_ring(tmp_path):
    printed = run("coverage_toys", "--quick", "--out", tmp_path, "--target", "gamma-ring")
    result = json.loads((tmp_path / "gamma-ring" / "svi.json").read_text())
    assert result["n_bins"] == [4, 9, 16] and all(gain > 0 for gain in result["gains"])
    assert "G = a n_bins^b" in printed and is_png(tmp_path / "gamma-ring" / "amplification.png")


def test_every_target_has_settings_for_every_backend(tmp_path):
    script = imported("coverage_toys")
    for target in script.TARGETS:
        for backend in script.NAMES:
            for mode in script.MODES:
                args = script.make_parser().parse_args(["--target", target, "--backend", backend])
                model, made = script.setup(args, mode, tmp_path / "run.h5", 1000)
                assert model.weights > 0 and isinstance(made, script.NAMES[backend])


def test_larger_flows_and_settings(tmp_path):
    flow, target = "affine", "ring"
    few = ("--quick", "--sets", "2", "--out", tmp_path, "--target", target, "--flow", flow, "--events", "400")
    run("coverage_toys", *few, "--set", "epochs=5")
    printed = run("coverage_toys", *few, "--backend", "bootstrap", "--set", "replicas=3", "--prior", "0.3")
    names = f"svi_flow_{flow}_events_400_epochs_5", f"bootstrap_flow_{flow}_events_400_prior_0.3_replicas_3"
    results = [json.loads((tmp_path / target / f"{name}.json").read_text()) for name in names]
    assert results[0]["settings"]["epochs"] == 5 and results[1]["settings"]["replicas"] == 3
    assert results[0]["events"] == 400 and "2 trainings" in printed


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
        (("--device", "abacus"), "--device: device is 'abacus'; it must be a torch device"),
        (("--set", "=3"), "'=3' is not NAME=VALUE"),
        (("--set", "chains=4", "--backend", "hmc"), "--set chains: give it once, as --chains"),
        (("--set", "epochs=4", "--epochs", "5"), "--set epochs: give it once, as --epochs"),
        (("--set", "lr=1", "--set", "lr=2"), "--set lr: it is given 2 times"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    assert message in run("coverage_toys", "--quick", "--out", tmp_path, *arguments, code=2)


def test_all_studies_on_one_page(tmp_path, short, sparse):
    few = ("--quick", "--sets", "2", "--events", "100", "--set", "epochs=5", "--out", tmp_path)
    run("coverage_toys", *few)
    run("coverage_toys", *few, "--target", "ring", "--kl-weight", "0.5")
    printed = run("coverage_overview", tmp_path, "--figure", tmp_path / "all.png")
    rows = [line for line in printed.splitlines() if line.startswith("| wedge") or line.startswith("| ring")]
    assert [row.count("|") for row in rows] == [15, 15]
    assert "SVI |" in rows[0] and "SVI, KL \u00d7 0.5 |" in rows[1] and "2 \u00d7 20" in rows[0]
    assert (tmp_path / "all.png").stat().st_size > 10_000
    path = next((tmp_path / "wedge").glob("*.json"))
    study = json.loads(path.read_text())
    for change, message in (
        ({"target": "circle"}, "target is 'circle'; it must be one of wedge, kicker"),
        ({"backend": "gibbs"}, "backend is 'gibbs'; it must be one of bootstrap, hmc"),
        ({"backend": None}, "backend is None"),
        ({"events": "many"}, "events is 'many'"),
        ({"calibration": {"ranks": []}}, "its calibration cannot be read"),
    ):
        path.write_text(json.dumps(study | change))
        told = run("coverage_overview", tmp_path, "--figure", tmp_path / "all.png", code=2)
        assert f"{path}: {message}" in told
    path.write_text(json.dumps(study | {"backend": "laplace"}))
    run("coverage_overview", tmp_path, "--figure", tmp_path / "all.png")


def test_studies_that_differ_in_their_settings_are_rows_of_their_own():
    script = imported("coverage_overview")
    study = {"target": "wedge", "events": 100, "backend": "svi"}
    labels = ("SVI, epochs 5", "SVI, epochs 9", "SVI, epochs 9", "SVI, KL \u00d7 0.5")
    assert script.names([study | {"label": label} for label in labels]) == [
        "SVI: wedge, 100 events, Bernstein (SVI, epochs 5)",
        "SVI: wedge, 100 events, Bernstein (SVI, epochs 9), 1",
        "SVI: wedge, 100 events, Bernstein (SVI, epochs 9), 2",
        "SVI, KL \u00d7 0.5: wedge, 100 events, Bernstein",
    ]


def test_a_folder_without_studies_is_refused(tmp_path):
    assert "no results" in run("coverage_overview", tmp_path, code=2)
    assert "no such folder" in run("coverage_overview", tmp_path / "none", code=2)
    (tmp_path / "broken.json").write_text("{")
    assert "not JSON" in run("coverage_overview", tmp_path, code=2)


def test_every_bin_of_drell_yan_is_counted(tmp_path, short, sparse):
    quick = ("coverage_drell_yan", "--quick", "--generate", 10_000, "--out", tmp_path)
    printed = run(*quick)
    assert "M_pair" in printed and "4 trainings" in printed
    result = json.loads((tmp_path / "bootstrap.json").read_text())
    assert set(result["observables"]) == {"E", "px", "pT", "pz", "E_pair", "M_pair"}
    assert result["calibration"]["draws"] == 4
    again = run(*quick)  # the fits and the bins are kept
    assert "delete it to fill them afresh" in again
    (tmp_path / "bootstrap_bins_10000.json").write_text('{"of": 0, "counts": {}}')  # of other trainings
    assert "delete it to fill" not in run(*quick)
    assert json.loads((tmp_path / "bootstrap.json").read_text())["observables"] == result["observables"]


def test_bins_of_drell_yan_hold_what_the_truth_has():
    script = imported("coverage_drell_yan")
    truth = pg.events.read(EXAMPLES / "data" / "drell_yan_5k.h5")
    for name, content in script.STUDY.fill(torch.tensor(truth.values)).items():
        values, edges = pg.events.lepton_pair_observables()[name](truth).numpy(), script.STUDY.edges[name]
        expected = np.histogram(values[values < edges[-1]], edges)[0]
        assert content.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--train", "none.h5"), "no such file"),
        (("--kl-weight", "0.1"), "an option of svi"),
        (("--events", "2000"), "4 samples of 2,000 events need 8,000"),
        (("--set", "replicas=1"), "--set: replicas"),
        (("--set", "seed=1"), "--set seed: give it once, as --seed"),
        (("--device", "abacus"), "--device: device is 'abacus'; it must be a torch device"),
    ],
)
def test_drell_yan_coverage_refuses(tmp_path, arguments, message):
    assert message in run("coverage_drell_yan", "--quick", "--out", tmp_path, *arguments, code=2)
