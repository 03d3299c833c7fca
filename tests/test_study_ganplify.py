"""The example that compares generators: it trains, goes on from what is kept, and draws its figures."""

import json

import pytest
from studies import run

from pyrogen.diagnostics import Amplification


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ganplify")


def test_example_trains_compares_and_keeps(folder, capfd, short):
    quick = ("ganplify", "--quick", "--out", folder, "--generators")
    printed = run(*quick, "memory", "fit", "gan", "bootstrap", layout=False)
    assert "likelihood fit" in printed and "Bootstrap" in printed and "factor_training_events" not in printed
    told = json.loads((folder / "camel_100" / "summary.json").read_text())
    assert set(told) == {"training sample", "likelihood fit", "GAN", "Bootstrap"}
    assert told["Bootstrap"]["cpu_seconds"] > 0 and told["Bootstrap"]["weights"] == 223
    study = Amplification.load(folder / "camel_100" / "fit.h5")
    assert told["likelihood fit"]["rows"] == json.loads(json.dumps(study.table()))
    assert [row.quantiles for row in study.rows] == [10, 20, 50] and study.trainings == 3
    trained = (folder / "camel_100" / "bootstrap_trainings" / "2.h5").stat().st_mtime_ns
    (folder / "camel_100" / "bootstrap.json").unlink()  # the study is lost, the trainings are kept
    again = run(*quick, "memory", "gan", "bootstrap", layout=False)
    assert "training sample: kept from before" in again and "training Bootstrap" not in again
    assert trained == (folder / "camel_100" / "bootstrap_trainings" / "2.h5").stat().st_mtime_ns
    assert (
        json.loads((folder / "camel_100" / "summary.json").read_text())["Bootstrap"]["rows"]
        == told["Bootstrap"]["rows"]
    )


def test_example_puts_targets_and_training_sizes_into_figures(folder):
    memory = ("ganplify", "--quick", "--out", folder, "--generators", "memory")
    printed = run(*memory, "--events", "50", "--target", "ring", layout=False)
    assert "factor_dimension" not in printed  # that of a ring of another size is no partner of the camel back
    printed = run(*memory, "kde", "--target", "ring", layout=False)
    assert "10 quantiles of phi" in printed
    for name in ("ring_100/projected.png", "ring_100/deviation.png", "factor_training_events_ring.png"):
        assert (folder / name).exists() and name in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trainings", "2"), "--trainings 2: a band needs three or more"),
        (("--target", "ring", "--generators", "fit"), "--generators fit: the form of two Gaussians is that of"),
    ],
)
def test_example_refuses_what_cannot_be(options, message):
    assert message in run("ganplify", "--quick", *options, code=2)
