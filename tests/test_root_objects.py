"""Trees of ROOT with lists of objects."""

import numpy as np
import pytest
from test_multiplicity_files import equal, full
from test_multiplicity_sample import LAYOUT, NAMES, same, sample

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


@pytest.mark.parametrize("chunk", [2, 100])
def test_own_files_can_hold_lists(tmp_path, chunk):
    path = tmp_path / "a.root"
    full().save(path, objects="Jet")
    with uproot.open(path) as file:
        tree = file["events"]
        assert {"pt_l", "nJet", "Jet_pt", "Jet_eta", "weight"} <= set(tree.keys())
        assert tree["Jet_pt"].array().tolist()[2] == [18, 20]
        assert tree["nJet"].array().tolist() == [1, 3, 2, 1, 2]
    assert equal(events.read(path), full())  # not sorted by pt, which does not matter here
    assert np.array_equal(events.read(path).log_weights, full().log_weights)
    assert events.read(path, multiplicity=LAYOUT).multiplicity == LAYOUT
    parts = list(events.stream(path, chunk=chunk, columns=NAMES[:4]))
    assert same(np.concatenate([part.values for part in parts]), full().values[:, :4])
    with pytest.raises(ValueError, match="no column 'pt_j2'"):
        events.read(path, columns=["pt_j2"])


def test_lists_are_written_part_by_part(tmp_path):
    path = tmp_path / "a.root"
    with events.EventWriter(path, objects="Jet") as writer:
        for part in (full()[:2], full()[2:]):
            writer.write(part)
    assert equal(events.read(path), full())


def test_a_changed_number_in_a_list_is_noticed(tmp_path):
    path = tmp_path / "a.root"
    sample().save(path, objects="Jet")
    with uproot.open(path) as file:
        told, tree = str(file["pyrogen"]), file["events"].arrays(library="ak")
    for change, message in ((0.0, None), (1.0, "the checksum of its branch 'eta_j1' is wrong")):
        jets = ak.zip({"pt": tree["Jet_pt"], "eta": tree["Jet_eta"] + change})
        content = {"pt_l": np.asarray(tree["pt_l"]), "eta_l": np.asarray(tree["eta_l"]), "Jet": jets}
        with uproot.recreate(path) as file:
            kinds = dict.fromkeys(content, np.float64) | {"Jet": "var * {pt: float64, eta: float64}"}
            file.mktree("events", kinds, title="events of pyrogen").extend(content)
            file["pyrogen"] = told
        if message is None:
            assert equal(events.read(path), sample())
        else:
            with pytest.raises(FileFormatError, match=message):
                events.read(path)


def test_lists_that_cannot_be_written_are_named(tmp_path):
    path = tmp_path / "a.root"
    with pytest.raises(ValueError, match="objects is 'Jet'; it must be left out, because the sample has no"):
        sample().with_count(2).save(path, objects="Jet")
    with pytest.raises(ValueError, match="names of the columns of objects must be"):
        events.EventSample(sample().values, multiplicity=LAYOUT).save(path, objects="Jet")
    clash = events.EventSample(sample().values, ["Jet_pt", *NAMES[1:]], multiplicity=LAYOUT)
    with pytest.raises(ValueError, match="objects is 'Jet'; it must be another name: Jet_pt is a column"):
        clash.save(path, objects="Jet")
    assert not path.exists()
