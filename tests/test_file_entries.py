"""What stands in files without a digest, and in those that somebody made: numbers and JSON that no posterior has."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.bayes.model import BayesianFlow
from pyrogen.posterior.description import check_description

OLD = Path(__file__).parent / "data" / "v1_svi.h5"


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("weights/loc", lambda v: np.full_like(v, np.nan), "weights: loc holds NaN"),
        ("weights/scale", lambda v: -v, "weights: scale holds negative numbers"),
        ("weights/scale", lambda v: v[:5], r"weights: scale has the shape \[5\]"),
        ("weights/loc", lambda v: v[:, None], r"weights: loc has the shape \[102, 1\]"),
        ("weights/loc", lambda v: v.astype(int), "weights: loc holds torch.int64"),
        ("weights/loc", lambda v: "text", "dataset /weights/loc holds no numbers"),
        ("history/loss", lambda v: "text", "dataset /history/loss holds no numbers"),
        ("initial_weights", lambda v: v[:-1], "model: parameters is a list of 102 weights; it must be one of 101"),
        ("initial_weights", lambda v: v + np.inf, "initial_weights: it is no vector of finite"),
        ("flow_buffers/rotations", lambda v: v + np.nan, "model: flow_buffers/rotations holds NaN"),
    ],
)
def test_numbers_that_no_posterior_has(tmp_path, name, values, told):
    path = tmp_path / "a.h5"
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        old = file[name][()]
        del file[name]
        file[name] = values(old)
    with pytest.raises(pg.FileFormatError, match=rf"a\.h5: {told}"):
        pg.load(path)


@pytest.mark.parametrize(
    ("family", "arrays", "told"),
    [
        ("draws", {"draws": (2, 0, 102)}, r"draws has the shape \[2, 0, 102\]"),
        ("draws", {"draws": (3, 102)}, r"draws has the shape \[3, 102\]"),
        ("low_rank", {"loc": (102,), "cov_factor": (3, 102), "cov_diag": (102,)}, "cov_factor has the shape"),
        (
            "low_rank_precision",
            {"loc": (102,), "scale": (102,), "vectors": (102, 3), "shrink": (2,)},
            "vectors has the",
        ),
        ("multivariate", {"loc": (102,), "scale_tril": (102, 2)}, "scale_tril has the shape"),
        ("point", {"loc": (101,)}, "loc has the shape"),
        ("none", {"loc": (102,)}, "unknown family 'none'"),
    ],
)
def test_arrays_of_other_shapes(tmp_path, family, arrays, told):
    path = tmp_path / "a.h5"
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        del file["weights"]
        file.attrs["family"] = family
        for name, shape in arrays.items():
            file[f"weights/{name}"] = np.ones(shape, np.float32)
    with pytest.raises(pg.FileFormatError, match=rf"a\.h5: weights: {told}"):
        pg.load(path)


def change_json(path, name, entry, value):
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        content = json.loads(file[name][()].tobytes())
        place = content
        *outer, last = entry
        for key in outer:
            place = place[key]
        place[last] = value
        del file[name]
        file[name] = np.frombuffer(json.dumps(content).encode(), np.uint8)


@pytest.mark.parametrize("value", [None, "text", -1, 0.5, [], [[1]], {}, {"a": 1}, True, 10**12])
def test_json_of_the_wrong_type_names_file_and_entry(tmp_path, value):
    """Every entry of the description and of the record; some may have several types."""
    path, refused = tmp_path / "a.h5", 0
    with h5py.File(OLD) as file:
        content = {name: json.loads(file[name][()].tobytes()) for name in ("model", "info")}
    entries = [(name, (key,)) for name in content for key in content[name]]
    entries += [("model", (key, inner)) for key in ("flow_config", "preprocessing") for inner in content["model"][key]]
    for name, entry in entries:
        change_json(path, name, entry, value)
        try:
            pg.load(path)
        except pg.FileFormatError as error:
            assert str(error).startswith(f"{path}: {name}: "), error
            refused += 1
    assert refused >= 15


def test_a_description_may_not_ask_for_more_than_the_file_holds():
    description = json.loads(json.dumps(pg.load(OLD).model.describe()))
    check_description(description, 102)
    part = {"kind": "chain", "parts": [{"kind": "identity"}] * 1001}
    wrong = [description | {"preprocessing": part}]
    for name, value in {"blocks": 10**9, "hidden": [10**9], "features": 10**9, "bins": 10**9, "context": 10**9}.items():
        wrong.append(description | {"flow_config": description["flow_config"] | {name: value}})
    for one in wrong:
        with pytest.raises(ValueError, match="it must be (possible with the 102 weights|at most 1000 parts)"):
            check_description(one, 102)
    for flow in (
        pg.CouplingFlow(1, 1, ()),
        pg.CouplingFlow(9, 3, (5, 7), context=4),
        pg.CouplingFlow(4, 2, (3,), "rqs"),
    ):
        model = BayesianFlow(flow).prepare(torch.rand(50, flow.config["features"]))
        check_description(json.loads(json.dumps(model.describe())), model.weights)
