"""Online training beside stored events, as a user runs it: by the example's command line."""

import json
import math

import pytest
from test_examples import call, is_png, numbers

STUDIED = {"online": [1000, 2000, 4000], "offline": [1000, 4000], "subset": [1000, 4000]}


@pytest.mark.parametrize("name", ["wedge", "drell-yan"])
def test_quick(name, tmp_path):
    with pytest.warns(UserWarning, match="too few steps for the widths"):  # which a quick run does not hide
        printed = call("online", "--quick", "--toy", name, "--out", tmp_path, layout=False)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert list(told) == [name] and {way: curve["events"] for way, curve in told[name].items()} == STUDIED
    assert all(math.isfinite(number) for number in numbers(told))
    measures = {"error", "sigma"} | ({"divergence"} if name == "wedge" else set())
    assert all(set(curve) == {"events", *measures} for curve in told[name].values())
    assert ("KL [nats]" in printed) == (name == "wedge") and is_png(tmp_path / f"online_{name}.png")
    assert len(printed.splitlines()) == 11  # name, header, seven rows, the figure, an empty line
