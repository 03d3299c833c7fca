"""Trees of ROOT with lists of objects."""

import numpy as np
import pytest
from test_multiplicity_sample import same

from pyrogen import events
from pyrogen.events import Multiplicity
from pyrogen.files import FileFormatError

ak = pytest.importorskip("awkward")
uproot = pytest.importorskip("uproot")

PT = [[50.0, 30.0], [70.0], [90.0, 60.0, 40.0, 20.0], [25.0]]
JETS = ["Jet_pt", "Jet_m"]


def write(path, pt=PT, m=None, **columns):
    """A tree ``Events`` with ``met, Jet_pt[nJet], Jet_m[nJet]``."""
    jets = ak.zip({"pt": ak.Array(pt), "m": ak.Array(pt if m is None else m) / 10})
    content = {"met": np.arange(float(len(pt))), "Jet": jets, **columns}
    with uproot.recreate(path) as file:
        tree = file.mktree("Events", {name: kind(column) for name, column in content.items()})
        tree.extend(content)
    return path


def kind(column):
    return np.float64 if isinstance(column, np.ndarray) else "var * {pt: float64, m: float64}"


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_lists_become_padded_columns(tmp_path, chunk):
    path = write(tmp_path / "a.root", weight=np.arange(1.0, 5))
    options = {"shared": ["met"], "objects": JETS, "most": 3, "surplus": "leading"}
    found = events.read(path, **options)
    nan = np.nan
    expected = [
        [0, 50, 5, 30, 3, nan, nan],
        [1, 70, 7, nan, nan, nan, nan],
        [2, 90, 9, 60, 6, 40, 4],
        [3, 25, 2.5, nan, nan, nan, nan],
    ]
    assert same(found.values, np.array(expected))
    assert found.names == ("met", "pt_Jet1", "m_Jet1", "pt_Jet2", "m_Jet2", "pt_Jet3", "m_Jet3")
    assert found.multiplicity == Multiplicity(1, 2, 3)
    assert found.weights.tolist() == [1, 2, 3, 4]
    assert found.provenance == {"file": "a.root", "dataset": "Events", "events_with_more_objects": 1}
    parts = list(events.stream(path, chunk=chunk, **options))
    assert same(np.concatenate([part.values for part in parts]), found.values)
    assert parts[-1].provenance == found.provenance
    assert events.read(path, columns=["met"], **options).multiplicity is None


def test_branches_can_be_called_otherwise(tmp_path):
    path = write(tmp_path / "a.root", PT[:2])
    found = events.read(path, shared={"pt_miss": "met"}, objects={"pt": "Jet_pt"}, most=2)
    assert found.names == ("pt_miss", "pt_j1", "pt_j2")
    assert "events_with_more_objects" not in found.provenance
    assert events.read(path, shared=(), objects=JETS, most=2, label="jet").names[0] == "pt_jet1"


def test_collections_of_an_rntuple(tmp_path):
    jets = ak.zip({"pt": ak.Array(PT), "m": ak.Array(PT)})
    with uproot.recreate(tmp_path / "a.root") as file:
        if not hasattr(file, "mkrntuple"):
            pytest.skip("this uproot writes no RNTuple")
        file.mkrntuple("Events", {"met": np.ones(4), "Jet": jets})
    found = events.read(tmp_path / "a.root", shared=["met"], objects=["Jet.pt", "Jet.m"], most=4)
    assert found.names[:3] == ("met", "pt_Jet1", "m_Jet1")
    assert found.counts.tolist() == [2, 1, 4, 1]


@pytest.mark.parametrize(
    ("pt", "options", "message"),
    [
        (PT, {}, r'1 of 4 events have more than most=3 .* event 2 with 4\. .*up to 4, or surplus="leading"'),
        ([[50.0], []], {}, "1 of 2 events have fewer than least=1 objects; the first is event 1 with 0"),
        ([[50.0], [30.0, 40.0]], {}, "not sorted by falling pT; the first is event 1"),
        ([[50.0], [np.nan]], {}, "'pt' of objects are missing, NaN or infinite; the first is in event 1"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 10])
def test_events_that_do_not_fit_are_named(tmp_path, pt, options, message, chunk):
    path = write(tmp_path / "a.root", pt)
    message = message if chunk == 10 else message.replace(f"1 of {len(pt)}", "1 of 1")
    with pytest.raises(FileFormatError, match=rf"a\.root holds no sample of events: .*{message}"):
        list(events.stream(path, chunk=chunk, shared=["met"], objects=JETS, most=3, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": JETS, "most": 3}, "shared is None; it must be given with objects"),
        ({"objects": JETS, "shared": ["met"]}, "most is None; it must be given with objects"),
        ({"most": 3}, r"most is \(3,\); it must be left out where objects is"),
        ({"objects": JETS, "shared": ["met"], "most": 0}, "most is 0"),
        ({"objects": JETS, "shared": ["met"], "most": 3, "surplus": "x"}, "surplus is 'x'"),
        ({"objects": ["pt", "eta"], "shared": ["met"], "most": 3}, "objects is .*branches of one collection"),
        ({"objects": "Jet_pt", "shared": ["met"], "most": 3}, "objects is 'Jet_pt'; it must be names of branches"),
        ({"objects": JETS, "shared": ["Jet_pt"], "most": 3}, "shared has 'Jet_pt', .* one number .* met"),
        ({"objects": ["Jet_x"], "shared": ["met"], "most": 3}, "objects has 'Jet_x', .* a list .* Jet_pt, Jet_m"),
        ({"objects": JETS, "shared": [], "most": 3, "multiplicity": Multiplicity(1, 2, 3)}, "multiplicity is"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    path = write(tmp_path / "a.root")
    with pytest.raises(ValueError, match=message):
        events.read(path, **options)


def test_a_tree_with_lists_tells_how_to_read_it(tmp_path):
    with pytest.raises(ValueError, match=r"'Jet_\w+' .* is not one number .*objects=\[\.\.\.\], most=3"):
        events.read(write(tmp_path / "a.root"))


def test_files_of_pyrogen_need_no_such_options(tmp_path):
    path = tmp_path / "a.root"
    found = events.read(write(tmp_path / "b.root"), shared=["met"], objects=JETS, most=4)
    found.save(path)
    assert events.read(path).multiplicity == Multiplicity(1, 2, 4)
    with pytest.raises(ValueError, match="objects is .*left out: .* is a file of pyrogen's"):
        events.read(path, shared=["met"], objects=JETS, most=4)
