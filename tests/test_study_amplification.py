"""The protocol of [F] on the gamma ring, as a user runs it: as a script, from the command line."""

import json
import math

import numpy as np
import pytest
import torch
from studies import imported, run
from test_examples import is_png, numbers

import pyrogen as pg


def test_amplification(tmp_path):
    """Several processes count the same as one, and the table of what is counted is the same."""
    few = ("--quick", "--most", "3", "--draws", "6")
    printed = run("amplification", *few, "--out", tmp_path / "one", "--set", "epochs=5")
    told = json.loads((tmp_path / "one" / "svi_epochs_5.json").read_text())
    assert [row["n_bins"] for row in told["rows"]] == [4, 9] and "[F], VI: G(400) = 1.6, G(900) = 3.6" in printed
    assert all(0 < row["gain"] < row["largest"] and row["trainings"] == 2 and row["draws"] == 6 for row in told["rows"])
    assert all(math.isfinite(number) for number in numbers(told)) and is_png(tmp_path / "one" / "amplification.png")
    several = (*few, "--out", tmp_path / "several", "--set", "epochs=5")
    message = run("amplification", *several, "--gather", code=1)
    assert "several has no svi_epochs_5_posterior_0_of_2.h5, svi_epochs_5_posterior_1_of_2.h5: repeat" in message
    assert list((tmp_path / "several").iterdir()) == []  # nothing was trained
    for share in (("--only", "0"), ("--only", "1", "--part", "0/2"), ("--part", "1/2")):
        assert "--gather makes the table" in run("amplification", *several, *share)
    one = run("amplification", *several, "--gather")  # as many draws of each training
    assert one.count("counted draws") == 0 and "      4     2      4 " in one
    assert "counted draws 2 to 3 of training 1" in run("amplification", *several)
    assert json.loads((tmp_path / "several" / "svi_epochs_5.json").read_text()) == told
    run("amplification", *several, "--only", "0", "--most", "5")  # G of one training, the calibration of both
    run("amplification", *several, "--gather")
    rows = json.loads((tmp_path / "several" / "svi_epochs_5.json").read_text())["rows"]
    assert [(row["n_bins"], row["trainings"], row["calibrated_trainings"]) for row in rows] == [
        (4, 1, 2),
        (9, 1, 2),
        (25, 1, 1),
    ]
    for path in (tmp_path / "several").glob("*_counts_*"):
        path.unlink()
    assert "nothing is counted of SVI, epochs 5" in run("amplification", *several, "--gather", code=1)


def test_integrals_of_the_ring_are_the_probabilities_of_its_bins():
    script = imported("ring_bins")
    ring, wide = pg.targets.GammaRing(), torch.distributions.Normal(torch.zeros(2), 3.0)
    exact = script.bin_probabilities(lambda x: ring.log_prob(x).exp(), ring, (5, 7))
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
    run("amplification", *few, "--backend", "bootstrap")
    events = json.loads((tmp_path / "bootstrap.json").read_text())
    run("amplification", *few, "--backend", "bootstrap", "--integrate")
    integrals = json.loads((tmp_path / "bootstrap_integrated.json").read_text())
    for a, b in zip(events["rows"], integrals["rows"], strict=True):  # the same networks, other noise
        assert a["gain"] == pytest.approx(b["gain"], rel=0.4)
    run("amplification", *few, "--kl-weight", "0.3", "--sets", "1", "--draws", "8")
    names = {json.loads(path.read_text())["label"] for path in tmp_path.glob("*.json")}
    assert names == {"Bootstrap", "Bootstrap, integrated", "SVI, KL \u00d7 0.3"}
    message = run("amplification", *few, "--backend", "bootstrap", "--seed", "1", code=1)
    assert "bootstrap_posterior_0_of_2.h5 was fitted with seed 0, not 1" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "2"), "--only 2: the trainings are 0 to 1"),
        (("--part", "2/2"), "'2/2' is not a share, such as 0/3"),
        (("--backend", "bootstrap", "--kl-weight", "0.1"), "--kl-weight is an option of svi"),
        (("--device", "abacus"), "--device: device is 'abacus'; it must be a torch device"),
        (("--set", "epoch=3"), "--set: SVI.__init__() got an unexpected keyword argument 'epoch'"),
        (("--set", "epochs=-3"), "--set: epochs is -3"),
        (("--set", "epochs=3", "--set", "epochs=4"), "--set epochs: it is given 2 times"),
        (("--set", "kl_weight=0.5", "--kl-weight", "0.1"), "--set kl_weight: give it once, as --kl-weight"),
        (("--set", "seed=3"), "--set seed: give it once, as --seed"),
        (("--gather", "--only", "0"), "--gather counts nothing"),
        (("--draws", "4"), "--draws 4: an error of G needs 5 draws or more"),
    ],
)
def test_bad_arguments_of_amplification(arguments, message, tmp_path):
    told = run("amplification", "--quick", "--out", tmp_path, *arguments, code=2)
    assert message in told and "another --out" not in told


def test_a_damaged_file_of_counts_is_named(tmp_path):
    few = ("--quick", "--most", "3", "--out", tmp_path, "--set", "epochs=2")
    run("amplification", *few)
    path = tmp_path / "svi_epochs_2_counts_1_0.h5"
    path.write_bytes(path.read_bytes()[:-500])
    message = run("amplification", *few, code=1)
    assert path.name in message and "Delete it" in message
