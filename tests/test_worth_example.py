"""What Drell-Yan generators and toys are worth, as a user finds it: by the example's command line."""

import json
import math

import pytest
from test_examples import call, is_png, numbers


def test_worth_of_drell_yan(tmp_path):
    printed = call("worth", "--quick", "--train", "500", "--out", tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["training_events"] == 500 and set(told["worth"]) == {"E", "px", "pT", "pz", "E_pair", "M_pair"}
    assert set(told["cells"]) == {"4", "16"} and set(told["differential"]) >= {"all events", "M 80 to 100 GeV"}
    assert "1,000,000 generated events count as" in printed and "all events: D = " in printed
    assert all(is_png(tmp_path / f"{name}.png") for name in ("worth", "map", "differential"))
    assert (tmp_path / "posterior.h5").exists()


def test_the_toys(tmp_path):
    printed = call("worth", "--toys", "--quick", "--out", tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["target"], row["bins"]) for row in told] == [(t, n) for t, k in TOYS for n in k]
    assert all(math.isfinite(number) for number in numbers(told)) and "bias" in printed
    for row in told:
        assert row["ratio"][0] == pytest.approx(row["without"][0] / row["with"][0])


TOYS = (("camel", (10, 20, 50)), ("ring", (25, 49)))


def test_bad_arguments(tmp_path):
    assert "--backend" in call("worth", "--backend", "gan", "--out", tmp_path, code=2)
    message = call("worth", "--events", tmp_path / "none.h5", "--out", tmp_path, code=2)
    assert "none.h5" in message
